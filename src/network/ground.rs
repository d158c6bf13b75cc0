//! The ground that an ordinary user's containers stand on: a network namespace with the bridges of the user's networks, and
//! one helper program for all of them as the way out.
//!
//! Root's bridges are in the host's network. A user cannot change that one, but has a namespace of the user's own,
//! connected by pasta, in which everything is then done in the same way. A process keeps it, started by the first
//! container that needs it; whoever stands on it shares a lock for which that process waits, to end when nobody is left.
//! When that process is killed, the next one is given the namespace of the old, which is there as long as somebody stands
//! on it. (All of this is in the user namespace that the user's containers share.)
//!
//! ```text
//! $XDG_RUNTIME_DIR/rbuild/
//!     ground.lock    shared by those who stand on it
//!     ground.make    held by whoever makes it
//!     ground.json    where it is
//! ```

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use nix::fcntl::{Flock, FlockArg};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::{NetEnv, NetworkError, PrivateNetwork, keeper::KeeperFailure, netns::inside};
use crate::sys::{process, run_dir};

/// The name under which this program is executed to keep the ground.
const NAME: &str = "rbuild-ground";
/// Says that the standard input is the namespace of a killed one.
const AGAIN: &str = "again";
const LOCK: &str = "ground.lock";
const MAKE: &str = "ground.make";
const MARK: &str = "ground.json";
/// The longest answer, in bytes.
const LIMIT: u64 = 1 << 20;

/// Where the ground is, and what goes with it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Place {
    /// Who keeps it.
    pid: u32,
    /// When that process started.
    start: u64,
    /// In which run of the kernel.
    boot: String,
    /// The user namespace that it is in.
    user_namespace: PathBuf,
    netns: PathBuf,
    /// What the links of processes to it say: `net:[4026531840]`.
    #[serde(default)]
    name: PathBuf,
    resolv_conf: Vec<u8>,
}

/// What the new keeper says.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Ready(Vec<String>),
    Failed(KeeperFailure),
}

/// A stand on the ground, which stays while there is one.
#[derive(Debug)]
pub(super) struct Ground {
    netns: OwnedFd,
    /// Where its namespace can be opened.
    pub(super) path: PathBuf,
    /// What `/etc/resolv.conf` says for whoever gets out this way.
    pub(super) resolv_conf: Vec<u8>,
    /// What the user should know who made it.
    pub(super) warnings: Vec<String>,
    place: Place,
    _held: Flock<File>,
}

impl Ground {
    /// Steps on it; makes it first where there is none.
    ///
    /// # Errors
    /// There is no program that can connect it, or the kernel refuses.
    pub(super) fn join(env: &NetEnv) -> Result<Self, NetworkError> {
        let failed = || NetworkError::setup("enter the network that the user's containers share");
        run_dir::make().map_err(failed())?;
        let dir = &env.state_dir;
        let held = run_dir::lock(&dir.join(LOCK), FlockArg::LockShared).map_err(failed())?;
        let mut warnings = Vec::new();
        let mut place = Place::look(dir);
        if place.is_none() {
            let _alone = run_dir::lock(&dir.join(MAKE), FlockArg::LockExclusive).map_err(failed())?;
            place = Place::look(dir);
            if place.is_none() {
                warnings = make(dir, Place::left(dir))?;
                place = Place::look(dir);
            }
        }
        let place = place.ok_or(io::ErrorKind::NotFound.into()).map_err(failed())?;
        let netns = File::open(&place.netns).map_err(failed())?.into();
        let (path, resolv_conf) = (place.netns.clone(), place.resolv_conf.clone());
        Ok(Self { netns, path, resolv_conf, warnings, place, _held: held })
    }

    /// Becomes readable when the process that keeps it has ended.
    pub(super) fn keeper(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.place.pid.cast_signed())?;
        let keeper = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // the number may have become another's before it was opened
        process::runs_since(self.place.pid, self.place.start).then_some(keeper)
    }

    /// Whether it is the same namespace, whoever keeps it.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.place.name == other.place.name
    }

    /// Does something there, on a thread of its own.
    pub(super) fn act<T: Send>(
        &self,
        act: impl FnOnce() -> Result<T, NetworkError> + Send,
    ) -> Result<T, NetworkError> {
        inside(self.netns.as_fd(), act)
            .map_err(NetworkError::setup("enter the network that the user's containers share"))?
    }
}

impl Place {
    /// Finds the one that is marked, if it is still there and of this user namespace.
    fn look(dir: &Path) -> Option<Self> {
        let place = Self::marked(dir)?;
        process::runs_since(place.pid, place.start).then_some(place)
    }

    fn marked(dir: &Path) -> Option<Self> {
        let place: Self = serde_json::from_slice(&std::fs::read(dir.join(MARK)).ok()?).ok()?;
        let same = place.user_namespace == user_namespace()? && place.boot == crate::sys::boot::id();
        same.then_some(place)
    }

    /// Opens the namespace that the mark of a killed keeper speaks of, if one of the user's processes has it open.
    fn left(dir: &Path) -> Option<File> {
        let name = Self::marked(dir)?.name;
        let is = |path: &PathBuf| std::fs::read_link(path).is_ok_and(|found| found == name);
        let open = |path: PathBuf| {
            let file = File::open(path).ok()?;
            is(&format!("/proc/self/fd/{}", file.as_raw_fd()).into()).then_some(file)
        };
        // the number may be another namespace's by now, but not among those who stand on the ground
        run_dir::holders(&dir.join(LOCK))
            .flat_map(|process| std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten())
            .map(|entry| entry.path())
            .filter(is)
            .find_map(open)
    }

    fn mark(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join(format!("{MARK}.new"));
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(new, dir.join(MARK))
    }
}

fn user_namespace() -> Option<PathBuf> {
    std::fs::read_link("/proc/self/ns/user").ok()
}

/// Starts the process that keeps it, which outlives this one, and waits until it is ready. `left` is the namespace of a
/// killed one.
fn make(dir: &Path, left: Option<File>) -> Result<Vec<String>, NetworkError> {
    let failed = || NetworkError::setup("start the process that keeps the user's networks");
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).arg(dir).current_dir("/");
    match left {
        Some(netns) => command.arg(AGAIN).stdin(netns),
        None => command.stdin(Stdio::null()),
    };
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(failed())?;
    let answer = child.stdout.take().expect("stdout was asked to be a pipe");
    let mut line = String::new();
    BufReader::new(answer.take(LIMIT)).read_line(&mut line).map_err(failed())?;
    match serde_json::from_str(&line) {
        Ok(Answer::Ready(warnings)) => Ok(warnings),
        Ok(Answer::Failed(failure)) => {
            let _ = child.wait();
            Err(failure.into())
        }
        Err(_) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(failed()(io::Error::other("it ended without an answer")))
        }
    }
}

/// Serves as the keeper when this process was executed as one, and gives its exit code; `None` in every other case.
pub(super) fn helper_main() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    if args.next().is_none_or(|name| name != NAME) {
        return None;
    }
    process::default_signals();
    // away from the terminal of the command that happened to be the first
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"rbuild-ground");
    let served = serve(&PathBuf::from(args.next()?), args.next().is_some_and(|word| word == AGAIN));
    Some(ExitCode::from(u8::from(served.is_err())))
}

fn serve(dir: &Path, again: bool) -> io::Result<()> {
    let env = NetEnv::new(true);
    let made = match again {
        true => PrivateNetwork::reconnect(&env, io::stdin().as_fd().try_clone_to_owned()?),
        false => PrivateNetwork::create(&env),
    };
    let (answer, kept) = match made {
        Ok(network) => {
            let pid = std::process::id();
            let netns: PathBuf = format!("/proc/{pid}/fd/{}", network.netns().as_raw_fd()).into();
            let place = Place {
                pid,
                name: std::fs::read_link(&netns)?,
                netns,
                start: process::start_time(pid).unwrap_or(0),
                boot: crate::sys::boot::id(),
                user_namespace: user_namespace().unwrap_or_default(),
                resolv_conf: network.resolv_conf(),
            };
            place.mark(dir)?;
            (Answer::Ready(network.warnings().to_vec()), Some(network))
        }
        Err(error) => (Answer::Failed(error.into()), None),
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(&answer)?)?;
    out.flush()?;
    let Some(network) = kept else { return Ok(()) };
    // nobody listens any more
    rustix::stdio::dup2_stdout(File::open("/dev/null")?)?;
    process::forget_code();
    let alone = run_dir::lock(&dir.join(LOCK), FlockArg::LockExclusive)?;
    drop(network);
    let _ = std::fs::remove_file(dir.join(MARK));
    drop(alone);
    Ok(())
}
