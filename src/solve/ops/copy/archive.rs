//! ADD's archives: told by their bytes, never by their names.

use super::layout::{Below, Layout};
use super::select::Pick;
use super::{CopyError, Sources};
use crate::layer::{BLOCK, Limits, UnpackOptions, decoder, is_tar_header, unpack};
use crate::tree::{Diff, SourceNode, SourceTree, TreePath};
use std::io::{self, Read};
use std::path::Path;

/// Says whether a picked file is a tar, compressed or not. An empty archive is none, as for BuildKit.
pub(super) fn is_archive(tree: &dyn SourceTree, pick: &Pick) -> Result<bool, CopyError> {
    if !matches!(pick.entry.node, SourceNode::File { size } if size > 0) {
        return Ok(false);
    }
    let file = tree.open(&pick.root).map_err(CopyError::source(&pick.root))?;
    let mut block = [0; BLOCK];
    let read = decoder(Box::new(file)).and_then(|mut tar| tar.read_exact(&mut block));
    // damaged compression and short files are just no archives
    Ok(read.is_ok() && is_tar_header(&block))
}

/// Unpacks a picked archive into the empty directory `into`; `to` is where its entries will be in the image.
pub(super) fn unpack_into(
    sources: &Sources<'_>,
    pick: &Pick,
    layout: &Layout<'_>,
    to: &TreePath,
    into: &Path,
    limits: Limits,
    chown: bool,
) -> Result<Diff, CopyError> {
    let fail = |source| CopyError::Archive { path: pick.root.clone(), source };
    let tree = sources.tree(pick.origin);
    let tree = tree.ok_or_else(|| CopyError::source(&pick.root)(io::ErrorKind::NotFound.into()))?;
    let file = tree.open(&pick.root).map_err(CopyError::source(&pick.root))?;
    let before = file.try_clone().map_err(CopyError::source(&pick.root))?;
    let mut tar = decoder(Box::new(file)).map_err(CopyError::source(&pick.root))?;
    let parent = Below { layout, dir: to.clone() };
    let opts = UnpackOptions {
        limits,
        chown_ok: chown,
        plain_names: true,
        parent: Some(&parent),
        ..UnpackOptions::default()
    };
    let diff = unpack(&mut tar, into, &opts).map_err(fail)?;
    drop(tar);
    unchanged(tree, pick, before)?;
    Ok(diff)
}

/// Makes sure that what was unpacked is what the cache key names.
fn unchanged(tree: &dyn SourceTree, pick: &Pick, mut file: std::fs::File) -> Result<(), CopyError> {
    use std::io::Seek;
    let read = CopyError::source;
    if tree.still(&pick.root, &file).map_err(read(&pick.root))? {
        return Ok(());
    }
    file.rewind().map_err(read(&pick.root))?;
    let SourceNode::File { size } = pick.entry.node else { return Ok(()) };
    let found = crate::context::hash_file(&mut file, size).ok();
    if found == pick.content { Ok(()) } else { Err(CopyError::Changed { path: pick.root.clone() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::ops::copy::tests::{Memory, tar_of};
    use std::io::Write;

    fn check(bytes: &[u8]) -> bool {
        let tree = Memory::new().bytes("f", bytes);
        let op = crate::solve::ops::copy::tests::copy_op(&["f"], "/x/");
        let selection = crate::solve::ops::copy::select(&Sources::paths(&tree), &op).unwrap();
        is_archive(&tree, &selection.picks[0]).unwrap()
    }

    #[test]
    fn an_archive_is_known_by_its_bytes() {
        let tar = tar_of(&[("a", "x")]);
        assert!(check(&tar));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        assert!(check(&gzip.finish().unwrap()));
        assert!(check(&zstd::encode_all(&tar[..], 1).unwrap()));
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&tar).unwrap();
        assert!(check(&bzip2.finish().unwrap()));
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&tar).unwrap();
        assert!(check(&xz.finish().unwrap()));

        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"just text").unwrap();
        for no in [&b""[..], b"text", &[0; 1024], &[b'x'; 2048], &tar[..300], &gzip.finish().unwrap()] {
            assert!(!check(no));
        }
    }
}
