//! The way without overlayfs: copy the parent's tree, let the process write, move what changed to the upper directory.
//!
//! The result has overlayfs's form, so snapshots made in this way and those made with mounts are the same. Files are copied,
//! with shared blocks where the file system can, never hard linked: a process could write through the link. What has
//! changed is told by inode, times and size; only that is read again.

use super::SnapshotError;
use crate::layer::whiteout::make_whiteout;
use crate::sys::{file, fsutil};
use crate::tree::{Meta, SourceEntry, SourceNode, SourceTree, TreePath};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What a file looks like as long as nobody touches it.
type Stamp = (u64, i64, i64, i64, i64, i64);

/// A copied tree and how each of its files looked at first.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) dir: PathBuf,
    stamps: HashMap<TreePath, Stamp>,
}

impl Merged {
    /// Copies a whole tree into the new directory `dir`.
    pub(super) fn make(view: &dyn SourceTree, dir: PathBuf) -> Result<Self, SnapshotError> {
        let top = TreePath::root();
        std::fs::create_dir(&dir).map_err(SnapshotError::tree("make the directory", &top))?;
        let root = fsutil::open_dir(&dir).map_err(SnapshotError::tree("open", &top))?;
        let mut copy =
            Copy { view, root, chown: fsutil::can_chown(), first: HashMap::new(), dirs: Vec::new() };
        let root_entry = SourceEntry {
            meta: Meta { mode: 0o755, uid: own().0, gid: own().1, ..Meta::default() },
            node: SourceNode::Dir,
            links: None,
        };
        copy.dirs.push((top.clone(), root_entry.meta));
        let mut todo = vec![top];
        while let Some(dir) = todo.pop() {
            for (name, entry) in view.list(&dir).map_err(SnapshotError::tree("list", &dir))? {
                let path = dir.child(&name);
                copy.one(&path, &entry).map_err(SnapshotError::tree("copy", &path))?;
                if entry.node == SourceNode::Dir {
                    copy.dirs.push((path.clone(), entry.meta));
                    todo.push(path);
                }
            }
        }
        let stamps = copy.finish()?;
        Ok(Self { dir, stamps })
    }

    /// Moves what is new or changed to `upper` and marks there what is gone.
    pub(super) fn move_changes(&self, view: &dyn SourceTree, upper: &Path) -> Result<(), SnapshotError> {
        let top = TreePath::root();
        let merged = fsutil::open_dir(&self.dir).map_err(SnapshotError::tree("open", &top))?;
        let upper = fsutil::open_dir(upper).map_err(SnapshotError::tree("open", &top))?;
        let mut mover = Mover { merged, upper, made: HashMap::new() };
        let mut todo = vec![top];
        while let Some(dir) = todo.pop() {
            let at = |action| SnapshotError::tree::<std::io::Error>(action, &dir);
            let before = view.list(&dir).map_err(at("list"))?;
            let before: HashMap<Vec<u8>, SourceEntry> = before.into_iter().collect();
            let here = mover.open(&mover.merged, &dir).map_err(at("open"))?;
            let now = fsutil::names(here.as_fd()).map_err(at("list"))?;
            let names: HashSet<&[u8]> = now.iter().map(|name| name.as_bytes()).collect();
            for gone in before.keys().filter(|name| !names.contains(&name[..])) {
                let path = dir.child(gone);
                mover.whiteout(&path).map_err(SnapshotError::tree("mark as deleted", &path))?;
            }
            for name in &now {
                let path = dir.child(name.as_bytes());
                let Some(stat) = fsutil::stat_at(here.as_fd(), name).map_err(at("look into"))? else {
                    continue;
                };
                let was_dir = before.get(name.as_bytes()).filter(|entry| entry.node == SourceNode::Dir);
                let is_dir = fsutil::file_type(&stat) == FileType::Directory;
                let moved = SnapshotError::tree("move", &path);
                match was_dir {
                    Some(old) if is_dir => {
                        mover.dir_if_changed(&path, &old.meta).map_err(moved)?;
                        todo.push(path);
                    }
                    _ if self.stamps.get(&path) == Some(&stamp(&stat)) => {}
                    _ => mover.take(&path).map_err(moved)?,
                }
            }
        }
        mover.finish()
    }
}

fn own() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

fn stamp(stat: &Stat) -> Stamp {
    (
        stat.st_ino,
        stat.st_mtime,
        stat.st_mtime_nsec as i64,
        stat.st_ctime,
        stat.st_ctime_nsec as i64,
        stat.st_size,
    )
}

/// Names a directory below a root and the last component.
fn place<'p>(root: &OwnedFd, path: &'p TreePath) -> std::io::Result<(OwnedFd, &'p OsStr)> {
    let parent = path.parent().unwrap_or_default();
    let dir = fsutil::open_beneath(root.as_fd(), parent.as_os_str(), OFlags::RDONLY | OFlags::DIRECTORY)?;
    Ok((dir, OsStr::from_bytes(path.file_name().unwrap_or(b"."))))
}

struct Copy<'a> {
    view: &'a dyn SourceTree,
    root: OwnedFd,
    chown: bool,
    /// The first name of each file with several.
    first: HashMap<(u64, u64), TreePath>,
    /// Directories get their metadata last; from the top down.
    dirs: Vec<(TreePath, Meta)>,
}

impl Copy<'_> {
    fn one(&mut self, path: &TreePath, entry: &SourceEntry) -> std::io::Result<()> {
        let (dir, name) = place(&self.root, path)?;
        let node = |kind: FileType, major: u32, minor: u32| {
            match file::mknod_at(&dir, name, kind, entry.meta.mode, major, minor) {
                // as everywhere: a device that may not be made is only in the records
                Err(e) if kind != FileType::Fifo && e.kind() == std::io::ErrorKind::PermissionDenied => {
                    return Ok(());
                }
                made => made?,
            }
            fsutil::apply_meta_at(dir.as_fd(), name, &entry.meta, self.chown)
        };
        match &entry.node {
            SourceNode::Dir => Ok(rustix::fs::mkdirat(&dir, name, Mode::RWXU)?),
            SourceNode::Symlink { target } => {
                rustix::fs::symlinkat(&target[..], &dir, name)?;
                fsutil::apply_meta_at(dir.as_fd(), name, &entry.meta, self.chown)
            }
            SourceNode::CharDevice { major, minor } => node(FileType::CharacterDevice, *major, *minor),
            SourceNode::BlockDevice { major, minor } => node(FileType::BlockDevice, *major, *minor),
            SourceNode::Fifo => node(FileType::Fifo, 0, 0),
            SourceNode::Socket => Ok(()),
            SourceNode::File { .. } => {
                if let Some(first) = entry.links.and_then(|links| self.first.get(&links)) {
                    let (from, old) = place(&self.root, first)?;
                    return Ok(rustix::fs::linkat(&from, old, &dir, name, AtFlags::empty())?);
                }
                let to = fsutil::create_file(dir.as_fd(), name)?;
                fsutil::copy_file(&self.view.open(path)?, &to)?;
                if let Some(links) = entry.links {
                    self.first.insert(links, path.clone());
                }
                fsutil::apply_meta(to.as_fd(), &entry.meta, self.chown)
            }
        }
    }

    /// Finishes the directories and looks at every file once all links are made.
    fn finish(self) -> Result<HashMap<TreePath, Stamp>, SnapshotError> {
        let mut stamps = HashMap::new();
        for (path, meta) in self.dirs.iter().rev() {
            let at = |action| SnapshotError::tree::<std::io::Error>(action, path);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let dir = fsutil::open_beneath(self.root.as_fd(), path.as_os_str(), flags).map_err(at("open"))?;
            for name in fsutil::names(dir.as_fd()).map_err(at("list"))? {
                if let Some(stat) = fsutil::stat_at(dir.as_fd(), &name).map_err(at("look into"))?
                    && fsutil::file_type(&stat) != FileType::Directory
                {
                    stamps.insert(path.child(name.as_bytes()), stamp(&stat));
                }
            }
            fsutil::apply_meta(dir.as_fd(), meta, self.chown).map_err(at("set the mode and owner of"))?;
        }
        Ok(stamps)
    }
}

struct Mover {
    merged: OwnedFd,
    upper: OwnedFd,
    /// Directories made in the upper directory, and how they shall look in the end.
    made: HashMap<TreePath, Meta>,
}

impl Mover {
    fn open(&self, root: &OwnedFd, path: &TreePath) -> std::io::Result<OwnedFd> {
        fsutil::open_beneath(root.as_fd(), path.as_os_str(), OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Moves a file, or a directory with all that is in it.
    fn take(&mut self, path: &TreePath) -> std::io::Result<()> {
        self.parents(path)?;
        let (from, name) = place(&self.merged, path)?;
        let (to, _) = place(&self.upper, path)?;
        Ok(rustix::fs::renameat(&from, name, &to, name)?)
    }

    fn whiteout(&mut self, path: &TreePath) -> std::io::Result<()> {
        self.parents(path)?;
        let (to, name) = place(&self.upper, path)?;
        make_whiteout(to.as_fd(), name)
    }

    fn dir_if_changed(&mut self, path: &TreePath, before: &Meta) -> std::io::Result<()> {
        let now = self.meta(path)?;
        let same = (now.mode, now.uid, now.gid) == (before.mode, before.uid, before.gid);
        if same && now.xattrs == before.xattrs { Ok(()) } else { self.parents(&path.child(b"x")) }
    }

    /// Makes the directories above a path in the upper directory, as they are in the tree.
    fn parents(&mut self, path: &TreePath) -> std::io::Result<()> {
        let mut missing = Vec::new();
        let mut above = path.parent();
        while let Some(dir) = above.filter(|dir| !dir.is_root() && !self.made.contains_key(dir)) {
            above = dir.parent();
            missing.push(dir);
        }
        for dir in missing.into_iter().rev() {
            let meta = self.meta(&dir)?;
            let (to, name) = place(&self.upper, &dir)?;
            rustix::fs::mkdirat(&to, name, Mode::RWXU)?;
            self.made.insert(dir, meta);
        }
        Ok(())
    }

    fn meta(&self, path: &TreePath) -> std::io::Result<Meta> {
        let dir = self.open(&self.merged, path)?;
        let mut meta = fsutil::meta_of(&rustix::fs::fstat(&dir)?);
        meta.xattrs = fsutil::xattrs(dir.as_fd())?;
        Ok(meta)
    }

    fn finish(self) -> Result<(), SnapshotError> {
        let mut made: Vec<_> = self.made.iter().collect();
        made.sort_by(|a, b| a.0.cmp(b.0));
        let chown = fsutil::can_chown();
        for (path, meta) in made.into_iter().rev() {
            let done =
                self.open(&self.upper, path).and_then(|dir| fsutil::apply_meta(dir.as_fd(), meta, chown));
            done.map_err(SnapshotError::tree("set the mode and owner of", path))?;
        }
        Ok(())
    }
}
