//! What must hold for every byte string given to the unpacker: no panic, nothing outside the root, no more than the
//! limits allow, and a diff that describes what lies on the disk. Shared by the fuzz target and the mutation test.

use rbuild::layer::{self, Limits, ScanOptions, UnpackOptions};
use std::collections::HashSet;
use std::path::Path;

/// As much as one archive may unpack here, in bytes.
const BYTES: u64 = 1 << 20;

/// Unpacks one archive into `room/inside` and looks at everything in `room`.
pub(crate) fn check_archive(bytes: &[u8], room: &Path) {
    let inside = room.join("inside");
    let _ = std::fs::remove_dir_all(&inside);
    std::fs::create_dir_all(&inside).expect("a temporary directory can be written");
    std::fs::write(room.join("outside"), "untouched").expect("a temporary directory can be written");
    let limits = Limits { bytes: BYTES, entries: 1000 };
    let options =
        UnpackOptions { userxattr: true, limits, chown_ok: false, plain_names: false, parent: None };
    let unpacked = layer::unpack(&mut &bytes[..], &inside, &options);
    let around: Vec<_> =
        std::fs::read_dir(room).expect("it was just made").flatten().map(|e| e.file_name()).collect();
    assert_eq!(around.len(), 2, "something was made outside: {around:?}");
    assert_eq!(std::fs::read(room.join("outside")).expect("it was there"), b"untouched");
    let Ok(diff) = unpacked else { return };
    assert!(diff.content_bytes() <= BYTES);
    let again = layer::scan(&inside, &ScanOptions { userxattr: true, skip: &HashSet::new() });
    // owners and devices cannot be made here; names and contents can
    if let Ok(again) = again {
        let names = |diff: &rbuild::tree::Diff| diff.entries().map(|e| e.path).collect::<Vec<_>>();
        assert_eq!(names(&diff), names(&again));
        assert_eq!(diff.content_bytes(), again.content_bytes());
    }
}

/// Makes the checksum of every tar header right, so that changed headers are read and not just refused.
pub(crate) fn with_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
    for block in bytes.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}
