//! Fuzzes the reader of stored lists of files.

#![no_main]

#[path = "../shared/documents.rs"]
#[allow(dead_code, reason = "each target uses one of the checks")]
mod documents;

libfuzzer_sys::fuzz_target!(|source: &[u8]| documents::check_listing(source));
