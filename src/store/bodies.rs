//! Shared bodies of regular files: the same bytes with the same metadata are one inode in many snapshots.
//!
//! A snapshot is never written again, so its files may be hard links of a body in `files/`. Inside one snapshot
//! two paths must not share an inode unless their source did (a RUN that writes one would change the other once both
//! are copied up together, and a tar of the layer would show a hard link), so a [`Bodies`] hands out each body once.

use super::{Store, StoreError};
use crate::digest::{ContentId, hex};
use crate::fault;
use crate::sys::fsutil;
use crate::tree::Meta;
use rustix::fs::AtFlags;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where the bytes come from when there is no body yet.
#[derive(Debug, Clone, Copy)]
pub enum BodySource<'a> {
    /// An open regular file, read from its beginning whatever its offset is.
    File(&'a File),
    /// Bytes in memory.
    Bytes(&'a [u8]),
}

/// How the file came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyOutcome {
    /// A link of a body that was there.
    Linked,
    /// A new file, and now the body for later ones.
    Inserted,
    /// A new file that shares nothing.
    Copied,
}

/// The bodies for the files of one snapshot in the making: ask the store for a new one for each snapshot.
#[derive(Debug)]
pub struct Bodies {
    store: Store,
    used: Mutex<HashSet<[u8; 32]>>,
    chown: bool,
}

impl Bodies {
    pub(super) fn new(store: Store) -> Self {
        Self { store, used: Mutex::default(), chown: true }
    }

    /// Leaves owners alone, for users with a single id.
    pub fn without_chown(mut self) -> Self {
        self.chown = false;
        self
    }

    /// Makes the regular file `name` in `dir` with these bytes and this metadata.
    ///
    /// `name` must not exist. `content` names the `size` bytes of `from`: it is believed, so it must come from our own hashing.
    ///
    /// # Errors
    /// The file cannot be made; nothing is left at `name` then.
    pub fn link_or_insert(
        &self,
        content: &ContentId,
        size: u64,
        meta: &Meta,
        from: BodySource<'_>,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<BodyOutcome, StoreError> {
        self.link_or_insert_checked(content, size, meta, from, dir, name, &|_| Ok(()))
    }

    /// Does the same for bytes that may have changed since they were hashed: `check` gets the copy, if one is made, and says
    /// whether it has the bytes that `content` names before others can link it.
    #[expect(clippy::too_many_arguments, reason = "those of link_or_insert and the check")]
    pub fn link_or_insert_checked(
        &self,
        content: &ContentId,
        size: u64,
        meta: &Meta,
        from: BodySource<'_>,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        check: &dyn Fn(&File) -> std::io::Result<()>,
    ) -> Result<BodyOutcome, StoreError> {
        let key = key(content, meta);
        let first = self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        // an empty file costs nothing to make, and a link of it would only use up the link count
        let share = first && size > 0;
        let body = self.path(&key);
        if share && self.link(&body, size, dir, name) {
            return Ok(BodyOutcome::Linked);
        }
        let failed = || StoreError::io("make the file", Path::new(name));
        let file = fsutil::create_file(dir, name).map_err(failed())?;
        let filled = self.fill(&file, meta, from, check);
        filled.map_err(|e| {
            let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
            failed()(e)
        })?;
        fault::point("store.body.filled");
        let kept = share && self.keep(&body, dir, name);
        if kept {
            fault::point("store.body.kept");
        }
        Ok(if kept { BodyOutcome::Inserted } else { BodyOutcome::Copied })
    }

    /// Links a body; false when there is none, it is full of links, or a power cut has cut it off.
    fn link(&self, body: &Path, size: u64, dir: BorrowedFd<'_>, name: &OsStr) -> bool {
        if rustix::fs::linkat(rustix::fs::CWD, body, dir, name, AtFlags::empty()).is_err() {
            return false;
        }
        let whole = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        if whole.is_ok_and(|stat| stat.st_size as u64 == size) {
            return true;
        }
        let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
        let _ = std::fs::remove_file(body);
        false
    }

    fn fill(
        &self,
        file: &File,
        meta: &Meta,
        from: BodySource<'_>,
        check: &dyn Fn(&File) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        match from {
            BodySource::File(source) => fsutil::copy_file(source, file)?,
            BodySource::Bytes(bytes) => std::io::Write::write_all(&mut &*file, bytes)?,
        }
        check(file)?;
        fsutil::apply_meta(file.as_fd(), meta, self.chown)
    }

    /// Gives a fresh file a second name in `files/`; a failure (link limit, another was first) is no harm.
    fn keep(&self, body: &Path, dir: BorrowedFd<'_>, name: &OsStr) -> bool {
        let link = || rustix::fs::linkat(dir, name, rustix::fs::CWD, body, AtFlags::empty());
        match link() {
            Err(rustix::io::Errno::NOENT) => {
                let Some(parent) = body.parent() else { return false };
                let _ = std::fs::create_dir(parent);
                link().is_ok()
            }
            done => done.is_ok(),
        }
    }

    /// Removes bodies that no snapshot links any more; gives how many bytes that freed.
    ///
    /// A build that makes a link at the same moment loses nothing: it holds the inode by its own name then.
    pub fn prune(&self) -> Result<u64, StoreError> {
        use std::os::unix::fs::MetadataExt;
        let root = self.store.path("files");
        let list = |dir: &Path| std::fs::read_dir(dir).map_err(StoreError::io("list", dir));
        let mut freed = 0;
        for fan in list(&root)?.flatten() {
            for body in list(&fan.path())?.flatten() {
                if let Ok(meta) = body.metadata()
                    && meta.nlink() == 1
                    && std::fs::remove_file(body.path()).is_ok()
                {
                    fault::point("store.body.removed");
                    freed += meta.blocks() * 512;
                }
            }
        }
        Ok(freed)
    }

    /// Reads all bodies and tells those whose bytes or metadata are not what their name says. Where owners cannot be set
    /// nothing can be told.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn audit(&self, tell: &mut dyn FnMut(&str, String)) -> Result<(), StoreError> {
        let root = self.store.path("files");
        let list = |dir: &Path| std::fs::read_dir(dir).map_err(StoreError::io("list", dir));
        for fan in list(&root)?.flatten() {
            let shard = fan.file_name().to_string_lossy().into_owned();
            for body in list(&fan.path())?.flatten() {
                let name = body.file_name().to_string_lossy().into_owned();
                match name_of(&body.path()) {
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    Err(e) => tell(&format!("{shard}/{name}"), format!("it cannot be read: {e}")),
                    Ok(found) if found == format!("{shard}{name}") || !fsutil::can_chown() => {}
                    Ok(_) => tell(&format!("{shard}/{name}"), "its bytes or its mode have changed".into()),
                }
            }
        }
        Ok(())
    }

    fn path(&self, key: &[u8; 32]) -> PathBuf {
        let name = hex(key);
        self.store.path("files").join(&name[..2]).join(&name[2..])
    }
}

/// Computes the name that a body should have.
fn name_of(path: &Path) -> std::io::Result<String> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?);
    let mut meta = fsutil::meta_of(&rustix::fs::fstat(&file)?);
    meta.xattrs = fsutil::xattrs(file.as_fd())?;
    let mut sum = blake3::Hasher::new();
    sum.update_reader(&file)?;
    Ok(hex(&key(&ContentId(*sum.finalize().as_bytes()), &meta)))
}

/// Names a body: all that an inode holds counts, modification time too.
fn key(content: &ContentId, meta: &Meta) -> [u8; 32] {
    let mut h = blake3::Hasher::new_derive_key("rbuild body v1");
    h.update(&content.0);
    for number in [meta.mode, meta.uid, meta.gid, meta.mtime.nanos, meta.xattrs.len() as u32] {
        h.update(&number.to_le_bytes());
    }
    h.update(&meta.mtime.secs.to_le_bytes());
    for part in meta.xattrs.iter().flat_map(|(name, value)| [name, value]) {
        h.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *h.finalize().as_bytes()
}
