//! A layer as a tree on disk, as a [`Diff`] and as a tar stream, and the ways between the three.
//!
//! On disk a layer is in overlayfs's own form (a deletion is a 0:0 character device or a marked file, a directory that hides
//! what is below has an xattr), so that it can be mounted as it is; in a `Diff` and in a tar it is in the form of
//! the OCI image-spec (layer.md). This room knows nothing of snapshots, stores and images. It reads trees by
//! descriptors only, and takes every archive for hostile.
//!
//! Why not the `tar` crate's reader: it unpacks by path strings and keeps no bound on what a header may claim; its
//! `Header` does the field encoding for both directions here.

pub mod compress;
mod gzip;
mod hash;
mod hashing;
mod read_ahead;
mod scan;
mod sniff;
mod tar_read;
mod tar_write;
mod unpack;
pub mod whiteout;

pub use compress::{Compression, Encoder, Format, decoder, encoder};
pub use hash::hash_file;
pub use hashing::Hashing;
pub use read_ahead::{Unpacked, unpack_blob};
pub use scan::{ScanOptions, scan};
pub use sniff::{BLOCK, begins_archive, is_tar_header};
pub use tar_write::{diff_id, write_tar};
pub use unpack::{Limits, UnpackOptions, unpack};

use crate::digest::DiffId;
use crate::tree::TreePath;
use std::io;

/// What can go wrong between a tree and a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A system call on a file of the tree failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// Where in the tree.
        path: TreePath,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The archive could not be read: a broken source, damaged compression, or cut off.
    #[error("cannot read the archive: {0}")]
    Read(#[source] io::Error),
    /// The archive could not be written.
    #[error("cannot write the archive: {0}")]
    Write(#[source] io::Error),
    /// The bytes are not a tar, or break its rules.
    #[error("the archive is not a valid tar at byte {offset}: {why}")]
    Format {
        /// Where the header begins, in bytes of the uncompressed stream.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// An entry asks for something that no archive may ask for.
    #[error("the archive's entry {:?} is refused: {why}", String::from_utf8_lossy(name))]
    Refused {
        /// Its name as the archive has it.
        name: Vec<u8>,
        /// The reason.
        why: String,
    },
    /// The archive is larger than the limits allow.
    #[error("the archive exceeds the limit of {limit} {what}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// A file changed while it was read.
    #[error("{path} changed while it was read")]
    Changed {
        /// Where in the tree.
        path: TreePath,
    },
    /// The uncompressed layer is another than promised.
    #[error("the layer's content is wrong: its diff ID is {found}, the image says {expected}")]
    DiffId {
        /// As the image's config says.
        expected: DiffId,
        /// As found.
        found: DiffId,
    },
}

impl LayerError {
    pub(crate) fn io<E: Into<io::Error>>(action: &'static str, path: &TreePath) -> impl FnOnce(E) -> Self {
        let path = path.clone();
        move |e| Self::Io { action, path, source: e.into() }
    }

    /// Says whether the disk or a quota is full.
    pub fn is_no_space(&self) -> bool {
        let (Self::Io { source, .. } | Self::Write(source)) = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

#[cfg(test)]
mod tests;
