//! Compares what a process left in an upper directory with what was there before.
//!
//! overlayfs copies up more than was changed: every directory above a new file, a file that was opened for writing
//! and not written; and whether it marks a new directory as opaque depends on kernel and file system. What is left
//! here is what BuildKit's differ would put into the layer, so that the same change has the same id on every
//! machine: deletions name what was there, no directory is opaque, and what is as before is left out.

use crate::tree::{Diff, Entry, Meta, Node, SourceEntry, SourceNode, SourceTree, TreePath};
use std::collections::HashSet;
use std::io;

/// Reduces a raw scan of an upper directory to the changes against `parent`.
pub(super) fn against(raw: &Diff, parent: &dyn SourceTree) -> io::Result<Diff> {
    let named = explicit(raw, parent)?;
    let linked: HashSet<&TreePath> = named.entries().iter().filter_map(target).collect();
    let mut kept = Vec::with_capacity(named.entries().len());
    // directories that something kept is in
    let mut filled: HashSet<TreePath> = HashSet::new();
    for entry in named.entries().iter().rev() {
        let dir = matches!(entry.node, Node::Dir { .. });
        let needed = dir && filled.contains(&entry.path) || linked.contains(&entry.path);
        if !needed && !changed(entry, parent)? {
            continue;
        }
        filled.extend(entry.path.parent());
        kept.push(entry.clone());
    }
    Ok(Diff::new(kept))
}

/// Puts deletions by name in the place of opaque directories.
fn explicit(raw: &Diff, parent: &dyn SourceTree) -> io::Result<Diff> {
    let mut out = Vec::with_capacity(raw.entries().len());
    // the opaque directory that we are in; what is below it is hidden as well, marked or not
    let mut hiding: Option<&TreePath> = None;
    for entry in raw.entries() {
        if hiding.is_some_and(|dir| entry.path.strip_prefix(dir).is_none()) {
            hiding = None;
        }
        let Node::Dir { opaque } = entry.node else {
            out.push(entry.clone());
            continue;
        };
        if opaque && hiding.is_none() {
            hiding = Some(&entry.path);
        }
        out.push(Entry { node: Node::Dir { opaque: false }, ..entry.clone() });
        let was_dir = matches!(parent.stat(&entry.path)?, Some(SourceEntry { node: SourceNode::Dir, .. }));
        if hiding.is_none() || !was_dir {
            continue;
        }
        for (name, _) in parent.list(&entry.path)? {
            let path = entry.path.child(&name);
            if raw.get(&path).is_none() {
                out.push(Entry { path, meta: Meta::default(), node: Node::Whiteout });
            }
        }
    }
    Ok(Diff::new(out))
}

fn target(entry: &Entry) -> Option<&TreePath> {
    if let Node::Hardlink { target } = &entry.node { Some(target) } else { None }
}

/// Says whether an entry is another than what the parent has. A directory's time does not count; a file's does.
fn changed(entry: &Entry, parent: &dyn SourceTree) -> io::Result<bool> {
    let before = parent.stat(&entry.path)?;
    let Some(before) = before else { return Ok(!matches!(entry.node, Node::Whiteout)) };
    let dir = matches!(entry.node, Node::Dir { .. });
    let (new, old) = (&entry.meta, &before.meta);
    let owner = (new.mode, new.uid, new.gid) == (old.mode, old.uid, old.gid);
    // a name that had others is a file of its own now
    let same_meta =
        owner && new.xattrs == old.xattrs && (dir || new.mtime == old.mtime) && before.links.is_none();
    if !same_meta {
        return Ok(true);
    }
    let same = match (&entry.node, &before.node) {
        (Node::Dir { .. }, SourceNode::Dir) | (Node::Fifo, SourceNode::Fifo) => true,
        (Node::File { size, content }, SourceNode::File { size: was }) => {
            size == was && parent.content(&entry.path, &before)? == *content
        }
        (Node::Symlink { target }, SourceNode::Symlink { target: was }) => target == was,
        (Node::CharDevice { major, minor }, SourceNode::CharDevice { major: a, minor: b })
        | (Node::BlockDevice { major, minor }, SourceNode::BlockDevice { major: a, minor: b }) => {
            (major, minor) == (a, b)
        }
        _ => false,
    };
    Ok(!same)
}
