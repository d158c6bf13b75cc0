//! Several diffs folded into one: what `--squash` puts above the base and what a flattened root file system is.
//!
//! Pure: it only says which entry stays and which diff its bytes come from. Whiteouts collapse: what was added and
//! removed again is gone, what the base holds and was removed stays a whiteout. The base is looked at for exactly that;
//! folded onto nothing, the result has no whiteouts at all.

use crate::tree::{Diff, Entry, Meta, Node, TreePath};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

/// Diffs folded into one.
#[derive(Debug)]
pub struct Merged {
    /// The result.
    pub diff: Diff,
    origin: HashMap<TreePath, usize>,
}

impl Merged {
    /// Says which of the folded diffs holds the bytes of a regular file of the result, at the same path.
    pub fn origin(&self, path: &TreePath) -> Option<usize> {
        self.origin.get(path).copied()
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
        stack.apply(layer, diff, &below);
    }
    stack.finish(above)
}

/// Paths in order, each with its entry and the number of the diff that it came from.
#[derive(Default)]
struct Stack {
    entries: BTreeMap<TreePath, (usize, Entry)>,
}

impl Stack {
    fn apply(&mut self, layer: usize, diff: &Diff, base: &Stack) {
        for entry in diff.entries() {
            match &entry.node {
                Node::Whiteout => self.white_out(layer, entry, base),
                Node::Dir { opaque } => self.put_dir(layer, entry, *opaque, base),
                _ => {
                    self.drop_below(&entry.path);
                    self.entries.insert(entry.path.clone(), (layer, entry.clone()));
                }
            }
        }
    }

    fn white_out(&mut self, layer: usize, entry: &Entry, base: &Stack) {
        self.drop_below(&entry.path);
        self.entries.remove(&entry.path);
        if base.entries.contains_key(&entry.path) && !self.hidden(&entry.path) {
            let whiteout = Entry { path: entry.path.clone(), meta: Meta::default(), node: Node::Whiteout };
            self.entries.insert(entry.path.clone(), (layer, whiteout));
        }
    }

    fn put_dir(&mut self, layer: usize, entry: &Entry, opaque: bool, base: &Stack) {
        let replaces = match self.entries.get(&entry.path).map(|(_, e)| &e.node) {
            Some(Node::Dir { opaque: before }) => *before,
            // What stood here hid the base's directory, and so must the new one.
            Some(_) => true,
            None => false,
        };
        if opaque {
            self.drop_below(&entry.path);
        }
        let opaque = (opaque || replaces) && base.has_below(&entry.path) && !self.hidden(&entry.path);
        let entry = Entry { node: Node::Dir { opaque }, ..entry.clone() };
        self.entries.insert(entry.path.clone(), (layer, entry));
    }

    /// Whether something above hides the base here already.
    fn hidden(&self, path: &TreePath) -> bool {
        let above = std::iter::successors(path.parent(), TreePath::parent);
        above
            .filter_map(|p| self.entries.get(&p))
            .any(|(_, e)| !matches!(e.node, Node::Dir { opaque: false }))
    }

    fn has_below(&self, path: &TreePath) -> bool {
        let mut after = self.entries.range((Bound::Excluded(path), Bound::Unbounded));
        after.next().is_some_and(|(p, _)| p.strip_prefix(path).is_some())
    }

    fn drop_below(&mut self, path: &TreePath) {
        while self.has_below(path) {
            let mut after = self.entries.range((Bound::Excluded(path), Bound::Unbounded));
            let next = after.next().map(|(p, _)| p.clone());
            next.map(|p| self.entries.remove(&p));
        }
    }

    /// Names the files: when the first name of a hard linked file is gone, the next one takes the bytes over.
    fn finish(self, above: &[&Diff]) -> Merged {
        let mut first: HashMap<(usize, TreePath), TreePath> = HashMap::new();
        let mut origin = HashMap::new();
        let mut entries = Vec::with_capacity(self.entries.len());
        for (path, (layer, mut entry)) in self.entries {
            let target = match &entry.node {
                Node::File { .. } => path.clone(),
                Node::Hardlink { target } => target.clone(),
                _ => {
                    entries.push(entry);
                    continue;
                }
            };
            if let Some(before) = first.get(&(layer, target.clone())) {
                entry.node = Node::Hardlink { target: before.clone() };
            } else {
                // A diff that breaks its own rule (a link to nothing) keeps the entry as it is.
                if let Some(file) = above[layer].get(&target) {
                    entry.node = file.node.clone();
                }
                first.insert((layer, target), path.clone());
                origin.insert(path, layer);
            }
            entries.push(entry);
        }
        Merged { diff: Diff::new(entries), origin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::ContentId;
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
        diff.entries().iter().map(line).collect()
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
            for (entry, line) in diff.entries().iter().zip(show(diff)) {
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
            prop_assert!(!flat.entries().iter().any(hides));
            prop_assert_eq!(show(&flat), seen(&all));
        }
    }
}
