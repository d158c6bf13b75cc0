//! What is written about a snapshot: sealed JSON, so that a cut-off or damaged record is no record.

use crate::digest::{CacheKey, ChainId, ContentId, DiffId, ResultId, hex};
use crate::oci::Descriptor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Names the format; a record of another version is no record, and what it describes is made again.
const VERSION: &str = "rbuild snapshot 1";

/// Which step made a result, for people and for gc; the cache room keeps its own records by key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StepRecord {
    /// The key that the step ran for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<CacheKey>,
    /// The instruction as the user sees it.
    #[serde(default)]
    pub instruction: String,
}

/// What is known of the tar of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LayerInfo {
    /// Digest of the uncompressed tar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<DiffId>,
    /// Its length in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tar_size: Option<u64>,
    /// A blob that holds it, compressed or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Descriptor>,
    /// What it was when it was compressed before, by the way in which it was; those blobs are not kept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub packed: BTreeMap<String, Descriptor>,
}

/// A snapshot as gc and the index see it.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotInfo {
    /// Names it.
    pub id: ResultId,
    /// What it stands on.
    pub parent: ResultId,
    /// What shows through it: it has to stay as long as this does.
    pub rest: Option<ResultId>,
    /// Bytes of its regular files.
    pub bytes: u64,
    /// The layer stack of a base image that it is the top of.
    pub chain: Option<ChainId>,
    /// The step that made it.
    pub step: StepRecord,
    /// Other names of it.
    pub aliases: Vec<ResultId>,
    /// When it was committed, seconds since the epoch by the clock of then; for people and for "oldest first", never for deciding what is valid.
    pub created: i64,
}

/// The record itself, the last file that is written into a snapshot's directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: ResultId,
    pub(super) parent: ResultId,
    /// What shows through where its own directory has nothing: a snapshot of the same layer, with files that the diffs of
    /// both have alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rest: Option<ResultId>,
    /// Of the diff.
    pub(super) content: ContentId,
    /// Of the diff's file.
    pub(super) tree_bytes: u64,
    /// Of the regular files.
    pub(super) bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) chain: Option<ChainId>,
    #[serde(default)]
    pub(super) step: StepRecord,
    pub(super) created: i64,
    /// Since nothing is synced, files that were written before a power cut may be cut off; under another boot id
    /// they are looked at once.
    pub(super) boot: String,
    /// Whether opaque directories are marked in `user.overlay.*`; `None` when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user_marks: Option<bool>,
}

/// Wraps a value with version, length and checksum.
pub(super) fn seal<T: Serialize>(body: &T) -> Vec<u8> {
    let body = serde_json::to_value(body).expect("plain data with text keys is JSON");
    let (length, checksum) = measure(&body);
    let sealed = json!({ "record": VERSION, "length": length, "checksum": checksum, "body": body });
    let mut bytes = serde_json::to_vec(&sealed).expect("a JSON value is JSON");
    bytes.push(b'\n');
    bytes
}

/// Unwraps what [`seal`] made; `None` when anything about it is wrong.
pub(super) fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut sealed: Value = serde_json::from_slice(bytes).ok()?;
    let body = sealed.get_mut("body")?.take();
    let (length, checksum) = measure(&body);
    let right = sealed.get("record")?.as_str()? == VERSION
        && sealed.get("length")?.as_u64()? == length
        && sealed.get("checksum")?.as_str()? == checksum;
    if right { serde_json::from_value(body).ok() } else { None }
}

/// The compact form is a function of the value, so it can be measured again after parsing.
fn measure(body: &Value) -> (u64, String) {
    let text = body.to_string();
    (text.len() as u64, hex(blake3::hash(text.as_bytes()).as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_or_is_none() {
        let step = StepRecord { key: Some(CacheKey([7; 32])), instruction: "RUN \"é\"\n".to_owned() };
        let sealed = seal(&step);
        assert_eq!(unseal::<StepRecord>(&sealed).unwrap(), step);
        for cut in 0..sealed.len() - 1 {
            assert_eq!(unseal::<StepRecord>(&sealed[..cut]), None, "cut at {cut}");
        }
        for at in 0..sealed.len() - 1 {
            let mut bad = sealed.clone();
            bad[at] ^= 2;
            assert_eq!(unseal::<StepRecord>(&bad), None, "byte {at}");
        }
    }
}
