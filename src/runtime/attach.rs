//! A command that is attached to a container: the caller's input goes there, output and errors come here, until the
//! container ends or the user leaves it with the detach keys.

use super::client::{Client, Ended};
use super::detach::{DetachKeys, Filter};
use super::protocol::{Event, PIECE, Request};
use super::signals::{Forwarder, Target};
use super::{RunError, terminal};
use crate::sandbox::pty::RawMode;
use crate::sandbox::socket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdin, stdout};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a program may take to end once it has heard that nobody takes its output. As process 1 it is not killed by
/// SIGPIPE, and many a program does not look at what `write` gives.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How a command takes part.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// The container has a terminal.
    pub terminal: bool,
    /// The container was made for this command: when nobody takes its output any more, the program hears of it, as it
    /// would of the end of a pipe's reader.
    pub owner: bool,
    /// The caller's input goes to it.
    pub input: bool,
    /// Signals to the command go to the container.
    pub sig_proxy: bool,
    /// What ends the container politely, for a command on a terminal that is told to end.
    pub stop_signal: i32,
    /// Leave the container to itself.
    pub detach_keys: DetachKeys,
}

/// Why it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parting {
    /// The container has ended.
    Ended(Ended),
    /// The user has left it.
    Detached,
    /// Nobody takes the command's output any more, and the container goes on.
    Unheard,
    /// Its monitor is gone: somebody has killed that, and the kernel the container.
    Lost,
}

/// Carries streams and signals until the end.
pub fn follow(
    client: &Client,
    how: &Attachment,
    signals: Option<&Forwarder>,
    note: fn(&str),
) -> Result<Parting, RunError> {
    // what comes from a pipe is typed all the same, as docker's `start -i` does it
    let raw = match how.terminal && how.input && rustix::termios::isatty(stdin()) {
        true => Some(RawMode::enter(stdin()).map_err(RunError::io("make the terminal raw"))?),
        false => None,
    };
    if let Some(signals) = signals {
        let copy = client.socket().try_clone_to_owned().map_err(RunError::io("keep the connection"))?;
        signals.deliver_to(target(copy, how, note));
    }
    let mut relay = Relay {
        client,
        input: how.input,
        owner: how.owner.then_some(note),
        unheard: None,
        filter: how.terminal.then(|| Filter::new(&how.detach_keys)),
        waiting: None,
    };
    let parting = relay.run();
    drop(raw);
    parting
}

/// Sends signals to the container over a connection.
fn target(connection: OwnedFd, how: &Attachment, note: fn(&str)) -> Target {
    let connection = Arc::new(connection);
    let other = connection.clone();
    let send = move |request: &Request| {
        // one that has just ended needs none
        let _ = super::protocol::send(connection.as_ref(), request);
    };
    let resize = how.terminal.then(|| {
        let resize: Box<dyn Fn() + Send> = Box::new(move || {
            if let Some((columns, rows)) = terminal::size() {
                let _ = super::protocol::send(other.as_ref(), &Request::Resize(columns, rows));
            }
        });
        resize
    });
    Target {
        send: Arc::new(move |signal| send(&Request::Signal(signal))),
        resize,
        stop_signal: how.stop_signal,
        proxy: how.sig_proxy,
        note,
    }
}

struct Relay<'a> {
    client: &'a Client,
    input: bool,
    owner: Option<fn(&str)>,
    /// When the command leaves, because nobody takes its output.
    unheard: Option<Instant>,
    filter: Option<Filter>,
    /// Input that the monitor has no room for yet.
    waiting: Option<Request>,
}

impl Relay<'_> {
    fn run(&mut self) -> Result<Parting, RunError> {
        loop {
            let (socket_flags, input_ready) = self.sleep()?;
            if socket_flags.contains(PollFlags::OUT) {
                self.send_waiting()?;
            }
            if socket_flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
                && let Some(parting) = self.take_event()?
            {
                return Ok(parting);
            }
            if self.unheard.is_some_and(|until| until <= Instant::now()) {
                return Ok(Parting::Unheard);
            }
            if input_ready && self.take_input()? {
                return Ok(Parting::Detached);
            }
        }
    }

    fn sleep(&self) -> Result<(PollFlags, bool), RunError> {
        let reads = self.input && self.waiting.is_none();
        let mut wanted = PollFlags::IN;
        if self.waiting.is_some() {
            wanted |= PollFlags::OUT;
        }
        let (socket, stdin) = (self.client.socket(), stdin());
        let mut fds = [PollFd::new(&socket, wanted), PollFd::new(&stdin, PollFlags::IN)];
        let count = if reads { 2 } else { 1 };
        let patience = self.unheard.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(0), tv_nsec: left.subsec_nanos().into() }
        });
        match poll(&mut fds[..count], patience.as_ref()) {
            Ok(_) => Ok((fds[0].revents(), reads && !fds[1].revents().is_empty())),
            Err(Errno::INTR) => Ok((PollFlags::empty(), false)),
            Err(e) => Err(RunError::io("wait for the container")(e)),
        }
    }

    fn take_event(&mut self) -> Result<Option<Parting>, RunError> {
        let event = match super::protocol::receive::<Event>(self.client.socket()) {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(Some(Parting::Lost)),
            Err(e) => return Err(super::protocol::broken(e)),
        };
        match event {
            Event::Output(bytes) => self.unread(terminal::write_all(stdout(), &bytes), false),
            Event::Errors(bytes) => self.unread(terminal::write_all(stderr(), &bytes), true),
            Event::Ended { code, out_of_memory } => {
                return Ok(Some(Parting::Ended(Ended { code, out_of_memory })));
            }
            Event::Failed { code, text } => return Err(RunError::NotStarted { code, text }),
            Event::Refused(text) => return Err(RunError::Refused(text)),
            _ => {}
        }
        Ok(None)
    }

    /// Tells the program of a failure to write, once; and the user, unless it is a pipe that was closed on purpose.
    /// A program that does not mind is left to itself soon.
    fn unread(&mut self, written: Result<(), Errno>, errors: bool) {
        let Err(error) = written else { return };
        if self.unheard.is_some() {
            return;
        }
        let Some(note) = self.owner else {
            self.unheard = Some(Instant::now());
            return;
        };
        self.unheard = Some(Instant::now() + LAST_WORDS);
        if error != Errno::PIPE {
            let error = io::Error::from(error);
            note(&format!("warning: the container's output could not be written: {error}\n"));
        }
        let _ = self.client.send(&Request::Unread(errors));
    }

    /// Reads input and sends it; says whether the user leaves.
    fn take_input(&mut self) -> Result<bool, RunError> {
        let mut buffer = vec![0; PIECE];
        let n = match rustix::io::read(stdin(), &mut buffer) {
            Ok(n) => n,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(false),
            // a terminal that is gone has nothing more to say
            Err(_) => 0,
        };
        if n == 0 {
            self.input = false;
            self.waiting = Some(Request::InputEnd);
        } else {
            let (bytes, leaves) = match &mut self.filter {
                Some(filter) => filter.take(&buffer[..n]),
                None => (buffer[..n].to_vec(), false),
            };
            if leaves {
                // what was typed before
                let _ = self.client.send(&Request::Input(bytes));
                return Ok(true);
            }
            if !bytes.is_empty() {
                self.waiting = Some(Request::Input(bytes));
            }
        }
        self.send_waiting()?;
        Ok(false)
    }

    fn send_waiting(&mut self) -> Result<(), RunError> {
        let Some(request) = &self.waiting else { return Ok(()) };
        match send_now(self.client.socket(), request) {
            Ok(true) => self.waiting = None,
            Ok(false) => {}
            // the monitor is gone: the next event tells
            Err(_) => (self.waiting, self.input) = (None, false),
        }
        Ok(())
    }
}

/// Sends if there is room.
fn send_now(to: BorrowedFd<'_>, request: &Request) -> io::Result<bool> {
    let (bytes, riders) = super::protocol::pack(request)?;
    let fds: Vec<_> = riders.iter().map(AsFd::as_fd).collect();
    match socket::send_now(to, &bytes, &fds) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}
