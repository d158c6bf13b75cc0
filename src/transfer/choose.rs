//! From a name in a registry to one manifest: through indexes, for a platform.

use super::error::TransferError;
use crate::image::{Document, parse_document};
use crate::oci::{Descriptor, Index, Manifest};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Client, Resolved};
use std::collections::HashSet;

/// Indexes within indexes; tools write one level, two at most.
const DEPTH_LIMIT: usize = 4;
/// Most descriptors that are looked at for one image.
const DESCRIPTOR_LIMIT: usize = 10_000;

/// The manifest that a name means.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// Points at the manifest.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What is in it.
    pub manifest: Manifest,
}

/// Goes from what a name resolved to down to the manifest for a platform.
///
/// # Errors
/// There is none for it, or a document is no image's.
pub fn choose(
    client: &Client,
    name: &Reference,
    found: Resolved,
    wanted: &Platform,
) -> Result<Chosen, TransferError> {
    let mut found = found;
    let (mut seen, mut looked_at) = (HashSet::new(), 0);
    for _ in 0..=DEPTH_LIMIT {
        match parse(name, &found)? {
            Document::Manifest(manifest) => {
                return Ok(Chosen { descriptor: found.descriptor, bytes: found.bytes, manifest });
            }
            Document::Index(index) => {
                looked_at += index.manifests.len();
                if looked_at > DESCRIPTOR_LIMIT {
                    return Err(no_image(name, format!("it has more than {DESCRIPTOR_LIMIT} manifests")));
                }
                if !seen.insert(found.descriptor.digest.clone()) {
                    return Err(no_image(name, "an index is in it twice"));
                }
                let next = for_platform(name, &index, wanted)?;
                found = client.manifest(name, next)?;
            }
        }
    }
    Err(no_image(name, format!("its indexes are nested deeper than {DEPTH_LIMIT}")))
}

/// Lists the images in a document with their platforms: those of an index, or the one.
///
/// # Errors
/// It is no document of an image.
pub fn list(name: &Reference, found: &Resolved) -> Result<Vec<Descriptor>, TransferError> {
    Ok(match parse(name, found)? {
        Document::Manifest(_) => vec![found.descriptor.clone()],
        Document::Index(index) => index.images().cloned().collect(),
    })
}

fn parse(name: &Reference, found: &Resolved) -> Result<Document, TransferError> {
    use crate::oci::media_type::{DOCKER_INDEX, DOCKER_MANIFEST, INDEX, MANIFEST};
    // a server that sends JSON as just that says nothing; the document's own words count then
    let kind = match found.descriptor.media_type.as_str() {
        "application/json" | "text/plain" | "application/octet-stream" => "",
        kind => kind,
    };
    if kind.starts_with("application/vnd.docker.distribution.manifest.v1") {
        return Err(no_image(
            name,
            "it is in Docker's schema 1, which is not supported: push it again with a newer tool",
        ));
    }
    if !["", INDEX, MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].contains(&kind) {
        return Err(no_image(name, format!("the registry has {kind:?} there, which is no image")));
    }
    parse_document(&found.bytes, kind)
        .map_err(|source| TransferError::Document { name: name.familiar(), source })
}

fn for_platform<'a>(
    name: &Reference,
    index: &'a Index,
    wanted: &Platform,
) -> Result<&'a Descriptor, TransferError> {
    index.for_platform(wanted).ok_or_else(|| TransferError::Platform {
        name: name.familiar(),
        wanted: wanted.to_string(),
        has: index.platforms(),
    })
}

fn no_image(name: &Reference, why: impl Into<String>) -> TransferError {
    TransferError::NoImage { name: name.familiar(), why: why.into() }
}
