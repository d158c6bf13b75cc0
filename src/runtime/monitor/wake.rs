//! The loop's one place to sleep: whatever comes first wakes it.

use super::{Monitor, life};
use crate::runtime::RunError;
use crate::runtime::log::Stream;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Signals to the monitor itself, as events.
pub(super) struct Signals(SignalFd);

impl Signals {
    /// Blocks all signals but those of a fault; they are read from here on.
    pub(super) fn new() -> Result<Self, RunError> {
        let mut all = SigSet::all();
        for fault in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGABRT] {
            all.remove(fault);
        }
        let make = || {
            pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&all), None)?;
            let mut wanted = SigSet::empty();
            wanted.add(Signal::SIGTERM);
            wanted.add(Signal::SIGINT);
            SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        };
        make().map(Self).map_err(RunError::io("watch for signals"))
    }
}

/// Quiet of this length is taken for the beginning of a long sleep.
const SETTLE: Duration = Duration::from_millis(150);

/// Who has something to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Listener,
    Signals,
    Client(u64),
    Process,
    Output(Stream),
    Input,
    Exec(u64),
    ExecOutput(u64),
    Probe,
    ProbeOutput,
    Network,
}

impl Monitor {
    /// Sleeps until something happens, and does what it asks for.
    pub(super) fn wait(&mut self) {
        let events = match self.sleep() {
            Ok(Some(events)) => {
                self.settled = false;
                events
            }
            Ok(None) => {
                self.settled = true;
                return;
            }
            Err(rustix::io::Errno::INTR) => return,
            Err(_) => {
                // memory is short; the process is still there to be waited for
                std::thread::sleep(Duration::from_millis(100));
                Vec::new()
            }
        };
        for (who, flags) in events {
            match who {
                Who::Listener => self.accept(),
                Who::Signals => self.told_to_end(),
                Who::Client(id) => self.serve_client(id, flags),
                Who::Process => self.process_ended(),
                Who::Output(stream) => self.take_output(stream),
                Who::Input => self.feed_input(),
                Who::Exec(id) => self.exec_ended(id),
                Who::ExecOutput(id) => self.drop_exec_output(id),
                Who::Probe => self.probe_ended(),
                Who::ProbeOutput => self.take_probe_output(),
                Who::Network => self.look_after_network(),
            }
        }
        self.clients.retain(|client| !client.gone);
        self.on_time();
        self.end_life_if_over();
    }

    /// Gives who has something to say; `None` when nobody has for a while.
    fn sleep(&self) -> Result<Option<Vec<(Who, PollFlags)>>, rustix::io::Errno> {
        let mut whom: Vec<(Who, BorrowedFd<'_>, PollFlags)> = Vec::new();
        if let Some(listener) = &self.listener {
            whom.push((Who::Listener, listener.as_fd(), PollFlags::IN));
        }
        whom.push((Who::Signals, self.signals.0.as_fd(), PollFlags::IN));
        let input_full = self.life.as_ref().is_some_and(life::Life::input_is_full);
        let mut backlog = false;
        for client in &self.clients {
            let mut flags = PollFlags::empty();
            // who sends input must wait until there is room for it
            if !(input_full && client.streams.is_some_and(|s| s.stdin)) {
                flags |= PollFlags::IN;
            }
            if client.has_backlog() {
                flags |= PollFlags::OUT;
                backlog = true;
            }
            whom.push((Who::Client(client.id), client.socket(), flags));
        }
        if let Some(life) = &self.life {
            if life.exit.is_none()
                && let Some(pidfd) = life.running.pidfd()
            {
                whom.push((Who::Process, pidfd, PollFlags::IN));
            }
            // what nobody takes is not read: the program waits, as it would for a slow terminal
            for (stream, fd) in life.outputs().filter(|_| !backlog) {
                whom.push((Who::Output(stream), fd, PollFlags::IN));
            }
            if input_full && let Some(input) = life.input() {
                whom.push((Who::Input, input, PollFlags::OUT));
            }
            whom.extend(life.joined.watched().map(|fd| (Who::Network, fd, PollFlags::IN)));
            if let Some((pidfd, output)) = life.probe_fds() {
                whom.push((Who::Probe, pidfd, PollFlags::IN));
                whom.extend(output.map(|fd| (Who::ProbeOutput, fd, PollFlags::IN)));
            }
        }
        for exec in &self.execs {
            whom.extend(exec.running.pidfd().map(|fd| (Who::Exec(exec.id), fd, PollFlags::IN)));
            whom.extend(exec.unread_terminal().map(|fd| (Who::ExecOutput(exec.id), fd, PollFlags::IN)));
        }
        let mut fds: Vec<PollFd<'_>> =
            whom.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        let timeout = self.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        // before a long sleep memory is given back
        let long = timeout.is_none_or(|left| left > SETTLE);
        if long && !self.settled {
            let wait = Timespec { tv_sec: 0, tv_nsec: SETTLE.as_nanos() as i64 };
            if poll(&mut fds, Some(&wait))? == 0 {
                crate::sys::process::forget_code();
                return Ok(None);
            }
            let ready = whom.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
            return Ok(Some(ready.map(|((who, ..), fd)| (*who, fd.revents())).collect()));
        }
        let timeout = timeout.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        poll(&mut fds, timeout.as_ref())?;
        let ready = whom.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(Some(ready.map(|((who, ..), fd)| (*who, fd.revents())).collect()))
    }

    fn next_deadline(&self) -> Option<Instant> {
        let life = self.life.as_ref();
        let probe = life.and_then(life::Life::probe_deadline);
        let drain = life.and_then(|life| life.drain_until);
        [self.next_start, self.kill_at, probe, drain].into_iter().flatten().min()
    }

    /// Does what its time has come for.
    fn on_time(&mut self) {
        let now = Instant::now();
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            if let Some(life) = &self.life {
                let _ = life.running.kill();
                self.event("kill", &[("signal", nix::libc::SIGKILL.to_string())]);
            }
        }
        if self.next_start.is_some_and(|at| at <= now) {
            self.next_start = None;
            self.start_again();
        }
        self.probe_on_time(now);
    }

    /// Somebody ends the monitor itself, at shutdown: the container is stopped in good order.
    fn told_to_end(&mut self) {
        while let Ok(Some(_)) = self.signals.0.read_signal() {
            self.shut_down = !self.state.stopped_by_user;
            self.end(None, None);
        }
    }
}
