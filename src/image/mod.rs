//! Images: put together, named, looked up, written out, read in.
//!
//! An image is a value: a config and a manifest that lists layers, both blobs of the OCI layout in `<root>/images/`.
//! Nothing here changes one; a change makes another image, and the name moves over.
//!
//! Layers are lazy. The manifest of an image that was built here lists uncompressed layers with their digest (the diff
//! ID) and size, and no such blob exists: its bytes are made from the snapshot when something is written out. A
//! layer that was loaded keeps the blob it came as, since nobody could make those bytes again. So an index that
//! any OCI tool can read lists blobs that it cannot find; [`Images::export`] is the way out.
//!
//! This room knows the store, the snapshots and the form of layers. It does not know Dockerfiles or how a step runs.

mod adopt;
mod ahead;
mod assemble;
mod audit;
mod base;
mod documents;
mod error;
mod export;
mod history;
mod import;
mod index;
mod inspect;
mod layers;
mod list;
mod load;
mod merge;
mod notes;
mod output;
mod pending;
mod receive;
mod remove;
mod send;
mod several;
mod squash;
mod time;
mod validate;

pub use assemble::AssembleRequest;
pub use audit::{ImageFlaw, Mend};
pub use base::NoBase;
pub use documents::{CONFIG_LIMIT, Document, DocumentError, parse_config, parse_document};
pub use error::ImageError;
pub use export::{ExportFormat, ExportOptions, Target};
pub use history::HistoryLine;
pub use import::{ConfigEdit, ImportRequest};
pub use list::{Filter, Listing};
pub use load::{LayoutPick, LoadInput, Loaded};
pub use merge::{Merged, merge};
pub use notes::{Annotations, Notes, Place, parse_place};
pub(crate) use output::split_csv;
pub use output::{Dest, OutputKind, OutputSpec, ParseOutputError, PushKind, compression};
pub use receive::Receiver;
pub use remove::{ImageUser, Removed};
pub use send::{Outgoing, Ready, outgoing_index};
pub use several::{Member, Several};
pub use time::{ago, format_time, parse_time};

use crate::digest::{ChainId, Digest, ImageId, ResultId};
use crate::interrupt::Stop;
use crate::oci::{Descriptor, ImageConfig, Manifest};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::snapshot::Snapshots;
use crate::store::{Lock, LockKind, Store};
use documents::MANIFEST_LIMIT;
use pending::is_pending;
use std::collections::HashMap;
use std::sync::Arc;

/// Held shared while blobs are being used that no name may point to yet, exclusively while some are removed.
const BLOB_LOCK: &str = "images.blobs";

/// The images of a store; cheap to clone.
#[derive(Debug, Clone)]
pub struct Images {
    store: Store,
    snapshots: Snapshots,
    ahead: Option<Arc<ahead::Ahead>>,
    /// Ends the packing of layers.
    stop: Stop,
}

/// An image with its documents.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Digest of the config.
    pub id: ImageId,
    /// Points at the manifest; without annotations.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The config.
    pub config: ImageConfig,
    /// All its names, sorted; none for a dangling image.
    pub names: Vec<Reference>,
    /// Set when its names lead to images for several platforms, of which this is one.
    pub several: Option<Box<Several>>,
}

impl Image {
    /// Gives the chain ID up to each layer, lowest first.
    pub fn chain_ids(&self) -> Vec<ChainId> {
        chain_ids(&self.config)
    }

    /// Names the snapshot of the whole stack.
    pub fn top(&self) -> ResultId {
        self.chain_ids().last().map_or_else(ResultId::scratch, ResultId::chain)
    }

    /// Gives the platform that its config names.
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.config.os.clone(),
            architecture: self.config.architecture.clone(),
            variant: self.config.variant.clone(),
        }
    }
}

/// Folds the diff IDs of a config, lowest first.
pub fn chain_ids(config: &ImageConfig) -> Vec<ChainId> {
    let mut chain: Vec<ChainId> = Vec::with_capacity(config.rootfs.diff_ids.len());
    for diff in &config.rootfs.diff_ids {
        chain.push(ChainId::push(chain.last(), diff));
    }
    chain
}

impl Images {
    /// Opens the images of a store. Touches nothing.
    pub fn new(store: Store, snapshots: Snapshots) -> Self {
        Self { store, snapshots, ahead: None, stop: Stop::default() }
    }

    /// The same images; layers are packed and fetched only until somebody asks to stop.
    #[must_use]
    pub fn until(&self, stop: &Stop) -> Self {
        self.snapshots.set_stop(stop);
        Self { stop: stop.clone(), ..self.clone() }
    }

    /// Gives what [`Images::until`] was told.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Finds an image by name, `name@digest`, image ID or the beginning of one; a name wins over an ID.
    ///
    /// # Errors
    /// There is none, several IDs begin so, or the image's documents are damaged.
    pub fn resolve(&self, text: &str) -> Result<Image, ImageError> {
        let mut entries = self.entries()?;
        if entries.iter().any(is_pending) {
            entries = self.settled_for(text, entries)?;
        }
        if let Some(entry) = self.find_name(&entries, text) {
            return self.read_image(entry, &entries);
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let hex = prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut found = match is_beginning(text) {
            true => self.find_id(&entries, prefix),
            false => Vec::new(),
        };
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => {
                if prefix == text {
                    // Tells what is wrong with a name that is none.
                    text.parse::<Reference>().or_else(|e| if hex { text.parse() } else { Err(e) })?;
                }
                let hint = near(&entries, text).map(|n| format!("did you mean {n}?"));
                Err(ImageError::NotFound { name: text.to_owned(), hint })
            }
            _ => Err(ImageError::Ambiguous {
                prefix: text.to_owned(),
                ids: found.into_iter().map(|i| i.id).collect(),
            }),
        }
    }

    /// Assembles the pending images that a text may mean: that of its name, or all if it may be an ID.
    fn settled_for(&self, text: &str, entries: Vec<Descriptor>) -> Result<Vec<Descriptor>, ImageError> {
        let wanted = text.parse::<Reference>().ok();
        if let Some(wanted) = wanted.as_ref().filter(|wanted| wanted.digest().is_some()) {
            return self.settled(&|entry| pending::may_be(entry, wanted));
        }
        match self.find_name(&entries, text) {
            Some(found) if !is_pending(found) => Ok(entries),
            Some(found) => self.settled(&|entry| entry.digest == found.digest),
            None if is_beginning(text) => self.settled(&|_| true),
            None => Ok(entries),
        }
    }

    /// Finds an image by its whole ID.
    pub fn get(&self, id: &ImageId) -> Result<Image, ImageError> {
        let mut entries = self.entries()?;
        let mut found = self.find_id(&entries, id.0.encoded());
        if found.is_empty() && entries.iter().any(is_pending) {
            entries = self.settled(&|_| true)?;
            found = self.find_id(&entries, id.0.encoded());
        }
        found.pop().ok_or_else(|| ImageError::NotFound { name: id.to_string(), hint: None })
    }

    /// Finds an image by its whole ID among those that are assembled.
    fn listed(&self, id: &ImageId) -> Result<Option<Image>, ImageError> {
        Ok(self.find_id(&self.entries()?, id.0.encoded()).pop())
    }

    /// Gives the config of an image.
    pub fn config(&self, id: &ImageId) -> Result<ImageConfig, ImageError> {
        Ok(self.get(id)?.config)
    }

    /// Gives an image one more name. Gives the image that had the name before, if it was another.
    pub fn tag(&self, image: &Image, name: &Reference) -> Result<Option<ImageId>, ImageError> {
        if name.digest().is_some() {
            let why = "a name that is given cannot have a digest: leave @sha256:... out";
            return Err(ImageError::Assemble(why.into()));
        }
        let before = self.publish(image.target(), Some(name))?;
        // A damaged old image is no reason to fail.
        Ok(before.and_then(|old| self.read_image(&old, &[]).ok()).map(|old| old.id))
    }

    /// Gives the results and blobs that images need, as roots for garbage collection.
    pub fn roots(&self) -> Result<(Vec<ResultId>, Vec<Digest>), ImageError> {
        let (mut results, mut blobs) = (Vec::new(), Vec::new());
        for entry in &self.entries()? {
            blobs.push(entry.digest.clone());
            let Ok(needs) = self.needs(entry) else { continue };
            blobs.extend(needs.blobs);
            results.extend(needs.results);
        }
        Ok((results, blobs))
    }

    /// Keeps others from removing blobs while we use some.
    fn hold_blobs(&self) -> Result<Lock, ImageError> {
        Ok(self.store.lock(BLOB_LOCK, LockKind::Shared)?)
    }

    fn find_name<'a>(&self, entries: &'a [Descriptor], text: &str) -> Option<&'a Descriptor> {
        let wanted: Reference = text.parse().ok()?;
        let fits = |entry: &&Descriptor| match (index::name_of(entry), wanted.digest()) {
            (Some(name), Some(digest)) => {
                let source = entry.annotations.get(receive::SOURCE).map(String::as_str);
                let led = source == Some(digest.as_str()) || name.digest() == Some(digest);
                name.name() == wanted.name() && (entry.digest == *digest || led)
            }
            (Some(name), None) => name == wanted,
            (None, _) => false,
        };
        entries.iter().find(fits)
    }

    /// Finds the images whose ID begins so; damaged ones are passed over.
    fn find_id(&self, entries: &[Descriptor], prefix: &str) -> Vec<Image> {
        let mut found: HashMap<ImageId, Image> = HashMap::new();
        let mut below: Vec<Image> = Vec::new();
        let begins = |digest: &Digest| digest.encoded().starts_with(prefix);
        for entry in entries.iter().filter(|entry| !is_pending(entry)) {
            let Ok(image) = self.read_image(entry, entries) else { continue };
            if begins(image.shown_id()) {
                found.entry(ImageId(image.shown_id().clone())).or_insert(image);
            } else if image.several.is_some() && image.ids().iter().any(|id| begins(&id.0)) {
                let members = self.members(&image).unwrap_or_default();
                below.extend(members.into_iter().map(|(_, member)| member).filter(|m| begins(&m.id.0)));
            }
        }
        // one that has a place of its own wins
        for image in below {
            found.entry(image.id.clone()).or_insert(image);
        }
        let mut found: Vec<Image> = found.into_values().collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }

    /// Reads the documents that an entry leads to and checks them against each other.
    fn read_image(&self, entry: &Descriptor, entries: &[Descriptor]) -> Result<Image, ImageError> {
        if is_pending(entry) {
            // it could not be assembled before, for this reason
            self.settle(entry)?;
            return Err(ImageError::Pending { why: "it is being replaced just now".into() });
        }
        let same = entries.iter().filter(|e| e.digest == entry.digest);
        let mut names: Vec<Reference> = same.filter_map(index::name_of).collect();
        names.sort();
        match several::is_index(entry) {
            true => self.read_several(entry, names),
            false => self.read_manifest(entry, names),
        }
    }

    /// Reads the documents of one image and checks them against each other.
    fn read_manifest(&self, entry: &Descriptor, names: Vec<Reference>) -> Result<Image, ImageError> {
        let manifest = self.parse_manifest(entry)?;
        let config = self.store.blobs().read(&manifest.config.digest, CONFIG_LIMIT)?;
        let config = documents::parse_config(&config)?;
        documents::check_pair(manifest.layers.len(), &config)?;
        let descriptor = Descriptor { annotations: Default::default(), platform: None, ..entry.clone() };
        let id = ImageId(manifest.config.digest.clone());
        Ok(Image { id, descriptor, manifest, config, names, several: None })
    }

    fn parse_manifest(&self, entry: &Descriptor) -> Result<Manifest, ImageError> {
        let bytes = self.store.blobs().read(&entry.digest, MANIFEST_LIMIT)?;
        match documents::parse_document(&bytes, &entry.media_type)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(ImageError::Archive("an index of the store names an index".into())),
        }
    }
}

/// Says whether an image ID may begin so.
fn is_beginning(text: &str) -> bool {
    let prefix = text.strip_prefix("sha256:").unwrap_or(text);
    (1..=64).contains(&prefix.len()) && prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Finds the name that a mistyped one may mean.
fn near(entries: &[Descriptor], text: &str) -> Option<String> {
    let names: Vec<Reference> = entries.iter().filter_map(index::name_of).collect();
    if let Ok(wanted) = text.parse::<Reference>() {
        // Another tag of the same repository, or the same last component elsewhere.
        let same = names.iter().find(|n| n.name() == wanted.name());
        let last = |r: &Reference| r.repository().rsplit('/').next().unwrap_or_default().to_owned();
        if let Some(name) = same.or_else(|| names.iter().find(|n| last(n) == last(&wanted))) {
            return Some(name.familiar());
        }
    }
    let mut familiar: Vec<String> = names.iter().map(Reference::familiar).collect();
    // A name without tag means this tag.
    let latest = names.iter().filter(|n| n.tag() == Some("latest"));
    familiar.extend(latest.map(Reference::familiar_name));
    crate::suggest::nearest(text, familiar.iter().map(String::as_str)).map(str::to_owned)
}

#[cfg(test)]
mod tests;
