//! The helper process: started from rbuild before it has anything to lose, it has one thread for ever and so may copy
//! itself. Each copy becomes the first process of a sandbox; the helper waits for all of them at once.
//!
//! It ends when rbuild closes the socket or dies, and takes every sandbox with it. It is executed afresh from a
//! read-only view of the binary, so that a container which opens `/proc/self/exe` for writing cannot reach the file
//! on disk (CVE-2019-5736), with an empty environment.

use super::child;
use super::host::Host;
use super::message::{self, PackedJob, Reply};
use super::wire::SharedFd;
use crate::sys::process::{self, Cloned};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Signal, pidfd_send_signal};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The name under which the helper is executed; nothing that a user types has it.
pub(super) const NAME: &str = "rbuild-sandbox";

/// Says whether this process was started as the helper.
pub(super) fn is_asked_for() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// Serves until the other side is gone; gives the exit code.
pub(super) fn serve() -> u8 {
    process::default_signals();
    // Not the terminal's foreground group any more: Ctrl-C is rbuild's to act on.
    let _ = rustix::process::setsid();
    match process::take_stdin().and_then(|socket| Helper::new(socket)?.run()) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

struct Helper {
    socket: OwnedFd,
    host: Host,
    running: Vec<Sandbox>,
}

/// A process that has not ended yet.
struct Sandbox {
    pidfd: OwnedFd,
    reply: OwnedFd,
    killed: bool,
}

impl Helper {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        let host = Host::look();
        // Copies of this mount namespace hear of the host's later mounts but tell it nothing of theirs.
        if host.may_mount {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
            mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        }
        Ok(Self { socket, host, running: Vec::new() })
    }

    fn run(mut self) -> io::Result<()> {
        loop {
            let (asked, events) = self.wait()?;
            for (at, (ended, gone)) in events.into_iter().enumerate().rev() {
                if ended {
                    let sandbox = self.running.swap_remove(at);
                    sandbox.report();
                } else if gone && !self.running[at].killed {
                    self.running[at].kill();
                }
            }
            if asked {
                match message::recv_job(&self.socket) {
                    Ok(Some(job)) => self.start(job),
                    Ok(None) => return self.end(),
                    // One message was unusable; its reply socket is closed with it, which the sender sees.
                    Err(e) if e.kind() == io::ErrorKind::InvalidData => {}
                    Err(e) => {
                        self.end()?;
                        return Err(e);
                    }
                }
            }
        }
    }

    /// Sleeps until something happens: whether a message is there, and for each sandbox whether it has ended and
    /// whether nobody is interested in it any more.
    fn wait(&self) -> io::Result<(bool, Vec<(bool, bool)>)> {
        let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN)];
        for sandbox in &self.running {
            fds.push(PollFd::new(&sandbox.pidfd, PollFlags::IN));
            // Only the hang-up counts; once seen, it must not wake us again.
            let reply = if sandbox.killed { &sandbox.pidfd } else { &sandbox.reply };
            fds.push(PollFd::new(reply, PollFlags::empty()));
        }
        loop {
            match poll(&mut fds, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let asked = !fds[0].revents().is_empty();
        let events = fds[1..].chunks(2).zip(&self.running).map(|(pair, sandbox)| {
            let ended = pair[0].revents().contains(PollFlags::IN);
            (ended, !sandbox.killed && pair[1].revents().intersects(PollFlags::HUP | PollFlags::ERR))
        });
        Ok((asked, events.collect()))
    }

    fn start(&mut self, job: PackedJob) {
        let gate = job.gate.as_ref().map(AsFd::as_fd);
        let born = match process::clone_alone_into(job.flags, gate) {
            // without a gate nothing that is mounted shows devices
            Err(_) if gate.is_some() => process::clone_alone(job.flags).map(|born| (born, false)),
            born => born.map(|born| (born, gate.is_some())),
        };
        match born {
            Ok((Cloned::Child, guarded)) => child::run(job, &self.host, guarded),
            Ok((Cloned::Parent { pid, pidfd }, _)) => {
                let Ok(copy) = pidfd.try_clone() else {
                    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                    return;
                };
                let started = Reply::Started { pid: pid.as_raw_nonzero().get(), pidfd: SharedFd::from(copy) };
                // When nobody listens any more, the hang-up ends the process.
                let _ = message::reply(&job.reply, &started);
                self.running.push(Sandbox { pidfd, reply: job.reply, killed: false });
            }
            Err(e) => {
                let error = self.host.explain_clone(job.flags, &e);
                let _ = message::reply(&job.reply, &Reply::Failed(error));
            }
        }
    }

    /// Ends all sandboxes and waits for them.
    fn end(&mut self) -> io::Result<()> {
        self.running.iter_mut().for_each(Sandbox::kill);
        self.running.drain(..).for_each(|sandbox| sandbox.report());
        Ok(())
    }
}

impl Sandbox {
    fn kill(&mut self) {
        self.killed = true;
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Collects the status of a process that has ended or is about to.
    fn report(self) {
        let status = super::launcher::collect(self.pidfd.as_fd());
        let _ = message::reply(&self.reply, &Reply::Exited(status));
    }
}
