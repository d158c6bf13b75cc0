//! The manifest of a cache in registries and layouts: an OCI artifact whose config is the document.
//!
//! Registries that want every layer listed keep it whole: the layers of the manifest are the layers of the document.
//! With `image-manifest=false` it is an index over the same blobs, as older BuildKits wrote it.

use super::document::Document;
use super::{ExportSpec, ShareError};
use crate::digest::Digest;
use crate::oci::{Descriptor, media_type};
use serde_json::{Value, json};

/// What the artifact is.
const ARTIFACT: &str = "application/vnd.rbuild.cache.v1";
/// Media type of the document.
pub(super) const CONFIG: &str = "application/vnd.rbuild.cache.config.v1+json";
/// Longest manifest in bytes.
pub(super) const LIMIT: u64 = 4 << 20;

/// A manifest that is about to be written.
pub(super) struct Written {
    pub(super) document: Vec<u8>,
    pub(super) config: Descriptor,
    pub(super) manifest: Vec<u8>,
    pub(super) descriptor: Descriptor,
}

/// Makes the manifest of a document.
pub(super) fn write(document: &Document, spec: &ExportSpec) -> Written {
    let bytes = document.to_json();
    let config = describe(CONFIG, &bytes);
    let mut layers = document.blobs();
    if !spec.oci_types {
        for layer in &mut layers {
            layer.media_type = docker_type(&layer.media_type).to_owned();
        }
    }
    let (kind, value) = if spec.image_manifest {
        let kind = if spec.oci_types { media_type::MANIFEST } else { media_type::DOCKER_MANIFEST };
        let mut value = json!({ "schemaVersion": 2, "mediaType": kind });
        if spec.oci_types {
            value["artifactType"] = ARTIFACT.into();
        }
        value["config"] = json!(config);
        value["layers"] = json!(layers);
        (kind, value)
    } else {
        let kind = if spec.oci_types { media_type::INDEX } else { media_type::DOCKER_INDEX };
        layers.push(config.clone());
        (kind, json!({ "schemaVersion": 2, "mediaType": kind, "manifests": layers }))
    };
    let manifest = value.to_string().into_bytes();
    let descriptor = describe(kind, &manifest);
    Written { document: bytes, config, manifest, descriptor }
}

fn docker_type(kind: &str) -> &str {
    match kind {
        media_type::LAYER_GZIP => media_type::DOCKER_LAYER_GZIP,
        media_type::LAYER_TAR => media_type::DOCKER_LAYER_TAR,
        other => other,
    }
}

/// What a manifest turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A cache; this is its document.
    Cache(Descriptor),
    /// Something else, an image perhaps.
    Other,
}

/// Tells a cache from an image.
///
/// # Errors
/// It is neither.
pub(super) fn read(bytes: &[u8]) -> Result<Found, ShareError> {
    let wrong = |why: String| ShareError::Wrong(format!("its manifest cannot be read: {why}"));
    let value: Value = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
    let ours = |d: &&Value| d.get("mediaType").and_then(Value::as_str) == Some(CONFIG);
    let listed = || value.get("manifests").and_then(Value::as_array)?.iter().find(ours);
    match value.get("config").filter(ours).or_else(listed) {
        Some(config) => {
            let config = serde_json::from_value(config.clone()).map_err(|e| wrong(e.to_string()))?;
            Ok(Found::Cache(config))
        }
        None => Ok(Found::Other),
    }
}

pub(super) fn describe(kind: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: kind.to_owned(),
        digest: Digest::sha256_of(bytes),
        size: bytes.len() as u64,
        annotations: Default::default(),
        platform: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for options in
            ["", ",image-manifest=false", ",oci-mediatypes=false", ",image-manifest=false,oci-mediatypes=0"]
        {
            let spec = ExportSpec::parse(&format!("type=registry,ref=x{options}")).unwrap();
            let written = write(&Document::new(), &spec);
            assert_eq!(read(&written.manifest).unwrap(), Found::Cache(written.config), "{options}");
        }
        assert_eq!(read(br#"{"config":{"mediaType":"x"},"layers":[]}"#).unwrap(), Found::Other);
        assert!(read(b"{").is_err());
        let lie = format!(r#"{{"config":{{"mediaType":"{CONFIG}","digest":"sha256:..","size":1}}}}"#);
        assert!(read(lie.as_bytes()).is_err());
    }
}
