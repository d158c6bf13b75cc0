//! Commands that are connected: what they ask for is done here, and what they are told waits here until they take it.

use super::{Monitor, now};
use crate::runtime::log::Stream;
use crate::runtime::protocol::{self, Event, Request, Streams};
use crate::runtime::state::Status;
use crate::sandbox::{self, SharedFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: u64,
    socket: OwnedFd,
    /// What it is attached to.
    pub(super) streams: Option<Streams>,
    /// It waits for the end of the container.
    pub(super) waits: bool,
    pub(super) gone: bool,
    backlog: VecDeque<(Vec<u8>, Vec<SharedFd>)>,
}

/// Counts connections.
fn next_id() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Client {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let backlog = VecDeque::new();
        Ok(Self { id: next_id(), socket, streams: None, waits: false, gone: false, backlog })
    }

    /// Takes the connection over which this monitor was started, with its first request; `None` when it is closed.
    pub(super) fn first(socket: OwnedFd) -> io::Result<Option<(Self, Request)>> {
        let Some(request) = protocol::receive(&socket)? else { return Ok(None) };
        Ok(Some((Self::new(socket)?, request)))
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    pub(super) fn wants_end(&self) -> bool {
        self.waits || self.streams.is_some()
    }

    /// Tells it something, now or as soon as it takes it.
    pub(super) fn tell(&mut self, event: &Event) {
        if let Ok(message) = protocol::pack(event) {
            self.backlog.push_back(message);
            self.flush();
        }
    }

    /// Looks for requests that wait for the end and have come too late to be served.
    pub(super) fn take_last_wishes(&mut self) {
        while let Ok(Some(request)) = protocol::receive::<Request>(&self.socket) {
            self.waits |= matches!(request, Request::Wait | Request::Stop { .. } | Request::Attach { .. });
        }
    }

    /// Sends as much as it takes.
    pub(super) fn flush(&mut self) {
        while let Some((bytes, riders)) = self.backlog.front() {
            let fds: Vec<_> = riders.iter().map(AsFd::as_fd).collect();
            match sandbox::socket::send(&self.socket, bytes, &fds) {
                Ok(()) => drop(self.backlog.pop_front()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.gone = true;
                    self.backlog.clear();
                }
            }
        }
    }

    /// Sends all, waiting at most so long.
    pub(super) fn flush_for(&mut self, patience: Duration) {
        let until = Instant::now() + patience;
        self.flush();
        while self.has_backlog() && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], Some(&left));
            self.flush();
        }
    }
}

impl Monitor {
    /// Takes new connections.
    pub(super) fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok(socket) = rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC) {
            if let Ok(client) = Client::new(socket) {
                self.clients.push(client);
            }
        }
    }

    /// Does what a connection is ready for.
    pub(super) fn serve_client(&mut self, id: u64, flags: PollFlags) {
        let Some(at) = self.clients.iter().position(|client| client.id == id) else { return };
        if flags.contains(PollFlags::OUT) {
            self.clients[at].flush();
        }
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        match protocol::receive::<Request>(self.clients[at].socket()) {
            Ok(Some(request)) => {
                if let Some(answer) = self.handle(at, request) {
                    self.clients[at].tell(&answer);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => self.hung_up(at),
        }
    }

    fn hung_up(&mut self, at: usize) {
        self.clients[at].gone = true;
        self.leave_execs(self.clients[at].id);
        // a container of `run -i` reads the input of that command
        let had_input = self.clients[at].streams.is_some_and(|streams| streams.stdin);
        if had_input && self.record.stdin_once {
            self.end_input();
        }
    }

    /// Does what is asked for, and gives the answer unless it comes later.
    fn handle(&mut self, at: usize, request: Request) -> Option<Event> {
        let done = |result: Result<(), String>| Some(result.map_or_else(Event::Refused, |()| Event::Done));
        match request {
            Request::Start { .. } => Some(Event::Refused("the container is running already".into())),
            Request::Attach { streams, size } => {
                self.clients[at].streams = Some(streams);
                if let Some((columns, rows)) = size {
                    self.resize(columns, rows);
                }
                Some(Event::Started)
            }
            Request::Input(bytes) => {
                self.take_input(&bytes);
                None
            }
            Request::InputEnd => {
                if self.record.stdin_once {
                    self.end_input();
                }
                None
            }
            Request::Resize(columns, rows) => {
                self.resize(columns, rows);
                None
            }
            Request::Signal(signal) => {
                if let Some(life) = &self.life {
                    let _ = life.running.signal(signal);
                }
                None
            }
            Request::Stop { signal, timeout, again } => {
                self.again |= again;
                self.clients[at].waits = true;
                self.stop(signal, timeout);
                if self.life.is_none() {
                    self.state.go(Status::Exited);
                    self.save();
                }
                None
            }
            Request::Kill(signal) => done(self.kill(signal)),
            Request::Wait => {
                self.clients[at].waits = true;
                None
            }
            Request::Pause => done(self.pause()),
            Request::Unpause => done(self.unpause()),
            Request::Exec { request, stdio } => self.exec(at, &request, stdio),
            Request::Unread(errors) => {
                self.close_output(if errors { Stream::Err } else { Stream::Out });
                None
            }
            Request::Root => Some(self.root()),
            Request::Processes => Some(Event::Processes(self.processes())),
            Request::Reload => {
                self.reload();
                Some(Event::Done)
            }
            Request::Limits(limits) => done(self.limit(&limits)),
            Request::Network(change) => Some(self.change_network(&change)),
        }
    }

    fn kill(&mut self, signal: i32) -> Result<(), String> {
        let Some(life) = self.life.as_ref().filter(|life| life.exit.is_none()) else {
            return Err(format!("container {} is not running", self.record.name));
        };
        life.running.signal(signal).map_err(|e| e.to_string())?;
        if signal == nix::libc::SIGKILL || signal == self.record.config.stop_signal {
            self.state.stopped_by_user = true;
        }
        self.thaw();
        self.save();
        self.event("kill", &[("signal", signal.to_string())]);
        Ok(())
    }

    fn root(&self) -> Event {
        let pid = self.life.as_ref().map_or(0, |life| life.running.pid());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()) {
            Ok(root) => Event::Root(root.into()),
            Err(e) => Event::Refused(format!("cannot open the container's root: {e}")),
        }
    }

    /// Lists the processes of the container, the first one first.
    pub(super) fn processes(&self) -> Vec<u32> {
        let Some(life) = &self.life else { return Vec::new() };
        crate::sandbox::members(life.running.pid())
    }

    fn pause(&mut self) -> Result<(), String> {
        match self.state.status {
            Status::Running => {}
            Status::Paused => return Err(format!("container {} is already paused", self.record.name)),
            other => return Err(format!("container {} is not running ({other})", self.record.name)),
        }
        let Some(life) = &mut self.life else { return Err("the container is not running".into()) };
        life.freeze(&self.record.id).map_err(|e| e.to_string())?;
        self.state.go(Status::Paused);
        self.save();
        self.event("pause", &[]);
        Ok(())
    }

    fn unpause(&mut self) -> Result<(), String> {
        if self.state.status != Status::Paused {
            return Err(format!("container {} is not paused", self.record.name));
        }
        self.thaw();
        self.save();
        Ok(())
    }

    /// Lets frozen processes go on.
    pub(super) fn thaw(&mut self) {
        if self.state.status == Status::Paused
            && let Some(life) = &mut self.life
        {
            life.thaw();
            self.state.go(Status::Running);
            self.event("unpause", &[]);
        }
    }

    fn limit(&mut self, limits: &sandbox::Limits) -> Result<(), String> {
        let Some(life) = &mut self.life else { return Err("the container is not running".into()) };
        life.running.limit(limits).map_err(|e| e.to_string())?;
        self.state.cgroups = life.running.cgroup_dirs();
        self.save();
        Ok(())
    }

    fn change_network(&mut self, change: &[u8]) -> Event {
        let Some(life) = &mut self.life else { return Event::Refused("the container is not running".into()) };
        match life.joined.change(change) {
            Ok(answer) => {
                self.state.network = life.joined.state();
                self.reload();
                self.save();
                Event::Answer(answer)
            }
            Err(error) => Event::Refused(super::text(&error)),
        }
    }

    /// Something that the container's networks need has ended or changed.
    pub(super) fn look_after_network(&mut self) {
        let Some(life) = &mut self.life else { return };
        life.joined.look_after();
        self.state.network = life.joined.state();
        self.save();
    }

    /// Gives a piece of output to everybody who wants it.
    pub(super) fn spread(&mut self, stream: Stream, bytes: &[u8]) {
        for client in &mut self.clients {
            let wants = client.streams.is_some_and(|streams| match stream {
                Stream::Out => streams.stdout,
                Stream::Err => streams.stderr,
            });
            if wants && !client.gone {
                client.tell(&match stream {
                    Stream::Out => Event::Output(bytes.to_vec()),
                    Stream::Err => Event::Errors(bytes.to_vec()),
                });
            }
        }
    }

    /// Tells everybody who waits that this run is over, while the container is going to be started again.
    pub(super) fn tell_end(&mut self) {
        let ended = Event::Ended {
            code: u8::try_from(self.state.exit_code).unwrap_or(u8::MAX),
            out_of_memory: self.state.oom_killed,
        };
        for client in self.clients.iter_mut().filter(|client| client.wants_end()) {
            client.tell(&ended);
            (client.waits, client.streams) = (false, None);
        }
        self.state.finished = now();
    }
}
