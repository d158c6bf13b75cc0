//! The monitor: one small process a container, which outlives the command that started it.
//!
//! It owns the process and its streams, writes the log, probes the health, starts again what the policy says, removes a
//! container of `--rm`, and answers commands on the container's socket. It has one thread and one loop: it waits for
//! whatever comes first and does that. Only so may it copy itself to start processes, and stay small.
//!
//! Killed, it takes the container's processes with it (the kernel sees to that); the next command that looks puts the
//! state right. See `state.rs` for the states.

mod clients;
mod events;
mod exec;
mod life;
mod probe;
mod wake;

use super::client;
use super::containers::Containers;
use super::log::LogWriter;
use super::protocol::{Event, Request, Streams};
use super::record::Record;
use super::restart::Backoff;
use super::state::{State, Status};
use super::{RunError, time};
use crate::sandbox::Nursery;
use crate::sandbox::rootless::{self, Stay};
use crate::snapshot::Snapshots;
use crate::store::{Lock, Store};
use crate::sys::process;
use clients::Client;
use life::Life;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use events::{EventQuery, EventReader, record_event, record_other};

/// The name under which a monitor is executed; nothing that a user types has it.
pub(super) const NAME: &str = "rbuild-monitor";

/// Exit code of a container that the engine could not start.
const ENGINE_ERROR: u8 = 125;

/// Exit code that docker keeps with a container which did not come to its program.
const NOT_BEGUN: i32 = 128;

/// Why a container could not be started.
struct Failure {
    /// What the command ends with.
    code: u8,
    /// What `inspect` shows.
    error: String,
    /// What the command says: the error, and what helps.
    text: String,
}

/// How long somebody else may hold the container's lock for a look.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// What docker gives a container to stop.
const STOP_TIMEOUT: i64 = 10;

/// Serves as the monitor of a container when this process was executed as one, and gives its exit code; `None` in every
/// other case. To be called by `main` before anything that might start a thread.
pub fn monitor_main() -> Option<std::process::ExitCode> {
    std::env::args_os().next().is_some_and(|name| name == NAME).then(|| serve().into())
}

fn serve() -> u8 {
    process::default_signals();
    // No terminal, no foreground group: signals from the keyboard are not for it.
    let _ = rustix::process::setsid();
    let Ok(socket) = process::take_stdin() else { return 1 };
    let first = match Client::first(socket) {
        Ok(Some(first)) => first,
        // The command has changed its mind.
        Ok(None) => return 0,
        Err(_) => return 1,
    };
    match first {
        (mut client, Request::Start { root, id, attach, size }) => {
            let root = PathBuf::from(OsString::from_vec(root));
            match Monitor::new(&root, &id) {
                Ok(monitor) => monitor.run(client, attach, size),
                Err(error) => {
                    client.tell(&Event::Failed { code: ENGINE_ERROR, text: text(&error) });
                    client.flush_for(Duration::from_secs(1));
                    1
                }
            }
        }
        _ => 1,
    }
}

/// Gives an error with its hint, as the command would say it.
fn text(error: &RunError) -> String {
    match error.hint() {
        Some(hint) => format!("{error}\n{hint}"),
        None => error.to_string(),
    }
}

/// A container that is being looked after.
struct Monitor {
    containers: Containers,
    record: Record,
    state: State,
    dir: PathBuf,
    lock: Option<Lock>,
    listener: Option<OwnedFd>,
    signals: wake::Signals,
    nursery: Nursery,
    /// An ordinary user's containers share a user namespace, which lasts as long as one of them.
    _stay: Option<Stay>,
    snapshots: Snapshots,
    clients: Vec<Client>,
    life: Option<Life>,
    log: LogWriter,
    execs: Vec<exec::Exec>,
    next_exec: u64,
    backoff: Backoff,
    /// When the restart policy starts it again.
    next_start: Option<Instant>,
    /// When patience with a process that was asked to end is over.
    kill_at: Option<Instant>,
    /// It was asked to stop, of which `events` hears when it has.
    stopping: bool,
    /// It is stopped to be started again by a command, so `--rm` does not count.
    again: bool,
    /// A signal has ended it: the session or the machine goes down, which is not what its user asked for.
    shut_down: bool,
    size: Option<(u16, u16)>,
    /// Memory has been given back since the last event.
    settled: bool,
}

impl Monitor {
    fn new(root: &std::path::Path, id: &str) -> Result<Self, RunError> {
        let store = Store::open(root)?;
        let containers = Containers::new(&store);
        let container = containers.find(id)?;
        let id = &container.record.id;
        let until = Instant::now() + LOCK_PATIENCE;
        let lock = loop {
            match containers.try_lock(id)? {
                Some(lock) => break lock,
                None if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                None => return Err(RunError::Running(container.record.name.to_string())),
            }
        };
        crate::fault::point("container.monitor_locked");
        // as it is now that nobody else can change it
        let container = containers.get(id)?.ok_or_else(|| RunError::NoContainer(id.to_string()))?;
        if !container.state.status.can_start() {
            let (name, status) = (container.record.name.to_string(), container.state.status);
            return Err(RunError::NotStartable { name, status });
        }
        let details = log_details(&container.record);
        let log = LogWriter::open(&container.log_path(), &container.record.log, &details);
        let mut state = container.state.clone();
        state.restarts = 0;
        let shared = rootless::state().is_some_and(|state| state.shared);
        let stay = shared.then(Stay::new).transpose();
        Ok(Self {
            _stay: stay.map_err(RunError::io("stay in the namespace that containers share"))?,
            nursery: Nursery::new()?,
            signals: wake::Signals::new()?,
            snapshots: Snapshots::new(store),
            log: log.map_err(RunError::io("open the container's log"))?,
            listener: Some(listen(&container.dir)?),
            dir: container.dir.clone(),
            record: container.record,
            state,
            containers,
            lock: Some(lock),
            clients: Vec::new(),
            life: None,
            execs: Vec::new(),
            next_exec: 0,
            backoff: Backoff::default(),
            next_start: None,
            kill_at: None,
            stopping: false,
            again: false,
            shut_down: false,
            size: None,
            settled: false,
        })
    }

    fn run(mut self, mut starter: Client, attach: Option<Streams>, size: Option<(u16, u16)>) -> u8 {
        self.size = size;
        starter.streams = attach;
        self.clients.push(starter);
        self.state.stopped_by_user = false;
        match self.start() {
            Ok(()) => self.tell_starter(&Event::Started),
            Err(error) => {
                let failure = match error {
                    RunError::NotStarted { code, text } => Failure { code, error: text.clone(), text },
                    other => Failure { code: ENGINE_ERROR, error: other.to_string(), text: text(&other) },
                };
                self.close_down(Some(failure));
                return 1;
            }
        }
        while self.life.is_some() || self.next_start.is_some() {
            self.wait();
        }
        self.close_down(None);
        0
    }

    fn tell_starter(&mut self, event: &Event) {
        if let Some(client) = self.clients.first_mut() {
            client.tell(event);
        }
    }

    /// Writes the state; what cannot be written is seen by the next command as a killed monitor's.
    fn save(&self) {
        let _ = self.containers.save_state(&self.record, &self.state);
    }

    /// Says what has happened, for `events`.
    fn event(&self, action: &str, attributes: &[(&str, String)]) {
        events::record_event(&self.containers, &self.record, action, attributes);
    }

    /// Says, for `events`, that the container has come into its networks and has its volumes, or no longer.
    fn joined_event(&self, begins: bool, endpoints: &[crate::network::Endpoint]) {
        let root = self.containers.store().root();
        let container = || ("container", self.record.id.to_string());
        for endpoint in endpoints {
            let action = if begins { "connect" } else { "disconnect" };
            let attributes = [container(), ("name", endpoint.network.clone()), ("type", "bridge".to_owned())];
            events::record_other(root, "network", action, &endpoint.network_id, &attributes);
        }
        for mount in &self.record.mounts {
            let super::MountSource::Volume { name, .. } = &mount.source else { continue };
            let mut attributes = vec![container(), ("driver", "local".to_owned())];
            if begins {
                let target = String::from_utf8_lossy(&mount.target).into_owned();
                attributes.push(("destination", target));
                attributes.push(("propagation", String::new()));
                attributes.push(("read/write", (!mount.readonly).to_string()));
            }
            let action = if begins { "mount" } else { "unmount" };
            events::record_other(root, "volume", action, name, &attributes);
        }
    }

    /// Reads the record again: a command has changed the name or the policy.
    fn reload(&mut self) {
        if let Ok(Some(container)) = self.containers.get(&self.record.id) {
            self.record = container.record;
        }
    }

    /// Ends the container because its user wants that.
    fn stop(&mut self, signal: Option<i32>, timeout: Option<i64>) {
        self.state.stopped_by_user = true;
        self.end(signal, timeout);
    }

    /// Asks the first process to end, and remembers when to insist.
    fn end(&mut self, signal: Option<i32>, timeout: Option<i64>) {
        self.next_start = None;
        let Some(life) = &self.life else { return };
        let signal = signal.unwrap_or(self.record.config.stop_signal);
        let sent = life.running.signal(signal).is_ok();
        self.stopping = true;
        self.event("kill", &[("signal", signal.to_string())]);
        self.thaw();
        let seconds = timeout.or(self.record.stop_timeout).unwrap_or(STOP_TIMEOUT);
        self.kill_at = match u64::try_from(seconds) {
            // what could not be asked is not waited for
            Ok(seconds) => {
                Some(Instant::now() + Duration::from_secs(if sent { seconds } else { 2.min(seconds) }))
            }
            Err(_) => None,
        };
        self.save();
    }

    /// The last act: nobody finds a monitor any more, then the container may go, then all who wait are told.
    fn close_down(&mut self, failure: Option<Failure>) {
        let _ = std::fs::remove_file(self.dir.join("socket"));
        self.listener = None;
        if let Some(Failure { code, error, .. }) = &failure {
            // the command's code says whose fault it was, the container's that it did not begin
            self.state.exit_code = if *code == ENGINE_ERROR { NOT_BEGUN } else { i32::from(*code) };
            self.state.error.clone_from(error);
            if self.state.status.is_live() {
                self.state.go(Status::Exited);
            }
            self.save();
        }
        self.reload_name();
        let Some(lock) = self.lock.take() else { return };
        if self.record.auto_remove && !self.again {
            let mut container = super::Container {
                record: self.record.clone(),
                state: self.state.clone(),
                dir: self.dir.clone(),
            };
            let _ = self.containers.remove_locked(&mut container, true, lock);
            self.event("destroy", &[]);
        } else {
            drop(lock);
        }
        let ended = match failure {
            Some(Failure { code, text, .. }) => Event::Failed { code, text },
            None => Event::Ended {
                code: u8::try_from(self.state.exit_code).unwrap_or(u8::MAX),
                out_of_memory: self.state.oom_killed,
            },
        };
        let until = Instant::now() + Duration::from_secs(5);
        for client in &mut self.clients {
            client.take_last_wishes();
            if client.wants_end() || matches!(ended, Event::Failed { .. }) {
                client.tell(&ended);
            }
            client.flush_for(until.saturating_duration_since(Instant::now()));
        }
    }

    /// The name may have been changed by a command that did not reach us.
    fn reload_name(&mut self) {
        let path = self.dir.join("config.json");
        if let Ok(bytes) = std::fs::read(path)
            && let Ok(record) = serde_json::from_slice::<Record>(&bytes)
        {
            self.record = record;
        }
    }
}

/// Gives the labels and variables that `--log-opt labels=...,env=...` asks for, and the tag.
fn log_details(record: &Record) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for name in record.log.detail_names("labels") {
        out.extend(record.config.labels.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    for name in record.log.detail_names("env") {
        let prefix = format!("{name}=").into_bytes();
        let value = record.config.env.iter().find_map(|entry| entry.strip_prefix(&prefix[..]));
        out.extend(value.map(|value| (name.to_owned(), String::from_utf8_lossy(value).into_owned())));
    }
    if let Some(tag) = record.log.options.get("tag") {
        let tag = tag.replace("{{.ID}}", record.id.short()).replace("{{.Name}}", record.name.as_str());
        out.push(("tag".into(), tag.replace("{{.FullID}}", record.id.as_str())));
    }
    out
}

/// Makes the container's socket in place of one that a killed monitor has left.
fn listen(dir: &std::path::Path) -> Result<OwnedFd, RunError> {
    let make = || -> std::io::Result<OwnedFd> {
        let _ = std::fs::remove_file(dir.join("socket"));
        let open = crate::sys::fsutil::open_dir(dir)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::bind(&socket, &client::address(open.as_fd())?)?;
        rustix::net::listen(&socket, 64)?;
        Ok(socket)
    };
    make().map_err(RunError::io("make the container's socket"))
}

/// Gives the moment of now for records.
fn now() -> i128 {
    time::now()
}
