//! An image on its way to a registry: what its manifest will say, and the bytes of those layers that are asked for.
//!
//! A layer that came with a blob goes as that blob. One that was built here is compressed when somebody wants its bytes; what
//! came out is remembered with the snapshot, so that the next time it is known without work what a registry should have.
//! An image of which nothing has to be made keeps its manifest to the byte, and so its digest.

use super::documents::{self, CONFIG_LIMIT, MANIFEST_LIMIT};
use super::export::layout::in_index;
use super::export::pack::as_stored;
use super::layers::LayerSource;
use super::several::new_index;
use super::{Annotations, ExportOptions, Image, ImageError, Images};
use crate::digest::DiffId;
use crate::layer::Compression;
use crate::oci::{Descriptor, Manifest, media_type};
use crate::store::{Lock, TempDir};
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

/// An image that goes out, held against removal.
pub struct Outgoing<'a> {
    images: &'a Images,
    image: Image,
    sources: Vec<LayerSource>,
    options: ExportOptions,
    config: Vec<u8>,
    temp: TempDir,
    _held: Lock,
}

/// The bytes of a layer as a registry gets them.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Names them.
    pub descriptor: Descriptor,
    path: PathBuf,
}

impl Ready {
    /// Opens them from the beginning.
    ///
    /// # Errors
    /// They are gone.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(&self.path)?))
    }
}

impl Images {
    /// Begins to send an image.
    ///
    /// # Errors
    /// Its documents or the store cannot be read.
    pub fn outgoing(&self, image: &Image, options: &ExportOptions) -> Result<Outgoing<'_>, ImageError> {
        let held = self.hold_blobs()?;
        Ok(Outgoing {
            images: self,
            sources: self.layer_sources(image),
            config: self.store.blobs().read(&image.id.0, CONFIG_LIMIT)?,
            image: image.clone(),
            options: options.clone(),
            temp: self.store.temp_dir("push")?,
            _held: held,
        })
    }
}

/// Gives the index of images that go out, for manifests that are the images' in order.
pub fn outgoing_index(
    image: &Image,
    members: &[(Descriptor, Image)],
    manifests: &[Descriptor],
    options: &ExportOptions,
) -> (Descriptor, Vec<u8>) {
    let entries = members.iter().zip(manifests);
    let entries = entries.map(|((before, member), new)| in_index(new.clone(), before, member, options));
    let kept = image.several.as_ref().map(|several| several.index.annotations.clone());
    let mut annotations = kept.unwrap_or_default();
    annotations.extend(options.notes.index());
    let bytes = documents::to_json(&new_index(entries.collect(), annotations));
    (documents::describe(media_type::INDEX, &bytes), bytes)
}

impl Outgoing<'_> {
    /// Gives the number of layers.
    pub fn layers(&self) -> usize {
        self.sources.len()
    }

    /// Names a layer by its content.
    pub fn diff_id(&self, layer: usize) -> &DiffId {
        &self.sources[layer].diff_id
    }

    /// Gives the length of a layer as the manifest here has it, in bytes.
    pub fn size(&self, layer: usize) -> u64 {
        self.sources[layer].descriptor.size
    }

    /// Says what a layer's blob is, if that is known without making it.
    pub fn known(&self, layer: usize) -> Option<Descriptor> {
        let source = &self.sources[layer];
        if self.goes_as_stored(source) {
            return Some(as_stored(source));
        }
        let info = self.images.snapshots.layer_at(&source.result, source.epoch()).ok()?;
        info.packed.get(&self.manner()).cloned()
    }

    /// Makes the bytes of a layer ready.
    ///
    /// # Errors
    /// The layer is missing or damaged, or `tmp/` cannot be written.
    pub fn ready(&self, layer: usize) -> Result<Ready, ImageError> {
        let source = &self.sources[layer];
        let has_blob = || self.images.store.blobs().has(&source.descriptor.digest);
        if self.goes_as_stored(source) && !has_blob() && !self.images.snapshots.is_present(&source.result) {
            self.images.bring(&self.image)?;
        }
        if has_blob() && !self.options.force_compression {
            let path = self.images.store.blobs().path(&source.descriptor.digest);
            return Ok(Ready { descriptor: as_stored(source), path });
        }
        let (descriptor, path) = self.images.stage_layer(source, self.compression(), &self.temp)?;
        self.remember(source, &descriptor)?;
        Ok(Ready { descriptor, path })
    }

    /// Gives the config and its descriptor.
    pub fn config(&self) -> (Descriptor, &[u8]) {
        let stored = &self.image.manifest.config;
        let kind = if self.is_untouched() { stored.media_type.as_str() } else { media_type::CONFIG };
        (documents::describe(kind, &self.config), &self.config)
    }

    /// Gives the manifest for layers of these descriptors, lowest first.
    ///
    /// # Errors
    /// The stored manifest cannot be read.
    pub fn manifest(&self, layers: Vec<Descriptor>) -> Result<(Descriptor, Vec<u8>), ImageError> {
        let same = |(new, old): (&Descriptor, &LayerSource)| new.digest == old.descriptor.digest;
        if self.is_untouched() && layers.iter().zip(&self.sources).all(same) {
            let bytes = self.images.store.blobs().read(&self.image.descriptor.digest, MANIFEST_LIMIT)?;
            return Ok((self.image.descriptor.clone(), bytes));
        }
        let mut annotations = self.image.manifest.annotations.clone();
        annotations.extend(self.notes());
        let manifest = documents::to_json(&Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.into()),
            config: documents::describe(media_type::CONFIG, &self.config),
            layers,
            annotations,
        });
        Ok((documents::describe(media_type::MANIFEST, &manifest), manifest))
    }

    /// Gives the annotations that the manifest gets on its way.
    fn notes(&self) -> Annotations {
        self.options.notes.manifest(&self.image.platform())
    }

    /// Whether the stored manifest is the one that goes out.
    fn is_untouched(&self) -> bool {
        self.notes().is_empty() && self.sources.iter().all(|s| self.goes_as_stored(s))
    }

    /// A blob that others made stays what it is, even where it is not here any more and only a registry has it.
    fn goes_as_stored(&self, source: &LayerSource) -> bool {
        let foreign = source.descriptor.digest != source.diff_id.0;
        (source.has_blob || foreign) && !self.options.force_compression
    }

    fn compression(&self) -> Compression {
        self.options.compression.unwrap_or(Compression::Gzip(6))
    }

    /// Names the way of compressing, so that what came of it can be found again.
    fn manner(&self) -> String {
        match self.compression() {
            Compression::None => "tar".into(),
            Compression::Gzip(level) => format!("gzip{level}"),
            Compression::Zstd(level) => format!("zstd{level}"),
        }
    }

    fn remember(&self, source: &LayerSource, descriptor: &Descriptor) -> Result<(), ImageError> {
        let mut info = self.images.snapshots.layer_at(&source.result, source.epoch())?;
        if info.packed.insert(self.manner(), descriptor.clone()).as_ref() != Some(descriptor) {
            self.images.snapshots.set_layer(&source.result, source.epoch(), &info)?;
        }
        Ok(())
    }
}
