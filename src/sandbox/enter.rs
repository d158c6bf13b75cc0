//! A further process in an existing sandbox (`exec`): joins the namespaces of one of its processes.

use super::error::{Doing, Setup};
use super::host::Host;
use crate::sys::process::{self, Cloned};
use nix::sched::CloneFlags;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Joins the namespaces behind `pidfd`. A process cannot change its own pid namespace, only that of its children:
/// the caller goes on as such a child, and the process before it waits and ends the same way.
pub(super) fn enter(pidfd: BorrowedFd<'_>, host: &Host) -> Setup<()> {
    let all = KINDS.iter().fold(CloneFlags::empty(), |all, (flag, _)| all | *flag);
    let doing = || "join the namespaces of the container".to_owned();
    let joined = match nix::sched::setns(pidfd, all) {
        // what it shares with the machine is not a user's to join, and need not be
        Err(nix::Error::EPERM) if host.in_userns => {
            others(pidfd).and_then(|flags| Ok(nix::sched::setns(pidfd, flags)?)).doing(doing)
        }
        other => other.doing(doing),
    };
    joined.map_err(|e| match e.errno {
        Some(nix::libc::ESRCH) => e.hint("it is not running any more"),
        Some(nix::libc::EPERM) if host.in_userns => {
            e.hint("it was started by another user or another rbuild session")
        }
        _ => e,
    })?;
    match process::clone_alone(process::CloneFlags::NONE).doing(doing)? {
        Cloned::Child => {
            // Bound to the process that waits, which is bound to the helper.
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
                .doing(doing)?;
            let _ = rustix::process::setsid();
            Ok(())
        }
        Cloned::Parent { pidfd, .. } => {
            process::close_from(3, Some(pidfd.as_raw_fd()));
            wait(&pidfd)
        }
    }
}

/// The namespaces of a sandbox, with their names in `/proc`.
const KINDS: [(CloneFlags, &str); 6] = [
    (CloneFlags::CLONE_NEWNS, "mnt"),
    (CloneFlags::CLONE_NEWPID, "pid"),
    (CloneFlags::CLONE_NEWIPC, "ipc"),
    (CloneFlags::CLONE_NEWUTS, "uts"),
    (CloneFlags::CLONE_NEWNET, "net"),
    (CloneFlags::CLONE_NEWCGROUP, "cgroup"),
];

/// Finds the namespaces of a process that are not ours already.
fn others(pidfd: BorrowedFd<'_>) -> io::Result<CloneFlags> {
    let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = told.lines().find_map(|line| line.strip_prefix("Pid:")).map(str::trim);
    let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
    let mut flags = CloneFlags::empty();
    for (flag, name) in KINDS {
        let of = |whose: &str| std::fs::read_link(format!("/proc/{whose}/ns/{name}"));
        if of(pid)? != of("self")? {
            flags |= flag;
        }
    }
    Ok(flags)
}

/// Ends as the process behind `pidfd` ends.
fn wait(pidfd: &OwnedFd) -> ! {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => match status.exit_status() {
                Some(code) => process::exit_now(code),
                None => process::die_of(status.terminating_signal().unwrap_or(9)),
            },
            Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => process::exit_now(125),
        }
    }
}
