//! Build contexts that are no directory: standard input, git, HTTP, OCI layouts; and where the Dockerfile may be.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fs;
use std::io::Write;

use common::git::Repository;
use common::git_http::{self, GitHttp};
use common::http::Server;
use common::{TestSpace, root_or_skip, tools_or_skip};

fn busybox() -> TestSpace {
    TestSpace::new().with_busybox()
}

/// A context as a tar: a Dockerfile, a file of a stranger, a script, a link, and an ignore file that hides the file.
fn context_tar(dockerfile: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(1234);
        header.set_gid(4321);
        tar.append_data(&mut header, name, content).unwrap();
    };
    add("Dockerfile", 0o644, dockerfile.as_bytes());
    add("file.txt", 0o640, b"from the tar\n");
    add("bin/run.sh", 0o755, b"#!/bin/sh\necho ran\n");
    add(".dockerignore", 0o644, b"file.txt\n");
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    tar.append_link(&mut link, "link", "file.txt").unwrap();
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

const COPIES: &str = "FROM busybox\nCOPY . /ctx\nRUN /ctx/bin/run.sh > /ran\n";

#[test]
fn a_tar_on_standard_input_is_the_context() {
    if !root_or_skip() {
        return;
    }
    let space = busybox();
    let tar = context_tar(COPIES);
    let mut ids = Vec::new();
    for (name, bytes) in [
        ("plain", tar.clone()),
        ("gz", gzip(&tar)),
        ("xz", xz(&tar)),
        ("bz2", bzip2(&tar)),
        ("zst", zstd::encode_all(&tar[..], 1).unwrap()),
    ] {
        space.rbuild_fed(["build", "-t", name, "-"], &bytes).ok();
        ids.push(space.inspect(name)["Id"].clone());
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let stat = space.stdout_of("plain", &["stat", "-c", "%a %u:%g %n", "/ctx/file.txt", "/ctx/bin/run.sh"]);
    assert_eq!(
        stat, "640 1234:4321 /ctx/file.txt\n755 1234:4321 /ctx/bin/run.sh\n",
        "owners are the archive's"
    );
    let text = space.stdout_of("plain", &["cat", "/ctx/link", "/ran"]);
    assert_eq!(text, "from the tar\nran\n", "an ignore file in an archive does not count");

    // another Dockerfile in the archive, one outside, and none
    let tar = context_tar("FROM no-such-image\n");
    space.write("other", COPIES);
    let other = space.path("other");
    space.rbuild_fed(["build", "-t", "other", "-f", other.to_str().unwrap(), "-"], &tar).ok();
    space
        .rbuild_fed(["build", "-f", "other", "-"], &tar)
        .refuses(1, &["no other in the build context", "-f /"]);
    space.rbuild_fed(["build", "--ignorefile", "ignore", "-"], &context_tar(COPIES)).refuses(1, &["ignore"]);
    let cut = &gzip(&tar)[..200];
    space.rbuild_fed(["build", "-"], cut).refuses(1, &["standard input"]);
    space.rbuild_fed(["build", "-"], &gzip(b"no tar at all")).refuses(1, &["standard input"]);
    space.rbuild_fed(["build", "-"], b"").refuses(1, &["standard input is empty"]);
    assert_eq!(fs::read_dir(space.store().join("tmp")).unwrap().count(), 0, "nothing stays in tmp/");
}

#[test]
fn a_hostile_tar_stays_in_its_place() {
    if !root_or_skip() {
        return;
    }
    let space = busybox();
    let mut tar = tar::Builder::new(Vec::new());
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    tar.append_link(&mut link, "out", space.path("").to_str().unwrap()).unwrap();
    for (name, content) in [("Dockerfile", "FROM busybox\nCOPY out/escaped /x\n"), ("out/escaped", "x")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    let bytes = tar.into_inner().unwrap();
    let _ = space.rbuild_fed(["build", "-"], &bytes);
    assert!(!space.path("escaped").exists());
    // a Dockerfile that is a link out of the context is none
    let mut tar = tar::Builder::new(Vec::new());
    space.write("secret", "FROM busybox\n");
    tar.append_link(&mut link, "Dockerfile", space.path("secret").to_str().unwrap()).unwrap();
    space.rbuild_fed(["build", "-"], &tar.into_inner().unwrap()).refuses(1, &["Dockerfile"]);
}

#[test]
fn a_dockerfile_on_standard_input_comes_alone_or_with_a_directory() {
    if !root_or_skip() {
        return;
    }
    let space = busybox();
    space.rbuild_fed(["build", "-t", "alone", "-"], b"FROM busybox\nRUN echo hi > /hi\n").ok();
    assert_eq!(space.stdout_of("alone", &["cat", "/hi"]), "hi\n");
    space
        .rbuild_fed(["build", "-"], b"FROM busybox\nCOPY file /\n")
        .refuses(1, &["no context", "Dockerfile:2"]);
    // what asks for all of the context gets nothing
    let whole = b"FROM busybox\nRUN --mount=target=/m ls -A /m | wc -l > /n\nCOPY . /empty/\n";
    space.rbuild_fed(["build", "-t", "whole", "-"], whole).ok();
    assert_eq!(space.stdout_of("whole", &["sh", "-c", "cat /n; ls -A /empty"]), "0\n");

    space.write("ctx/file", "in the directory\n");
    space.write("ctx/hidden", "x");
    space.write("ctx/.dockerignore", "hidden\n");
    // beside the current directory, and not the ignore file of what comes on standard input
    space.write("Dockerfile.dockerignore", "*\n");
    space.rbuild_fed(["build", "-t", "with", "-f", "-", "ctx"], b"FROM busybox\nCOPY . /c/\n").ok();
    assert_eq!(space.stdout_of("with", &["ls", "/c"]), "file\n");
    space.rbuild_fed(["build", "-f", "-", "-"], b"FROM busybox\n").refuses(1, &["both"]);

    // -f lies outside of the context, with an ignore file of its own
    space.write("elsewhere/D", "FROM busybox\nCOPY . /c/\n");
    space.write("elsewhere/D.dockerignore", "file\n");
    space.rbuild(["build", "-t", "outside", "-f", "elsewhere/D", "ctx"]).ok();
    assert_eq!(space.stdout_of("outside", &["ls", "/c"]), "hidden\n");
}

#[test]
fn a_git_repository_is_a_context() {
    if !root_or_skip() {
        return;
    }
    let space = busybox();
    let Some(repository) = Repository::serve(&space) else { return };
    repository.commit("Dockerfile", "FROM busybox\nCOPY . /c/\n");
    repository.commit(".dockerignore", "*\n");
    repository.commit("sub/Dockerfile", "FROM busybox\nCOPY f /sub\n");
    let old = repository.commit("sub/f", "one\n");
    repository.git(&["tag", "v1"]);
    repository.commit("sub/f", "two\n");
    repository.git(&["branch", "feature"]);
    let url = &repository.url;
    let build = |context: &str, args: &[&str]| {
        let mut all = vec!["build", "-t", "app"];
        all.extend(args);
        all.push(context);
        space.rbuild(all)
    };
    build(url, &[]).ok();
    assert_eq!(space.stdout_of("app", &["ls", "-A", "/c"]), ".dockerignore\nDockerfile\nsub\n");
    for (fragment, want) in [
        ("#main:sub", "two\n"),
        ("#v1:sub", "one\n"),
        ("#feature:sub", "two\n"),
        ("?ref=v1&subdir=sub", "one\n"),
        (&format!("#{old}:sub"), "one\n"),
    ] {
        build(&format!("{url}{fragment}"), &[]).ok();
        assert_eq!(space.stdout_of("app", &["cat", "/sub"]), want, "{fragment}");
    }
    // -f names a file of the repository
    build(url, &["-f", "sub/Dockerfile"]).refuses(1, &["sub/Dockerfile:2"]);
    build(url, &["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"]).ok();
    assert!(space.stdout_of("app", &["ls", "-A", "/c"]).contains(".git\n"));
    build(&format!("{url}#nope"), &[]).refuses(1, &["nope"]);
    build(&format!("{url}#main:nope"), &[]).refuses(1, &["nope"]);

    // the time of the commit
    build(&format!("{url}#v1:sub"), &["--build-arg", "SOURCE_DATE_EPOCH=context"]).ok();
    let created = space.inspect("app")["Created"].as_str().unwrap().to_owned();
    let commit: u64 = repository.git(&["show", "-s", "--format=%ct", "v1"]).trim().parse().unwrap();
    build(&format!("{url}#v1:sub"), &["--source-date-epoch", &commit.to_string()]).ok();
    assert_eq!(space.inspect("app")["Created"], created);
    let local = space.dockerfile("FROM busybox\n");
    space.build(&local, &["--timestamp=context"]).refuses(1, &["no time of its own"]);

    // the same commit again is cached
    let done = space.rbuild(["build", "--progress=plain", &format!("{url}#v1:sub")]).ok();
    done.assert_executed(&[]);

    let named = space.dockerfile("FROM busybox\nCOPY --from=src sub/f /f\n");
    space.build(&named, &["-t", "named", "--build-context", &format!("src={url}#v1")]).ok();
    assert_eq!(space.stdout_of("named", &["cat", "/f"]), "one\n");
}

#[test]
fn a_git_repository_over_http_brings_its_submodules() {
    if !root_or_skip() || !tools_or_skip(&["git"]) {
        return;
    }
    let space = busybox();
    let base = space.mkdir("served");
    git_http::repository(base.join("part"), &[("p", "of the part\n")], &[]);
    let files = [("Dockerfile", "FROM busybox\nCOPY . /c/\n"), ("own", "of the app\n")];
    // the address is relative, so it works wherever both are served
    let part = base.join("part").display().to_string();
    let add = ["submodule", "add", "-q", "--", &part, "lib"];
    let relative = ["config", "-f", ".gitmodules", "submodule.lib.url", "../part"];
    git_http::repository(base.join("app.git"), &files, &[&add, &relative]);
    let server = GitHttp::serve(&base);
    let url = server.url("app.git");
    space.rbuild(["build", "-t", "app", &url]).ok();
    assert_eq!(space.stdout_of("app", &["cat", "/c/own", "/c/lib/p"]), "of the app\nof the part\n");
    assert_eq!(space.stdout_of("app", &["find", "/c", "-name", ".git"]), "");
    space.rbuild(["build", "-t", "app", &format!("{url}?submodules=false")]).ok();
    assert_eq!(space.stdout_of("app", &["find", "/c/lib"]), "/c/lib\n");

    let context = space.dockerfile(&format!("FROM busybox\nADD {url} /a/\n"));
    space.build(&context, &["-t", "added"]).ok();
    assert_eq!(space.stdout_of("added", &["cat", "/a/lib/p"]), "of the part\n");
    space.rbuild(["build", &server.url("none.git")]).refuses(1, &["none.git"]);
}

#[test]
fn an_archive_or_dockerfile_over_http_is_a_context() {
    if !root_or_skip() {
        return;
    }
    let space = busybox();
    let server = Server::start([
        ("/c.tar.gz", gzip(&context_tar(COPIES))),
        ("/c.tar", context_tar(COPIES)),
        ("/Dockerfile", b"FROM busybox\nRUN echo alone > /f\n".to_vec()),
        ("/copies", b"FROM busybox\nCOPY x /\n".to_vec()),
        ("/just.txt", b"text\n".to_vec()),
    ]);
    let build = |args: &[&str]| {
        let mut all = vec!["build", "-t", "app"];
        all.extend(args);
        space.rbuild(all)
    };
    for name in ["/c.tar.gz", "/c.tar"] {
        build(&[&server.url(name)]).ok();
        assert_eq!(space.stdout_of("app", &["cat", "/ctx/file.txt"]), "from the tar\n");
    }
    build(&[&server.url("/Dockerfile")]).ok();
    assert_eq!(space.stdout_of("app", &["cat", "/f"]), "alone\n");
    build(&[&server.url("/copies")]).refuses(1, &["no context"]);
    build(&[&server.url("/none")]).refuses(1, &["404", "/none"]);
    space.mkdir("ctx");
    build(&["-f", &server.url("/Dockerfile"), "ctx"]).ok();
    build(&["-f", &server.url("/Dockerfile"), &server.url("/Dockerfile")]).refuses(1, &["--file"]);

    let context = space.dockerfile("FROM busybox\nCOPY --from=t file.txt /f\nCOPY --from=u context /g\n");
    let (tar, text) = (format!("t={}", server.url("/c.tar.gz")), format!("u={}", server.url("/just.txt")));
    space.build(&context, &["-t", "named", "--build-context", &tar, "--build-context", &text]).ok();
    assert_eq!(space.stdout_of("named", &["cat", "/f", "/g"]), "from the tar\ntext\n");
}

#[test]
fn an_oci_layout_is_a_named_context() {
    if !root_or_skip() {
        return;
    }
    let space = busybox();
    let context = space.dockerfile("FROM busybox\nRUN echo layout > /l\nENV FROM_LAYOUT=yes\n");
    space.build(&context, &["-t", "lay:v1", "--output", "type=oci,tar=false,dest=layout"]).ok();
    space.rbuild(["rmi", "lay:v1"]).ok();
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(space.path("layout/index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();

    let context = space.dockerfile("FROM base\nRUN test \"$FROM_LAYOUT\" = yes\nCOPY --from=other /l /m\n");
    for base in ["layout".to_owned(), "layout:v1".to_owned(), format!("layout@{digest}")] {
        let base = format!("base=oci-layout://{base}");
        let args = ["-t", "app", "--build-context", &base, "--build-context", "other=oci-layout://layout:v1"];
        space.build(&context, &args).ok();
        assert_eq!(space.stdout_of("app", &["cat", "/l", "/m"]), "layout\nlayout\n");
    }
    let images = space.rbuild(["images"]).ok().stdout;
    assert!(!images.contains("lay "), "the layout's names stay in the layout\n{images}");
    let refuses = |value: &str, words: &[&str]| {
        space.build(&context, &["--build-context", &format!("base={value}")]).refuses(1, words);
    };
    refuses("oci-layout://layout:v2", &["v2", "v1"]);
    refuses("oci-layout://nowhere", &["nowhere"]);
    refuses("ftp://x/y", &["ftp://"]);
    refuses("nowhere", &["nowhere", "does not exist"]);
    space.build(&context, &["--build-context", "nothing"]).refuses(1, &["NAME=VALUE"]);
}

#[test]
fn a_named_context_can_be_for_one_platform() {
    let space = busybox();
    space.write("right/f", "right\n");
    space.write("wrong/f", "wrong\n");
    let context = space.dockerfile("FROM busybox\nCOPY --from=src f /f\n");
    let host = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    let right = format!("src::{host}=right");
    space.build(&context, &["-t", "app", "--build-context", "src=wrong", "--build-context", &right]).ok();
    assert_eq!(space.stdout_of("app", &["cat", "/f"]), "right\n");
}

#[test]
fn an_ordinary_user_can_build_from_an_archive() {
    let Some(space) = TestSpace::rootless() else { return };
    let space = space.with_busybox();
    space.rbuild_fed(["build", "-t", "app", "-"], &gzip(&context_tar(COPIES))).ok();
    let stat = space.stdout_of("app", &["stat", "-c", "%a %u:%g", "/ctx/file.txt"]);
    assert_eq!(stat, "640 1234:4321\n");
}
