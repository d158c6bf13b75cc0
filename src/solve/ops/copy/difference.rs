//! What has to be written of a copy's result when an earlier result of the same instruction may show through it.
//!
//! Pure but for looks at the base. The answer is "all of it" whenever two layers on top of each other would not show exactly
//! what one would: hard links (names in different directories cannot share an inode), a directory where the earlier
//! result has something else (it would hide the base's directory), or something gone that the base has, too (a mark of
//! its deletion would hide that as well).

use crate::tree::{Diff, Node, SourceTree, TreePath, path_order};
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Below so many entries all of them are written: that takes no longer than finding out what differs.
pub(in crate::solve::ops) const FEW: usize = 512;
/// At most one entry in so many may differ; beyond that the next result had better show through this one.
const PART: usize = 8;

/// What differs.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// New or changed, with all directories on the way.
    pub(super) paths: BTreeSet<TreePath>,
    /// Gone; each a path whose directory is among `paths`.
    pub(super) gone: Vec<TreePath>,
}

/// Compares what a copy makes with an earlier result; `None` says to write all of it.
pub(super) fn difference(new: &Diff, old: &Diff, base: &dyn SourceTree) -> Option<Difference> {
    let most = new.len() / PART;
    if new.len() < FEW || odd(new) || odd(old) {
        return None;
    }
    let mut found = Difference::default();
    let (mut at, mut there) = (0, 0);
    while at < new.len() || there < old.len() {
        let order = match (at < new.len(), there < old.len()) {
            (true, false) => Ordering::Less,
            (false, _) => Ordering::Greater,
            (true, true) => path_order(new.path(at), old.path(there)),
        };
        if order.is_le() {
            let same = order.is_eq() && new.same(at, old, there);
            if !same {
                let is_dir = |diff: &Diff, at| matches!(diff.node(at), Node::Dir { .. });
                if is_dir(new, at) && order.is_eq() && !is_dir(old, there) {
                    return None;
                }
                found.add(new, TreePath::of_clean(new.path(at)))?;
            }
            at += 1;
        } else {
            found.lose(new, &TreePath::of_clean(old.path(there)), base)?;
        }
        if order.is_ge() {
            there += 1;
        }
        if found.paths.len() + found.gone.len() > most {
            return None;
        }
    }
    Some(found)
}

/// Says whether a layer has something that two directories cannot show as one does.
fn odd(diff: &Diff) -> bool {
    let odd = |node| matches!(node, Node::Hardlink { .. } | Node::Whiteout | Node::Dir { opaque: true });
    (0..diff.len()).any(|at| odd(diff.node(at)))
}

impl Difference {
    /// Takes a path with all directories above it.
    fn add(&mut self, new: &Diff, path: TreePath) -> Option<()> {
        let mut next = Some(path);
        while let Some(path) = next.filter(|path| !path.is_root()) {
            new.find(&path)?;
            next = path.parent();
            if !self.paths.insert(path) {
                break;
            }
        }
        Some(())
    }

    /// Marks a path as gone, unless that follows from what becomes of its directory.
    fn lose(&mut self, new: &Diff, path: &TreePath, base: &dyn SourceTree) -> Option<()> {
        let parent = path.parent().unwrap_or_default();
        let is_dir = |at| matches!(new.node(at), Node::Dir { .. });
        if !parent.is_root() && !new.find(&parent).is_some_and(is_dir) {
            return Some(());
        }
        if base.stat(path).ok()?.is_some() {
            return None;
        }
        self.add(new, parent)?;
        self.gone.push(path.clone());
        Some(())
    }
}
