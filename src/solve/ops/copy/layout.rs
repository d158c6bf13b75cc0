//! The result of a copy before it is written: a map from paths to what will stand there, on top of the base.
//!
//! The rules are those of BuildKit's file op (fsutil/copy): what is merged, what is replaced, whose metadata counts.
//! Everything later in an instruction sees what was placed before it, as if it had been written.

use super::chmod::Chmod;
use super::owner::Owner;
use super::placed::{Placed, Run};
use super::resolve::{Place, resolve};
use super::select::{Member, Pick};
use super::{CopyError, Origin};
use crate::digest::ContentId;
use crate::tree::{Diff, Meta, Mtime, Node, SourceEntry, SourceNode, SourceTree, TreePath};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Bound;
use std::sync::Arc;

/// What the copy makes of a path.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) meta: Meta,
    pub(super) kind: Kind,
    /// The base has nothing here that shows through: a new directory, or anything that is none.
    pub(super) fresh: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Dir,
    Symlink(Vec<u8>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
    File(Body),
}

#[derive(Debug, Clone)]
pub(super) struct Body {
    pub(super) size: u64,
    pub(super) content: ContentId,
    pub(super) from: From,
    /// Equal for names that shall stay names of one file.
    pub(super) group: Option<Group>,
    /// The metadata is the source's own, so the file itself may be linked.
    pub(super) as_is: bool,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone)]
pub(super) enum From {
    Source(Origin, TreePath),
    Bytes(Arc<[u8]>),
    /// In the directory of the unpacked archive with this number.
    Unpacked(usize, TreePath),
}

/// Number of the pick, and what tells its files apart.
pub(super) type Group = (usize, u64, u64);

/// How an instruction changes metadata.
pub(super) struct Change {
    pub(super) owner: Option<Owner>,
    pub(super) chmod: Option<Chmod>,
}

/// The base with what has been placed on it.
pub(super) struct Layout<'a> {
    base: &'a dyn SourceTree,
    placed: Placed<'a>,
    picks: usize,
}

impl<'a> Layout<'a> {
    pub(super) fn new(base: &'a dyn SourceTree, change: Change, now: Mtime) -> Self {
        let placed = Placed { made: BTreeMap::new(), runs: Vec::new(), change, now };
        Self { base, placed, picks: 0 }
    }

    /// Looks at a path as it will be.
    pub(super) fn stat(&self, path: &TreePath) -> io::Result<Option<SourceEntry>> {
        if let Some(made) = self.placed.get(path) {
            return Ok(Some(made.as_source()));
        }
        let mut above = path.parent();
        while let Some(dir) = above {
            match self.placed.get(&dir) {
                Some(made) if made.fresh => return Ok(None),
                Some(_) => break,
                None => above = dir.parent(),
            }
        }
        self.base.stat(path)
    }

    fn look(&self, path: &TreePath) -> Result<Option<SourceEntry>, CopyError> {
        self.stat(path).map_err(CopyError::base(path))
    }

    fn resolve(&self, path: &[u8]) -> Result<Place, CopyError> {
        resolve(&|p| self.stat(p), path, true).map_err(CopyError::base(&TreePath::clean(path)))
    }

    /// Says whether the destination of an op is a directory already.
    pub(super) fn is_dir(&self, path: &[u8]) -> Result<bool, CopyError> {
        let place = self.resolve(path)?;
        Ok(place.path.is_root() || place.entry.is_some_and(|e| e.node == SourceNode::Dir))
    }

    /// Copies one pick to the destination of the instruction; as a run if it has many files.
    pub(super) fn place(&mut self, pick: &'a Pick, dest: &str, as_run: bool) -> Result<(), CopyError> {
        self.picks += 1;
        let is_dir = pick.entry.node == SourceNode::Dir;
        let to = self.target(dest, (!is_dir).then_some(&pick.name))?;
        if !is_dir {
            let body = pick.inline.clone().map(From::Bytes);
            let body = body.unwrap_or_else(|| From::Source(pick.origin, pick.root.clone()));
            return self.put(to, &pick.entry, pick.content, body, &pick.root);
        }
        // the directory itself keeps what it has, but its time becomes that of the source
        if !to.is_root() {
            let entry = self.look(&to)?;
            let (meta, fresh) = match (&entry, self.placed.made.get(&to)) {
                (Some(SourceEntry { node: SourceNode::Dir, meta, .. }), made) => {
                    (meta.clone(), made.is_some_and(|m| m.fresh))
                }
                (Some(other), _) => return Err(not_a_directory(to, &pick.root, &other.node)),
                (None, _) => (Meta { mode: 0o755, ..Meta::default() }, true),
            };
            let meta = Meta { mtime: pick.entry.meta.mtime, ..meta };
            self.placed.made.insert(to.clone(), Made { meta, kind: Kind::Dir, fresh });
        }
        if as_run {
            return self.place_run(pick, to);
        }
        pick.members.iter().try_for_each(|member| self.place_member(pick, &member, &to))
    }

    /// Places what is below a picked directory: its directories singly, all else as a run.
    fn place_run(&mut self, pick: &'a Pick, to: TreePath) -> Result<(), CopyError> {
        for at in 0..pick.members.len() {
            if pick.members.is_dir(at) {
                self.place_member(pick, &pick.members.get(at), &to)?;
                continue;
            }
            let path = to.join(&TreePath::of_clean(pick.members.path(at)));
            self.refuse_dir(&path, &TreePath::of_clean(pick.members.whole_path(at)))?;
            self.placed.made.remove(&path);
        }
        self.placed.runs.push(Run { pick, to, number: self.picks });
        Ok(())
    }

    /// A directory is not replaced by anything else.
    fn refuse_dir(&self, to: &TreePath, source: &TreePath) -> Result<(), CopyError> {
        if self.look(to)?.is_some_and(|e| e.node == SourceNode::Dir) || to.is_root() {
            return Err(CopyError::IsADirectory { path: to.clone(), from: source.clone() });
        }
        Ok(())
    }

    fn place_member(&mut self, pick: &Pick, member: &Member, to: &TreePath) -> Result<(), CopyError> {
        let to = to.join(&member.path);
        let from = pick.root.join(&member.path);
        if member.entry.node != SourceNode::Dir {
            let body = From::Source(pick.origin, from.clone());
            return self.put(to, &member.entry, member.content, body, &from);
        }
        let mut meta = self.placed.changed(&member.entry);
        let mut fresh = true;
        match self.look(&to)? {
            None => {}
            Some(SourceEntry { node: SourceNode::Dir, meta: old, .. }) => {
                fresh = self.placed.made.get(&to).is_some_and(|m| m.fresh);
                if member.on_the_way {
                    meta = Meta { mode: member.entry.meta.mode, ..old };
                } else {
                    meta.xattrs = merged(old.xattrs, meta.xattrs);
                }
            }
            Some(other) => return Err(not_a_directory(to, &from, &other.node)),
        }
        self.placed.made.insert(to, Made { meta, kind: Kind::Dir, fresh });
        Ok(())
    }

    /// Places anything but a directory; what stands there is replaced unless it is a directory.
    fn put(
        &mut self,
        to: TreePath,
        entry: &SourceEntry,
        content: Option<ContentId>,
        from: From,
        source: &TreePath,
    ) -> Result<(), CopyError> {
        self.refuse_dir(&to, source)?;
        let made = self.placed.make(self.picks, entry, content, from);
        self.placed.made.insert(to, made);
        Ok(())
    }

    /// Unpacks an archive over the directory `to`: its entries replace whatever is there, directories are merged.
    pub(super) fn place_unpacked(&mut self, to: &TreePath, number: usize, diff: &Diff) {
        self.picks += 1;
        // what an archive replaces may be a directory with a part of a run in it
        self.placed.spread();
        // of several names for one file the first stands for all
        let mut groups: HashMap<TreePath, u64> = HashMap::new();
        for entry in diff.entries() {
            if let Node::Hardlink { target } = entry.node {
                let next = groups.len() as u64;
                groups.entry(target).or_insert(next);
            }
        }
        for entry in diff.entries().filter(|e| !e.path.is_root()) {
            let path = to.join(&entry.path);
            let mut meta = entry.meta.clone();
            if let Some(Owner { uid, gid }) = self.placed.change.owner {
                (meta.uid, meta.gid) = (uid, gid);
            }
            let body = |at: &TreePath, size: &u64, content: &ContentId| {
                let group = groups.get(at).map(|n| (self.picks, *n, 0));
                let from = From::Unpacked(number, at.clone());
                Kind::File(Body { size: *size, content: *content, from, group, as_is: false })
            };
            let kind = match &entry.node {
                Node::Dir { .. } => Kind::Dir,
                Node::File { size, content } => body(&entry.path, size, content),
                Node::Hardlink { target } => match diff.get(target).map(|e| e.node) {
                    Some(Node::File { size, content }) => body(target, &size, &content),
                    _ => continue,
                },
                Node::Symlink { target } => Kind::Symlink(target.clone()),
                Node::CharDevice { major, minor } => Kind::CharDevice(*major, *minor),
                Node::BlockDevice { major, minor } => Kind::BlockDevice(*major, *minor),
                Node::Fifo => Kind::Fifo,
                Node::Whiteout => continue,
            };
            let old_dir = self.stat(&path).ok().flatten().is_some_and(|e| e.node == SourceNode::Dir);
            let is_dir = matches!(kind, Kind::Dir);
            let fresh = !(is_dir && old_dir) || self.placed.made.get(&path).is_some_and(|m| m.fresh);
            if old_dir && !is_dir {
                self.forget_below(&path);
            }
            self.placed.made.insert(path, Made { meta, kind, fresh });
        }
    }

    fn forget_below(&mut self, dir: &TreePath) {
        let below = (Bound::Excluded(dir), Bound::Unbounded);
        let gone: Vec<TreePath> = self
            .placed
            .made
            .range::<TreePath, _>(below)
            .map(|(path, _)| path)
            .take_while(|path| path.strip_prefix(dir).is_some())
            .cloned()
            .collect();
        for path in gone {
            self.placed.made.remove(&path);
        }
    }

    /// Finds where a pick goes and makes the directories on the way. `name` is that of a file, `None` for a directory.
    pub(super) fn target(&mut self, dest: &str, name: Option<&Vec<u8>>) -> Result<TreePath, CopyError> {
        let dest = dest.as_bytes();
        let whole = dest.ends_with(b"/") || dest.ends_with(b"/.");
        let clean = TreePath::clean(dest);
        let ensure = if whole { clean.clone() } else { clean.parent().unwrap_or_default() };
        let ensured = self.resolve(ensure.as_bytes())?.path;
        self.make_dirs(&ensured)?;
        let place = self.resolve(clean.as_bytes())?;
        let is_dir = place.path.is_root() || place.entry.as_ref().is_some_and(|e| e.node == SourceNode::Dir);
        match name {
            Some(name) if is_dir => Ok(place.path.child(name)),
            Some(_) => {
                self.make_dirs(&place.path.parent().unwrap_or_default())?;
                Ok(place.path)
            }
            None if place.exists => Ok(place.path),
            None => {
                self.make_dirs(&place.path)?;
                Ok(place.path)
            }
        }
    }

    /// Makes the directory that an archive goes to. `--chmod` does not reach what comes of an archive, its destination
    /// included.
    pub(super) fn archive_target(&mut self, dest: &str) -> Result<TreePath, CopyError> {
        let chmod = self.placed.change.chmod.take();
        let to = self.target(dest, None).and_then(|to| self.make_dirs(&to).map(|()| to));
        self.placed.change.chmod = chmod;
        to
    }

    /// Makes a directory and what is missing above it; the path has no links.
    pub(super) fn make_dirs(&mut self, path: &TreePath) -> Result<(), CopyError> {
        let mut here = TreePath::root();
        for name in path.components() {
            here = here.child(name);
            match self.look(&here)?.map(|e| e.node) {
                Some(SourceNode::Dir) => {}
                Some(_) => return Err(CopyError::Blocked { path: path.clone(), blocked: here }),
                None => {
                    let Owner { uid, gid } = self.placed.change.owner.unwrap_or(Owner { uid: 0, gid: 0 });
                    let mode = Chmod::implied_dirs(self.placed.change.chmod.as_ref());
                    let meta = Meta { mode, uid, gid, mtime: self.placed.now, xattrs: Vec::new() };
                    self.placed.made.insert(here.clone(), Made { meta, kind: Kind::Dir, fresh: true });
                }
            }
        }
        Ok(())
    }

    /// Adds the base's directories on the way to what was placed, which an overlay's upper directory has to have as
    /// well. (What is in a run stands in directories that are placed singly.)
    pub(super) fn finish(mut self) -> Result<Placed<'a>, CopyError> {
        let mut missing: BTreeMap<TreePath, Made> = BTreeMap::new();
        for path in self.placed.made.keys() {
            let mut above = path.parent();
            while let Some(dir) = above.filter(|d| !d.is_root()) {
                if self.placed.made.contains_key(&dir) || missing.contains_key(&dir) {
                    break;
                }
                let entry = self.base.stat(&dir).map_err(CopyError::base(&dir))?;
                let meta = match entry {
                    Some(SourceEntry { node: SourceNode::Dir, meta, .. }) => meta,
                    _ => return Err(CopyError::Blocked { path: path.clone(), blocked: dir }),
                };
                above = dir.parent();
                missing.insert(dir, Made { meta, kind: Kind::Dir, fresh: false });
            }
        }
        self.placed.made.extend(missing);
        Ok(self.placed)
    }
}

/// Lets the unpacker see what is at and below the destination as it will be.
pub(super) struct Below<'l, 'a> {
    pub(super) layout: &'l Layout<'a>,
    pub(super) dir: TreePath,
}

impl SourceTree for Below<'_, '_> {
    fn stat(&self, path: &TreePath) -> io::Result<Option<SourceEntry>> {
        self.layout.stat(&self.dir.join(path))
    }

    fn list(&self, dir: &TreePath) -> io::Result<Vec<(Vec<u8>, SourceEntry)>> {
        self.layout.base.list(&self.dir.join(dir))
    }

    fn content(&self, path: &TreePath, entry: &SourceEntry) -> io::Result<ContentId> {
        self.layout.base.content(&self.dir.join(path), entry)
    }

    fn open(&self, path: &TreePath) -> io::Result<std::fs::File> {
        self.layout.base.open(&self.dir.join(path))
    }
}

impl Made {
    fn as_source(&self) -> SourceEntry {
        let node = match &self.kind {
            Kind::Dir => SourceNode::Dir,
            Kind::Symlink(target) => SourceNode::Symlink { target: target.clone() },
            Kind::CharDevice(major, minor) => SourceNode::CharDevice { major: *major, minor: *minor },
            Kind::BlockDevice(major, minor) => SourceNode::BlockDevice { major: *major, minor: *minor },
            Kind::Fifo => SourceNode::Fifo,
            Kind::File(body) => SourceNode::File { size: body.size },
        };
        SourceEntry { meta: self.meta.clone(), node, links: None }
    }
}

fn merged(old: Vec<(Vec<u8>, Vec<u8>)>, new: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all: BTreeMap<_, _> = old.into_iter().collect();
    all.extend(new);
    all.into_iter().collect()
}

fn not_a_directory(path: TreePath, from: &TreePath, node: &SourceNode) -> CopyError {
    let what = match node {
        SourceNode::Symlink { .. } => "symbolic link",
        SourceNode::File { .. } => "file",
        _ => "special file",
    };
    CopyError::NotADirectory { path, from: from.clone(), what }
}
