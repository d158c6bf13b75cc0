//! The last stretch before the program: credentials, limits, filter, working directory, execve.

use super::capability::CapSet;
use super::error::{Doing, Setup, SetupError, show};
use super::host::Host;
use super::spec::ProcessSpec;
use super::user::Identity;
use crate::sys::process;
use nix::libc;
use rustix::fs::{FileType, Mode, Uid, fchown, fstat};
use rustix::process::{Rlimit, Signal, chdir, getcwd, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

/// Sets the limits; what is above our own hard limit is lowered to it rather than failing the step.
pub(super) fn limit(spec: &ProcessSpec) {
    for wanted in &spec.rlimits {
        let resource = wanted.kind.kernel();
        let new = Rlimit { current: wanted.soft, maximum: wanted.hard };
        if setrlimit(resource, new).is_ok() {
            continue;
        }
        let cap = |limit: Option<u64>, top: Option<u64>| match (limit, top) {
            (Some(limit), Some(top)) => Some(limit.min(top)),
            (None, top) => top,
            (limit, None) => limit,
        };
        let maximum = cap(new.maximum, getrlimit(resource).maximum);
        let _ = setrlimit(resource, Rlimit { current: cap(new.current, maximum), maximum });
    }
}

/// Makes the standard streams the user's when they are pipes, so that `> /dev/stdout` works.
pub(super) fn own_streams(who: &Identity) {
    if who.uid == 0 {
        return;
    }
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        if fstat(stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo) {
            // Not ours to change (a pipe of another user): the program can still use it as it is.
            let _ = fchown(stream, Some(Uid::from_raw(who.uid)), None);
        }
    }
}

/// Becomes the user with the capabilities of the spec and goes to the working directory.
pub(super) fn become_user(spec: &ProcessSpec, privileged: bool, who: &Identity, host: &Host) -> Setup<()> {
    let caps = CapSet(if privileged { CapSet::ALL.0 } else { spec.capabilities.0 } & host.permitted);
    drop_bounding(caps, host)?;
    if spec.no_new_privs {
        rustix::thread::set_no_new_privs(true).doing(|| "set no_new_privs".into())?;
    }
    // As root, since root can enter what the user perhaps cannot; as the user, where root is shut out (NFS).
    let entered = enter(&spec.cwd);
    // While CAP_SYS_ADMIN is still there; the filter lets all of what follows pass.
    if spec.seccomp && !privileged {
        let filter = match &spec.profile {
            Some(own) => own.program(spec.capabilities).into(),
            None => host.filter(spec.capabilities),
        };
        process::install_filter(&filter).doing(|| "install the system call filter".into())?;
    }
    set_ids(who)?;
    if who.uid == 0 {
        let set = CapabilitySet::from_bits_retain(caps.0);
        let sets = CapabilitySets { effective: set, permitted: set, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, sets).doing(|| "set the capabilities".into())?;
    }
    // A change of ids has cleared it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .doing(|| "bind to the parent".into())?;
    if entered.is_err() {
        enter(&spec.cwd)?;
    }
    Ok(())
}

fn drop_bounding(keep: CapSet, host: &Host) -> Setup<()> {
    for bit in (0..=host.last_cap).filter(|bit| !keep.has(*bit)) {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        rustix::thread::remove_capability_from_bounding_set(one)
            .doing(|| format!("drop capability {bit} from the bounding set"))?;
    }
    let _ = rustix::thread::clear_ambient_capability_set();
    Ok(())
}

fn set_ids(who: &Identity) -> Setup<()> {
    let gid = nix::unistd::Gid::from_raw(who.gid);
    let uid = nix::unistd::Uid::from_raw(who.uid);
    let groups: Vec<_> = who.groups.iter().map(|g| nix::unistd::Gid::from_raw(*g)).collect();
    let unmapped = |e: SetupError| {
        match e.errno {
        Some(libc::EINVAL) => e.hint(
            "this id is outside the range that the user may use: add ranges to /etc/subuid and /etc/subgid and install \
             newuidmap and newgidmap (package uidmap or shadow-utils)",
        ),
        _ => e,
    }
    };
    match nix::unistd::setgroups(&groups) {
        // Forbidden with a single mapped id; then there are no other groups to be rid of or to get than the own one.
        Err(nix::Error::EPERM) if groups.iter().all(|g| *g == gid) => {}
        other => other.doing(|| format!("set the groups {:?}", who.groups)).map_err(unmapped)?,
    }
    nix::unistd::setresgid(gid, gid, gid).doing(|| format!("become group {}", who.gid)).map_err(unmapped)?;
    nix::unistd::setresuid(uid, uid, uid).doing(|| format!("become user {}", who.uid)).map_err(unmapped)
}

/// Makes the working directory where it is missing and wanted. The root has been changed already.
pub(super) fn make_cwd(spec: &ProcessSpec) -> Setup<()> {
    if !spec.create_cwd {
        return Ok(());
    }
    let path = OsStr::from_bytes(&spec.cwd);
    let root = rustix::fs::open("/", rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, Mode::empty());
    root.map_err(std::io::Error::from)
        .and_then(|root| crate::sys::inroot::mkdir_all_in_root(root, path, Mode::from_raw_mode(0o755)))
        .map(drop)
        .doing(|| format!("make the working directory {}", show(&spec.cwd)))
}

fn enter(cwd: &[u8]) -> Setup<()> {
    let cwd = if cwd.is_empty() { b"/" } else { cwd };
    let doing = || format!("change to the working directory {}", show(cwd));
    if !cwd.starts_with(b"/") {
        return Err(SetupError::new(doing(), "it is not an absolute path"));
    }
    chdir(OsStr::from_bytes(cwd)).doing(doing)?;
    // A directory outside the root has no path inside it (CVE-2024-21626).
    let here = getcwd(Vec::new()).doing(doing)?;
    if here.as_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(SetupError::new(doing(), "it is outside the container's root"))
    }
}

/// Why a program did not start: the exit code of a shell, and docker's words.
#[derive(Debug)]
pub(super) struct NotExecuted {
    pub code: i32,
    pub text: String,
}

/// Replaces this process by the program; comes back only when that fails.
pub(super) fn execute(argv: &[Vec<u8>], env: &[Vec<u8>]) -> NotExecuted {
    let name = argv.first().map(Vec::as_slice).unwrap_or_default();
    let not = |code, why: &str| NotExecuted { code, text: format!("exec: \"{}\": {why}", show(name)) };
    let c_strings =
        |list: &[Vec<u8>]| list.iter().map(|s| CString::new(s.as_slice())).collect::<Result<Vec<_>, _>>();
    let (Ok(args), Ok(env_c)) = (c_strings(argv), c_strings(env)) else {
        return not(126, "an argument or variable contains a NUL byte");
    };
    if name.is_empty() {
        return not(127, "no command specified");
    }
    if name.contains(&b'/') {
        let error = run(name, &args, &env_c);
        return match error {
            nix::Error::ENOENT if exists(name) => {
                not(127, "its interpreter does not exist in the image (first line, or the ELF loader)")
            }
            nix::Error::ENOENT | nix::Error::ENOTDIR => {
                not(127, &format!("stat {}: no such file or directory", show(name)))
            }
            nix::Error::EACCES if is_dir(name) => not(126, "is a directory"),
            nix::Error::ENOEXEC => {
                not(126, "exec format error (built for another platform, or a script without #!)")
            }
            other => not(126, &lower(other)),
        };
    }
    let mut denied = None;
    for dir in search_path(env).split(|b| *b == b':') {
        let dir = if dir.is_empty() { b"." } else { dir };
        let candidate = [dir, b"/", name].concat();
        match run(&candidate, &args, &env_c) {
            nix::Error::ENOENT if exists(&candidate) => {
                return not(
                    127,
                    "its interpreter does not exist in the image (first line, or the ELF loader)",
                );
            }
            nix::Error::ENOENT | nix::Error::ENOTDIR => {}
            nix::Error::EACCES => denied = denied.or((!is_dir(&candidate)).then_some(nix::Error::EACCES)),
            nix::Error::ENOEXEC => {
                return not(126, "exec format error (built for another platform, or a script without #!)");
            }
            other => denied = Some(other),
        }
    }
    match denied {
        Some(errno) => not(126, &lower(errno)),
        None => not(127, "executable file not found in $PATH"),
    }
}

fn run(path: &[u8], args: &[CString], env: &[CString]) -> nix::Error {
    match CString::new(path) {
        Ok(path) => match nix::unistd::execve(&path, args, env) {
            Err(e) => e,
            Ok(never) => match never {},
        },
        Err(_) => nix::Error::ENOENT,
    }
}

fn search_path(env: &[Vec<u8>]) -> &[u8] {
    const DEFAULT: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    env.iter().rev().find_map(|e| e.strip_prefix(b"PATH=")).unwrap_or(DEFAULT)
}

fn exists(path: &[u8]) -> bool {
    rustix::fs::stat(OsStr::from_bytes(path)).is_ok()
}

fn is_dir(path: &[u8]) -> bool {
    rustix::fs::stat(OsStr::from_bytes(path))
        .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
}

fn lower(errno: nix::Error) -> String {
    errno.desc().to_lowercase()
}
