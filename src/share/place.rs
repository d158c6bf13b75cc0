//! What a place must do to hold a cache.

use super::document::Document;
use super::{ExportSpec, ShareError};
use crate::oci::Descriptor;
use crate::snapshot::LayerProvider;
use std::fs::File;
use std::path::Path;

/// A place to read from; also hands out its layers.
pub(super) trait CacheSource: LayerProvider {
    /// Names it for people.
    fn name(&self) -> String;

    /// Names it for [`LayerProvider::open`].
    fn place(&self) -> String;

    /// Whether every process finds the place again, see [`super::Lasting`].
    fn lasts(&self) -> bool;

    /// Reads what the cache knows; `None` when there is none yet.
    ///
    /// # Errors
    /// The place cannot be reached, or what is there is no cache.
    fn document(&self) -> Result<Option<Document>, ShareError>;
}

/// A place to write to.
pub(super) trait CacheTarget: Send + Sync {
    /// Says whether it holds a blob.
    fn has(&self, blob: &Descriptor) -> Result<bool, ShareError>;

    /// Takes a blob from a file whose bytes are those of the descriptor.
    fn put(&self, blob: &Descriptor, file: &Path) -> Result<(), ShareError>;

    /// Makes the document the one that readers find. Until then they find the one before.
    fn publish(&self, document: &Document, spec: &ExportSpec) -> Result<(), ShareError>;
}

/// Opens a file that is about to be sent.
pub(super) fn open(file: &Path) -> Result<File, ShareError> {
    File::open(file).map_err(ShareError::io("open", file))
}
