//! A cache in a repository of a registry: `type=registry,ref=...`.

use super::document::{self, Document};
use super::inline;
use super::lasting::place_of;
use super::manifest::{self, Found};
use super::place::{CacheSource, CacheTarget, open};
use super::{ExportSpec, ShareError};
use crate::image::RemoteDocument;
use crate::oci::Descriptor;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Client, Resolved};
use crate::snapshot::LayerProvider;
use std::io::{self, Read};
use std::path::Path;

/// Indexes in indexes that are followed.
const MAX_DEPTH: usize = 3;
/// Longest image config in bytes.
const CONFIG_LIMIT: u64 = 16 << 20;

/// A repository with the tag that is meant.
pub(super) struct Repository {
    pub(super) client: Client,
    pub(super) name: Reference,
    /// Which image's record is read from an index of images.
    pub(super) platform: Platform,
}

impl Repository {
    /// Reads the record that an image carries.
    fn of_image(&self, mut found: Resolved) -> Result<Option<Document>, ShareError> {
        let wrong = |e: crate::image::ImageError| ShareError::Wrong(e.to_string());
        for _ in 0..MAX_DEPTH {
            let kind = &found.descriptor.media_type;
            match RemoteDocument::read(&found.bytes, kind, &self.platform).map_err(wrong)? {
                RemoteDocument::Index(chosen) => found = self.client.manifest(&self.name, &chosen)?,
                RemoteDocument::Image(image) => {
                    let config = self.client.blob_bytes(&self.name, &image.config, CONFIG_LIMIT)?;
                    return inline::document(&image, &config);
                }
            }
        }
        Ok(None)
    }
}

impl LayerProvider for Repository {
    fn open(&self, _place: &str, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.client.blob(&self.name, blob).map_err(io::Error::other)?))
    }
}

impl CacheSource for Repository {
    fn name(&self) -> String {
        self.name.familiar()
    }

    fn place(&self) -> String {
        place_of(&self.name)
    }

    fn lasts(&self) -> bool {
        true
    }

    fn document(&self) -> Result<Option<Document>, ShareError> {
        let found = match self.client.resolve(&self.name) {
            Err(error) if error.is_not_found() => return Ok(None),
            found => found?,
        };
        match manifest::read(&found.bytes)? {
            Found::Cache(config) => {
                let bytes = self.client.blob_bytes(&self.name, &config, document::LIMIT)?;
                Document::parse(&bytes).map(Some)
            }
            Found::Other => self.of_image(found),
        }
    }
}

impl CacheTarget for Repository {
    fn has(&self, blob: &Descriptor) -> Result<bool, ShareError> {
        Ok(self.client.has_blob(&self.name, &blob.digest)?)
    }

    fn put(&self, blob: &Descriptor, file: &Path) -> Result<(), ShareError> {
        let again = || Ok(Box::new(std::fs::File::open(file)?) as Box<dyn Read + Send>);
        // tells a file that cannot be read from a registry that does not answer
        drop(open(file)?);
        self.client.upload(&self.name, blob, None, &again)?;
        Ok(())
    }

    fn publish(&self, document: &Document, spec: &ExportSpec) -> Result<(), ShareError> {
        let written = manifest::write(document, spec);
        let bytes = || Ok(Box::new(io::Cursor::new(written.document.clone())) as Box<dyn Read + Send>);
        self.client.upload(&self.name, &written.config, None, &bytes)?;
        Ok(self.client.put_manifest(&self.name, &written.descriptor, &written.manifest)?)
    }
}
