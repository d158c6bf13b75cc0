//! What the name of an entry asks for, before any tree is looked at.

use crate::layer::tar_read::Item;
use crate::layer::{LayerError, whiteout};
use crate::tree::TreePath;

/// The meaning of a name. `dir` is clean but not resolved: links may be on it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// The root itself.
    Root,
    /// Something in a directory.
    Path { dir: TreePath, name: Vec<u8> },
    /// A deletion in a directory.
    Whiteout { dir: TreePath, name: Vec<u8> },
    /// A mark that a directory hides what is below.
    Opaque { dir: TreePath },
    /// aufs's own.
    Ignored,
}

/// Reads a name. Leading slashes are the root's. In a layer `..` may go up inside the name but not out of it; in an archive
/// of plain names the root is its own parent, as in a file system.
pub(super) fn read(item: &Item, plain: bool) -> Result<Name, LayerError> {
    let path = clean(item, plain)?;
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Name::Root) };
    let name = name.to_vec();
    if plain {
        return Ok(Name::Path { dir, name });
    }
    if path.as_bytes().starts_with(whiteout::AUFS) && name != whiteout::OPAQUE {
        return Ok(Name::Ignored);
    }
    if dir.components().any(|part| part.starts_with(whiteout::PREFIX)) {
        return Err(refuse(item, "a whiteout cannot hold anything"));
    }
    if name == whiteout::OPAQUE {
        return Ok(Name::Opaque { dir });
    }
    if name.starts_with(whiteout::AUFS) {
        return Ok(Name::Ignored);
    }
    match name.strip_prefix(whiteout::PREFIX) {
        None => Ok(Name::Path { dir, name }),
        Some(b"" | b"." | b"..") => Err(refuse(item, "the whiteout names nothing in its directory")),
        Some(victim) => Ok(Name::Whiteout { dir, name: victim.to_vec() }),
    }
}

/// Cleans a hard link's target in the same way.
pub(super) fn target(item: &Item) -> Result<TreePath, LayerError> {
    inside(&item.link).ok_or_else(|| refuse(item, "the target of the hard link is outside of the root"))
}

fn clean(item: &Item, clamp: bool) -> Result<TreePath, LayerError> {
    if item.name.is_empty() {
        return Err(refuse(item, "it has no name"));
    }
    if clamp {
        return Ok(TreePath::clean(&item.name));
    }
    inside(&item.name).ok_or_else(|| refuse(item, "its name leads out of the root"))
}

fn inside(path: &[u8]) -> Option<TreePath> {
    let mut depth = 0usize;
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => depth = depth.checked_sub(1)?,
            _ => depth += 1,
        }
    }
    Some(TreePath::clean(path))
}

pub(super) fn refuse(item: &Item, why: &str) -> LayerError {
    LayerError::Refused { name: item.name.clone(), why: why.to_owned() }
}
