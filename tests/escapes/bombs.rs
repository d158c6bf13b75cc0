//! What is small outside and large inside: sizes, windows, names, depths.

use crate::canary::Canary;
use crate::common::archive::sha256;
use crate::common::{TestSpace, root_or_skip};
use crate::hostile::{Tar, config, docker_archive};
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use std::fs;
use std::io::Write;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::best());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// A Docker archive whose only layer is compressed already.
fn packed(plain: &[u8], layer: &[u8]) -> Vec<u8> {
    let config = config(&[plain.to_vec()]).to_string();
    let manifest = json!([{ "Config": "c", "RepoTags": ["evil:1"], "Layers": ["l"] }]).to_string();
    Tar::new().file("manifest.json", &manifest).file("c", &config).entry(b'0', "l", "", 0o644, layer).end()
}

/// The disk is the limit of what is honest about its size; what was unpacked until then goes.
#[test]
fn a_layer_larger_than_the_disk_is_told_and_goes() {
    if !root_or_skip() {
        return;
    }
    let space = TestSpace::new();
    let canary = Canary::plant(&space);
    space.small_disk("store", 24);
    let plain = Tar::new().entry(b'0', "large", "", 0o644, &vec![b'A'; 64 << 20]).end();
    let archive = packed(&plain, &gzip(&plain));
    assert!(archive.len() < 200 << 10);
    let file = space.write("evil.tar", archive);
    let done = space.rbuild(["load".as_ref(), "-i".as_ref(), file.as_os_str()]);
    done.refuses(1, &["no space"]);
    // The same around the whole archive.
    let file = space.write("evil.tar", gzip(&packed(&plain, &plain)));
    space.rbuild(["load".as_ref(), "-i".as_ref(), file.as_os_str()]).refuses(1, &["no space"]);
    assert_eq!(fs::read_dir(space.store().join("tmp")).unwrap().count(), 0, "something is left");
    let layers = [Tar::new().file("a", "x").end()];
    let file = space.write("evil.tar", docker_archive(&config(&layers), &layers));
    space.rbuild(["load".as_ref(), "-i".as_ref(), file.as_os_str()]).ok();
    canary.assert_untouched("bombs");
}

/// Sizes that are only claimed are refused before anything is written.
#[test]
fn claims_beyond_the_limits_are_refused_at_once() {
    let space = TestSpace::new();
    let canary = Canary::plant(&space);
    // two TiB of zeros, which would be holes
    let claim = Tar::new().pax("size", b"2199023255552").file("f", "x").end();
    // a zstd frame that asks for a window of 1 GiB
    let inner = Tar::new().file("a", "x").end();
    let header = u32::try_from(inner.len() << 3 | 1).unwrap().to_le_bytes();
    let window = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0], &header[..3], &inner].concat();
    for (what, word, archive) in [
        ("a claim of 2 TiB", "limit", packed(&claim, &claim)),
        ("a window of 1 GiB", "memory", packed(&inner, &window)),
    ] {
        let file = space.write("evil.tar", archive);
        let done = space.rbuild(["load".as_ref(), "-i".as_ref(), file.as_os_str()]);
        assert!(done.stderr.contains(word), "{what}\n{done}");
        done.refuses(1, &[]);
    }
    canary.assert_untouched("claims");
    let _ = sha256(b"");
}

/// Directories deeper than any path the kernel takes: they are committed, copied or refused, and removed.
#[test]
fn a_tree_deeper_than_a_path_is_borne() {
    let space = TestSpace::new().with_busybox();
    let canary = Canary::plant(&space);
    let context = space.dockerfile(
        "FROM busybox\nRUN p=$(yes d/ | head -n 1000 | tr -d '\\n'); for i in 0 1 2 3 4 5 6 7 8 9; do mkdir -p $p && cd -P $p; done; echo x > bottom\n",
    );
    let done = space.build(&context, &["-t", "deep"]);
    assert!(matches!(done.status.code(), Some(0 | 1)), "{done}");
    if !done.status.success() {
        done.refuses(1, &["too long"]);
    }
    // and a container that has made it can be removed, its log and layer too
    space
        .rbuild(["run", "--network", "none", "busybox", "sh", "-c",
            "p=$(yes d/ | head -n 1000 | tr -d '\\n'); for i in 0 1 2 3 4 5 6 7 8 9; do mkdir -p $p && cd -P $p; done"])
        .ok();
    space.rbuild(["container", "prune", "-f"]).ok();
    space.rbuild(["rmi", "-f", "deep"]);
    space.rbuild(["system", "prune", "-a", "-f"]).ok();
    assert_eq!(fs::read_dir(space.store().join("tmp")).unwrap().count(), 0, "something is left");
    canary.assert_untouched("depth");
}
