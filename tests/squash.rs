//! `--squash`: one layer above the base image's own layers, the cache untouched.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::path::Path;

use common::TestSpace;
use common::archive::{Entry, Image};

const DOCKERFILE: &str = "FROM busybox\n\
    RUN echo kept > /kept && echo gone > /gone && mkdir -p /dir/sub && echo deep > /dir/sub/deep\n\
    RUN rm /gone && rm /etc/shadow && ln /kept /kept-too && chmod 600 /kept\n\
    ENV NAME=value\n\
    RUN rm -r /dir/sub && ln -s ../kept /dir/link\n\
    CMD [\"cat\", \"/kept\"]\n";

fn exported(space: &TestSpace, context: &Path, flags: &[&str]) -> Image {
    let dest = space.path("out.tar");
    let output = format!("type=oci,dest={}", dest.display());
    let mut args = vec!["--output", output.as_str()];
    args.extend(flags);
    space.build(context, &args).ok();
    Image::from_oci(&dest)
}

#[test]
fn a_squashed_image_has_one_layer_above_its_base() {
    let space = TestSpace::new().with_busybox();
    let context = space.dockerfile(DOCKERFILE);
    let plain = exported(&space, &context, &[]);
    let squashed = exported(&space, &context, &["--squash"]);
    assert_eq!((plain.layers.len(), squashed.layers.len()), (4, 2));
    assert_eq!(plain.layers[0], squashed.layers[0], "the base's layer is the base's own");
    assert_eq!(plain.config["config"], squashed.config["config"]);

    let top = squashed.layer(1);
    assert_eq!(top["kept"].content, b"kept\n");
    assert_eq!(top["kept"].mode & 0o7777, 0o600);
    assert_eq!(top["dir/link"].link.as_deref(), Some("../kept"));
    let (kept, too): (&Entry, &Entry) = (&top["kept"], &top["kept-too"]);
    assert_eq!(
        [kept.kind, too.kind].iter().filter(|kind| **kind == tar::EntryType::Link).count(),
        1,
        "one body"
    );
    assert!(top.contains_key("etc/.wh.shadow"), "a file of the base goes: {:?}", top.keys());
    for absent in ["gone", ".wh.gone", "dir/sub", "dir/sub/deep", "dir/.wh.sub", "bin/busybox"] {
        assert!(!top.contains_key(absent), "{absent} is in the squashed layer");
    }
}

#[test]
fn the_history_keeps_every_line_and_one_for_the_merge() {
    let space = TestSpace::new().with_busybox();
    let context = space.dockerfile(DOCKERFILE);
    let plain = exported(&space, &context, &[]);
    let squashed = exported(&space, &context, &["--squash"]);
    let lines = |image: &Image| image.config["history"].as_array().unwrap().len();
    assert_eq!(lines(&squashed), lines(&plain) + 1);
    assert_eq!(squashed.history(true).len(), 5, "each instruction above the base is without a layer");
}

#[test]
fn squashing_neither_uses_up_nor_spoils_the_cache() {
    let space = TestSpace::new().with_busybox();
    let context = space.dockerfile(DOCKERFILE);
    space.build(&context, &["-t", "plain"]).ok();
    space.build(&context, &["-t", "squashed", "--squash"]).ok().assert_executed(&[]);
    space.build(&context, &["-t", "plain"]).ok().assert_executed(&[]);
    let layers = |image: &str| space.inspect(image)["RootFS"]["Layers"].as_array().unwrap().len();
    assert_eq!((layers("plain"), layers("squashed")), (4, 2));
    for image in ["plain", "squashed"] {
        assert_eq!(space.stdout_of(image, &[]), "kept\n");
        assert_eq!(
            space.stdout_of(image, &["sh", "-c", "ls -d /gone /etc/shadow /dir/* 2>/dev/null; true"]),
            "/dir/link\n"
        );
    }
}

#[test]
fn from_scratch_gives_one_layer() {
    let space = TestSpace::new().with_busybox();
    space.write("ctx/a", "a");
    space.write("ctx/b", "b");
    let context = space.dockerfile("FROM scratch\nCOPY a /a\nCOPY b /b\nCOPY b /a\n");
    let image = exported(&space, &context, &["--squash"]);
    assert_eq!(image.layers.len(), 1);
    let names: Vec<String> = image.layer(0).into_keys().filter(|name| !name.is_empty()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(image.layer(0)["a"].content, b"b");
}
