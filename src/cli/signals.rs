//! Ctrl-C and its relatives: the first ends what runs and cleans up, a second one ends rbuild at once.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// Remembers which signal came.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupt {
    came: Arc<AtomicI32>,
}

impl Interrupt {
    /// Calls `stop` when the first signal comes.
    pub(super) fn watch(stop: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let interrupt = Self::default();
        let came = interrupt.came.clone();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                if came.swap(signal, Ordering::SeqCst) != 0 {
                    // sandboxes end with their parent; leftovers in tmp/ are swept by the next run
                    std::process::exit(128 + signal);
                }
                stop();
            }
        })?;
        Ok(interrupt)
    }

    /// Gives the exit code of the signal that came, as a shell would.
    pub(super) fn code(&self) -> Option<u8> {
        match self.came.load(Ordering::SeqCst) {
            0 => None,
            signal => u8::try_from(128 + signal).ok(),
        }
    }
}
