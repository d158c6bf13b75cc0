//! Ties the life of a child process to its parent's.

use std::{io, os::unix::process::CommandExt, process::Command};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Makes the kernel kill the command's process when the **thread** that spawned it ends, however it ends.
///
/// The signal follows the thread and not the process, so spawn from a thread that lives as long as the child should.
pub fn die_with_spawner(command: &mut Command) {
    let parent = rustix::process::getpid();
    let arm = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have ended before the signal was armed.
        match getppid() {
            Some(now) if now != parent => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(()),
        }
    };
    // SAFETY: the closure runs between fork and exec; it makes two system calls and allocates nothing.
    unsafe { command.pre_exec(arm) };
}
