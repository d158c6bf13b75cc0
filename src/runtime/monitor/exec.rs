//! Further processes in the container, started for a command.

use super::Monitor;
use crate::runtime::protocol::{Event, ExecRequest};
use crate::runtime::state::Status;
use crate::runtime::{client, spec};
use crate::sandbox::{Running, SharedFd, Stdio};
use std::os::fd::{AsFd, OwnedFd};

/// One of them.
pub(super) struct Exec {
    pub(super) id: u64,
    pub(super) running: Running,
    /// The connection that wants to hear of its end.
    client: u64,
    /// Kept open where nobody has the terminal of a detached process.
    _terminal: Option<OwnedFd>,
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
        let life = self.life.as_ref().filter(|life| life.exit.is_none())?;
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
            Err(error) => return Some(refused(error)),
        };
        if let Some(why) = running.not_executed().map(str::to_owned) {
            let code = running.wait().map_or(126, |exit| exit.status.code());
            let code = u8::try_from(code).unwrap_or(126);
            return Some(Event::ExecEnded { code, not_started: Some(why) });
        }
        let command =
            request.argv.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" ");
        self.event(&format!("exec_start: {command}"), &[]);
        let mut terminal = running.terminal();
        let kept = if request.detached { terminal.take() } else { None };
        let client = self.clients[at].id;
        self.clients[at].tell(&Event::ExecStarted { terminal: terminal.map(SharedFd::from) });
        self.next_exec += 1;
        self.execs.push(Exec { id: self.next_exec, running, client, _terminal: kept });
        None
    }

    /// One of them has ended.
    pub(super) fn exec_ended(&mut self, id: u64) {
        let Some(at) = self.execs.iter().position(|exec| exec.id == id) else { return };
        let mut exec = self.execs.swap_remove(at);
        let code = exec.running.wait().map_or(137, |exit| exit.status.code());
        self.event("exec_die", &[("exitCode", code.to_string())]);
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
