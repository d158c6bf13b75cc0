//! Fuzzes the reader of manifests, indexes and configs.

#![no_main]

#[path = "../shared/documents.rs"]
#[allow(dead_code, reason = "each target uses one of the checks")]
mod documents;

libfuzzer_sys::fuzz_target!(|source: &[u8]| documents::check_document(source));
