//! `logs`: what containers write, kept and shown.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::TestSpace;
use common::process::{Running, eventually};

const MINUTE: Duration = Duration::from_secs(60);

fn run(space: &TestSpace, flags: &[&str], script: &str) -> String {
    let mut args = vec!["run", "-d", "--name", "box", "--network", "none"];
    args.extend(flags);
    args.extend(["busybox", "sh", "-c", script]);
    space.rbuild(args).ok().stdout.trim().to_owned()
}

fn logs(space: &TestSpace, flags: &[&str]) -> common::Done {
    let mut args = vec!["logs"];
    args.extend(flags);
    args.push("box");
    space.rbuild(args)
}

fn log_file(space: &TestSpace, id: &str) -> PathBuf {
    space.store().join("containers").join(id).join(format!("{id}-json.log"))
}

#[test]
fn lines_are_kept_as_docker_keeps_them() {
    let space = TestSpace::new().with_busybox();
    let id = run(&space, &[], "echo one; sleep 0.2; echo '<two>' >&2; sleep 0.2; printf 'no end'");
    space.rbuild(["wait", "box"]).ok();
    let text = fs::read_to_string(log_file(&space, &id)).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<(&str, &str)> =
        lines.iter().map(|l| (l["log"].as_str().unwrap(), l["stream"].as_str().unwrap())).collect();
    assert_eq!(seen, [("one\n", "stdout"), ("<two>\n", "stderr"), ("no end", "stdout")]);
    assert!(text.starts_with("{\"log\":\"one\\n\",\"stream\":\"stdout\",\"time\":\"20"), "{text}");
    assert!(text.contains("\\u003ctwo\\u003e"), "{text}");
    let done = logs(&space, &[]).ok();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("one\nno end", "<two>\n"));
    assert_eq!(logs(&space, &["-n", "1"]).ok().stdout, "no end");
    assert_eq!(logs(&space, &["--tail", "0"]).ok().stdout, "");
    assert_eq!(logs(&space, &["--tail", "all"]).ok().stdout, "one\nno end");
    let stamped = logs(&space, &["-t", "-n", "1"]).ok().stdout;
    assert!(
        stamped.len() == "2006-01-02T15:04:05.000000000Z no end".len() && stamped.ends_with("Z no end"),
        "{stamped}"
    );
    // A time between two lines parts them.
    let time = lines[1]["time"].as_str().unwrap();
    assert_eq!(logs(&space, &["--since", time]).ok().stdout, "no end");
    assert_eq!(logs(&space, &["--until", time]).ok().stdout, "one\n");
    assert_eq!(logs(&space, &["--since", "1h"]).ok().stdout, "one\nno end");
    logs(&space, &["--since", "soon"]).refuses(1, &["--since", "soon"]);
    space.rbuild(["logs", "nobody"]).refuses(1, &["no such container"]);
}

#[test]
fn follow_goes_on_to_the_end() {
    let space = TestSpace::new().with_busybox();
    run(&space, &[], "echo first; sleep 1; echo second; sleep 1; echo last");
    let mut following = Running::start(&mut space.command(["logs", "-f", "box"]));
    let mut late = Running::start(&mut space.command(["logs", "-f", "-n", "0", "box"]));
    following.wait_for("first", MINUTE);
    following.wait_for("second", MINUTE);
    late.wait_for("last", MINUTE);
    assert_eq!(following.wait(MINUTE).code(0).stdout, "first\nsecond\nlast\n");
    late.wait(MINUTE).code(0);
    // Of one that has ended it ends at once.
    let begin = Instant::now();
    assert_eq!(logs(&space, &["-f"]).ok().stdout, "first\nsecond\nlast\n");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_hundred_megabytes_are_rotated() {
    let space = TestSpace::new().with_busybox();
    let line = "x".repeat(1023);
    let script = format!(
        "i=0; while [ $i -lt 32 ]; do echo {line}; i=$((i+1)); done > /lines; i=0; while [ $i -lt 3200 ]; do cat /lines; i=$((i+1)); done; echo the end"
    );
    let id = run(&space, &["--log-opt", "max-size=5m", "--log-opt", "max-file=3"], &script);
    let state = fs::read(space.store().join("containers").join(&id).join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    let monitor = state["monitor"].as_i64().unwrap();
    let mut most = 0;
    eventually("it has written all", Duration::from_secs(120), || {
        let status = fs::read_to_string(format!("/proc/{monitor}/status")).unwrap_or_default();
        let rss =
            status.lines().find_map(|l| l.strip_prefix("VmHWM:")).map(|l| l.trim().trim_end_matches(" kB"));
        most = rss.and_then(|kb| kb.trim().parse::<u64>().ok()).unwrap_or(most);
        space.rbuild(["inspect", "-f", "{{.State.Running}}", "box"]).stdout == "false\n"
    });
    let names = ["", ".1", ".2"].map(|end| format!("{}{end}", log_file(&space, &id).display()));
    for name in &names {
        let size = fs::metadata(name).unwrap().len();
        assert!(size <= 5 << 20, "{name}: {size}");
    }
    assert!(!PathBuf::from(format!("{}.3", log_file(&space, &id).display())).exists());
    assert!(most < 32 << 10, "the monitor took {most} KiB");
    assert_eq!(logs(&space, &["-n", "1"]).ok().stdout, "the end\n");
    let all = logs(&space, &[]).ok().stdout;
    assert!(all.lines().count() > 5000 && all.lines().rev().skip(1).all(|l| l.len() == 1023));
    // What crosses files is counted too.
    assert_eq!(logs(&space, &["-n", "9000"]).ok().stdout.lines().count(), 9000);
}

#[test]
fn a_long_line_comes_back_whole() {
    let space = TestSpace::new().with_busybox();
    let id = run(&space, &[], "head -c 100000 /dev/zero | tr '\\0' a; echo; echo after");
    space.rbuild(["wait", "box"]).ok();
    assert_eq!(logs(&space, &[]).ok().stdout, format!("{}\nafter\n", "a".repeat(100_000)));
    let text = fs::read_to_string(log_file(&space, &id)).unwrap();
    assert_eq!(text.lines().count(), 8);
}

#[test]
fn drivers_and_details() {
    let space = TestSpace::new().with_busybox();
    run(&space, &["--log-driver", "none"], "echo lost");
    space.rbuild(["wait", "box"]).ok();
    logs(&space, &[]).refuses(1, &["does not support reading"]);
    space.rbuild(["rm", "box"]).ok();
    let flags = [
        "--log-driver",
        "local",
        "-l",
        "tier=web",
        "-e",
        "MODE=x",
        "--log-opt",
        "labels=tier",
        "--log-opt",
        "env=MODE",
    ];
    run(&space, &flags, "echo kept");
    space.rbuild(["wait", "box"]).ok();
    assert_eq!(logs(&space, &[]).ok().stdout, "kept\n");
    assert_eq!(logs(&space, &["--details"]).ok().stdout, "MODE=x,tier=web kept\n");
    space.rbuild(["run", "--log-opt", "max-size=huge", "busybox", "true"]).refuses(125, &["max-size"]);
}

#[test]
fn the_output_of_a_foreground_container_is_kept_too() {
    let space = TestSpace::new().with_busybox();
    let args =
        ["run", "--name", "box", "--network", "none", "busybox", "sh", "-c", "echo seen; echo bad >&2"];
    let done = space.rbuild(args).ok();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("seen\n", "bad\n"));
    let done = logs(&space, &[]).ok();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("seen\n", "bad\n"));
}

#[test]
fn one_burst_is_rotated_too() {
    let space = TestSpace::new().with_busybox();
    let id = run(&space, &["--log-opt", "max-size=1k", "--log-opt", "max-file=3"], "seq 200");
    space.rbuild(["wait", "box"]).ok();
    let file = log_file(&space, &id);
    for path in [file.clone(), file.with_extension("log.1"), file.with_extension("log.2")] {
        assert!(fs::metadata(&path).unwrap().len() <= 1024, "{}", path.display());
    }
    assert_eq!(logs(&space, &["-n", "2"]).ok().stdout, "199\n200\n");
    assert!(logs(&space, &[]).ok().stdout.lines().count() < 60);
    assert_eq!(logs(&space, &["--since", "", "--until=-1h", "-n", "1"]).ok().stdout, "200\n");
}

#[test]
fn following_ends_with_the_run_that_was_followed() {
    let space = TestSpace::new().with_busybox();
    run(&space, &[], "echo run; sleep 3600");
    let mut following = Running::start(&mut space.command(["logs", "-f", "box"]));
    following.wait_for("run", MINUTE);
    space.rbuild(["restart", "-t", "0", "box"]).ok();
    following.wait(MINUTE).ok();
    space.rbuild(["rm", "-f", "box"]).ok();
}
