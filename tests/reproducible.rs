//! SOURCE_DATE_EPOCH: the same input gives the same image, in every store and in every form in which it goes out.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::TestSpace;
use common::archive::{Image, sha256};

const EPOCH: &str = "1700000000";

const DOCKERFILE: &str = "\
FROM busybox AS build
COPY src /src
RUN mkdir -p /out/a/b && cat /src/* > /out/all && echo x > /out/a/b/c && ln /out/all /out/hard && ln -s all /out/soft
RUN rm /out/a/b/c && mkfifo /out/pipe && chown -R 12:34 /out
FROM busybox
ARG SOURCE_DATE_EPOCH
ENV EPOCH=$SOURCE_DATE_EPOCH
COPY --from=build /out /out
COPY --chmod=755 <<END /run.sh
#!/bin/sh
END
WORKDIR /made/by/workdir
RUN echo $SOURCE_DATE_EPOCH > /epoch && rm /bin/vi && touch /etc/new
";

/// Builds in a fresh space and gives the image's ID with the bytes of each export.
fn build(flags: &[&str], names: bool) -> (String, Vec<Vec<u8>>) {
    let space = TestSpace::new();
    let base = common::base("busybox");
    let mut import = space.command(["import".as_ref(), base.as_os_str(), "busybox".as_ref()]);
    let import = import.env("SOURCE_DATE_EPOCH", "1600000000").output().unwrap();
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    space.write("ctx/src/one", "1\n");
    space.write("ctx/src/two", "2\n");
    let context = space.dockerfile(DOCKERFILE);
    let outputs = ["type=oci,dest=o", "type=docker,dest=d", "type=tar,dest=t"];
    let mut args = vec!["build", "--iidfile", "iid"];
    args.extend(flags);
    outputs.iter().for_each(|o| args.extend(["--output", o]));
    if names {
        args.extend(["-t", "app:1"]);
    }
    args.push(context.to_str().unwrap());
    space.rbuild(args).ok();
    let exports = ["o", "d", "t"].iter().map(|name| fs::read(space.path(name)).unwrap()).collect();
    check_times(&space.path("o"));
    (fs::read_to_string(space.path("iid")).unwrap(), exports)
}

/// No time after the epoch stands in the image.
fn check_times(oci: &Path) {
    let image = Image::from_oci(oci);
    let epoch = "2023-11-14T22:13:20Z";
    assert_eq!(image.config["created"], epoch);
    assert!(image.layers.len() > 4);
    for layer in &image.layers[1..] {
        for entry in tar::Archive::new(layer.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            let time = entry.header().mtime().unwrap();
            assert!(time <= 1_700_000_000, "{:?} has the time {time}", entry.path().unwrap());
        }
    }
    let history = image.config["history"].as_array().unwrap();
    assert!(history.iter().any(|line| line["created"] == epoch));
    assert!(history.iter().all(|line| line["created"].as_str().unwrap() <= epoch));
}

#[test]
fn two_stores_make_the_same_image() {
    let flag = format!("SOURCE_DATE_EPOCH={EPOCH}");
    let first = build(&["--build-arg", &flag], true);
    // into another second, so that a clock that got in would show
    std::thread::sleep(Duration::from_millis(1100));
    let second = build(&["--source-date-epoch", EPOCH, "--rewrite-timestamp", "--jobs", "1"], true);
    assert_eq!(first.0, second.0, "image IDs");
    for (n, name) in ["oci", "docker", "tar"].iter().enumerate() {
        assert_eq!(sha256(&first.1[n]), sha256(&second.1[n]), "the {name} archives");
    }
    let unnamed = build(&["--timestamp", EPOCH], false);
    assert_eq!(first.0, unnamed.0, "a name changes nothing in the image");
}

#[test]
fn a_wrong_time_is_refused_at_once() {
    let space = TestSpace::new();
    space.mkdir("ctx");
    space
        .rbuild(["build", "--source-date-epoch", "yesterday", "ctx"])
        .refuses(1, &["--source-date-epoch", "yesterday"]);
    space.rbuild(["build", "--rewrite-timestamp=false", "ctx"]).refuses(1, &["SOURCE_DATE_EPOCH"]);
}
