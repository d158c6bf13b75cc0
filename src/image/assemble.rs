//! From step results to an image: diff IDs, history, config, manifest, and last of all the names.
//!
//! **The same input gives the same image ID.** Times are the only thing that could differ, so none is "now" when there
//! is a better one: a history line has the time at which its layer was first made, as the snapshot remembers it, a
//! line without layer that of the layer before it, and the image that of its last line (BuildKit does the same). A build that finds
//! everything in the cache therefore gives the image it gave before. With an epoch (SOURCE_DATE_EPOCH) all these times
//! are the epoch, and modification times in the new layers are lowered to it, so that two machines agree.
//!
//! **History and layers agree.** Other tools refuse an image whose lines with a layer are not as many as its layers. A
//! step that changed nothing gets a line without layer; a base that breaks the rule is brought in line.

use super::layers::{CLAMP, LAYERS_AT_ONCE};
use super::time::{format_time, now, parse_time};
use super::{Image, ImageError, Images, documents};
use crate::digest::{ChainId, DiffId, Digest, ImageId, ResultId};
use crate::layer;
use crate::oci::{Descriptor, History, ImageConfig, Manifest, RootFs, media_type};
use crate::plan::BaseImage;
use crate::reference::Reference;
use crate::snapshot::LayerInfo;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};

/// The diff ID of a layer with nothing in it: a tar of two empty blocks.
const EMPTY_TAR: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// What [`Images::assemble`] puts together.
#[derive(Debug, Clone)]
pub struct AssembleRequest {
    /// The config; `rootfs`, `history` and `created` are replaced.
    pub config: ImageConfig,
    /// The lines above the base, oldest first; as many without `empty_layer` as there are `layers`. A time that is
    /// given stays.
    pub history: Vec<History>,
    /// What the steps above the base gave, lowest first.
    pub layers: Vec<ResultId>,
    /// What it stands on; `None` for `FROM scratch`.
    pub base: Option<BaseImage>,
    /// SOURCE_DATE_EPOCH, in seconds.
    pub epoch: Option<i64>,
    /// One layer above the base.
    pub squash: bool,
    /// Of the manifest; exports and pushes carry them on.
    pub annotations: BTreeMap<String, String>,
    /// Names, given last; without any the image stays without name.
    pub names: Vec<Reference>,
}

/// A new layer with what a manifest says of it.
#[derive(Debug, Clone)]
pub(super) struct NewLayer {
    pub(super) result: ResultId,
    pub(super) diff_id: DiffId,
    pub(super) tar_size: u64,
}

/// An image whose documents are in the store.
pub(super) struct Written {
    pub(super) id: ImageId,
    pub(super) manifest: Descriptor,
    /// The manifest of the same image with other annotations.
    other: Option<Digest>,
}

impl Written {
    /// The same image with other annotations need not stay when it has no name.
    pub(super) fn drop_other(&self, entries: &mut Vec<Descriptor>) {
        if let Some(other) = &self.other {
            entries.retain(|e| e.digest != *other || super::index::name_of(e).is_some());
        }
    }
}

impl Images {
    /// Makes an image of step results and gives it its names.
    ///
    /// The tars of the new layers are not kept, only their digests, which are computed at the same time for all layers
    /// and once ever for each. A crash leaves at most blobs without name.
    ///
    /// # Errors
    /// History and layers do not fit each other, the base or a snapshot is missing, or the store cannot be written.
    pub fn assemble(&self, request: AssembleRequest) -> Result<ImageId, ImageError> {
        let _held = self.hold_blobs()?;
        let base = request.base.as_ref().map(|b| self.get(&b.image)).transpose()?;
        let written = self.assemble_on(&request, base.as_ref())?;
        self.list_image(&written, &request.names)?;
        Ok(written.id)
    }

    /// Makes an image and leaves it without a place in the list; the caller holds the blobs.
    pub(super) fn assemble_on(
        &self,
        request: &AssembleRequest,
        base: Option<&Image>,
    ) -> Result<Written, ImageError> {
        let with_layer = request.history.iter().filter(|h| !h.empty_layer).count();
        if with_layer != request.layers.len() {
            let why = format!("{with_layer} lines of history with a layer, {} layers", request.layers.len());
            return Err(ImageError::Assemble(why));
        }
        let mut history = self.dated_history(request, base)?;
        let layers = if request.squash {
            let squashed = self.squash(base, &request.layers, request.epoch)?;
            super::squash::rewrite_history(&mut history, squashed.is_some(), request.base.as_ref());
            squashed.into_iter().collect()
        } else {
            let layers = self.new_layers(&request.layers, request.epoch)?;
            drop_empty(&mut history, &layers);
            layers.into_iter().flatten().collect::<Vec<_>>()
        };
        self.keep(request, base, history, &layers)
    }

    /// Gives each result its diff ID and size, all at the same time; `None` for one that changed nothing.
    fn new_layers(
        &self,
        results: &[ResultId],
        epoch: Option<i64>,
    ) -> Result<Vec<Option<NewLayer>>, ImageError> {
        // a compressor uses all cores by itself
        let at_once = if self.ahead.is_some() { LAYERS_AT_ONCE } else { results.len().max(1) };
        let mut layers = Vec::with_capacity(results.len());
        for some in results.chunks(at_once) {
            let some: Result<Vec<_>, _> =
                some.par_iter().map(|result| self.new_layer(result, epoch)).collect();
            layers.extend(some?);
        }
        Ok(layers)
    }

    fn new_layer(&self, result: &ResultId, epoch: Option<i64>) -> Result<Option<NewLayer>, ImageError> {
        let known = self.snapshots.layer_at(result, epoch)?;
        let (diff_id, tar_size) = match known {
            // nothing of the layer is looked at
            LayerInfo { diff_id: Some(diff_id), tar_size: Some(tar_size), .. } => (diff_id, tar_size),
            LayerInfo { blob, .. } => {
                let files = self.layer_files(result)?;
                let (diff_id, tar_size) = match &self.ahead {
                    Some(ahead) => ahead.make(&result.to_string(), &files, epoch)?,
                    None => layer::diff_id(&files.diff, &|path| files.open(path), epoch)?,
                };
                let info = LayerInfo {
                    diff_id: Some(diff_id.clone()),
                    tar_size: Some(tar_size),
                    blob,
                    ..Default::default()
                };
                self.snapshots.set_layer(result, epoch, &info)?;
                (diff_id, tar_size)
            }
        };
        let changed = diff_id.0.as_str() != EMPTY_TAR;
        Ok(changed.then_some(NewLayer { result: *result, diff_id, tar_size }))
    }

    /// Writes the documents and makes the stack findable by its chain IDs.
    fn keep(
        &self,
        request: &AssembleRequest,
        base: Option<&Image>,
        history: Vec<History>,
        layers: &[NewLayer],
    ) -> Result<Written, ImageError> {
        let mut diff_ids = base.map_or_else(Vec::new, |b| b.config.rootfs.diff_ids.clone());
        let mut chain: Option<ChainId> = base.and_then(|b| b.chain_ids().pop());
        for layer in layers {
            diff_ids.push(layer.diff_id.clone());
            let next = ChainId::push(chain.as_ref(), &layer.diff_id);
            let name = ResultId::chain(&next);
            if name != layer.result && !self.snapshots.has(&name) {
                self.snapshots.alias(&name, &layer.result)?;
            }
            chain = Some(next);
        }
        let full = full_history(base, history);
        let mut config = request.config.clone();
        config.rootfs = RootFs { diff_ids, ..RootFs::default() };
        config.created = Some(match request.epoch {
            Some(epoch) => format_time(epoch),
            None => {
                let last = full.iter().rev().find_map(|h| h.created.clone());
                last.unwrap_or_else(|| format_time(now()))
            }
        });
        config.history = full;
        let manifest = |config: Descriptor| Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.into()),
            config,
            layers: descriptors(base, layers, request.epoch),
            annotations: request.annotations.clone(),
        };
        self.put_documents(&config, manifest, &request.annotations)
    }

    /// Writes config and manifest, unless there is an image of this config with these annotations, and gives it the names.
    pub(super) fn store_image(
        &self,
        config: &ImageConfig,
        manifest: impl FnOnce(Descriptor) -> Manifest,
        annotations: &BTreeMap<String, String>,
        names: &[Reference],
    ) -> Result<ImageId, ImageError> {
        let written = self.put_documents(config, manifest, annotations)?;
        self.list_image(&written, names)?;
        Ok(written.id)
    }

    /// Writes config and manifest, unless there is an image of this config with these annotations.
    fn put_documents(
        &self,
        config: &ImageConfig,
        manifest: impl FnOnce(Descriptor) -> Manifest,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Written, ImageError> {
        let config = documents::to_json(config);
        let config_descriptor = documents::describe(media_type::CONFIG, &config);
        let id = ImageId(config_descriptor.digest.clone());
        let existing = self.listed(&id)?;
        let manifest = match &existing {
            Some(existing) if existing.manifest.annotations == *annotations => existing.descriptor.clone(),
            _ => {
                let manifest = documents::to_json(&manifest(config_descriptor));
                self.store.blobs().put(&config, true)?;
                self.store.blobs().put(&manifest, true)?;
                documents::describe(media_type::MANIFEST, &manifest)
            }
        };
        let other = existing.map(|old| old.descriptor.digest).filter(|old| *old != manifest.digest);
        Ok(Written { id, manifest, other })
    }

    /// Gives an image a place in the list, with these names or without any.
    fn list_image(&self, written: &Written, names: &[Reference]) -> Result<(), ImageError> {
        self.change_entries(|entries| {
            if names.is_empty() {
                super::index::put(entries, &written.manifest, None);
            }
            for name in names {
                super::index::put(entries, &written.manifest, Some(name));
            }
            written.drop_other(entries);
            Ok(())
        })
    }

    /// Gives every new line its time.
    fn dated_history(
        &self,
        request: &AssembleRequest,
        base: Option<&Image>,
    ) -> Result<Vec<History>, ImageError> {
        let mut history = request.history.clone();
        if let Some(epoch) = request.epoch {
            for line in &mut history {
                line.created.get_or_insert_with(|| format_time(epoch));
            }
            return Ok(history);
        }
        let made = self.made_at(&request.layers)?;
        let base_time = base.and_then(|b| {
            let last = b.config.history.iter().rev().find_map(|h| h.created.as_deref());
            last.or(b.config.created.as_deref()).and_then(parse_time)
        });
        date(&mut history, &request.layers, &made, base_time);
        Ok(history)
    }

    /// Says when results were first made.
    fn made_at(&self, results: &[ResultId]) -> Result<HashMap<ResultId, i64>, ImageError> {
        results.iter().map(|id| Ok((*id, self.snapshots.info(id)?.created))).collect()
    }
}

/// A line has the time of its layer; one without layer that of the layer before, at the beginning that of the first
/// layer, and where there is none that of the base.
fn date(history: &mut [History], layers: &[ResultId], made: &HashMap<ResultId, i64>, base: Option<i64>) {
    let mut time = layers.iter().find_map(|l| made.get(l).copied()).or(base);
    let mut next = layers.iter();
    for line in history {
        if !line.empty_layer
            && let Some(at) = next.next().and_then(|layer| made.get(layer))
        {
            time = Some(*at);
        }
        if line.created.is_none() {
            line.created = time.map(format_time);
        }
    }
}

/// Takes the layer from the lines of steps that changed nothing.
fn drop_empty(history: &mut [History], layers: &[Option<NewLayer>]) {
    let lines = history.iter_mut().filter(|line| !line.empty_layer);
    for (line, layer) in lines.zip(layers) {
        line.empty_layer = layer.is_none();
    }
}

/// Puts the base's own history in front, with as many lines with a layer as it has layers.
fn full_history(base: Option<&Image>, above: Vec<History>) -> Vec<History> {
    let Some(base) = base else { return above };
    let mut history = base.config.history.clone();
    let layers = base.config.rootfs.diff_ids.len();
    let with_layer = history.iter().filter(|h| !h.empty_layer).count();
    for line in history.iter_mut().filter(|h| !h.empty_layer).take(with_layer.saturating_sub(layers)) {
        line.empty_layer = true;
    }
    for _ in with_layer..layers {
        history.push(History {
            created: base.config.created.clone(),
            comment: Some("layer of the base image, which has no history for it".into()),
            ..History::default()
        });
    }
    history.extend(above);
    history
}

/// Lists the layers of the new manifest: the base's as they are, in OCI's words, and the new ones as plain tars.
fn descriptors(base: Option<&Image>, layers: &[NewLayer], epoch: Option<i64>) -> Vec<Descriptor> {
    let mut all: Vec<Descriptor> = base.map_or_else(Vec::new, |b| b.manifest.layers.clone());
    for descriptor in &mut all {
        descriptor.media_type = oci_layer_type(&descriptor.media_type).to_owned();
    }
    all.extend(layers.iter().map(|layer| plain_layer(layer, epoch)));
    all
}

/// Describes a layer that exists as a snapshot only.
pub(super) fn plain_layer(layer: &NewLayer, epoch: Option<i64>) -> Descriptor {
    Descriptor {
        media_type: media_type::LAYER_TAR.into(),
        digest: layer.diff_id.0.clone(),
        size: layer.tar_size,
        annotations: epoch.map(|e| (CLAMP.to_owned(), e.to_string())).into_iter().collect(),
        platform: None,
    }
}

/// Gives OCI's name of a layer type that Docker names otherwise.
pub(super) fn oci_layer_type(kind: &str) -> &str {
    match kind {
        media_type::DOCKER_LAYER_GZIP => media_type::LAYER_GZIP,
        media_type::DOCKER_LAYER_TAR => media_type::LAYER_TAR,
        other => other,
    }
}
