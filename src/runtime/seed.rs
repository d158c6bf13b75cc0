//! What a new volume starts with: a copy of what the image has at that place, owners, modes and times included.

use crate::snapshot::View;
use crate::sys::{file, fsutil, inroot};
use crate::tree::{SourceEntry, SourceNode, SourceTree, TreePath, Walked};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Copies the directory at `target` of the image into the empty directory `into`, itself included; does nothing when
/// the image has no directory there. Links in `target` are followed inside the image.
pub(super) fn seed(view: &View, target: &[u8], into: &Path) -> io::Result<()> {
    let found = view.resolve(target, true)?;
    let Some(top) = found.entry.filter(|entry| entry.node == SourceNode::Dir) else { return Ok(()) };
    let root = fsutil::open_dir(into)?;
    let copy = Copy { view, root: root.as_fd(), chown: fsutil::can_chown() };
    let (mut dirs, mut links) = (vec![(TreePath::root(), top)], HashMap::new());
    for Walked { path, entry, .. } in view.walk(&found.path, &|_| true)?.iter() {
        let Some(rel) = path.strip_prefix(&found.path).filter(|rel| !rel.is_root()) else { continue };
        copy.one(&path, &rel, &entry, &mut links)?;
        if entry.node == SourceNode::Dir {
            dirs.push((rel, entry));
        }
    }
    // afterwards, since each new entry changes its directory's time
    for (rel, entry) in dirs.iter().rev() {
        fsutil::apply_meta(copy.dir(rel)?.as_fd(), &entry.meta, copy.chown)?;
    }
    Ok(())
}

struct Copy<'a> {
    view: &'a View,
    root: BorrowedFd<'a>,
    chown: bool,
}

impl Copy<'_> {
    fn dir(&self, rel: &TreePath) -> io::Result<OwnedFd> {
        inroot::open_without_links(self.root, rel.as_os_str(), OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn one(
        &self,
        path: &TreePath,
        rel: &TreePath,
        entry: &SourceEntry,
        links: &mut HashMap<(u64, u64), TreePath>,
    ) -> io::Result<()> {
        let dir = self.dir(&rel.parent().unwrap_or_default())?;
        let name = OsStr::from_bytes(rel.file_name().unwrap_or_default());
        if let Some(first) = entry.links.and_then(|key| links.get(&key)) {
            return Ok(rustix::fs::linkat(self.root, first.as_os_str(), &dir, name, AtFlags::empty())?);
        }
        match &entry.node {
            SourceNode::Dir => return Ok(rustix::fs::mkdirat(&dir, name, Mode::RWXU)?),
            SourceNode::File { .. } => {
                let to = fsutil::create_file(dir.as_fd(), name)?;
                fsutil::copy_file(&self.view.open(path)?, &to)?;
                fsutil::apply_meta(to.as_fd(), &entry.meta, self.chown)?;
            }
            SourceNode::Symlink { target } => {
                rustix::fs::symlinkat(OsStr::from_bytes(target), &dir, name)?;
                fsutil::apply_meta_at(dir.as_fd(), name, &entry.meta, self.chown)?;
            }
            SourceNode::CharDevice { major, minor } => {
                self.node(&dir, name, FileType::CharacterDevice, (*major, *minor), entry)?
            }
            SourceNode::BlockDevice { major, minor } => {
                self.node(&dir, name, FileType::BlockDevice, (*major, *minor), entry)?
            }
            SourceNode::Fifo => self.node(&dir, name, FileType::Fifo, (0, 0), entry)?,
            // what listened on it is not there
            SourceNode::Socket => return Ok(()),
        }
        if let Some(key) = entry.links {
            links.insert(key, rel.clone());
        }
        Ok(())
    }

    fn node(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        kind: FileType,
        device: (u32, u32),
        entry: &SourceEntry,
    ) -> io::Result<()> {
        match file::mknod_at(dir, name, kind, entry.meta.mode, device.0, device.1) {
            Ok(()) => fsutil::apply_meta_at(dir.as_fd(), name, &entry.meta, self.chown),
            // an ordinary user can make no devices; the container could not use them either
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Err(e) => Err(e),
        }
    }
}
