//! OCI image layouts: from `index.json` through indexes to manifests.

use super::archive::Source;
use super::{Candidate, Part, blob_name, only_sha256, read_blob, read_config};
use crate::digest::Digest;
use crate::image::ImageError;
use crate::image::documents::{self, Document, MANIFEST_LIMIT};
use crate::image::index::name_of;
use crate::oci::{Descriptor, Index, Manifest};
use crate::platform::Platform;
use serde_json::Value;
use std::collections::HashSet;

/// Indexes within indexes; tools write one level, two at most.
const DEPTH_LIMIT: usize = 4;
/// Most descriptors that are looked at in one archive.
const DESCRIPTOR_LIMIT: usize = 10_000;

pub(super) fn candidates(source: &Source, wanted: &Platform) -> Result<Vec<Candidate>, ImageError> {
    let layout = source.need("oci-layout")?.read_all("oci-layout", MANIFEST_LIMIT)?;
    let layout: Value = serde_json::from_slice(&layout)
        .map_err(|e| ImageError::Archive(format!("its oci-layout cannot be read: {e}")))?;
    if layout["imageLayoutVersion"] != "1.0.0" {
        let version = &layout["imageLayoutVersion"];
        return Err(ImageError::Archive(format!(
            "OCI layout version {version} is not supported, only 1.0.0"
        )));
    }
    let index = source.need("index.json")?.read_all("index.json", MANIFEST_LIMIT)?;
    let index = documents::parse_index(&index)?;
    let mut walk = Walk { source, wanted, seen: HashSet::new(), looked_at: 0 };
    let mut found: Vec<Candidate> = Vec::new();
    for entry in &index.manifests {
        let Some((descriptor, bytes, manifest)) = walk.manifest(entry, 0)? else { continue };
        let name = name_of(entry).filter(|n| n.digest().is_none());
        let same =
            |c: &&mut Candidate| c.manifest.as_ref().is_some_and(|(d, _)| d.digest == descriptor.digest);
        if let Some(known) = found.iter_mut().find(same) {
            known.names.extend(name.filter(|n| !known.names.contains(n)));
            continue;
        }
        found.push(candidate(source, descriptor, bytes, &manifest, name.into_iter().collect())?);
    }
    Ok(found)
}

/// Reads the image that one descriptor leads to; `None` when it is none.
pub(super) fn candidate_of(
    source: &Source,
    wanted: &Platform,
    entry: &Descriptor,
) -> Result<Option<Candidate>, ImageError> {
    let mut walk = Walk { source, wanted, seen: HashSet::new(), looked_at: 0 };
    let Some((descriptor, bytes, manifest)) = walk.manifest(entry, 0)? else { return Ok(None) };
    candidate(source, descriptor, bytes, &manifest, Vec::new()).map(Some)
}

fn candidate(
    source: &Source,
    descriptor: Descriptor,
    bytes: Vec<u8>,
    manifest: &Manifest,
    names: Vec<crate::reference::Reference>,
) -> Result<Candidate, ImageError> {
    let config_bytes = read_blob(source, &manifest.config)?;
    let config = read_config(&config_bytes, manifest.layers.len())?;
    let part = |layer: &Descriptor| {
        only_sha256(&layer.digest)?;
        Ok(Part { member: blob_name(&layer.digest), expected: Some(layer.clone()) })
    };
    let layers = manifest.layers.iter().map(part).collect::<Result<_, ImageError>>()?;
    Ok(Candidate { config_bytes, config, layers, names, manifest: Some((descriptor, bytes)) })
}

struct Walk<'a> {
    source: &'a Source,
    wanted: &'a Platform,
    /// Indexes that were gone into on the way to here or before.
    seen: HashSet<Digest>,
    looked_at: usize,
}

type Found = (Descriptor, Vec<u8>, Manifest);

impl Walk<'_> {
    /// Goes down to the manifest that a descriptor means; `None` for what is no image.
    fn manifest(&mut self, entry: &Descriptor, depth: usize) -> Result<Option<Found>, ImageError> {
        self.looked_at += 1;
        if self.looked_at > DESCRIPTOR_LIMIT {
            return Err(ImageError::Archive(format!("it has more than {DESCRIPTOR_LIMIT} descriptors")));
        }
        if depth > DEPTH_LIMIT {
            return Err(ImageError::Archive(format!("its indexes are nested deeper than {DEPTH_LIMIT}")));
        }
        if entry.is_attestation() {
            return Ok(None);
        }
        let bytes = read_blob(self.source, entry)?;
        match documents::parse_document(&bytes, &entry.media_type)? {
            Document::Manifest(manifest) => Ok(Some((entry.clone(), bytes, manifest))),
            Document::Index(index) => {
                if !self.seen.insert(entry.digest.clone()) {
                    return Err(ImageError::Archive("an index is in it twice".into()));
                }
                self.choose(&index, depth)
            }
        }
    }

    /// Takes the image for the wanted platform; one that stands alone is taken whatever it is for.
    fn choose(&mut self, index: &Index, depth: usize) -> Result<Option<Found>, ImageError> {
        self.looked_at += index.manifests.len();
        match choose_image(index, self.wanted)? {
            Some(chosen) => self.manifest(&chosen, depth + 1),
            None => Ok(None),
        }
    }
}

/// Chooses the image for a platform; one that stands alone is taken whatever it is for, since who loads an archive wants
/// what is in it. `None` when no image is listed at all.
fn choose_image(index: &Index, wanted: &Platform) -> Result<Option<Descriptor>, ImageError> {
    let mut images = index.images();
    let only = images.next().filter(|_| images.next().is_none());
    let chosen = index.for_platform(wanted).or(only);
    if chosen.is_some() || index.images().next().is_none() {
        return Ok(chosen.cloned());
    }
    Err(ImageError::Archive(format!(
        "it has no image for {wanted}, only for {} (--platform says which)",
        index.platforms()
    )))
}
