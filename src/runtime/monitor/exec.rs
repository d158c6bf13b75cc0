//! Further processes in the container, started for a command.

use super::Monitor;
use crate::runtime::protocol::{Event, ExecRequest};
use crate::runtime::state::Status;
use crate::runtime::{client, spec};
use crate::sandbox::{Running, SharedFd, Stdio};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Exit code of a command that is there but cannot be run: not this way, not as this user, not from this directory.
const CANNOT_RUN: u8 = 126;

/// One of them.
pub(super) struct Exec {
    pub(super) id: u64,
    pub(super) running: Running,
    /// The connection that wants to hear of its end.
    client: u64,
    /// Our end of its terminal: the process outlives the command that has the other copy.
    terminal: Option<OwnedFd>,
    /// That command is gone, or never was there: what the process writes is read here, lest it should wait for ever.
    alone: bool,
}

impl Exec {
    /// Gives the terminal that nobody else reads.
    pub(super) fn unread_terminal(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().filter(|_| self.alone).map(AsFd::as_fd)
    }
}

fn refused(text: impl ToString) -> Event {
    Event::Refused(text.to_string())
}

impl Monitor {
    pub(super) fn exec(
        &mut self,
        at: usize,
        request: &ExecRequest,
        stdio: Option<[SharedFd; 3]>,
    ) -> Option<Event> {
        match self.state.status {
            Status::Running => {}
            Status::Paused => {
                let name = &self.record.name;
                return Some(refused(format!(
                    "container {name} is paused, unpause the container before exec"
                )));
            }
            other => return Some(refused(format!("container {} is {other}, not running", self.record.name))),
        }
        let Some(life) = self.life.as_ref().filter(|life| life.exit.is_none()) else {
            return Some(refused(format!("container {} is not running", self.record.name)));
        };
        let streams = match stdio {
            Some(fds) => {
                let copies = fds.map(|fd| fd.as_fd().try_clone_to_owned());
                match copies {
                    [Ok(stdin), Ok(stdout), Ok(stderr)] => Ok(Stdio { stdin, stdout, stderr }),
                    _ => Err(std::io::Error::from(std::io::ErrorKind::InvalidInput)),
                }
            }
            None => client::null().and_then(|_| Stdio::null()),
        };
        let streams = match streams {
            Ok(streams) => streams,
            Err(e) => return Some(refused(e)),
        };
        let process = spec::exec(&self.record, request);
        let privileged = request.privileged || self.record.confinement.privileged;
        let mut running = match self.nursery.spawn_in(&life.running, &process, privileged, streams) {
            Ok(running) => running,
            Err(error) => {
                return Some(Event::ExecEnded { code: CANNOT_RUN, not_started: Some(error.to_string()) });
            }
        };
        if let Some(why) = running.not_executed().map(str::to_owned) {
            let code = running.wait().ok().and_then(|exit| u8::try_from(exit.status.code()).ok());
            let code = code.unwrap_or(CANNOT_RUN);
            return Some(Event::ExecEnded { code, not_started: Some(why) });
        }
        let command =
            request.argv.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" ");
        let name = self.exec_name(self.next_exec + 1);
        for action in ["exec_create", "exec_start"] {
            self.event(&format!("{action}: {command}"), &[("execID", name.clone())]);
        }
        let terminal = running.terminal();
        let alone = request.detached;
        let copy = terminal.as_ref().filter(|_| !alone).and_then(|fd| fd.try_clone().ok());
        let client = self.clients[at].id;
        self.clients[at].tell(&Event::ExecStarted { terminal: copy.map(SharedFd::from) });
        self.next_exec += 1;
        self.execs.push(Exec { id: self.next_exec, running, client, terminal, alone });
        None
    }

    /// A command is gone; those that it has started are alone.
    pub(super) fn leave_execs(&mut self, client: u64) {
        for exec in self.execs.iter_mut().filter(|exec| exec.client == client) {
            exec.alone = true;
        }
    }

    /// Reads what nobody else does.
    pub(super) fn drop_exec_output(&mut self, id: u64) {
        let Some(exec) = self.execs.iter_mut().find(|exec| exec.id == id) else { return };
        let mut buffer = [0; 4096];
        let Some(terminal) = exec.unread_terminal() else { return };
        match rustix::io::read(terminal, &mut buffer) {
            Ok(n) if n > 0 => {}
            Err(Errno::INTR | Errno::AGAIN) => {}
            // nobody has it open
            Ok(_) | Err(_) => exec.terminal = None,
        }
    }

    /// Gives the name of one of them in events; nothing else needs it.
    fn exec_name(&self, id: u64) -> String {
        let text = format!("{}/{id}", self.record.id);
        crate::digest::Digest::sha256_of(text.as_bytes()).encoded().to_owned()
    }

    /// One of them has ended.
    pub(super) fn exec_ended(&mut self, id: u64) {
        let Some(at) = self.execs.iter().position(|exec| exec.id == id) else { return };
        let mut exec = self.execs.swap_remove(at);
        let code = exec.running.wait().map_or(137, |exit| exit.status.code());
        self.event("exec_die", &[("execID", self.exec_name(id)), ("exitCode", code.to_string())]);
        self.tell_exec_end(exec.client, code);
    }

    fn tell_exec_end(&mut self, client: u64, code: i32) {
        if let Some(client) = self.clients.iter_mut().find(|c| c.id == client) {
            client.tell(&Event::ExecEnded { code: u8::try_from(code).unwrap_or(u8::MAX), not_started: None });
        }
    }

    /// The container has ended, and they with it.
    pub(super) fn execs_are_over(&mut self) {
        for mut exec in std::mem::take(&mut self.execs) {
            let _ = exec.running.kill();
            let code = exec.running.wait().map_or(137, |exit| exit.status.code());
            self.tell_exec_end(exec.client, code);
        }
    }
}
