//! A command's side of the conversation with a monitor: start one, or connect to the one that is there.

use super::containers::Container;
use super::protocol::{self, Event, ExecRequest, Request, Streams, broken};
use super::{Containers, RunError, monitor};
use crate::sandbox::{self, Limits, SharedFd, sealed_self};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// What programs that a monitor starts (a network helper), and rootless mode, need of the environment.
const KEPT: &[&str] = &[
    "PATH",
    "HOME",
    "XDG_RUNTIME_DIR",
    "XDG_DATA_HOME",
    "LC_ALL",
    "DBUS_SESSION_BUS_ADDRESS",
    "_RBUILD_ROOTLESS",
    #[cfg(debug_assertions)]
    "RBUILD_FAULT",
    #[cfg(debug_assertions)]
    "RBUILD_FAULT_TRACE",
    #[cfg(debug_assertions)]
    "RBUILD_ROOT",
];

/// A connection to the monitor of a container.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

/// How a container ended, as its monitor tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The program's exit code; 128 + N after signal N.
    pub code: u8,
    /// The memory limit killed something.
    pub out_of_memory: bool,
}

impl Client {
    /// Starts a monitor that does not know its container yet; it comes up while the caller goes on.
    pub fn spawn() -> Result<Self, RunError> {
        let fail = || RunError::io::<std::io::Error>("start the container's monitor");
        let program = sealed_self().map_err(fail())?;
        let path = format!("/proc/self/fd/{}", program.as_raw_fd());
        let (ours, theirs) = sandbox::socket::pair().map_err(fail())?;
        let mut command = Command::new(path);
        command.arg0(monitor::NAME).env_clear().current_dir("/");
        for name in KEPT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // nobody waits for it: it outlives this process, or ends with the container
        let child = command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        child.map_err(fail())?;
        Ok(Self { socket: ours })
    }

    /// Connects to the monitor of a container.
    ///
    /// # Errors
    /// [`RunError::NotRunning`] when there is none.
    pub fn connect(container: &Container) -> Result<Self, RunError> {
        let gone = || RunError::NotRunning {
            name: container.record.name.to_string(),
            status: container.state.status,
        };
        let dir = crate::sys::fsutil::open_dir(&container.dir).map_err(|_| gone())?;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(RunError::io("make a socket"))?;
        let address = address(dir.as_fd()).map_err(RunError::io("name the monitor's socket"))?;
        rustix::net::connect(&socket, &address).map_err(|_| gone())?;
        Ok(Self { socket })
    }

    /// Has a new monitor start its container. Gives what it says until then to `note`.
    ///
    /// # Errors
    /// [`RunError::NotStarted`] with the exit code for it.
    pub fn start(
        &self,
        containers: &Containers,
        id: &super::ContainerId,
        attach: Option<Streams>,
        size: Option<(u16, u16)>,
        note: &mut dyn FnMut(&str),
    ) -> Result<(), RunError> {
        let root = containers.store().root().as_os_str().as_bytes().to_vec();
        self.send(&Request::Start { root, id: id.to_string(), attach, size })?;
        loop {
            match self.next()? {
                Event::Started => return Ok(()),
                Event::Note(text) => note(&text),
                Event::Failed { code, text } => return Err(RunError::NotStarted { code, text }),
                Event::Refused(text) => return Err(RunError::Refused(text)),
                _ => {}
            }
        }
    }

    pub(super) fn send(&self, request: &Request) -> Result<(), RunError> {
        protocol::send(&self.socket, request).map_err(broken)
    }

    pub(super) fn next(&self) -> Result<Event, RunError> {
        let next = protocol::receive(&self.socket).map_err(broken)?;
        next.ok_or_else(|| RunError::Refused("the container's monitor has ended unexpectedly".into()))
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Asks and waits for the answer.
    fn ask(&self, request: &Request) -> Result<Event, RunError> {
        self.send(request)?;
        match self.next()? {
            Event::Refused(text) => Err(RunError::Refused(text)),
            event => Ok(event),
        }
    }

    /// Stops the container and waits until it has ended.
    pub fn stop(&self, signal: Option<i32>, timeout: Option<i64>, again: bool) -> Result<Ended, RunError> {
        self.send(&Request::Stop { signal, timeout, again })?;
        self.until_ended()
    }

    /// Sends a signal to the first process.
    pub fn kill(&self, signal: i32) -> Result<(), RunError> {
        self.ask(&Request::Kill(signal)).map(drop)
    }

    /// Waits for the end of the container.
    pub fn wait(&self) -> Result<Ended, RunError> {
        self.send(&Request::Wait)?;
        self.until_ended()
    }

    /// Waits for the end that was asked for.
    pub fn until_ended(&self) -> Result<Ended, RunError> {
        loop {
            match self.next()? {
                Event::Ended { code, out_of_memory } => return Ok(Ended { code, out_of_memory }),
                Event::Refused(text) => return Err(RunError::Refused(text)),
                _ => {}
            }
        }
    }

    /// Attaches to the streams.
    pub fn attach(&self, streams: Streams, size: Option<(u16, u16)>) -> Result<(), RunError> {
        self.ask(&Request::Attach { streams, size }).map(drop)
    }

    /// Freezes all processes.
    pub fn pause(&self) -> Result<(), RunError> {
        self.ask(&Request::Pause).map(drop)
    }

    /// Lets them go on.
    pub fn unpause(&self) -> Result<(), RunError> {
        self.ask(&Request::Unpause).map(drop)
    }

    /// Has the monitor read the container's record again.
    pub fn reload(&self) -> Result<(), RunError> {
        self.ask(&Request::Reload).map(drop)
    }

    /// Changes the limits of the running container.
    pub fn limit(&self, limits: &Limits) -> Result<(), RunError> {
        self.ask(&Request::Limits(limits.clone())).map(drop)
    }

    /// Changes its networks; what goes to and fro is between `network.rs` and the commands for networks.
    pub fn network(&self, change: Vec<u8>) -> Result<Vec<u8>, RunError> {
        match self.ask(&Request::Network(change))? {
            Event::Answer(answer) => Ok(answer),
            _ => Ok(Vec::new()),
        }
    }

    /// Gives the container's root directory as its processes see it.
    pub fn root(&self) -> Result<OwnedFd, RunError> {
        match self.ask(&Request::Root)? {
            Event::Root(root) => root.as_fd().try_clone_to_owned().map_err(RunError::io("take the root")),
            _ => Err(RunError::Refused("the monitor gave something else".into())),
        }
    }

    /// Lists the processes, the first one first.
    pub fn processes(&self) -> Result<Vec<u32>, RunError> {
        match self.ask(&Request::Processes)? {
            Event::Processes(all) => Ok(all),
            _ => Ok(Vec::new()),
        }
    }

    /// Starts a further process; gives its terminal if it asked for one.
    pub fn exec(
        &self,
        request: ExecRequest,
        stdio: Option<[OwnedFd; 3]>,
    ) -> Result<Option<OwnedFd>, RunError> {
        let stdio = stdio.map(|fds| fds.map(SharedFd::from));
        match self.ask(&Request::Exec { request, stdio })? {
            Event::ExecStarted { terminal } => terminal
                .map(|fd| fd.as_fd().try_clone_to_owned())
                .transpose()
                .map_err(RunError::io("take the terminal")),
            Event::ExecEnded { code, not_started } => {
                Err(RunError::NotStarted { code, text: not_started.unwrap_or_default() })
            }
            _ => Err(RunError::Refused("the monitor gave something else".into())),
        }
    }

    /// Waits for the end of the process of [`Client::exec`].
    pub fn exec_ended(&self) -> Result<u8, RunError> {
        loop {
            match self.next()? {
                Event::ExecEnded { code, not_started: None } => return Ok(code),
                Event::ExecEnded { code, not_started: Some(text) } => {
                    return Err(RunError::NotStarted { code, text });
                }
                _ => {}
            }
        }
    }
}

impl AsFd for Client {
    /// Becomes readable with the next news.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Names the socket in a container's directory by descriptor: a socket's path has at most 108 bytes.
pub(super) fn address(dir: BorrowedFd<'_>) -> rustix::io::Result<SocketAddrUnix> {
    SocketAddrUnix::new(Path::new(&format!("/proc/self/fd/{}/socket", dir.as_raw_fd())))
}

/// Opens the null device to read and write.
pub(super) fn null() -> std::io::Result<File> {
    File::options().read(true).write(true).open("/dev/null")
}
