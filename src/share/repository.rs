//! A cache in a repository of a registry: `type=registry,ref=...`.

use super::document as cache;
use super::inline;
use super::lasting::place_of;
use super::manifest::{self, Found};
use super::place::{CacheSource, CacheTarget, open};
use super::{ExportSpec, ShareError};
use crate::image::{CONFIG_LIMIT, Document, DocumentError, parse_document};
use crate::oci::{Descriptor, Manifest};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Client, Resolved};
use crate::snapshot::LayerProvider;
use std::io::{self, Read};
use std::path::Path;

/// A repository with the tag that is meant.
pub(super) struct Repository {
    pub(super) client: Client,
    pub(super) name: Reference,
    /// Which images' records are read from an index of images.
    pub(super) platforms: Vec<Platform>,
}

impl Repository {
    /// Reads the records that an image carries: of an index that of each platform that the build is for.
    fn of_image(&self, found: &Resolved) -> Result<Option<cache::Document>, ShareError> {
        let wrong = |e: DocumentError| ShareError::Wrong(e.to_string());
        let index = match parse_document(&found.bytes, &found.descriptor.media_type).map_err(wrong)? {
            Document::Manifest(image) => return self.record(&image),
            Document::Index(index) => index,
        };
        let mut all: Option<cache::Document> = None;
        let mut read = Vec::new();
        for entry in self.platforms.iter().filter_map(|platform| index.for_platform(platform)) {
            if read.contains(&&entry.digest) {
                continue;
            }
            read.push(&entry.digest);
            let found = self.client.manifest(&self.name, entry)?;
            let document = parse_document(&found.bytes, &found.descriptor.media_type).map_err(wrong)?;
            if let Document::Manifest(image) = document
                && let Some(record) = self.record(&image)?
            {
                all.get_or_insert_with(cache::Document::new).extend(record);
            }
        }
        Ok(all)
    }

    fn record(&self, image: &Manifest) -> Result<Option<cache::Document>, ShareError> {
        let config = self.client.blob_bytes(&self.name, &image.config, CONFIG_LIMIT)?;
        inline::document(image, &config)
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

    fn document(&self) -> Result<Option<cache::Document>, ShareError> {
        let found = match self.client.resolve(&self.name) {
            Err(error) if error.is_not_found() => return Ok(None),
            found => found?,
        };
        match manifest::read(&found.bytes)? {
            Found::Cache(config) => {
                let bytes = self.client.blob_bytes(&self.name, &config, cache::LIMIT)?;
                cache::Document::parse(&bytes).map(Some)
            }
            Found::Other => self.of_image(&found),
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

    fn publish(&self, document: &cache::Document, spec: &ExportSpec) -> Result<(), ShareError> {
        let written = manifest::write(document, spec);
        let bytes = || Ok(Box::new(io::Cursor::new(written.document.clone())) as Box<dyn Read + Send>);
        self.client.upload(&self.name, &written.config, None, &bytes)?;
        Ok(self.client.put_manifest(&self.name, &written.descriptor, &written.manifest)?)
    }
}
