//! Lists of images for several platforms, and which of them is whose.

use super::Descriptor;
use crate::platform::Platform;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// On what is no image but says something about one.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// A list of manifests (image-spec image-index.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Must agree with the descriptor that points here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Manifests or further indexes.
    pub manifests: Vec<Descriptor>,
    /// Free notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// Gives what is an image, or an index of images, and no attestation about one.
    pub fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|entry| !entry.is_attestation())
    }

    /// Chooses the image that serves a platform best; of equals the first counts. One that names no platform and
    /// stands alone is for whoever wants it.
    pub fn for_platform(&self, wanted: &Platform) -> Option<&Descriptor> {
        let images: Vec<&Descriptor> = self.images().collect();
        let rank = |entry: &Descriptor| entry.platform.as_ref().and_then(|own| wanted.fitness(own));
        let fits = images.iter().filter(|entry| rank(entry).is_some());
        let best = fits.rev().max_by_key(|entry| rank(entry)).copied();
        best.or_else(|| images.first().filter(|d| images.len() == 1 && d.platform.is_none()).copied())
    }

    /// Names the platforms that it has images for, for messages.
    pub fn platforms(&self) -> String {
        let named: Vec<String> =
            self.images().filter_map(|d| d.platform.as_ref()).map(ToString::to_string).collect();
        if named.is_empty() { "unnamed platforms".to_owned() } else { named.join(", ") }
    }
}

impl Descriptor {
    /// Says whether what it points at is no image but says something about one.
    pub fn is_attestation(&self) -> bool {
        self.annotations.contains_key(ATTESTATION)
            || self.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
    }
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
            (&["", "linux/arm64"], "linux/amd64", None),
            (&["unknown/unknown", "linux/amd64"], "linux/amd64", Some("linux/amd64")),
        ] {
            let index = index(has);
            let found = index.for_platform(&wanted.parse().unwrap());
            let want = chosen.map(|c| Digest::sha256_of(c.as_bytes()));
            assert_eq!(found.map(|d| d.digest.clone()), want, "{has:?} {wanted}");
        }
        assert_eq!(index(&["linux/amd64", "linux/arm64"]).platforms(), "linux/amd64, linux/arm64");
    }
}
