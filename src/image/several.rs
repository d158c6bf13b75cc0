//! Images for several platforms under one name: the index that the name points at, and which of its images is meant.
//!
//! The index is a blob like a manifest, and only the list of images names it. Its images need no entries of their own:
//! they are reached through it, stay as long as it does, and go with it. Who asks for the name without saying a
//! platform gets the image for this machine, else the first.

use super::documents::{self, Document, MANIFEST_LIMIT};
use super::index::name_of;
use super::notes::Annotations;
use super::{AssembleRequest, Image, ImageError, Images, index};
use crate::digest::{Digest, ImageId};
use crate::oci::{Descriptor, Index, media_type};
use crate::platform::Platform;
use crate::reference::Reference;

/// The index that names lead to.
#[derive(Debug, Clone, PartialEq)]
pub struct Several {
    /// Points at it; without annotations.
    pub descriptor: Descriptor,
    /// What is in it.
    pub index: Index,
    /// The images, in its order.
    pub ids: Vec<ImageId>,
}

/// One image of an index that is to be made.
#[derive(Debug, Clone)]
pub struct Member {
    /// For what it is.
    pub platform: Platform,
    /// What it is made of; without names.
    pub request: AssembleRequest,
    /// Notes beside it in the index.
    pub annotations: Annotations,
}

/// Says whether an entry of the list leads to an index.
pub(super) fn is_index(entry: &Descriptor) -> bool {
    [media_type::INDEX, media_type::DOCKER_INDEX].contains(&entry.media_type.as_str())
}

impl Image {
    /// Gives what its names point at: the manifest, or the index that led here.
    pub fn target(&self) -> &Descriptor {
        self.several.as_ref().map_or(&self.descriptor, |several| &several.descriptor)
    }

    /// Gives the IDs of all images under its names.
    pub fn ids(&self) -> &[ImageId] {
        self.several.as_ref().map_or(std::slice::from_ref(&self.id), |several| &several.ids)
    }

    /// Gives what people call it: the image ID, or the digest of the index.
    pub fn shown_id(&self) -> &Digest {
        self.several.as_ref().map_or(&self.id.0, |several| &several.descriptor.digest)
    }

    /// Gives the same image without those for other platforms.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { several: None, ..self }
    }
}

impl Images {
    /// As [`Images::resolve`], and of several images under the name the one for a platform.
    ///
    /// # Errors
    /// As [`Images::resolve`]; none of several is for the platform. An image that is the only one is taken whatever it is
    /// for.
    pub fn resolve_for(&self, text: &str, platform: Option<&Platform>) -> Result<Image, ImageError> {
        let image = self.resolve(text)?;
        match (&image.several, platform) {
            (Some(several), Some(wanted)) => {
                let found = several.index.for_platform(wanted).ok_or_else(|| ImageError::Platform {
                    name: text.to_owned(),
                    wanted: wanted.to_string(),
                    has: several.index.platforms(),
                })?;
                self.read_manifest(found, image.names.clone())
            }
            _ => Ok(image),
        }
    }

    /// Gives the images under the names of an image, each with its entry in the index; an image that is the only one has
    /// one that says nothing but its platform.
    ///
    /// # Errors
    /// One is damaged.
    pub fn members(&self, image: &Image) -> Result<Vec<(Descriptor, Image)>, ImageError> {
        let Some(several) = &image.several else {
            let entry = Descriptor { platform: Some(image.platform()), ..image.descriptor.clone() };
            return Ok(vec![(entry, image.clone())]);
        };
        let read = |entry: &Descriptor| Ok((entry.clone(), self.read_manifest(entry, image.names.clone())?));
        several.index.images().map(read).collect()
    }

    /// Finds what an index in the store, by its digest, leads to.
    ///
    /// # Errors
    /// No name and no place in the list leads to it, or it is damaged.
    pub fn get_index(&self, digest: &Digest) -> Result<Image, ImageError> {
        let entries = self.entries()?;
        let entry = entries.iter().find(|e| e.digest == *digest);
        let missing = || ImageError::NotFound { name: digest.to_string(), hint: None };
        self.read_image(entry.ok_or_else(missing)?, &entries)
    }

    /// Reads the index that an entry leads to and the image in it for this machine, else the first.
    pub(super) fn read_several(
        &self,
        entry: &Descriptor,
        names: Vec<Reference>,
    ) -> Result<Image, ImageError> {
        let bytes = self.store.blobs().read(&entry.digest, MANIFEST_LIMIT)?;
        let Document::Index(index) = documents::parse_document(&bytes, &entry.media_type)? else {
            return Err(ImageError::Archive("an index of the store is a manifest".into()));
        };
        let first = index.images().next();
        let chosen = index.for_platform(&Platform::host()).or(first);
        let chosen =
            chosen.ok_or_else(|| ImageError::Archive("an index of the store lists no image".into()))?;
        let image = self.read_manifest(chosen, names)?;
        let id = |entry: &Descriptor| Ok(ImageId(self.parse_manifest(entry)?.config.digest));
        let ids = index.images().map(id).collect::<Result<_, ImageError>>()?;
        let descriptor = Descriptor { annotations: Default::default(), platform: None, ..entry.clone() };
        Ok(Image { several: Some(Box::new(Several { descriptor, index, ids })), ..image })
    }

    /// Makes one image for each platform and gives the index of all of them the names; without any it stays without
    /// name.
    ///
    /// # Errors
    /// As [`Images::assemble`].
    pub fn assemble_several(
        &self,
        members: &[Member],
        annotations: &Annotations,
        names: &[Reference],
    ) -> Result<Image, ImageError> {
        let _held = self.hold_blobs()?;
        let mut entries = Vec::with_capacity(members.len());
        for member in members {
            let base = member.request.base.as_ref().map(|b| self.get(&b.image)).transpose()?;
            let written = self.assemble_on(&member.request, base.as_ref())?;
            entries.push(Descriptor {
                annotations: member.annotations.clone(),
                platform: Some(member.platform.clone()),
                ..written.manifest
            });
        }
        let descriptor = self.put_index(entries, annotations)?;
        self.change_entries(|entries| {
            if names.is_empty() {
                index::put(entries, &descriptor, None);
            }
            for name in names {
                index::put(entries, &descriptor, Some(name));
            }
            Ok(())
        })?;
        self.get_index(&descriptor.digest)
    }

    /// Keeps an index and describes it.
    fn put_index(
        &self,
        manifests: Vec<Descriptor>,
        annotations: &Annotations,
    ) -> Result<Descriptor, ImageError> {
        let bytes = documents::to_json(&new_index(manifests, annotations.clone()));
        self.store.blobs().put(&bytes, true)?;
        Ok(documents::describe(media_type::INDEX, &bytes))
    }

    /// Gives an image that came from a registry a name. An image for another platform that has the name keeps it, too: a
    /// build that takes a base for a second platform must not lose the first.
    pub(super) fn publish_beside(&self, entry: &Descriptor, name: &Reference) -> Result<(), ImageError> {
        let new = self.read_manifest(entry, Vec::new())?;
        self.change_entries(|entries| {
            let before = entries.iter().find(|e| name_of(e).as_ref() == Some(name));
            let others = before.and_then(|before| self.others(before, &new).ok()).unwrap_or_default();
            if others.is_empty() {
                index::put(entries, entry, Some(name));
                return Ok(());
            }
            let own = Descriptor {
                annotations: Default::default(),
                platform: Some(new.platform().normal()),
                ..entry.clone()
            };
            let all = others.into_iter().chain([own]).collect();
            let mut joined = self.put_index(all, &Annotations::new())?;
            let was = before.map(|before| before.digest.clone());
            joined.annotations.clone_from(&entry.annotations);
            index::put(entries, &joined, Some(name));
            // what the name led to is in what it leads to now
            entries.retain(|e| Some(&e.digest) != was.as_ref() || name_of(e).is_some());
            Ok(())
        })
    }

    /// Lists what an entry leads to for other platforms than that of an image.
    fn others(&self, entry: &Descriptor, new: &Image) -> Result<Vec<Descriptor>, ImageError> {
        let image = self.read_image(entry, &[])?;
        let mut others = Vec::new();
        for (mut entry, member) in self.members(&image)? {
            let platform = member.platform().normal();
            if platform != new.platform().normal() && !platform.os.is_empty() {
                entry.platform = Some(platform);
                others.push(entry);
            }
        }
        Ok(others)
    }
}

/// Writes an index of manifests.
pub(super) fn new_index(manifests: Vec<Descriptor>, annotations: Annotations) -> Index {
    Index { schema_version: 2, media_type: Some(media_type::INDEX.into()), manifests, annotations }
}
