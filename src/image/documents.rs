//! Image documents from bytes that nobody vouches for: manifests, indexes, configs, Docker's `manifest.json`.
//!
//! Pure. Sizes are bounded before anything is parsed, nesting by serde_json's own limit. A document that could be read
//! as two kinds is refused (CVE-2021-41190), and its media type must be the one of the descriptor that led here.

use crate::oci::{Descriptor, ImageConfig, Index, Manifest, media_type};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Longest manifest or index in bytes.
pub(super) const MANIFEST_LIMIT: u64 = 4 << 20;
/// Longest config in bytes.
pub const CONFIG_LIMIT: u64 = 16 << 20;
/// Most layers of one image; overlayfs itself stops at 500.
pub(super) const LAYER_LIMIT: usize = 500;

/// A document that is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Too long to be looked at.
    #[error("{what} has {size} bytes, more than the {limit} that are accepted")]
    TooLarge {
        /// Which document.
        what: &'static str,
        /// Its length in bytes.
        size: u64,
        /// What is accepted.
        limit: u64,
    },
    /// Not JSON, or a field is missing or of another type.
    #[error("{what} cannot be read: {source}")]
    Json {
        /// Which document.
        what: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// It is JSON and breaks a rule.
    #[error("{what} is wrong: {why}")]
    Rule {
        /// Which document.
        what: &'static str,
        /// The rule.
        why: String,
    },
}

fn rule(what: &'static str, why: impl Into<String>) -> DocumentError {
    DocumentError::Rule { what, why: why.into() }
}

/// What a manifest descriptor can lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

/// Reads a manifest or index; `expected` is the media type of the descriptor that led here, empty if it had none.
///
/// # Errors
/// It is too long, no such document, or can be read in two ways.
pub fn parse_document(bytes: &[u8], expected: &str) -> Result<Document, DocumentError> {
    let what = "the manifest";
    let value: Value = json(bytes, what, MANIFEST_LIMIT)?;
    let has = |key: &str| value.get(key).is_some_and(|v| !v.is_null());
    if has("manifests") && (has("config") || has("layers")) {
        return Err(rule(what, "it has both manifests and config or layers, so it can be read in two ways"));
    }
    if has("fsLayers") || has("signatures") {
        return Err(rule(what, "Docker's schema 1 is not supported: convert the image to OCI or schema 2"));
    }
    let own = value.get("mediaType").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !own.is_empty() && !expected.is_empty() && own != expected {
        return Err(rule(what, format!("its media type is {own:?} and its descriptor says {expected:?}")));
    }
    let kind = if own.is_empty() { expected } else { &own };
    let is_index = has("manifests");
    let agrees = match kind {
        "" => true,
        media_type::INDEX | media_type::DOCKER_INDEX => is_index,
        media_type::MANIFEST | media_type::DOCKER_MANIFEST => !is_index,
        other => return Err(rule(what, format!("media type {other:?} is not that of an image"))),
    };
    if !agrees {
        return Err(rule(what, format!("it does not have the fields of a {kind}")));
    }
    if value.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
        return Err(rule(what, "its schemaVersion is not 2"));
    }
    let typed = |source| DocumentError::Json { what, source };
    if is_index {
        return serde_json::from_value(value).map(Document::Index).map_err(typed);
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(typed)?;
    check_manifest(&manifest)?;
    Ok(Document::Manifest(manifest))
}

fn check_manifest(manifest: &Manifest) -> Result<(), DocumentError> {
    let what = "the manifest";
    if !matches!(manifest.config.media_type.as_str(), media_type::CONFIG | media_type::DOCKER_CONFIG) {
        let kind = &manifest.config.media_type;
        return Err(rule(what, format!("its config is of type {kind:?}: not an image but another artifact")));
    }
    if manifest.layers.len() > LAYER_LIMIT {
        return Err(rule(what, format!("{} layers, more than {LAYER_LIMIT}", manifest.layers.len())));
    }
    for layer in &manifest.layers {
        if !is_layer(&layer.media_type) {
            return Err(rule(what, format!("layers of type {:?} are not supported", layer.media_type)));
        }
    }
    Ok(())
}

fn is_layer(kind: &str) -> bool {
    use media_type::{DOCKER_LAYER_GZIP, DOCKER_LAYER_TAR, LAYER_GZIP, LAYER_TAR, LAYER_ZSTD};
    [LAYER_TAR, LAYER_GZIP, LAYER_ZSTD, DOCKER_LAYER_TAR, DOCKER_LAYER_GZIP].contains(&kind)
}

/// Reads a config.
///
/// # Errors
/// It is too long, or no config of an image.
pub fn parse_config(bytes: &[u8]) -> Result<ImageConfig, DocumentError> {
    let what = "the image config";
    let config: ImageConfig = json(bytes, what, CONFIG_LIMIT)?;
    if config.rootfs.kind != "layers" {
        return Err(rule(what, format!("its rootfs is of type {:?}, not \"layers\"", config.rootfs.kind)));
    }
    if config.rootfs.diff_ids.len() > LAYER_LIMIT {
        return Err(rule(what, format!("{} layers, more than {LAYER_LIMIT}", config.rootfs.diff_ids.len())));
    }
    Ok(config)
}

/// Makes sure that a manifest and a config speak of the same number of layers.
pub(super) fn check_pair(layers: usize, config: &ImageConfig) -> Result<(), DocumentError> {
    let diffs = config.rootfs.diff_ids.len();
    if layers == diffs {
        return Ok(());
    }
    Err(rule("the image", format!("its manifest lists {layers} layers and its config {diffs}")))
}

/// One image in the `manifest.json` of a Docker archive.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerItem {
    /// Member that holds the config.
    pub config: String,
    /// Names; `null` when there are none.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// Members that hold the layers, lowest first.
    #[serde(default)]
    pub layers: Option<Vec<String>>,
}

/// Reads the `manifest.json` of a Docker archive.
pub(super) fn parse_docker_manifest(bytes: &[u8]) -> Result<Vec<DockerItem>, DocumentError> {
    json(bytes, "manifest.json", MANIFEST_LIMIT)
}

/// Reads an `index.json`.
pub(super) fn parse_index(bytes: &[u8]) -> Result<Index, DocumentError> {
    match parse_document(bytes, "")? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => Err(rule("index.json", "it is a manifest, not an index")),
    }
}

/// Writes a document as the store keeps it.
pub(super) fn to_json<T: serde::Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).expect("plain data always prints")
}

/// Points at bytes.
pub(super) fn describe(kind: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: kind.to_owned(),
        digest: crate::digest::Digest::sha256_of(bytes),
        size: bytes.len() as u64,
        annotations: Default::default(),
        platform: None,
    }
}

fn json<T: DeserializeOwned>(bytes: &[u8], what: &'static str, limit: u64) -> Result<T, DocumentError> {
    if bytes.len() as u64 > limit {
        return Err(DocumentError::TooLarge { what, size: bytes.len() as u64, limit });
    }
    serde_json::from_slice(bytes).map_err(|source| DocumentError::Json { what, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest() -> String {
        format!("sha256:{}", "a".repeat(64))
    }

    fn manifest(edit: impl FnOnce(&mut Value)) -> Vec<u8> {
        let part = |kind: &str| serde_json::json!({"mediaType": kind, "digest": digest(), "size": 1});
        let mut value = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST,
            "config": part(media_type::CONFIG), "layers": [part(media_type::LAYER_GZIP)]});
        edit(&mut value);
        to_json(&value)
    }

    #[test]
    fn a_manifest_is_read() {
        let document = parse_document(&manifest(|_| ()), media_type::MANIFEST).unwrap();
        assert!(matches!(document, Document::Manifest(m) if m.layers.len() == 1));
        assert!(
            parse_document(&manifest(|v| drop(v.as_object_mut().unwrap().remove("mediaType"))), "").is_ok()
        );
    }

    #[test]
    fn documents_that_lie_are_refused() {
        type Edit = fn(&mut Value);
        let cases: [(Edit, &str); 9] = [
            (|v| v["manifests"] = serde_json::json!([]), "in two ways"),
            (|v| v["mediaType"] = media_type::INDEX.into(), "descriptor says"),
            (|v| v["schemaVersion"] = 1.into(), "schemaVersion"),
            (|v| v["fsLayers"] = serde_json::json!([]), "schema 1"),
            (
                |v| v["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into(),
                "another artifact",
            ),
            (|v| v["layers"][0]["mediaType"] = "application/x-tar".into(), "not supported"),
            (|v| v["layers"][0]["digest"] = "sha256:../../etc/passwd".into(), "is not a digest"),
            (|v| v["layers"][0]["size"] = (-1).into(), "cannot be read"),
            (|v| v["layers"] = vec![v["layers"][0].clone(); 501].into(), "more than 500"),
        ];
        for (edit, part) in cases {
            let error = parse_document(&manifest(edit), media_type::MANIFEST).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let huge = vec![b' '; MANIFEST_LIMIT as usize + 1];
        assert!(matches!(parse_document(&huge, ""), Err(DocumentError::TooLarge { .. })));
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert!(matches!(parse_document(&deep, ""), Err(DocumentError::Json { .. })));
    }

    #[test]
    fn configs_are_checked() {
        let config = |n: usize| {
            serde_json::json!({"architecture": "amd64", "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": vec![digest(); n]}})
        };
        let read = parse_config(&to_json(&config(2))).unwrap();
        assert!(check_pair(2, &read).is_ok());
        assert!(check_pair(1, &read).unwrap_err().to_string().contains("1 layers and its config 2"));
        assert!(parse_config(&to_json(&config(501))).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_document(&bytes, "");
            let _ = parse_config(&bytes);
            let _ = parse_docker_manifest(&bytes);
        }
    }
}
