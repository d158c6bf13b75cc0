//! Disk use: what takes how much, what nobody needs, and taking it away.
//!
//! An image, a running container and a running build keep what they use; all else is build cache and goes by last
//! use, the longest unused first. Who uses a snapshot is told by locks and by the list of images, never by a clock;
//! the clock only says in which order things go, so a wrong one can cost cache and nothing else.
//!
//! The order makes it safe beside builds, and after a kill at any point: a snapshot is locked, the list of images is
//! looked at once more, and it goes by one rename; then records whose result is gone (a build that still finds
//! one sees that the result is missing and runs the step), then memos, then bodies that nothing links. No file of a layer is
//! read or even looked at twice: its disk use is remembered beside the snapshot.
//!
//! This room knows snapshots, images and step records. It does not know Dockerfiles, containers or the command line.

mod budget;
mod mounts;
mod plan;
mod prune;
mod stock;
mod usage;

pub use budget::Keep;
pub use prune::{PruneRequest, Pruned, PrunedItem};
pub use usage::{CacheUse, ContainerUse, DiskUse, ImageUse, Sums, VolumeUse};

use crate::cache::Records;
use crate::image::{ImageError, Images};
use crate::snapshot::{SnapshotError, Snapshots};
use crate::store::{Store, StoreError};

/// Held alone by whoever removes.
const LOCK: &str = "gc";

/// What can go wrong while disk use is measured or things are removed.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The snapshots cannot be read or removed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The list of images cannot be read, so nobody knows what is needed.
    #[error("cannot find out what the images need: {0}")]
    Image(#[from] ImageError),
}

/// Measures and removes.
pub struct Collector {
    store: Store,
    snapshots: Snapshots,
    images: Images,
    records: Records,
}

impl Collector {
    /// Works on a store; `records` are its step records.
    pub fn new(store: Store, snapshots: Snapshots, images: Images, records: Records) -> Self {
        Self { store, snapshots, images, records }
    }
}
