//! The store's directory: layout, staged writes, locks, blobs and shared file bodies.
//!
//! ```text
//! images/      an OCI image layout (blobs/sha256/...)
//! snapshots/   <result id>/{fs/, tree, keys/, record.json}; an alias is a symbolic link to another result id
//! files/       bodies of regular files by content and metadata, hard linked from snapshots
//! index/ builds/ containers/ volumes/ networks/      owned by other rooms
//! locks/       empty files that only carry flocks
//! tmp/         one locked directory a user; everything is made here and renamed to its place
//! ```
//!
//! This room knows names, bytes and locks. It does not know what a snapshot or an image means. Everything is on one
//! file system, so that each publication is one rename; what has not been renamed is invisible, and what a dead
//! process left in `tmp/` is found by its free lock, not by its age or process id, both of which can lie.

mod blobs;
mod bodies;
mod lock;
mod temp;

pub use blobs::{BlobWriter, Blobs};
pub use bodies::{Bodies, BodyOutcome, BodySource};
pub use lock::{Lock, LockKind, tell_waits};
pub use temp::{TempDir, abandon};

use crate::digest::Digest;
use crate::fault;
use crate::sys::fsutil;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directories of the store, made by [`Store::open`].
const LAYOUT: [&str; 12] = [
    "images",
    "images/blobs",
    "images/blobs/sha256",
    "snapshots",
    "files",
    "index",
    "builds",
    "containers",
    "volumes",
    "networks",
    "locks",
    "tmp",
];

/// What can go wrong in the store's directory.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The root belongs to somebody else.
    #[error(
        "the store {} belongs to user {owner}, not to user {me}: choose another with --root, or run as its owner",
        path.display()
    )]
    Owner {
        /// The store's root.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who runs.
        me: u32,
    },
    /// The root is something else than a directory.
    #[error("the store {} is not a directory: choose another with --root", path.display())]
    NotADirectory {
        /// The store's root.
        path: PathBuf,
    },
    /// A file is larger than its reader accepts.
    #[error("{} has {size} bytes, more than the {limit} that are accepted", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its length.
        size: u64,
        /// What the caller accepts.
        limit: u64,
    },
    /// The bytes of a blob are not those its name promises.
    #[error("blob {expected} has the wrong content: its digest is {found}")]
    Digest {
        /// The name.
        expected: Digest,
        /// What the bytes give.
        found: Digest,
    },
    /// The length of a blob is not the one its descriptor promises.
    #[error("blob {digest} has {found} bytes where its descriptor says {expected}")]
    Size {
        /// The blob.
        digest: Digest,
        /// As described.
        expected: u64,
        /// As found.
        found: u64,
    },
    /// There is no such blob.
    #[error("blob {0} is not in the store")]
    NoBlob(Digest),
    /// A name for a lock or file is not one plain path below the root.
    #[error("{0:?} is not a name inside the store")]
    Name(String),
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Says whether the disk or a quota is full.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
}

/// An open store; clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl Store {
    /// Opens the store at `root` and makes what is missing of it, root mode 0700.
    ///
    /// Removes what dead processes left in `tmp/`. Safe to call by many processes at once; a crash halfway leaves
    /// a store that the next call completes. On a read-only file system an existing store opens and can be read.
    ///
    /// # Errors
    /// The root is no directory, belongs to another user, or cannot be made.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        make_dir(root, true)?;
        // one spelling for all, so that paths handed to mounts do not depend on the working directory
        let root = root.canonicalize().map_err(StoreError::io("open", root))?;
        check_owner(&root)?;
        for dir in LAYOUT {
            make_dir(&root.join(dir), false)?;
        }
        temp::sweep(&root.join("tmp"));
        Ok(Self { inner: Arc::new(Inner { root }) })
    }

    /// Gives the absolute path of the root.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Gives the absolute path of something inside.
    pub(crate) fn path(&self, rel: &str) -> PathBuf {
        self.inner.root.join(rel)
    }

    /// Makes an empty directory in `tmp/`, mode 0700, held by a lock until it is dropped and removed.
    ///
    /// `purpose` becomes part of its name, for people who look.
    pub fn temp_dir(&self, purpose: &str) -> Result<TempDir, StoreError> {
        TempDir::make(&self.path("tmp"), purpose)
    }

    /// Lists what is in `tmp/` and belongs to nobody. [`Store::open`] has removed all of that, so it cannot be removed.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        temp::leftovers(&self.path("tmp"))
    }

    /// Writes a file at `rel` below the root, replacing what was there, in one step.
    ///
    /// Missing directories on the way are made. `durable` returns only when the bytes and the name survive a power
    /// cut; without it a crash may lose the file but never leaves half of it under the name, as long as the kernel lives.
    pub fn write_atomic(&self, rel: &str, bytes: &[u8], durable: bool) -> Result<(), StoreError> {
        self.write_atomic_parts(rel, &[bytes], durable)
    }

    /// The same with bytes that are in several pieces of memory.
    pub fn write_atomic_parts(&self, rel: &str, parts: &[&[u8]], durable: bool) -> Result<(), StoreError> {
        let target = self.inside(rel)?;
        let (mut file, staged) = temp::stage_file(&self.path("tmp"))?;
        let write = |file: &mut File| -> io::Result<()> {
            parts.iter().try_for_each(|part| file.write_all(part))?;
            fault::point_at("store.file.written", &target);
            if durable {
                file.sync_all()?;
                fault::point_at("store.file.synced", &target);
            }
            Ok(())
        };
        write(&mut file).map_err(StoreError::io("write", staged.path()))?;
        let Some(dir) = target.parent() else { return staged.publish(&target, durable) };
        let new_dir = !dir.is_dir();
        make_dirs(&self.inner.root, dir)?;
        staged.publish(&target, durable)?;
        match dir.parent() {
            // a new directory is a name in another one
            Some(above) if durable && new_dir => temp::sync_dir(above),
            _ => Ok(()),
        }
    }

    /// Returns when everything that has been written below the root survives a power cut: for what nobody could make
    /// again and what has more files than are worth to be waited for one by one.
    pub(crate) fn sync_everything(&self) -> Result<(), StoreError> {
        let root = self.root();
        let synced = File::open(root).and_then(|dir| Ok(rustix::fs::syncfs(dir)?));
        synced.map_err(StoreError::io("sync", root))
    }

    /// Returns when the names in a directory below the root survive a power cut.
    pub(crate) fn sync_dir(&self, rel: &str) -> Result<(), StoreError> {
        temp::sync_dir(&self.inside(rel)?)
    }

    /// Reads the file at `rel`; `None` when there is none.
    ///
    /// # Errors
    /// It is longer than `limit` bytes, or unreadable.
    pub fn read(&self, rel: &str, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.inside(rel)?;
        let file = match File::options().read(true).custom_flags(libc_nonblock()).open(&path) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(e) => return Err(StoreError::io("open", &path)(e)),
        };
        let size = file.metadata().map_err(StoreError::io("read", &path))?.len();
        let mut bytes = Vec::with_capacity(size.min(limit) as usize);
        file.take(limit + 1).read_to_end(&mut bytes).map_err(StoreError::io("read", &path))?;
        if bytes.len() as u64 > limit {
            return Err(StoreError::TooLarge { path, size: size.max(bytes.len() as u64), limit });
        }
        Ok(Some(bytes))
    }

    /// Takes the lock `name`, waiting for others; it is given back when the value is dropped.
    pub fn lock(&self, name: &str, kind: LockKind) -> Result<Lock, StoreError> {
        Lock::wait(&self.lock_path(name)?, kind)
    }

    /// Takes the lock `name` if it is free; `None` when others hold it.
    pub fn try_lock(&self, name: &str, kind: LockKind) -> Result<Option<Lock>, StoreError> {
        Lock::attempt(&self.lock_path(name)?, kind)
    }

    /// Gives the blobs of the image layout.
    pub fn blobs(&self) -> Blobs {
        Blobs::new(self.clone())
    }

    /// Gives the shared bodies of regular files.
    pub fn bodies(&self) -> Bodies {
        Bodies::new(self.clone())
    }

    fn lock_path(&self, name: &str) -> Result<PathBuf, StoreError> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) || name.len() > 200 {
            return Err(StoreError::Name(name.to_owned()));
        }
        Ok(self.path("locks").join(name))
    }

    fn inside(&self, rel: &str) -> Result<PathBuf, StoreError> {
        let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
        if rel.split('/').all(plain) { Ok(self.path(rel)) } else { Err(StoreError::Name(rel.to_owned())) }
    }
}

/// A FIFO where a record should be must not hang us.
fn libc_nonblock() -> i32 {
    rustix::fs::OFlags::NONBLOCK.bits() as i32
}

fn make_dir(path: &Path, parents: bool) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    match DirBuilder::new().mode(0o700).recursive(parents).create(path) {
        Ok(()) => Ok(()),
        Err(_) if path.is_dir() => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            Err(StoreError::NotADirectory { path: path.to_owned() })
        }
        Err(e) => Err(StoreError::io("make the directory", path)(e)),
    }
}

fn make_dirs(root: &Path, dir: &Path) -> Result<(), StoreError> {
    if dir == root || dir.is_dir() { Ok(()) } else { make_dir(dir, true) }
}

fn check_owner(root: &Path) -> Result<(), StoreError> {
    let meta = root.metadata().map_err(StoreError::io("look at", root))?;
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me {
        return Err(StoreError::Owner { path: root.to_owned(), owner: meta.uid(), me });
    }
    if meta.mode() & 0o077 != 0 {
        // setuid files of images must not be reachable for other users of the machine
        fsutil::chmod_dir(root, 0o700).map_err(StoreError::io("close to others (mode 0700)", root))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
