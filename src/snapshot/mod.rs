//! Snapshots: what steps made, kept by result id, stacked to root file systems, looked into without mounting.

mod prepared;
mod record;
mod view;

pub use prepared::Prepared;
pub use record::{LayerInfo, SnapshotInfo, StepRecord};
pub use view::{Resolved, View};

use crate::digest::{ChainId, DiffId, ResultId};
use crate::layer::LayerError;
use crate::oci::Descriptor;
use crate::store::{Store, StoreError};
use crate::tree::{Diff, TreePath};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

/// How writable trees are made on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotMode {
    /// overlayfs over the parent's layers.
    Overlay {
        /// Whether its marks are in `user.overlay.*`, as needed without the machine's root.
        userxattr: bool,
    },
    /// A full copy of the parent's tree.
    Copy,
}

/// What can go wrong with snapshots.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no such snapshot, or one below it is missing: what made it must be run again.
    #[error("snapshot {0} is not in the store")]
    Missing(ResultId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A tree could not be read or written.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A file in a tree could not be used.
    #[error("cannot {action} {path}: {source}")]
    Tree {
        /// What was tried, as a verb.
        action: &'static str,
        /// Where in the tree.
        path: TreePath,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// All snapshots of a store; clones share caches.
#[derive(Debug, Clone)]
pub struct Snapshots {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    mode: SnapshotMode,
}

/// A committed stack of layers, held against removal as long as a clone lives.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Names it.
    pub id: ResultId,
    /// The layers' directories, top first, each an overlay lower; empty for scratch.
    pub lowers: Vec<PathBuf>,
    /// The layers' result ids, top first; scratch itself is not listed.
    pub chain: Vec<ResultId>,
    layers: Snapshots,
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The result.
    pub id: ResultId,
    /// Whether it was there before: then the old snapshot stays and the new one is gone.
    pub existed: bool,
}

impl Snapshots {
    /// Opens the snapshots of a store with overlayfs, with `userxattr` unless we are the machine's own root.
    pub fn new(store: Store) -> Self {
        let userxattr = crate::sys::fsutil::in_user_namespace() || rustix::process::geteuid().as_raw() != 0;
        Self::new_with_mode(store, SnapshotMode::Overlay { userxattr })
    }

    /// Opens the snapshots of a store; the mode comes from a real test mount or from the user.
    pub fn new_with_mode(store: Store, mode: SnapshotMode) -> Self {
        Self { inner: Arc::new(Inner { store, mode }) }
    }

    /// Gives the mode.
    pub fn mode(&self) -> SnapshotMode {
        self.inner.mode
    }

    /// Says whether a snapshot is there, itself or as an alias; the empty one always is.
    pub fn has(&self, id: &ResultId) -> bool {
        *id == ResultId::scratch()
    }

    /// Gives a snapshot with its whole chain, held against removal.
    pub fn get(&self, id: &ResultId) -> Result<Snapshot, SnapshotError> {
        Err(SnapshotError::Missing(*id))
    }

    /// Makes a writable tree on top of `parent`.
    pub fn prepare(&self, parent: &ResultId) -> Result<Prepared, SnapshotError> {
        Err(SnapshotError::Missing(*parent))
    }

    /// Keeps what a step made; `diff` must describe the prepared upper directory.
    pub fn commit(
        &self,
        prepared: Prepared,
        diff: Diff,
        record: StepRecord,
    ) -> Result<Committed, SnapshotError> {
        let _ = (diff, record);
        Err(SnapshotError::Missing(prepared.parent.id))
    }

    /// Keeps a layer of an image under its chain's id.
    pub fn commit_base(
        &self,
        prepared: Prepared,
        chain: &ChainId,
        diff_id: &DiffId,
        diff: Diff,
        tar_size: Option<u64>,
        blob: Option<Descriptor>,
    ) -> Result<ResultId, SnapshotError> {
        let _ = (chain, diff_id, diff, tar_size, blob);
        Err(SnapshotError::Missing(prepared.parent.id))
    }

    /// Unpacks a layer of an image on top of `parent`, checks its diff ID and keeps it under its chain's id; does
    /// nothing when it is there.
    pub fn apply_layer(
        &self,
        parent: &ResultId,
        chain: &ChainId,
        diff_id: &DiffId,
        blob: Option<Descriptor>,
        bytes: Box<dyn Read + Send>,
    ) -> Result<ResultId, SnapshotError> {
        let _ = (chain, diff_id, blob, bytes);
        Err(SnapshotError::Missing(*parent))
    }

    /// Makes `from` another name of `to`.
    pub fn alias(&self, from: &ResultId, to: &ResultId) -> Result<(), SnapshotError> {
        let _ = from;
        Err(SnapshotError::Missing(*to))
    }

    /// Gives what the top layer alone changed.
    pub fn diff(&self, id: &ResultId) -> Result<Arc<Diff>, SnapshotError> {
        Err(SnapshotError::Missing(*id))
    }

    /// Gives what is known of the top layer's tar without clamped times.
    pub fn layer(&self, id: &ResultId) -> Result<LayerInfo, SnapshotError> {
        self.layer_at(id, None)
    }

    /// Gives what is known of the top layer's tar with times clamped to `epoch`.
    pub fn layer_at(&self, id: &ResultId, epoch: Option<i64>) -> Result<LayerInfo, SnapshotError> {
        let _ = epoch;
        Err(SnapshotError::Missing(*id))
    }

    /// Remembers what was found out about the top layer's tar.
    pub fn set_layer(
        &self,
        id: &ResultId,
        epoch: Option<i64>,
        info: &LayerInfo,
    ) -> Result<(), SnapshotError> {
        let _ = (epoch, info);
        Err(SnapshotError::Missing(*id))
    }

    /// Lists all valid snapshots with their records, for garbage collection and for rebuilding the index.
    pub fn list(&self) -> Result<Vec<SnapshotInfo>, SnapshotError> {
        Ok(Vec::new())
    }

    /// Removes a snapshot that nobody holds and nothing stands on; gives false when it is in use.
    pub fn remove(&self, id: &ResultId) -> Result<bool, SnapshotError> {
        Err(SnapshotError::Missing(*id))
    }
}

impl Snapshot {
    /// Gives the merged read-only view of the stack.
    pub fn view(&self) -> View {
        View { snapshot: self.clone() }
    }
}
