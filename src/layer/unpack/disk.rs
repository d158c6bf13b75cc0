//! The directory that is unpacked into. Every path that comes here is real: its parents are directories that we made.

use super::UnpackOptions;
use super::pool::SMALL;
use crate::digest::ContentId;
use crate::layer::tar_read::TarReader;
use crate::layer::{LayerError, whiteout};
use crate::sys::{file, fsutil};
use crate::tree::{Meta, TreePath};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Open directories that are kept; archives stay in one directory for a while.
const OPEN_DIRS: usize = 32;
/// Blocks of zeros of this length become holes.
const HOLE: usize = 4096;
/// Read from the archive at once for large files.
const CHUNK: usize = 256 << 10;

pub(super) struct Disk {
    root: OwnedFd,
    dirs: HashMap<TreePath, Arc<OwnedFd>>,
    chunk: Vec<u8>,
    pub(super) chown: bool,
    pub(super) userxattr: bool,
}

impl Disk {
    pub(super) fn open(into: &Path, opts: &UnpackOptions<'_>) -> Result<Self, LayerError> {
        let root = fsutil::open_dir(into).map_err(LayerError::io("open", &TreePath::root()))?;
        let (chown, userxattr) = (opts.chown_ok, opts.userxattr);
        Ok(Self { root, dirs: HashMap::new(), chunk: Vec::new(), chown, userxattr })
    }

    /// Opens a directory that we made.
    pub(super) fn dir(&mut self, path: &TreePath) -> Result<Arc<OwnedFd>, LayerError> {
        if let Some(dir) = self.dirs.get(path) {
            return Ok(dir.clone());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = fsutil::open_beneath(self.root.as_fd(), path.as_os_str(), flags);
        let dir = Arc::new(dir.map_err(LayerError::io("open", path))?);
        if self.dirs.len() >= OPEN_DIRS {
            self.dirs.clear();
        }
        self.dirs.insert(path.clone(), dir.clone());
        Ok(dir)
    }

    /// Removes what is at a path, and all below it.
    pub(super) fn remove(&mut self, path: &TreePath) -> Result<(), LayerError> {
        self.dirs.clear();
        let (dir, name) = self.place(path)?;
        fsutil::remove_at(dir.as_fd(), OsStr::from_bytes(name)).map_err(LayerError::io("remove", path))
    }

    /// Makes a directory, closed to others until its metadata comes.
    pub(super) fn make_dir(&mut self, path: &TreePath) -> Result<(), LayerError> {
        let (dir, name) = self.place(path)?;
        rustix::fs::mkdirat(&dir, name, Mode::RWXU).map_err(LayerError::io("make the directory", path))
    }

    /// Gives a directory its metadata, and its mark if it is opaque.
    pub(super) fn finish_dir(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        opaque: bool,
    ) -> Result<(), LayerError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = fsutil::open_beneath(self.root.as_fd(), path.as_os_str(), flags);
        let dir = dir.map_err(LayerError::io("open", path))?;
        if opaque {
            let mark = whiteout::mark_opaque(dir.as_fd(), self.userxattr);
            mark.map_err(LayerError::io("mark as opaque", path))?;
        }
        fsutil::apply_meta(dir.as_fd(), meta, self.chown).map_err(meta_error(path, meta))
    }

    pub(super) fn symlink(&mut self, path: &TreePath, meta: &Meta, target: &[u8]) -> Result<(), LayerError> {
        let (dir, name) = self.place(path)?;
        rustix::fs::symlinkat(target, &dir, name).map_err(LayerError::io("make the link", path))?;
        let done = fsutil::apply_meta_at(dir.as_fd(), OsStr::from_bytes(name), meta, self.chown);
        done.map_err(meta_error(path, meta))
    }

    /// Makes a device or pipe. Without the right to make devices it is only in the diff.
    pub(super) fn node(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        kind: FileType,
        device: (u32, u32),
    ) -> Result<(), LayerError> {
        let (dir, name) = self.place(path)?;
        let name = OsStr::from_bytes(name);
        match file::mknod_at(&dir, name, kind, meta.mode, device.0, device.1) {
            Err(e) if kind != FileType::Fifo && e.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            made => made.map_err(LayerError::io("make the device or pipe", path))?,
        }
        fsutil::apply_meta_at(dir.as_fd(), name, meta, self.chown).map_err(meta_error(path, meta))
    }

    pub(super) fn whiteout(&mut self, path: &TreePath) -> Result<(), LayerError> {
        let (dir, name) = self.place(path)?;
        let made = whiteout::make_whiteout(dir.as_fd(), OsStr::from_bytes(name));
        made.map_err(LayerError::io("make the whiteout", path))
    }

    /// Makes a second name of a file, link or device that we made.
    pub(super) fn link(&mut self, target: &TreePath, path: &TreePath) -> Result<(), LayerError> {
        let (from, old) = self.place(target)?;
        let (to, new) = self.place(path)?;
        match rustix::fs::linkat(&from, old, &to, new, AtFlags::empty()) {
            // a device that could not be made
            Err(Errno::NOENT) => Ok(()),
            done => done.map_err(LayerError::io("make the hard link", path)),
        }
    }

    /// Writes a large body straight from the archive, zeros as holes, and hashes it on the way.
    pub(super) fn large(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        size: u64,
        reader: &mut TarReader<'_>,
    ) -> Result<ContentId, LayerError> {
        debug_assert!(size > SMALL);
        let (dir, name) = self.place(path)?;
        let file = fsutil::create_file(dir.as_fd(), OsStr::from_bytes(name))
            .map_err(LayerError::io("make", path))?;
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.resize(CHUNK, 0);
        let mut hasher = blake3::Hasher::new();
        loop {
            let mut have = 0;
            while have < CHUNK {
                match reader.read(&mut chunk[have..])? {
                    0 => break,
                    n => have += n,
                }
            }
            if have == 0 {
                break;
            }
            hasher.update(&chunk[..have]);
            write_sparse(&file, &chunk[..have]).map_err(LayerError::io("write", path))?;
        }
        self.chunk = chunk;
        // a hole at the end has no bytes that make the file long enough
        file.set_len(size).map_err(LayerError::io("write", path))?;
        fsutil::apply_meta(file.as_fd(), meta, self.chown).map_err(meta_error(path, meta))?;
        Ok(hasher.finalize().into())
    }

    /// Copies a file of the layer below to its place in this one.
    pub(super) fn copy(&mut self, path: &TreePath, meta: &Meta, from: &File) -> Result<(), LayerError> {
        let (dir, name) = self.place(path)?;
        let file = fsutil::create_file(dir.as_fd(), OsStr::from_bytes(name))
            .map_err(LayerError::io("make", path))?;
        fsutil::copy_file(from, &file).map_err(LayerError::io("copy", path))?;
        fsutil::apply_meta(file.as_fd(), meta, self.chown).map_err(meta_error(path, meta))
    }

    fn place<'p>(&mut self, path: &'p TreePath) -> Result<(Arc<OwnedFd>, &'p [u8]), LayerError> {
        let dir = self.dir(&path.parent().unwrap_or_default())?;
        Ok((dir, path.file_name().unwrap_or(b".")))
    }
}

/// Makes a whole small file; runs on the writers' threads.
pub(super) fn write_small(
    dir: &OwnedFd,
    path: &TreePath,
    meta: &Meta,
    bytes: &[u8],
    chown: bool,
) -> Result<(), LayerError> {
    let name = OsStr::from_bytes(path.file_name().unwrap_or(b"."));
    let mut file = fsutil::create_file(dir.as_fd(), name).map_err(LayerError::io("make", path))?;
    file.write_all(bytes).map_err(LayerError::io("write", path))?;
    fsutil::apply_meta(file.as_fd(), meta, chown).map_err(meta_error(path, meta))
}

/// Writes a chunk; whole pages of zeros are passed over.
fn write_sparse(mut file: &File, chunk: &[u8]) -> io::Result<()> {
    let zero = |page: &[u8]| page.len() == HOLE && page.iter().all(|b| *b == 0);
    let mut start = 0;
    while start < chunk.len() {
        let page = |at: usize| &chunk[at..chunk.len().min(at + HOLE)];
        let hole = zero(page(start));
        let mut end = start;
        while end < chunk.len() && zero(page(end)) == hole {
            end += page(end).len();
        }
        if hole {
            file.seek(SeekFrom::Current((end - start) as i64))?;
        } else {
            file.write_all(&chunk[start..end])?;
        }
        start = end;
    }
    Ok(())
}

/// An owner that cannot be given is the one error here that the user can do something about.
fn meta_error(path: &TreePath, meta: &Meta) -> impl FnOnce(io::Error) -> LayerError {
    let (path, uid, gid) = (path.clone(), meta.uid, meta.gid);
    move |e| match Errno::from_io_error(&e) {
        Some(Errno::INVAL | Errno::PERM) => {
            let why = format!(
                "its owner {uid}:{gid} cannot be set ({e}): the user needs more subordinate ids in /etc/subuid and /etc/subgid"
            );
            LayerError::Refused { name: path.as_bytes().to_vec(), why }
        }
        _ => LayerError::Io { action: "set the owner, mode or time of", path, source: e },
    }
}
