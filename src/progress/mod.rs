//! What happens in a build, as events; whoever draws them knows nothing else, whoever sends them draws nothing.

pub mod json;
mod lines;
mod moving;
pub mod plain;
pub mod tty;

pub use lines::{plain_json, printable};
pub use moving::Moving;

use std::time::Duration;

/// Names a step of one build; steps count from 1 in the order in which they are announced.
pub type StepId = usize;

/// Which of a step's streams a log line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its result was known already.
    Cached,
    /// It ran.
    Done,
    /// It ran and its result equals one that was known, so that what follows is a hit.
    Unchanged,
    /// It failed; the text is one line.
    Failed(String),
    /// Another step failed or the user interrupted.
    Cancelled,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The graph is known; so many steps may run.
    Planned {
        /// Number of steps.
        steps: usize,
    },
    /// A step is looked at: its name is known and its clock runs.
    Started {
        /// Which.
        step: StepId,
        /// As shown, for example `[build 2/5] RUN make`.
        name: String,
    },
    /// A step wrote; bytes as they came, not cut at lines.
    Log {
        /// Which.
        step: StepId,
        /// From where.
        stream: Stream,
        /// What.
        bytes: Vec<u8>,
    },
    /// Bytes moved by a step, for a bar.
    Moved {
        /// Which.
        step: StepId,
        /// Bytes so far.
        done: u64,
        /// Bytes in all, when known.
        total: Option<u64>,
    },
    /// A step ended.
    Ended {
        /// Which.
        step: StepId,
        /// How.
        outcome: Outcome,
        /// After how long.
        took: Duration,
    },
    /// Something that the user should know; one line.
    Warning(String),
}

/// Takes events from any thread; must not block for long.
pub trait EventSink: Send + Sync {
    /// Takes one event.
    fn send(&self, event: Event);
}

/// Drops every event.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl EventSink for Silent {
    fn send(&self, _event: Event) {}
}

/// Passes each event on to two others.
pub struct Tee {
    first: std::sync::Arc<dyn EventSink>,
    second: std::sync::Arc<dyn EventSink>,
}

impl Tee {
    /// Joins the two.
    pub fn new(first: std::sync::Arc<dyn EventSink>, second: std::sync::Arc<dyn EventSink>) -> Self {
        Self { first, second }
    }
}

impl EventSink for Tee {
    fn send(&self, event: Event) {
        self.first.send(event.clone());
        self.second.send(event);
    }
}
