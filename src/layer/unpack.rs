use super::LayerError;
use crate::tree::{Diff, SourceTree};
use std::io::Read;
use std::path::Path;

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
pub fn unpack(tar: &mut dyn Read, into: &Path, opts: &UnpackOptions<'_>) -> Result<Diff, LayerError> {
    let _ = (tar, into, opts);
    Err(LayerError::Read(std::io::ErrorKind::Unsupported.into()))
}
