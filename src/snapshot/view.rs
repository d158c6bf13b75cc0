//! The merged tree of a snapshot as a source of files.
//!
//! What stands where comes from the kept diffs, so owners, devices and content ids are right even where the disk could
//! not take them (one user id only); the disk is asked for bytes alone.

use super::stack::{Hit, Stack, implied_meta};
use super::{Snapshot, SnapshotError};
use crate::digest::ContentId;
use crate::tree::{Node, SourceEntry, SourceNode, SourceTree, TreePath};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

/// Links that are followed for one path, as docker's and containerd's path scoping does.
const MAX_LINKS: usize = 255;

/// The merged tree of a snapshot, looked into without a mount. Clones share what has been found.
#[derive(Debug, Clone)]
pub struct View {
    snapshot: Snapshot,
    stack: Arc<OnceLock<Result<Stack, String>>>,
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The path without links, as far as it exists; the missing rest is appended as written.
    pub path: TreePath,
    /// What stands there; `None` when it is missing.
    pub entry: Option<SourceEntry>,
}

impl View {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, stack: Arc::default() }
    }

    /// Gives the snapshot that is looked into.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The diffs are read when the first question comes.
    fn stack(&self) -> io::Result<&Stack> {
        let load = || -> Result<Stack, SnapshotError> {
            let layers: Result<Vec<_>, _> =
                self.snapshot.chain.iter().map(|id| self.snapshot.layers.loaded_layer(id)).collect();
            Ok(Stack::new(layers?))
        };
        let stack = self.stack.get_or_init(|| load().map_err(|e| e.to_string()));
        stack.as_ref().map_err(|e| io::Error::other(e.clone()))
    }

    /// Follows a path inside the root, as `openat2` with `RESOLVE_IN_ROOT` would; a missing tail is allowed.
    ///
    /// A link as the last component is followed if `follow_last` says so or a slash comes after it.
    ///
    /// # Errors
    /// Something on the way is neither directory nor link (ENOTDIR), or there are too many links (ELOOP).
    pub fn resolve(&self, path: &[u8], follow_last: bool) -> io::Result<Resolved> {
        let follow_last = follow_last || matches!(path, [.., b'/'] | [.., b'/', b'.']);
        let split = |text: &[u8]| -> Vec<Vec<u8>> {
            let parts = text.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
            parts.map(<[u8]>::to_vec).collect()
        };
        let mut todo: VecDeque<Vec<u8>> = split(path).into();
        let mut here = Resolved { path: TreePath::root(), entry: self.stat(&TreePath::root())? };
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            if part == b".." {
                let path = here.path.parent().unwrap_or_default();
                here = Resolved { entry: self.stat(&path)?, path };
                continue;
            }
            match &here.entry {
                None | Some(SourceEntry { node: SourceNode::Dir, .. }) => {}
                Some(_) => return Err(Errno::NOTDIR.into()),
            }
            let path = here.path.child(&part);
            let entry = if here.entry.is_some() { self.stat(&path)? } else { None };
            let target = match &entry {
                Some(SourceEntry { node: SourceNode::Symlink { target }, .. })
                    if follow_last || !todo.is_empty() =>
                {
                    target
                }
                _ => {
                    here = Resolved { path, entry };
                    continue;
                }
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            if target.starts_with(b"/") {
                here = Resolved { path: TreePath::root(), entry: self.stat(&TreePath::root())? };
            }
            for part in split(target).into_iter().rev() {
                todo.push_front(part);
            }
        }
        Ok(here)
    }

    /// Reads a regular file of at most `limit` bytes; links are followed inside the root.
    ///
    /// # Errors
    /// Nothing is there (not found), it is no regular file, or it is too large.
    pub fn read(&self, path: &TreePath, limit: u64) -> io::Result<Vec<u8>> {
        let found = self.resolve(path.as_bytes(), true)?;
        let size = match found.entry.map(|entry| entry.node) {
            None => return Err(io::ErrorKind::NotFound.into()),
            Some(SourceNode::File { size }) => size,
            Some(_) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        };
        if size > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        self.open(&found.path)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn describe(&self, stack: &Stack, hit: Hit) -> SourceEntry {
        let Hit::Entry(layer, at) = hit else {
            return SourceEntry { meta: implied_meta(), node: SourceNode::Dir, links: None };
        };
        let number = layer;
        let layer = &stack.layers[layer];
        let (body, linked) = layer.body(at);
        let entry = layer.entry(body);
        let node = match entry.node {
            Node::File { size, .. } => SourceNode::File { size },
            Node::Symlink { target } => SourceNode::Symlink { target },
            Node::CharDevice { major, minor } => SourceNode::CharDevice { major, minor },
            Node::BlockDevice { major, minor } => SourceNode::BlockDevice { major, minor },
            Node::Fifo => SourceNode::Fifo,
            // a hard link without its target is refused when a diff is read, a whiteout is never a hit
            Node::Dir { .. } | Node::Hardlink { .. } | Node::Whiteout => SourceNode::Dir,
        };
        let links = linked.then_some((number as u64, body as u64));
        SourceEntry { meta: entry.meta, node, links }
    }
}

impl SourceTree for View {
    fn stat(&self, path: &TreePath) -> io::Result<Option<SourceEntry>> {
        let stack = self.stack()?;
        Ok(stack.find(path).map(|hit| self.describe(stack, hit)))
    }

    fn list(&self, dir: &TreePath) -> io::Result<Vec<(Vec<u8>, SourceEntry)>> {
        let stack = self.stack()?;
        let Some(names) = stack.list(dir) else {
            let error = if stack.find(dir).is_some() { Errno::NOTDIR } else { Errno::NOENT };
            return Err(error.into());
        };
        Ok(names.into_iter().map(|(name, hit)| (name, self.describe(stack, hit))).collect())
    }

    fn content(&self, path: &TreePath, _entry: &SourceEntry) -> io::Result<ContentId> {
        let stack = self.stack()?;
        let Some(Hit::Entry(layer, at)) = stack.find(path) else { return Err(Errno::NOENT.into()) };
        let layer = &stack.layers[layer];
        match layer.diff.node(layer.body(at).0) {
            Node::File { content, .. } => Ok(content),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    fn open(&self, path: &TreePath) -> io::Result<File> {
        let Some(Hit::Entry(layer, _)) = self.stack()?.find(path) else { return Err(Errno::NOENT.into()) };
        let dirs = self.snapshot.layers.layer_dirs(&self.snapshot.chain[layer]);
        dirs.map_err(io::Error::other)?.open(path)
    }

    fn immutable(&self) -> bool {
        true
    }
}
