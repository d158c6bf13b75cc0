//! Advisory locks on files: they vanish with their holder, however it dies.

use super::StoreError;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// How long a wait may take before the user is told what for.
const NOTICEABLE: Duration = Duration::from_secs(2);

static TELLER: OnceLock<fn(&str)> = OnceLock::new();

/// Sets who tells the user, in one line, that a command waits for another one. The first one stays.
pub fn tell_waits(teller: fn(&str)) {
    let _ = TELLER.set(teller);
}

fn tell(path: &Path) {
    let Some(teller) = TELLER.get() else { return };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let by = match holder(path) {
        Some(holder) => format!("which {holder} has"),
        None => "which another process has".to_owned(),
    };
    teller(&format!("waiting for the lock {name:?}, {by}"));
}

/// Names a process that holds a lock on a file, as the kernel lists them (proc_locks(5)); one of another pid namespace is
/// not shown.
fn holder(path: &Path) -> Option<String> {
    let inode = path.metadata().ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // a line with -> is one that waits
        let [_, "FLOCK", _, _, pid, place, ..] = words[..] else { return None };
        (place.rsplit(':').next() == Some(&inode) && pid != "0").then(|| pid.to_owned())
    })?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = line.split(|b| *b == 0).filter(|word| !word.is_empty()).take(3).collect();
    let words: Vec<_> = words.into_iter().map(String::from_utf8_lossy).collect();
    Some(format!("process {pid} ({})", crate::progress::printable(words.join(" ").as_bytes())))
}

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Together with other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// A held lock; dropping it gives it back.
///
/// It is given back in so many words: closing our descriptor would leave it to any process that another thread has
/// just forked and that has not reached its exec yet.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // what cannot be given back now goes when the last descriptor is closed
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl Lock {
    pub(super) fn wait(path: &Path, kind: LockKind) -> Result<Self, StoreError> {
        let failed = || StoreError::io("lock", path);
        let file = open(path)?;
        if try_flock(&file, kind).map_err(failed())? {
            return Ok(Self { file });
        }
        let (done, over) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                if over.recv_timeout(NOTICEABLE) == Err(RecvTimeoutError::Timeout) {
                    tell(path);
                }
            });
            // whether it was told in time or not, the wait is over
            let held = Self::on_waiting(file, kind).map_err(failed());
            drop(done);
            held
        })
    }

    /// Locks an open file or directory, waiting for others.
    pub(crate) fn on_waiting(file: File, kind: LockKind) -> io::Result<Self> {
        let how = match kind {
            LockKind::Shared => FlockOperation::LockShared,
            LockKind::Exclusive => FlockOperation::LockExclusive,
        };
        loop {
            match flock(&file, how) {
                Ok(()) => return Ok(Self { file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    pub(super) fn attempt(path: &Path, kind: LockKind) -> Result<Option<Self>, StoreError> {
        let file = open(path)?;
        let held = try_flock(&file, kind).map_err(StoreError::io("lock", path))?;
        Ok(held.then_some(Self { file }))
    }

    /// Locks an open file or directory if it is free.
    pub(crate) fn on(file: File, kind: LockKind) -> io::Result<Option<Self>> {
        Ok(try_flock(&file, kind)?.then_some(Self { file }))
    }
}

fn try_flock(file: &File, kind: LockKind) -> io::Result<bool> {
    let how = match kind {
        LockKind::Shared => FlockOperation::NonBlockingLockShared,
        LockKind::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    match flock(file, how) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        // on a read-only store a lock that exists can still be taken
        .or_else(|e| File::open(path).map_err(|_| e))
        .map_err(StoreError::io("open the lock", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_elsewhere_does_not_keep_what_was_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = open(&path).unwrap();
        // what a process forked in between has
        let copy = file.try_clone().unwrap();
        let lock = Lock::on(file, LockKind::Exclusive).unwrap().unwrap();
        assert!(Lock::attempt(&path, LockKind::Shared).unwrap().is_none());
        drop(lock);
        assert!(Lock::attempt(&path, LockKind::Exclusive).unwrap().is_some());
        drop(copy);
    }
}
