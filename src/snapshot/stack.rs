//! Layers on top of each other, looked into by their diffs alone: no disk, no mount.
//!
//! Each directory that is asked for gets a list of the layers that have a say in it, with the range of their entries
//! below it. So a lookup costs a few binary searches in the layers that matter there, however many there are in all.

use crate::tree::{Diff, Entry, Meta, Node, TreePath, is_below, path_order};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Directories that are remembered; beyond that all are forgotten.
const MAX_DIRS: usize = 20_000;

/// A diff and what lookups need beside it.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) diff: Arc<Diff>,
    /// Entries with further names, by index.
    targets: HashSet<usize>,
}

impl Layer {
    pub(super) fn new(diff: Arc<Diff>) -> Self {
        let link = |at| if let Node::Hardlink { target } = diff.node(at) { diff.find(&target) } else { None };
        let targets = (0..diff.len()).filter_map(link).collect();
        Self { diff, targets }
    }

    pub(super) fn entry(&self, at: usize) -> Entry {
        self.diff.entry(at)
    }

    /// Gives the entry that holds the content of a file or hard link, and whether it has several names.
    pub(super) fn body(&self, at: usize) -> (usize, bool) {
        match self.diff.node(at) {
            Node::Hardlink { target } => (self.diff.find(&target).unwrap_or(at), true),
            _ => (at, self.targets.contains(&at)),
        }
    }
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hit {
    /// An entry of a layer: number from the top, index in its diff.
    Entry(usize, usize),
    /// A directory that only follows from what is below it.
    Implied,
    /// The root.
    Root,
}

/// The layers that have a say in a directory, top first.
#[derive(Debug)]
struct Dir {
    parts: Vec<(usize, Range<usize>)>,
}

#[derive(Debug)]
pub(super) struct Stack {
    pub(super) layers: Vec<Arc<Layer>>,
    dirs: Mutex<HashMap<TreePath, Option<Arc<Dir>>>>,
}

impl Stack {
    /// Stacks layers, top first.
    pub(super) fn new(layers: Vec<Arc<Layer>>) -> Self {
        Self { layers, dirs: Mutex::default() }
    }

    /// Finds what stands at a path, links not followed.
    pub(super) fn find(&self, path: &TreePath) -> Option<Hit> {
        let Some(parent) = path.parent() else { return Some(Hit::Root) };
        self.child(&*self.dir(&parent)?, path)
    }

    /// Lists a directory by name; `None` when it is none.
    pub(super) fn list(&self, path: &TreePath) -> Option<BTreeMap<Vec<u8>, Hit>> {
        let dir = self.dir(path)?;
        // a name that is deleted above stays deleted below
        let mut names: BTreeMap<Vec<u8>, Option<Hit>> = BTreeMap::new();
        let skip = if path.is_root() { 0 } else { path.as_bytes().len() + 1 };
        for (layer, range) in &dir.parts {
            let diff = &self.layers[*layer].diff;
            let mut at = range.start;
            while at < range.end {
                let rest = &diff.path(at)[skip..];
                let name = rest.split(|b| *b == b'/').next().unwrap_or(rest);
                let child = path.child(name);
                let exact = name.len() == rest.len();
                let hit = match diff.node(at) {
                    _ if !exact => Some(Hit::Implied),
                    Node::Whiteout => None,
                    _ => Some(Hit::Entry(*layer, at)),
                };
                let seen = names.entry(name.to_vec()).or_insert(hit);
                if let (Some(Hit::Implied), Some(Hit::Entry(lower, index))) = (*seen, hit)
                    && matches!(self.layers[lower].diff.node(index), Node::Dir { .. })
                {
                    *seen = hit;
                }
                at = end_of(diff, at..range.end, &child);
            }
        }
        Some(names.into_iter().filter_map(|(name, hit)| Some((name, hit?))).collect())
    }

    fn child(&self, dir: &Dir, path: &TreePath) -> Option<Hit> {
        let mut implied = None;
        for (layer, range) in &dir.parts {
            let diff = &self.layers[*layer].diff;
            let at = start_of(diff, range.clone(), path);
            if at == range.end {
                continue;
            }
            if diff.path(at) == path.as_bytes() {
                return match (diff.node(at), implied) {
                    (Node::Whiteout, _) => implied,
                    (Node::Dir { .. }, _) | (_, None) => Some(Hit::Entry(*layer, at)),
                    (_, Some(_)) => implied,
                };
            }
            if is_below(diff.path(at), path.as_bytes()) {
                implied = Some(Hit::Implied);
            }
        }
        implied
    }

    /// Gives the directory at a path; `None` when there is none.
    fn dir(&self, path: &TreePath) -> Option<Arc<Dir>> {
        let mut dirs = self.dirs.lock().unwrap_or_else(PoisonError::into_inner);
        // the nearest one that is known, then down again
        let mut missing = Vec::new();
        let mut here = path.clone();
        let mut found = loop {
            if let Some(known) = dirs.get(&here) {
                break known.clone();
            }
            let Some(parent) = here.parent() else { break Some(Arc::new(self.root())) };
            missing.push(std::mem::replace(&mut here, parent));
        };
        if dirs.len() > MAX_DIRS {
            dirs.clear();
        }
        while let Some(path) = missing.pop() {
            found = found.and_then(|above| self.subdir(&above, &path)).map(Arc::new);
            dirs.insert(path, found.clone());
        }
        found
    }

    fn root(&self) -> Dir {
        let mut parts = Vec::with_capacity(self.layers.len());
        for (number, layer) in self.layers.iter().enumerate() {
            let diff = &layer.diff;
            let has_root = !diff.is_empty() && diff.path(0).is_empty();
            parts.push((number, usize::from(has_root)..diff.len()));
            if has_root && diff.node(0) == (Node::Dir { opaque: true }) {
                break;
            }
        }
        Dir { parts }
    }

    fn subdir(&self, above: &Dir, path: &TreePath) -> Option<Dir> {
        let mut parts = Vec::new();
        let mut exists = false;
        for (layer, range) in &above.parts {
            let diff = &self.layers[*layer].diff;
            let at = start_of(diff, range.clone(), path);
            if at == range.end {
                continue;
            }
            if diff.path(at) == path.as_bytes() {
                let Node::Dir { opaque } = diff.node(at) else { break };
                exists = true;
                parts.push((*layer, at + 1..end_of(diff, at..range.end, path)));
                if opaque {
                    break;
                }
            } else if is_below(diff.path(at), path.as_bytes()) {
                exists = true;
                parts.push((*layer, at..end_of(diff, at..range.end, path)));
            }
        }
        parts.retain(|(_, range)| !range.is_empty());
        exists.then_some(Dir { parts })
    }
}

/// What a directory has that no layer says anything about.
pub(super) fn implied_meta() -> Meta {
    Meta { mode: 0o755, ..Meta::default() }
}

fn start_of(diff: &Diff, range: Range<usize>, path: &TreePath) -> usize {
    diff.partition(range, |here| path_order(here, path.as_bytes()).is_lt())
}

fn end_of(diff: &Diff, range: Range<usize>, path: &TreePath) -> usize {
    let path = path.as_bytes();
    diff.partition(range, |here| here == path || is_below(here, path))
}
