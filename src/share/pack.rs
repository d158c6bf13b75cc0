//! A tree as a compressed layer in a file, with all that a descriptor must say of it. Every byte is written once.

use super::ShareError;
use super::document::LayerEntry;
use crate::digest::DiffId;
use crate::layer::{Compression, Hashing, encoder, write_tar};
use crate::oci::{Descriptor, media_type};
use crate::tree::{Diff, TreePath};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Bytes that are written at once.
const BUFFER: usize = 128 << 10;

/// Writes the layer of a tree whose files `open` opens.
///
/// # Errors
/// A file of the tree cannot be read, or the new one not be written.
pub(super) fn pack(
    diff: &Diff,
    open: &dyn Fn(&TreePath) -> io::Result<File>,
    how: Compression,
    into: &Path,
) -> Result<LayerEntry, ShareError> {
    let fail = || ShareError::io("write", into);
    let file = File::create_new(into).map_err(fail())?;
    let blob = encoder(Hashing::new(BufWriter::with_capacity(BUFFER, file)), how).map_err(fail())?;
    let mut tar = Hashing::new(blob);
    write_tar(diff, open, None, &mut tar)?;
    let (blob, diff_id, tar_size) = tar.into_parts();
    let (mut file, digest, size) = blob.finish().map_err(fail())?.into_parts();
    file.flush().map_err(fail())?;
    let kind = match how {
        Compression::None => media_type::LAYER_TAR,
        Compression::Gzip(_) => media_type::LAYER_GZIP,
        Compression::Zstd(_) => media_type::LAYER_ZSTD,
    };
    let media_type = kind.to_owned();
    let blob = Descriptor { media_type, digest, size, annotations: Default::default(), platform: None };
    Ok(LayerEntry { blob, diff_id: DiffId(diff_id), tar_size: Some(tar_size) })
}
