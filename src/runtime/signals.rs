//! Signals on their way from the caller to process 1 of the container.
//!
//! They are caught from before the container exists, so that none is lost: what comes early is delivered once the
//! program runs. Process 1 gets only what it has a handler for, which is the kernel's rule; so three Ctrl-C (or SIGTERM)
//! in a row end the container for certain.

use super::RunError;
use crate::interrupt::Stop;
use nix::libc;
use nix::sys::signal::Signal;
use signal_hook::iterator::{Handle, Signals};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What ends a process politely when nothing else is said.
pub(super) const TERM: i32 = libc::SIGTERM;

/// Everything that can be caught and that does not mean something between rbuild, the kernel and its own terminal:
/// faults of rbuild itself (SEGV, ...), CHLD, PIPE, URG; TTIN and TTOU, which keep a background job from reading
/// a terminal. WINCH becomes a new size where the container has a terminal.
const FORWARDED: [i32; 19] = [
    libc::SIGWINCH,
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTRAP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSYS,
    libc::SIGSTKFLT,
];

/// So many requests to end without an effect are taken for "now".
const PATIENCE: u32 = 3;

/// How long a program on a terminal that is asked to end, or whose user is gone, may take for it.
const GRACE: Duration = Duration::from_secs(2);

/// Reads a signal: a number from 1 to 64, or a name with or without `SIG` in any case.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    if let Ok(signal) = name.parse::<Signal>() {
        return Some(signal as i32);
    }
    let offset = |text: &str| text.parse::<i32>().ok().filter(|n| (0..=30).contains(n));
    match name.as_str() {
        "SIGRTMIN" => Some(34),
        "SIGRTMAX" => Some(64),
        "SIGCLD" => Some(libc::SIGCHLD),
        "SIGPOLL" => Some(libc::SIGIO),
        "SIGIOT" => Some(libc::SIGABRT),
        _ => match (name.strip_prefix("SIGRTMIN+"), name.strip_prefix("SIGRTMAX-")) {
            (Some(n), _) => offset(n).map(|n| 34 + n),
            (_, Some(n)) => offset(n).map(|n| 64 - n),
            _ => None,
        },
    }
}

/// Where signals go once the container runs.
pub(super) struct Target {
    /// Sends a signal to process 1.
    pub(super) send: Arc<dyn Fn(i32) + Send + Sync>,
    /// Passes the size of the caller's terminal on, for a container on a terminal.
    pub(super) resize: Option<Box<dyn Fn() + Send>>,
    /// What ends it politely, for a container on a terminal.
    pub(super) stop_signal: i32,
    /// Whether signals go to the container at all (`--sig-proxy`).
    pub(super) proxy: bool,
    /// Where to complain.
    pub(super) note: fn(&str),
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

/// Before the container runs signals wait; then they go to it.
#[derive(Debug)]
enum State {
    Waiting(Vec<i32>),
    Running { target: Target, asked: u32 },
}

/// Catches signals until it is dropped.
#[derive(Debug)]
pub struct Forwarder {
    handle: Handle,
    state: Arc<Mutex<State>>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Starts to catch.
    pub fn start() -> Result<Self, RunError> {
        let fail = || RunError::io::<std::io::Error>("catch signals");
        let mut signals = Signals::new(FORWARDED).map_err(fail())?;
        let handle = signals.handle();
        let state = Arc::new(Mutex::new(State::Waiting(Vec::new())));
        let (shared, stop) = (state.clone(), Stop::default());
        let told = stop.clone();
        let take = move |signal| {
            if asks_to_end(signal) {
                told.now();
            }
            lock(&shared).take(signal);
        };
        let thread = std::thread::Builder::new()
            .name("signals".into())
            .stack_size(128 << 10)
            .spawn(move || signals.forever().for_each(take))
            .map_err(fail())?;
        Ok(Self { handle, state, stop, thread: Some(thread) })
    }

    /// Gives the signal that asked rbuild to end while there is no container yet.
    pub fn interrupted(&self) -> Option<i32> {
        match &*lock(&self.state) {
            State::Waiting(early) => early.iter().copied().find(|s| asks_to_end(*s)),
            State::Running { .. } => None,
        }
    }

    /// Gives what ends the preparation of a container when somebody asks rbuild to end.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Lets through what has come and will come.
    pub(super) fn deliver_to(&self, target: Target) {
        let mut state = lock(&self.state);
        let before = std::mem::replace(&mut *state, State::Running { target, asked: 0 });
        if let State::Waiting(early) = before {
            early.into_iter().for_each(|signal| state.take(signal));
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn asks_to_end(signal: i32) -> bool {
    matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGHUP)
}

impl State {
    fn take(&mut self, signal: i32) {
        match self {
            Self::Waiting(early) => {
                if asks_to_end(signal) && early.iter().any(|s| asks_to_end(*s)) {
                    // asked twice during a long preparation
                    crate::store::abandon();
                    std::process::exit(128 + signal);
                }
                early.push(signal);
            }
            Self::Running { target, asked } => target.take(signal, asked),
        }
    }
}

impl Target {
    fn take(&self, signal: i32, asked: &mut u32) {
        match (signal, &self.resize) {
            (libc::SIGWINCH, Some(resize)) => resize(),
            // the container is left to itself
            (libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT, _) if !self.proxy => {
                super::terminal::restore();
                std::process::exit(128 + signal)
            }
            _ if !self.proxy => {}
            (libc::SIGTERM, Some(_)) => {
                self.send(self.stop_signal);
                self.kill_later();
            }
            // the window is closed, or the line is cut: what still runs soon can be attached to again
            (libc::SIGHUP, Some(_)) => {
                self.send(signal);
                std::thread::spawn(move || {
                    std::thread::sleep(GRACE);
                    super::terminal::restore();
                    std::process::exit(128 + signal)
                });
            }
            (libc::SIGTERM | libc::SIGINT, None) => {
                *asked += 1;
                if *asked >= PATIENCE {
                    (self.note)("the container does not react to signals: killing it\n");
                    self.send(libc::SIGKILL);
                } else {
                    self.send(signal);
                }
            }
            _ => self.send(signal),
        }
    }

    fn send(&self, signal: i32) {
        (self.send)(signal);
    }

    /// Gives the program its grace without keeping other signals waiting.
    fn kill_later(&self) {
        let send = self.send.clone();
        std::thread::spawn(move || {
            std::thread::sleep(GRACE);
            send(libc::SIGKILL);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("sigterm", 15),
            ("SIGUSR1", 10),
            ("9", 9),
            ("64", 64),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("RTMAX-1", 63),
            ("WINCH", 28),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in ["", "0", "65", "-1", "SIG", "NOPE", "RTMIN+99", "TERM "] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
