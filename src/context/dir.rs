//! A build context that is a directory of the user's.
//!
//! The directory is opened once; every later look goes through that descriptor and follows no link, so what a build
//! reads lies below it. Owners become 0:0 (those of an archive stay) and attributes that belong to the host are left out,
//! so that a context means the same on every machine.

use super::kept::Xattrs;
use super::memo::Memos;
use super::walk::{clock, entry, is_absent, stamp, stat_at, visible_xattrs};
use super::{ContextError, IgnoreRules, Stamp, StatCache};
use crate::digest::ContentId;
use crate::sys::inroot;
use crate::tree::{Enter, SourceEntry, SourceNode, SourceTree, TreePath, Walk};
use rustix::fs::{FileType, OFlags, Stat};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

/// A directory whose files a build may copy.
pub struct BuildContext {
    pub(super) root: OwnedFd,
    pub(super) ignore: IgnoreRules,
    pub(super) memos: Memos,
    asked: Option<Vec<Vec<u8>>>,
    own_owners: bool,
    why_empty: Option<&'static str>,
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

    pub(super) fn entry(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        stat: &Stat,
        xattrs: Xattrs,
    ) -> io::Result<SourceEntry> {
        let mut entry = entry(dir, name, stat, xattrs)?;
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
        // the root has no name in any directory
        let attrs = match path.is_root() {
            true => visible_xattrs(&fd, name)?,
            false => self.memos.look(&dir, name, stamp(&stat), || visible_xattrs(&fd, name))?.1,
        };
        Ok(Some(self.entry(&fd, name, &stat, attrs)?))
    }

    fn list(&self, dir: &TreePath) -> io::Result<Vec<(Vec<u8>, SourceEntry)>> {
        let mut out = Vec::new();
        for item in self.read_dir(dir)? {
            if !item.excluded || self.brings_back(&item.found.path)? {
                let name = item.found.path.file_name().unwrap_or_default().to_vec();
                out.push((name, item.found.entry));
            }
        }
        Ok(out)
    }

    fn walk(&self, dir: &TreePath, enter: &Enter<'_>) -> io::Result<Walk> {
        self.below(dir, enter)
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
