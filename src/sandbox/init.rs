//! The little init of `--init`: process 1 that starts the program, passes signals on and reaps orphans.

use crate::sys::process::{self, Cloned};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io;

/// Returns in the process that becomes the program; the other one stays behind as init and never returns.
pub(super) fn split() -> io::Result<()> {
    let all = SigSet::all();
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&all), None)?;
    match process::clone_alone(process::CloneFlags::NONE)? {
        Cloned::Child => {
            process::default_signals();
            // A session of its own, as the caller had one; failing means that it is the leader already.
            Ok(())
        }
        Cloned::Parent { pid, .. } => watch(Pid::from_raw(pid.as_raw_nonzero().get()), &all),
    }
}

fn watch(child: Pid, signals: &SigSet) -> ! {
    // Nothing of the caller stays open here.
    let _ = rustix::stdio::dup2_stdin(rustix::stdio::stderr());
    process::close_from(3, None);
    // not even the streams: whoever reads them must see their end with the program's
    if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => reap(child),
            Ok(signal) => drop(nix::sys::signal::kill(child, signal)),
            Err(_) => {}
        }
    }
}

/// Collects whatever has ended; the end of the program is the end.
fn reap(child: Pid) {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => process::exit_now(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                process::exit_now(128 + signal as i32)
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
