//! Progress as lines for logs and pipes: `#step text`, in the order in which things happen.

use super::lines::{Lines, printable};
use super::{Event, EventSink, Outcome, StepId, Stream};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Writes one line an event.
pub struct Plain {
    inner: Mutex<Inner>,
}

struct Inner {
    out: Box<dyn Write + Send>,
    steps: BTreeMap<StepId, Step>,
}

struct Step {
    since: Instant,
    stdout: Lines,
    stderr: Lines,
}

impl Plain {
    /// Writes to `out`; errors there are ignored, a closed pipe must not end a build.
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        Self { inner: Mutex::new(Inner { out, steps: BTreeMap::new() }) }
    }
}

impl EventSink for Plain {
    fn send(&self, event: Event) {
        let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        inner.draw(event);
        let _ = inner.out.flush();
    }
}

impl Inner {
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
    }

    fn draw(&mut self, event: Event) {
        match event {
            Event::Planned { .. } | Event::Moved { .. } => {}
            Event::Started { step, name } => {
                self.line(&format!("#{step} {}", printable(name.as_bytes())));
                let fresh =
                    Step { since: Instant::now(), stdout: Lines::default(), stderr: Lines::default() };
                self.steps.insert(step, fresh);
            }
            Event::Log { step, stream, bytes } => self.log(step, stream, &bytes),
            Event::Ended { step, outcome, took } => self.ended(step, &outcome, took),
            Event::Warning(text) => self.line(&format!("warning: {}", printable(text.as_bytes()))),
        }
    }

    fn log(&mut self, id: StepId, stream: Stream, bytes: &[u8]) {
        let Some(step) = self.steps.get_mut(&id) else { return };
        let after = step.since.elapsed().as_secs_f64();
        let lines = if stream == Stream::Stdout { &mut step.stdout } else { &mut step.stderr };
        let out = &mut self.out;
        lines.push(bytes, |line| drop(writeln!(out, "#{id} {after:.3} {}", printable(line))));
    }

    fn ended(&mut self, id: StepId, outcome: &Outcome, took: Duration) {
        if let Some(mut step) = self.steps.remove(&id) {
            let after = step.since.elapsed().as_secs_f64();
            for lines in [&mut step.stdout, &mut step.stderr] {
                lines.finish(|line| drop(writeln!(self.out, "#{id} {after:.3} {}", printable(line))));
            }
        }
        self.line(&match outcome {
            Outcome::Cached => format!("#{id} CACHED"),
            Outcome::Done => format!("#{id} DONE {:.1}s", took.as_secs_f64()),
            Outcome::Unchanged => format!("#{id} DONE {:.1}s (same result as before)", took.as_secs_f64()),
            Outcome::Failed(why) => format!("#{id} ERROR: {}", printable(why.as_bytes())),
            Outcome::Cancelled => format!("#{id} CANCELED"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_step_reads_as_lines() {
        let out = Shared::default();
        let plain = Plain::new(Box::new(out.clone()));
        plain.send(Event::Started { step: 1, name: "[1/2] RUN x".into() });
        plain.send(Event::Log { step: 1, stream: Stream::Stdout, bytes: b"hel".to_vec() });
        plain.send(Event::Log { step: 1, stream: Stream::Stderr, bytes: b"warn\n".to_vec() });
        plain.send(Event::Log { step: 1, stream: Stream::Stdout, bytes: b"lo".to_vec() });
        plain.send(Event::Ended { step: 1, outcome: Outcome::Done, took: Duration::from_millis(1234) });
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let shape: Vec<&str> = text.lines().map(|l| l.split(' ').next_back().unwrap()).collect();
        assert_eq!(shape, ["x", "warn", "hello", "1.2s"]);
    }
}
