//! Unpacks a tar that nobody vouches for.
//!
//! The archive is first applied to a map of paths in memory ([`tree`]): there names are cleaned, links on the way are
//! followed inside the root, duplicates and whiteouts are settled. The disk only ever sees real paths, made of names
//! that the map holds as directories, opened without following anything, and files that are created anew. So a link can mislead
//! neither check nor use: no system call follows one.
//!
//! Headers are read on the calling thread; small files are written and hashed by a few others ([`pool`]), large ones in place.

mod disk;
mod name;
mod pool;
mod tree;

use super::tar_read::{Item, Kind, TarReader};
use super::{LayerError, whiteout};
use crate::tree::{Diff, SourceTree};
use disk::Disk;
use name::Name;
use std::io::Read;
use std::path::Path;
use tree::Tree;

/// What an archive may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all regular files together.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
}

impl Default for Limits {
    /// 1 TiB and 2 million entries.
    fn default() -> Self {
        Self { bytes: 1 << 40, entries: 2_000_000 }
    }
}

/// How an archive is unpacked.
#[derive(Clone, Copy, Default)]
pub struct UnpackOptions<'a> {
    /// Whether overlayfs's marks go to `user.overlay.*` (rootless) instead of `trusted.overlay.*`.
    pub userxattr: bool,
    /// Bounds.
    pub limits: Limits,
    /// Whether owners can be set and devices made; the diff has them in any case.
    pub chown_ok: bool,
    /// Whether `.wh.` names are ordinary names: true for ADD of an archive, false for a layer.
    pub plain_names: bool,
    /// The tree below the layer: for hard links to its files, parents that the archive does not name, and links among them.
    pub parent: Option<&'a dyn SourceTree>,
}

/// Unpacks an uncompressed tar into the empty directory `into`, in overlayfs's form, and tells what it holds.
///
/// Reads up to the tar's end marker, not further. Of several entries with one name the last wins. The archive's entry for the
/// root itself must be a directory and is otherwise ignored, as in every builder.
///
/// # Errors
/// The archive is damaged, cut off, too large, or an entry would leave the root; the disk is full. What has
/// been unpacked by then is left in `into` for the caller to remove.
pub fn unpack(tar: &mut dyn Read, into: &Path, opts: &UnpackOptions<'_>) -> Result<Diff, LayerError> {
    let disk = Disk::open(into, opts)?;
    pool::with_writers(opts.chown_ok, |writers| {
        let mut unpacker = Unpacker {
            tree: Tree::new(disk, opts.parent, opts.plain_names),
            opts,
            reader: TarReader::new(tar),
            bytes: 0,
        };
        unpacker.run(writers)?;
        unpacker.tree.finish(writers)
    })
}

struct Unpacker<'a, 'r> {
    tree: Tree<'a>,
    opts: &'a UnpackOptions<'a>,
    reader: TarReader<'r>,
    bytes: u64,
}

impl Unpacker<'_, '_> {
    fn run(&mut self, writers: &mut pool::Writers<'_>) -> Result<(), LayerError> {
        let limits = self.opts.limits;
        let mut entries = 0;
        while let Some(item) = self.reader.next()? {
            entries += 1;
            if entries > limits.entries {
                return Err(LayerError::Limit { what: "entries", limit: limits.entries });
            }
            self.bytes = self.bytes.saturating_add(item.size);
            if self.bytes > limits.bytes {
                return Err(LayerError::Limit { what: "bytes", limit: limits.bytes });
            }
            self.entry(item, writers)?;
        }
        Ok(())
    }

    fn entry(&mut self, mut item: Item, writers: &mut pool::Writers<'_>) -> Result<(), LayerError> {
        item.xattrs.retain(|(name, value)| whiteout::sense(name, value) == whiteout::Sense::Keep);
        match name::read(&item, self.opts.plain_names)? {
            Name::Root if item.kind == Kind::Dir => Ok(()),
            Name::Root => Err(name::refuse(&item, "the root must be a directory")),
            Name::Ignored => Ok(()),
            Name::Whiteout { dir, name } => self.tree.whiteout(&item, &dir, &name, writers),
            Name::Opaque { dir } => self.tree.opaque(&item, &dir),
            Name::Path { dir, name } => self.tree.put(&item, &dir, &name, &mut self.reader, writers),
        }
    }
}

#[cfg(test)]
mod tests;
