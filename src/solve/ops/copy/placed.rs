//! What a copy has placed: single paths, and runs, which are all files of a picked directory at once.
//!
//! What becomes of a file in a run follows from the selection, so a run takes no memory for each; a million files do not
//! fit otherwise. A single path hides one in a run, a later run an earlier one. Directories are always single.

use super::layout::{Body, Change, From, Group, Kind, Made};
use super::owner::Owner;
use super::select::Pick;
use crate::digest::ContentId;
use crate::tree::{Diff, Entry, Meta, Mtime, Node, SourceEntry, SourceNode, TreePath, path_order};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, btree_map};
use std::iter::Peekable;
use std::sync::Arc;

/// All that has been placed.
pub(super) struct Placed<'a> {
    pub(super) made: BTreeMap<TreePath, Made>,
    pub(super) runs: Vec<Run<'a>>,
    pub(super) change: Change,
    pub(super) now: Mtime,
}

/// All below a picked directory that is no directory.
pub(super) struct Run<'a> {
    pub(super) pick: &'a Pick,
    /// Where the picked directory's content goes.
    pub(super) to: TreePath,
    /// Of the pick, for telling hard links apart.
    pub(super) number: usize,
}

/// One placed path, short; [`Placed`] knows the rest.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item<'p> {
    One(&'p TreePath, &'p Made),
    InRun { run: u32, at: u32 },
}

impl Run<'_> {
    fn find(&self, path: &TreePath) -> Option<usize> {
        let below = path.strip_prefix(&self.to)?;
        self.pick.members.find(below.as_bytes()).filter(|at| !self.pick.members.is_dir(*at))
    }

    fn path(&self, at: usize) -> TreePath {
        self.to.join(&TreePath::of_clean(self.pick.members.path(at)))
    }

    /// Gives the first place from `at` on that is no directory.
    fn next(&self, at: usize) -> Option<usize> {
        (at..self.pick.members.len()).find(|at| !self.pick.members.is_dir(*at))
    }
}

impl Placed<'_> {
    /// Finds what was placed at a path.
    pub(super) fn get(&self, path: &TreePath) -> Option<Cow<'_, Made>> {
        self.find(path).map(|item| self.made(item))
    }

    /// Finds a path.
    pub(super) fn find(&self, path: &TreePath) -> Option<Item<'_>> {
        if let Some((path, made)) = self.made.get_key_value(path) {
            return Some(Item::One(path, made));
        }
        let found = |number: usize| Some(item(number as u32, self.runs[number].find(path)?));
        (0..self.runs.len()).rev().find_map(found)
    }

    /// Gives the path of an item.
    pub(super) fn path(&self, item: Item<'_>) -> TreePath {
        match item {
            Item::One(path, _) => path.clone(),
            Item::InRun { run, at } => self.runs[run as usize].path(at as usize),
        }
    }

    /// Gives what is made of an item.
    pub(super) fn made<'p>(&self, item: Item<'p>) -> Cow<'p, Made> {
        match item {
            Item::One(_, made) => Cow::Borrowed(made),
            Item::InRun { run, at } => {
                let Run { pick, number, .. } = &self.runs[run as usize];
                let member = pick.members.get(at as usize);
                let from = TreePath::of_clean(pick.members.whole_path(at as usize));
                let from = From::Source(pick.origin, from);
                Cow::Owned(self.make(*number, &member.entry, member.content, from))
            }
        }
    }

    /// Says what becomes of a file that is no directory; `number` is that of the pick.
    pub(super) fn make(
        &self,
        number: usize,
        entry: &SourceEntry,
        content: Option<ContentId>,
        from: From,
    ) -> Made {
        let mut meta = self.changed(entry);
        if matches!(from, From::Bytes(_)) {
            meta.mtime = self.now;
        }
        let as_is = meta == entry.meta;
        let kind = match &entry.node {
            SourceNode::File { size } => Kind::File(Body {
                size: *size,
                content: content.unwrap_or_else(|| blake3::hash(b"").into()),
                from,
                group: entry.links.map(|(a, b)| (number, a, b)),
                as_is,
            }),
            SourceNode::Socket => Kind::File(Body {
                size: 0,
                content: blake3::hash(b"").into(),
                from: From::Bytes(Arc::new([])),
                group: None,
                as_is: false,
            }),
            SourceNode::Symlink { target } => Kind::Symlink(target.clone()),
            SourceNode::CharDevice { major, minor } => Kind::CharDevice(*major, *minor),
            // as BuildKit makes it
            SourceNode::BlockDevice { major, minor } => Kind::CharDevice(*major, *minor),
            SourceNode::Fifo => Kind::Fifo,
            SourceNode::Dir => Kind::Dir,
        };
        Made { meta, kind, fresh: true }
    }

    /// Gives the metadata that the instruction makes of that of a source.
    pub(super) fn changed(&self, entry: &SourceEntry) -> Meta {
        let mut meta = entry.meta.clone();
        if let Some(Owner { uid, gid }) = self.change.owner {
            (meta.uid, meta.gid) = (uid, gid);
        }
        if let Some(chmod) = &self.change.chmod
            && !matches!(entry.node, SourceNode::Symlink { .. })
        {
            meta.mode = chmod.apply(meta.mode, entry.node == SourceNode::Dir);
        }
        meta
    }

    /// Makes single paths of what is in runs.
    pub(super) fn spread(&mut self) {
        for number in (0..self.runs.len()).rev() {
            let mut next = 0;
            while let Some(at) = self.runs[number].next(next) {
                let path = self.runs[number].path(at);
                if !self.made.contains_key(&path) {
                    let made = self.made(item(number as u32, at)).into_owned();
                    self.made.insert(path, made);
                }
                next = at + 1;
            }
        }
        self.runs.clear();
    }

    /// Lists all in path order.
    pub(super) fn items(&self) -> Items<'_> {
        let runs = self.runs.iter().zip(0..).filter_map(|(run, number)| Cursor::new(run, number)).collect();
        Items { ones: self.made.iter().peekable(), runs }
    }

    /// Gives the diff of the step; of several names for one file the first in path order is the file.
    pub(super) fn diff(&self) -> Diff {
        let mut groups: HashMap<Group, TreePath> = HashMap::new();
        let entries = self.items().map(|(path, item)| {
            let made = self.made(item).into_owned();
            let node = match made.kind {
                Kind::Dir => Node::Dir { opaque: false },
                Kind::Symlink(target) => Node::Symlink { target },
                Kind::CharDevice(major, minor) => Node::CharDevice { major, minor },
                Kind::BlockDevice(major, minor) => Node::BlockDevice { major, minor },
                Kind::Fifo => Node::Fifo,
                Kind::File(body) => match body.group.map(|g| groups.entry(g).or_insert_with(|| path.clone()))
                {
                    Some(first) if *first != path => Node::Hardlink { target: first.clone() },
                    _ => Node::File { size: body.size, content: body.content },
                },
            };
            Entry { path, meta: made.meta, node }
        });
        entries.collect()
    }
}

fn item<'p>(run: u32, at: usize) -> Item<'p> {
    Item::InRun { run, at: u32::try_from(at).expect("a directory has fewer files") }
}

/// Merges single paths and runs.
pub(super) struct Items<'p> {
    ones: Peekable<btree_map::Iter<'p, TreePath, Made>>,
    runs: Vec<Cursor<'p>>,
}

/// The place in a run, with its path.
struct Cursor<'p> {
    run: &'p Run<'p>,
    number: u32,
    at: usize,
    path: TreePath,
}

impl<'p> Cursor<'p> {
    fn new(run: &'p Run<'p>, number: u32) -> Option<Self> {
        let at = run.next(0)?;
        Some(Self { run, number, at, path: run.path(at) })
    }

    /// Goes to the next file; false at the end.
    fn go_on(&mut self) -> bool {
        let Some(at) = self.run.next(self.at + 1) else { return false };
        (self.at, self.path) = (at, self.run.path(at));
        true
    }
}

impl<'p> Iterator for Items<'p> {
    type Item = (TreePath, Item<'p>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut least = self.ones.peek().map(|(path, made)| ((*path).clone(), Item::One(path, made)));
        // the later run wins, and a single path over all
        for cursor in self.runs.iter().rev() {
            let before = |(path, _): &(TreePath, _)| path_order(cursor.path.as_bytes(), path.as_bytes());
            if least.as_ref().is_none_or(|least| before(least) == Ordering::Less) {
                least = Some((cursor.path.clone(), item(cursor.number, cursor.at)));
            }
        }
        let (path, _) = least.as_ref()?;
        self.ones.next_if(|(one, _)| *one == path);
        self.runs.retain_mut(|cursor| cursor.path != *path || cursor.go_on());
        least
    }
}
