//! Rootless mode: an ordinary user becomes root of a user namespace of their own before anything else happens.
//!
//! [`enter`] clones this process into a new user and mount namespace, has the ids mapped ([`ids`]), and executes this
//! program again in there. The process that was started stays behind as a waiter: it passes signals on, ends as the
//! other one ends, and takes it along when it is killed.
//!
//! A command that starts containers joins the user namespace that all containers of the user share ([`anchor`]), since
//! only inside one can they be in a network together. All other commands have a namespace of their own.

mod anchor;
mod ids;

use super::host::in_user_namespace;
use crate::sys::process::{self, CloneFlags, Cloned};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitStatus, waitpid};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::pipe::{PipeFlags, pipe_with};
use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

pub(crate) use anchor::Stay;
pub(super) use anchor::main as anchor_main;

/// Carries the state to the program inside; `uid:gid:count`, and `:shared` in the containers' namespace.
const STATE: &str = "_RBUILD_ROOTLESS";

/// What the state ends with in the containers' namespace.
const SHARED: &str = ":shared";

/// Sent by the kernel rather than by `kill`: the whole foreground group has it already.
const SI_KERNEL: i32 = 0x80;

/// What is known of the user behind a rootless run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootlessState {
    /// The user's id outside.
    pub real_uid: u32,
    /// The user's group outside.
    pub real_gid: u32,
    /// How many ids exist inside; 1 when only the user's own could be mapped.
    pub mapped_ids: u32,
    /// Whether this is the namespace that the user's containers share.
    pub shared: bool,
}

/// Why rootless mode cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum RootlessError {
    /// The kernel or a security module refuses user namespaces.
    #[error("an ordinary user cannot make user namespaces here: {why}; {hint}")]
    NoUserNamespaces {
        /// What the kernel said.
        why: String,
        /// What to switch.
        hint: String,
    },
    /// The ids could not be mapped.
    #[error("cannot map user and group ids: {why}")]
    Mapping {
        /// What went wrong.
        why: String,
    },
    /// Something else failed.
    #[error("cannot enter rootless mode: {doing}")]
    Enter {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Enters rootless mode when this process is an ordinary user's. Call it first in `main`, before any thread exists.
///
/// As root it does nothing and gives `None`. For an ordinary user it does not return but runs the program anew as
/// root of a user namespace; there it gives the state. `shared` asks for the namespace that the user's containers
/// share; where that cannot be had it is one of its own.
pub fn enter(shared: bool) -> Result<Option<RootlessState>, RootlessError> {
    if rustix::process::geteuid().is_root() {
        return Ok(state());
    }
    match run_inside(shared)? {}
}

/// Gives the state inside rootless mode; `None` for real root.
pub fn state() -> Option<RootlessState> {
    let text = std::env::var(STATE).ok()?;
    let (numbers, shared) = match text.strip_suffix(SHARED) {
        Some(numbers) => (numbers, true),
        None => (text.as_str(), false),
    };
    let mut numbers = numbers.split(':').map_while(|n| n.parse().ok());
    let (real_uid, real_gid, mapped_ids) = (numbers.next()?, numbers.next()?, numbers.next()?);
    let state = RootlessState { real_uid, real_gid, mapped_ids, shared };
    // Set by hand it means nothing.
    in_user_namespace().then_some(state)
}

impl RootlessState {
    /// Says what does not work with one mapped id and how to get more; `None` when there is nothing to say.
    pub fn advice(&self) -> Option<String> {
        if self.mapped_ids > 1 {
            return None;
        }
        let user =
            ids::user_names(self.real_uid).into_iter().next().unwrap_or_else(|| self.real_uid.to_string());
        let cure = if !ids::has_map_tools() {
            "install newuidmap and newgidmap (package uidmap or shadow-utils)".to_owned()
        } else {
            format!(
                "add ranges with `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}`"
            )
        };
        Some(format!("only one user id is available, so chown and USER to other ids will fail; {cure}"))
    }
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> RootlessError {
    move |source| RootlessError::Enter { doing, source }
}

fn run_inside(shared: bool) -> Result<Infallible, RootlessError> {
    let ids = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let door = match shared {
        true => anchor::door(|dir, left| start(left, ids, |_| anchor::execute(dir))).ok(),
        false => None,
    };
    // Blocked from before there is somebody to pass them on to.
    let mask = caught();
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&mask), Some(&mut before))
        .map_err(|e| failed("block signals")(e.into()))?;
    let tail = if door.is_some() { SHARED } else { "" };
    let (child, _) = start(door.as_ref(), ids, |count| execute_again(count, ids, tail, &before))?;
    // the door stays open, so that its namespace lasts at least as long as this
    wait_for(child, &mask)
}

/// Starts a process as root of a new user namespace, or of the one behind `door`. It does `act`, which only comes back
/// with an error. Gives the process's id and the number of ids it has.
fn start(
    door: Option<&anchor::Door>,
    (uid, gid): (u32, u32),
    act: impl FnOnce(u32) -> io::Error,
) -> Result<(i32, u32), RootlessError> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed("make a pipe")(e.into()));
    let ((mapped, tell_mapped), (trouble, tell_trouble)) = (pipe()?, pipe()?);
    let flags = match door {
        Some(_) => CloneFlags::NONE,
        None => CloneFlags::USER.with(CloneFlags::MOUNT),
    };
    let child = match process::clone_process(flags) {
        Ok(Cloned::Child) => {
            drop((tell_mapped, trouble));
            let ready = || -> io::Result<u32> {
                let mut count = [0; 4];
                File::from(mapped).read_exact(&mut count)?;
                door.map_or(Ok(()), anchor::Door::join)?;
                become_root()?;
                Ok(u32::from_le_bytes(count))
            };
            let error = ready().map_or_else(|e| e, act);
            let _ = write!(File::from(tell_trouble), "{error}");
            process::exit_now(125)
        }
        Ok(Cloned::Parent { pid, .. }) => pid.as_raw_nonzero().get(),
        Err(e) => return Err(no_namespaces(&e.to_string())),
    };
    drop((mapped, tell_trouble));
    let count = match door {
        Some(door) => door.mapped_ids,
        None => ids::map(child, uid, gid)?,
    };
    File::from(tell_mapped).write_all(&count.to_le_bytes()).map_err(failed("speak to the new process"))?;
    let mut why = String::new();
    File::from(trouble).read_to_string(&mut why).map_err(failed("hear from the new process"))?;
    if why.is_empty() { Ok((child, count)) } else { Err(no_namespaces(&why)) }
}

/// Becomes root of the user namespace that this process is in, with mounts of its own.
fn become_root() -> io::Result<()> {
    let (root_group, root) = (nix::unistd::Gid::from_raw(0), nix::unistd::Uid::from_raw(0));
    nix::unistd::setresgid(root_group, root_group, root_group)?;
    nix::unistd::setresuid(root, root, root)?;
    // Shows whether root here really is root: AppArmor may let the namespace be and take its powers.
    Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

/// The rest of the new process's life as this program; gives what went wrong.
fn execute_again(count: u32, (uid, gid): (u32, u32), tail: &str, mask: &SigSet) -> io::Error {
    let go = || -> io::Result<Infallible> {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(mask), None)?;
        let c_string = |s: OsString| CString::new(s.into_vec()).map_err(io::Error::other);
        let args = std::env::args_os().map(c_string).collect::<io::Result<Vec<_>>>()?;
        let mut env = Vec::new();
        for (name, value) in std::env::vars_os().filter(|(name, _)| name != STATE) {
            let mut entry = name;
            entry.push("=");
            entry.push(value);
            env.push(c_string(entry)?);
        }
        env.push(c_string(format!("{STATE}={uid}:{gid}:{count}{tail}").into())?);
        Ok(nix::unistd::execve(c"/proc/self/exe", &args, &env)?)
    };
    match go() {
        Err(e) => e,
        Ok(never) => match never {},
    }
}

fn no_namespaces(why: &str) -> RootlessError {
    RootlessError::NoUserNamespaces { why: why.to_owned(), hint: namespace_hint() }
}

/// Finds the switch that is off.
pub(super) fn namespace_hint() -> String {
    let is = |path: &str, value: &str| {
        std::fs::read_to_string(PathBuf::from("/proc/sys").join(path)).is_ok_and(|text| text.trim() == value)
    };
    if is("kernel/unprivileged_userns_clone", "0") {
        "switch them on with `sysctl kernel.unprivileged_userns_clone=1`"
    } else if is("user/max_user_namespaces", "0") {
        "raise the limit with `sysctl user.max_user_namespaces=15000`"
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor restricts them: add a profile for rbuild with `userns,` or `sysctl \
         kernel.apparmor_restrict_unprivileged_userns=0`"
    } else {
        "see the settings user.max_user_namespaces and kernel.unprivileged_userns_clone, and the seccomp profile of an \
         outer container"
    }
    .to_owned()
}

/// All that can be passed on. Stopping and continuing stay with the terminal and the shell.
fn caught() -> SigSet {
    let mut set = SigSet::all();
    use Signal::{SIGBUS, SIGCONT, SIGFPE, SIGILL, SIGSEGV, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};
    for signal in [SIGBUS, SIGCONT, SIGFPE, SIGILL, SIGSEGV, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU] {
        set.remove(signal);
    }
    set
}

/// Passes signals on until the process has ended, then ends the same way.
fn wait_for(child: i32, mask: &SigSet) -> Result<Infallible, RootlessError> {
    let child = nix::unistd::Pid::from_raw(child);
    let signals = SignalFd::with_flags(mask, SfdFlags::SFD_CLOEXEC);
    let signals = signals.map_err(|e| failed("watch for signals")(e.into()))?;
    loop {
        if let Ok(Some(info)) = signals.read_signal() {
            let signal = Signal::try_from(info.ssi_signo.cast_signed());
            match signal {
                Ok(Signal::SIGCHLD) => match waitpid(child, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::Exited(_, code)) => process::exit_now(code),
                    Ok(WaitStatus::Signaled(_, signal, _)) => process::die_of(signal as i32),
                    _ => {}
                },
                Ok(signal) if info.ssi_code != SI_KERNEL => drop(nix::sys::signal::kill(child, signal)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_id_comes_with_advice() {
        let state =
            |mapped_ids| RootlessState { real_uid: 4_000_000, real_gid: 1, mapped_ids, shared: false };
        assert_eq!(state(65537).advice(), None);
        assert!(state(1).advice().unwrap().contains("chown"));
    }
}
