//! What goes wrong goes wrong well: a clear message, a non-zero exit, and nothing left half done.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::process::{Running, eventually, holding};
use common::{TestSpace, root_or_skip};
use nix::sys::signal::Signal;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_bad_flag_is_named() {
    let space = TestSpace::new();
    space.write("Dockerfile", "FROM scratch\n");
    let fails = |args: &[&str], words: &[&str]| {
        let done = space.rbuild(args);
        let code = done.status.code().unwrap_or(0);
        assert_ne!(code, 0, "{args:?} passes\n{done}");
        done.refuses(code, words);
    };
    fails(&["build", "--no-such-flag", "."], &["--no-such-flag"]);
    fails(&["build", "--no-cahce", "."], &["--no-cahce", "--no-cache"]);
    fails(&["build"], &["PATH"]);
    fails(&["build", "a", "b"], &["b"]);
    fails(&["build", "-t", "Not A Name", "."], &["Not A Name"]);
    fails(&["build", "--progress", "loud", "."], &["loud", "plain"]);
    fails(&["build", "--output", "type=paper", "."], &["paper"]);
    fails(&["build", "--jobs", "none", "."], &["none", "--jobs"]);
    fails(&["biuld"], &["biuld"]);
    fails(&["tag", "one"], &[]);
}

#[test]
fn who_names_no_command_is_told_all_of_them() {
    let space = TestSpace::new();
    for (args, word) in [(&[][..], "build"), (&["container"], "attach"), (&["network"], "connect")] {
        // docker's way: nothing on standard output, and no failure
        let done = space.rbuild(args);
        assert!(done.status.success() && done.stdout.is_empty(), "{done}");
        assert!(done.stderr.contains("Usage: rbuild") && done.stderr.contains(word), "{done}");
    }
    let asked = space.rbuild(["help", "run"]);
    assert!(asked.status.success() && asked.stdout.contains("--publish"), "{asked}");
    space.rbuild(["container", "nonesuch"]).refuses(1, &["nonesuch"]);
}

#[test]
fn a_shell_completes_commands_and_flags() {
    let space = TestSpace::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = space.rbuild(["completion", shell]);
        assert!(script.status.success() && script.stdout.contains("network-alias"), "{shell}");
        space.write(&format!("complete.{shell}"), script.stdout);
    }
    let tried = "source complete.bash || exit; COMP_WORDS=(rbuild run --netw); COMP_CWORD=2
        _rbuild rbuild --netw run; echo ${COMPREPLY[@]}";
    let found = space.run_tool("bash", ["-c", tried]);
    assert_eq!(found.stdout, "--network --network-alias\n", "{found}");
}

#[test]
fn a_missing_context_or_file_is_named() {
    let space = TestSpace::new();
    let build = |context: &str, args: &[&str]| space.build(Path::new(context), args);
    build("no-such-directory", &[]).refuses(1, &["no-such-directory"]);
    space.mkdir("empty");
    build("empty", &[]).refuses(1, &["Dockerfile", "empty"]);
    build("empty", &["-f", "other.Dockerfile"]).refuses(1, &["other.Dockerfile"]);
    space.write("ctx/Dockerfile", "");
    build("ctx", &[]).refuses(1, &["Dockerfile", "no instructions"]);
    space.write("ctx/Dockerfile", "FROM scratch\nCOPY no-such-file /x\n");
    let failed = build("ctx", &[]).refuses(1, &["no-such-file", "not found", "Dockerfile:2"]);
    assert!(failed.stderr.contains("COPY no-such-file /x"), "the line is shown\n{failed}");
    space.write("file", "");
    build("file", &[]).code(1);
}

#[test]
fn a_wrong_dockerfile_points_at_the_place() {
    let space = TestSpace::new();
    let cases: &[(&str, &[&str])] = &[
        ("FROM scratch\nCPOY a b\n", &["Dockerfile:2:1", "CPOY", "COPY"]),
        ("FROM\n", &["Dockerfile:1", "FROM"]),
        ("COPY a b\n", &["Dockerfile:1:1", "FROM"]),
        ("FROM scratch\nCOPY a\n", &["Dockerfile:2", "COPY"]),
        ("FROM scratch\nCOPY --form=x a b\n", &["Dockerfile:2", "--form", "--from"]),
        ("FROM scratch\nENV\n", &["Dockerfile:2", "ENV"]),
        ("FROM scratch\nRUN <<EOF\nnever ends\n", &["Dockerfile:2", "EOF"]),
        (
            "FROM scratch AS early\nCOPY --from=late / /\nFROM scratch AS late\nFROM early\n",
            &["Dockerfile:2", "late"],
        ),
        ("FROM scratch\nEXPOSE eighty\n", &["Dockerfile:2", "eighty"]),
        ("FROM scratch\nLABEL \"open\n", &["Dockerfile:2"]),
        ("FROM scratch AS a\nFROM scratch\nCOPY --from=7 / /\n", &["Dockerfile:3", "7"]),
    ];
    for (text, words) in cases {
        let context = space.dockerfile(text);
        space.build(&context, &[]).refuses(1, words);
    }
    let context = space.dockerfile("FROM scratch AS release\n");
    space.build(&context, &["--target", "relaese"]).refuses(1, &["relaese", "release"]);
}

#[test]
fn a_missing_base_image_is_named_with_a_way_out() {
    let space = TestSpace::new();
    let context = space.dockerfile("FROM no-such-base:v9\nRUN true\n");
    space.build(&context, &["-t", "app"]).refuses(1, &["no-such-base:v9", "Dockerfile:1"]);
    assert_eq!(space.rbuild(["images", "-q"]).ok().stdout, "");
}

#[test]
fn a_failing_step_shows_its_command_code_log_and_line() {
    let space = TestSpace::new().with_busybox();
    let context = space.dockerfile("FROM busybox\nRUN echo fine > /fine\nRUN echo before && echo about to fail >&2 && exit 42\nRUN echo never\n");
    let failed = space
        .build(&context, &["-t", "app"])
        .refuses(1, &["exit", "42", "about to fail", "before", "Dockerfile:3"]);
    assert!(!failed.stderr.contains("RUN echo never\n#") && failed.stdout.is_empty(), "{failed}");
    assert!(failed.stderr.lines().any(|line| line.starts_with("error: ")), "{failed}");
    space.rbuild(["inspect", "app"]).code(1);
    // What succeeded before is remembered.
    let context = space.dockerfile("FROM busybox\nRUN echo fine > /fine\nRUN echo repaired > /out\n");
    space.build(&context, &["-t", "app"]).ok().assert_executed(&["RUN echo repaired"]);
    space.build_text("killed", "FROM busybox\nRUN sh -c 'kill -9 $$' || true\n");
    let context = space.dockerfile("FROM busybox\nRUN no-such-program --flag\n");
    space.build(&context, &[]).refuses(1, &["no-such-program", "127"]);
    let context = space.dockerfile("FROM busybox\nRUN [\"/no/such/program\"]\n");
    space.build(&context, &[]).refuses(1, &["/no/such/program"]);
    let context = space.dockerfile("FROM busybox\nUSER stranger\nRUN true\n");
    space.build(&context, &[]).refuses(1, &["stranger"]);
    space.assert_nothing_runs();
}

#[test]
fn one_failure_stops_the_steps_beside_it() {
    let space = TestSpace::new().with_busybox();
    let context = space.dockerfile(
        "FROM busybox AS slow\nRUN sleep 300; touch /slow\nFROM busybox AS bad\nRUN sleep 1; exit 3\nFROM busybox\nCOPY --from=slow /slow /\nCOPY --from=bad / /\n",
    );
    let start = std::time::Instant::now();
    space.build(&context, &["--jobs", "2"]).refuses(1, &["exit", "3", "Dockerfile:4"]);
    assert!(start.elapsed() < MINUTE, "the slow step was waited for");
    space.assert_nothing_runs();
}

#[test]
fn a_bad_import_is_refused() {
    let space = TestSpace::new();
    space.rbuild(["import", "no-such.tar", "x"]).refuses(1, &["no-such.tar"]);
    space.write("text.tar", "this is no tar, but it is long enough to be looked at. ".repeat(40));
    space.rbuild(["import", "text.tar", "x"]).refuses(1, &["text.tar"]);
    let tar = fs::read(common::base("busybox")).unwrap();
    space.write("cut.tar", &tar[..tar.len() / 2]);
    space.rbuild(["import", "cut.tar", "x"]).refuses(1, &["cut.tar"]);
    space.rbuild(["import", "cut.tar", "BAD NAME"]).refuses(1, &["BAD NAME"]);
    assert_eq!(space.rbuild(["images", "-q"]).ok().stdout, "");
}

#[test]
fn a_full_disk_is_told_and_leaves_a_sound_store() {
    if !root_or_skip() {
        return;
    }
    let space = TestSpace::new();
    let store = space.small_disk("store", 24);
    let space = space.with_busybox();
    space.build_text("good", "FROM busybox\nRUN echo good > /good\n");

    space.write("ctx/big", vec![7; 40 << 20]);
    let context = space.dockerfile("FROM busybox\nCOPY big /big\n");
    space.build(&context, &["-t", "big"]).refuses(1, &["no space left"]);
    let context = space.dockerfile("FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=40\n");
    space.build(&context, &["-t", "big"]).refuses(1, &["no space left"]);
    let debian = common::base("debian");
    space.rbuild(["import".as_ref(), debian.as_os_str(), "debian".as_ref()]).refuses(1, &["no space left"]);

    space.rbuild(["inspect", "big"]).code(1);
    space.rbuild(["inspect", "debian"]).code(1);
    let temporary: Vec<_> =
        fs::read_dir(store.join("tmp")).into_iter().flatten().flatten().map(|e| e.path()).collect();
    assert!(temporary.is_empty(), "half-written: {temporary:?}");
    // There is room again, because the failures gave theirs back.
    space.build_text("next", "FROM good\nRUN cat /good > /next\n");
    assert_eq!(space.stdout_of("next", &["cat", "/next"]), "good\n");
}

#[test]
fn an_output_that_cannot_be_written_is_told() {
    if !root_or_skip() {
        return;
    }
    let space = TestSpace::new().with_busybox();
    let context = space.dockerfile("FROM busybox\nRUN dd if=/dev/urandom of=/big bs=1M count=8\n");
    space.build(&context, &["-t", "app"]).ok();
    let small = space.small_disk("small", 2);
    for kind in ["oci", "docker", "tar"] {
        let dest = small.join("out");
        let output = format!("type={kind},dest={}", dest.display());
        space.build(&context, &["-o", &output]).refuses(1, &["no space left"]);
        let left: Vec<_> = fs::read_dir(&small).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "type={kind} leaves {left:?}");
    }
    space.rbuild(["save", "-o", small.join("saved").to_str().unwrap(), "app"]).refuses(1, &["no space left"]);
    assert_eq!(fs::read_dir(&small).unwrap().count(), 0);
    space.build(&context, &["-o", "type=oci,dest=/proc/no/such/place"]).refuses(1, &["/proc/no/such/place"]);
}

/// Network namespaces of the processes that hold on to `dir`, but for this process's own.
fn namespaces_of(dir: &Path) -> Vec<String> {
    let link = |process: &str| {
        fs::read_link(format!("{process}/ns/net")).ok().map(|path| path.display().to_string())
    };
    let own = link("/proc/self");
    let mut found: Vec<String> = holding(dir)
        .iter()
        .filter_map(|line| link(line.split(':').next()?))
        .filter(|namespace| Some(namespace) != own.as_ref())
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Whether any process or mount keeps the network namespace alive.
fn namespace_lives(namespace: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let held = processes
        .filter_map(|entry| fs::read_link(entry.path().join("ns/net")).ok())
        .any(|seen| seen.display().to_string() == namespace);
    held || fs::read_to_string("/proc/self/mountinfo").unwrap().contains(namespace)
}

/// Starts a build whose last step waits, sends `signal` to rbuild and returns its exit code once nothing is left.
fn interrupted_by(signal: Signal) -> Option<i32> {
    let space = TestSpace::new().with_busybox();
    let context = space.dockerfile(
        "FROM busybox\nRUN echo done > /done\nRUN echo now waiting; (sleep 3600 &); sleep 3600\n",
    );
    let mut command = space.command(["build", "--progress", "plain", "-t", "app"]);
    let mut build = Running::start(command.arg(&context));
    build.wait_for(" now waiting\n", MINUTE);
    let namespaces = namespaces_of(&space.path(""));
    build.signal(signal);
    let done = build.wait(Duration::from_secs(20));
    let left = || holding(&space.path("")).is_empty() && !namespaces.iter().any(|name| namespace_lives(name));
    eventually("no process, mount or namespace", Duration::from_secs(10), left);
    space.rbuild(["inspect", "app"]).code(1);

    // The store is sound: the finished step is remembered, and what was half done is gone or taken up.
    let context = space.dockerfile("FROM busybox\nRUN echo done > /done\nRUN echo no more waiting > /out\n");
    space.build(&context, &["-t", "app"]).ok().assert_executed(&["RUN echo no more"]);
    assert_eq!(space.stdout_of("app", &["cat", "/done", "/out"]), "done\nno more waiting\n");
    done.status.code()
}

#[test]
fn ctrl_c_ends_a_build_and_leaves_nothing() {
    assert_eq!(interrupted_by(Signal::SIGINT), Some(130));
}

#[test]
fn a_terminated_build_leaves_nothing() {
    assert_eq!(interrupted_by(Signal::SIGTERM), Some(143));
}

#[test]
fn a_build_whose_terminal_is_gone_leaves_nothing() {
    assert_eq!(interrupted_by(Signal::SIGHUP), Some(129));
}

#[test]
fn a_killed_build_leaves_nothing() {
    assert_eq!(interrupted_by(Signal::SIGKILL), None);
}
