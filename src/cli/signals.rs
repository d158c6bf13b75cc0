//! Ctrl-C and its relatives: the first ends what runs and cleans up; a second one, or a while, ends rbuild at once.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// So long may what runs take to end: what cannot be stopped in between, such as hashing a huge file, is left where
/// it stands. Nobody sees half of anything then, as after a kill.
const GRACE: Duration = Duration::from_secs(2);

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
                    leave(signal);
                }
                stop();
                // without another thread a second signal ends us
                let _ = std::thread::Builder::new().name("grace".into()).spawn(move || {
                    std::thread::sleep(GRACE);
                    leave(signal);
                });
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

/// Ends rbuild: sandboxes end with their parent. What of `tmp/` cannot be removed now the next run sweeps.
fn leave(signal: i32) -> ! {
    crate::store::abandon();
    let _ = writeln!(std::io::stderr(), "rbuild: interrupted; what had ended before stays in the cache");
    std::process::exit(128 + signal)
}
