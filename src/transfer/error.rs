//! Why an image did not travel.

use crate::digest::Digest;
use crate::image::{DocumentError, ImageError};
use crate::interrupt::Stopped;
use crate::registry::RegistryError;
use crate::store::StoreError;

/// A pull or push that failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The registry, or the way there.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The images of the store.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A document of the registry.
    #[error("{name}: {source}")]
    Document {
        /// The image.
        name: String,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// The image is not for the platform that is wanted.
    #[error("{name} has no image for {wanted}, only for {has}")]
    Platform {
        /// The image.
        name: String,
        /// What is wanted.
        wanted: String,
        /// What there is.
        has: String,
    },
    /// What is under the name is no image.
    #[error("{name}: {why}")]
    NoImage {
        /// As asked for.
        name: String,
        /// What it is.
        why: String,
    },
    /// A layer did not arrive.
    #[error("{name}: layer {}: {source}", layer.short())]
    Layer {
        /// The image.
        name: String,
        /// The blob.
        layer: Digest,
        /// Why.
        #[source]
        source: Box<TransferError>,
    },
    /// Somebody asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl From<Stopped> for TransferError {
    fn from(_: Stopped) -> Self {
        Self::Interrupted
    }
}
