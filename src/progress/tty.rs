//! Progress on a terminal: ended steps scroll by as lines, below them lives a small picture of what runs now.
//!
//! The picture is drawn anew ten times a second by a thread of its own, so that a flood of log lines costs
//! nothing; each frame is one write. Colour repeats what the words say and never carries meaning.

use super::lines::{Lines, printable};
use super::{Event, EventSink, Outcome, StepId};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Between two frames.
const FRAME: Duration = Duration::from_millis(100);
/// Log lines shown below a running step.
const TAIL: usize = 4;

/// A live view; it ends with [`Tty::finish`] or when dropped.
pub struct Tty {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    view: Mutex<View>,
    stop: Condvar,
}

struct View {
    out: Box<dyn Write + Send>,
    size: fn() -> (usize, usize),
    verb: &'static str,
    begun: Instant,
    steps: usize,
    cached: usize,
    ended: usize,
    running: BTreeMap<StepId, Running>,
    pending: String,
    drawn: usize,
    stopped: bool,
}

struct Running {
    name: String,
    since: Instant,
    lines: Lines,
    tail: VecDeque<String>,
    moved: Option<(u64, Option<u64>)>,
}

impl Tty {
    /// Draws to `out`; `size` gives columns and rows.
    pub fn new(out: Box<dyn Write + Send>, size: fn() -> (usize, usize)) -> Self {
        Self::with_verb(out, size, "Building")
    }

    /// As [`Tty::new`] for something else than a build: `Pulling`, `Pushing`.
    pub fn with_verb(out: Box<dyn Write + Send>, size: fn() -> (usize, usize), verb: &'static str) -> Self {
        let view = View {
            out,
            size,
            verb,
            begun: Instant::now(),
            steps: 0,
            cached: 0,
            ended: 0,
            running: BTreeMap::new(),
            pending: String::new(),
            drawn: 0,
            stopped: false,
        };
        let shared = Arc::new(Shared { view: Mutex::new(view), stop: Condvar::new() });
        let on_thread = shared.clone();
        let thread =
            std::thread::Builder::new().name("progress".into()).spawn(move || on_thread.draw_frames()).ok();
        Self { shared, thread }
    }

    /// Draws the last frame: what ended, and a summary.
    pub fn finish(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.stop.notify_all();
        if let Some(thread) = self.thread.take() {
            // a panicked drawing thread has nothing left to say
            let _ = thread.join();
        }
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        self.finish();
    }
}

impl EventSink for Tty {
    fn send(&self, event: Event) {
        self.shared.lock().take(event);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn draw_frames(&self) {
        let mut view = self.lock();
        while !view.stopped {
            view.frame();
            view = self.stop.wait_timeout(view, FRAME).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        view.last_frame();
    }
}

impl View {
    fn take(&mut self, event: Event) {
        match event {
            Event::Planned { steps } => self.steps = steps,
            Event::Started { step, name } => {
                let name = printable(name.as_bytes());
                let fresh = Running {
                    name,
                    since: Instant::now(),
                    lines: Lines::default(),
                    tail: VecDeque::new(),
                    moved: None,
                };
                self.running.insert(step, fresh);
            }
            Event::Log { step, bytes, .. } => {
                let Some(running) = self.running.get_mut(&step) else { return };
                let tail = &mut running.tail;
                running.lines.push(&bytes, |line| {
                    if tail.len() == TAIL {
                        tail.pop_front();
                    }
                    tail.push_back(printable(line));
                });
            }
            Event::Moved { step, done, total } => {
                if let Some(running) = self.running.get_mut(&step) {
                    running.moved = Some((done, total));
                }
            }
            Event::Ended { step, outcome, took } => self.ended(step, &outcome, took),
            Event::Warning(text) => {
                self.pending.push_str(&format!("\x1b[33mwarning:\x1b[0m {}\n", printable(text.as_bytes())));
            }
        }
    }

    fn ended(&mut self, step: StepId, outcome: &Outcome, took: Duration) {
        let Some(running) = self.running.remove(&step) else { return };
        self.ended += 1;
        let took = took.as_secs_f64();
        let (colour, word) = match outcome {
            Outcome::Cached => {
                self.cached += 1;
                ("36", "cached".to_owned())
            }
            Outcome::Done => ("32", format!("{took:.1}s")),
            Outcome::Unchanged => ("32", format!("{took:.1}s, same result as before")),
            Outcome::Failed(_) => ("31", format!("failed after {took:.1}s")),
            Outcome::Cancelled => ("33", "canceled".to_owned()),
        };
        self.pending
            .push_str(&format!("\x1b[{colour}m#{step}\x1b[0m {} \x1b[2m{word}\x1b[0m\n", running.name));
    }

    /// Builds one frame: clear the old picture, let ended lines scroll, draw the new picture; one write.
    fn frame(&mut self) {
        let (columns, rows) = (self.size)();
        let mut text = self.clear();
        text.push_str(&std::mem::take(&mut self.pending));
        let picture = self.picture(columns, rows.saturating_sub(2));
        self.drawn = picture.len();
        for line in picture {
            text.push_str(&line);
            text.push('\n');
        }
        self.write(&text);
    }

    fn last_frame(&mut self) {
        let mut text = self.clear();
        text.push_str(&std::mem::take(&mut self.pending));
        self.drawn = 0;
        self.write(&text);
    }

    fn clear(&self) -> String {
        if self.drawn == 0 { String::new() } else { format!("\x1b[{}A\r\x1b[J", self.drawn) }
    }

    fn picture(&self, columns: usize, rows: usize) -> Vec<String> {
        if self.running.is_empty() {
            return Vec::new();
        }
        let took = self.begun.elapsed().as_secs_f64();
        let verb = self.verb;
        let head = format!("{verb} {took:.1}s ({}/{}, {} cached)", self.ended, self.steps, self.cached);
        let mut lines = vec![cut(&head, columns)];
        for (step, running) in &self.running {
            let since = running.since.elapsed().as_secs_f64();
            let moved = running.moved.map_or(String::new(), |(done, total)| {
                total.map_or(format!(" {}", bytes(done)), |t| format!(" {}/{}", bytes(done), bytes(t)))
            });
            let right = format!("{moved} {since:.1}s");
            let room = columns.saturating_sub(right.chars().count() + 1);
            lines.push(format!("{}{right}", cut(&format!("#{step} {}", running.name), room)));
            lines.extend(
                running
                    .tail
                    .iter()
                    .map(|l| format!("\x1b[2m{}\x1b[0m", cut(&format!("   {l}"), columns - 1))),
            );
        }
        lines.truncate(rows.max(1));
        lines
    }

    fn write(&mut self, text: &str) {
        // a terminal that went away must not end a build
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

/// Shortens to so many columns; colours go, since half of a sequence must not be printed.
fn cut(text: &str, columns: usize) -> String {
    let mut out = String::new();
    let (mut width, mut in_sequence) = (0, false);
    for c in text.chars() {
        match c {
            '\u{1b}' => in_sequence = true,
            'm' if in_sequence => in_sequence = false,
            _ if in_sequence => {}
            '\t' => {
                out.push(' ');
                width += 1;
            }
            c => {
                out.push(c);
                // wide characters are counted double without a table: all from the CJK blocks up
                width += if c >= '\u{1100}' { 2 } else { 1 };
            }
        }
        if width + 1 >= columns {
            out.push('…');
            break;
        }
    }
    out
}

fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n}B"),
        1_000..1_000_000 => format!("{:.1}kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}MB", n as f64 / 1e6),
        _ => format!("{:.2}GB", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_never_wraps() {
        for text in [
            "short",
            &"x".repeat(500),
            "\x1b[31mred and long enough to be cut\x1b[0m",
            "漢字漢字漢字漢字漢字漢字",
        ] {
            let shown = cut(text, 20);
            assert!(shown.chars().count() <= 20 && !shown.contains('\u{1b}'), "{shown:?}");
        }
    }

    #[test]
    fn sizes_read_as_people_say_them() {
        assert_eq!([bytes(12), bytes(1_500), bytes(66_000_000)], ["12B", "1.5kB", "66.0MB"]);
    }
}
