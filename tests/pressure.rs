//! Many processes on one store, and steps that take more than their share: all of it succeeds or ends by itself, nothing
//! is wrong afterwards. `RBUILD_LONG=1` keeps the store under pressure for minutes instead of seconds.

mod common;

use common::process::{Running, eventually};
use common::registry::Registry;
use common::{TestSpace, is_image_id};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A step may take so long on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `work` again and again until the time is over, at least twice; it gets the number of its round.
fn keep_doing(until: Instant, mut work: impl FnMut(usize)) -> usize {
    let mut round = 0;
    while round < 2 || Instant::now() < until {
        work(round);
        round += 1;
    }
    round
}

/// The same Dockerfile and context in a directory of its own, so that nothing but the store is shared.
fn shared_context(space: &TestSpace, name: &str) -> String {
    for file in 0..20 {
        space.write(&format!("{name}/files/{file}"), format!("file {file}\n"));
    }
    space.write(
        &format!("{name}/Dockerfile"),
        "FROM busybox AS a\nARG ROUND\nRUN echo $ROUND >/round && mkdir /d && ln -s /round /d/link\nFROM busybox\n\
         COPY files /files\nARG ROUND\nRUN cat /files/* >/all && echo $ROUND >>/all\nCOPY --from=a /d /round /from/\n",
    );
    name.to_owned()
}

#[test]
fn eight_processes_share_one_store() {
    let held = TestSpace::new();
    let Some(registry) = Registry::start(&held) else { return };
    let space = TestSpace::new().with_busybox();
    let long = std::env::var_os("RBUILD_LONG").is_some();
    let until = Instant::now() + Duration::from_secs(if long { 240 } else { 8 });
    let ids = Mutex::new(BTreeSet::new());
    let done = AtomicUsize::new(0);
    let name = format!("{}/team/app", registry.host);
    let build = |context: &str, round: usize, more: &[&str]| {
        let file = space.path(&format!("{context}.iid"));
        let (round, file) = (format!("ROUND={round}"), file.to_str().expect("a plain path"));
        let epoch = "SOURCE_DATE_EPOCH=1700000000";
        let mut args = vec!["--build-arg", &round, "--build-arg", epoch, "--iidfile", file];
        args.extend(more);
        space.build(&space.path(context), &args).ok();
        let id = std::fs::read_to_string(file).expect("--iidfile was written");
        assert!(is_image_id(&id), "{id:?}");
        id
    };
    std::thread::scope(|scope| {
        let start = |work: Box<dyn Fn(usize) + Send + Sync>| {
            let done = &done;
            scope.spawn(move || done.fetch_add(keep_doing(until, work), Ordering::Relaxed));
        };
        // three build the same thing at the same time
        for builder in 0..3 {
            let context = shared_context(&space, &format!("same{builder}"));
            let (build, ids) = (&build, &ids);
            start(Box::new(move |round| {
                let id = build(&context, round, &["-t", &format!("same:{builder}")]);
                ids.lock().expect("no holder panics").insert((round, id));
            }));
        }
        let context = shared_context(&space, "other");
        let (space, build, name) = (&space, &build, &name);
        start(Box::new(move |round| {
            build(&context, 1000 + round, &["-t", name, "--label", "own=1"]);
            space.rbuild(["push", "-q", name]).ok();
            space.rbuild(["rmi", name]).ok();
            space.rbuild(["pull", "-q", name]).ok();
            let all = space.stdout_of(name, &["cat", "/all"]);
            assert!(all.ends_with(&format!("\n{}\n", 1000 + round)), "{all}");
        }));
        start(Box::new(move |round| {
            let container = format!("c{round}");
            space.rbuild(["run", "-d", "--name", &container, "busybox", "sleep", "1000"]).ok();
            let said = space.rbuild(["exec", &container, "echo", "here"]).ok();
            assert_eq!(said.stdout, "here\n");
            space.rbuild(["rm", "-f", &container]).ok();
        }));
        start(Box::new(move |_| {
            let said = space.stdout_of("busybox", &["sh", "-c", "echo x >/new; cat /new"]);
            assert_eq!(said, "x\n");
        }));
        start(Box::new(move |round| {
            let tag = format!("busybox:{round}");
            let file = space.path("saved.tar");
            space.rbuild(["tag", "busybox", &tag]).ok();
            space.rbuild(["save".as_ref(), "-o".as_ref(), file.as_os_str(), tag.as_ref()]).ok();
            space.rbuild(["rmi", &tag]).ok();
            space.rbuild(["load".as_ref(), "-q".as_ref(), "-i".as_ref(), file.as_os_str()]).ok();
            space.rbuild(["rmi", &tag]).ok();
        }));
        start(Box::new(move |round| {
            let command: &[&str] = match round % 4 {
                0 => &["builder", "prune", "-f"],
                1 => &["image", "prune", "-f"],
                2 => &["system", "df"],
                _ => &["builder", "prune", "-af", "--keep-storage", "1MB"],
            };
            space.rbuild(command).ok();
        }));
    });
    let ids = ids.into_inner().expect("no holder panics");
    let rounds: BTreeSet<usize> = ids.iter().map(|(round, _)| *round).collect();
    assert_eq!(ids.len(), rounds.len(), "the same input gave several images: {ids:?}");
    assert!(done.into_inner() >= 16);
    for builder in 0..3 {
        let said = space.stdout_of(
            &format!("same:{builder}"),
            &["sh", "-c", "cat /files/* | cmp - /all || tail -n 1 /all"],
        );
        assert!(!said.is_empty());
    }
    space.assert_nothing_runs();
}

#[test]
fn a_step_has_an_end_of_processes_that_is_not_the_machines() {
    let host = || std::fs::read_to_string("/proc/sys/kernel/pid_max").expect("a number");
    let before = host();
    for space in [Some(TestSpace::new()), TestSpace::rootless()].into_iter().flatten() {
        let space = space.with_busybox();
        let built =
            space.build_text("limits", "FROM busybox\nRUN echo at most $(cat /proc/sys/kernel/pid_max)\n");
        assert!(built.stderr.contains("at most "), "{built}");
        if let Some(own) = own_pid_max() {
            assert!(built.stderr.contains(&format!("at most {own}")), "{built}");
        }
    }
    assert_eq!(host(), before);
}

/// What a step must see, where the kernel counts for each namespace.
fn own_pid_max() -> Option<u32> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a version");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next() >= Some(6) && (numbers.next() >= Some(14) || !release.starts_with("6.")))
        .then_some(16_384)
}

#[test]
fn a_step_that_forks_without_end_goes_with_its_build() {
    let space = TestSpace::new().with_busybox();
    // 300 processes, each of which starts another when it ends
    let text = "FROM busybox\nRUN f() { sleep 0.2; f & }; for i in $(seq 300); do f & done; echo all of them; sleep 1000\n";
    space.write("bomb/Dockerfile", text);
    let mut build = Running::start(&mut space.command(["build", "--progress", "plain", "bomb"]));
    build.wait_for("all of them", PATIENCE);
    // another build does not notice
    space.build_text("beside", "FROM busybox\nRUN echo beside >/f\n");
    build.signal(Signal::SIGTERM);
    build.wait(PATIENCE).code(143);
    eventually("every process is gone", PATIENCE, || common::process::holding(&space.path("")).is_empty());
}

#[test]
fn output_without_end_of_line_and_much_of_it_takes_little_memory() {
    let space = TestSpace::new().with_busybox();
    space.dockerfile("FROM busybox\nRUN head -c 100000000 /dev/zero | tr '\\0' x; echo; yes a line of text | head -n 300000\n");
    let binary = space.binary().to_owned();
    // /proc/PID/status is gone with the process: a shell reports the peak of its child
    let script = "import os, resource, sys\npid = os.fork()\nif pid == 0:\n    os.execv(sys.argv[1], sys.argv[1:])\n\
                  _, status, use = os.wait4(pid, 0)\nprint('peak', use.ru_maxrss)\nsys.exit(os.waitstatus_to_exitcode(status))\n";
    let binary = binary.to_str().expect("a plain path");
    let done = space.run_tool("python3", ["-c", script, binary, "build", "--progress", "plain", "ctx"]).ok();
    let peak: u64 =
        done.stdout.lines().find_map(|l| l.strip_prefix("peak ")).expect("a peak").parse().expect("a number");
    assert!(peak < 100 << 10, "{peak} KiB at most");
    // nothing is cut
    let lines = done.stderr.lines().filter(|line| line.ends_with(" a line of text")).count();
    assert_eq!(lines, 300_000);
    assert!(done.stderr.bytes().filter(|b| *b == b'x').count() >= 100_000_000);
}

#[test]
fn a_file_far_larger_than_the_disk_can_be_interrupted() {
    let space = TestSpace::new().with_busybox();
    space.dockerfile("FROM busybox\nRUN truncate -s 8000000000000 /huge && echo made it\n");
    let mut build = Running::start(&mut space.command(["build", "--progress", "plain", "ctx"]));
    build.wait_for("made it", PATIENCE);
    build.signal(Signal::SIGTERM);
    build.wait(PATIENCE).code(143);
    space.assert_nothing_runs();
    space.build_text("next", "FROM busybox\nRUN echo next >/f\n");
}
