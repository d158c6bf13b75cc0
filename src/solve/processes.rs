//! The processes that run now, so that a failure or Ctrl-C ends them all.

use super::OpError;
use crate::sandbox::Running;
use crate::store::{Lock, StoreError};
use rustix::process::{Signal, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Between two looks at a lock that another build holds; short beside any step, long beside a look.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The processes that run now. Once stopped, what is added is ended at once.
#[derive(Debug, Default)]
pub struct Processes {
    stopped: AtomicBool,
    running: Mutex<Vec<Arc<OwnedFd>>>,
}

impl Processes {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<OwnedFd>>> {
        self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Ends everything that runs and all that is still to come.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        for process in self.lock().iter() {
            kill(process);
        }
    }

    /// Says whether everything was told to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Takes a process in; it is let go when the answer is dropped.
    pub(super) fn add(&self, process: &Running) -> Entry<'_> {
        let handle = process.pidfd().and_then(|fd| fd.try_clone_to_owned().ok()).map(Arc::new);
        if let Some(handle) = &handle {
            self.lock().push(handle.clone());
        }
        // looked at after the push, so that a stop in between cannot be missed
        if self.is_stopped() {
            handle.iter().for_each(|h| kill(h));
        }
        Entry { processes: self, handle }
    }

    /// Waits for a lock without missing a stop.
    pub(super) fn wait_for(
        &self,
        mut look: impl FnMut() -> Result<Option<Lock>, StoreError>,
    ) -> Result<Lock, OpError> {
        while !self.is_stopped() {
            if let Some(lock) = look()? {
                return Ok(lock);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Err(OpError::Cancelled)
    }
}

/// A process that is taken in.
pub(super) struct Entry<'a> {
    processes: &'a Processes,
    handle: Option<Arc<OwnedFd>>,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            self.processes.lock().retain(|p| !Arc::ptr_eq(p, handle));
        }
    }
}

/// Ends the first process of a sandbox and with it all others.
fn kill(process: &OwnedFd) {
    // one that has just ended needs no signal
    let _ = pidfd_send_signal(process, Signal::KILL);
}
