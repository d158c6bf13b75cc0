//! Several diffs folded into one: what `--squash` puts above the base and what a flattened root file system is.
//!
//! Pure: it only says which entry stays and which diff its bytes come from. Whiteouts collapse: what was added and
//! removed again is gone, what the base holds and was removed stays a whiteout. The base is looked at for exactly that;
//! folded onto nothing, the result has no whiteouts at all.

use crate::tree::{Diff, Meta, Node, TreePath, is_below, path_order};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

/// Diffs folded into one.
#[derive(Debug)]
pub struct Merged {
    /// The result.
    pub diff: Diff,
    /// For each of its entries the folded diff that has the bytes, if it has any.
    origins: Vec<Option<u32>>,
}

impl Merged {
    /// Says which of the folded diffs holds the bytes of a regular file of the result, at the same path.
    pub fn origin(&self, path: &TreePath) -> Option<usize> {
        self.origins[self.diff.find(path)?].map(|layer| layer as usize)
    }
}

/// Folds `above` (lowest first) into one diff on top of `base` (lowest first).
pub fn merge(base: &[&Diff], above: &[&Diff]) -> Merged {
    let mut below = Stack::default();
    for diff in base {
        below.apply(0, diff, &Stack::default());
    }
    let mut stack = Stack::default();
    for (layer, diff) in above.iter().enumerate() {
        stack.apply(u32::try_from(layer).expect("an image has fewer layers"), diff, &below);
    }
    stack.finish(above)
}

/// A path in a diff, in the order of paths.
#[derive(PartialEq, Eq)]
struct Key<'d>(&'d [u8]);

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        path_order(self.0, other.0)
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What stands at a path: as much of it as decides what becomes of others. The rest stays in the diff.
struct Slot {
    layer: u32,
    at: u32,
    what: What,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Whiteout,
    Dir { opaque: bool },
    Other,
}

/// Paths in order, each with the entry that it came from.
#[derive(Default)]
struct Stack<'d> {
    slots: BTreeMap<Key<'d>, Slot>,
}

impl<'d> Stack<'d> {
    fn apply(&mut self, layer: u32, diff: &'d Diff, base: &Stack<'_>) {
        for number in 0..diff.len() {
            let path = diff.path(number);
            let at = u32::try_from(number).expect("a layer has fewer entries");
            let slot = |what| Slot { layer, at, what };
            match diff.node(number) {
                Node::Whiteout => self.white_out(path, slot(What::Whiteout), base),
                Node::Dir { opaque } => self.put_dir(path, slot(What::Dir { opaque }), opaque, base),
                _ => {
                    self.drop_below(path);
                    self.slots.insert(Key(path), slot(What::Other));
                }
            }
        }
    }

    fn white_out(&mut self, path: &'d [u8], slot: Slot, base: &Stack<'_>) {
        self.drop_below(path);
        self.slots.remove(&Key(path));
        if base.slots.contains_key(&Key(path)) && !self.hidden(path) {
            self.slots.insert(Key(path), slot);
        }
    }

    fn put_dir(&mut self, path: &'d [u8], slot: Slot, opaque: bool, base: &Stack<'_>) {
        let replaces = match self.slots.get(&Key(path)).map(|slot| slot.what) {
            Some(What::Dir { opaque: before }) => before,
            // What stood here hid the base's directory, and so must the new one.
            Some(_) => true,
            None => false,
        };
        if opaque {
            self.drop_below(path);
        }
        let opaque = (opaque || replaces) && base.has_below(path) && !self.hidden(path);
        self.slots.insert(Key(path), Slot { what: What::Dir { opaque }, ..slot });
    }

    /// Whether something above hides the base here already.
    fn hidden(&self, path: &[u8]) -> bool {
        let above = std::iter::successors(above(path), |path| above(path));
        above
            .filter_map(|path| self.slots.get(&Key(path)))
            .any(|slot| slot.what != What::Dir { opaque: false })
    }

    fn next_below(&self, path: &'d [u8]) -> Option<&'d [u8]> {
        let mut after = self.slots.range((Bound::Excluded(Key(path)), Bound::Unbounded));
        after.next().map(|(key, _)| key.0).filter(|next| is_below(next, path))
    }

    fn has_below(&self, path: &'d [u8]) -> bool {
        self.next_below(path).is_some()
    }

    fn drop_below(&mut self, path: &'d [u8]) {
        while let Some(next) = self.next_below(path) {
            self.slots.remove(&Key(next));
        }
    }

    /// Names the files: when the first name of a hard linked file is gone, the next one takes the bytes over.
    fn finish(self, above: &[&Diff]) -> Merged {
        let linked: Vec<HashSet<TreePath>> = above.iter().map(|diff| link_targets(diff)).collect();
        let mut first: HashMap<(u32, TreePath), TreePath> = HashMap::new();
        let mut origins = Vec::with_capacity(self.slots.len());
        let entries = self.slots.into_iter().map(|(_, Slot { layer, at, what })| {
            let diff = above[layer as usize];
            let mut entry = diff.entry(at as usize);
            let mut origin = None;
            let target = match (&entry.node, what) {
                (_, What::Whiteout) => {
                    entry.meta = Meta::default();
                    None
                }
                (_, What::Dir { opaque }) => {
                    entry.node = Node::Dir { opaque };
                    None
                }
                (Node::File { .. }, _) => Some(entry.path.clone()),
                (Node::Hardlink { target }, _) => Some(target.clone()),
                _ => None,
            };
            if let Some(target) = target {
                if let Some(before) = first.get(&(layer, target.clone())) {
                    entry.node = Node::Hardlink { target: before.clone() };
                } else {
                    // A diff that breaks its own rule (a link to nothing) keeps the entry as it is.
                    if let Some(at) = diff.find(&target) {
                        entry.node = diff.node(at);
                    }
                    if linked[layer as usize].contains(&target) {
                        first.insert((layer, target), entry.path.clone());
                    }
                    origin = Some(layer);
                }
            }
            origins.push(origin);
            entry
        });
        let diff = entries.collect();
        Merged { diff, origins }
    }
}

/// Gives the files of a diff that have further names.
fn link_targets(diff: &Diff) -> HashSet<TreePath> {
    let target = |at| if let Node::Hardlink { target } = diff.node(at) { Some(target) } else { None };
    (0..diff.len()).filter_map(target).collect()
}

/// Gives the path above; `None` for the root.
fn above(path: &[u8]) -> Option<&[u8]> {
    let cut = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
    (!path.is_empty()).then(|| &path[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::ContentId;
    use crate::tree::Entry;
    use proptest::prelude::*;

    fn p(text: &str) -> TreePath {
        TreePath::clean(text.as_bytes())
    }

    /// `d NAME` directory, `o NAME` opaque directory, `w NAME` whiteout, `f NAME CONTENT` file, `h NAME TARGET` link.
    fn diff(lines: &[&str]) -> Diff {
        let entry = |line: &&str| {
            let words: Vec<&str> = line.split(' ').collect();
            let node = match words[0] {
                "d" => Node::Dir { opaque: false },
                "o" => Node::Dir { opaque: true },
                "w" => Node::Whiteout,
                "h" => Node::Hardlink { target: p(words[2]) },
                _ => Node::File { size: 1, content: ContentId([words[2].parse().unwrap(); 32]) },
            };
            Entry { path: p(words[1]), meta: Meta::default(), node }
        };
        Diff::new(lines.iter().map(entry).collect())
    }

    fn show(diff: &Diff) -> Vec<String> {
        let text = |path: &TreePath| String::from_utf8_lossy(path.as_bytes()).into_owned();
        let line = |e: &Entry| match &e.node {
            Node::Dir { opaque } => format!("{} {}", if *opaque { "o" } else { "d" }, text(&e.path)),
            Node::Whiteout => format!("w {}", text(&e.path)),
            Node::Hardlink { target } => format!("h {} {}", text(&e.path), text(target)),
            Node::File { content, .. } => format!("f {} {}", text(&e.path), content.0[0]),
            other => format!("{other:?}"),
        };
        diff.entries().map(|e| line(&e)).collect()
    }

    fn merged(base: &[&[&str]], above: &[&[&str]]) -> Vec<String> {
        let (base, above): (Vec<_>, Vec<_>) =
            (base.iter().map(|l| diff(l)).collect(), above.iter().map(|l| diff(l)).collect());
        show(&merge(&base.iter().collect::<Vec<_>>(), &above.iter().collect::<Vec<_>>()).diff)
    }

    #[test]
    fn whiteouts_collapse() {
        let base: &[&str] = &["d a", "f a/x 1", "f b 2"];
        for (above, want) in [
            // added and removed again: gone
            (&[&["f n 3"][..], &["w n"]][..], &[][..]),
            // of the base: stays
            (&[&["w b"]], &["w b"]),
            (&[&["f b 3"], &["w b"]], &["w b"]),
            // removed and made again: the new one, and nothing of the old directory below it
            (&[&["w b"], &["f b 4"]], &["f b 4"]),
            (&[&["w a"], &["d a"]], &["o a"]),
            (&[&["w a"], &["d a"], &["f a/y 3"]], &["o a", "f a/y 3"]),
            (&[&["f a 3"], &["d a"]], &["o a"]),
            // opaque hides what came before and stays opaque
            (&[&["d a", "f a/n 3"], &["o a", "f a/m 4"], &["d a"]], &["o a", "f a/m 4"]),
            // a whiteout below what hides the base already says nothing
            (&[&["o a"], &["d a", "w a/x"]], &["o a"]),
            (&[&["d a", "w a/x"], &["w a"]], &["w a"]),
            // opaque over nothing of the base
            (&[&["o n", "f n/x 3"]], &["d n", "f n/x 3"]),
        ] {
            assert_eq!(merged(&[base], above), want, "{above:?}");
        }
    }

    #[test]
    fn folded_onto_nothing_there_are_no_whiteouts() {
        let layers: &[&[&str]] = &[&["d a", "f a/x 1", "f b 2"], &["w b", "o a", "f a/y 3"], &["w nothing"]];
        assert_eq!(merged(&[], layers), ["d a", "f a/y 3"]);
    }

    #[test]
    fn the_next_name_takes_over_when_the_first_one_goes() {
        let layers: [Diff; 2] = [diff(&["f a 1", "h b a", "h c a"]), diff(&["f a 2"])];
        let merged = merge(&[], &[&layers[0], &layers[1]]);
        assert_eq!(show(&merged.diff), ["f a 2", "f b 1", "h c b"]);
        assert_eq!(
            [merged.origin(&p("a")), merged.origin(&p("b")), merged.origin(&p("c"))],
            [Some(1), Some(0), None]
        );
    }

    /// The slow obvious model: apply layers to a map of what a reader sees.
    fn seen(layers: &[&Diff]) -> Vec<String> {
        let mut tree: BTreeMap<TreePath, String> = BTreeMap::new();
        for diff in layers {
            let before: Vec<TreePath> = tree.keys().cloned().collect();
            for entry in diff.entries() {
                let keeps = matches!(entry.node, Node::Dir { opaque: false })
                    && tree.get(&entry.path).is_some_and(|t| t.starts_with('d'));
                for path in &before {
                    let under = path.strip_prefix(&entry.path).is_some();
                    if under && !keeps {
                        tree.remove(path);
                    }
                }
            }
            for (entry, line) in diff.entries().zip(show(diff)) {
                if !matches!(entry.node, Node::Whiteout) {
                    tree.insert(entry.path.clone(), line.replacen("o ", "d ", 1));
                }
            }
        }
        tree.into_values().collect()
    }

    /// A diff that a file system could have made: children stand in directories of the same diff.
    fn any_diff() -> impl Strategy<Value = Diff> {
        let name = prop::sample::select(vec!["a", "b", "a/x", "a/y", "a/x/z", "b/x", "b/x/z"]);
        let kind = prop::sample::select(vec!["d", "o", "w", "f"]);
        prop::collection::vec((name, kind, 1u8..200), 0..6).prop_map(|picks| {
            let mut lines: BTreeMap<TreePath, String> = BTreeMap::new();
            for (name, kind, number) in picks {
                let mut parents = std::iter::successors(p(name).parent(), TreePath::parent);
                let blocked = |lines: &BTreeMap<TreePath, String>, path: &TreePath| {
                    lines.get(path).is_some_and(|l| l.starts_with(['w', 'f']))
                };
                let below = lines.keys().any(|k| *k != p(name) && k.strip_prefix(&p(name)).is_some());
                if parents.any(|path| blocked(&lines, &path)) || (below && matches!(kind, "w" | "f")) {
                    continue;
                }
                let mut at = p(name).parent();
                while let Some(dir) = at.filter(|d| !d.is_root()) {
                    let text = String::from_utf8_lossy(dir.as_bytes()).into_owned();
                    lines.entry(dir.clone()).or_insert(format!("d {text}"));
                    at = dir.parent();
                }
                lines.insert(p(name), format!("{kind} {name} {number}"));
            }
            diff(&lines.values().map(String::as_str).collect::<Vec<_>>())
        })
    }

    proptest! {
        #[test]
        fn the_base_with_the_merged_layer_looks_as_the_whole_stack(
            base in prop::collection::vec(any_diff(), 0..3), above in prop::collection::vec(any_diff(), 0..5),
        ) {
            let (base, above): (Vec<&Diff>, Vec<&Diff>) = (base.iter().collect(), above.iter().collect());
            let squashed = merge(&base, &above).diff;
            let all: Vec<&Diff> = base.iter().chain(&above).copied().collect();
            let short: Vec<&Diff> = base.iter().copied().chain([&squashed]).collect();
            prop_assert_eq!(seen(&short), seen(&all));
            let flat = merge(&[], &all).diff;
            let hides = |e: &Entry| matches!(e.node, Node::Whiteout | Node::Dir { opaque: true });
            prop_assert!(!flat.entries().any(|e| hides(&e)));
            prop_assert_eq!(show(&flat), seen(&all));
        }
    }
}
