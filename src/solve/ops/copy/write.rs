//! Writes a finished layout into an empty directory.
//!
//! Directories come first, then everything in them, in parallel by directory; links last. While files are written there is no
//! link above any of them, since every directory on the way was made here. The cheapest way to a body wins: a link of the
//! source's own inode (a snapshot never changes), a link of a body that the store has, shared blocks, a copy in the
//! kernel. What came from a directory of the user's is checked against the name of its bytes before it counts.

use super::apply::ApplyEnv;
use super::layout::{Body, From, Group, Kind, Made};
use super::placed::{Item, Placed};
use super::{CopyError, Sources};
use crate::context::hash_file;
use crate::layer::whiteout::make_whiteout;
use crate::store::BodySource;
use crate::sys::{fsutil, inroot};
use crate::tree::{Meta, SourceTree, TreePath};
use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// So many files of one directory go to one thread at a time.
const CHUNK: usize = 64;

struct Writer<'w> {
    env: &'w ApplyEnv<'w>,
    sources: &'w Sources<'w>,
    upper: OwnedFd,
    /// The directories of the unpacked archives.
    unpacked: Vec<OwnedFd>,
    /// Inodes that have a name in the result: a second one would make two files one.
    linked: Mutex<HashSet<(u64, u64)>>,
}

/// Writes `items` of what was `placed` into `upper`, with marks of deletion for what is `gone`.
pub(super) fn write<'p>(
    placed: &'p Placed<'p>,
    items: impl Iterator<Item = (TreePath, Item<'p>)>,
    gone: &[TreePath],
    sources: &Sources<'_>,
    upper: &Path,
    unpacked: &[std::path::PathBuf],
    env: &ApplyEnv<'_>,
) -> Result<(), CopyError> {
    let open = |dir: &Path| fsutil::open_dir(dir).map_err(CopyError::write(&TreePath::root()));
    let writer = Writer {
        env,
        sources,
        upper: open(upper)?,
        unpacked: unpacked.iter().map(|d| open(d)).collect::<Result<_, _>>()?,
        linked: Mutex::default(),
    };
    let mut dirs: Vec<Item<'_>> = Vec::new();
    let mut jobs: BTreeMap<TreePath, Vec<Item<'_>>> = BTreeMap::new();
    let mut first: HashMap<Group, TreePath> = HashMap::new();
    let mut links: Vec<(TreePath, TreePath)> = Vec::new();
    for (path, item) in items {
        match &placed.made(item).kind {
            Kind::Dir => {
                rustix::fs::mkdirat(&writer.upper, path.as_os_str(), Mode::RWXU)
                    .map_err(CopyError::write(&path))?;
                dirs.push(item);
                continue;
            }
            Kind::File(Body { group: Some(group), .. }) => {
                let original = first.entry(*group).or_insert_with(|| path.clone());
                if *original != path {
                    links.push((original.clone(), path));
                    continue;
                }
            }
            _ => {}
        }
        jobs.entry(path.parent().unwrap_or_default()).or_default().push(item);
    }
    let chunks: Vec<(&TreePath, &[Item<'_>])> =
        jobs.iter().flat_map(|(dir, jobs)| jobs.chunks(CHUNK).map(move |c| (dir, c))).collect();
    chunks.par_iter().try_for_each(|(dir, jobs)| writer.write_in(placed, dir, jobs))?;
    drop(chunks);
    drop(jobs);
    for (original, path) in &links {
        let link = || {
            rustix::fs::linkat(
                &writer.upper,
                original.as_os_str(),
                &writer.upper,
                path.as_os_str(),
                AtFlags::empty(),
            )
        };
        link().map_err(CopyError::write(path))?;
    }
    for path in gone {
        let name = OsStr::from_bytes(path.file_name().unwrap_or_default());
        let dir = writer.open_dir(&path.parent().unwrap_or_default());
        let made = dir.and_then(|dir| make_whiteout(dir.as_fd(), name));
        made.map_err(CopyError::write(path))?;
    }
    // from below, so that nothing changes a directory's time after it is set
    for item in dirs.into_iter().rev() {
        let path = placed.path(item);
        writer.finish_dir(&path, &placed.made(item).meta).map_err(CopyError::write(&path))?;
    }
    Ok(())
}

impl Writer<'_> {
    fn open_dir(&self, dir: &TreePath) -> io::Result<OwnedFd> {
        inroot::open_without_links(&self.upper, dir.as_os_str(), OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn write_in(&self, placed: &Placed<'_>, dir: &TreePath, jobs: &[Item<'_>]) -> Result<(), CopyError> {
        let fd = self.open_dir(dir).map_err(CopyError::write(dir))?;
        for job in jobs {
            let path = placed.path(*job);
            let name = OsStr::from_bytes(path.file_name().unwrap_or_default());
            self.write_one(fd.as_fd(), name, &path, &placed.made(*job))?;
        }
        Ok(())
    }

    fn finish_dir(&self, path: &TreePath, meta: &Meta) -> io::Result<()> {
        let fd = self.open_dir(path)?;
        apply_meta(fd.as_fd(), meta, self.env.chown)
    }

    fn write_one(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &TreePath,
        made: &Made,
    ) -> Result<(), CopyError> {
        let meta = &made.meta;
        let node = |kind, major, minor| self.make_node(dir, name, meta, kind, major, minor);
        match &made.kind {
            Kind::Dir => Ok(()),
            Kind::File(body) => return self.write_file(dir, name, path, meta, body),
            Kind::Symlink(target) => rustix::fs::symlinkat(OsStr::from_bytes(target), dir, name)
                .map_err(io::Error::from)
                .and_then(|()| fsutil::apply_meta_at(dir, name, meta, self.env.chown)),
            Kind::CharDevice(major, minor) => node(FileType::CharacterDevice, *major, *minor),
            Kind::BlockDevice(major, minor) => node(FileType::BlockDevice, *major, *minor),
            Kind::Fifo => node(FileType::Fifo, 0, 0),
        }
        .map_err(CopyError::write(path))
    }

    fn make_node(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        meta: &Meta,
        kind: FileType,
        major: u32,
        minor: u32,
    ) -> io::Result<()> {
        let device = rustix::fs::makedev(major, minor);
        match rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(0o600), device) {
            // without the right to make devices the tree gets an empty file; the diff and the image have the device
            Err(Errno::PERM) if !self.env.chown => drop(fsutil::create_file(dir, name)?),
            done => done?,
        }
        fsutil::apply_meta_at(dir, name, meta, self.env.chown)
    }

    fn write_file(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &TreePath,
        meta: &Meta,
        body: &Body,
    ) -> Result<(), CopyError> {
        match &body.from {
            From::Bytes(bytes) => {
                if let Some(bodies) = self.env.bodies {
                    let from = BodySource::Bytes(bytes);
                    bodies.link_or_insert(&body.content, body.size, meta, from, dir, name)?;
                    return Ok(());
                }
                let write = || {
                    let mut file = fsutil::create_file(dir, name)?;
                    file.write_all(bytes)?;
                    apply_meta(file.as_fd(), meta, self.env.chown)
                };
                write().map_err(CopyError::write(path))
            }
            From::Unpacked(number, at) => {
                let link = || {
                    rustix::fs::linkat(&self.unpacked[*number], at.as_os_str(), dir, name, AtFlags::empty())?;
                    let fd = rustix::fs::openat(
                        dir,
                        name,
                        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                        Mode::empty(),
                    )?;
                    apply_meta(fd.as_fd(), meta, self.env.chown)
                };
                link().map_err(CopyError::write(path))
            }
            From::Source(origin, at) => {
                let missing = || CopyError::source(at)(io::ErrorKind::NotFound.into());
                let tree = self.sources.tree(*origin).ok_or_else(missing)?;
                let file = tree.open(at).map_err(CopyError::source(at))?;
                if body.as_is && body.size > 0 && tree.immutable() && self.link(&file, dir, name) {
                    return Ok(());
                }
                self.copy(tree, at, &file, dir, name, path, meta, body)
            }
        }
    }

    /// Gives the source's own inode a name in the result; false when that cannot be.
    fn link(&self, file: &File, dir: BorrowedFd<'_>, name: &OsStr) -> bool {
        let Ok(stat) = rustix::fs::fstat(file) else { return false };
        let id = (stat.st_dev, stat.st_ino);
        if !self.linked.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            return false;
        }
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, path, dir, name, AtFlags::SYMLINK_FOLLOW).is_ok()
    }

    #[expect(clippy::too_many_arguments, reason = "a source, a target and what is known of the file")]
    fn copy(
        &self,
        tree: &dyn SourceTree,
        at: &TreePath,
        file: &File,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &TreePath,
        meta: &Meta,
        body: &Body,
    ) -> Result<(), CopyError> {
        let changed = Cell::new(false);
        let check = |copy: &File| -> io::Result<()> {
            if tree.still(at, file)? {
                return Ok(());
            }
            let mut copy = copy.try_clone()?;
            io::Seek::rewind(&mut copy)?;
            if hash_file(&mut copy, body.size).ok() == Some(body.content) {
                return Ok(());
            }
            changed.set(true);
            Err(io::Error::other("the file changed while it was copied"))
        };
        let result = match self.env.bodies {
            Some(bodies) => bodies
                .link_or_insert_checked(
                    &body.content,
                    body.size,
                    meta,
                    BodySource::File(file),
                    dir,
                    name,
                    &check,
                )
                .map(drop)
                .map_err(CopyError::from),
            None => {
                let write = || {
                    let copy = fsutil::create_file(dir, name)?;
                    fsutil::copy_file(file, &copy)?;
                    check(&copy)?;
                    apply_meta(copy.as_fd(), meta, self.env.chown)
                };
                write().map_err(CopyError::write(path))
            }
        };
        if changed.get() { Err(CopyError::Changed { path: at.clone() }) } else { result }
    }
}

/// Sets metadata; attributes that the store's file system cannot hold are left to the diff, which has them.
fn apply_meta(fd: BorrowedFd<'_>, meta: &Meta, chown: bool) -> io::Result<()> {
    match fsutil::apply_meta(fd, meta, chown) {
        Err(e) if !meta.xattrs.is_empty() && is_attribute_refused(&e) => {
            let plain = Meta { xattrs: Vec::new(), ..meta.clone() };
            fsutil::apply_meta(fd, &plain, chown)
        }
        done => done,
    }
}

fn is_attribute_refused(e: &io::Error) -> bool {
    [Errno::NOTSUP, Errno::PERM].iter().any(|n| e.raw_os_error() == Some(n.raw_os_error()))
}
