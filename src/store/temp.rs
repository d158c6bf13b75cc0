//! Staging: directories and files in `tmp/` that are renamed to their place or vanish.

use super::StoreError;
use super::lock::{Lock, LockKind};
use crate::digest::hex;
use crate::fault;
use crate::sys::fsutil;
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A directory of our own in `tmp/`, removed with all it holds when dropped.
///
/// It is flocked: as long as we live nobody sweeps it, and as soon as we are dead, however we died, anybody does.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
    _lock: Lock,
}

/// What this process has in `tmp/` now.
static LIVE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn live() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all that this process has in `tmp/`; for who is about to end it without unwinding its threads. What they put
/// there meanwhile is swept by the next start.
pub fn abandon() {
    for path in live().iter() {
        let _ = fsutil::remove_tree(path);
    }
}

impl TempDir {
    pub(super) fn make(tmp: &Path, purpose: &str) -> Result<Self, StoreError> {
        loop {
            let path = tmp.join(unique(purpose)?);
            DirBuilder::new()
                .mode(0o700)
                .create(&path)
                .map_err(StoreError::io("make the directory", &path))?;
            fault::point_at("store.temp_dir.made", &path);
            // Between mkdir and flock a sweeper may take it for dead: then the lock or the check below fails.
            let lock =
                File::open(&path).ok().and_then(|dir| Lock::on(dir, LockKind::Exclusive).ok().flatten());
            if let Some(lock) = lock
                && path.is_dir()
            {
                live().insert(path.clone());
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    /// Gives its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // nobody can be told here; what is left is swept by the next start
        let _ = fsutil::remove_tree(&self.path);
        live().remove(&self.path);
    }
}

/// Removes what dead processes left; what cannot be removed now is left for later.
pub(super) fn sweep(tmp: &Path) {
    let Ok(entries) = std::fs::read_dir(tmp) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let open = File::options().read(true).custom_flags(super::libc_nonblock()).open(&path);
        if let Ok(Some(_dead)) = open.and_then(|file| Lock::on(file, LockKind::Exclusive)) {
            let _ = fsutil::remove_tree(&path);
        }
    }
}

/// Lists what nobody holds.
pub(super) fn leftovers(tmp: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(tmp).into_iter().flatten().flatten();
    let dead = entries.filter(|entry| fsutil::is_unlocked(&entry.path()) && entry.path().exists());
    dead.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// A staged file that is removed unless it is published.
#[derive(Debug)]
pub(crate) struct Staged {
    path: Option<PathBuf>,
}

/// Makes an empty file in `tmp/`, mode 0600, locked through its own descriptor.
pub(crate) fn stage_file(tmp: &Path) -> Result<(File, Staged), StoreError> {
    loop {
        let path = tmp.join(unique("file")?);
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(StoreError::io("make", &path))?;
        let locked = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok();
        if locked && path.exists() {
            live().insert(path.clone());
            fault::point("store.file.staged");
            return Ok((file, Staged { path: Some(path) }));
        }
    }
}

impl Staged {
    pub(crate) fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// Renames the file to its place; `durable` also writes the directory's names to disk.
    pub(crate) fn publish(mut self, target: &Path, durable: bool) -> Result<(), StoreError> {
        fault::point_at("store.file.before_rename", target);
        std::fs::rename(self.path(), target).map_err(StoreError::io("write", target))?;
        if let Some(path) = self.path.take() {
            live().remove(&path);
        }
        fault::point_at("store.file.renamed", target);
        if durable && let Some(dir) = target.parent() {
            sync_dir(dir)?;
            fault::point_at("store.file.dir_synced", target);
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
            live().remove(path);
        }
    }
}

/// Writes a directory's names to disk.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(StoreError::io("sync", dir))
}

fn unique(purpose: &str) -> Result<String, StoreError> {
    let mut random = [0u8; 10];
    let got = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    got.map_err(|e| StoreError::io("get random bytes for", Path::new(purpose))(io::Error::from(e)))?;
    let word: String = purpose.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
    Ok(format!("{word}-{}", hex(&random)))
}
