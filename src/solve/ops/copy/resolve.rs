//! Follows links in a tree that can only be looked at, as if its root were `/`.

use crate::tree::{SourceEntry, SourceNode, TreePath};
use std::io;

/// As many links as Go's `fs.RootPath` follows in one path.
const MAX_LINKS: u32 = 255;

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::solve::ops) struct Place {
    /// Without links as far as it exists; what is missing is appended as written.
    pub(in crate::solve::ops) path: TreePath,
    /// What stands there; the root of a tree has no entry.
    pub(in crate::solve::ops) entry: Option<SourceEntry>,
    /// Whether something stands there.
    pub(in crate::solve::ops) exists: bool,
}

/// Walks `path`; a link is followed inside the tree, at the end too when `follow_last` says so. Nothing leads out.
pub(in crate::solve::ops) fn resolve(
    stat: &dyn Fn(&TreePath) -> io::Result<Option<SourceEntry>>,
    path: &[u8],
    follow_last: bool,
) -> io::Result<Place> {
    let mut ahead: Vec<Vec<u8>> = Vec::new();
    push(&mut ahead, path);
    let mut here = Place { path: TreePath::root(), entry: None, exists: true };
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == b".." {
            let path = here.path.parent().unwrap_or_default();
            let entry = if path.is_root() { None } else { stat(&path)? };
            here = Place { exists: path.is_root() || entry.is_some(), path, entry };
            continue;
        }
        let path = here.path.child(&name);
        let entry = if here.exists { stat(&path)? } else { None };
        match &entry {
            Some(SourceEntry { node: SourceNode::Symlink { target }, .. })
                if follow_last || !ahead.is_empty() =>
            {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::other("too many links"));
                }
                if target.starts_with(b"/") {
                    here = Place { path: TreePath::root(), entry: None, exists: true };
                }
                push(&mut ahead, target);
            }
            _ => here = Place { path, exists: entry.is_some(), entry },
        }
    }
    Ok(here)
}

fn push(ahead: &mut Vec<Vec<u8>>, path: &[u8]) {
    let parts = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".");
    ahead.extend(parts.rev().map(<[u8]>::to_vec));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::ops::copy::tests::Memory;
    use crate::tree::SourceTree;

    #[test]
    fn links_stay_inside() {
        let tree = Memory::new()
            .dir("a/b")
            .file("a/b/f", "f")
            .link("l", "a")
            .link("up", "../../etc")
            .link("abs", "/a/b")
            .link("a/rel", "../a/b")
            .link("loop", "loop")
            .link("dangling", "/made/later")
            .dir("etc")
            .file("etc/passwd", "");
        for (path, follow, want, exists) in [
            ("", true, "", true),
            ("/", true, "", true),
            ("l/b/f", true, "a/b/f", true),
            ("l", true, "a", true),
            ("l", false, "l", true),
            ("up/passwd", true, "etc/passwd", true),
            ("abs/f", false, "a/b/f", true),
            ("a/rel/f", true, "a/b/f", true),
            ("abs/../b", true, "a/b", true),
            ("../../a", true, "a", true),
            ("dangling/x", true, "made/later/x", false),
            ("dangling", false, "dangling", true),
            ("none/../a", true, "a", true),
            ("a/b/f/x", true, "a/b/f/x", false),
        ] {
            let place = resolve(&|p| tree.stat(p), path.as_bytes(), follow).unwrap();
            assert_eq!((place.path.as_bytes(), place.exists), (want.as_bytes(), exists), "{path}");
        }
        assert!(resolve(&|p| tree.stat(p), b"loop", true).is_err());
    }
}
