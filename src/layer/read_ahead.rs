use super::{LayerError, UnpackOptions};
use crate::digest::DiffId;
use crate::tree::Diff;
use std::io::{self, Read};
use std::path::Path;

/// Reads on another thread, some blocks ahead.
#[derive(Debug)]
pub struct ReadAhead;

/// What [`unpack_blob`] found.
#[derive(Debug)]
pub struct Unpacked {
    /// What the layer holds.
    pub diff: Diff,
    /// Digest of the uncompressed tar, to its very end.
    pub diff_id: DiffId,
    /// Length of the uncompressed tar in bytes.
    pub tar_size: u64,
}

/// Unpacks a layer blob, compressed or not; decompression, hashing and writing go on at the same time.
pub fn unpack_blob(
    blob: Box<dyn Read + Send>,
    into: &Path,
    opts: &UnpackOptions<'_>,
) -> Result<Unpacked, LayerError> {
    let _ = (blob, into, opts);
    Err(LayerError::Read(io::ErrorKind::Unsupported.into()))
}
