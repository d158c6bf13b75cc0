//! One run of the container's process: started, its streams carried, its end dealt with.

use super::probe::Prober;
use super::{Monitor, now};
use crate::fault;
use crate::runtime::log::Stream;
use crate::runtime::network::{Joined, Member};
use crate::runtime::protocol::{Event, PIECE};
use crate::runtime::state::Status;
use crate::runtime::{RunError, client, containers, health, mounts, spec};
use crate::sandbox::{Exit, Freezer, Running, Stdio};
use crate::snapshot::{Snapshot, Writable};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long output may still come from elsewhere when the process has ended.
const DRAIN: Duration = Duration::from_secs(2);

/// A process with its streams.
pub(super) struct Life {
    pub(super) running: Running,
    pub(super) joined: Joined,
    pub(super) started: Instant,
    /// How it ended; then only its output is still to be read.
    pub(super) exit: Option<Exit>,
    pub(super) drain_until: Option<Instant>,
    pub(super) prober: Option<Prober>,
    terminal: Option<Arc<OwnedFd>>,
    input: Option<Arc<OwnedFd>>,
    waiting_input: Vec<u8>,
    /// The input is closed as soon as what waits is written.
    ends_input: bool,
    output: Option<Arc<OwnedFd>>,
    errors: Option<Arc<OwnedFd>>,
    freezer: Option<Freezer>,
    /// Holds the layers.
    _root: Writable,
    /// Holds those of the images that are mounted.
    _images: Vec<Snapshot>,
}

/// Our ends of the process's streams.
#[derive(Default)]
struct Ends {
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    errors: Option<OwnedFd>,
}

/// Makes the streams of a process without terminal.
fn streams(interactive: bool) -> io::Result<(Stdio, Ends)> {
    let (input, stdin) = match interactive {
        true => {
            let (read, write) = io::pipe()?;
            (Some(OwnedFd::from(write)), OwnedFd::from(read))
        }
        false => (None, OwnedFd::from(client::null()?)),
    };
    let ((output, stdout), (errors, stderr)) = (io::pipe()?, io::pipe()?);
    let ends = Ends { input, output: Some(output.into()), errors: Some(errors.into()) };
    Ok((Stdio { stdin, stdout: stdout.into(), stderr: stderr.into() }, ends))
}

impl Life {
    fn new(monitor: &Monitor, note: &mut dyn FnMut(&str)) -> Result<Self, RunError> {
        let record = &monitor.record;
        let root = monitor.snapshots.writable(&monitor.dir, &record.top)?;
        let member = Member {
            store: monitor.containers.store(),
            id: &record.id,
            name: record.name.as_str(),
            hostname: &record.hostname,
            domainname: &record.domainname,
            exposed: &record.config.exposed,
            env: &record.config.env,
        };
        let mut joined = record.network.join(&member, note)?;
        fault::point("container.joined");
        let rootfs = root.rootfs(record.auto_remove);
        let (store, snapshots) = (monitor.containers.store(), &monitor.snapshots);
        let images = mounts::hold_images(&record.mounts, snapshots)?;
        let spec = spec::sandbox(record, rootfs, &joined, store, snapshots, monitor.size)?;
        let (stdio, ends) = match record.terminal {
            true => (Stdio::null().map_err(RunError::io("open the null device"))?, Ends::default()),
            false => streams(record.interactive).map_err(RunError::io("make pipes"))?,
        };
        let mut running = monitor.nursery.spawn(&spec, stdio)?;
        if let Some(why) = running.not_executed().map(str::to_owned) {
            let exit = running.wait()?;
            let code = u8::try_from(exit.status.code()).unwrap_or(u8::MAX);
            return Err(RunError::NotStarted { code, text: why });
        }
        fault::point("container.spawned");
        joined.started(running.pid())?;
        let terminal = running.terminal().map(Arc::new);
        let fail = || RunError::io::<Errno>("prepare the container's streams");
        for fd in [&ends.input, &ends.output, &ends.errors].into_iter().flatten() {
            rustix::io::ioctl_fionbio(fd, true).map_err(fail())?;
        }
        if let Some(terminal) = &terminal {
            rustix::io::ioctl_fionbio(terminal, true).map_err(fail())?;
        }
        let plan = record.health.as_ref().and_then(|check| health::Plan::new(check, record.shell.as_deref()));
        Ok(Self {
            running,
            joined,
            started: Instant::now(),
            exit: None,
            drain_until: None,
            prober: plan.map(Prober::new),
            input: ends.input.map(Arc::new).or_else(|| terminal.clone()),
            output: ends.output.map(Arc::new).or_else(|| terminal.clone()),
            errors: ends.errors.map(Arc::new),
            terminal,
            waiting_input: Vec::new(),
            ends_input: false,
            freezer: None,
            _root: root,
            _images: images,
        })
    }

    pub(super) fn input_is_full(&self) -> bool {
        !self.waiting_input.is_empty()
    }

    pub(super) fn input(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().map(|fd| fd.as_fd())
    }

    pub(super) fn outputs(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        let output = self.output.as_ref().map(|fd| (Stream::Out, fd.as_fd()));
        let errors = self.errors.as_ref().map(|fd| (Stream::Err, fd.as_fd()));
        output.into_iter().chain(errors)
    }

    pub(super) fn freeze(&mut self, id: &crate::runtime::ContainerId) -> io::Result<()> {
        let freezer = Freezer::new(id.as_str(), &self.running)?;
        freezer.freeze(self.running.pid())?;
        self.freezer = Some(freezer);
        Ok(())
    }

    pub(super) fn thaw(&mut self) {
        if let Some(freezer) = self.freezer.take() {
            freezer.thaw();
        }
    }
}

impl Monitor {
    /// Starts the process for the first time.
    pub(super) fn start(&mut self) -> Result<(), RunError> {
        let mut notes = Vec::new();
        let life = Life::new(self, &mut |text| notes.push(text.to_owned()));
        for text in notes {
            self.tell_starter(&Event::Note(text));
        }
        self.begin(life?);
        Ok(())
    }

    fn begin(&mut self, life: Life) {
        let pid = life.running.pid();
        self.state.go(Status::Running);
        self.state.pid = pid;
        self.state.pid_start = containers::start_time(pid).unwrap_or(0);
        self.state.monitor = std::process::id();
        self.state.boot = crate::sys::boot::id();
        self.state.started = now();
        self.state.finished = 0;
        (self.state.exit_code, self.state.oom_killed) = (0, false);
        self.state.error.clear();
        self.state.network = life.joined.state();
        self.state.cgroups = life.running.cgroup_dirs();
        self.state.health = life.prober.is_some().then(health::Health::default);
        self.life = Some(life);
        self.save();
        fault::point("container.running");
        self.joined_event(true, &self.state.network.endpoints);
        self.event("start", &[]);
    }

    /// Starts it once more, as the policy says.
    pub(super) fn start_again(&mut self) {
        self.state.restarts += 1;
        match Life::new(self, &mut |_| {}) {
            Ok(life) => self.begin(life),
            Err(error) => {
                let code = if let RunError::NotStarted { code, .. } = &error { *code } else { 128 };
                self.state.exit_code = i32::from(code);
                self.state.error = error.to_string();
                self.over(Duration::ZERO, &[]);
            }
        }
    }

    /// Takes note of the end of the process. Its output may still be on the way.
    pub(super) fn process_ended(&mut self) {
        let Some(life) = &mut self.life else { return };
        if life.exit.is_some() {
            return;
        }
        life.thaw();
        let exit = life.running.wait().unwrap_or(Exit {
            status: crate::sandbox::Status::Signal(9),
            exec_error: None,
            stubs: Vec::new(),
            oom_killed: false,
        });
        life.exit = Some(exit);
        life.drain_until = Some(Instant::now() + DRAIN);
        life.input = None;
        life.waiting_input.clear();
        // what is there already is taken without another look at who has something to say
        for stream in [Stream::Out, Stream::Err] {
            while self.clients.iter().all(|client| !client.has_backlog()) && self.take_some_output(stream) {}
        }
    }

    /// Deals with the end when all output has been read.
    pub(super) fn end_life_if_over(&mut self) {
        let over = self.life.as_ref().is_some_and(|life| {
            let drained = life.output.is_none() && life.errors.is_none();
            life.exit.is_some() && (drained || life.drain_until.is_some_and(|at| at <= Instant::now()))
        });
        if !over {
            return;
        }
        let Some(mut life) = self.life.take() else { return };
        self.execs_are_over();
        let _ = self.log.finish();
        let ran = life.started.elapsed();
        let exit = life.exit.take();
        self.state.exit_code = exit.as_ref().map_or(137, |exit| exit.status.code());
        self.state.oom_killed = exit.is_some_and(|exit| exit.oom_killed);
        // networks go before anybody is told
        drop(life);
        let left = std::mem::take(&mut self.state.network).endpoints;
        self.state.cgroups.clear();
        self.over(ran, &left);
    }

    /// Decides what comes after an end; `left` is where it was in networks.
    fn over(&mut self, ran: Duration, left: &[crate::network::Endpoint]) {
        fault::point("container.ended");
        self.state.pid = 0;
        self.state.finished = now();
        self.kill_at = None;
        if self.state.oom_killed {
            self.event("oom", &[]);
        }
        self.event("die", &[("exitCode", self.state.exit_code.to_string())]);
        self.joined_event(false, left);
        if std::mem::take(&mut self.stopping) {
            self.event("stop", &[]);
        }
        self.reload_name();
        let again = !self.state.stopped_by_user
            && !self.shut_down
            && self.record.restart.again(self.state.exit_code, self.state.restarts);
        if self.state.status == Status::Paused {
            self.state.go(Status::Running);
        }
        if again {
            if self.state.status != Status::Restarting {
                self.state.go(Status::Restarting);
            }
            self.next_start = Some(Instant::now() + self.backoff.next(ran));
            self.save();
            self.tell_end();
        } else {
            if self.shut_down {
                self.state.boot.clear();
            }
            self.state.go(Status::Exited);
            self.save();
        }
    }

    /// Reads output that is there.
    pub(super) fn take_output(&mut self, stream: Stream) {
        self.take_some_output(stream);
    }

    /// Reads one piece; says whether there may be more.
    fn take_some_output(&mut self, stream: Stream) -> bool {
        let Some(life) = &mut self.life else { return false };
        let ended = life.exit.is_some();
        let slot = match stream {
            Stream::Out => &mut life.output,
            Stream::Err => &mut life.errors,
        };
        let Some(fd) = slot else { return false };
        let mut buffer = vec![0; PIECE];
        match rustix::io::read(fd.as_fd(), &mut buffer) {
            Ok(n) if n > 0 => {
                let _ = self.log.take(stream, &buffer[..n]);
                self.spread(stream, &buffer[..n]);
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => false,
            // the end of a pipe; of a terminal when nobody has it open (EIO)
            Ok(_) | Err(_) => {
                let hung_up = !ended && life.terminal.is_some();
                *slot = None;
                if hung_up {
                    // a program that has let go of its terminal may take it up again, but nobody can wait for that
                    let _ = self.log.finish();
                }
                false
            }
        }
    }

    /// Reads no more, so that a program that writes more hears of it. Not for a terminal, which is input too.
    pub(super) fn close_output(&mut self, stream: Stream) {
        if let Some(life) = self.life.as_mut().filter(|life| life.terminal.is_none()) {
            match stream {
                Stream::Out => life.output = None,
                Stream::Err => life.errors = None,
            }
        }
    }

    /// Passes input on.
    pub(super) fn take_input(&mut self, bytes: &[u8]) {
        if let Some(life) = &mut self.life
            && life.input.is_some()
        {
            life.waiting_input.extend_from_slice(bytes);
            self.feed_input();
        }
    }

    /// Writes as much of the input as there is room for.
    pub(super) fn feed_input(&mut self) {
        let Some(life) = &mut self.life else { return };
        while let (Some(fd), false) = (&life.input, life.waiting_input.is_empty()) {
            match rustix::io::write(fd.as_fd(), &life.waiting_input) {
                Ok(n) => drop(life.waiting_input.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // nobody reads any more
                Err(_) => {
                    life.waiting_input.clear();
                    life.input = None;
                }
            }
        }
        if life.waiting_input.capacity() > PIECE {
            life.waiting_input = Vec::new();
        }
        if life.ends_input {
            life.input = None;
        }
    }

    /// Closes the program's input once all of it has been written.
    pub(super) fn end_input(&mut self) {
        if let Some(life) = &mut self.life
            && life.terminal.is_none()
        {
            life.ends_input = true;
            self.feed_input();
        }
    }

    pub(super) fn resize(&mut self, columns: u16, rows: u16) {
        self.size = Some((columns, rows));
        if let Some(terminal) = self.life.as_ref().and_then(|life| life.terminal.as_ref()) {
            let _ = crate::sandbox::pty::set_size(terminal, (columns, rows));
        }
    }
}
