//! Fuzzes the unpacker of layers and archives.

#![no_main]

#[path = "../shared/archive.rs"]
mod archive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let room = std::env::temp_dir().join(format!("rbuild-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&room).expect("a temporary directory can be made");
    archive::check_archive(&archive::with_checksums(bytes.to_vec()), &room);
});
