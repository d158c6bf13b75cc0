//! What can go wrong with a shared cache.

use crate::layer::LayerError;
use crate::registry::RegistryError;
use crate::snapshot::SnapshotError;
use crate::store::StoreError;
use std::io;
use std::path::{Path, PathBuf};

/// A shared cache that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file of a local cache, or one in `tmp/`.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A bucket.
    #[error("{object}: {why}")]
    Bucket {
        /// Which object, without signature.
        object: String,
        /// What the server said.
        why: String,
    },
    /// What is there is not a cache that can be read.
    #[error("{0}")]
    Wrong(String),
    /// A layer cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A layer cannot be written.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ShareError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
