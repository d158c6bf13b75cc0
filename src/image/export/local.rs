//! The root file system of an image in a directory of the user's.
//!
//! The directory may be full of other things, links included. It is walked by descriptors from its root; a link that
//! stands where the image has something is replaced, never followed. Files belong to who runs rbuild. Devices and
//! attributes that this user may not make are left out and named in the result.

use super::Exported;
use super::flat::Flats;
use super::sink::in_directory;
use crate::image::ImageError;
use crate::sys::{self, fsutil};
use crate::tree::{Entry, Meta, Mtime, Node, TreePath};
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Writes files into a directory.
pub(super) fn write_local(
    flats: &Flats,
    dir: &Path,
    delete: bool,
    epoch: Option<i64>,
) -> Result<Exported, ImageError> {
    if delete {
        refuse_dangerous(dir)?;
    }
    in_directory(dir, |root| {
        let mut writer = Writer { flats, epoch, delete, dirs: Vec::new(), skipped: Vec::new() };
        writer.dirs.push(OpenDir { path: TreePath::root(), fd: root, meta: None, names: HashSet::new() });
        for entry in flats.diff().entries() {
            writer.entry(&entry).map_err(|e| {
                let path = dir.join(entry.path.as_os_str());
                ImageError::io("write", &path)(e)
            })?;
        }
        writer.leave_until(None).map_err(ImageError::io("write", dir))?;
        Ok(Exported { skipped: writer.skipped, ..Exported::default() })
    })
}

/// `mode=delete` must not empty a directory that somebody named by mistake.
fn refuse_dangerous(dir: &Path) -> Result<(), ImageError> {
    let Ok(dir) = dir.canonicalize() else { return Ok(()) };
    let here = std::env::current_dir().unwrap_or_default();
    let home = std::env::var_os("HOME").map(std::path::PathBuf::from).unwrap_or_default();
    if here.starts_with(&dir) || home.starts_with(&dir) {
        let why =
            io::Error::other("mode=delete would empty the current directory, the home or one above them");
        return Err(ImageError::io("write", &dir)(why));
    }
    Ok(())
}

/// A directory that is being filled.
struct OpenDir {
    path: TreePath,
    fd: OwnedFd,
    /// Applied when it is full.
    meta: Option<Meta>,
    /// What the image has in it.
    names: HashSet<OsString>,
}

struct Writer<'a> {
    flats: &'a Flats,
    epoch: Option<i64>,
    delete: bool,
    /// From the root to where we are.
    dirs: Vec<OpenDir>,
    skipped: Vec<TreePath>,
}

impl Writer<'_> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let Some(name) = entry.path.file_name() else {
            // The root itself belongs to the user; only what is in it is the image's.
            return Ok(());
        };
        let name = OsStr::from_bytes(name);
        let parent = entry.path.parent().unwrap_or_default();
        self.go_to(&parent)?;
        self.here().names.insert(name.to_owned());
        match &entry.node {
            Node::Dir { .. } => {
                self.enter(&entry.path, name)?;
                self.here().meta = Some(self.clamped(&entry.meta));
                Ok(())
            }
            Node::File { .. } => self.file(entry, name),
            Node::Hardlink { target } => self.hard_link(target, name),
            Node::Symlink { target } => {
                let dir = self.clear(name)?;
                rustix::fs::symlinkat(OsStr::from_bytes(target), dir, name)?;
                let mtime = self.clamped(&entry.meta).mtime;
                sys::file::set_mtime_at(self.here().fd.as_fd(), name, mtime.secs, mtime.nanos)
            }
            Node::CharDevice { major, minor } => {
                self.node(entry, name, FileType::CharacterDevice, (*major, *minor))
            }
            Node::BlockDevice { major, minor } => {
                self.node(entry, name, FileType::BlockDevice, (*major, *minor))
            }
            Node::Fifo => self.node(entry, name, FileType::Fifo, (0, 0)),
            Node::Whiteout => Ok(()),
        }
    }

    fn here(&mut self) -> &mut OpenDir {
        self.dirs.last_mut().expect("the root is left last")
    }

    /// Makes `path` the directory that we are in; parents that the image does not name are made on the way.
    fn go_to(&mut self, path: &TreePath) -> io::Result<()> {
        self.leave_until(Some(path))?;
        let below = path.strip_prefix(&self.here().path).unwrap_or_default();
        let parts: Vec<Vec<u8>> = below.components().map(<[u8]>::to_vec).collect();
        for part in parts {
            let path = self.here().path.child(&part);
            let name = OsStr::from_bytes(&part);
            self.here().names.insert(name.to_owned());
            self.enter(&path, name)?;
        }
        Ok(())
    }

    /// Opens a directory here, making it or putting it in the place of something else.
    fn enter(&mut self, path: &TreePath, name: &OsStr) -> io::Result<()> {
        let dir = self.here().fd.as_fd();
        let there = fsutil::stat_at(dir, name)?.map(|s| fsutil::file_type(&s));
        if there != Some(FileType::Directory) {
            fsutil::remove_at(dir, name)?;
            rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))?;
        }
        let fd = fsutil::open_dir_at(dir, name)?;
        if there.is_some() {
            // Somebody else's directory may be read only; a failure shows when it is written to.
            let _ = rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755));
        }
        self.dirs.push(OpenDir { path: path.clone(), fd, meta: None, names: HashSet::new() });
        Ok(())
    }

    /// Leaves directories until the one that we are in holds `path`; `None` leaves all.
    fn leave_until(&mut self, path: Option<&TreePath>) -> io::Result<()> {
        while let Some(dir) = self.dirs.pop() {
            if path.is_some_and(|p| p.strip_prefix(&dir.path).is_some()) {
                self.dirs.push(dir);
                return Ok(());
            }
            if self.delete {
                for name in fsutil::names(dir.fd.as_fd())? {
                    if !dir.names.contains(&name) {
                        fsutil::remove_at(dir.fd.as_fd(), &name)?;
                    }
                }
            }
            if let Some(meta) = &dir.meta {
                self.meta(dir.fd.as_fd(), meta, &dir.path)?;
            }
        }
        Ok(())
    }

    /// Removes what stands at a name and gives the directory.
    fn clear(&mut self, name: &OsStr) -> io::Result<BorrowedFd<'_>> {
        let dir = self.here().fd.as_fd();
        fsutil::remove_at(dir, name)?;
        Ok(dir)
    }

    fn file(&mut self, entry: &Entry, name: &OsStr) -> io::Result<()> {
        let from = self.flats.open(&entry.path)?;
        let meta = self.clamped(&entry.meta);
        let to = fsutil::create_file(self.clear(name)?, name)?;
        fsutil::copy_file(&from, &to)?;
        self.meta(to.as_fd(), &meta, &entry.path)
    }

    fn hard_link(&mut self, target: &TreePath, name: &OsStr) -> io::Result<()> {
        let root = self.dirs.first().expect("the root is left last").fd.try_clone()?;
        let parent = target.parent().unwrap_or_default();
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
        let from = fsutil::open_beneath(root.as_fd(), parent.as_os_str(), flags)?;
        let old = OsStr::from_bytes(target.file_name().unwrap_or_default()).to_owned();
        let dir = self.clear(name)?;
        Ok(rustix::fs::linkat(&from, &*old, dir, name, AtFlags::empty())?)
    }

    fn node(&mut self, entry: &Entry, name: &OsStr, kind: FileType, number: (u32, u32)) -> io::Result<()> {
        let (mode, mtime) = (entry.meta.mode & 0o777, self.clamped(&entry.meta).mtime);
        let dir = self.clear(name)?;
        match sys::file::mknod_at(dir, name, kind, mode, number.0, number.1) {
            Ok(()) => sys::file::set_mtime_at(dir, name, mtime.secs, mtime.nanos),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                self.skipped.push(entry.path.clone());
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Attributes that this user or file system cannot have are left out.
    fn meta(&mut self, fd: BorrowedFd<'_>, meta: &Meta, path: &TreePath) -> io::Result<()> {
        for (name, value) in &meta.xattrs {
            if let Err(e) = fsutil::set_xattr(fd, OsStr::from_bytes(name), value) {
                match Errno::from_io_error(&e) {
                    Some(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => self.skipped.push(path.clone()),
                    _ => return Err(e),
                }
            }
        }
        let plain = Meta { xattrs: Vec::new(), ..meta.clone() };
        fsutil::apply_meta(fd, &plain, false)
    }

    fn clamped(&self, meta: &Meta) -> Meta {
        let mut meta = meta.clone();
        if let Some(epoch) = self.epoch.filter(|e| meta.mtime.secs >= *e) {
            meta.mtime = Mtime { secs: epoch, nanos: 0 };
        }
        meta
    }
}
