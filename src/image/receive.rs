//! An image that arrives in pieces from elsewhere: documents and layers that somebody else fetches and checks.
//!
//! As with `load` the order is what makes it safe: layers are unpacked and their diff IDs checked before their snapshots
//! can be found, documents follow, the name comes last. Whatever stops it in between leaves no name, and what is left
//! is good and found again by the next try.

use super::index::REF_NAME;
use super::load::read_config;
use super::{ImageError, Images, Loaded};
use crate::digest::{ChainId, DiffId, Digest, ImageId, ResultId};
use crate::image::assemble::oci_layer_type;
use crate::oci::{Descriptor, ImageConfig, Manifest};
use crate::reference::Reference;
use crate::store::Lock;
use std::io::Read;

/// On the entry of an image that came by the digest of an index: that digest.
pub(super) const SOURCE: &str = "dev.rbuild.source.digest";

/// Takes one image in; holds its blobs against removal as long as it lives.
pub struct Receiver<'a> {
    images: &'a Images,
    _held: Lock,
}

impl Images {
    /// Begins to take an image in.
    ///
    /// # Errors
    /// The store fails.
    pub fn receiver(&self) -> Result<Receiver<'_>, ImageError> {
        Ok(Receiver { images: self, _held: self.hold_blobs()? })
    }
}

impl Receiver<'_> {
    /// Reads a config and checks that it goes with its manifest.
    ///
    /// # Errors
    /// It is damaged, or speaks of other layers.
    pub fn config(&self, bytes: &[u8], manifest: &Manifest) -> Result<ImageConfig, ImageError> {
        read_config(bytes, manifest.layers.len())
    }

    /// Says whether a layer need not be fetched: its snapshot is there, and so is its blob.
    pub fn has_layer(&self, chain: &ChainId, blob: &Descriptor) -> bool {
        self.images.snapshots.is_present(&ResultId::chain(chain)) && self.has_blob(blob)
    }

    /// Says whether a blob is there with the right length.
    pub fn has_blob(&self, blob: &Descriptor) -> bool {
        self.images.store.blobs().size(&blob.digest).is_ok_and(|size| size == blob.size)
    }

    /// Unpacks a layer on top of `parent` while its bytes come; whoever sends them ends with an error when they are not
    /// those of `blob`.
    ///
    /// # Errors
    /// The bytes break off, are damaged, or do not give `diff_id`: nothing is kept.
    pub fn unpack(
        &self,
        parent: &ResultId,
        chain: &ChainId,
        diff_id: &DiffId,
        blob: &Descriptor,
        mut bytes: Box<dyn Read + Send>,
    ) -> Result<ResultId, ImageError> {
        let result = ResultId::chain(chain);
        if self.images.snapshots.is_present(&result) {
            // the bytes are still needed as a blob, which must be the layer that it claims to be
            std::io::copy(&mut bytes, &mut std::io::sink()).map_err(crate::layer::LayerError::Read)?;
            return Ok(result);
        }
        let mut kept = blob.clone();
        kept.media_type = oci_layer_type(&blob.media_type).to_owned();
        let done = self.images.snapshots.apply_layer(parent, chain, diff_id, Some(kept), bytes)?;
        self.images.snapshots.forget_absent(&done);
        Ok(done)
    }

    /// Makes sure that a blob in the store is the layer with this diff ID.
    ///
    /// # Errors
    /// It is another one.
    pub fn check(
        &self,
        parent: &ResultId,
        chain: &ChainId,
        diff_id: &DiffId,
        blob: &Descriptor,
    ) -> Result<ResultId, ImageError> {
        self.images.store_layer(parent, chain, diff_id, blob)
    }

    /// Keeps the documents and gives the image its name; `source` is the digest that led to it, which may be an index's.
    ///
    /// # Errors
    /// The store fails.
    pub fn finish(
        &self,
        descriptor: &Descriptor,
        manifest: &[u8],
        config: &[u8],
        name: Option<&Reference>,
        source: &Digest,
    ) -> Result<Loaded, ImageError> {
        let id = ImageId(Digest::sha256_of(config));
        self.images.store.blobs().put(config, true)?;
        self.images.store.blobs().put(manifest, true)?;
        let mut entry = Descriptor { annotations: Default::default(), platform: None, ..descriptor.clone() };
        if *source != descriptor.digest {
            entry.annotations.insert(SOURCE.into(), source.to_string());
        }
        entry.annotations.remove(REF_NAME);
        self.images.name_loaded(id, &entry, name.cloned().into_iter().collect())
    }
}
