//! What commands and the monitor of a container say to each other, over a socket that keeps messages whole and carries
//! descriptors.
//!
//! The first message to a new monitor is [`Request::Start`]; every other connection comes through the container's
//! socket. Answers come in the order of the requests; output and the end of the container come when they happen.

use super::RunError;
use crate::sandbox::{self, Limits, SharedFd};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Output is sent in pieces of at most so many bytes.
pub(super) const PIECE: usize = 32 << 10;

/// The streams that a client is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// It sends input.
    pub stdin: bool,
    /// It wants the output.
    pub stdout: bool,
    /// It wants the errors.
    pub stderr: bool,
}

/// A further process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Program and arguments.
    pub argv: Vec<Vec<u8>>,
    /// On top of the container's own.
    pub env: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Instead of the container's own.
    pub workdir: Option<Vec<u8>>,
    /// Instead of the container's own.
    pub user: Option<String>,
    /// All capabilities, no filter.
    pub privileged: bool,
    /// A terminal of its own.
    pub terminal: bool,
    /// Nobody waits for it or has its terminal.
    pub detached: bool,
    /// Columns and rows of it.
    pub size: Option<(u16, u16)>,
}

/// What a command wants.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Start {
        root: Vec<u8>,
        id: String,
        attach: Option<Streams>,
        size: Option<(u16, u16)>,
    },
    Attach {
        streams: Streams,
        size: Option<(u16, u16)>,
    },
    Input(Vec<u8>),
    InputEnd,
    Resize(u16, u16),
    /// To the first process, without a word about it: signals of the attached command.
    Signal(i32),
    /// `again`: it will be started again at once, so `--rm` does not count.
    Stop {
        signal: Option<i32>,
        timeout: Option<i64>,
        again: bool,
    },
    Kill(i32),
    Wait,
    Pause,
    Unpause,
    Exec {
        request: ExecRequest,
        /// Input, output, errors; none for a detached process or one with a terminal.
        stdio: Option<[SharedFd; 3]>,
    },
    /// Nobody can take the output (false) or the errors (true) any more: the program hears of it as of a reader's end.
    Unread(bool),
    /// A descriptor of the container's root, with all its mounts.
    Root,
    Processes,
    /// The record on disk has changed.
    Reload,
    Limits(Limits),
    /// A change of networks, understood by `network.rs` alone.
    Network(Vec<u8>),
}

/// What the monitor says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    Started,
    /// The container could not be started, and the monitor is gone.
    Failed {
        code: u8,
        text: String,
    },
    /// Something that the user should know.
    Note(String),
    Done,
    Refused(String),
    Output(Vec<u8>),
    Errors(Vec<u8>),
    Ended {
        code: u8,
        out_of_memory: bool,
    },
    ExecStarted {
        terminal: Option<SharedFd>,
    },
    ExecEnded {
        code: u8,
        not_started: Option<String>,
    },
    Root(SharedFd),
    Processes(Vec<u32>),
    Answer(Vec<u8>),
}

/// Packs a message: its bytes, and what rides along.
pub(super) fn pack<T: Serialize>(message: &T) -> io::Result<(Vec<u8>, Vec<SharedFd>)> {
    sandbox::encode(message).map_err(io::Error::other)
}

pub(super) fn send<T: Serialize>(socket: impl AsFd, message: &T) -> io::Result<()> {
    let (bytes, riders) = pack(message)?;
    let fds: Vec<_> = riders.iter().map(AsFd::as_fd).collect();
    sandbox::socket::send(socket, &bytes, &fds)
}

/// Takes the next message; `None` when the other side is gone.
pub(super) fn receive<T: serde::de::DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<T>> {
    let Some((bytes, fds)): Option<(Vec<u8>, Vec<OwnedFd>)> = sandbox::socket::recv(socket)? else {
        return Ok(None);
    };
    sandbox::decode(&bytes, fds).map(Some).map_err(io::Error::other)
}

/// Says what went wrong on the way to or from the monitor.
pub(super) fn broken(e: io::Error) -> RunError {
    RunError::Io { action: "talk to the container's monitor".into(), source: e }
}
