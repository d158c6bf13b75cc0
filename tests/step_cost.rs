//! What rbuild adds to the user's own commands: small steps must stay small.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use common::TestSpace;

const STEPS: u32 = 30;

/// The best of five, as other work on the machine only ever adds.
fn best(mut work: impl FnMut()) -> Duration {
    let timed = (0..5).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed()
    });
    timed.min().unwrap()
}

#[test]
fn a_small_step_costs_less_than_ten_milliseconds() {
    // Ten for the program as it is released (`RBUILD_TEST_BINARY=target/release/rbuild`), more for the unoptimised one.
    let allowed =
        Duration::from_millis(if std::env::var_os("RBUILD_TEST_BINARY").is_some() { 10 } else { 30 });
    let space = TestSpace::new().with_busybox();
    let mut text = String::from("FROM busybox\n");
    for step in 0..STEPS {
        writeln!(text, "RUN echo {step} > /file").unwrap();
    }
    space.write("steps/Dockerfile", text);
    space.write("none/Dockerfile", "FROM busybox\nCMD true\n");
    let build = |name: &str| best(|| drop(space.build(&space.path(name), &["--no-cache"]).ok()));
    let file = space.path("file");
    let command = best(|| {
        let mut shell = Command::new("/bin/sh");
        assert!(shell.arg("-c").arg(format!("echo 1 > {}", file.display())).status().unwrap().success());
    });
    let step = build("steps").saturating_sub(build("none")) / STEPS;
    let added = step.saturating_sub(command);
    assert!(
        added < allowed,
        "a step of {command:?} takes {step:?}, so rbuild adds {added:?}; allowed are {allowed:?}"
    );
}

#[test]
fn an_unchanged_build_is_over_at_once() {
    let space = TestSpace::new().with_busybox();
    let mut text = String::from("FROM busybox\n");
    for step in 0..STEPS {
        writeln!(text, "RUN echo {step} > /file{step}").unwrap();
    }
    let context = space.dockerfile(&text);
    space.build(&context, &["-t", "app"]).ok();
    let again = best(|| space.build(&context, &["-t", "app"]).ok().assert_executed(&[]));
    assert!(again < Duration::from_millis(500), "a fully cached build takes {again:?}");
}
