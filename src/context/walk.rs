//! Lists a context: one open a directory, one stat a name relative to it, many directories at the same time.
//!
//! What the rules exclude for good is not even looked at. An excluded directory is entered only if a `!` rule could bring
//! something below it back, and shows only if one does. Directories are opened by their path below the context's root,
//! never through a link, so that a walk holds few descriptors however deep the tree is.

use super::dir::BuildContext;
use super::ignore::Verdict;
use super::kept::Xattrs;
use super::{IgnoreRules, Stamp};
use crate::sys::{inroot, xattr};
use crate::tree::{Enter, Meta, Mtime, SourceEntry, SourceNode, TreePath, Walk, Walked};
use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, OFlags, RawDir, Stat};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

/// From so many names on, a directory is looked at in parts, at the same time.
const PART: usize = 512;
/// So many directories are entered before what is in them is moved to its place: a walk shall not need room for all twice.
const WINDOW: usize = 64;
/// Bytes for the names that the kernel gives at once.
const NAMES: usize = 32 << 10;

/// One name of a directory.
pub(super) struct Listed {
    pub(super) found: Walked,
    /// Only what `!` rules bring back below it can keep it.
    pub(super) excluded: bool,
    verdict: Verdict,
}

impl BuildContext {
    fn open_dir(&self, dir: &TreePath) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
        inroot::open_without_links(&self.root, dir.as_os_str(), flags)
    }

    /// Lists and stats a directory; names that the rules exclude for good are left out.
    pub(super) fn read_dir(&self, dir: &TreePath) -> io::Result<Vec<Listed>> {
        self.list_dir(dir, self.ignore.verdict(dir))
    }

    fn list_dir(&self, dir: &TreePath, verdict: Verdict) -> io::Result<Vec<Listed>> {
        let fd = self.open_dir(dir)?;
        let mut paths = names(&fd, dir, verdict, &self.ignore)?;
        paths.sort_unstable_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
        let part = |paths: &mut [(TreePath, Verdict)]| {
            let first = paths.first().and_then(|(path, _)| path.file_name()).unwrap_or_default();
            let mut listing = self.memos.begin(dir, first);
            let mut listed = Vec::with_capacity(paths.len());
            for (path, verdict) in paths {
                let excluded = self.ignore.is_excluded(*verdict);
                let name = path.file_name().unwrap_or_default();
                let Some(stat) = stat_at(&fd, name)? else { continue };
                if excluded && FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    continue;
                }
                let (content, attrs) = listing.learn(name, stamp(&stat), || visible_xattrs(&fd, name))?;
                let entry = self.entry(&fd, name, &stat, attrs)?;
                let found = Walked { path: std::mem::take(path), entry, content };
                listed.push(Listed { found, excluded, verdict: *verdict });
            }
            Ok((listed, listing))
        };
        let parts: Vec<_> = match paths.len() {
            0..PART => vec![part(&mut paths)?],
            _ => paths.par_chunks_mut(PART).map(part).collect::<io::Result<_>>()?,
        };
        let (listed, listings): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        self.memos.finish(dir, listings.into_iter());
        Ok(listed
            .into_iter()
            .reduce(|mut all, more| {
                all.extend(more);
                all
            })
            .unwrap_or_default())
    }

    /// Says whether `!` rules bring back anything below an excluded directory.
    pub(super) fn brings_back(&self, dir: &TreePath) -> io::Result<bool> {
        for item in self.read_dir(dir)? {
            if !item.excluded || self.brings_back(&item.found.path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lists everything below a directory in path order; an excluded directory comes only with something below it.
    pub(super) fn below(&self, dir: &TreePath, enter: &Enter<'_>) -> io::Result<Walk> {
        let mut found = self.subtree(dir, self.ignore.verdict(dir), enter)?;
        found.shrink();
        Ok(found)
    }

    fn subtree(&self, dir: &TreePath, verdict: Verdict, enter: &Enter<'_>) -> io::Result<Walk> {
        let listed = self.list_dir(dir, verdict)?;
        let goes = |item: &Listed| item.found.entry.node == SourceNode::Dir && enter(&item.found.path);
        let dirs: Vec<usize> = (0..listed.len()).filter(|at| goes(&listed[*at])).collect();
        let mut out = Walk::default();
        let mut next = 0;
        for window in dirs.chunks(WINDOW) {
            let below = |at: &usize| self.subtree(&listed[*at].found.path, listed[*at].verdict, enter);
            let below: Vec<Walk> = match window {
                [one] => vec![below(one)?],
                many => many.par_iter().map(below).collect::<io::Result<_>>()?,
            };
            for (at, inside) in window.iter().zip(below) {
                listed[next..*at].iter().for_each(|item| item.keep(&mut out));
                next = at + 1;
                let item = &listed[*at];
                if !item.excluded || !inside.is_empty() {
                    item.found.put(&mut out);
                }
                out.append(inside);
            }
        }
        listed[next..].iter().for_each(|item| item.keep(&mut out));
        Ok(out)
    }
}

impl Listed {
    /// Adds what is there unless the rules exclude it.
    fn keep(&self, out: &mut Walk) {
        if !self.excluded {
            self.found.put(out);
        }
    }
}

/// Reads the names of a directory that the rules let through, with what they say of them.
fn names(
    fd: &OwnedFd,
    dir: &TreePath,
    verdict: Verdict,
    rules: &IgnoreRules,
) -> io::Result<Vec<(TreePath, Verdict)>> {
    let mut names = Vec::new();
    let mut space = vec![MaybeUninit::uninit(); NAMES];
    let mut entries = RawDir::new(fd, &mut space);
    while let Some(item) = entries.next() {
        let item = match item {
            // that is what the kernel says of a directory that has been removed
            Err(rustix::io::Errno::NOENT) => break,
            item => item?,
        };
        let name = item.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let path = dir.child(name);
        let below = rules.verdict_below(verdict, path.as_bytes());
        if !rules.prunes(below, path.as_bytes()) {
            names.push((path, below));
        }
    }
    Ok(names)
}

pub(super) fn stat_at(dir: &OwnedFd, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(e) if is_absent(&e.into()) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

pub(super) fn is_absent(e: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].iter().any(|n| e.raw_os_error() == Some(n.raw_os_error()))
}

/// Attributes that mean the same elsewhere: capabilities and the user's own. Labels, ACLs and the store's own
/// bookkeeping belong to the host.
pub(super) fn visible_xattrs(dir: &OwnedFd, name: &[u8]) -> io::Result<Xattrs> {
    let mut all = xattr::all_at(dir, OsStr::from_bytes(name))?;
    all.retain(|(key, _)| {
        key == b"security.capability" || key.starts_with(b"user.") && !key.starts_with(b"user.overlay.")
    });
    Ok(all)
}

pub(super) fn entry(dir: &OwnedFd, name: &[u8], stat: &Stat, xattrs: Xattrs) -> io::Result<SourceEntry> {
    let stamp = stamp(stat);
    let device = || (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let node = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => SourceNode::Dir,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(dir, OsStr::from_bytes(name), Vec::new())?;
            SourceNode::Symlink { target: target.into_bytes() }
        }
        FileType::Fifo => SourceNode::Fifo,
        FileType::Socket => SourceNode::Socket,
        FileType::CharacterDevice => {
            let (major, minor) = device();
            SourceNode::CharDevice { major, minor }
        }
        FileType::BlockDevice => {
            let (major, minor) = device();
            SourceNode::BlockDevice { major, minor }
        }
        _ => SourceNode::File { size: stamp.size },
    };
    let links = (matches!(node, SourceNode::File { .. }) && stat.st_nlink > 1).then_some(stamp.inode);
    let meta = Meta { mode: stat.st_mode & 0o7777, uid: 0, gid: 0, mtime: stamp.mtime, xattrs };
    Ok(SourceEntry { meta, node, links })
}

#[expect(clippy::useless_conversion, reason = "the fields' types differ between architectures")]
pub(super) fn stamp(stat: &Stat) -> Stamp {
    let time = |secs, nanos: u64| Mtime { secs, nanos: u32::try_from(nanos).unwrap_or(0) };
    Stamp {
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec.into()),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec.into()),
        inode: (stat.st_dev.into(), stat.st_ino.into()),
        mode: stat.st_mode,
    }
}

/// The clock that file systems take their times from.
pub(super) fn clock() -> Mtime {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Mtime { secs: now.tv_sec, nanos: u32::try_from(now.tv_nsec).unwrap_or(0) }
}
