//! Advisory locks on files: they vanish with their holder, however it dies.

use super::StoreError;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io;
use std::path::Path;

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
        Self::on_waiting(open(path)?, kind).map_err(StoreError::io("lock", path))
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
