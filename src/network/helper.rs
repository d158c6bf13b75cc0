//! The rootless way out: a helper program of the user copies packets between the namespace and ordinary sockets.
//!
//! pasta first: it keeps the host's addresses and is the faster one; slirp4netns where pasta is missing. Both get the
//! namespace as their standard input and report readiness on their standard output (pasta writes its process id
//! there, slirp4netns a "1"). So nothing has a path that could be stale or forbidden: pasta drops the capability to
//! look into our `/proc` directory before it opens the namespace, and newer ones close all other descriptors.
//!
//! The helper stays our child: killed on drop, and by the kernel when rbuild itself is killed. One that ends by itself, or is
//! killed, is started anew on the same namespace.

use std::{
    io::{self, Read},
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open},
    time::Timespec,
};

use super::{HostDns, NetworkError, Reach};
use crate::sys::{leash, netlink::Netlink, netlink_route as rt};

/// How long a helper may take; it needs some 20 ms unless the machine is overloaded.
const PATIENCE: Duration = Duration::from_secs(10);
/// A helper that has run for so long may be replaced without end, others [`MOST_FAILURES`] times.
const STEADY: Duration = Duration::from_secs(60);
const MOST_FAILURES: u32 = 10;
/// Before the next one is started.
const PAUSE: Duration = Duration::from_millis(100);
/// Where pasta answers DNS queries when the host's servers are all on its loopback: an address nobody routes.
const PASTA_DNS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// slirp4netns' own addresses: the host, the name server, the inside.
const SLIRP: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(10, 0, 2, 100)];

/// The programs that can do it, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelperKind {
    /// `pasta`, of the package passt.
    Pasta,
    /// `slirp4netns`.
    Slirp4netns,
}

impl HelperKind {
    /// The program's name.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }

    /// Finds the best one in `PATH`.
    #[must_use]
    pub fn find() -> Option<(Self, PathBuf)> {
        let path = std::env::var_os("PATH")?;
        [Self::Pasta, Self::Slirp4netns].into_iter().find_map(|kind| {
            let file = std::env::split_paths(&path).map(|dir| dir.join(kind.program()));
            file.into_iter().find(|file| executable(file)).map(|file| (kind, file))
        })
    }
}

fn executable(file: &std::path::Path) -> bool {
    file.is_absolute() && file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

/// What to run and what the network will look like.
pub(super) struct Plan {
    kind: HelperKind,
    program: PathBuf,
    arguments: Vec<String>,
    pub(super) resolv_conf: Vec<u8>,
    /// Where the host is reached from inside, if that was asked for.
    pub(super) gateway: Option<IpAddr>,
    /// The address inside, if known.
    pub(super) address: Option<IpAddr>,
    /// Whether the host has no IPv4 default route, which may be why a helper fails.
    pub(super) offline: bool,
}

impl Plan {
    /// Decides how to connect; `reach_host` opens the host's loopback services to the network at the gateway's address.
    pub(super) fn new(route: &mut Netlink, dns: &HostDns, reach_host: bool) -> Result<Self, NetworkError> {
        let (kind, program) = HelperKind::find().ok_or(NetworkError::NoHelper)?;
        let plan = match kind {
            HelperKind::Pasta => Self::pasta(program, route, dns, reach_host),
            HelperKind::Slirp4netns => Ok(Self::slirp(program, dns, reach_host)),
        };
        plan.map_err(NetworkError::setup("read the host's routes"))
    }

    fn pasta(program: PathBuf, route: &mut Netlink, dns: &HostDns, reach_host: bool) -> io::Result<Self> {
        let fixed = "--quiet --foreground --stderr --config-net --no-netns-quit \
            --tcp-ports none --udp-ports none --tcp-ns none --udp-ns none \
            --pid /proc/self/fd/1 --netns /proc/self/fd/0";
        let mut arguments: Vec<String> = fixed.split_whitespace().map(Into::into).collect();
        let mut servers = dns.servers(Reach::Dual);
        if servers.is_empty() {
            arguments.extend(["--dns-forward".into(), PASTA_DNS.to_string()]);
            servers.push(PASTA_DNS.into());
        }
        if !reach_host {
            arguments.push("--no-map-gw".into());
        }
        // pasta copies address and gateway of the interface with the default route.
        let routes = rt::routes(route)?;
        let uplink = routes.iter().filter(|r| r.to.1 == 0).min_by_key(|r| r.metric);
        let address =
            rt::addresses(route)?.into_iter().find(|a| uplink.is_some_and(|u| u.index == Some(a.index)));
        Ok(Self {
            kind: HelperKind::Pasta,
            program,
            arguments,
            resolv_conf: dns.render(&servers),
            gateway: uplink.and_then(|u| u.gateway).filter(|_| reach_host).map(IpAddr::V4),
            address: address.map(|a| IpAddr::V4(a.ip)),
            offline: uplink.is_none(),
        })
    }

    fn slirp(program: PathBuf, dns: &HostDns, reach_host: bool) -> Self {
        let fixed = "--configure --mtu=65520 --ready-fd=1 --netns-type=path /proc/self/fd/0 eth0";
        let mut arguments: Vec<String> = fixed.split_whitespace().map(Into::into).collect();
        if !reach_host {
            arguments.insert(0, "--disable-host-loopback".into());
        }
        let [host, server, inside] = SLIRP.map(IpAddr::V4);
        Self {
            kind: HelperKind::Slirp4netns,
            program,
            arguments,
            resolv_conf: dns.render(&[server]),
            gateway: reach_host.then_some(host),
            address: Some(inside),
            offline: false,
        }
    }
}

/// A running helper; killed on drop.
#[derive(Debug)]
pub(super) struct Helper {
    pub(super) kind: HelperKind,
    /// Dropped to end the keeper.
    stop: Option<OwnedFd>,
    keeper: Option<JoinHandle<()>>,
}

/// How to start a helper, as often as need be.
struct Recipe {
    kind: HelperKind,
    program: PathBuf,
    arguments: Vec<String>,
    netns: OwnedFd,
}

impl Recipe {
    fn spawn(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(self.netns.try_clone()?);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        leash::die_with_spawner(&mut command);
        command.spawn()
    }

    /// Starts it, and gives it when the network is up.
    fn start(&self) -> Result<Child, NetworkError> {
        let program = self.kind.program();
        let mut child = self.spawn().map_err(NetworkError::setup(format!("start {program}")))?;
        match wait_ready(program, &mut child) {
            Ok(()) => Ok(child),
            Err(error) => {
                end(child);
                Err(error)
            }
        }
    }
}

impl Helper {
    /// Starts the helper on `netns` and returns when the network is up.
    ///
    /// A thread of its own spawns the helper and waits for the end, as the kernel's parent-death signal comes with the
    /// end of the spawning thread, and callers' threads may end before the network does.
    pub(super) fn start(plan: &Plan, netns: BorrowedFd<'_>) -> Result<Self, NetworkError> {
        let failed = || NetworkError::setup(format!("start {}", plan.kind.program()));
        let netns = netns.try_clone_to_owned().map_err(failed())?;
        let recipe = Recipe {
            kind: plan.kind,
            program: plan.program.clone(),
            arguments: plan.arguments.clone(),
            netns,
        };
        let (stopped, stop) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| failed()(e.into()))?;
        let (report, started) = channel();
        let keeper = thread::Builder::new()
            .name(plan.kind.program().into())
            .stack_size(128 << 10)
            .spawn(move || keep(&recipe, &report, stopped.as_fd()))
            .map_err(failed())?;
        let helper = Self { kind: plan.kind, stop: Some(stop), keeper: Some(keeper) };
        match started.recv() {
            Ok(result) => result.map(|()| helper),
            Err(_) => Err(failed()(io::Error::other("the helper's thread ended"))),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(keeper) = self.keeper.take() {
            // A panic of the keeper has already been printed; there is nothing left to undo.
            let _ = keeper.join();
        }
    }
}

/// The keeper thread: spawns, reports readiness, replaces what has ended, waits for the order to stop, kills.
fn keep(recipe: &Recipe, report: &Sender<Result<(), NetworkError>>, stopped: BorrowedFd<'_>) {
    let mut child = match recipe.start() {
        Ok(child) => child,
        Err(error) => {
            let _ = report.send(Err(error));
            return;
        }
    };
    if report.send(Ok(())).is_err() {
        return end(child);
    }
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let over = is_stopped(stopped, pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).ok());
        end(child);
        if over {
            return;
        }
        failures = if began.elapsed() > STEADY { 0 } else { failures + 1 };
        child = loop {
            // the pause ends early when nobody needs it any more
            let pause = Timespec { tv_sec: 0, tv_nsec: PAUSE.as_nanos() as i64 };
            let ended = poll(&mut [PollFd::from_borrowed_fd(stopped, PollFlags::IN)], Some(&pause));
            if failures > MOST_FAILURES || ended.is_ok_and(|n| n > 0) {
                // without a way out then, until the end
                is_stopped(stopped, None);
                return;
            }
            match recipe.start() {
                Ok(child) => break child,
                Err(_) => failures += 1,
            }
        };
    }
}

/// Waits for the order to stop (true) or the end of a process.
fn is_stopped(stopped: BorrowedFd<'_>, process: Option<OwnedFd>) -> bool {
    let mut fds = vec![PollFd::from_borrowed_fd(stopped, PollFlags::IN)];
    fds.extend(process.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
    loop {
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return true,
            Ok(_) => return !fds[0].revents().is_empty(),
        }
    }
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits for the first byte on the child's standard output, or its end.
fn wait_ready(program: &'static str, child: &mut Child) -> Result<(), NetworkError> {
    let failed = || NetworkError::setup(format!("wait for {program}"));
    let mut out = child.stdout.take().expect("stdout was asked to be a pipe");
    let until = Instant::now() + PATIENCE;
    if !readable(out.as_fd(), until).map_err(failed())? {
        return Err(NetworkError::HelperSlow { program, seconds: PATIENCE.as_secs() });
    }
    let mut first = [0];
    if out.read(&mut first).map_err(failed())? == 1 {
        return Ok(());
    }
    // End of file without a word: it is ending. Say why.
    let _ = child.kill();
    let stderr = child.stderr.take().map(OwnedFd::from).map(std::fs::File::from);
    let stderr = stderr.map(|file| last_words(&file)).unwrap_or_default();
    let status = child.wait().map_err(failed())?.to_string();
    Err(NetworkError::HelperFailed { program, status, stderr })
}

/// Waits until `fd` has something to read or its other side is closed; false when the time is over.
fn readable(fd: BorrowedFd<'_>, until: Instant) -> io::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
    }
}

/// The end of what a program said, in one line without control characters.
fn last_words(mut file: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = file.by_ref().take(16 << 10).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    // Without a running syslog, pasta complains about that between its own messages.
    let lines: Vec<_> =
        text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.ends_with("to syslog")).collect();
    let tail = &lines[lines.len().saturating_sub(3)..];
    tail.join("; ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_one_clean_line() {
        let said = "a\nb\n\nFailed to send 45 bytes to syslog\nc\u{1b}[1m\nd\n";
        assert_eq!(last_words(said.as_bytes()), "b; c [1m; d");
        assert_eq!(last_words(&b""[..]), "");
    }

    #[test]
    fn a_helper_that_ends_is_an_error_with_its_words() {
        let mut child = Command::new("sh")
            .args(["-c", "echo no such device >&2; exit 3"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let error = wait_ready("pasta", &mut child).unwrap_err().to_string();
        assert!(error.contains("no such device"), "{error}");
    }
}
