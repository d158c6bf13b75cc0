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
/// On what is no image but says something about one.
const ATTESTATION: &str = "vnd.docker.reference.type";

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
        Document::Index(index) => index.manifests.into_iter().filter(|d| !is_attestation(d)).collect(),
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
    let images: Vec<&Descriptor> = index.manifests.iter().filter(|d| !is_attestation(d)).collect();
    let rank = |d: &&&Descriptor| d.platform.as_ref().and_then(|own| fitness(wanted, own));
    // of equals the first counts
    let best = images.iter().filter(|d| rank(d).is_some()).rev().max_by_key(|d| rank(d));
    // one that names no platform, and stands alone, is for whoever wants it
    let only = images.first().filter(|d| images.len() == 1 && d.platform.is_none());
    if let Some(found) = best.or(only) {
        return Ok(found);
    }
    let has: Vec<String> =
        images.iter().filter_map(|d| d.platform.as_ref()).map(ToString::to_string).collect();
    let has = if has.is_empty() { "unnamed platforms".to_owned() } else { has.join(", ") };
    Err(TransferError::Platform { name: name.familiar(), wanted: wanted.to_string(), has })
}

/// Says how well an image for `own` serves who wants `wanted`; `None` for not at all. An arm runs what older ones run.
fn fitness(wanted: &Platform, own: &Platform) -> Option<u32> {
    // through the parser, which knows that aarch64 is arm64
    let own = own.to_string().parse().unwrap_or_else(|_| own.clone());
    if own == *wanted {
        return Some(100);
    }
    if wanted.os != own.os || wanted.architecture != own.architecture {
        return None;
    }
    let level =
        |p: &Platform| p.variant.as_deref().and_then(|v| v.trim_start_matches('v').parse::<u32>().ok());
    match (level(wanted), level(&own)) {
        (Some(most), Some(level)) => (level <= most).then_some(level + 1),
        (None, Some(_)) | (Some(_), None) => wanted.runs(&own).then_some(50),
        (None, None) => wanted.runs(&own).then_some(1),
    }
}

fn is_attestation(entry: &Descriptor) -> bool {
    entry.annotations.contains_key(ATTESTATION)
        || entry.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
}

fn no_image(name: &Reference, why: impl Into<String>) -> TransferError {
    TransferError::NoImage { name: name.familiar(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn index(platforms: &[&str]) -> Index {
        let entry = |text: &&str| Descriptor {
            media_type: crate::oci::media_type::MANIFEST.into(),
            digest: Digest::sha256_of(text.as_bytes()),
            size: 1,
            annotations: Default::default(),
            platform: match *text {
                "" => None,
                text => {
                    let mut parts = text.split('/').map(str::to_owned);
                    let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
                    Some(Platform { os, architecture, variant: parts.next() })
                }
            },
        };
        let manifests = platforms.iter().map(entry).collect();
        Index { schema_version: 2, media_type: None, manifests, annotations: Default::default() }
    }

    #[test]
    fn the_nearest_platform_is_chosen() {
        let name: Reference = "x".parse().unwrap();
        for (has, wanted, chosen) in [
            (&["linux/arm64/v8", "linux/amd64"][..], "linux/amd64", Some("linux/amd64")),
            (&["linux/amd64", "linux/arm64/v8"], "linux/arm64", Some("linux/arm64/v8")),
            (&["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm/v7", Some("linux/arm/v7")),
            (&["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm/v6", Some("linux/arm/v6")),
            (&["linux/arm/v5", "linux/arm/v7"], "linux/arm/v6", Some("linux/arm/v5")),
            (&["linux/arm/v7"], "linux/arm/v6", None),
            (&["linux/amd64/v3", "linux/amd64"], "linux/amd64", Some("linux/amd64")),
            (&["windows/amd64", "unknown/unknown"], "linux/amd64", None),
            (&[""], "linux/amd64", Some("")),
            (&["unknown/unknown", "linux/amd64"], "linux/amd64", Some("linux/amd64")),
        ] {
            let index = index(has);
            let found = for_platform(&name, &index, &wanted.parse().unwrap()).ok();
            let want = chosen.map(|c| Digest::sha256_of(c.as_bytes()));
            assert_eq!(found.map(|d| d.digest.clone()), want, "{has:?} {wanted}");
        }
    }
}
