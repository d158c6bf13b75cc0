//! What must hold for every document of an image and every stored list of files: no panic, and what was read can be
//! written and means the same. Shared by the fuzz target and by the test that mutates known documents.

use rbuild::image::{Document, parse_config, parse_document};
use rbuild::tree::Diff;

/// Checks one text as a manifest, an index and a config.
pub(crate) fn check_document(source: &[u8]) {
    if let Ok(document) = parse_document(source, "") {
        let written = match &document {
            Document::Manifest(manifest) => serde_json::to_vec(manifest),
            Document::Index(index) => serde_json::to_vec(index),
        };
        let again = parse_document(&written.expect("plain data can be written"), "");
        assert!(matches!(again, Ok(again) if again == document), "{document:?}");
    }
    if let Ok(config) = parse_config(source) {
        let written = serde_json::to_vec(&config).expect("plain data can be written");
        assert_eq!(parse_config(&written).ok(), Some(config));
    }
}

/// Checks one text as the body of a stored list of files, with the checksum made right.
pub(crate) fn check_listing(body: &[u8]) {
    let magic = Diff::default().encode();
    let mut bytes = magic[..magic.len() - 33].to_vec();
    bytes.extend_from_slice(blake3::hash(body).as_bytes());
    bytes.extend_from_slice(body);
    if let Ok(diff) = Diff::decode(bytes) {
        assert_eq!(Diff::decode(diff.encode()).ok(), Some(diff));
    }
}
