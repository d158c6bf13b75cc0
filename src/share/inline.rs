//! The record that an image carries in its config: `--cache-to type=inline`.
//!
//! Its layers are the image's own, so the record only says which results they are. A step that changed nothing has no
//! layer; which ones that were is seen from the history. The record holds nothing but ids, so the image stays the same
//! as long as its steps do.

use super::ShareError;
use super::document::{ClampedEntry, Document, LayerEntry, MemoEntry, ResultEntry, StepEntry};
use super::lasting::EMPTY_TAR;
use crate::digest::{DiffId, Digest, ResultId};
use crate::oci::{Descriptor, ImageConfig, Manifest, media_type};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The field of the config.
pub const INLINE: &str = "dev.rbuild.cache.v1";
/// The form that is written.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    /// Lines of history that are the image's own.
    lines: usize,
    /// What lines gave that could have a layer: number of the line, result, what it stands on.
    layers: Vec<(usize, ResultId, ResultId)>,
    /// What other steps gave, with what they stand on.
    others: Vec<(ResultId, ResultId)>,
    steps: Vec<StepEntry>,
    memos: Vec<MemoEntry>,
    /// The time that the layers are clamped to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<i64>,
}

/// Makes the record of an image. `lines` says of each line of history that it adds to its base whether a step stands
/// behind it, which are as many as the image has results.
pub fn record(made: &super::Made<'_>, lines: &[bool], epoch: Option<i64>) -> Value {
    let document = super::export::describe(made);
    let numbers = (0..lines.len()).filter(|n| lines[*n]);
    let of = |(n, id): (usize, &ResultId)| {
        document.results.iter().find(|r| r.id == *id).map(|r| (n, r.id, r.parent))
    };
    let layers: Vec<_> = numbers.zip(made.layers).filter_map(of).collect();
    let others = document.results.iter().filter(|r| !made.layers.contains(&r.id)).map(|r| (r.id, r.parent));
    let mut steps = document.steps.clone();
    for step in &mut steps {
        step.took_ms = 0;
    }
    let record = Record {
        version: VERSION,
        lines: lines.len(),
        others: others.collect(),
        layers,
        steps,
        memos: document.memos,
        epoch,
    };
    serde_json::to_value(record).expect("plain data is JSON")
}

/// Reads the record of an image; `None` when it carries none.
///
/// # Errors
/// It carries one that cannot be read or does not fit the image.
pub(super) fn document(image: &Manifest, config: &[u8]) -> Result<Option<Document>, ShareError> {
    let wrong = |why: String| ShareError::Wrong(format!("the record in the image cannot be read: {why}"));
    if Digest::sha256_of(config) != image.config.digest {
        return Err(wrong("its config has another digest".to_owned()));
    }
    let config: ImageConfig = serde_json::from_slice(config).map_err(|e| wrong(e.to_string()))?;
    let Some(value) = config.other.get(INLINE) else { return Ok(None) };
    let record = Record::deserialize(value).map_err(|e| wrong(e.to_string()))?;
    if record.version != VERSION {
        return Err(wrong(format!("it is of version {}", record.version)));
    }
    let layers =
        own_layers(&record, image, &config).ok_or_else(|| wrong("it does not fit the image".to_owned()))?;
    let created = |line: usize| -> i64 {
        let text = config.history.get(line).and_then(|h| h.created.as_deref());
        text.and_then(crate::image::parse_time).unwrap_or(0)
    };
    let mut results = Vec::new();
    for ((_, id, parent), (line, layer)) in record.layers.iter().zip(layers) {
        let clamped = record.epoch.zip(layer.tar_size).map(|(epoch, tar_size)| ClampedEntry {
            epoch,
            diff_id: layer.diff_id.clone(),
            tar_size,
        });
        results.push(ResultEntry {
            id: *id,
            parent: *parent,
            created: created(line),
            layer: Some(layer),
            clamped: clamped.into_iter().collect(),
        });
    }
    results.extend(record.others.iter().map(|(id, parent)| ResultEntry {
        id: *id,
        parent: *parent,
        created: 0,
        layer: None,
        clamped: Vec::new(),
    }));
    Ok(Some(Document { results, steps: record.steps, memos: record.memos, ..Document::new() }))
}

/// Finds the layers of the record's results and their lines of history. A step that changed nothing lost its layer.
fn own_layers(record: &Record, image: &Manifest, config: &ImageConfig) -> Option<Vec<(usize, LayerEntry)>> {
    let first = config.history.len().checked_sub(record.lines)?;
    let mut out = Vec::new();
    for (number, _, _) in &record.layers {
        let line = first.checked_add(*number)?;
        if config.history.get(line)?.empty_layer {
            out.push((line, empty()));
            continue;
        }
        let at = config.history[..line].iter().filter(|line| !line.empty_layer).count();
        let (blob, diff_id) = (image.layers.get(at)?.clone(), config.rootfs.diff_ids.get(at)?.clone());
        let tar_size = (blob.digest == diff_id.0).then_some(blob.size);
        out.push((line, LayerEntry { blob, diff_id, tar_size }));
    }
    Some(out)
}

/// The layer of a step that changed nothing.
pub(super) fn empty() -> LayerEntry {
    let digest = Digest::sha256_of(&EMPTY_TAR);
    let size = EMPTY_TAR.len() as u64;
    let media_type = media_type::LAYER_TAR.to_owned();
    let blob = Descriptor {
        media_type,
        digest: digest.clone(),
        size,
        annotations: Default::default(),
        platform: None,
    };
    LayerEntry { blob, diff_id: DiffId(digest), tar_size: Some(size) }
}
