//! Rootless mode: an ordinary user becomes root of a user namespace of their own before anything else happens.
//!
//! [`enter`] clones this process into a new user and mount namespace, has `newuidmap` and `newgidmap` map the ranges
//! of `/etc/subuid` and `/etc/subgid` (or the user's own id alone), and executes this program again in there. The
//! process that was started stays behind as a waiter: it passes signals on, ends as the other one ends, and takes it
//! along when it is killed.

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
use std::process::Command;

/// Carries the state to the program inside; `uid:gid:count`.
const STATE: &str = "_RBUILD_ROOTLESS";

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
/// root of a user namespace; there it gives the state.
pub fn enter() -> Result<Option<RootlessState>, RootlessError> {
    if rustix::process::geteuid().is_root() {
        return Ok(state());
    }
    match run_inside()? {}
}

/// Gives the state inside rootless mode; `None` for real root.
pub fn state() -> Option<RootlessState> {
    let text = std::env::var(STATE).ok()?;
    let mut numbers = text.split(':').map_while(|n| n.parse().ok());
    let state =
        RootlessState { real_uid: numbers.next()?, real_gid: numbers.next()?, mapped_ids: numbers.next()? };
    // Set by hand it means nothing.
    in_user_namespace().then_some(state)
}

impl RootlessState {
    /// Says what does not work with one mapped id and how to get more; `None` when there is nothing to say.
    pub fn advice(&self) -> Option<String> {
        if self.mapped_ids > 1 {
            return None;
        }
        let user = user_names(self.real_uid).into_iter().next().unwrap_or_else(|| self.real_uid.to_string());
        let cure = if !has_map_tools() {
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

fn run_inside() -> Result<Infallible, RootlessError> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed("make a pipe")(e.into()));
    let ((mapped, tell_mapped), (trouble, tell_trouble)) = (pipe()?, pipe()?);
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    // Blocked from before there is somebody to pass them on to.
    let mask = caught();
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&mask), Some(&mut before))
        .map_err(|e| failed("block signals")(e.into()))?;
    let child = match process::clone_process(CloneFlags::USER.with(CloneFlags::MOUNT)) {
        Ok(Cloned::Child) => {
            drop((tell_mapped, trouble));
            let error = inside(&mut File::from(mapped), (uid, gid), &before);
            let _ = write!(File::from(tell_trouble), "{error}");
            process::exit_now(125)
        }
        Ok(Cloned::Parent { pid, .. }) => pid.as_raw_nonzero().get(),
        Err(e) => return Err(no_namespaces(&e.to_string())),
    };
    drop((mapped, tell_trouble));
    let count = map_ids(child, uid, gid)?;
    File::from(tell_mapped).write_all(&count.to_le_bytes()).map_err(failed("speak to the new process"))?;
    let mut why = String::new();
    File::from(trouble).read_to_string(&mut why).map_err(failed("hear from the new process"))?;
    if !why.is_empty() {
        return Err(no_namespaces(&why));
    }
    wait_for(child, &mask)
}

/// The rest of the new process's life as this program; gives what went wrong.
fn inside(mapped: &mut File, (uid, gid): (u32, u32), mask: &SigSet) -> io::Error {
    let mut go = || -> io::Result<Infallible> {
        let mut count = [0; 4];
        mapped.read_exact(&mut count)?;
        let count = u32::from_le_bytes(count);
        let (root_group, root) = (nix::unistd::Gid::from_raw(0), nix::unistd::Uid::from_raw(0));
        nix::unistd::setresgid(root_group, root_group, root_group)?;
        nix::unistd::setresuid(root, root, root)?;
        // Shows whether root here really is root: AppArmor may let the namespace be and take its powers.
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
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
        env.push(c_string(format!("{STATE}={uid}:{gid}:{count}").into())?);
        Ok(nix::unistd::execve(c"/proc/self/exe", &args, &env)?)
    };
    match go() {
        Err(e) => e,
        Ok(never) => match never {},
    }
}

/// Maps the ids of a new user namespace and says how many.
fn map_ids(child: i32, uid: u32, gid: u32) -> Result<u32, RootlessError> {
    let names = user_names(uid);
    let ranges = |file: &str| ranges_of(&std::fs::read_to_string(file).unwrap_or_default(), uid, &names);
    let (uids, gids) = (ranges("/etc/subuid"), ranges("/etc/subgid"));
    if !uids.is_empty() && !gids.is_empty() && has_map_tools() {
        run_map_tool("newuidmap", child, uid, &uids)?;
        run_map_tool("newgidmap", child, gid, &gids)?;
        return Ok(1 + uids.iter().map(|r| r.1).sum::<u32>().min(gids.iter().map(|r| r.1).sum()));
    }
    let write = |file: &str, text: String| {
        let path = format!("/proc/{child}/{file}");
        std::fs::write(&path, text)
            .map_err(|e| RootlessError::Mapping { why: format!("writing {path}: {e}") })
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {uid} 1"))?;
    write("gid_map", format!("0 {gid} 1"))?;
    Ok(1)
}

fn run_map_tool(tool: &str, child: i32, own: u32, ranges: &[(u32, u32)]) -> Result<(), RootlessError> {
    let mut command = Command::new(tool);
    command.arg(child.to_string()).args(["0", &own.to_string(), "1"]);
    let mut inside = 1u32;
    for (first, count) in ranges {
        command.args([inside, *first, *count].map(|n| n.to_string()));
        inside = inside.saturating_add(*count);
    }
    let out = command
        .output()
        .map_err(|e| RootlessError::Mapping { why: format!("{tool} cannot be executed: {e}") })?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr).trim().escape_debug().to_string();
    let hint = "is it setuid root or does it have its file capability, and do its ranges not overlap?";
    Err(RootlessError::Mapping { why: format!("{tool} failed: {said} ({hint})") })
}

/// First id and count of each range of a user in `/etc/subuid` or `/etc/subgid`.
fn ranges_of(file: &str, uid: u32, names: &[String]) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    file.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            let ours = owner == number || names.iter().any(|name| name == owner);
            (ours && range.1 > 0).then_some(range)
        })
        .collect()
}

/// The user's name as the passwd file has it, else as the environment says: newuidmap checks it anyway.
fn user_names(uid: u32) -> Vec<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut names: Vec<String> = passwd
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
        .collect();
    if names.is_empty() {
        names.extend(["USER", "LOGNAME"].iter().filter_map(|key| std::env::var(key).ok()));
    }
    names
}

fn has_map_tools() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    ["newuidmap", "newgidmap"]
        .iter()
        .all(|tool| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file()))
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
    fn ranges_are_found_by_name_and_number() {
        let file = "other:1:2\nme:100000:65536\n1000:300000:10\nme:bad:1\nme:5\nme:7:0\n";
        assert_eq!(ranges_of(file, 1000, &["me".to_owned()]), [(100_000, 65536), (300_000, 10)]);
        assert!(ranges_of(file, 55, &[]).is_empty());
    }

    #[test]
    fn one_id_comes_with_advice() {
        let state = |mapped_ids| RootlessState { real_uid: 4_000_000, real_gid: 1, mapped_ids };
        assert_eq!(state(65537).advice(), None);
        assert!(state(1).advice().unwrap().contains("chown"));
    }
}
