//! What a shared cache says: which key gave which result, and where the layers of results are.
//!
//! Pure. The bytes come from elsewhere: their length is bounded before they are parsed, all ids and digests are
//! checked by their types, and numbers mean nothing until a layer has proved them.

use super::ShareError;
use crate::digest::{CacheKey, ContentId, DiffId, ResultId};
use crate::oci::Descriptor;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// Longest document in bytes.
pub(super) const LIMIT: u64 = 64 << 20;
/// The form that is written; a reader refuses others.
const VERSION: u32 = 1;

/// All that a cache knows. No text of a Dockerfile is in it: values of arguments may stand there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Document {
    pub(super) version: u32,
    /// What steps gave, parents before what stands on them.
    #[serde(default)]
    pub(super) results: Vec<ResultEntry>,
    /// Which key leads to which result.
    #[serde(default)]
    pub(super) steps: Vec<StepEntry>,
    /// What selections take from results.
    #[serde(default)]
    pub(super) memos: Vec<MemoEntry>,
    /// Cache mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) mounts: Vec<MountEntry>,
}

/// One result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ResultEntry {
    pub(super) id: ResultId,
    /// The state that its step ran on.
    pub(super) parent: ResultId,
    /// Seconds since the epoch.
    pub(super) created: i64,
    /// Its files; absent where the cache does not hold them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) layer: Option<LayerEntry>,
    /// Its tar with times clamped to an epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) clamped: Vec<ClampedEntry>,
}

/// A layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerEntry {
    /// The compressed bytes.
    pub(super) blob: Descriptor,
    /// Digest of the tar.
    pub(super) diff_id: DiffId,
    /// Length of the tar in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tar_size: Option<u64>,
}

/// A tar with clamped times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClampedEntry {
    /// Seconds since 1970.
    pub(super) epoch: i64,
    pub(super) diff_id: DiffId,
    pub(super) tar_size: u64,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StepEntry {
    pub(super) key: CacheKey,
    pub(super) result: ResultId,
    /// Milliseconds; 0 when it is not known.
    #[serde(default)]
    pub(super) took_ms: u64,
}

/// One memo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemoEntry {
    /// Hash of selection and result, 64 hex digits.
    pub(super) name: ContentId,
    pub(super) content: ContentId,
    pub(super) result: ResultId,
}

/// One cache mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MountEntry {
    /// Name of its directory in `mounts/`.
    pub(super) name: String,
    /// Its id as the Dockerfile has it, for people.
    pub(super) id: String,
    pub(super) layer: LayerEntry,
}

impl Document {
    /// Takes in what another cache knows; of two entries for a result the one with a layer counts.
    pub(super) fn extend(&mut self, other: Self) {
        let mut known: HashMap<_, usize> = self.results.iter().enumerate().map(|(n, r)| (r.id, n)).collect();
        for result in other.results {
            match known.get(&result.id) {
                Some(&n) if self.results[n].layer.is_none() => self.results[n] = result,
                Some(_) => {}
                None => {
                    known.insert(result.id, self.results.len());
                    self.results.push(result);
                }
            }
        }
        self.steps.extend(other.steps);
        self.memos.extend(other.memos);
        self.mounts.extend(other.mounts);
    }

    /// Makes an empty one.
    pub(super) fn new() -> Self {
        Self { version: VERSION, ..Self::default() }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data always prints")
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is too long, no document, or of another version.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ShareError> {
        if bytes.len() as u64 > LIMIT {
            return Err(ShareError::Wrong(format!("its list of steps is longer than {LIMIT} bytes")));
        }
        let wrong =
            |e: serde_json::Error| ShareError::Wrong(format!("its list of steps cannot be read: {e}"));
        let version: Version = serde_json::from_slice(bytes).map_err(wrong)?;
        if version.version != VERSION {
            let version = version.version;
            return Err(ShareError::Wrong(format!(
                "it is of version {version}, this rbuild reads {VERSION}"
            )));
        }
        serde_json::from_slice(bytes).map_err(wrong)
    }

    /// Lists all blobs, each once.
    pub(super) fn blobs(&self) -> Vec<Descriptor> {
        let mut seen = HashSet::new();
        let layers = self.results.iter().filter_map(|result| result.layer.as_ref());
        let all = layers.chain(self.mounts.iter().map(|mount| &mount.layer)).map(|layer| &layer.blob);
        all.filter(|blob| seen.insert(blob.digest.clone())).cloned().collect()
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn other_versions_and_broken_documents_are_refused() {
        let document = Document::new();
        assert_eq!(Document::parse(&document.to_json()).unwrap(), document);
        for (text, part) in [
            ("{}", "cannot be read"),
            ("[7]", "version 7"),
            (r#"{"version":2,"results":7}"#, "version 2"),
            (r#"{"version":1,"steps":[{"key":"../../x","result":"00"}]}"#, "cannot be read"),
        ] {
            let error = Document::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Document::parse(&bytes);
        }
    }
}
