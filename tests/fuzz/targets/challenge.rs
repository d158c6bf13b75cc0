//! Fuzzes the reader of what registries ask for.

#![no_main]

#[path = "../shared/texts.rs"]
#[allow(dead_code, reason = "each target uses one of the checks")]
mod texts;

libfuzzer_sys::fuzz_target!(|source: &[u8]| texts::check_challenge(source));
