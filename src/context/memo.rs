//! What one build knows of the context's files, directory by directory: from the stat cache and from its own looks.

use super::{CachedDir, CachedStat, Stamp, StatCache};
use crate::digest::ContentId;
use crate::tree::{Mtime, TreePath};
use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What is known of one name.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) stamp: Stamp,
    pub(super) content: Option<ContentId>,
    pub(super) xattrs: Xattrs,
    /// A later change would show in the stamp.
    pub(super) at_rest: bool,
}

/// What is known of one directory.
#[derive(Debug, Default)]
pub(super) struct Memo {
    /// What the cache had, and whether it was asked.
    old: Option<CachedDir>,
    /// What this build has seen, sorted by name.
    seen: Vec<(Vec<u8>, Known)>,
    /// All names of the directory are in `seen`.
    complete: bool,
    dirty: bool,
}

/// A directory while it is listed.
pub(super) struct Listing {
    memo: Memo,
    now: Mtime,
}

/// All directories.
pub(super) struct Memos {
    cache: Option<Box<dyn StatCache>>,
    dirs: Mutex<HashMap<TreePath, Memo>>,
}

impl Memos {
    pub(super) fn new(cache: Option<Box<dyn StatCache>>) -> Self {
        Self { cache, dirs: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TreePath, Memo>> {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts from what is known of a directory for a listing; [`Memos::finish`] puts the new knowledge in. Another
    /// step that copies from the directory meanwhile keeps what it has seen.
    pub(super) fn begin(&self, dir: &TreePath) -> Listing {
        // a second look in one build: what the first one learnt is the better cache
        let known = self.lock().get(dir).map(|m| (m.to_cache(m.old.as_ref()), m.dirty));
        let memo = match known {
            Some((old, dirty)) => Memo { old: Some(old), dirty, ..Memo::default() },
            None => self.load(dir),
        };
        Listing { memo, now: super::dir::clock() }
    }

    pub(super) fn finish(&self, dir: &TreePath, listing: Listing) {
        let mut memo = listing.memo;
        memo.complete = true;
        memo.dirty |= memo.old.as_ref().map_or(0, |o| o.entries.len()) != memo.seen.len();
        self.lock().insert(dir.clone(), memo);
    }

    /// Looks at one name, without the rest of its directory.
    pub(super) fn look(
        &self,
        dir: &TreePath,
        name: &[u8],
        stamp: Stamp,
        xattrs: impl FnOnce() -> io::Result<Xattrs>,
    ) -> io::Result<Known> {
        let missing = !self.lock().contains_key(dir);
        let loaded = missing.then(|| self.load(dir));
        let mut dirs = self.lock();
        let memo = dirs.entry(dir.clone()).or_insert_with(|| loaded.unwrap_or_default());
        let at = memo.seen.binary_search_by(|(n, _)| n[..].cmp(name));
        if let Ok(at) = at
            && memo.seen[at].1.stamp == stamp
        {
            return Ok(memo.seen[at].1.clone());
        }
        let known = memo.judge(name, stamp, super::dir::clock(), xattrs)?;
        match at {
            Ok(at) => memo.seen[at].1 = known.clone(),
            Err(at) => memo.seen.insert(at, (name.to_vec(), known.clone())),
        }
        Ok(known)
    }

    pub(super) fn get(&self, dir: &TreePath, name: &[u8]) -> Option<Known> {
        let dirs = self.lock();
        let seen = &dirs.get(dir)?.seen;
        seen.binary_search_by(|(n, _)| n[..].cmp(name)).ok().map(|at| seen[at].1.clone())
    }

    pub(super) fn learn_content(
        &self,
        dir: &TreePath,
        name: &[u8],
        stamp: &Stamp,
        content: ContentId,
        at_rest: bool,
    ) {
        let mut dirs = self.lock();
        let Some(memo) = dirs.get_mut(dir) else { return };
        let Ok(at) = memo.seen.binary_search_by(|(n, _)| n[..].cmp(name)) else { return };
        let known = &mut memo.seen[at].1;
        if known.stamp == *stamp {
            known.content = Some(content);
            known.at_rest &= at_rest;
            memo.dirty = true;
        }
    }

    fn load(&self, dir: &TreePath) -> Memo {
        Memo { old: self.cache.as_ref().and_then(|c| c.load(dir)), ..Memo::default() }
    }

    /// Hands the directories in which something is new to the cache.
    pub(super) fn store(&self) {
        let Some(cache) = &self.cache else { return };
        for (dir, memo) in self.lock().iter_mut().filter(|(_, m)| m.dirty) {
            cache.store(dir, memo.to_cache(if memo.complete { None } else { memo.old.as_ref() }));
            memo.dirty = false;
        }
    }
}

impl Listing {
    /// Notes one name of the directory; names come sorted.
    pub(super) fn learn(
        &mut self,
        name: &[u8],
        stamp: Stamp,
        xattrs: impl FnOnce() -> io::Result<Xattrs>,
    ) -> io::Result<&Known> {
        let known = self.memo.judge(name, stamp, self.now, xattrs)?;
        self.memo.seen.push((name.to_vec(), known));
        Ok(self.memo.seen.last().map(|(_, known)| known).expect("just pushed"))
    }
}

impl Memo {
    /// Joins what stat says with what was remembered for just this state of the file.
    fn judge(
        &mut self,
        name: &[u8],
        stamp: Stamp,
        now: Mtime,
        xattrs: impl FnOnce() -> io::Result<Xattrs>,
    ) -> io::Result<Known> {
        let entries = self.old.as_ref().map_or(&[][..], |o| &o.entries);
        let old = entries.binary_search_by(|e| e.name[..].cmp(name)).ok().map(|at| &entries[at]);
        if let Some(old) = old.filter(|old| old.stamp == stamp) {
            return Ok(Known { stamp, content: old.content, xattrs: old.xattrs.clone(), at_rest: true });
        }
        self.dirty = true;
        Ok(Known { stamp, content: None, xattrs: xattrs()?, at_rest: stamp.at_rest(now) })
    }

    /// Gives what may be remembered: what was seen, on top of what was known of other names.
    fn to_cache(&self, others: Option<&CachedDir>) -> CachedDir {
        let seen =
            self.seen.iter().filter(|(_, k)| k.at_rest).map(|(name, k)| k.clone().cached(name.clone()));
        let Some(others) = others else { return CachedDir { entries: seen.collect() } };
        let mut entries = others.entries.clone();
        for stat in seen {
            put(&mut entries, stat);
        }
        CachedDir { entries }
    }
}

impl Known {
    fn cached(self, name: Vec<u8>) -> CachedStat {
        CachedStat { name, stamp: self.stamp, content: self.content, xattrs: self.xattrs }
    }
}

fn put(entries: &mut Vec<CachedStat>, stat: CachedStat) {
    match entries.binary_search_by(|e| e.name.cmp(&stat.name)) {
        Ok(at) => entries[at] = stat,
        Err(at) => entries.insert(at, stat),
    }
}
