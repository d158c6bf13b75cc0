//! The flags of `build` that say how steps run, where the log goes, and what is not available.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fs;

use common::{TestSpace, root_or_skip};
use serde_json::Value;

fn busybox() -> TestSpace {
    TestSpace::new().with_busybox()
}

#[test]
fn a_volume_is_in_every_step_and_in_no_image() {
    if !root_or_skip() {
        return;
    }
    let space = busybox();
    space.write("shared/f", "one\n");
    let context = space.dockerfile(
        "FROM busybox\nRUN cat /vol/f > /a; cp /a /vol/out\nRUN test -e /vol/f && cat /vol/f > /b\n",
    );
    space.build(&context, &["-t", "app", "-v", "./shared:/vol"]).ok();
    assert_eq!(space.stdout_of("app", &["cat", "/a", "/b"]), "one\none\n");
    assert_eq!(space.stdout_of("app", &["sh", "-c", "ls -d /vol || echo none"]), "none\n");
    assert_eq!(fs::read_to_string(space.path("shared/out")).unwrap(), "one\n");
    // what is in it does not count
    space.write("shared/f", "two\n");
    space.build(&context, &["-t", "app", "-v", "./shared:/vol"]).ok().assert_executed(&[]);

    let context = space.dockerfile("FROM busybox\nRUN touch /vol/x\n");
    space.build(&context, &["-v", "./shared:/vol:ro"]).refuses(1, &["Read-only"]);
    space.build(&context, &["-v", "./nothing:/vol"]).refuses(1, &["--volume", "nothing"]);
    space.build(&context, &["-v", "named:/vol"]).refuses(1, &["--volume", "named", "RUN --mount=type=cache"]);
}

#[test]
fn a_mount_of_the_command_line_is_one_of_every_step() {
    if !root_or_skip() {
        return;
    }
    let space = busybox();
    space.write("ctx/data/f", "one\n");
    space.write("more/g", "more\n");
    let text = "FROM busybox\nRUN cat /m/f > /a\nRUN cat /m/f /n/g > /b; touch /t/x\n";
    let context = space.dockerfile(text);
    let args = [
        "-t",
        "app",
        "--build-context",
        "more=more",
        "--mount",
        "type=bind,source=data,target=/m",
        "--mount",
        "type=bind,from=more,target=/n",
    ];
    let build = |rest: &[&str]| space.build(&context, &[&args[..], rest].concat());
    build(&["--mount", "type=tmpfs,target=/t"]).ok();
    assert_eq!(space.stdout_of("app", &["cat", "/a", "/b"]), "one\none\nmore\n");
    // the files of a bind count, a directory in memory does not
    build(&["--mount", "type=cache,target=/t"]).ok().assert_executed(&[]);
    space.write("ctx/data/f", "two\n");
    assert_eq!(build(&["--mount", "type=tmpfs,target=/t"]).ok().executed().len(), 2);

    space.build(&context, &["--mount", "type=nothing,target=/x"]).refuses(1, &["--mount", "nothing"]);
    space.build(&context, &["--mount", "type=bind,source=data"]).refuses(1, &["--mount"]);
    let context = space.dockerfile("FROM busybox AS one\nFROM busybox\nRUN true\n");
    space
        .build(&context, &["--mount", "type=bind,from=one,target=/x"])
        .refuses(1, &["the stage one", "Dockerfile:3"]);
}

#[test]
fn security_and_dns_of_steps() {
    if !root_or_skip() {
        return;
    }
    let space = busybox();
    let context = space.dockerfile("FROM busybox\nRUN grep -e NoNewPrivs -e Seccomp: /proc/self/status > /s; cat /etc/resolv.conf > /r\n");
    space.build(&context, &["-t", "usual"]).ok();
    assert_eq!(space.stdout_of("usual", &["cat", "/s"]), "NoNewPrivs:\t0\nSeccomp:\t2\n");
    let flags = [
        "--no-cache",
        "--security-opt",
        "no-new-privileges",
        "--security-opt",
        "seccomp=unconfined",
        "--dns",
        "192.0.2.7",
        "--dns-search",
        "example.org",
        "--dns-option",
        "ndots:3",
    ];
    space.build(&context, &[&["-t", "other"][..], &flags].concat()).ok();
    assert_eq!(space.stdout_of("other", &["cat", "/s"]), "NoNewPrivs:\t1\nSeccomp:\t0\n");
    let conf = space.stdout_of("other", &["cat", "/r"]);
    for line in ["nameserver 192.0.2.7", "search example.org", "options ndots:3"] {
        assert!(conf.contains(line), "{conf}");
    }
    space.build(&context, &["--security-opt", "seccomp=p.json"]).refuses(1, &["seccomp=p.json"]);
    space.build(&context, &["--memory-swap", "1g"]).refuses(1, &["--memory-swap", "--memory"]);
    space.build(&context, &["--network", "custom"]).refuses(1, &["custom", "default"]);
}

#[test]
fn steps_are_limited_as_asked() {
    if !root_or_skip() {
        return;
    }
    let space = busybox();
    let context = space.dockerfile("FROM busybox\nRUN grep Cpus_allowed_list /proc/self/status\n");
    let parent = format!("rbuild-test-{}", std::process::id());
    let flags = ["--cpuset-cpus", "0", "--cpu-shares", "512", "--memory", "64m", "--memory-swap", "64m"];
    let limited = space.build(&context, &[&flags[..], &["--cgroup-parent", &parent]].concat());
    let made = cgroups(&parent);
    made.iter().for_each(|dir| fs::remove_dir(dir).unwrap());
    if limited.stderr.contains("cannot limit") {
        common::skip("this machine has no cgroups to limit with");
        return;
    }
    let limited = limited.ok();
    assert!(limited.stderr.lines().any(|l| l.ends_with("Cpus_allowed_list:\t0")), "{limited}");
    assert!(!made.is_empty(), "the step was below {parent}");
    // limits do not count for the cache
    space.build(&context, &["--memory", "128m"]).ok().assert_executed(&[]);
}

#[test]
fn the_log_can_go_to_a_file_or_to_a_program() {
    let space = busybox();
    let context = space.dockerfile("FROM busybox\nRUN seq 1 3000\nRUN echo oops >&2; exit 3\n");
    space.rbuild(["build", "-q", "--logfile", "log", context.to_str().unwrap()]).code(1);
    let log = fs::read_to_string(space.path("log")).unwrap();
    let numbers = log.lines().filter(|l| l.split(' ').nth(2).is_some_and(|n| n.parse::<u32>().is_ok()));
    assert_eq!(numbers.count(), 3000, "{log}");
    assert!(log.contains("oops") && log.contains("ERROR"), "{log}");
    space.build(&context, &["--logfile", "no/such/dir"]).refuses(1, &["--logfile", "no/such/dir"]);

    let context = space.dockerfile("FROM busybox\nRUN echo \"said <this>\" | tee /said\n");
    let done = space.rbuild(["build", "--progress=rawjson", context.to_str().unwrap()]).ok();
    let events: Vec<Value> = done.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| events.iter().filter(|e| e["event"] == kind).collect::<Vec<_>>();
    assert_eq!(of("planned").len(), 1);
    assert!(of("log").iter().any(|e| e["text"] == "said <this>\n" && e["stream"] == "stdout"), "{done}");
    assert!(of("ended").iter().any(|e| e["outcome"] == "done"), "{done}");
    assert_eq!(of("started").len(), of("ended").len());
}

#[test]
fn what_is_not_available_is_refused_and_what_changes_nothing_is_taken() {
    let space = busybox();
    let context = space.dockerfile("FROM busybox\nENV a=b\n");
    for (flags, word) in [
        (&["--push"][..], "a push needs a name"),
        (&["--pull=sometimes"], "sometimes"),
        (&["--provenance", "mode=max"], "attestations"),
        (&["--sbom=true"], "--sbom"),
        (&["--attest", "type=sbom"], "--attest"),
        (&["-t", "UPPER"], "UPPER"),
        (&["--annotation", "x"], "--annotation"),
    ] {
        space.build(&context, flags).refuses(1, &[word]);
    }
    let taken = [
        "--rm=false",
        "--force-rm",
        "--compress=true",
        "--layers",
        "--pull=never",
        "--provenance=false",
        "--sbom=false",
        "--attest",
        "type=provenance,disabled=true",
        "--builder",
        "default",
        "-D",
        "--load",
        "--push=false",
        "--no-cache=false",
    ];
    space.build(&context, &taken).ok();

    // nothing is read before the flags are understood
    space.rbuild_fed(["build", "-t", "a:b:c", "-"], b"FROM nowhere\n").refuses(1, &["a:b:c"]);
    space.rbuild(["build"]).refuses(1, &["the build context", "PATH | URL | -"]);
    space.rbuild(["build", "-t", "x"]).refuses(1, &["the build context"]);
}

#[test]
fn files_about_the_result_are_written_at_the_end() {
    let space = busybox();
    let context = space.dockerfile("FROM busybox\nRUN exit 1\n");
    space.build(&context, &["--iidfile", "iid", "--metadata-file", "meta"]).code(1);
    assert!(!space.path("iid").exists() && !space.path("meta").exists());

    let context = space.dockerfile("FROM busybox\nRUN true\nLABEL a=b\n");
    let notes =
        ["--annotation", "a=1", "--annotation", "index:b=2", "--annotation", "manifest-descriptor:c=3"];
    let files = [
        "--iidfile",
        "iid",
        "--metadata-file",
        "meta",
        "-t",
        "app:1",
        "--output",
        "type=oci,tar=false,dest=o",
    ];
    space.build(&context, &[&notes[..], &files].concat()).ok();
    let json =
        |path: &str| -> Value { serde_json::from_slice(&fs::read(space.path(path)).unwrap()).unwrap() };
    let (meta, index) = (json("meta"), json("o/index.json"));
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    assert_eq!(meta["containerimage.config.digest"], fs::read_to_string(space.path("iid")).unwrap());
    assert_eq!(meta["containerimage.digest"], digest);
    assert_eq!(meta["containerimage.descriptor"]["digest"], digest);
    assert_eq!(meta["image.name"], "docker.io/library/app:1");
    let manifest = json(&format!("o/blobs/{}", digest.replace(':', "/")));
    assert_eq!(manifest["annotations"]["a"], "1");
    assert_eq!(index["annotations"]["b"], "2");
    assert_eq!(index["manifests"][0]["annotations"]["c"], "3");
}

#[test]
fn annotations_stay_with_an_image_that_is_saved_later() {
    let space = busybox();
    let context = space.dockerfile("FROM busybox\nLABEL a=b\n");
    let annotations = |name: &str| -> Value {
        space.rbuild(["save", "--format", "oci", "-o", name, "app"]).ok();
        let files = common::archive::read(&space.path(name));
        let json = |path: &str| -> Value { serde_json::from_slice(&files[path].content).unwrap() };
        let index = json("index.json");
        let digest = index["manifests"][0]["digest"].as_str().unwrap();
        json(&format!("blobs/{}", digest.replace(':', "/")))["annotations"].clone()
    };
    space.build(&context, &["-t", "app", "--annotation", "note=one"]).ok();
    assert_eq!(annotations("first")["note"], "one");
    let id = space.inspect("app")["Id"].clone();
    // the same image with another note, and with none
    space.build(&context, &["-t", "app", "--annotation", "note=two"]).ok();
    assert_eq!(annotations("second")["note"], "two");
    space.build(&context, &["-t", "app"]).ok();
    assert!(annotations("third").is_null());
    assert_eq!(space.inspect("app")["Id"], id);
    let listed = space.rbuild(["images", "-a", "-q", "--no-trunc"]).ok();
    let same = listed.stdout.lines().filter(|line| Some(*line) == id.as_str()).count();
    assert_eq!(same, 1, "no image without name is left of the others");
}

#[test]
fn explain_names_the_files_that_changed() {
    let space = busybox();
    space.write("ctx/src/a.rs", "one\n");
    space.write("ctx/src/b.sh", "echo\n");
    space.write("ctx/src/same", "same\n");
    space.run_tool("chmod", ["644", "ctx/src/b.sh"]).ok();
    let context = space.dockerfile("FROM busybox\nCOPY src /src\n");
    space.build(&context, &[]).ok();
    space.write("ctx/src/a.rs", "two\n");
    space.run_tool("chmod", ["755", "ctx/src/b.sh"]).ok();
    space.write("ctx/src/new", "");
    let done = space.build(&context, &["--explain"]).ok();
    let want = "COPY: 3 files changed: src/a.rs (content), src/b.sh (mode 644→755), src/new (new)";
    assert!(done.stderr.contains(want), "{done}");
    let lists = || walk(&space.store().join("lists"));
    let before = lists();
    assert_eq!(before, 2);
    space.build(&context, &["--explain"]).ok().assert_executed(&[]);
    assert_eq!(lists(), before, "a cached step leaves no list");
}

/// The cgroups of this name: one, or with version 1 one for each controller.
fn cgroups(name: &str) -> Vec<std::path::PathBuf> {
    let root = std::path::Path::new("/sys/fs/cgroup");
    let below = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    [root.to_owned()].into_iter().chain(below).map(|dir| dir.join(name)).filter(|dir| dir.is_dir()).collect()
}

fn walk(dir: &std::path::Path) -> usize {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { walk(&path) } else { 1 })
        .sum()
}
