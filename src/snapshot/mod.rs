//! Snapshots: what steps made, kept by result id, stacked to root file systems, looked into without mounting.
//!
//! ```text
//! snapshots/<result id>/
//!     fs/           the layer in overlayfs's form, or what in it differs from another's; never written again
//!     tree          the layer's diff; lookups, keys and tars come from it
//!     record.json   what it is; written last, sealed: without a valid one the directory is garbage and invisible
//!     layer*.json   what has been found out about its tar, one a time clamp
//!     usage         how much disk fs/ takes, once somebody has asked
//! snapshots/<result id> -> <another>      an alias
//! absent/<result id>                      what is known of one that is elsewhere
//! ```
//!
//! A step works in a directory in `tmp/`; commit writes diff and record into it and renames it. Two processes that
//! make the same result both succeed, and the first one's stays. Nothing is synced: after a power cut a snapshot may
//! be lost, and one that is cut off is found by its sizes and checksums and made again.
//!
//! In use means a shared lock on the top directory of a stack: garbage collection passes over what it cannot lock
//! alone, and over all that lies below. This room decides between overlayfs and copying; it mounts nothing itself.

mod absent;
mod audit;
mod changes;
mod collect;
mod commit;
mod copying;
mod dirs;
mod fetch;
mod load;
mod prepared;
mod record;
mod stack;
mod usage;
mod view;
mod writable;

pub use absent::{Absent, LayerProvider, Origin, Source};
pub use audit::{Flaw, FlawKind};
pub use collect::Roots;
pub use dirs::LayerDirs;
pub use prepared::Prepared;
pub use record::{LayerInfo, SnapshotInfo, StepRecord};
pub use usage::Usage;
pub use view::{Resolved, View};
pub use writable::Writable;

use crate::digest::ResultId;
use crate::interrupt::Stop;
use crate::layer::LayerError;
use crate::progress::EventSink;
use crate::store::{Lock, Store, StoreError};
use crate::sys::fsutil;
use crate::tree::TreePath;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

/// How writable trees are made on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotMode {
    /// overlayfs over the parent's layers.
    Overlay {
        /// Whether its marks are in `user.overlay.*`, as needed without the machine's root.
        userxattr: bool,
    },
    /// A full copy of the parent's tree for each process that runs in it.
    Copy,
}

impl SnapshotMode {
    /// Says where marks go; without overlayfs to the place that needs no privilege.
    pub fn userxattr(self) -> bool {
        !matches!(self, Self::Overlay { userxattr: false })
    }
}

/// What can go wrong with snapshots.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no such snapshot, or one below it is missing: what made it must be run again.
    #[error("snapshot {0} is not in the store")]
    Missing(ResultId),
    /// It is known and elsewhere, and cannot be had: what made it must be run again.
    #[error("a layer cannot be fetched: {why}")]
    Unavailable {
        /// Results of steps that cannot be had and must be made again; empty when it is a layer of an image.
        ids: Vec<ResultId>,
        /// Which blob, where, and what is wrong.
        why: String,
    },
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

impl SnapshotError {
    pub(crate) fn tree<E: Into<std::io::Error>>(
        action: &'static str,
        path: &TreePath,
    ) -> impl FnOnce(E) -> Self {
        let path = path.clone();
        move |e| Self::Tree { action, path, source: e.into() }
    }

    /// Says whether the disk or a quota is full.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Missing(_) | Self::Unavailable { .. } => false,
            Self::Store(e) => e.is_no_space(),
            Self::Layer(e) => e.is_no_space(),
            Self::Tree { source, .. } => {
                matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            }
        }
    }
}

/// All snapshots of a store; clones share caches.
#[derive(Debug, Clone)]
pub struct Snapshots {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    mode: SnapshotMode,
    boot: String,
    /// Records and diffs that have been read; both never change under one id.
    loaded: Mutex<HashMap<ResultId, Arc<load::Loaded>>>,
    /// What each known snapshot stands on, aliases followed.
    below: Mutex<HashMap<ResultId, load::Below>>,
    /// Locks that somebody in this process holds.
    held: Mutex<HashMap<ResultId, Weak<Lock>>>,
    /// What this process has found or made and not used yet; the tops only, since they hold what is below.
    pins: Mutex<HashMap<ResultId, Arc<Lock>>>,
    /// Bytes of files in what has been committed here and was not there before.
    grown: AtomicU64,
    /// What is known of snapshots that are elsewhere.
    absent: Mutex<HashMap<ResultId, Arc<Absent>>>,
    /// Fetches from places that are found in files.
    provider: OnceLock<Arc<dyn LayerProvider>>,
    /// Who hears of layers that are fetched, and the number of the last step that was shown.
    shown: OnceLock<(Arc<dyn EventSink>, Arc<AtomicUsize>)>,
    /// Ends fetches.
    stop: OnceLock<Stop>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshots")
            .field("store", &self.store)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// A committed stack of layers, held against removal as long as a clone lives.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Names it; never an alias.
    pub id: ResultId,
    /// The layers' directories, top first, each an overlay lower; empty for scratch. A layer may have two.
    pub lowers: Vec<PathBuf>,
    /// The layers' result ids, top first; scratch itself is not listed.
    pub chain: Vec<ResultId>,
    layers: Snapshots,
    _held: Option<Arc<Lock>>,
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
        let userxattr = fsutil::in_user_namespace() || !rustix::process::geteuid().is_root();
        Self::new_with_mode(store, SnapshotMode::Overlay { userxattr })
    }

    /// Opens the snapshots of a store; the mode comes from a real test mount or from the user.
    pub fn new_with_mode(store: Store, mode: SnapshotMode) -> Self {
        let inner = Inner {
            store,
            mode,
            boot: crate::sys::boot::id(),
            loaded: Mutex::default(),
            below: Mutex::default(),
            held: Mutex::default(),
            pins: Mutex::default(),
            grown: AtomicU64::new(0),
            absent: Mutex::default(),
            provider: OnceLock::new(),
            shown: OnceLock::new(),
            stop: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Gives the mode.
    pub fn mode(&self) -> SnapshotMode {
        self.inner.mode
    }

    /// Gives the store that they are in.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Gives the bytes of files in the snapshots that this process has added; 0 says that it has added none.
    pub fn grown(&self) -> u64 {
        self.inner.grown.load(Ordering::Relaxed)
    }

    fn dir(&self, id: &ResultId) -> PathBuf {
        self.inner.store.path("snapshots").join(id.to_string())
    }
}

impl Snapshot {
    /// Gives the merged read-only view of the stack.
    pub fn view(&self) -> View {
        View::new(self.clone())
    }
}

#[cfg(test)]
mod tests;
