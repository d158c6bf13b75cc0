//! What one build knows of the context's files: what was kept from earlier builds, and what it has seen to differ.
//!
//! A file that is as it was kept costs no memory here but one bit. Only what is new or changed is noted, directory by directory,
//! and written out together with what is still true of the rest.

use super::kept::{Kept, Writer, Xattrs};
use super::{Stamp, StatCache};
use crate::digest::ContentId;
use crate::tree::{Mtime, TreePath};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What is known of one name; its attributes are kept apart, since few files have any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) stamp: Stamp,
    pub(super) content: Option<ContentId>,
    /// A later change would show in the stamp.
    pub(super) at_rest: bool,
}

/// The names of one directory that are new or changed, sorted, in as few pieces of memory as can be.
#[derive(Debug, Clone, Default)]
pub(super) struct Fresh {
    names: Vec<u8>,
    entries: Vec<Slot>,
    devices: Vec<u64>,
    attrs: BTreeMap<Vec<u8>, Xattrs>,
    /// Every name of the directory has been looked at.
    complete: bool,
    /// Holds something that could be kept and is not.
    dirty: bool,
}

/// What is known of one name, packed: there may be a million.
#[derive(Debug, Clone, Copy)]
struct Slot {
    content: [u8; 32],
    size: u64,
    inode: u64,
    mtime_secs: i64,
    ctime_secs: i64,
    mtime_nanos: u32,
    ctime_nanos: u32,
    mode: u32,
    /// Number of the device in the list of the directory.
    device: u32,
    /// Where the name begins and how long it is.
    name: u32,
    name_len: u16,
    named: bool,
    at_rest: bool,
}

impl Slot {
    fn known(&self, devices: &[u64]) -> Known {
        let time = |secs, nanos| Mtime { secs, nanos };
        let stamp = Stamp {
            size: self.size,
            mtime: time(self.mtime_secs, self.mtime_nanos),
            ctime: time(self.ctime_secs, self.ctime_nanos),
            inode: (devices[self.device as usize], self.inode),
            mode: self.mode,
        };
        let content = self.named.then_some(ContentId(self.content));
        Known { stamp, content, at_rest: self.at_rest }
    }
}

/// All that is known in one build.
pub(super) struct Memos {
    cache: Option<Box<dyn StatCache>>,
    kept: OnceLock<Kept>,
    /// One bit for each kept entry: it is still true.
    true_still: OnceLock<Vec<AtomicU64>>,
    dirs: Mutex<HashMap<TreePath, Arc<Fresh>>>,
}

/// A directory, or a part of one, while it is listed.
pub(super) struct Listing<'m> {
    memos: &'m Memos,
    /// What an earlier look of this build has found.
    before: Option<Arc<Fresh>>,
    range: Range<usize>,
    at: usize,
    fresh: Fresh,
    now: Mtime,
}

impl Memos {
    pub(super) fn new(cache: Option<Box<dyn StatCache>>) -> Self {
        Self { cache, kept: OnceLock::new(), true_still: OnceLock::new(), dirs: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TreePath, Arc<Fresh>>> {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> &Kept {
        self.kept.get_or_init(|| {
            let bytes = self.cache.as_ref().and_then(|cache| cache.load());
            bytes.map_or_else(Kept::default, Kept::new)
        })
    }

    fn bits(&self) -> &[AtomicU64] {
        let words = self.kept().len().div_ceil(64);
        self.true_still.get_or_init(|| (0..words).map(|_| AtomicU64::new(0)).collect())
    }

    fn is_true_still(&self, number: usize) -> bool {
        self.bits()[number / 64].load(Ordering::Relaxed) & (1 << (number % 64)) != 0
    }

    /// Starts to list a directory, or a part of it that begins with `first`.
    pub(super) fn begin(&self, dir: &TreePath, first: &[u8]) -> Listing<'_> {
        let before = self.lock().get(dir).cloned();
        let range = self.kept().dir(dir.as_bytes());
        let at = self.kept().first_from(range.clone(), first);
        Listing { memos: self, before, range, at, fresh: Fresh::default(), now: super::walk::clock() }
    }

    /// Puts what the parts of a whole directory have found in place of what was known of it.
    pub(super) fn finish<'m>(&self, dir: &TreePath, parts: impl Iterator<Item = Listing<'m>>) {
        let mut whole = Fresh::joined(parts.map(|part| part.fresh).collect());
        let mut dirs = self.lock();
        whole.dirty |= dirs.get(dir).is_some_and(|before| before.dirty);
        dirs.insert(dir.clone(), Arc::new(whole));
    }

    /// Looks at one name, without the rest of its directory.
    pub(super) fn look(
        &self,
        dir: &TreePath,
        name: &[u8],
        stamp: Stamp,
        xattrs: impl FnOnce() -> io::Result<Xattrs>,
    ) -> io::Result<(Option<ContentId>, Xattrs)> {
        let mut listing = self.begin(dir, name);
        let found = listing.learn(name, stamp, xattrs)?;
        if let Some(known) = listing.fresh.get(name) {
            let mut dirs = self.lock();
            let memo = Arc::make_mut(dirs.entry(dir.clone()).or_default());
            memo.put(name, known, found.1.clone());
        }
        Ok(found)
    }

    /// Gives what is known of a name that this build has looked at.
    pub(super) fn get(&self, dir: &TreePath, name: &[u8]) -> Option<Known> {
        if let Some(known) = self.lock().get(dir).and_then(|fresh| fresh.get(name)) {
            return Some(known);
        }
        let number = self.kept().find(self.kept().dir(dir.as_bytes()), name)?;
        self.is_true_still(number).then(|| self.kept().known(number))
    }

    pub(super) fn learn_content(
        &self,
        dir: &TreePath,
        name: &[u8],
        stamp: &Stamp,
        content: ContentId,
        at_rest: bool,
    ) {
        let Some(known) = self.get(dir, name).filter(|known| known.stamp == *stamp) else { return };
        let known = Known { content: Some(content), at_rest: known.at_rest && at_rest, ..known };
        let attrs = || {
            let number = self.kept().find(self.kept().dir(dir.as_bytes()), name)?;
            self.kept().attrs(number)
        };
        let mut dirs = self.lock();
        let memo = Arc::make_mut(dirs.entry(dir.clone()).or_default());
        let attrs = match memo.get(name) {
            Some(_) => memo.attrs.get(name).cloned(),
            None => attrs(),
        };
        memo.put(name, known, attrs.unwrap_or_default());
    }

    /// Hands what is known to the cache, if there is something new.
    pub(super) fn store(&self) {
        let Some(cache) = &self.cache else { return };
        let mut dirs = self.lock();
        if !dirs.values().any(|fresh| fresh.dirty) {
            return;
        }
        self.written(&dirs).hand_out(|parts| cache.store(parts));
        for fresh in dirs.values_mut().filter(|fresh| fresh.dirty) {
            Arc::make_mut(fresh).dirty = false;
        }
    }

    /// Puts what was kept and is true, or has not been looked at, together with what is new.
    fn written(&self, dirs: &HashMap<TreePath, Arc<Fresh>>) -> Writer {
        let kept = self.kept();
        let mut all: BTreeMap<&[u8], (Range<usize>, Option<&Fresh>)> = BTreeMap::new();
        for number in 0..kept.dirs() {
            all.insert(kept.dir_path(number), (kept.dir_entries(number), None));
        }
        for (path, fresh) in dirs {
            all.entry(path.as_bytes()).or_insert((0..0, None)).1 = Some(fresh);
        }
        let fresh: usize = dirs.values().map(|fresh| fresh.entries.len()).sum();
        let mut writer = Writer::with_capacity(kept.len().max(fresh) + 64);
        // a directory that is not in the one above it any more is gone, and with it what is below
        let mut gone: HashSet<&[u8]> = HashSet::new();
        for (path, (range, fresh)) in all {
            if fresh.is_none()
                && !path.is_empty()
                && (gone.contains(parent(path)) || !self.is_listed(path, dirs))
            {
                gone.insert(path);
                continue;
            }
            writer.dir(path);
            let nothing = Fresh::default();
            let fresh = fresh.unwrap_or(&nothing);
            let still = |number: &usize| !fresh.complete || self.is_true_still(*number);
            let mut old = range.filter(still).peekable();
            for at in 0..fresh.entries.len() {
                let (name, known) = (fresh.name(at), fresh.known(at));
                while let Some(number) = old.next_if(|number| kept.name(*number) < name) {
                    copy(kept, number, &mut writer);
                }
                old.next_if(|number| kept.name(*number) == name);
                if known.at_rest {
                    let attrs = fresh.attrs.get(name);
                    writer.entry(name, &known, attrs.unwrap_or(&Vec::new()));
                }
            }
            for number in old {
                copy(kept, number, &mut writer);
            }
        }
        writer
    }

    /// Says whether a directory that this build has not looked into may still be there.
    fn is_listed(&self, path: &[u8], dirs: &HashMap<TreePath, Arc<Fresh>>) -> bool {
        let above = parent(path);
        let name = path[above.len()..].strip_prefix(b"/").unwrap_or(&path[above.len()..]);
        let Some(listed) = dirs.get(&TreePath::clean(above)).filter(|fresh| fresh.complete) else {
            return true;
        };
        let kept = self.kept().find(self.kept().dir(above), name);
        listed.get(name).is_some() || kept.is_some_and(|number| self.is_true_still(number))
    }
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|b| *b == b'/').map_or(&b""[..], |at| &path[..at])
}

fn copy(kept: &Kept, number: usize, writer: &mut Writer) {
    if let Some(attrs) = kept.attrs(number) {
        writer.entry(kept.name(number), &kept.known(number), &attrs);
    }
}

impl Listing<'_> {
    /// Notes one name of the directory and gives what is known of its bytes, and its attributes. Names come sorted.
    pub(super) fn learn(
        &mut self,
        name: &[u8],
        stamp: Stamp,
        xattrs: impl FnOnce() -> io::Result<Xattrs>,
    ) -> io::Result<(Option<ContentId>, Xattrs)> {
        if let Some(before) = &self.before
            && let Some(known) = before.get(name).filter(|known| known.stamp == stamp)
        {
            let attrs = before.attrs.get(name).cloned().unwrap_or_default();
            self.fresh.push(name, known, attrs.clone());
            return Ok((known.content, attrs));
        }
        let kept = self.memos.kept();
        while self.at < self.range.end && kept.name(self.at) < name {
            self.at += 1;
        }
        if self.at < self.range.end
            && kept.name(self.at) == name
            && kept.is_of(self.at, &stamp)
            && let Some(attrs) = kept.attrs(self.at)
        {
            self.memos.bits()[self.at / 64].fetch_or(1 << (self.at % 64), Ordering::Relaxed);
            return Ok((kept.content(self.at), attrs));
        }
        let known = Known { stamp, content: None, at_rest: stamp.at_rest(self.now) };
        let attrs = xattrs()?;
        self.fresh.dirty |= known.at_rest;
        self.fresh.push(name, known, attrs.clone());
        Ok((None, attrs))
    }
}

impl Fresh {
    fn name(&self, at: usize) -> &[u8] {
        let slot = &self.entries[at];
        &self.names[slot.name as usize..][..usize::from(slot.name_len)]
    }

    fn known(&self, at: usize) -> Known {
        self.entries[at].known(&self.devices)
    }

    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        let before = |slot: &Slot| &self.names[slot.name as usize..][..usize::from(slot.name_len)] < name;
        let at = self.entries.partition_point(before);
        if at < self.entries.len() && self.name(at) == name { Ok(at) } else { Err(at) }
    }

    fn get(&self, name: &[u8]) -> Option<Known> {
        self.find(name).ok().map(|at| self.known(at))
    }

    fn device(&mut self, device: u64) -> u32 {
        let known = self.devices.iter().position(|known| *known == device);
        let number = known.unwrap_or_else(|| {
            self.devices.push(device);
            self.devices.len() - 1
        });
        u32::try_from(number).expect("a directory has fewer files than that")
    }

    /// Packs what is known of a name, and notes the name.
    fn slot(&mut self, name: &[u8], known: Known) -> Slot {
        let start = u32::try_from(self.names.len()).expect("no directory with 4 GiB of names can be listed");
        self.names.extend_from_slice(name);
        let Known { stamp, content, at_rest } = known;
        Slot {
            content: content.map_or([0; 32], |id| id.0),
            size: stamp.size,
            inode: stamp.inode.1,
            mtime_secs: stamp.mtime.secs,
            ctime_secs: stamp.ctime.secs,
            mtime_nanos: stamp.mtime.nanos,
            ctime_nanos: stamp.ctime.nanos,
            mode: stamp.mode,
            device: self.device(stamp.inode.0),
            name: start,
            name_len: u16::try_from(name.len()).expect("the kernel's names have 255 bytes at most"),
            named: content.is_some(),
            at_rest,
        }
    }

    /// Adds a name that comes after all others.
    fn push(&mut self, name: &[u8], known: Known, attrs: Xattrs) {
        let slot = self.slot(name, known);
        self.entries.push(slot);
        if !attrs.is_empty() {
            self.attrs.insert(name.to_vec(), attrs);
        }
    }

    fn put(&mut self, name: &[u8], known: Known, attrs: Xattrs) {
        match self.find(name) {
            Ok(at) => {
                let place = (self.entries[at].name, self.names.len());
                let slot = self.slot(name, known);
                self.names.truncate(place.1);
                self.entries[at] = Slot { name: place.0, ..slot };
            }
            Err(at) => {
                let slot = self.slot(name, known);
                self.entries.insert(at, slot);
            }
        }
        self.attrs.remove(name);
        if !attrs.is_empty() {
            self.attrs.insert(name.to_vec(), attrs);
        }
        self.dirty |= known.at_rest;
    }

    /// Puts the parts of one directory together, in no more memory than they need.
    fn joined(parts: Vec<Fresh>) -> Self {
        let mut whole = Self { complete: true, ..Self::default() };
        whole.names.reserve_exact(parts.iter().map(|part| part.names.len()).sum());
        whole.entries.reserve_exact(parts.iter().map(|part| part.entries.len()).sum());
        for part in parts {
            whole.dirty |= part.dirty;
            for at in 0..part.entries.len() {
                let slot = whole.slot(part.name(at), part.known(at));
                whole.entries.push(slot);
            }
            whole.attrs.extend(part.attrs);
        }
        whole
    }
}
