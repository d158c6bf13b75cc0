//! What rbuild and its helper process tell each other.
//!
//! rbuild sends a [`Job`] with the far end of a socket of its own for that job. On it arrive, in this order:
//! `Started` (from the helper), `Ready` or `Failed` (from the new process), perhaps `NotExecuted`, then `Exited`.
//! `Started` and `Ready` come from two processes and may change places.

use super::error::SetupError;
use super::exit::Status;
use super::socket;
use super::spec::{IpcNamespace, Network, PidNamespace, ProcessSpec, SandboxSpec};
use super::stubs::StubLog;
use super::wire::{self, SharedFd};
use crate::sys::process::CloneFlags;
use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One process to start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub task: Task,
    /// Standard input, output, error.
    pub stdio: [SharedFd; 3],
    /// `cgroup.procs` files to enter.
    pub cgroups: Vec<SharedFd>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Task {
    /// A new sandbox.
    Run(Box<SandboxSpec>),
    /// A further process in an existing one.
    Enter {
        /// A process of that sandbox.
        pidfd: SharedFd,
        process: Box<ProcessSpec>,
        privileged: bool,
    },
}

impl Task {
    /// The AppArmor profile of the program, if it has one of its own.
    pub(super) fn apparmor(&self) -> Option<&str> {
        let (process, privileged) = match self {
            Self::Run(spec) => (&spec.process, false),
            Self::Enter { process, privileged, .. } => (&**process, *privileged),
        };
        process.apparmor.as_deref().filter(|_| !privileged)
    }

    /// The namespaces to make for the first process.
    pub(super) fn clone_flags(&self, own_cgroup: bool) -> CloneFlags {
        let Self::Run(spec) = self else { return CloneFlags::NONE };
        let mut flags = CloneFlags::MOUNT.with(CloneFlags::UTS);
        if spec.pid == PidNamespace::New {
            flags = flags.with(CloneFlags::PID);
        }
        if matches!(spec.ipc, IpcNamespace::New | IpcNamespace::Closed) {
            flags = flags.with(CloneFlags::IPC);
        }
        if matches!(spec.network, Network::None) {
            flags = flags.with(CloneFlags::NET);
        }
        // A process that first moves to a cgroup of its own makes the namespace afterwards, so that this cgroup is
        // the root it sees.
        if own_cgroup || spec.host_cgroups { flags } else { flags.with(CloneFlags::CGROUP) }
    }
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Started {
        pid: i32,
        pidfd: SharedFd,
    },
    Ready {
        stubs: StubLog,
        terminal: Option<SharedFd>,
    },
    Failed(SetupError),
    /// The program could not be executed; the process ends with `code`.
    NotExecuted {
        text: String,
    },
    Exited(Status),
}

pub(super) fn reply(socket: impl AsFd, message: &Reply) -> io::Result<()> {
    let (bytes, riders) = wire::encode(message).map_err(io::Error::other)?;
    let fds: Vec<_> = riders.iter().map(AsFd::as_fd).collect();
    socket::send(socket, &bytes, &fds)
}

pub(super) fn next_reply(socket: impl AsFd) -> io::Result<Option<Reply>> {
    let Some((bytes, fds)) = socket::recv(socket)? else { return Ok(None) };
    wire::decode(&bytes, fds).map(Some).map_err(io::Error::other)
}

/// A received job, still packed: the helper needs only the clone flags, the new process unpacks the rest.
#[derive(Debug)]
pub(super) struct PackedJob {
    pub reply: OwnedFd,
    pub flags: CloneFlags,
    /// The cgroup that the process is born in.
    pub gate: Option<OwnedFd>,
    large: bool,
    body: Vec<u8>,
    fds: Vec<OwnedFd>,
}

const HEAD: usize = 9;

/// Bits of the first byte: the body is in a file, a gate is among the descriptors.
const LARGE: u8 = 1;
const GATE: u8 = 2;

pub(super) fn send_job(
    socket: impl AsFd,
    job: &Job,
    gate: Option<BorrowedFd<'_>>,
    reply: BorrowedFd<'_>,
) -> io::Result<()> {
    let (body, riders) = wire::encode(job).map_err(io::Error::other)?;
    let flags = job.task.clone_flags(!job.cgroups.is_empty() || gate.is_some()).bits().to_le_bytes();
    let kind = if gate.is_some() { GATE } else { 0 };
    let mut fds = vec![reply];
    fds.extend(gate);
    fds.extend(riders.iter().map(AsFd::as_fd));
    if HEAD + body.len() <= socket::MAX_MESSAGE {
        let message = [&[kind], &flags[..], &body].concat();
        return socket::send(socket, &message, &fds);
    }
    let mut file = File::from(rustix::fs::memfd_create("rbuild-job", MemfdFlags::CLOEXEC)?);
    file.write_all(&body)?;
    file.rewind()?;
    fds.push(file.as_fd());
    socket::send(socket, &[&[kind | LARGE], &flags[..]].concat(), &fds)
}

pub(super) fn recv_job(socket: impl AsFd) -> io::Result<Option<PackedJob>> {
    let Some((bytes, mut fds)) = socket::recv(socket)? else { return Ok(None) };
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let (head, body) = bytes.split_at_checked(HEAD).ok_or_else(broken)?;
    if fds.is_empty() {
        return Err(broken());
    }
    let reply = fds.remove(0);
    let gate = match head[0] & GATE {
        0 => None,
        _ if fds.is_empty() => return Err(broken()),
        _ => Some(fds.remove(0)),
    };
    let flags = CloneFlags::from_bits(u64::from_le_bytes(head[1..].try_into().map_err(|_| broken())?));
    Ok(Some(PackedJob { reply, flags, gate, large: head[0] & LARGE != 0, body: body.to_vec(), fds }))
}

impl PackedJob {
    pub(super) fn unpack(mut self) -> io::Result<(Job, OwnedFd)> {
        if self.large {
            let file = self.fds.pop().ok_or(io::ErrorKind::InvalidData)?;
            File::from(file).read_to_end(&mut self.body)?;
        }
        let job = wire::decode(&self.body, self.fds).map_err(io::Error::other)?;
        Ok((job, self.reply))
    }
}
