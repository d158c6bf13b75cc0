//! A further process in an existing sandbox (`exec`): joins the namespaces of one of its processes.

use super::error::{Doing, Setup};
use super::host::Host;
use crate::sys::process::{self, Cloned};
use nix::sched::CloneFlags;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Joins the namespaces behind `pidfd`. A process cannot change its own pid namespace, only that of its children:
/// the caller goes on as such a child, and the process before it waits and ends the same way.
pub(super) fn enter(pidfd: BorrowedFd<'_>, host: &Host) -> Setup<()> {
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    let doing = || "join the namespaces of the container".to_owned();
    let joined = nix::sched::setns(pidfd, all).doing(doing);
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
