//! A layer on its way: one step, with a bar.

use super::{Event, EventSink, Outcome, StepId};
use crate::digest::Digest;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two words about how far something is.
const EVERY: Duration = Duration::from_millis(100);

/// A step that is under way.
pub struct Moving {
    sink: Arc<dyn EventSink>,
    id: StepId,
    since: Instant,
    total: u64,
    told: Mutex<Instant>,
}

impl Moving {
    /// Begins one about a blob; `verb` is `pull` or `push`.
    pub fn begin(sink: &Arc<dyn EventSink>, id: StepId, verb: &str, blob: &Digest, total: u64) -> Self {
        let name = format!("{verb} layer {} ({})", blob.short(), size(total));
        sink.send(Event::Started { step: id, name });
        let now = Instant::now();
        Self { sink: sink.clone(), id, since: now, total, told: Mutex::new(now) }
    }

    /// Says how far it is, not too often.
    pub fn moved(&self, done: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= EVERY {
            *told = Instant::now();
            self.sink.send(Event::Moved { step: self.id, done, total: Some(self.total) });
        }
    }

    /// Ends it.
    pub fn end(&self, outcome: Outcome) {
        self.sink.send(Event::Ended { step: self.id, outcome, took: self.since.elapsed() });
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=9_999_999 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
