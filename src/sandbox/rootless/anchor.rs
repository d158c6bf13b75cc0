//! The user namespace that all containers of an ordinary user share, and the process that keeps it: the anchor.
//!
//! Containers can be in a network together, or one in the namespaces of another, only inside one user namespace. Any
//! command that starts a container joins it; the first one makes it, with an anchor that holds it open for the next.
//!
//! ```text
//! $XDG_RUNTIME_DIR/rbuild/
//!     anchor.lock    shared by every command and monitor in the namespace; the anchor waits for it alone, and ends
//!     anchor.make    held by whoever makes an anchor
//!     anchor         process id and start time of the anchor, how many ids are mapped, the namespace's number
//! ```
//!
//! Who comes takes its share of the lock before it looks for the anchor: so the anchor is there to stay, or gone for
//! good. Nothing else is kept in it, and nothing asks it anything. Killed, it takes nobody along: as long as somebody is in
//! the namespace, the next command finds it there and starts an anchor in it.

use crate::sys::{boot, process, run_dir};
use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, setns, unshare};
use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::RootlessError;

/// The name under which this program is executed as an anchor.
const NAME: &str = "rbuild-anchor";
const LOCK: &str = "anchor.lock";
const MAKE: &str = "anchor.make";
const MARK: &str = "anchor";

/// A living anchor's namespace.
pub(super) struct Door {
    namespace: File,
    pub(super) mapped_ids: u32,
    _stay: Stay,
}

/// A share of the namespace: while one is held, it stays and can be found.
#[derive(Debug)]
pub(crate) struct Stay {
    _lock: Flock<File>,
}

impl Stay {
    /// Takes a share for as long as the value lives. Waits for an anchor that is ending.
    pub(crate) fn new() -> io::Result<Self> {
        let lock = run_dir::lock(&run_dir::make()?.join(LOCK), FlockArg::LockShared)?;
        Ok(Self { _lock: lock })
    }
}

/// Finds the door to the shared namespace; where there is none, `make` starts an anchor, which is told the directory
/// for its files, and gives its process id and the number of ids. It gets the door to a namespace whose anchor was killed.
pub(super) fn door(
    make: impl FnOnce(&Path, Option<&Door>) -> Result<(i32, u32), RootlessError>,
) -> Result<Door, RootlessError> {
    let failed = || super::failed("find the namespace that containers share");
    let dir = run_dir::make().map_err(failed())?;
    let mut stay = Some(Stay::new().map_err(failed())?);
    let mut look = || look(&dir).map(|(namespace, mapped_ids)| (namespace, mapped_ids, stay.take()));
    let mut found = look();
    if found.is_none() {
        let _alone = run_dir::lock(&dir.join(MAKE), FlockArg::LockExclusive).map_err(failed())?;
        found = look();
        if found.is_none() {
            let left = left(&dir).map_err(failed())?;
            let (pid, count) = make(&dir, left.as_ref())?;
            mark(&dir, pid, count).map_err(failed())?;
            found = look();
        }
    }
    match found {
        Some((namespace, mapped_ids, Some(stay))) => Ok(Door { namespace, mapped_ids, _stay: stay }),
        _ => Err(failed()(io::ErrorKind::NotFound.into())),
    }
}

fn mark(dir: &Path, pid: i32, count: u32) -> io::Result<()> {
    let start = process::start_time(pid.unsigned_abs()).ok_or(io::ErrorKind::NotFound)?;
    let new = dir.join(format!("{MARK}.new"));
    let number = std::fs::metadata(format!("/proc/{pid}/ns/user"))?.ino();
    std::fs::write(&new, format!("{pid} {start} {count} {number} {}\n", boot::id()))?;
    std::fs::rename(new, dir.join(MARK))
}

/// What is written of an anchor.
struct Mark {
    pid: u32,
    start: u64,
    mapped_ids: u32,
    /// The inode of the namespace.
    number: u64,
}

impl Mark {
    fn read(dir: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(dir.join(MARK)).ok()?;
        let (numbers, of_boot) = text.trim_end().rsplit_once(' ')?;
        if of_boot != boot::id() {
            return None;
        }
        let mut numbers = numbers.split_whitespace().map_while(|n| n.parse::<u64>().ok());
        let mut next = || numbers.next();
        Some(Self {
            pid: u32::try_from(next()?).ok()?,
            start: next()?,
            mapped_ids: u32::try_from(next()?).ok()?,
            number: next()?,
        })
    }
}

/// Opens the namespace of the anchor that is marked, if it lives.
fn look(dir: &Path) -> Option<(File, u32)> {
    let Mark { pid, start, mapped_ids, .. } = Mark::read(dir)?;
    let namespace = File::open(format!("/proc/{pid}/ns/user")).ok()?;
    // only now: the number may have become another's before it was opened
    process::runs_since(pid, start).then_some((namespace, mapped_ids))
}

/// Finds the namespace of a killed anchor by a process that is in it.
fn left(dir: &Path) -> io::Result<Option<Door>> {
    let Some(Mark { mapped_ids, number, .. }) = Mark::read(dir) else { return Ok(None) };
    // the number may be another namespace's by now, but not that of one who has a share
    let is = |file: &File| file.metadata().is_ok_and(|found| found.ino() == number);
    let open = |process: PathBuf| File::open(process.join("ns/user")).ok().filter(is);
    let found = run_dir::holders(&dir.join(LOCK)).find_map(open);
    found.map(|namespace| Ok(Door { namespace, mapped_ids, _stay: Stay::new()? })).transpose()
}

impl Door {
    /// Takes this process, which has one thread, into the namespace, with mounts of its own.
    pub(super) fn join(&self) -> io::Result<()> {
        setns(&self.namespace, CloneFlags::CLONE_NEWUSER)?;
        Ok(unshare(CloneFlags::CLONE_NEWNS)?)
    }
}

/// Executes this program as an anchor, away from the terminal and the streams of the command; gives what went wrong.
pub(super) fn execute(dir: &Path) -> io::Error {
    let go = || -> io::Result<Infallible> {
        let _ = rustix::process::setsid();
        let null = File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        process::cloexec_from(3)?;
        rustix::process::chdir("/")?;
        let name = CString::new(NAME)?;
        let dir = CString::new(OsString::from(dir).into_vec())?;
        Ok(nix::unistd::execve::<_, CString>(c"/proc/self/exe", &[name, dir], &[])?)
    };
    match go() {
        Err(e) => e,
        Ok(never) => match never {},
    }
}

/// Serves as an anchor when this process was executed as one, and gives its exit code; `None` in every other case.
pub(in crate::sandbox) fn main() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    if args.next().is_none_or(|name| name != NAME) {
        return None;
    }
    process::default_signals();
    let _ = rustix::thread::set_name(c"rbuild-anchor");
    let dir = PathBuf::from(args.next()?);
    process::forget_code();
    let alone = run_dir::lock(&dir.join(LOCK), FlockArg::LockExclusive);
    if alone.is_ok() {
        let _ = std::fs::remove_file(dir.join(MARK));
    }
    Some(ExitCode::from(u8::from(alone.is_err())))
}
