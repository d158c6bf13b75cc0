//! Fuzzes the reader of the names of images.

#![no_main]

#[path = "../shared/texts.rs"]
#[allow(dead_code, reason = "each target uses one of the checks")]
mod texts;

libfuzzer_sys::fuzz_target!(|source: &[u8]| texts::check_reference(source));
