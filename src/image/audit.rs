//! Looks at the list of images and at what every image needs, and makes anew what can be made: the list from its copy or from
//! the documents, layers from the blobs that they came as.

use super::documents::{self, MANIFEST_LIMIT};
use super::index::{self, name_of};
use super::pending::is_pending;
use super::{Document, Image, ImageError, Images, chain_ids};
use crate::digest::{Digest, ResultId};
use crate::image::assemble::oci_layer_type;
use crate::oci::{Descriptor, media_type};
use std::collections::HashSet;

/// No manifest is longer, in bytes; what is longer is no document.
const DOCUMENT: u64 = MANIFEST_LIMIT;

/// Something that is wrong with an image.
#[derive(Debug)]
pub struct ImageFlaw {
    /// Its name, or its digest if it has none.
    pub image: String,
    /// In words.
    pub wrong: String,
    /// What can be done.
    pub mend: Mend,
}

/// What can be done about a flaw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    /// [`Images::remake_list`].
    List,
    /// [`Images::mend`] of this entry: its lost layers are unpacked from their blobs.
    Unpack(Box<Descriptor>),
    /// Nothing here: it has to be built, loaded or pulled again.
    Nothing,
}

impl Images {
    /// Looks at the list, at the documents of every image and whether its layers are here. Files of layers and contents of blobs
    /// are not read.
    pub fn audit(&self) -> Vec<ImageFlaw> {
        let list = |wrong: String| ImageFlaw { image: "list of images".into(), wrong, mend: Mend::List };
        let mut flaws: Vec<ImageFlaw> = self.check_lists().into_iter().map(list).collect();
        // its damage is among the flaws
        let entries = self.entries().unwrap_or_default();
        let mut seen = HashSet::new();
        for entry in entries.iter().filter(|entry| seen.insert(entry.digest.clone())) {
            let image = name_of(entry).map_or_else(|| entry.digest.to_string(), |name| name.familiar());
            if let Some((wrong, mend)) = self.audit_entry(entry) {
                flaws.push(ImageFlaw { image, wrong, mend });
            }
        }
        flaws
    }

    fn audit_entry(&self, entry: &Descriptor) -> Option<(String, Mend)> {
        if is_pending(entry) {
            let needs = match self.needs(entry) {
                Ok(needs) => needs,
                Err(error) => return Some((error.to_string(), Mend::Nothing)),
            };
            let lost = needs.results.iter().find(|id| !self.snapshots.stands(id))?;
            return Some((format!("the result {lost} of its build is gone"), Mend::Nothing));
        }
        // of several under one name each
        let members = match self.read_image(entry, &[]).and_then(|image| self.members(&image)) {
            Ok(members) => members,
            Err(error) => return Some((error.to_string(), Mend::Nothing)),
        };
        let broken: Vec<&Image> =
            members.iter().map(|(_, image)| image).filter(|i| !self.snapshots.stands(&i.top())).collect();
        let lost = broken.iter().find_map(|image| Some(words(image, self.lost_layer(image)?)));
        match lost {
            Some(wrong) => Some((wrong, Mend::Nothing)),
            None if broken.is_empty() => None,
            None => {
                let wrong = "a layer is not unpacked any more; its blob is here".to_owned();
                Some((wrong, Mend::Unpack(Box::new(entry.clone()))))
            }
        }
    }

    /// Gives the first layer that is neither unpacked, nor a blob, nor known to be elsewhere.
    fn lost_layer(&self, image: &Image) -> Option<usize> {
        let chain = chain_ids(&image.config);
        let here = |n: &usize| {
            let id = ResultId::chain(&chain[*n]);
            self.snapshots.has(&id) || self.store.blobs().has(&image.manifest.layers[*n].digest)
        };
        (0..chain.len()).find(|n| !here(n))
    }

    /// Unpacks again those layers of an image that are lost and whose blobs are here; does nothing for a whole image.
    /// Gives whether something was done.
    ///
    /// # Errors
    /// A layer is lost: the text names it and says what to do.
    pub fn mend(&self, image: &Image) -> Result<bool, ImageError> {
        if self.snapshots.stands(&image.top()) {
            return Ok(false);
        }
        let damaged = |why| ImageError::Damaged { image: image.id.clone(), why };
        if let Some(n) = self.lost_layer(image) {
            return Err(damaged(words(image, n)));
        }
        let _held = self.hold_blobs()?;
        let mut parent = ResultId::scratch();
        let layers = image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids);
        for ((layer, diff_id), chain) in layers.zip(chain_ids(&image.config)) {
            let id = ResultId::chain(&chain);
            if !self.snapshots.stands(&id) && self.store.blobs().has(&layer.digest) {
                let mut blob = layer.clone();
                blob.media_type = oci_layer_type(&layer.media_type).to_owned();
                let bytes = Box::new(self.store.blobs().open(&layer.digest)?);
                self.snapshots.apply_layer(&parent, &chain, diff_id, Some(blob), bytes)?;
            }
            parent = id;
        }
        match self.snapshots.stands(&image.top()) {
            true => Ok(true),
            false => Err(damaged("a layer below another is lost".into())),
        }
    }

    /// The same for an entry that [`Images::audit`] has named.
    ///
    /// # Errors
    /// As [`Images::mend`].
    pub fn mend_entry(&self, entry: &Descriptor) -> Result<bool, ImageError> {
        let mut done = false;
        for (_, image) in self.members(&self.read_image(entry, &[])?)? {
            done |= self.mend(&image)?;
        }
        Ok(done)
    }

    /// Mends all images that can be mended; gives whether any was.
    pub fn mend_all(&self) -> bool {
        let entries = self.entries().unwrap_or_default();
        let mut done = false;
        for entry in entries.iter().filter(|entry| !is_pending(entry)) {
            done |= self.mend_entry(entry).unwrap_or(false);
        }
        done
    }

    /// Makes the list anew: from its copy, and where that is lost too, from all manifests that are here, without names. Gives
    /// how many images it has.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn remake_list(&self) -> Result<usize, ImageError> {
        let found = match self.entries() {
            Ok(_) => Vec::new(),
            Err(_) => self.manifests_here()?,
        };
        self.replace_list(|entries| {
            for manifest in &found {
                index::put(entries, manifest, None);
            }
            entries.len()
        })
    }

    /// Finds the blobs that are manifests of images whose config is here, and the indexes of such; what an index leads to
    /// needs no entry of its own.
    fn manifests_here(&self) -> Result<Vec<Descriptor>, ImageError> {
        let blobs = self.store.blobs();
        let (mut found, mut inside) = (Vec::new(), HashSet::new());
        for digest in blobs.list()? {
            if blobs.size(&digest)? > DOCUMENT {
                continue;
            }
            let Ok(bytes) = blobs.read(&digest, DOCUMENT) else { continue };
            if !bytes.starts_with(b"{") {
                continue;
            }
            match documents::parse_document(&bytes, "") {
                Ok(Document::Manifest(manifest)) if blobs.has(&manifest.config.digest) => {
                    let kind = manifest.media_type.as_deref().unwrap_or(media_type::MANIFEST);
                    found.push(documents::describe(kind, &bytes));
                }
                Ok(Document::Index(index)) if index.manifests.iter().all(|m| blobs.has(&m.digest)) => {
                    let kind = index.media_type.as_deref().unwrap_or(media_type::INDEX);
                    found.push(documents::describe(kind, &bytes));
                    inside.extend(index.manifests.into_iter().map(|manifest| manifest.digest));
                }
                _ => {}
            }
        }
        found.retain(|entry| !inside.contains(&entry.digest));
        Ok(found)
    }

    /// Names the images that need a blob.
    pub fn users_of_blob(&self, blob: &Digest) -> Vec<String> {
        let entries = self.entries().unwrap_or_default();
        let needs = |entry: &&Descriptor| {
            entry.digest == *blob || self.needs(entry).is_ok_and(|needs| needs.blobs.contains(blob))
        };
        let name =
            |entry: &Descriptor| name_of(entry).map_or_else(|| entry.digest.to_string(), |n| n.familiar());
        entries.iter().filter(needs).map(name).collect()
    }
}

fn words(image: &Image, layer: usize) -> String {
    let all = image.manifest.layers.len();
    let digest = &image.manifest.layers[layer].digest;
    format!("layer {} of {all} ({digest}) is lost", layer + 1)
}
