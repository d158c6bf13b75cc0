//! Images whose documents came from a registry and whose layers are still there.
//!
//! Config and manifest are kept as they came, so the image has the registry's digest. Its layers are made known to the
//! snapshots with the place of their blobs; they come when something needs their files.

use super::documents::{self, Document};
use super::{Image, ImageError, Images, chain_ids};
use crate::digest::ResultId;
use crate::oci::Descriptor;
use crate::reference::Reference;
use crate::snapshot::{Absent, LayerInfo, Origin, Source};

impl Images {
    /// Keeps an image of a registry without its layers, whose blobs are at `place`, and gives it a name, beside one for
    /// another platform that has the name.
    ///
    /// # Errors
    /// The documents do not fit each other, or the store cannot be written.
    pub fn adopt(
        &self,
        (descriptor, manifest): (&Descriptor, &[u8]),
        config: &[u8],
        place: &str,
        name: &Reference,
    ) -> Result<Image, ImageError> {
        let Document::Manifest(parsed) = documents::parse_document(manifest, &descriptor.media_type)? else {
            return Err(ImageError::Archive("an index is no image".into()));
        };
        let found = documents::describe(&parsed.config.media_type, config);
        if found.digest != parsed.config.digest || found.size != parsed.config.size {
            let why = format!("it has {} bytes and the digest {}", found.size, found.digest);
            return Err(ImageError::Lie { what: format!("config {}", parsed.config.digest), why });
        }
        let config_parsed = documents::parse_config(config)?;
        documents::check_pair(parsed.layers.len(), &config_parsed)?;
        let _held = self.hold_blobs()?;
        self.store.blobs().put(config, true)?;
        let digest = self.store.blobs().put(manifest, true)?;
        if digest != descriptor.digest {
            let why = format!("its digest is {digest}");
            return Err(ImageError::Lie { what: format!("manifest {}", descriptor.digest), why });
        }
        let mut parent = ResultId::scratch();
        let chains = chain_ids(&config_parsed);
        for ((layer, diff_id), chain) in parsed.layers.iter().zip(&config_parsed.rootfs.diff_ids).zip(chains)
        {
            let id = ResultId::chain(&chain);
            let mut blob = layer.clone();
            blob.media_type = super::assemble::oci_layer_type(&layer.media_type).to_owned();
            let info = LayerInfo {
                diff_id: Some(diff_id.clone()),
                tar_size: None,
                blob: Some(blob.clone()),
                ..Default::default()
            };
            self.snapshots.know(Absent {
                id,
                parent,
                origin: Origin::Image { chain },
                layer: Some(info),
                clamped: Vec::new(),
                sources: vec![Source { blob, place: place.to_owned(), provider: None }],
            })?;
            parent = id;
        }
        let entry = Descriptor { annotations: Default::default(), platform: None, ..descriptor.clone() };
        self.publish_beside(&entry, name)?;
        self.read_manifest(&entry, vec![name.clone()])
    }

    /// Brings the layers of an image that are elsewhere, for those who work with its blobs.
    ///
    /// # Errors
    /// One of them cannot be had.
    pub fn bring(&self, image: &Image) -> Result<(), ImageError> {
        // held as long as the process lives
        self.snapshots.get(&image.top())?;
        Ok(())
    }
}
