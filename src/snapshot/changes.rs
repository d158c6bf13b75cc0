//! Compares what a process left in an upper directory with what was there before.
//!
//! overlayfs copies up more than was changed: every directory above a new file, a file that was opened for writing
//! and not written; and whether it marks a new directory as opaque depends on kernel and file system. What is left
//! here is what BuildKit's differ would put into the layer, so that the same change has the same id on every
//! machine: deletions name what was there, no directory is opaque, and what is as before is left out.

use crate::tree::{Diff, Entry, Meta, Node, SourceEntry, SourceNode, SourceTree, TreePath};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io;

/// Reduces a raw scan of an upper directory to the changes against `parent`.
pub(super) fn against(raw: &Diff, parent: &dyn SourceTree) -> io::Result<Diff> {
    let named = explicit(raw, parent)?;
    let mut kept = Vec::with_capacity(named.entries().len());
    // directories that something kept is in
    let mut filled: HashSet<TreePath> = HashSet::new();
    for entry in named.entries().rev() {
        let dir = matches!(entry.node, Node::Dir { .. });
        let needed = dir && filled.contains(&entry.path);
        if !needed && !changed(&as_file(&entry, &named), parent)? {
            continue;
        }
        filled.extend(entry.path.parent());
        kept.push(entry);
    }
    kept.reverse();
    Ok(Diff::new(relinked(kept, &named)))
}

/// Gives what a further name of a file is: that file.
fn as_file<'a>(entry: &'a Entry, named: &Diff) -> Cow<'a, Entry> {
    match target(entry).and_then(|target| named.get(target)) {
        Some(file) => Cow::Owned(Entry { path: entry.path.clone(), ..file }),
        None => Cow::Borrowed(entry),
    }
}

/// Of a file whose first name was left out, being as before, the first name that is left becomes the file: like
/// BuildKit's, a layer does not hold an unchanged file again for a new name of it.
fn relinked(kept: Vec<Entry>, named: &Diff) -> Vec<Entry> {
    let there: HashSet<TreePath> = kept.iter().map(|entry| entry.path.clone()).collect();
    let mut first: HashMap<TreePath, TreePath> = HashMap::new();
    let mut out = Vec::with_capacity(kept.len());
    for entry in kept {
        let Some(lost) = target(&entry).filter(|target| !there.contains(*target)).cloned() else {
            out.push(entry);
            continue;
        };
        match first.get(&lost) {
            Some(name) => out.push(Entry { node: Node::Hardlink { target: name.clone() }, ..entry }),
            None => {
                first.insert(lost, entry.path.clone());
                out.push(as_file(&entry, named).into_owned());
            }
        }
    }
    out
}

/// Puts deletions by name in the place of opaque directories.
fn explicit(raw: &Diff, parent: &dyn SourceTree) -> io::Result<Diff> {
    let mut out = Vec::with_capacity(raw.entries().len());
    // the opaque directory that we are in; what is below it is hidden as well, marked or not
    let mut hiding: Option<TreePath> = None;
    for entry in raw.entries() {
        if hiding.as_ref().is_some_and(|dir| entry.path.strip_prefix(dir).is_none()) {
            hiding = None;
        }
        let Node::Dir { opaque } = entry.node else {
            out.push(entry);
            continue;
        };
        if opaque && hiding.is_none() {
            hiding = Some(entry.path.clone());
        }
        out.push(Entry { node: Node::Dir { opaque: false }, ..entry.clone() });
        let was_dir = matches!(parent.stat(&entry.path)?, Some(SourceEntry { node: SourceNode::Dir, .. }));
        if hiding.is_none() || !was_dir {
            continue;
        }
        for (name, _) in parent.list(&entry.path)? {
            let path = entry.path.child(&name);
            if raw.find(&path).is_none() {
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
    let same_meta = owner && new.xattrs == old.xattrs && (dir || new.mtime == old.mtime);
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
