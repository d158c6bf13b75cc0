//! Fuzzes the parser of Dockerfiles.

#![no_main]

#[path = "../shared/language.rs"]
#[allow(dead_code, reason = "each target uses one of the checks")]
mod language;

libfuzzer_sys::fuzz_target!(|source: &[u8]| language::check_dockerfile(source));
