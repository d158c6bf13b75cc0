//! Health checks and restart policies.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::time::Duration;

use common::TestSpace;
use common::process::eventually;

const SOON: Duration = Duration::from_secs(30);

fn run(space: &TestSpace, flags: &[&str], script: &str) {
    let mut args = vec!["run", "-d", "--name", "box", "--network", "none"];
    args.extend(flags);
    args.extend(["busybox", "sh", "-c", script]);
    space.rbuild(args).ok();
}

fn field(space: &TestSpace, template: &str) -> String {
    space.rbuild(["inspect", "--type", "container", "-f", template, "box"]).ok().stdout.trim_end().to_owned()
}

fn health(space: &TestSpace) -> String {
    field(space, "{{.State.Health.Status}}")
}

#[test]
fn a_container_becomes_healthy_and_unhealthy() {
    let space = TestSpace::new().with_busybox();
    let flags =
        ["--health-cmd", "test -e /ok && echo fine", "--health-interval", "200ms", "--health-retries", "2"];
    run(&space, &flags, "sleep 3600");
    assert_eq!(health(&space), "starting");
    assert!(space.rbuild(["ps"]).ok().stdout.contains("(health: starting)"));
    eventually("it is unhealthy", SOON, || health(&space) == "unhealthy");
    assert!(space.rbuild(["ps"]).ok().stdout.contains("(unhealthy)"));
    assert_eq!(space.rbuild(["ps", "-qf", "health=unhealthy"]).ok().stdout.lines().count(), 1);
    space.rbuild(["exec", "box", "touch", "/ok"]).ok();
    eventually("it is healthy", SOON, || health(&space) == "healthy");
    assert!(space.rbuild(["ps"]).ok().stdout.contains("(healthy)"));
    assert_eq!(field(&space, "{{.State.Health.FailingStreak}}"), "0");
    eventually("five results", SOON, || field(&space, "{{len .State.Health.Log}}") == "5");
    let log: serde_json::Value = serde_json::from_str(&field(&space, "{{json .State.Health.Log}}")).unwrap();
    let last = log.as_array().unwrap().last().unwrap();
    assert_eq!((last["ExitCode"].as_i64(), last["Output"].as_str()), (Some(0), Some("fine\n")));
    space.rbuild(["stop", "-t", "0", "box"]).ok();
    assert!(!space.rbuild(["ps", "-a"]).ok().stdout.contains("health"));
}

#[test]
fn failures_in_the_start_period_do_not_count() {
    let space = TestSpace::new().with_busybox();
    let flags = [
        "--health-cmd",
        "test -e /ok",
        "--health-interval",
        "200ms",
        "--health-start-interval",
        "100ms",
        "--health-start-period",
        "2s",
        "--health-retries",
        "1",
    ];
    run(&space, &flags, "sleep 3600");
    eventually("some have failed", SOON, || field(&space, "{{len .State.Health.Log}}") != "0");
    assert_eq!(
        (health(&space).as_str(), field(&space, "{{.State.Health.FailingStreak}}").as_str()),
        ("starting", "0")
    );
    eventually("the period is over", SOON, || health(&space) == "unhealthy");
}

#[test]
fn a_probe_that_takes_too_long_is_killed() {
    let space = TestSpace::new().with_busybox();
    let flags = [
        "--health-cmd",
        "echo begun; sleep 3600",
        "--health-interval",
        "100ms",
        "--health-timeout",
        "300ms",
        "--health-retries",
        "1",
    ];
    run(&space, &flags, "sleep 3600");
    eventually("it is unhealthy", SOON, || health(&space) == "unhealthy");
    let log: serde_json::Value = serde_json::from_str(&field(&space, "{{json .State.Health.Log}}")).unwrap();
    assert_eq!(log[0]["ExitCode"], -1);
    assert!(log[0]["Output"].as_str().unwrap().contains("exceeded timeout (300ms)"), "{log}");
}

#[test]
fn the_image_says_how_to_probe_and_the_command_line_more() {
    let space = TestSpace::new().with_busybox();
    space.build_text(
        "app",
        "FROM busybox\nHEALTHCHECK --interval=100ms --retries=1 CMD [\"test\", \"-e\", \"/ok\"]\nCMD sleep 3600\n",
    );
    space.rbuild(["run", "-d", "--name", "box", "--network", "none", "app"]).ok();
    eventually("it is unhealthy", SOON, || health(&space) == "unhealthy");
    space.rbuild(["rm", "-f", "box"]).ok();
    space.rbuild(["run", "-d", "--name", "box", "--network", "none", "--no-healthcheck", "app"]).ok();
    assert_eq!(field(&space, "{{json .State.Health}}{{json .Config.Healthcheck.Test}}"), "null[\"NONE\"]");
    space.rbuild(["rm", "-f", "box"]).ok();
    space.rbuild(["run", "-d", "--name", "box", "--network", "none", "--health-cmd", "true", "app"]).ok();
    eventually("it is healthy", SOON, || health(&space) == "healthy");
}

#[test]
fn a_failure_is_tried_again_so_often() {
    let space = TestSpace::new().with_busybox();
    run(&space, &["--restart", "on-failure:3"], "echo run; exit 2");
    eventually("it has given up", SOON, || field(&space, "{{.State.Status}}") == "exited");
    let shown = field(&space, "{{.RestartCount}} {{.State.ExitCode}} {{.HostConfig.RestartPolicy.Name}}");
    assert_eq!(shown, "3 2 on-failure");
    assert_eq!(space.rbuild(["logs", "box"]).ok().stdout, "run\n".repeat(4));
    space.rbuild(["rm", "box"]).ok();
    run(&space, &["--restart", "on-failure"], "echo run");
    assert_eq!(space.rbuild(["wait", "box"]).ok().stdout, "0\n");
    assert_eq!(field(&space, "{{.RestartCount}} {{.State.Status}}"), "0 exited");
}

#[test]
fn always_means_until_somebody_stops_it() {
    let space = TestSpace::new().with_busybox();
    run(&space, &["--restart", "always"], "sleep 0.1; exit 0");
    eventually("it has begun again twice", SOON, || {
        field(&space, "{{.RestartCount}}").parse::<u32>().unwrap() >= 2
    });
    eventually("it is seen waiting", SOON, || {
        let text = space.rbuild(["ps"]).ok().stdout;
        text.contains("Restarting (0) ") && field(&space, "{{.State.Restarting}}") == "true"
    });
    space.rbuild(["stop", "-t", "1", "box"]).ok();
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(field(&space, "{{.State.Status}}"), "exited");
    space.assert_nothing_runs();
    // A kill of the process by somebody else is no stop.
    space.rbuild(["rm", "box"]).ok();
    run(&space, &["--restart", "unless-stopped"], "sleep 3600");
    if common::is_root() {
        let pid = field(&space, "{{.State.Pid}}");
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid.parse().unwrap()),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        eventually("it is back", SOON, || {
            // both in one look: between two it may go on to the next state
            let now = field(&space, "{{.State.Status}} {{.State.Pid}}");
            now.starts_with("running ") && now != format!("running {pid}")
        });
    }
    space.rbuild(["kill", "box"]).ok();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(field(&space, "{{.State.Status}}"), "exited");
}
