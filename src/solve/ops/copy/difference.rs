//! What has to be written of a copy's result when an earlier result of the same instruction may show through it.
//!
//! Pure but for looks at the base. The answer is "all of it" whenever two layers on top of each other would not show exactly
//! what one would: hard links (names in different directories cannot share an inode), a directory where the earlier
//! result has something else (it would hide the base's directory), or something gone that the base has, too (a mark of
//! its deletion would hide that as well).

use super::layout::Made;
use crate::tree::{Diff, Entry, Node, SourceTree, TreePath};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Below so many entries all of them are written: that takes no longer than finding out what differs.
pub(in crate::solve::ops) const FEW: usize = 512;
/// At most one entry in so many may differ; beyond that the next result had better show through this one.
const PART: usize = 8;

/// What differs.
#[derive(Debug, Default)]
pub(super) struct Difference<'m> {
    /// New or changed, with all directories on the way.
    pub(super) paths: BTreeSet<&'m TreePath>,
    /// Gone; each a path whose directory is among `paths`.
    pub(super) gone: Vec<&'m TreePath>,
}

/// Compares what a copy makes, as `made` and as `new`, with an earlier result; `None` says to write all of it.
pub(super) fn difference<'m>(
    made: &'m BTreeMap<TreePath, Made>,
    new: &Diff,
    old: &'m Diff,
    base: &dyn SourceTree,
) -> Option<Difference<'m>> {
    let most = new.entries().len() / PART;
    if new.entries().len() < FEW || odd(new) || odd(old) {
        return None;
    }
    let mut found = Difference::default();
    let (mut new_left, mut old_left) = (new.entries(), old.entries());
    loop {
        let order = match (new_left.first(), old_left.first()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(new), Some(old)) => new.path.cmp(&old.path),
        };
        if order.is_le() {
            let entry = &new_left[0];
            let same = order.is_eq() && *entry == old_left[0];
            let was_dir = order.is_lt() || matches!(old_left[0].node, Node::Dir { .. });
            if matches!(entry.node, Node::Dir { .. }) && !was_dir {
                return None;
            }
            if !same {
                found.add(made, &entry.path)?;
            }
            new_left = &new_left[1..];
        } else {
            found.lose(made, new, &old_left[0], base)?;
        }
        if order.is_ge() {
            old_left = &old_left[1..];
        }
        if found.paths.len() + found.gone.len() > most {
            return None;
        }
    }
    Some(found)
}

/// Says whether a layer has something that two directories cannot show as one does.
fn odd(diff: &Diff) -> bool {
    let odd = |entry: &Entry| {
        matches!(entry.node, Node::Hardlink { .. } | Node::Whiteout | Node::Dir { opaque: true })
    };
    diff.entries().iter().any(odd)
}

impl<'m> Difference<'m> {
    /// Takes a path with all directories above it.
    fn add(&mut self, made: &'m BTreeMap<TreePath, Made>, path: &TreePath) -> Option<()> {
        let mut next = Some(path.clone());
        while let Some(path) = next.filter(|path| !path.is_root()) {
            let (known, _) = made.get_key_value(&path)?;
            if !self.paths.insert(known) {
                break;
            }
            next = path.parent();
        }
        Some(())
    }

    /// Marks a path as gone, unless that follows from what becomes of its directory.
    fn lose(
        &mut self,
        made: &'m BTreeMap<TreePath, Made>,
        new: &Diff,
        entry: &'m Entry,
        base: &dyn SourceTree,
    ) -> Option<()> {
        let parent = entry.path.parent().unwrap_or_default();
        let is_dir = |entry: &Entry| matches!(entry.node, Node::Dir { .. });
        if !parent.is_root() && !new.get(&parent).is_some_and(is_dir) {
            return Some(());
        }
        if base.stat(&entry.path).ok()?.is_some() {
            return None;
        }
        self.add(made, &parent)?;
        self.gone.push(&entry.path);
        Some(())
    }
}
