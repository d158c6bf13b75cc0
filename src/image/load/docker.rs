//! Docker archives: `manifest.json`, which lists configs and layers as members of the archive.

use super::archive::Source;
use super::{Candidate, Part, only_sha256, read_config};
use crate::digest::Digest;
use crate::image::ImageError;
use crate::image::documents::{self, CONFIG_LIMIT, DockerItem, MANIFEST_LIMIT};
use crate::oci::{Descriptor, media_type};
use crate::reference::Reference;

/// Most images of one archive.
const IMAGE_LIMIT: usize = 1000;

pub(super) fn candidates(source: &Source) -> Result<Vec<Candidate>, ImageError> {
    let bytes = source.need("manifest.json")?.read_all("manifest.json", MANIFEST_LIMIT)?;
    let items = documents::parse_docker_manifest(&bytes)?;
    if items.len() > IMAGE_LIMIT {
        return Err(ImageError::Archive(format!("it has more than {IMAGE_LIMIT} images")));
    }
    items.iter().map(|item| candidate(source, item)).collect()
}

fn candidate(source: &Source, item: &DockerItem) -> Result<Candidate, ImageError> {
    let config_bytes = source.need(&item.config)?.read_all(&item.config, CONFIG_LIMIT)?;
    // The member is mostly named after its digest: then that is a promise.
    if let Some(promised) = promised_digest(item.config.trim_end_matches(".json")) {
        let found = Digest::sha256_of(&config_bytes);
        if found != promised {
            return Err(ImageError::Lie { what: item.config.clone(), why: format!("its digest is {found}") });
        }
    }
    let members = item.layers.as_deref().unwrap_or_default();
    let config = read_config(&config_bytes, members.len())?;
    let layers = members.iter().map(|member| part(source, member)).collect::<Result<_, _>>()?;
    let mut names = Vec::new();
    for tag in item.repo_tags.iter().flatten() {
        let name: Reference = tag.parse()?;
        if name.digest().is_none() && !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(Candidate { config_bytes, config, layers, names, manifest: None })
}

fn part(source: &Source, member: &str) -> Result<Part, ImageError> {
    let found = source.need(member)?;
    let expected = match promised_digest(member).filter(|_| member.starts_with("blobs/")) {
        Some(digest) => {
            only_sha256(&digest)?;
            Some((digest, found.size()))
        }
        None => None,
    };
    // The media type comes from the bytes; a descriptor that is expected must have it already.
    let describe = |(digest, size)| -> Result<Descriptor, ImageError> {
        let mut magic = [0; 6];
        let mut found = source.need(member)?;
        let have = super::read_some(&mut found, &mut magic).map_err(crate::layer::LayerError::Read)?;
        let kind = match crate::layer::Format::of(&magic[..have]) {
            crate::layer::Format::Gzip => media_type::LAYER_GZIP,
            crate::layer::Format::Zstd => media_type::LAYER_ZSTD,
            _ => media_type::LAYER_TAR,
        };
        Ok(Descriptor {
            media_type: kind.into(),
            digest,
            size,
            annotations: Default::default(),
            platform: None,
        })
    };
    Ok(Part { member: member.to_owned(), expected: expected.map(describe).transpose()? })
}

/// Reads the last component of a name as 64 hex digits.
fn promised_digest(name: &str) -> Option<Digest> {
    let last = name.rsplit('/').next()?;
    format!("sha256:{last}").parse().ok()
}
