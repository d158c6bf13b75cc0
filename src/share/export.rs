//! Caches that are written: after a build, from what its steps gave.
//!
//! Written is what this build went through, whether its steps ran or were known. `mode=min` sends the layers that the
//! image itself has; of the other results it lists the ids only, which is enough to find every key again. What the
//! place holds already is not sent, and a layer that was compressed once is known by its digest from then on.

use super::document::{ClampedEntry, Document, LayerEntry, MemoEntry, MountEntry, ResultEntry, StepEntry};
use super::import::Imports;
use super::layout::Layout;
use super::mounts::pack_mount;
use super::pack::pack;
use super::place::CacheTarget;
use super::repository::Repository;
use super::s3::Store3;
use super::spec::{ExportSpec, Mode, Where};
use super::{ShareError, inline};
use crate::cache::Records;
use crate::digest::{CacheKey, ContentId, ResultId};
use crate::layer::Compression;
use crate::oci::media_type;
use crate::plan::{BuildGraph, Role};
use crate::registry::{Client, Flags, Settings};
use crate::snapshot::{SnapshotError, Snapshots};
use crate::solve::Memo;
use crate::store::TempDir;
use petgraph::Direction;
use petgraph::visit::EdgeRef;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Layers that are compressed and sent at the same time, unless the place says otherwise.
const AT_ONCE: usize = 4;

/// What a build made.
pub struct Made<'a> {
    /// Its steps.
    pub graph: &'a BuildGraph,
    /// What they gave, by node index.
    pub results: &'a [ResultId],
    /// Their keys, by node index.
    pub keys: &'a [Option<CacheKey>],
    /// Results that are layers of the image, the lowest first.
    pub layers: &'a [ResultId],
    /// What was found out about selections.
    pub memos: &'a [Memo],
    /// Directories in `mounts/` that its steps use.
    pub mounts: &'a BTreeSet<String>,
    /// Where results are.
    pub snapshots: &'a Snapshots,
    /// What is known of steps.
    pub records: &'a Records,
    /// How registries are reached.
    pub flags: &'a Flags,
    /// The time that the image's layers are clamped to.
    pub epoch: Option<i64>,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// Steps in the list.
    pub steps: usize,
    /// Layers in the cache.
    pub layers: usize,
    /// Blobs that were sent.
    pub sent: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Cache mounts that were left out because a step of another build uses them.
    pub busy: usize,
}

/// Lists steps and results, without layers. What is not the result of its own content and base is left out: nobody could
/// prove it.
pub(super) fn describe(made: &Made<'_>) -> Document {
    let mut document = Document::new();
    let mut seen = HashSet::new();
    let order = petgraph::algo::toposort(made.graph, None).unwrap_or_default();
    for at in order {
        let (Some(key), Some(id)) =
            (made.keys.get(at.index()).copied().flatten(), made.results.get(at.index()))
        else {
            continue;
        };
        let mut edges = made.graph.edges_directed(at, Direction::Incoming);
        let base = edges.find(|edge| *edge.weight() == Role::Base);
        let parent = base.map_or_else(ResultId::scratch, |edge| made.results[edge.source().index()]);
        if !made.snapshots.stands_on(id, &parent) {
            continue;
        }
        let took_ms = made.records.get(&key).map_or(0, |record| record.took_ms);
        document.steps.push(StepEntry { key, result: *id, took_ms });
        let Ok(info) = made.snapshots.info(id) else { continue };
        if seen.insert(*id) {
            document.results.push(ResultEntry {
                id: *id,
                parent,
                created: info.created,
                layer: None,
                clamped: Vec::new(),
            });
        }
    }
    let mut seen = HashSet::new();
    let memos = made.memos.iter().filter(|memo| seen.insert(memo.name));
    let entry =
        |memo: &Memo| MemoEntry { name: ContentId(memo.name), content: memo.content, result: memo.result };
    document.memos = memos.map(entry).collect();
    document
}

/// Writes a cache.
///
/// # Errors
/// The place cannot be written, or a layer not be read. A cache that was there before stays.
pub fn export(made: &Made<'_>, spec: &ExportSpec, imports: Option<&Imports>) -> Result<Exported, ShareError> {
    let (target, at_once) = target(spec, made.flags)?;
    let temp = made.snapshots.store().temp_dir("share")?;
    let sending = Sending {
        made,
        spec,
        imports,
        target: &*target,
        temp: &temp,
        sent: AtomicUsize::new(0),
        bytes: AtomicU64::new(0),
    };
    let mut document = describe(made);
    let wanted: HashSet<ResultId> = match spec.mode {
        Mode::Min => made.layers.iter().copied().collect(),
        Mode::Max => document.results.iter().map(|result| result.id).collect(),
    };
    sending.layers(&mut document, &wanted, at_once)?;
    let busy = if spec.mounts { sending.mounts(&mut document)? } else { 0 };
    target.publish(&document, spec)?;
    Ok(Exported {
        steps: document.steps.len(),
        layers: document.results.iter().filter(|result| result.layer.is_some()).count(),
        sent: sending.sent.into_inner(),
        bytes: sending.bytes.into_inner(),
        busy,
    })
}

struct Sending<'a> {
    made: &'a Made<'a>,
    spec: &'a ExportSpec,
    imports: Option<&'a Imports>,
    target: &'a dyn CacheTarget,
    temp: &'a TempDir,
    sent: AtomicUsize,
    bytes: AtomicU64,
}

impl Sending<'_> {
    /// Finds or makes the layers, several at once. After a failure nothing new begins.
    fn layers(
        &self,
        document: &mut Document,
        wanted: &HashSet<ResultId>,
        at_once: usize,
    ) -> Result<(), ShareError> {
        let todo: Vec<ResultId> =
            document.results.iter().map(|result| result.id).filter(|id| wanted.contains(id)).collect();
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        let found: Mutex<HashMap<ResultId, LayerEntry>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..at_once.clamp(1, todo.len().max(1)) {
                scope.spawn(|| {
                    while let Some(id) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
                        match self.layer(id) {
                            Ok(Some(layer)) => {
                                found.lock().unwrap_or_else(PoisonError::into_inner).insert(*id, layer);
                            }
                            Ok(None) => {}
                            Err(error) => {
                                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                                next.store(todo.len(), Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        for result in &mut document.results {
            result.layer = found.remove(&result.id);
            if let (Some(_), Some(epoch)) = (&result.layer, self.made.epoch) {
                let info = self.made.snapshots.layer_at(&result.id, Some(epoch))?;
                let clamped = info.diff_id.zip(info.tar_size);
                let entry = clamped.map(|(diff_id, tar_size)| ClampedEntry { epoch, diff_id, tar_size });
                result.clamped.extend(entry);
            }
        }
        Ok(())
    }

    /// Brings the layer of a result to the place, unless it is there; `None` when its files cannot be had.
    fn layer(&self, id: &ResultId) -> Result<Option<LayerEntry>, ShareError> {
        let name = note_name(id, self.spec.compression);
        let noted = self.made.records.note(&name).and_then(|note| serde_json::from_slice(&note).ok());
        let imported = self.imports.and_then(|imports| imports.layer_of(id)).cloned();
        let imported = imported.filter(|layer| !self.spec.force_compression || self.is_asked(layer));
        for known in [noted, imported].into_iter().flatten() {
            let known: LayerEntry = known;
            if known.blob.digest != inline::empty().blob.digest && self.target.has(&known.blob)? {
                return Ok(Some(known));
            }
        }
        let snapshot = match self.made.snapshots.get(id) {
            Err(SnapshotError::Unavailable { .. }) => return Ok(None),
            snapshot => snapshot?,
        };
        let Some(top) = snapshot.chain.first() else { return Ok(None) };
        let dirs = self.made.snapshots.layer_dirs(top)?;
        let diff = self.made.snapshots.diff(id)?;
        let file = self.temp.path().join(id.to_string());
        let layer = pack(&diff, &|path| dirs.open(path), self.spec.compression, &file)?;
        self.send(&layer, &file)?;
        if let Ok(note) = serde_json::to_vec(&layer) {
            // losing it costs compressing once more
            let _ = self.made.records.put_note(&name, &note);
        }
        Ok(Some(layer))
    }

    /// Whether a layer is compressed as asked.
    fn is_asked(&self, layer: &LayerEntry) -> bool {
        let kind = match self.spec.compression {
            Compression::None => media_type::LAYER_TAR,
            Compression::Gzip(_) => media_type::LAYER_GZIP,
            Compression::Zstd(_) => media_type::LAYER_ZSTD,
        };
        layer.blob.media_type == kind
    }

    fn send(&self, layer: &LayerEntry, file: &std::path::Path) -> Result<(), ShareError> {
        if !self.target.has(&layer.blob)? {
            self.target.put(&layer.blob, file)?;
            self.sent.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(layer.blob.size, Ordering::Relaxed);
        }
        let _ = std::fs::remove_file(file);
        Ok(())
    }

    /// Takes the cache mounts along; those that this machine lacks stay as they are in the cache that was read. Gives how
    /// many are in use.
    fn mounts(&self, document: &mut Document) -> Result<usize, ShareError> {
        let mut busy = 0;
        for name in self.made.mounts {
            let store = self.made.snapshots.store();
            let file = self.temp.path().join(format!("mount-{name}"));
            let is_here = store.root().join("mounts").join(name).is_dir();
            let entry: Option<MountEntry> = match pack_mount(name, store, self.spec.compression, &file)? {
                Some(entry) => {
                    self.send(&entry.layer, &file)?;
                    Some(entry)
                }
                None => {
                    busy += usize::from(is_here);
                    let known = self.imports.and_then(|imports| imports.mount_of(name)).cloned();
                    match known {
                        Some(known) if self.target.has(&known.layer.blob)? => Some(known),
                        _ => None,
                    }
                }
            };
            document.mounts.extend(entry);
        }
        Ok(busy)
    }
}

fn note_name(id: &ResultId, how: Compression) -> [u8; 32] {
    blake3::derive_key("rbuild shared layer v1", format!("{id} {how:?}").as_bytes())
}

/// Opens the place, and says how much may be sent at once.
fn target(spec: &ExportSpec, flags: &Flags) -> Result<(Box<dyn CacheTarget>, usize), ShareError> {
    Ok(match &spec.at {
        Where::Registry(name) => {
            let client = Client::new(Settings::with_flags(flags)?);
            (Box::new(Repository { client, name: name.clone(), platforms: Vec::new() }), AT_ONCE)
        }
        Where::Local { dir, tag, .. } => (Box::new(Layout::target(dir, tag)?), AT_ONCE),
        Where::S3(bucket) => (Box::new(Store3::new(bucket)?), bucket.upload_parallelism),
        Where::Inline => return Err(ShareError::Wrong("an image is no place of its own".to_owned())),
    })
}

impl ExportSpec {
    /// Names the place for people.
    pub fn name(&self) -> String {
        match &self.at {
            Where::Registry(name) => name.familiar(),
            Where::Local { dir, .. } => dir.display().to_string(),
            Where::S3(bucket) => bucket.shown(),
            Where::Inline => "the image".to_owned(),
        }
    }

    /// Whether a failure is a warning only.
    pub fn ignores_errors(&self) -> bool {
        self.ignore_error
    }
}
