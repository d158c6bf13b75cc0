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

/// Makes the state of a container look as if a power cut had ended another run of the kernel.
fn lose_power(space: &TestSpace, name: &str) {
    let id = space.rbuild(["inspect", "-f", "{{.Id}}", name]).ok().stdout.trim().to_owned();
    let file = space.store().join("containers").join(&id).join("state.json");
    let read = || -> serde_json::Value { serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap() };
    if read()["status"] == "running" {
        let monitor = i32::try_from(read()["monitor"].as_i64().unwrap()).unwrap();
        let pid = nix::unistd::Pid::from_raw(monitor);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        eventually("the monitor is gone", SOON, || {
            let stat = std::fs::read_to_string(format!("/proc/{monitor}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }
    let mut state = read();
    state["boot"] = "11111111-2222-3333-4444-555555555555".into();
    std::fs::write(&file, serde_json::to_vec(&state).unwrap()).unwrap();
}

fn states(space: &TestSpace) -> String {
    let listed = space.rbuild(["ps", "-a", "--format", "{{.Names}} {{.State}}"]).ok().stdout;
    let mut lines: Vec<&str> = listed.lines().collect();
    lines.sort_unstable();
    lines.join(", ")
}

#[test]
fn after_a_boot_runs_what_shall_run() {
    let space = TestSpace::new().with_busybox();
    after_a_boot(&space);
    let Some(space) = TestSpace::rootless() else { return };
    after_a_boot(&space.with_busybox());
}

fn after_a_boot(space: &TestSpace) {
    let made = |name: &str, flags: &[&str], command: &str| {
        let own = if flags.contains(&"container:always") { &[][..] } else { &["--network", "none"] };
        let args = [
            &["run", "-d", "--stop-timeout", "0", "--name", name],
            own,
            flags,
            &["busybox", "sh", "-c", command],
        ];
        space.rbuild(args.concat()).ok();
    };
    for (name, policy) in [
        ("always", "always"),
        ("ended", "always"),
        ("unless", "unless-stopped"),
        ("halted", "unless-stopped"),
    ] {
        made(name, &["--restart", policy], "sleep 3600");
    }
    made("plain", &[], "sleep 3600");
    made("failing", &["--restart", "on-failure"], "sleep 3600");
    made("joined", &["--restart", "always", "--network", "container:always"], "sleep 3600");
    space.rbuild(["create", "--name", "fresh", "--restart", "always", "busybox", "true"]).ok();
    space.rbuild(["stop", "-t", "0", "ended", "halted"]).ok();
    // nothing was lost in this run of the kernel, and what its user stopped stays stopped
    assert_eq!(space.rbuild(["system", "boot"]).ok().stdout, "");
    for name in ["always", "ended", "unless", "halted", "plain", "failing", "joined"] {
        lose_power(space, name);
    }
    assert_eq!(
        states(space),
        "always exited, ended exited, failing exited, fresh created, halted exited, joined exited, plain exited, unless exited"
    );
    let template = "{{.State.ExitCode}} {{.State.Pid}}";
    assert_eq!(space.rbuild(["inspect", "-f", template, "plain"]).ok().stdout, "255 0\n");
    let running = "always running, ended running, failing exited, fresh created, halted exited, joined running, plain exited, unless running";
    // the second of two at once finds nothing to do, or the other at it
    let both = std::thread::scope(|scope| {
        let other = scope.spawn(|| space.rbuild(["system", "boot"]));
        (space.rbuild(["system", "boot"]), other.join().unwrap())
    });
    eventually("all run", SOON, || {
        space.rbuild(["system", "boot"]);
        states(space) == running
    });
    drop(both);
    assert_eq!(space.rbuild(["system", "boot"]).ok().stdout, "");
    // in good order down and up again
    space.rbuild(["start", "plain"]).ok();
    let down = space.rbuild(["system", "boot", "--stop"]).ok();
    assert_eq!(down.stdout.lines().count(), 5, "{down}");
    assert!(!states(space).contains("running"), "{}", states(space));
    space.rbuild(["start", "always"]).ok();
    eventually("all run again", SOON, || {
        space.rbuild(["system", "boot"]);
        states(space) == running
    });
    let all = ["always", "ended", "unless", "halted", "plain", "failing", "joined", "fresh"];
    space.rbuild(["rm", "-f"].iter().chain(&all).copied()).ok();
}

#[test]
fn a_monitor_that_is_told_to_end_is_no_user() {
    let space = TestSpace::new().with_busybox();
    run(&space, &["--restart", "unless-stopped", "--stop-timeout", "0"], "sleep 3600");
    let id = field(&space, "{{.Id}}");
    let file = space.store().join("containers").join(id).join("state.json");
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let monitor = nix::unistd::Pid::from_raw(i32::try_from(state["monitor"].as_i64().unwrap()).unwrap());
    nix::sys::signal::kill(monitor, nix::sys::signal::Signal::SIGTERM).unwrap();
    eventually("it has ended", SOON, || field(&space, "{{.State.Status}}") == "exited");
    assert_eq!(space.rbuild(["system", "boot"]).ok().stdout, "box\n");
    assert_eq!(field(&space, "{{.State.Status}}"), "running");
    space.rbuild(["rm", "-f", "box"]).ok();
}

#[test]
fn a_unit_for_the_boot_is_written_and_taken_away() {
    let Some(space) = TestSpace::rootless() else { return };
    let config = space.mkdir("config");
    let call = |flag: &str| {
        let mut command = space.command(["system", "boot", flag]);
        command.env("XDG_CONFIG_HOME", &config);
        common::process::finish(&mut command, None, SOON)
    };
    let done = call("--install");
    if !std::path::Path::new("/usr/lib/systemd").is_dir() {
        assert!(done.stderr.contains("no systemd"), "{done}");
        return;
    }
    done.ok();
    call("--install").ok();
    let unit = config.join("systemd/user/rbuild-containers.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    let wanted = format!("--root \"{}\" system boot --stop\n", space.store().display());
    assert!(text.contains(&wanted), "{text}");
    let link = config.join("systemd/user/default.target.wants/rbuild-containers.service");
    assert_eq!(std::fs::read_link(&link).unwrap(), unit);
    assert_eq!(call("--remove").ok().stdout.lines().count(), 2);
    assert!(!unit.exists() && !link.is_symlink());
    assert!(call("--remove").ok().stderr.contains("There is no"));
}
