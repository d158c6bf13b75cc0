//! Containers that run beside a test, with what a client of theirs needs; all of it goes when the fleet is dropped.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::{Done, TestSpace};

/// How long a server may take to come up, or a datagram to be answered.
const PATIENCE: Duration = Duration::from_secs(60);

/// nginx and redis from Debian's packages.
const SERVERS: &str = "FROM debian\n\
    RUN apt-get update && apt-get install -y --no-install-recommends nginx-light redis-server \
    && rm -rf /var/lib/apt/lists/*\n\
    EXPOSE 80 6379\n";

/// A space whose containers are removed with it.
pub(crate) struct Fleet {
    pub(crate) space: TestSpace,
}

impl Fleet {
    pub(crate) fn new(space: TestSpace) -> Self {
        Self { space: space.with_busybox() }
    }

    /// Runs `run -d --name NAME FLAGS... IMAGE ARGS...` and insists that it starts.
    #[track_caller]
    pub(crate) fn start(&self, name: &str, flags: &[&str], image_and_args: &[&str]) {
        self.space.rbuild([&["run", "-d", "--name", name], flags, image_and_args].concat()).ok();
    }

    /// Starts a web server that says its own name.
    #[track_caller]
    pub(crate) fn web(&self, name: &str, flags: &[&str]) {
        let script =
            format!("mkdir -p /w && echo {name} > /w/index.html && exec httpd -f -p '[::]:80' -h /w");
        self.start(name, flags, &["busybox", "sh", "-c", &script]);
    }

    /// Runs a shell in a container that goes at once.
    pub(crate) fn shell(&self, flags: &[&str], script: &str) -> Done {
        let args = [&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat();
        self.space.rbuild(args)
    }

    /// Runs a command and gives what it prints, without the last line's end.
    #[track_caller]
    pub(crate) fn says(&self, args: &[&str]) -> String {
        self.space.rbuild(args).ok().stdout.trim_end().to_owned()
    }

    /// The address of a container in a network.
    #[track_caller]
    pub(crate) fn address(&self, name: &str, network: &str) -> String {
        let all = self.says(&["inspect", name, "-f", "{{json .NetworkSettings.Networks}}"]);
        let all: serde_json::Value = serde_json::from_str(&all).expect("JSON");
        all[network]["IPAddress"].as_str().unwrap_or_default().to_owned()
    }

    /// The host port that leads to a container's port; `all` is what `port` says.
    #[track_caller]
    pub(crate) fn port(&self, name: &str, port: &str) -> u16 {
        let all = self.says(&["port", name, port]);
        let first = all.lines().next().unwrap_or_default();
        first.rsplit(':').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{all}"))
    }

    /// The process that looks after a container: the parent of its first process.
    #[track_caller]
    pub(crate) fn monitor(&self, name: &str) -> i32 {
        let pid = self.says(&["inspect", name, "-f", "{{.State.Pid}}"]);
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running container");
        let after = stat.rsplit(')').next().unwrap_or_default();
        after.split_whitespace().nth(1).and_then(|ppid| ppid.parse().ok()).expect("a parent")
    }

    /// Loads the image `servers`, which is built once for all tests.
    #[track_caller]
    pub(crate) fn load_servers(&self) {
        let tar = servers();
        let args: [&std::ffi::OsStr; 3] = ["load".as_ref(), "-i".as_ref(), tar.as_os_str()];
        self.space.rbuild(args).ok();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let all = self.space.rbuild(["ps", "-aq"]).stdout;
        let names: Vec<&str> = all.split_whitespace().collect();
        if !names.is_empty() {
            self.space.rbuild([&["rm", "-f", "-v"], names.as_slice()].concat());
        }
    }
}

/// The archive with the image of the servers; whoever needs it first builds it, the others wait.
fn servers() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (tar, lock) = (dir.join("servers.tar"), dir.join("servers.lock"));
    let file = File::create(lock).expect("a lock");
    flock(file.as_fd(), FlockOperation::LockExclusive).expect("the lock");
    if !tar.exists() {
        let space = TestSpace::new().with_debian();
        space.build_text("servers", SERVERS);
        let half = space.path("servers.tar");
        let args: [&std::ffi::OsStr; 4] =
            ["save".as_ref(), "-o".as_ref(), half.as_os_str(), "servers".as_ref()];
        space.rbuild(args).ok();
        std::fs::rename(half, &tar).expect("one file system");
    }
    tar
}

/// Asks a web server for `/`, until it answers; gives the body.
#[track_caller]
pub(crate) fn get(ip: &str, port: u16) -> String {
    let ip: IpAddr = ip.parse().expect("an address");
    let start = Instant::now();
    loop {
        match try_get(SocketAddr::new(ip, port)) {
            Ok(body) => return body,
            Err(e) => assert!(start.elapsed() < PATIENCE, "{ip}:{port} does not answer: {e}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Asks a web server once.
pub(crate) fn try_get(at: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: test\r\n\r\n")?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let all = String::from_utf8_lossy(&all).into_owned();
    match all.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains("200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(format!("no answer: {all:?}"))),
    }
}

/// Sends one datagram until it is answered; gives the answer.
#[track_caller]
pub(crate) fn ask(ip: &str, port: u16, word: &str) -> String {
    let ip: IpAddr = ip.parse().expect("an address");
    let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).expect("a socket");
    socket.connect((ip, port)).expect("an address");
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
    let (start, mut buffer) = (Instant::now(), [0; 1500]);
    loop {
        let answer = socket.send(word.as_bytes()).and_then(|_| socket.recv(&mut buffer));
        match answer {
            Ok(n) => return String::from_utf8_lossy(&buffer[..n]).into_owned(),
            Err(e) => assert!(start.elapsed() < PATIENCE, "{ip}:{port} does not answer: {e}"),
        }
    }
}

/// An address of the host that is not on its loopback: the one that leads outside. Nothing is sent.
pub(crate) fn host_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.250:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then(|| ip.to_string())
}

/// Whether the host has IPv6 on its loopback.
pub(crate) fn has_ipv6() -> bool {
    UdpSocket::bind("[::1]:0").is_ok()
}
