use crate::digest::{CacheKey, DiffId, ResultId};
use crate::oci::Descriptor;
use serde::{Deserialize, Serialize};

/// Which step made a result, for the index and for `explain`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StepRecord {
    /// The key that the result was found missing under.
    pub key: Option<CacheKey>,
    /// The instruction as the user sees it.
    #[serde(default)]
    pub instruction: String,
    /// The parts of the key, as the cache room writes them.
    #[serde(default)]
    pub parts: serde_json::Value,
}

/// What is known of the tar of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LayerInfo {
    /// Digest of the uncompressed tar.
    pub diff_id: Option<DiffId>,
    /// Its length in bytes.
    pub tar_size: Option<u64>,
    /// A blob that holds it, compressed or not.
    pub blob: Option<Descriptor>,
}

/// A snapshot as gc and the index see it.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotInfo {
    /// Names it.
    pub id: ResultId,
    /// What it stands on.
    pub parent: ResultId,
    /// Bytes of its regular files.
    pub bytes: u64,
    /// The steps that gave this result, any order; none for the layers of a base image.
    pub steps: Vec<StepRecord>,
    /// Other names of it.
    pub aliases: Vec<ResultId>,
    /// When it was committed, seconds since the epoch by the clock of then.
    pub created: i64,
}
