//! `inspect`: an image as the JSON that Docker's API gives.

use super::{Image, Images, documents};
use crate::digest::ImageId;
use crate::oci::Descriptor;
use crate::reference::Reference;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Docker's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// Fields of a config that Docker shows in any case, with what it shows for nothing.
const ALWAYS: [&str; 9] =
    ["User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "OnBuild"];

impl Images {
    /// Describes an image in the terms of `docker image inspect`.
    pub fn inspect(&self, image: &Image) -> Value {
        let config = &image.config;
        let size = self.size(image, &mut HashMap::new());
        let mut out = json!({
            "Id": image.shown_id().to_string(),
            "RepoTags": image.names.iter().map(Reference::familiar).collect::<Vec<_>>(),
            "RepoDigests": repo_digests(image),
            "Parent": "",
            "Comment": config.history.last().and_then(|h| h.comment.clone()).unwrap_or_default(),
            "Created": config.created.as_deref().unwrap_or(NEVER),
            "DockerVersion": "",
            "Author": config.author.as_deref().unwrap_or_default(),
            "Config": runtime_config(image),
            "Architecture": config.architecture,
            "Os": config.os,
            "Size": size,
            "GraphDriver": { "Name": "snapshots", "Data": null },
            "RootFS": {
                "Type": config.rootfs.kind,
                "Layers": config.rootfs.diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
            },
            "Metadata": { "LastTagTime": NEVER },
            "Descriptor": image.target(),
        });
        if let (Some(variant), Some(fields)) = (&config.variant, out.as_object_mut()) {
            fields.insert("Variant".into(), variant.as_str().into());
        }
        if let (Some(several), Some(fields)) = (&image.several, out.as_object_mut()) {
            let entry = |(entry, id): (&Descriptor, &ImageId)| json!({ "ID": id.to_string(), "Descriptor": entry, "Platform": entry.platform });
            let images = several.index.images().zip(&several.ids).map(entry).collect();
            fields.insert("Manifests".into(), Value::Array(images));
        }
        out
    }
}

/// Gives `repository@digest` for each repository that the image has a name in.
pub(super) fn repo_digests(image: &Image) -> Vec<String> {
    let digest = &image.target().digest;
    let mut all: Vec<String> = image.names.iter().map(|n| n.with_digest(digest).familiar()).collect();
    all.sort();
    all.dedup();
    all
}

fn runtime_config(image: &Image) -> Value {
    let text = documents::to_json(&image.config.config);
    let mut given: Map<String, Value> = serde_json::from_slice(&text).unwrap_or_default();
    let mut out = Map::new();
    for key in ALWAYS {
        let nothing = if matches!(key, "User" | "WorkingDir") { "".into() } else { Value::Null };
        let skip = matches!(key, "ExposedPorts") && !given.contains_key(key);
        if !skip {
            out.insert(key.into(), given.remove(key).unwrap_or(nothing));
        }
    }
    out.extend(given);
    Value::Object(out)
}
