//! Images that are named before anybody has asked for their ID.
//!
//! An image ID is a digest over digests over every byte of its layers. A build that is only told to move a name need not
//! wait for that: it lists a *pending* image, an entry of the index whose blob says what the image is made of
//! ([`PendingImage`]) and whose media type no other tool knows. Whoever first needs the image itself has it assembled
//! from that, once, and the manifest takes the place of the pending blob under all its names. So the list of images stays
//! the one place that says what is needed: there is no second file that could disagree with it.
//!
//! ```text
//! defer ──► pending entry ──anybody asks──► assemble ──► the entry's descriptor is replaced, under the list's lock
//!                   (killed: nothing has changed; the next one who asks assembles again)
//! ```
//! The same input gives the same image ID whenever it is assembled: no time in it is "now", see [`super::assemble`].

use super::documents::{self, CONFIG_LIMIT};
use super::{AssembleRequest, BLOB_LOCK, Image, ImageError, Images, chain_ids, index};
use crate::digest::{Digest, ResultId};
use crate::fault;
use crate::oci::{Descriptor, History, ImageConfig};
use crate::plan::BaseImage;
use crate::reference::Reference;
use crate::store::LockKind;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// Media type of the blob of a pending image.
const MEDIA_TYPE: &str = "application/vnd.rbuild.image.pending.v1+json";

/// What a pending image will be made of: an [`AssembleRequest`] without names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PendingImage {
    config: ImageConfig,
    history: Vec<History>,
    /// Results, lowest first.
    layers: Vec<ResultId>,
    /// Manifest of the base, which stays as long as this does.
    base: Option<Descriptor>,
    epoch: Option<i64>,
    annotations: BTreeMap<String, String>,
}

/// What an entry of the list needs.
#[derive(Debug, Default)]
pub(super) struct Needs {
    pub(super) results: Vec<ResultId>,
    pub(super) blobs: Vec<Digest>,
}

/// Says whether an entry is a pending image.
pub(super) fn is_pending(entry: &Descriptor) -> bool {
    entry.media_type == MEDIA_TYPE
}

impl Images {
    /// Gives the names to an image that is assembled when somebody asks for it. Gives `false`, and does nothing, when that would
    /// save nothing or cannot be: all digests are known, the layers are to be squashed, or there is no name.
    ///
    /// The caller holds the snapshots until this returns; from then on the list does. A crash leaves at most a blob
    /// without name.
    ///
    /// # Errors
    /// The base is missing or the store cannot be written.
    pub fn defer(&self, request: &AssembleRequest) -> Result<bool, ImageError> {
        if request.squash || request.names.is_empty() || self.all_known(request)? {
            return Ok(false);
        }
        let _held = self.hold_blobs()?;
        let base = request.base.as_ref().map(|b| self.get(&b.image)).transpose()?;
        let pending = PendingImage {
            config: request.config.clone(),
            history: request.history.clone(),
            layers: request.layers.clone(),
            base: base.map(|b| b.descriptor),
            epoch: request.epoch,
            annotations: request.annotations.clone(),
        };
        let bytes = documents::to_json(&pending);
        let descriptor = documents::describe(MEDIA_TYPE, &bytes);
        if !self.store.blobs().has(&descriptor.digest) {
            self.store.blobs().put(&bytes, true)?;
        }
        self.change_entries(|entries| {
            for name in &request.names {
                index::put(entries, &descriptor, Some(name));
            }
            Ok(())
        })?;
        Ok(true)
    }

    /// Removes the blob of a pending image that is listed no more. While somebody else uses blobs that no name points to
    /// yet, it stays for the garbage collector.
    fn forget(&self, digest: &Digest) -> Result<(), ImageError> {
        let Some(_alone) = self.store.try_lock(BLOB_LOCK, LockKind::Exclusive)? else { return Ok(()) };
        if !self.entries()?.iter().any(|e| e.digest == *digest) {
            self.store.blobs().remove(digest)?;
        }
        Ok(())
    }

    /// Says whether the digests of all layers are known already.
    fn all_known(&self, request: &AssembleRequest) -> Result<bool, ImageError> {
        for result in &request.layers {
            let known = self.snapshots.layer_at(result, request.epoch)?;
            if known.diff_id.is_none() || known.tar_size.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the list once the pending images among those that `asked` names have become real ones. What cannot be assembled
    /// stays as it is; reading that entry says why.
    pub(super) fn settled(&self, asked: &dyn Fn(&Descriptor) -> bool) -> Result<Vec<Descriptor>, ImageError> {
        let mut failed: HashSet<Digest> = HashSet::new();
        loop {
            let entries = self.entries()?;
            let wanted = |e: &&Descriptor| is_pending(e) && asked(e) && !failed.contains(&e.digest);
            let Some(entry) = entries.iter().find(wanted) else { return Ok(entries) };
            if self.settle(entry).is_err() {
                failed.insert(entry.digest.clone());
            }
        }
    }

    /// Assembles a pending image and puts it in its place in the list. Another process may do the same: then both find
    /// the same image, and one of them has waited.
    pub(super) fn settle(&self, entry: &Descriptor) -> Result<(), ImageError> {
        let _once =
            self.store.lock(&format!("pending-{:.8}", entry.digest.encoded()), LockKind::Exclusive)?;
        let held = self.hold_blobs()?;
        if !self.entries()?.iter().any(|e| e.digest == entry.digest) {
            return Ok(());
        }
        let pending = self.read_pending(&entry.digest)?;
        let base = pending.base.as_ref().map(|base| self.read_image(base, &[])).transpose()?;
        let request = AssembleRequest {
            config: pending.config,
            history: pending.history,
            layers: pending.layers,
            base: base.as_ref().map(|b| BaseImage { image: b.id.clone(), config: b.config.clone() }),
            epoch: pending.epoch,
            squash: false,
            annotations: pending.annotations,
            names: Vec::new(),
        };
        let written = self.assemble_on(&request, base.as_ref())?;
        fault::point("image.pending_assembled");
        self.change_entries(|entries| {
            index::replace(entries, &entry.digest, &written.manifest);
            written.drop_other(entries);
            Ok(())
        })?;
        fault::point("image.pending_replaced");
        drop(held);
        self.forget(&entry.digest)
    }

    fn read_pending(&self, digest: &Digest) -> Result<PendingImage, ImageError> {
        let bytes = self.store.blobs().read(digest, CONFIG_LIMIT)?;
        let wrong = |e: serde_json::Error| ImageError::Pending { why: e.to_string() };
        serde_json::from_slice(&bytes).map_err(wrong)
    }

    /// Says what an entry needs, without assembling anything.
    ///
    /// # Errors
    /// Its documents cannot be read, so what it needs is not known.
    pub(super) fn needs(&self, entry: &Descriptor) -> Result<Needs, ImageError> {
        let mut needs = Needs { blobs: vec![entry.digest.clone()], ..Needs::default() };
        if !is_pending(entry) {
            for (_, image) in self.members(&self.read_image(entry, &[])?)? {
                needs.add(&image);
            }
            return Ok(needs);
        }
        let pending = self.read_pending(&entry.digest)?;
        if let Some(base) = &pending.base {
            needs.blobs.push(base.digest.clone());
            needs.add(&self.read_image(base, &[])?);
        }
        needs.results.extend(pending.layers);
        Ok(needs)
    }

    /// Says whether what some image needs cannot be known.
    pub fn any_damaged(&self) -> Result<bool, ImageError> {
        Ok(self.entries()?.iter().any(|entry| self.needs(entry).is_err()))
    }
}

impl Needs {
    fn add(&mut self, image: &Image) {
        self.blobs.push(image.descriptor.digest.clone());
        self.blobs.push(image.id.0.clone());
        self.blobs.extend(image.manifest.layers.iter().map(|layer| layer.digest.clone()));
        self.results.extend(chain_ids(&image.config).iter().map(ResultId::chain));
    }
}

/// Says whether a pending image has this name, whatever its digest will be.
pub(super) fn may_be(entry: &Descriptor, wanted: &Reference) -> bool {
    index::name_of(entry).is_some_and(|name| name.name() == wanted.name())
}
