//! Progress for programs (`--progress=rawjson`): one JSON object an event, one a line.
//!
//! Every object has `event`: `planned` (`steps`), `started` (`step`, `name`), `log` (`step`, `stream`, `text`), `moved`
//! (`step`, `done`, `total`), `ended` (`step`, `outcome`, `error`, `seconds`) or `warning` (`text`). The text of a log
//! is as the step wrote it, not cut at lines; what is not UTF-8 in it is replaced.

use super::lines::plain_json;
use super::{Event, EventSink, Outcome, Stream};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Mutex;

/// Writes one line an event.
pub struct Json {
    out: Mutex<Box<dyn Write + Send>>,
}

impl Json {
    /// Writes to `out`; errors there are ignored, a closed pipe must not end a build.
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out: Mutex::new(out) }
    }
}

impl EventSink for Json {
    fn send(&self, event: Event) {
        let mut line = plain_json(&object(&event).to_string());
        line.push('\n');
        let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}

fn object(event: &Event) -> Value {
    match event {
        Event::Planned { steps } => json!({ "event": "planned", "steps": steps }),
        Event::Started { step, name } => json!({ "event": "started", "step": step, "name": name }),
        Event::Log { step, stream, bytes } => {
            let stream = match stream {
                Stream::Stdout => "stdout",
                Stream::Stderr => "stderr",
            };
            let text = String::from_utf8_lossy(bytes);
            json!({ "event": "log", "step": step, "stream": stream, "text": text })
        }
        Event::Moved { step, done, total } => {
            json!({ "event": "moved", "step": step, "done": done, "total": total })
        }
        Event::Ended { step, outcome, took } => {
            let (outcome, error) = match outcome {
                Outcome::Cached => ("cached", None),
                Outcome::Done => ("done", None),
                Outcome::Unchanged => ("unchanged", None),
                Outcome::Failed(why) => ("failed", Some(why)),
                Outcome::Cancelled => ("canceled", None),
            };
            let seconds = took.as_secs_f64();
            json!({ "event": "ended", "step": step, "outcome": outcome, "error": error, "seconds": seconds })
        }
        Event::Warning(text) => json!({ "event": "warning", "text": text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn events_are_objects() {
        let text = |event| object(&event).to_string();
        assert_eq!(
            text(Event::Started { step: 1, name: "[1/1] RUN \"x\"".into() }),
            r#"{"event":"started","step":1,"name":"[1/1] RUN \"x\""}"#
        );
        assert_eq!(
            text(Event::Log { step: 1, stream: Stream::Stderr, bytes: b"a\n\xff".to_vec() }),
            "{\"event\":\"log\",\"step\":1,\"stream\":\"stderr\",\"text\":\"a\\n\u{fffd}\"}"
        );
        let outcome = Outcome::Failed("no".into());
        assert_eq!(
            text(Event::Ended { step: 2, outcome, took: Duration::from_millis(1500) }),
            r#"{"event":"ended","step":2,"outcome":"failed","error":"no","seconds":1.5}"#
        );
    }
}
