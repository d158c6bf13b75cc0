//! One image of an OCI layout in a directory, taken into the store without a name: what a named build context
//! `oci-layout://DIR` stands for.

use super::super::documents::{self, MANIFEST_LIMIT};
use super::super::error::ImageError;
use super::super::index::{REF_NAME, name_of};
use super::super::{Image, Images};
use super::archive::Source;
use super::{blob_name, oci};
use crate::digest::Digest;
use crate::oci::{Descriptor, Index};
use crate::platform::Platform;
use std::path::Path;

/// Which image of a layout is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayoutPick {
    /// The only one, or the one with the tag `latest`.
    Default,
    /// The one with this tag.
    Tag(String),
    /// The manifest or index with this digest.
    Digest(Digest),
}

impl Images {
    /// Takes one image of the layout in a directory into the store. It gets no name; one that it has already stays.
    ///
    /// # Errors
    /// The directory is no layout, has no such image, has none for the platform, or is damaged.
    pub fn load_from_layout(
        &self,
        dir: &Path,
        pick: &LayoutPick,
        platform: &Platform,
    ) -> Result<Image, ImageError> {
        let _held = self.hold_blobs()?;
        let source = Source::dir(dir)?;
        let index = source.need("index.json")?.read_all("index.json", MANIFEST_LIMIT)?;
        let index = documents::parse_index(&index)?;
        let entry = choose(&source, &index, pick)?;
        let Some(candidate) = oci::candidate_of(&source, platform, &entry)? else {
            return Err(ImageError::Archive(format!("{} in it is no image", entry.digest)));
        };
        let (id, descriptor) = self.store_candidate(&source, &candidate)?;
        if self.get(&id).is_err() {
            self.publish(&descriptor, None)?;
        }
        self.get(&id)
    }
}

fn choose(source: &Source, index: &Index, pick: &LayoutPick) -> Result<Descriptor, ImageError> {
    let tagged = |tag: &str| index.manifests.iter().find(|entry| tag_of(entry).as_deref() == Some(tag));
    let missing = |what: String| {
        let tags: Vec<String> = index.manifests.iter().filter_map(tag_of).collect();
        let has =
            if tags.is_empty() { "no tags".to_owned() } else { format!("the tags {}", tags.join(", ")) };
        ImageError::Archive(format!("it has no image {what}; it has {has}"))
    };
    match pick {
        LayoutPick::Default => match (&index.manifests[..], tagged("latest")) {
            (_, Some(entry)) => Ok(entry.clone()),
            ([only], None) => Ok(only.clone()),
            _ => Err(missing("with the tag latest, and more or less than one in all".into())),
        },
        LayoutPick::Tag(tag) => tagged(tag).cloned().ok_or_else(|| missing(format!("with the tag {tag}"))),
        LayoutPick::Digest(digest) => {
            if let Some(entry) = index.manifests.iter().find(|entry| entry.digest == *digest) {
                return Ok(entry.clone());
            }
            described(source, digest)?.ok_or_else(|| missing(digest.to_string()))
        }
    }
}

/// The tag of an entry: the spec's annotation has it alone or at the end of a whole name.
fn tag_of(entry: &Descriptor) -> Option<String> {
    if let Some(name) = name_of(entry) {
        return name.tag().map(str::to_owned);
    }
    entry.annotations.get(REF_NAME).cloned()
}

/// Describes a manifest or index that `index.json` does not name itself.
fn described(source: &Source, digest: &Digest) -> Result<Option<Descriptor>, ImageError> {
    let name = blob_name(digest);
    let Some(member) = source.open(&name)? else { return Ok(None) };
    let size = member.size();
    let bytes = member.read_all(&name, MANIFEST_LIMIT)?;
    let document: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(|e| ImageError::Archive(format!("{name} is no manifest: {e}")))?;
    let kind = match (document["mediaType"].as_str(), document.get("manifests")) {
        (Some(kind), _) => kind,
        (None, Some(_)) => crate::oci::media_type::INDEX,
        (None, None) => crate::oci::media_type::MANIFEST,
    };
    let (media_type, digest) = (kind.to_owned(), digest.clone());
    Ok(Some(Descriptor { media_type, digest, size, annotations: Default::default(), platform: None }))
}
