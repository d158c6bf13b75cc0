//! A build context that is a directory of the user's.
//!
//! The directory is opened once; every later look goes through that descriptor and follows no link, so what a build
//! reads lies below it. Walks list directories in parallel (crate `ignore`, whose own filters are off: they follow
//! gitignore's rules, not ours), each through its descriptor. Owners become 0:0 (those of an archive stay) and attributes
//! that belong to the host are left out, so that a context means the same on every machine.

use super::memo::{Known, Memos};
use super::{ContextError, IgnoreRules, Stamp, StatCache};
use crate::digest::ContentId;
use crate::sys::{inroot, xattr};
use crate::tree::{Enter, Meta, Mtime, SourceEntry, SourceNode, SourceTree, TreePath};
use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A directory whose files a build may copy.
pub struct BuildContext {
    root: OwnedFd,
    ignore: IgnoreRules,
    memos: Memos,
    asked: Option<Vec<Vec<u8>>>,
    own_owners: bool,
    why_empty: Option<&'static str>,
}

/// One listed name: what the build sees and whether only `!` rules below can keep it.
struct Listed {
    name: Vec<u8>,
    entry: SourceEntry,
    excluded: bool,
}

impl BuildContext {
    /// Opens a directory as a context; nothing in it is read yet.
    pub fn dir(
        path: &Path,
        ignore: IgnoreRules,
        stat_cache: Option<Box<dyn StatCache>>,
    ) -> Result<Self, ContextError> {
        let root =
            inroot::open_root(path).map_err(|source| ContextError::Open { path: path.to_owned(), source })?;
        Ok(Self {
            root,
            ignore,
            memos: Memos::new(stat_cache),
            asked: None,
            own_owners: false,
            why_empty: None,
        })
    }

    /// Says what a build takes from the context, as paths and patterns.
    pub fn asked_for(mut self, paths: Vec<Vec<u8>>) -> Self {
        self.asked = Some(paths);
        self
    }

    /// Says why there is nothing in the directory, for messages about what is missing.
    pub fn empty_since(mut self, why: &'static str) -> Self {
        self.why_empty = Some(why);
        self
    }

    /// Leaves files their owners: they came from an archive and are not a user's.
    pub fn with_owners(mut self) -> Self {
        self.own_owners = true;
        self
    }

    /// Gives what was learnt to the stat cache; done on drop as well.
    pub fn remember(&self) {
        self.memos.store();
    }

    /// Gives the rules, for messages.
    pub fn ignore_rules(&self) -> &IgnoreRules {
        &self.ignore
    }

    fn open_dir(&self, dir: &TreePath) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
        inroot::open_without_links(&self.root, dir.as_os_str(), flags)
    }

    /// Lists and stats a directory; names that the rules exclude for good are left out.
    fn read_dir(&self, dir: &TreePath) -> io::Result<Vec<Listed>> {
        let fd = self.open_dir(dir)?;
        let verdict = self.ignore.verdict(dir);
        let mut path = dir.as_bytes().to_vec();
        if !dir.is_root() {
            path.push(b'/');
        }
        let base = path.len();
        let mut names = Vec::new();
        for item in rustix::fs::Dir::read_from(&fd)? {
            let name = item?.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            path.truncate(base);
            path.extend_from_slice(&name);
            let below = self.ignore.verdict_below(verdict, &path);
            if !self.ignore.prunes(below, &path) {
                names.push((name, self.ignore.is_excluded(below)));
            }
        }
        names.sort_unstable();
        let mut memo = self.memos.begin(dir);
        let mut listed = Vec::with_capacity(names.len());
        for (name, excluded) in names {
            let Some(stat) = stat_at(&fd, &name)? else { continue };
            if excluded && FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                continue;
            }
            let known = memo.learn(&name, stamp(&stat), || visible_xattrs(&fd, &name))?;
            let entry = self.entry(&fd, &name, &stat, known)?;
            listed.push(Listed { name, entry, excluded });
        }
        self.memos.finish(dir, memo);
        Ok(listed)
    }

    /// Says whether `!` rules bring back anything below an excluded directory.
    fn brings_back(&self, dir: &TreePath) -> io::Result<bool> {
        for item in self.read_dir(dir)? {
            if !item.excluded || self.brings_back(&dir.child(&item.name))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lists all directories from `dir` on that the rules and `enter` let through, in parallel.
    fn read_dirs(&self, dir: &TreePath, enter: &Enter<'_>) -> io::Result<HashMap<TreePath, Vec<Listed>>> {
        let first = self.read_dir(dir)?;
        let any_dir = first.iter().any(|l| matches!(l.entry.node, SourceNode::Dir));
        let found = Mutex::new(HashMap::from([(dir.clone(), Ok(first))]));
        if any_dir {
            self.walk_parallel(dir, enter, &found)?;
        }
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.into_iter().map(|(path, listed)| Ok((path, listed?))).collect()
    }

    fn walk_parallel(
        &self,
        dir: &TreePath,
        enter: &Enter<'_>,
        found: &Mutex<HashMap<TreePath, io::Result<Vec<Listed>>>>,
    ) -> io::Result<()> {
        let top = self.open_dir(dir)?;
        let base = PathBuf::from(format!("/proc/self/fd/{}/.", top.as_raw_fd()));
        let inside = |path: &Path| {
            let below = path.strip_prefix(&base).unwrap_or(Path::new(""));
            dir.join(&TreePath::clean(below.as_os_str().as_bytes()))
        };
        // The walker only finds the directories; what is in them is read and believed through our own descriptors.
        // Its filter has to live as long as the program, so the rules are asked in the visitor, which skips instead.
        let mut walker = ignore::WalkBuilder::new(&base);
        walker.standard_filters(false).hidden(false).follow_links(false);
        walker.filter_entry(|entry| entry.file_type().is_some_and(|kind| kind.is_dir()));
        walker.build_parallel().run(|| {
            Box::new(|item| {
                let Ok(item) = item else { return ignore::WalkState::Continue };
                let path = inside(item.path());
                if path == *dir {
                    return ignore::WalkState::Continue;
                }
                if !enter(&path) || self.ignore.can_prune(&path) {
                    return ignore::WalkState::Skip;
                }
                let listed = self.read_dir(&path);
                found.lock().unwrap_or_else(PoisonError::into_inner).insert(path, listed);
                ignore::WalkState::Continue
            })
        });
        Ok(())
    }

    fn entry(&self, dir: &OwnedFd, name: &[u8], stat: &Stat, known: &Known) -> io::Result<SourceEntry> {
        let mut entry = entry(dir, name, stat, known)?;
        if self.own_owners {
            (entry.meta.uid, entry.meta.gid) = (stat.st_uid, stat.st_gid);
        }
        Ok(entry)
    }

    fn hash(&self, path: &TreePath, stamp: &Stamp) -> io::Result<ContentId> {
        let mut file = self.open(path)?;
        let now = |file: &File| rustix::fs::fstat(file).map(|s| self::stamp(&s));
        if now(&file)? != *stamp {
            return Err(changed(path));
        }
        let id = hash_file(&mut file, stamp.size)?;
        if now(&file)? != *stamp {
            return Err(changed(path));
        }
        Ok(id)
    }
}

impl SourceTree for BuildContext {
    fn stat(&self, path: &TreePath) -> io::Result<Option<SourceEntry>> {
        let (dir, name) = match (path.parent(), path.file_name()) {
            (Some(dir), Some(name)) => (dir, name),
            _ => (TreePath::root(), &b"."[..]),
        };
        let verdict = self.ignore.verdict(path);
        if self.ignore.prunes(verdict, path.as_bytes()) {
            return Ok(None);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = match inroot::open_without_links(&self.root, dir.as_os_str(), flags) {
            Ok(fd) => fd,
            Err(e) if is_absent(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        let Some(stat) = stat_at(&fd, name)? else { return Ok(None) };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if self.ignore.is_excluded(verdict) && !(is_dir && self.brings_back(path)?) {
            return Ok(None);
        }
        let known = self.memos.look(&dir, name, stamp(&stat), || visible_xattrs(&fd, name))?;
        Ok(Some(self.entry(&fd, name, &stat, &known)?))
    }

    fn list(&self, dir: &TreePath) -> io::Result<Vec<(Vec<u8>, SourceEntry)>> {
        let mut out = Vec::new();
        for item in self.read_dir(dir)? {
            if !item.excluded || self.brings_back(&dir.child(&item.name))? {
                out.push((item.name, item.entry));
            }
        }
        Ok(out)
    }

    fn walk(&self, dir: &TreePath, enter: &Enter<'_>) -> io::Result<Vec<(TreePath, SourceEntry)>> {
        let mut dirs = self.read_dirs(dir, enter)?;
        let mut out = Vec::with_capacity(dirs.values().map(Vec::len).sum());
        collect(dir, &mut dirs, &mut out);
        Ok(out)
    }

    fn content(&self, path: &TreePath, entry: &SourceEntry) -> io::Result<ContentId> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        let Some(known) = self.memos.get(&dir, name) else { return Err(io::ErrorKind::NotFound.into()) };
        let same = matches!(entry.node, SourceNode::File { size } if size == known.stamp.size);
        if !same || entry.meta.mtime != known.stamp.mtime {
            return Err(changed(path));
        }
        if let Some(content) = known.content {
            return Ok(content);
        }
        let begin = clock();
        let content = self.hash(path, &known.stamp)?;
        self.memos.learn_content(&dir, name, &known.stamp, content, known.stamp.at_rest(begin));
        Ok(content)
    }

    fn open(&self, path: &TreePath) -> io::Result<File> {
        // not blocking: a pipe that took the file's place must not stop the build
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = File::from(inroot::open_without_links(&self.root, path.as_os_str(), flags)?);
        if !file.metadata()?.is_file() {
            return Err(changed(path));
        }
        Ok(file)
    }

    fn still(&self, path: &TreePath, file: &File) -> io::Result<bool> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(false) };
        let stamp = stamp(&rustix::fs::fstat(file)?);
        Ok(self.memos.get(&dir, name).is_some_and(|k| k.at_rest && k.content.is_some() && k.stamp == stamp))
    }

    fn why_absent(&self, path: &TreePath) -> Option<String> {
        self.ignore.explain(path).or_else(|| self.why_empty.map(str::to_owned))
    }

    fn asked(&self) -> Option<&[Vec<u8>]> {
        self.asked.as_deref()
    }
}

impl Drop for BuildContext {
    fn drop(&mut self) {
        self.remember();
    }
}

/// Appends what is below a directory in path order; an excluded directory comes only with something below it.
fn collect(
    dir: &TreePath,
    dirs: &mut HashMap<TreePath, Vec<Listed>>,
    out: &mut Vec<(TreePath, SourceEntry)>,
) {
    for item in dirs.remove(dir).unwrap_or_default() {
        let path = dir.child(&item.name);
        let is_dir = matches!(item.entry.node, SourceNode::Dir);
        let at = out.len();
        if !is_dir {
            out.push((path, item.entry));
            continue;
        }
        out.push((path.clone(), item.entry));
        collect(&path, dirs, out);
        if item.excluded && out.len() == at + 1 {
            out.pop();
        }
    }
}

fn stat_at(dir: &OwnedFd, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(e) if is_absent(&e.into()) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn is_absent(e: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].iter().any(|n| e.raw_os_error() == Some(n.raw_os_error()))
}

/// Attributes that mean the same elsewhere: capabilities and the user's own. Labels, ACLs and the store's own
/// bookkeeping belong to the host.
fn visible_xattrs(dir: &OwnedFd, name: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut all = xattr::all_at(dir, OsStr::from_bytes(name))?;
    all.retain(|(key, _)| {
        key == b"security.capability" || key.starts_with(b"user.") && !key.starts_with(b"user.overlay.")
    });
    Ok(all)
}

fn entry(dir: &OwnedFd, name: &[u8], stat: &Stat, known: &Known) -> io::Result<SourceEntry> {
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
        _ => SourceNode::File { size: known.stamp.size },
    };
    let links = (matches!(node, SourceNode::File { .. }) && stat.st_nlink > 1).then_some(known.stamp.inode);
    let meta = Meta {
        mode: stat.st_mode & 0o7777,
        uid: 0,
        gid: 0,
        mtime: known.stamp.mtime,
        xattrs: known.xattrs.clone(),
    };
    Ok(SourceEntry { meta, node, links })
}

#[expect(clippy::useless_conversion, reason = "the fields' types differ between architectures")]
fn stamp(stat: &Stat) -> Stamp {
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

fn changed(path: &TreePath) -> io::Error {
    io::Error::other(format!("{path} changed while it was read; let the build have the files for itself"))
}

/// Hashes a file of the given size; one that holds more or less is an error.
pub(crate) fn hash_file(file: &mut File, size: u64) -> io::Result<ContentId> {
    /// From here on several threads are worth their start.
    const LARGE: usize = 1 << 20;
    let mut hasher = blake3::Hasher::new();
    let room = usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1).clamp(4096, 4 * LARGE);
    let mut buffer = vec![0; room];
    let mut total = 0;
    loop {
        let mut len = 0;
        while len < buffer.len() {
            match file.read(&mut buffer[len..]) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        total += len as u64;
        if len >= LARGE {
            hasher.update_rayon(&buffer[..len]);
        } else {
            hasher.update(&buffer[..len]);
        }
        if len < buffer.len() {
            break;
        }
    }
    if total == size {
        Ok(hasher.finalize().into())
    } else {
        Err(io::Error::other("the file changed its size while it was read"))
    }
}
