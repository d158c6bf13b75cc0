//! Looks into what rbuild exports: tars as lists of entries, image archives as configs, layers and their agreement.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// One tar entry, as much of it as tests compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: tar::EntryType,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) link: Option<String>,
    pub(crate) xattrs: Vec<String>,
    pub(crate) content: Vec<u8>,
}

/// The entries of an uncompressed tar by name, names without leading `./` and trailing `/`.
pub(crate) fn entries(reader: impl Read) -> BTreeMap<String, Entry> {
    let mut archive = tar::Archive::new(reader);
    let mut found = BTreeMap::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("a tar entry");
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.trim_start_matches("./").trim_start_matches('/').trim_end_matches('/').to_owned();
        let link = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
        let xattrs = entry
            .pax_extensions()
            .ok()
            .flatten()
            .map(|all| {
                all.flatten()
                    .filter_map(|e| e.key().ok()?.strip_prefix("SCHILY.xattr.").map(str::to_owned))
                    .collect()
            })
            .unwrap_or_default();
        let (kind, mode, uid, gid) = {
            let header = entry.header();
            let number = |field: std::io::Result<u64>| field.expect("a number in a header");
            (header.entry_type(), header.mode().expect("a mode"), number(header.uid()), number(header.gid()))
        };
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("an entry's content");
        found.insert(name, Entry { kind, mode, uid, gid, link, xattrs, content });
    }
    found
}

/// The entries of a tar file.
pub(crate) fn read(path: &Path) -> BTreeMap<String, Entry> {
    entries(File::open(path).expect("the archive"))
}

/// An image taken apart: its config, and each layer uncompressed.
pub(crate) struct Image {
    pub(crate) config: Value,
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) names: Vec<String>,
}

impl Image {
    /// Reads an OCI archive (`--output type=oci`) and checks each blob against its digest and size.
    pub(crate) fn from_oci(path: &Path) -> Self {
        let files = read(path);
        let json = |name: &str| -> Value {
            let file = files.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", files.keys()));
            serde_json::from_slice(&file.content).expect("JSON")
        };
        let blob = |descriptor: &Value| -> Vec<u8> {
            let digest = descriptor["digest"].as_str().expect("a digest");
            let content = files[&format!("blobs/{}", digest.replace(':', "/"))].content.clone();
            assert_eq!(sha256(&content), digest, "a blob's digest");
            assert_eq!(descriptor["size"].as_u64(), Some(content.len() as u64), "a blob's size");
            content
        };
        assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
        let index = json("index.json");
        let descriptor = &index["manifests"][0];
        let manifest: Value = serde_json::from_slice(&blob(descriptor)).expect("JSON");
        let name = descriptor["annotations"]["org.opencontainers.image.ref.name"].as_str();
        Self {
            config: serde_json::from_slice(&blob(&manifest["config"])).expect("JSON"),
            layers: manifest["layers"]
                .as_array()
                .expect("layers")
                .iter()
                .map(|l| unpacked(blob(l)))
                .collect(),
            names: name.into_iter().map(str::to_owned).collect(),
        }
        .checked()
    }

    /// Reads a docker archive (`--output type=docker`, `docker save`).
    pub(crate) fn from_docker(path: &Path) -> Self {
        let files = read(path);
        let manifest: Value = serde_json::from_slice(&files["manifest.json"].content).expect("JSON");
        let words = |list: &Value| -> Vec<String> {
            list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let first = &manifest[0];
        Self {
            config: serde_json::from_slice(&files[first["Config"].as_str().expect("a config")].content)
                .expect("JSON"),
            layers: words(&first["Layers"])
                .iter()
                .map(|name| unpacked(files[name].content.clone()))
                .collect(),
            names: words(&first["RepoTags"]),
        }
        .checked()
    }

    /// Insists that config, history and layers agree: what other engines verify before they accept an image.
    fn checked(self) -> Self {
        let diff_ids: Vec<&str> = self.config["rootfs"]["diff_ids"]
            .as_array()
            .expect("diff_ids")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let real: Vec<String> = self.layers.iter().map(|layer| sha256(layer)).collect();
        assert_eq!(diff_ids, real, "diff IDs and layers");
        assert_eq!(
            self.history(false).len(),
            real.len(),
            "history entries with a layer: {}",
            self.config["history"]
        );
        self
    }

    /// The `created_by` of the history entries that have no layer (`empty`) or have one.
    pub(crate) fn history(&self, empty: bool) -> Vec<String> {
        let entries = self.config["history"].as_array().expect("a history");
        entries
            .iter()
            .filter(|entry| (entry["empty_layer"] == true) == empty)
            .map(|entry| entry["created_by"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// The entries of one layer.
    pub(crate) fn layer(&self, n: usize) -> BTreeMap<String, Entry> {
        entries(self.layers[n].as_slice())
    }
}

/// `sha256:` and the digest of `bytes` in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Undoes gzip or zstd, known by their first bytes.
fn unpacked(bytes: Vec<u8>) -> Vec<u8> {
    let mut plain = Vec::new();
    match bytes.as_slice() {
        [0x1f, 0x8b, ..] => {
            flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).expect("gzip");
            plain
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::decode_all(bytes.as_slice()).expect("zstd"),
        _ => bytes,
    }
}
