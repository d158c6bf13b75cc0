//! Containers that outlive the command: states, names, signals, restarts of the machine's parts, many at once.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::process::{Running, eventually};
use common::{Done, TestSpace};
use nix::sys::signal::Signal;

const MINUTE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);

/// Runs `run -d --network none FLAGS... busybox sh -c SCRIPT` and gives the id.
fn start(space: &TestSpace, flags: &[&str], script: &str) -> String {
    let mut args = vec!["run", "-d", "--network", "none"];
    args.extend(flags);
    args.extend(["busybox", "sh", "-c", script]);
    let id = space.rbuild(args).ok().stdout.trim().to_owned();
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id:?}");
    id
}

/// A field of `inspect`.
fn field(space: &TestSpace, name: &str, template: &str) -> String {
    space.rbuild(["inspect", "--type", "container", "-f", template, name]).ok().stdout.trim_end().to_owned()
}

fn status(space: &TestSpace, name: &str) -> String {
    field(space, name, "{{.State.Status}}")
}

fn monitor_of(space: &TestSpace, id: &str) -> i32 {
    let state = fs::read(space.store().join("containers").join(id).join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    i32::try_from(state["monitor"].as_i64().unwrap()).unwrap()
}

fn kill(pid: i32, signal: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

#[test]
fn a_life_from_create_to_rm() {
    let space = TestSpace::new().with_busybox();
    let made =
        space.rbuild(["create", "--name", "box", "-l", "a=b", "busybox", "sh", "-c", "echo hi; exit 3"]).ok();
    let id = made.stdout.trim().to_owned();
    assert_eq!(status(&space, "box"), "created");
    assert_eq!(space.rbuild(["ps", "-q"]).ok().stdout, "");
    let done = space.rbuild(["start", "-a", "box"]).code(3);
    assert_eq!(done.stdout, "hi\n");
    assert_eq!(field(&space, &id[..7], "{{.State.Status}} {{.State.ExitCode}} {{.Name}}"), "exited 3 /box");
    let ps = space.rbuild(["ps", "-a", "--format", "{{.ID}} {{.Image}} {{.Names}} {{.Labels}}"]).ok();
    assert_eq!(ps.stdout, format!("{} busybox box a=b\n", &id[..12]));
    let shown = space.rbuild(["ps", "-a"]).ok().stdout;
    assert!(
        shown.starts_with("CONTAINER ID   IMAGE     COMMAND") && shown.contains("Exited (3) "),
        "{shown}"
    );
    // What it wrote before is there at the next start.
    assert_eq!(space.rbuild(["start", "box"]).ok().stdout, "box\n");
    space.rbuild(["wait", "box"]).ok();
    assert_eq!(space.rbuild(["logs", "box"]).ok().stdout, "hi\nhi\n");
    space.rbuild(["rename", "box", "crate"]).ok();
    space.rbuild(["inspect", "--type", "container", "box"]).refuses(1, &["no such container: box"]);
    assert_eq!(space.rbuild(["rm", "crate"]).ok().stdout, "crate\n");
    assert_eq!(space.rbuild(["ps", "-aq"]).ok().stdout, "");
    space.rbuild(["rm", "crate"]).refuses(1, &["no such container: crate"]);
    space.rbuild(["rm", "-f", "crate"]).ok();
    space.assert_nothing_runs();
}

#[test]
fn files_stay_between_two_starts_and_go_with_the_container() {
    let space = TestSpace::new().with_busybox();
    start(&space, &["--name", "keeper"], "echo run >> /count; cat /count");
    space.rbuild(["wait", "keeper"]).ok();
    space.rbuild(["start", "-a", "keeper"]).ok();
    assert_eq!(space.rbuild(["logs", "--tail", "2", "keeper"]).ok().stdout, "run\nrun\n");
    // gc keeps what a stopped container stands on
    space.rbuild(["builder", "prune", "-af"]).ok();
    space.rbuild(["rmi", "busybox"]).refuses(1, &["keeper"]);
    space.rbuild(["rmi", "-f", "busybox"]).ok();
    space.rbuild(["builder", "prune", "-af"]).ok();
    assert!(space.rbuild(["start", "-a", "keeper"]).ok().stdout.ends_with("run\nrun\nrun\n"));
    space.rbuild(["rm", "keeper"]).ok();
    assert_eq!(fs::read_dir(space.store().join("tmp")).unwrap().count(), 0);
}

#[test]
fn stop_asks_waits_and_kills() {
    let space = TestSpace::new().with_busybox();
    // Process 1 of a container ignores what it has no handler for.
    start(&space, &["--name", "deaf"], "sleep 3600");
    let begin = Instant::now();
    assert_eq!(space.rbuild(["stop", "-t", "1", "deaf"]).ok().stdout, "deaf\n");
    assert!(begin.elapsed() >= Duration::from_secs(1) && begin.elapsed() < Duration::from_secs(8));
    assert_eq!(field(&space, "deaf", "{{.State.ExitCode}}"), "137");
    start(&space, &["--name", "polite"], "trap 'exit 5' TERM; while :; do sleep 0.1; done");
    start(
        &space,
        &["--name", "other", "--stop-signal", "USR1"],
        "trap 'exit 6' USR1; while :; do sleep 0.1; done",
    );
    std::thread::sleep(Duration::from_millis(300));
    let begin = Instant::now();
    assert_eq!(space.rbuild(["stop", "polite", "other"]).ok().stdout, "polite\nother\n");
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    assert_eq!(field(&space, "polite", "{{.State.ExitCode}}"), "5");
    assert_eq!(field(&space, "other", "{{.State.ExitCode}} {{.Config.StopSignal}}"), "6 SIGUSR1");
    // A stopped one is stopped already; a name that is not there is not.
    space.rbuild(["stop", "polite"]).ok();
    let done = space.rbuild(["stop", "nobody", "polite"]);
    assert_eq!(done.stdout, "polite\n");
    done.refuses(1, &["no such container: nobody"]);
    space.rbuild(["kill", "polite"]).refuses(1, &["not running"]);
}

#[test]
fn kill_sends_any_signal() {
    let space = TestSpace::new().with_busybox();
    start(&space, &["--name", "box"], "trap 'echo hup' HUP; echo ready; while :; do sleep 0.1; done");
    eventually("it runs", SOON, || space.rbuild(["logs", "box"]).stdout.contains("ready"));
    space.rbuild(["kill", "-s", "HUP", "box"]).ok();
    eventually("it heard", SOON, || space.rbuild(["logs", "box"]).stdout.contains("hup"));
    assert_eq!(status(&space, "box"), "running");
    space.rbuild(["kill", "-s", "NOPE", "box"]).refuses(1, &["no such signal"]);
    assert_eq!(space.rbuild(["kill", "box"]).ok().stdout, "box\n");
    assert_eq!(field(&space, "box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
}

#[test]
fn wait_gives_exit_codes_in_order() {
    let space = TestSpace::new().with_busybox();
    start(&space, &["--name", "slow"], "sleep 1; exit 4");
    start(&space, &["--name", "fast"], "exit 2");
    assert_eq!(space.rbuild(["wait", "slow", "fast"]).ok().stdout, "4\n2\n");
    space.rbuild(["wait", "nobody"]).refuses(1, &["nobody"]);
}

#[test]
fn restart_and_rm_force() {
    let space = TestSpace::new().with_busybox();
    let id = start(&space, &["--name", "box", "--rm"], "echo started; sleep 3600");
    let pid = field(&space, "box", "{{.State.Pid}}");
    let logged = |lines: &str| space.rbuild(["logs", &id]).ok().stdout == lines;
    eventually("it has begun", SOON, || logged("started\n"));
    space.rbuild(["restart", "-t", "0", "box"]).ok();
    assert_ne!(field(&space, "box", "{{.State.Pid}}"), pid);
    eventually("it has begun again", SOON, || logged("started\nstarted\n"));
    space.rbuild(["rm", "box"]).refuses(1, &["stop the container", "running"]);
    space.rbuild(["rm", "-f", "box"]).ok();
    assert_eq!(space.rbuild(["ps", "-aq"]).ok().stdout, "");
    space.assert_nothing_runs();
}

#[test]
fn paused_processes_stand_still() {
    let space = TestSpace::new().with_busybox();
    if !common::root_or_skip() {
        return;
    }
    start(&space, &["--name", "box"], "while :; do echo tick; sleep 0.05; done");
    space.rbuild(["pause", "box"]).ok();
    let lines = |space: &TestSpace| space.rbuild(["logs", "box"]).ok().stdout.lines().count();
    let before = lines(&space);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(lines(&space), before);
    assert_eq!(
        field(&space, "box", "{{.State.Status}} {{.State.Paused}} {{.State.Running}}"),
        "paused true true"
    );
    assert!(space.rbuild(["ps"]).ok().stdout.contains("(Paused)"));
    space.rbuild(["exec", "box", "true"]).refuses(1, &["paused"]);
    space.rbuild(["pause", "box"]).refuses(1, &["already paused"]);
    space.rbuild(["start", "box"]).refuses(1, &["unpause"]);
    space.rbuild(["unpause", "box"]).ok();
    eventually("it goes on", SOON, || lines(&space) > before);
    space.rbuild(["unpause", "box"]).refuses(1, &["not paused"]);
    space.rbuild(["pause", "box"]).ok();
    space.rbuild(["rm", "-f", "box"]).ok();
    space.assert_nothing_runs();
}

#[test]
fn attach_sees_what_comes_and_ends_with_it() {
    let space = TestSpace::new().with_busybox();
    start(&space, &["--name", "box", "-i"], "read a; echo got $a; read b; exit 9");
    let mut command = space.command(["attach", "box"]);
    let mut one = Running::start(command.stdin(std::process::Stdio::piped()));
    let mut other = Running::start(&mut space.command(["attach", "--no-stdin", "box"]));
    std::thread::sleep(Duration::from_millis(500));
    use std::io::Write;
    one.child.stdin.as_mut().unwrap().write_all(b"first\n").unwrap();
    one.wait_for("got first", MINUTE);
    other.wait_for("got first", MINUTE);
    // Its input was not made for this command alone, so the end of that is not its end.
    drop(one.child.stdin.take());
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(status(&space, "box"), "running");
    let mut command = space.command(["attach", "box"]);
    let mut third = Running::start(command.stdin(std::process::Stdio::piped()));
    std::thread::sleep(Duration::from_millis(300));
    third.child.stdin.as_mut().unwrap().write_all(b"second\n").unwrap();
    for running in [one, other, third] {
        running.wait(MINUTE).code(9);
    }
    space.rbuild(["attach", "box"]).refuses(1, &["stopped container"]);
}

#[test]
fn rm_flag_takes_container_and_own_volumes() {
    let space = TestSpace::new().with_busybox();
    start(&space, &["--rm", "-v", "/own", "-v", "shared:/s"], "touch /own/x /s/x");
    let left = |space: &TestSpace| space.rbuild(["ps", "-aq"]).ok().stdout;
    eventually("it is gone", SOON, || left(&space).is_empty());
    let volumes: Vec<_> = fs::read_dir(space.store().join("volumes")).unwrap().flatten().collect();
    assert_eq!(volumes.len(), 1);
    assert!(volumes[0].path().ends_with("shared"));
    // Without --rm they stay until rm -v.
    start(&space, &["--name", "box", "-v", "/own"], "true");
    space.rbuild(["wait", "box"]).ok();
    assert_eq!(fs::read_dir(space.store().join("volumes")).unwrap().count(), 2);
    space.rbuild(["rm", "-v", "box"]).ok();
    assert_eq!(fs::read_dir(space.store().join("volumes")).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_executed_is_told_and_kept() {
    let space = TestSpace::new().with_busybox();
    for (program, code) in [("nope", 127), ("/etc", 126)] {
        let done = space.rbuild(["run", "-d", "--name", "bad", "--network", "none", "busybox", program]);
        assert_eq!(done.stdout.trim().len(), 64, "the id is told all the same");
        done.refuses(code, &[program]);
        let state = field(&space, "bad", "{{.State.Status}} {{.State.ExitCode}}");
        assert_eq!(state, format!("created {code}"));
        space.rbuild(["rm", "bad"]).ok();
    }
    space.rbuild(["run", "--rm", "--network", "none", "busybox", "nope"]).refuses(127, &["nope"]);
    assert_eq!(space.rbuild(["ps", "-aq"]).ok().stdout, "");
    space.assert_nothing_runs();
}

#[test]
fn a_killed_monitor_takes_the_processes_along_and_is_cleaned_up() {
    let space = TestSpace::new().with_busybox();
    let id = start(&space, &["--name", "box"], "sleep 3600 & sleep 3600");
    let gone = start(&space, &["--name", "gone", "--rm"], "sleep 3600");
    for id in [&id, &gone] {
        kill(monitor_of(&space, id), Signal::SIGKILL);
    }
    eventually("its processes are gone", SOON, || common::process::holding(&space.path("")).is_empty());
    assert_eq!(space.rbuild(["ps", "-q"]).ok().stdout, "");
    assert_eq!(space.rbuild(["ps", "-aq", "--no-trunc"]).ok().stdout.trim(), id);
    assert_eq!(field(&space, "box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    space.rbuild(["stop", "box"]).ok();
    space.rbuild(["start", "box"]).ok();
    assert_eq!(status(&space, "box"), "running");
    space.rbuild(["rm", "-f", "box"]).ok();
}

#[test]
fn a_killed_first_process_is_an_exit() {
    let space = TestSpace::new().with_busybox();
    start(&space, &["--name", "box"], "sleep 3600");
    if common::is_root() {
        kill(field(&space, "box", "{{.State.Pid}}").parse().unwrap(), Signal::SIGKILL);
        assert_eq!(space.rbuild(["wait", "box"]).ok().stdout, "137\n");
        assert_eq!(status(&space, "box"), "exited");
    }
    space.rbuild(["rm", "-f", "box"]).ok();
    space.assert_nothing_runs();
}

#[test]
fn fifty_at_once() {
    let space = TestSpace::new().with_busybox();
    let count = 50;
    std::thread::scope(|scope| {
        for n in 0..count {
            let space = &space;
            scope.spawn(move || start(space, &["--name", &format!("many-{n}")], "echo up; sleep 3600"));
        }
    });
    assert_eq!(space.rbuild(["ps", "-q"]).ok().stdout.lines().count(), count);
    let names: Vec<String> = (0..count).map(|n| format!("many-{n}")).collect();
    eventually("all have said it", MINUTE, || {
        names.iter().all(|name| space.rbuild(["logs", name]).stdout == "up\n")
    });
    let mut args = vec!["rm", "-f"];
    args.extend(names.iter().map(String::as_str));
    assert_eq!(space.rbuild(args).ok().stdout.lines().count(), count);
    space.assert_nothing_runs();
    assert_eq!(fs::read_dir(space.store().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_name_is_given_once_however_many_want_it() {
    let space = TestSpace::new().with_busybox();
    let results: Vec<Done> = std::thread::scope(|scope| {
        let try_one = || space.rbuild(["create", "--name", "wanted", "busybox", "true"]);
        let threads: Vec<_> = (0..12).map(|_| scope.spawn(try_one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let winners: Vec<&Done> = results.iter().filter(|done| done.status.success()).collect();
    assert_eq!(winners.len(), 1);
    for done in results.iter().filter(|done| !done.status.success()) {
        assert!(done.stderr.contains("already in use"), "{done}");
    }
    assert_eq!(space.rbuild(["ps", "-aq"]).ok().stdout.lines().count(), 1);
    // Random names are free ones.
    for _ in 0..5 {
        space.rbuild(["create", "busybox", "true"]).ok();
    }
    let names = space.rbuild(["ps", "-a", "--format", "{{.Names}}"]).ok().stdout;
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 6);
}

#[test]
fn ps_filters_and_formats() {
    let space = TestSpace::new().with_busybox();
    start(&space, &["--name", "up-1", "-l", "tier=web"], "sleep 3600");
    start(&space, &["--name", "down-1", "-l", "tier=db"], "exit 4");
    space.rbuild(["wait", "down-1"]).ok();
    let names = |flags: &[&str]| {
        let mut args = vec!["ps", "--format", "{{.Names}}"];
        args.extend(flags);
        space.rbuild(args).ok().stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["up-1"]);
    assert_eq!(names(&["-a"]), ["down-1", "up-1"]);
    assert_eq!(names(&["-l"]), ["down-1"]);
    assert_eq!(names(&["-n", "5"]), ["down-1", "up-1"]);
    for (filter, want) in [
        ("status=exited", &["down-1"][..]),
        ("exited=4", &[]),
        ("label=tier", &["up-1"]),
        ("label=tier=db", &[]),
        ("name=^up", &["up-1"]),
        ("ancestor=busybox", &["up-1"]),
        ("health=none", &["up-1"]),
        ("network=none", &["up-1"]),
    ] {
        assert_eq!(names(&["-f", filter]), want, "{filter}");
    }
    for (filters, want) in [
        (&["label=tier=db", "name=down"][..], &["down-1"][..]),
        (&["exited=4"], &["down-1"]),
        (&["exited=0"], &[]),
        (&["exited=0", "exited=4"], &["down-1"]),
        (&[" NAME = up ", "is-task=false"], &["up-1"]),
        (&["is-task=true"], &[]),
        (&["name=["], &[]),
    ] {
        let flags = filters.iter().flat_map(|filter| ["-f", filter]);
        assert_eq!(names(&std::iter::once("-a").chain(flags).collect::<Vec<_>>()), want, "{filters:?}");
    }
    assert_eq!(names(&["-a", "-f", "before=down-1"]), ["up-1"]);
    space.rbuild(["ps", "-f", "what=1"]).refuses(1, &["invalid filter 'what'"]);
    space.rbuild(["ps", "--what"]).refuses(125, &["--what"]);
    space.rbuild(["ps", "-n", "x"]).refuses(125, &["--last"]);
    space.rbuild(["ps", "what"]).refuses(1, &["what"]);
    space.rbuild(["ps", "-f", "what"]).refuses(125, &["bad format of filter (expected name=value)"]);
    let raw = space.rbuild(["ps", "--format", "raw"]).ok().stdout;
    assert!(raw.contains("\nnames: up-1\nlabels: tier=web\nports:\n\n"), "{raw}");
    let table = space.rbuild(["ps", "--format", "table {{.Names}}\\t{{.Label \"tier\"}}"]).ok().stdout;
    assert_eq!(table, "NAMES     tier\nup-1      web\n");
    let json = space.rbuild(["ps", "--format", "json"]).ok().stdout;
    let row: serde_json::Value = serde_json::from_str(json.trim()).unwrap();
    assert_eq!((row["Names"].as_str(), row["State"].as_str()), (Some("up-1"), Some("running")));
    let text = space.rbuild(["ps", "-s", "--no-trunc"]).ok().stdout;
    assert!(
        text.contains("B (virtual ") && text.contains("SIZE") && text.contains("\"sh -c 'sleep 3600'\""),
        "{text}"
    );
    space.rbuild(["rm", "-f", "up-1"]).ok();
    let pruned = space.rbuild(["container", "prune", "-f"]).ok().stdout;
    assert!(
        pruned.starts_with("Deleted Containers:\n") && pruned.contains("Total reclaimed space: "),
        "{pruned}"
    );
    assert_eq!(names(&["-a"]), [""; 0]);
}

#[test]
fn events_tell_of_all_kinds_of_things() {
    let space = TestSpace::new().with_busybox();
    space.rbuild(["tag", "busybox", "other:1"]).ok();
    space.rbuild(["volume", "create", "data"]).ok();
    let net = space.rbuild(["network", "create", "lan", "--label", "a=b"]).ok().stdout;
    space.rbuild(["run", "--rm", "--name", "box", "-v", "data:/d", "-v", "fresh:/f", "busybox", "true"]).ok();
    let archive = space.path("other.tar");
    space.rbuild(["save", "-o", archive.to_str().unwrap(), "other:1"]).ok();
    space.rbuild(["load", "-q", "-i", archive.to_str().unwrap()]).ok();
    space.rbuild(["rmi", "other:1"]).ok();
    space.rbuild(["volume", "rm", "data"]).ok();
    space.rbuild(["network", "rm", "lan"]).ok();
    space.rbuild(["volume", "prune", "-af"]).ok();
    let events = |filters: &[&str]| {
        let mut args = vec!["events", "--since", "0", "--until", "0s", "--format", "{{.Type}} {{.Action}}"];
        filters.iter().for_each(|filter| args.extend(["-f", filter]));
        space.rbuild(args).ok().stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let images: Vec<String> = events(&["type=image", "image=other:1"]);
    assert_eq!(images, ["image tag", "image save", "image load", "image untag"]);
    assert_eq!(
        events(&["type=volume", "volume=data"]),
        ["create", "mount", "unmount", "destroy"].map(|a| format!("volume {a}"))
    );
    assert_eq!(events(&["type=volume", "volume=fresh", "event=create"]), ["volume create"]);
    assert_eq!(events(&["network=lan"]), ["network create", "network destroy"]);
    assert_eq!(events(&["event=prune"]), ["volume prune"]);
    let life = ["create", "attach", "start", "die", "destroy"].map(|a| format!("container {a}"));
    let seen = events(&["type=container", "container=box"]);
    assert_eq!(
        seen,
        life.into_iter().filter(|one| one != "container attach" || seen.contains(one)).collect::<Vec<_>>()
    );
    start(&space, &["--name", "long"], "sleep 3600");
    space.rbuild(["exec", "long", "true"]).ok();
    space.rbuild(["rename", "long", "longer"]).ok();
    space.rbuild(["stop", "-t", "0", "longer"]).ok();
    let mut seen = events(&["type=container", "container=long"]);
    seen.dedup();
    let life = [
        "create",
        "start",
        "exec_create: true",
        "exec_start: true",
        "exec_die",
        "rename",
        "kill",
        "die",
        "stop",
    ];
    assert_eq!(seen, life.map(|a| format!("container {a}")));
    let text = space
        .rbuild(["events", "--since", "0", "--until", "0s", "-f", "network=lan", "-f", "event=create"])
        .ok()
        .stdout;
    assert!(text.ends_with(&format!(" network create {} (name=lan, type=bridge)\n", net.trim())), "{text}");
    space.rbuild(["events", "--until", "0s", "-f", "what=1"]).refuses(1, &["invalid filter 'what'"]);
    space.rbuild(["events", "--until", "0s", "--format", "{{"]).refuses(64, &["template parsing error"]);
}

#[test]
fn inspect_and_info_take_templates() {
    let space = TestSpace::new().with_busybox();
    space.rbuild(["volume", "create", "data"]).ok();
    space.rbuild(["create", "--name", "box", "-v", "data:/d", "-m", "64m", "busybox", "true"]).ok();
    for (template, want) in [
        ("{{range .Mounts}}{{.Type}}|{{.Name}}|{{.Destination}}|{{.Driver}}{{end}}", "volume|data|/d|local"),
        ("{{.HostConfig.RestartPolicy}} {{json .HostConfig.PortBindings}}", "{no 0} {}"),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
        (
            "{{.HostConfig.Memory}} {{.HostConfig.BlkioWeight}} {{len .HostConfig.MaskedPaths}}",
            "67108864 0 12",
        ),
        ("{{printf \"%.4s\" .Name}}", "/box"),
    ] {
        assert_eq!(field(&space, "box", template), want, "{template}");
    }
    let inspect = |args: &[&str]| space.rbuild(["inspect"].iter().chain(args));
    assert_eq!(inspect(&["-f", "{{.Name}}", "data", "bridge", "box"]).ok().stdout, "data\nbridge\n/box\n");
    assert_eq!(inspect(&["--type", "volume", "-f", "{{.Driver}}", "data"]).ok().stdout, "local\n");
    inspect(&["--type", "network", "data"]).refuses(1, &["data"]);
    inspect(&["-f", "{{.Nope}}", "box"]).refuses(1, &["map has no entry for key \"Nope\""]);
    inspect(&["-f", "{{.Name", "box"]).refuses(64, &["unclosed action"]);
    let info = |template: &str| space.rbuild(["info", "-f", template]).ok().stdout;
    assert_eq!(info("{{.OSType}} {{.Containers}} {{.ContainersRunning}} {{.Images}}"), "linux 1 0 1\n");
    let version = space.rbuild(["version", "--format", "{{.Server.Version}} {{.Client.Os}}"]).ok().stdout;
    assert_eq!(version, format!("{} linux\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_monitor_takes_little_memory_of_its_own() {
    let space = TestSpace::new().with_busybox();
    let id =
        start(&space, &["--name", "box", "--health-cmd", "true", "--health-interval", "300ms"], "sleep 3600");
    space.rbuild(["exec", "box", "true"]).ok();
    // Code is shared by all monitors and belongs to the page cache; how much of it is resident depends on the build.
    let own = || {
        let status = fs::read_to_string(format!("/proc/{}/status", monitor_of(&space, &id))).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap().to_owned();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap()
    };
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(200));
        assert!(own() < 3 << 10, "{} KiB", own());
    }
}

#[test]
fn an_init_reaps_what_others_leave() {
    let space = TestSpace::new().with_busybox();
    let script =
        "for i in 1 2 3 4 5; do (sleep 0.1 &); done; sleep 1; ps | grep -c '\\[sleep\\]' || true; sleep 3600";
    start(&space, &["--name", "with", "--init"], script);
    start(&space, &["--name", "without"], "exec sleep 3600");
    eventually("it has counted", SOON, || !space.rbuild(["logs", "with"]).stdout.is_empty());
    assert_eq!(space.rbuild(["logs", "with"]).ok().stdout, "0\n");
    // Process 1 of this one collects nobody.
    space.rbuild(["exec", "without", "sh", "-c", "(sleep 0.1 &)"]).ok();
    std::thread::sleep(Duration::from_millis(500));
    let left = space.rbuild(["exec", "without", "sh", "-c", "ps | grep -c '\\[sleep\\]'"]).ok().stdout;
    assert_eq!(left, "1\n");
}

#[test]
fn an_ordinary_user_has_all_this() {
    let Some(space) = TestSpace::rootless() else { return };
    let space = space.with_busybox();
    start(&space, &["--name", "box", "-u", "7"], "echo up; id -u; sleep 3600");
    eventually("it is up", SOON, || space.rbuild(["logs", "box"]).stdout == "up\n7\n");
    assert_eq!(space.rbuild(["exec", "-u", "0", "box", "id", "-u"]).ok().stdout, "0\n");
    assert_eq!(space.rbuild(["exec", "box", "sh", "-c", "echo $HOSTNAME | wc -c"]).ok().stdout, "13\n");
    assert!(space.rbuild(["top", "box"]).ok().stdout.contains("sleep 3600"));
    space.rbuild(["stop", "-t", "0", "box"]).ok();
    assert_eq!(status(&space, "box"), "exited");
    space.rbuild(["start", "box"]).ok();
    space.rbuild(["rm", "box"]).refuses(1, &["running"]);
    space.rbuild(["rm", "-f", "box"]).ok();
    space.assert_nothing_runs();
}

#[test]
fn wrong_command_lines_have_dockers_exit_codes() {
    let space = TestSpace::new().with_busybox();
    for (line, code) in [
        ("run", 1),
        ("run -it busybox true", 1),
        ("run -d -a stdout busybox true", 1),
        ("run --detach-keys ctrl- busybox true", 1),
        ("run --nosuch busybox", 125),
        ("run --name a busybox", 125),
        ("run --rm=yes busybox", 125),
        ("ps --nosuch", 125),
        ("stop -t x box", 125),
        ("create --pull sometimes busybox", 125),
        ("create --health-interval 1 busybox", 125),
        ("create --label = busybox", 125),
        ("create --name a busybox", 1),
        ("create --log-opt compress=x busybox", 1),
        ("rm", 1),
        ("rename box", 1),
        ("start -a one two", 1),
    ] {
        let done = space.rbuild(line.split(' ')).code(code);
        assert_eq!(done.stdout, "", "{line}");
    }
    assert_eq!(space.rbuild(["ps", "-aq"]).ok().stdout, "");
}

#[test]
fn scripts_may_say_nothing_or_say_it_twice() {
    let space = TestSpace::new().with_busybox();
    let mut args = vec!["run", "--rm=1", "--rm", "--network", "none", "--name", "first", "--name", ""];
    let empty =
        ["-w", "-u", "-h", "--stop-signal", "--log-driver", "--cidfile", "--restart", "--platform", "--pull"];
    args.extend(empty.iter().flat_map(|flag| [*flag, ""]));
    args.extend(["-e", "A=1", "-e", "A=2", "busybox", "sh", "-c", "echo $A; pwd"]);
    assert_eq!(space.rbuild(args).ok().stdout, "2\n/\n");
    // nobody is there: nothing is removed, and nothing is wrong
    let done = space.rbuild(["rm", "-f", "nobody"]).ok();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));
    // a name may be written as inspect shows it
    space.rbuild(["create", "--name", "/box", "busybox"]).ok();
    space.rbuild(["rename", "/box", "/crate"]).ok();
    assert_eq!(field(&space, "crate", "{{.Name}}"), "/crate");
    space.rbuild(["rename", "crate", "crate"]).refuses(1, &["called crate already"]);
    space.rbuild(["rename", "crate", ""]).refuses(1, &["may be empty"]);
}

#[test]
fn an_empty_word_is_no_program() {
    let space = TestSpace::new().with_busybox();
    space.rbuild(["run", "--network", "none", "busybox", ""]).refuses(127, &["exec: \"\""]);
}

#[test]
fn start_attaches_to_what_runs_and_types_what_comes_from_a_pipe() {
    let space = TestSpace::new().with_busybox();
    start(&space, &["--name", "box"], "trap 'exit 6' TERM; while :; do echo tick; sleep 0.1; done");
    let mut attached = Running::start(&mut space.command(["start", "-a", "box"]));
    attached.wait_for("tick", MINUTE);
    attached.signal(Signal::SIGTERM);
    attached.wait(MINUTE).code(6);
    space.rbuild(["create", "-it", "--network", "none", "--name", "typed", "busybox", "sh"]).ok();
    let mut command = space.command(["start", "-ai", "typed"]);
    common::process::finish(&mut command, Some(b"exit 3\n"), MINUTE).code(3);
}

#[test]
fn real_time_signals_and_new_sizes_arrive() {
    let space = TestSpace::new().with_busybox();
    start(&space, &["--name", "box"], "trap 'exit 8' 35; echo ready; while :; do sleep 0.1; done");
    eventually("it runs", SOON, || space.rbuild(["logs", "box"]).stdout.contains("ready"));
    space.rbuild(["kill", "-s", "RTMIN+1", "box"]).ok();
    assert_eq!(space.rbuild(["wait", "box"]).ok().stdout, "8\n");
    let script = "trap 'exit 9' WINCH; echo ready; while :; do sleep 0.1; done";
    let mut running =
        Running::start(&mut space.command(["run", "--network", "none", "busybox", "sh", "-c", script]));
    running.wait_for("ready", MINUTE);
    running.signal(Signal::SIGWINCH);
    running.wait(MINUTE).code(9);
}

#[test]
fn a_container_outlives_the_line_to_its_user() {
    let space = TestSpace::new().with_busybox();
    let script = "trap '' HUP; echo ready; while :; do sleep 0.1; done";
    let args = ["run", "-t", "--network", "none", "--name", "box", "busybox", "sh", "-c", script];
    let mut running = Running::start(&mut space.command(args));
    running.wait_for("ready", MINUTE);
    running.signal(Signal::SIGHUP);
    running.wait(MINUTE).code(129);
    assert_eq!(status(&space, "box"), "running");
    space.rbuild(["rm", "-f", "box"]).ok();
}

#[test]
fn a_command_whose_reader_is_gone_ends() {
    use std::io::{BufRead, BufReader};
    let space = TestSpace::new().with_busybox();
    // the first minds, the second does not: as process 1 it is not killed by SIGPIPE
    for (script, status_after) in
        [("exec yes", "exited"), ("while :; do echo y; done 2>/dev/null", "running")]
    {
        let mut command =
            space.command(["run", "--network", "none", "--name", "box", "busybox", "sh", "-c", script]);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut code = None;
        eventually("the command ends", MINUTE, || {
            code = child.try_wait().unwrap().map(|end| end.code());
            code.is_some()
        });
        assert_eq!((line.as_str(), code), ("y\n", Some(Some(1))), "{script}");
        assert_eq!(status(&space, "box"), status_after, "{script}");
        space.rbuild(["rm", "-f", "box"]).ok();
    }
}
