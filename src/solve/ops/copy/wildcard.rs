//! Sources with wildcards, matched name by name so that only directories on the way are listed.

use super::CopyError;
use super::resolve::{Place, resolve};
use crate::context::glob::{Dialect, Pattern, has_wildcard};
use crate::tree::{SourceNode, SourceTree, TreePath};

/// Finds the paths that a source argument means, in path order; links at their end are not followed yet. A text
/// without wildcards means itself. No match is an empty list, but the part before the first wildcard has to be there.
pub(super) fn expand(tree: &dyn SourceTree, source: &[u8]) -> Result<Vec<TreePath>, CopyError> {
    let source = TreePath::clean(source);
    let Some((prefix, patterns)) = cut(&source)? else { return Ok(vec![source]) };
    let place = resolve(&|p| tree.stat(p), prefix.as_bytes(), true).map_err(CopyError::source(&prefix))?;
    if !place.exists {
        return Err(super::select::not_found(tree, &prefix));
    }
    let out = below(tree, &place, &patterns)?;
    if out.is_empty() && !is_sent(tree, &place.path)? {
        return Err(CopyError::NothingSent { pattern: source, dir: prefix });
    }
    Ok(out)
}

/// The same for a path that need not be there.
fn matches(tree: &dyn SourceTree, source: &[u8]) -> Result<Vec<TreePath>, CopyError> {
    let source = TreePath::clean(source);
    let Some((prefix, patterns)) = cut(&source)? else { return Ok(vec![source]) };
    let place = resolve(&|p| tree.stat(p), prefix.as_bytes(), true).map_err(CopyError::source(&prefix))?;
    below(tree, &place, &patterns)
}

/// Cuts a source before its first name with wildcards; `None` when it has none.
fn cut(source: &TreePath) -> Result<Option<(TreePath, Vec<Pattern>)>, CopyError> {
    let parts: Vec<&[u8]> = source.components().collect();
    let Some(first) = parts.iter().position(|p| has_wildcard(p)) else { return Ok(None) };
    let patterns = parts[first..].iter().map(|p| Pattern::new(p, Dialect::Component));
    let patterns: Vec<Pattern> = patterns.collect::<Result<_, _>>()?;
    Ok(Some((TreePath::clean(&parts[..first].join(&b'/')), patterns)))
}

fn below(tree: &dyn SourceTree, place: &Place, patterns: &[Pattern]) -> Result<Vec<TreePath>, CopyError> {
    let mut out = Vec::new();
    if place.path.is_root() || place.entry.as_ref().is_some_and(|e| e.node == SourceNode::Dir) {
        descend(tree, &place.path, patterns, &mut out)?;
    }
    Ok(out)
}

/// Says whether a directory reaches BuildKit at all. Of a context it gets only what the instructions of a build name, so
/// a directory in which no pattern matches and of which nothing else is taken is not there for it, and the build fails.
fn is_sent(tree: &dyn SourceTree, dir: &TreePath) -> Result<bool, CopyError> {
    let (false, Some(asked)) = (dir.is_root(), tree.asked()) else { return Ok(true) };
    for path in asked {
        for found in matches(tree, path)? {
            let place =
                resolve(&|p| tree.stat(p), found.as_bytes(), true).map_err(CopyError::source(&found))?;
            let near = |p: &TreePath| p.strip_prefix(dir).is_some() || dir.strip_prefix(p).is_some();
            if place.exists && (near(&place.path) || near(&found)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn descend(
    tree: &dyn SourceTree,
    dir: &TreePath,
    patterns: &[Pattern],
    out: &mut Vec<TreePath>,
) -> Result<(), CopyError> {
    let Some((pattern, rest)) = patterns.split_first() else { return Ok(()) };
    for (name, entry) in tree.list(dir).map_err(CopyError::source(dir))? {
        if !pattern.matches(&name) {
            continue;
        }
        let path = dir.child(&name);
        match entry.node {
            _ if rest.is_empty() => out.push(path),
            SourceNode::Dir => descend(tree, &path, rest, out)?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::ops::copy::tests::Memory;

    #[test]
    fn wildcards_find_names_and_literals_mean_themselves() {
        let tree = Memory::new()
            .dir("g")
            .dir("x1/in")
            .dir("x2/in")
            .file("x1/in/one", "")
            .file("x2/in/two", "")
            .file("g/a.txt", "")
            .file("g/.dot.txt", "")
            .file("g/st*r.txt", "")
            .file("g/[z].txt", "")
            .file("g/back\\slash", "")
            .link("l", "g");
        for (pattern, want) in [
            ("g/?.txt", &["g/a.txt"][..]),
            ("g/*.txt", &["g/.dot.txt", "g/[z].txt", "g/a.txt", "g/st*r.txt"]),
            ("g/[^a]*.txt", &["g/.dot.txt", "g/[z].txt", "g/st*r.txt"]),
            ("g/st\\*r*", &["g/st*r.txt"]),
            ("g/[[]z].txt", &["g/[z].txt"]),
            ("/./x*/in/o*", &["x1/in/one"]),
            ("x*/../x1/*", &["x1/in"]),
            ("*/in", &["x1/in", "x2/in"]),
            ("l*", &["l"]),
            ("l/a*", &["g/a.txt"]),
            ("l*/a*", &[]),
            ("none*", &[]),
            ("g/a.txt/*", &[]),
            ("none/x", &["none/x"]),
            ("g/back\\slash", &["g/back\\slash"]),
        ] {
            let found = expand(&tree, pattern.as_bytes()).unwrap();
            let found: Vec<_> = found.iter().map(|p| std::str::from_utf8(p.as_bytes()).unwrap()).collect();
            assert_eq!(found, want, "{pattern}");
        }
        assert!(matches!(expand(&tree, b"none/*"), Err(CopyError::NotFound { .. })));
        assert!(matches!(expand(&tree, b"g/[a"), Err(CopyError::Pattern(_))));
    }
}
