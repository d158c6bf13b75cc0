//! Commands that are killed at the places where it could hurt: what comes next works, is the same, and nothing is left.
//!
//! The binary of the tests ends itself at a named point (`src/fault.rs`). Every command here is first run once to see which
//! points it passes, then once for each of them: killed there, the store checked, run again, compared with the run that
//! nobody disturbed, everything removed, and the store must be empty. `RBUILD_LONG=1` takes every point with every file that
//! it is about; else each point is taken once, by the command that it is assigned to.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::process::{self, Done};
use common::registry::Registry;
use common::{TestSpace, base, root_or_skip};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

/// A store that commands are killed on.
struct Victim<'a> {
    space: &'a TestSpace,
    root: PathBuf,
    number: String,
}

impl<'a> Victim<'a> {
    fn new(space: &'a TestSpace, name: &str) -> Self {
        Self { space, root: space.path(name), number: "0".to_owned() }
    }

    /// A copy with everything as it is, hard links too.
    fn copy(&self, name: &str) -> Self {
        let copy = Self::new(self.space, name);
        let done = Command::new("cp").arg("-a").arg(&self.root).arg(&copy.root).status().unwrap();
        assert!(done.success());
        copy
    }

    fn with(&self, args: &[&str], env: &[(&str, &str)]) -> Done {
        let mut command = self.space.command(args);
        command.env("RBUILD_ROOT", &self.root).envs(env.iter().copied());
        process::finish(&mut command, None, PATIENCE)
    }

    fn run(&self, args: &[&str]) -> Done {
        self.with(args, &[])
    }

    /// The same for a command that has `{}` where the victims are told apart.
    fn command(&self, args: &[&str], env: &[(&str, &str)]) -> Done {
        let args: Vec<String> = args.iter().map(|arg| arg.replace("{}", &self.number)).collect();
        self.with(&args.iter().map(String::as_str).collect::<Vec<_>>(), env)
    }

    fn words(&self, args: &[&str]) -> Vec<String> {
        self.run(args).ok().stdout.split_whitespace().map(str::to_owned).collect()
    }

    /// Removes everything that a user can remove, and insists that the store is empty and nothing runs.
    fn clear(&self, at: &str) {
        let all = |list: &[&str], remove: &[&str]| {
            let names = self.words(list);
            if !names.is_empty() {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.run(&[remove, &names].concat()).ok();
            }
        };
        all(&["ps", "-aq"], &["rm", "-f", "-v"]);
        all(&["volume", "ls", "-q"], &["volume", "rm"]);
        all(&["network", "ls", "-q", "--filter", "type=custom"], &["network", "rm"]);
        all(&["images", "-q", "--no-trunc"], &["rmi", "-f"]);
        self.run(&["system", "prune", "-af", "--volumes"]).ok();
        let left: Vec<String> = files_below(&self.root).into_iter().filter(|path| !stays(path)).collect();
        assert!(left.is_empty(), "{at}: left in the store: {left:?}");
        process::eventually("nothing runs", Duration::from_secs(60), || {
            process::holding(&self.root).is_empty()
        });
        fs::remove_dir_all(&self.root).unwrap();
    }
}

/// What an empty store may have: lists of nothing, locks, estimates, logs.
fn stays(path: &str) -> bool {
    let dirs = ["locks/", "index/", "builds/"];
    let files = [
        "snapshotter",
        "usage",
        "containers/events.json",
        "images/oci-layout",
        "images/index.json",
        "images/index.copy.json",
    ];
    dirs.iter().any(|dir| path.starts_with(dir)) || files.contains(&path)
}

fn files_below(root: &Path) -> Vec<String> {
    let (mut files, mut dirs) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(entry.path()),
                false => files.push(entry.path().strip_prefix(root).unwrap().display().to_string()),
            }
        }
    }
    files
}

/// A command that is killed.
struct Scenario<'a> {
    args: &'a [&'a str],
    /// What is done before.
    before: &'a [&'a [&'a str]],
    /// What is done before the same command is run again after a kill.
    before_again: &'a [&'a [&'a str]],
    /// Says what came of it, to be compared with the undisturbed run.
    outcome: &'a (dyn Fn(&Victim<'_>) -> String + Sync),
    /// The beginnings of the points that this command is responsible for.
    points: &'a [&'a str],
}

impl Scenario<'_> {
    /// Kills the command on copies of `template`.
    #[expect(clippy::print_stderr, reason = "the numbers of a long run")]
    fn play(&self, template: &Victim<'_>) {
        let trace = template.space.path("trace");
        let _ = fs::remove_file(&trace);
        let undisturbed = template.copy("undisturbed");
        self.before.iter().for_each(|args| drop(undisturbed.command(args, &[]).ok()));
        undisturbed.command(self.args, &[("RBUILD_FAULT_TRACE", trace.to_str().unwrap())]).ok();
        let wanted = (self.outcome)(&undisturbed);
        undisturbed.clear("undisturbed");
        let passed: BTreeSet<String> =
            fs::read_to_string(&trace).unwrap().lines().map(str::to_owned).collect();
        let name = |text: &str| text.split(' ').next().unwrap().to_owned();
        let names: BTreeSet<String> = passed.iter().map(|text| name(text)).collect();
        for point in rbuild::fault::POINTS.iter().filter(|point| is_of(point, self.points)) {
            assert!(names.contains(*point), "{:?} does not pass {point}: {names:?}", self.args);
        }
        let long = std::env::var_os("RBUILD_LONG").is_some();
        let mut seen = BTreeSet::new();
        let chosen: Vec<&String> = passed
            .iter()
            .filter(|text| {
                long || is_of(&name(text), self.points)
                    && (*text == "store.file.renamed images/index.json" || seen.insert(name(text)))
            })
            .collect();
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        let Some(point) = chosen.get(n) else { break };
                        let one = || self.kill(template, point, n + 1, &wanted);
                        if let Err(error) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(one)) {
                            let text = error.downcast_ref::<String>().cloned().unwrap_or_default();
                            failed.lock().unwrap().push(format!("{point}: {text}"));
                        }
                    }
                });
            }
        });
        let failed = failed.into_inner().unwrap();
        eprintln!("{:?}: killed at {} points", self.args, chosen.len());
        assert!(failed.is_empty(), "{:?}\n{}", self.args, failed.join("\n\n"));
        template.clear("template");
    }

    fn kill(&self, template: &Victim<'_>, point: &str, number: usize, wanted: &str) {
        let number = number.to_string();
        let victim = Victim { number: number.clone(), ..template.copy(&format!("kill-{number}")) };
        self.before.iter().for_each(|args| drop(victim.command(args, &[]).ok()));
        let trace = victim.space.path(&format!("trace-{number}"));
        let env = [("RBUILD_FAULT", point), ("RBUILD_FAULT_TRACE", trace.to_str().unwrap())];
        let done = victim.command(self.args, &env);
        // of a container's monitor the command may not hear
        let died = fs::read_to_string(&trace).unwrap().contains(&format!("killed at {point}\n"));
        assert!(died || !is_of(point, self.points), "it lives\n{done}");
        fs::remove_file(&trace).unwrap();
        let check = victim.run(&["system", "check"]);
        assert_eq!(check.stdout, "The store is sound.\n", "{check}");
        for args in self.before_again {
            victim.run(args);
        }
        victim.command(self.args, &[]).ok();
        assert_eq!((self.outcome)(&victim), wanted);
        let check = victim.run(&["system", "check"]);
        assert_eq!(check.stdout, "The store is sound.\n", "{check}");
        victim.clear(point);
    }
}

fn is_of(point: &str, beginnings: &[&str]) -> bool {
    beginnings.iter().any(|start| point.starts_with(start))
}

fn busybox(space: &TestSpace) -> Victim<'_> {
    let template = Victim::new(space, "template");
    template.run(&["import", base("busybox").to_str().unwrap(), "busybox"]).ok();
    template
}

/// A context with a shared file, a step, and a volume with something in it.
fn context(space: &TestSpace) -> String {
    space.write("ctx/f", "text of a file\n");
    let text = "FROM busybox\nCOPY f /f\nRUN mkdir /v && cat /f > /v/copy && rm /etc/group\nVOLUME /v\n";
    space.dockerfile(text).display().to_string()
}

fn id_of(victim: &Victim<'_>) -> String {
    victim.run(&["images", "-q", "--no-trunc", "app"]).ok().stdout
}

/// Image ID, and what is in it.
fn app(victim: &Victim<'_>) -> String {
    let seen =
        victim.run(&["run", "--rm", "--network", "none", "app", "sh", "-c", "cat /f /v/copy; ls /etc"]);
    format!("{}{}", id_of(victim), seen.ok().stdout)
}

/// Makes the image of a build the same, whenever it is built.
const EPOCH: &str = "--build-arg=SOURCE_DATE_EPOCH=1700000000";

const BUILD: &[&str] = &[
    "store.temp_dir",
    "store.file",
    "store.body.filled",
    "store.body.kept",
    "snapshot.prepared",
    "snapshot.tree_written",
    "snapshot.record_written",
    "snapshot.renamed",
    "snapshot.before_alias",
    "snapshot.aliased",
    "cache",
    "index",
    "image.before_list",
    "image.listed",
];
const INSPECT: &[&str] = &["image.pending"];
const LOAD: &[&str] = &["load", "store.blob.checked", "store.blob.synced"];
const RMI: &[&str] = &["image.unlisted", "image.swept", "store.blob.before_remove", "store.blob.removed"];
const PRUNE: &[&str] = &["gc", "snapshot.buried", "snapshot.aliases_gone", "store.body.removed"];
const RUN: &[&str] = &[
    "container.staged",
    "container.record_written",
    "container.name_taken",
    "container.renamed",
    "container.monitor_locked",
    "container.joined",
    "container.spawned",
    "container.running",
    "container.ended",
    "volume.filled",
];
const REMOVE: &[&str] = &[
    "container.before_remove",
    "container.network_left",
    "container.name_free",
    "container.buried",
    "volume.buried",
];
const VOLUME: &[&str] = &["volume.described", "volume.made"];
const NETWORK: &[&str] = &["network"];
const PULL: &[&str] = &["pull"];
const PUSH: &[&str] = &["push"];
const FETCH: &[&str] = &["store.blob.adopted"];

#[test]
fn every_point_of_the_sources_is_listed_and_has_its_command() {
    let (mut used, mut dirs) = (BTreeSet::new(), vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")]);
    while let Some(dir) = dirs.pop() {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for call in ["fault::point(\"", "fault::point_at(\""] {
                used.extend(text.split(call).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
            }
        }
    }
    let listed: BTreeSet<String> = rbuild::fault::POINTS.iter().map(|point| (*point).to_owned()).collect();
    assert_eq!(used, listed);
    assert_eq!(listed.len(), rbuild::fault::POINTS.len());
    let commands = [BUILD, INSPECT, LOAD, RMI, PRUNE, RUN, REMOVE, VOLUME, NETWORK, PULL, PUSH, FETCH];
    for point in &listed {
        assert_eq!(commands.iter().filter(|of| is_of(point, of)).count(), 1, "{point}");
    }
}

#[test]
fn a_build_is_killed() {
    if !root_or_skip() {
        return;
    }
    let space = TestSpace::new();
    let context = context(&space);
    let args = ["build", "-q", "-t", "app", EPOCH, &context];
    Scenario { args: &args, before: &[], before_again: &[], outcome: &app, points: BUILD }
        .play(&busybox(&space));
}

#[test]
fn an_image_is_killed_in_the_making() {
    if !root_or_skip() {
        return;
    }
    let space = TestSpace::new();
    let template = busybox(&space);
    template.run(&["build", "-t", "app", EPOCH, &context(&space)]).ok();
    Scenario { args: &["inspect", "app"], before: &[], before_again: &[], outcome: &app, points: INSPECT }
        .play(&template);
}

#[test]
fn load_and_tag_are_killed() {
    if !root_or_skip() {
        return;
    }
    let space = TestSpace::new();
    let template = busybox(&space);
    let archive = space.path("app.tar").display().to_string();
    template
        .run(&["build", "-t", "app", "-o", &format!("type=oci,dest={archive},name=app"), &context(&space)])
        .ok();
    template.clear("built");
    let template = busybox(&space);
    let load = ["load", "-q", "-i", &archive];
    Scenario { args: &load, before: &[], before_again: &[], outcome: &app, points: LOAD }.play(&template);
    let template = busybox(&space);
    template.run(&load).ok();
    let tag = ["tag", "app", "other/name:1"];
    let names =
        |victim: &Victim<'_>| victim.run(&["images", "--no-trunc"]).ok().stdout.lines().count().to_string();
    Scenario { args: &tag, before: &[], before_again: &[], outcome: &names, points: &[] }.play(&template);
}

#[test]
fn removals_of_images_and_cache_are_killed() {
    if !root_or_skip() {
        return;
    }
    let space = TestSpace::new();
    let template = busybox(&space);
    let context = context(&space);
    template.run(&["build", "-q", "-t", "app", &context]).ok();
    let other = space.write("ctx/other", "FROM busybox\nCOPY f /other\nRUN echo x > /x\n");
    let again = ["build", "-q", "-t", "gone", &context, "-f", other.to_str().unwrap()];
    template.run(&again).ok();
    let saved = template.copy("saved");
    let names = |victim: &Victim<'_>| {
        format!("{}{}", victim.run(&["images", "-q"]).ok().stdout.lines().count(), app(victim))
    };
    // what is gone cannot be removed again
    Scenario {
        args: &["rmi", "-f", "gone"],
        before: &[],
        before_again: &[&again],
        outcome: &names,
        points: RMI,
    }
    .play(&template);
    saved.run(&["rmi", "gone"]).ok();
    Scenario {
        args: &["system", "prune", "-af"],
        before: &[],
        before_again: &[],
        outcome: &|_| String::new(),
        points: PRUNE,
    }
    .play(&saved);
}

#[test]
fn containers_are_killed() {
    if !root_or_skip() {
        return;
    }
    let space = TestSpace::new();
    let template = busybox(&space);
    template.run(&["build", "-q", "-t", "app", &context(&space)]).ok();
    let made = template.copy("made");
    let run = ["run", "--name", "box", "-v", "data:/data", "app", "cat", "/v/copy"];
    let outcome = |victim: &Victim<'_>| {
        let state = victim.run(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]).ok().stdout;
        let volumes = victim.words(&["volume", "ls", "-q"]).len();
        let live = fs::read_dir(victim.root.join("networks/live")).into_iter().flatten().count();
        format!("{state}{} {volumes} {live}", victim.run(&["logs", "box"]).ok().stdout)
    };
    let clear: &[&[&str]] = &[&["rm", "-f", "-v", "box"], &["volume", "prune", "-af"]];
    Scenario { args: &run, before: &[], before_again: clear, outcome: &outcome, points: RUN }.play(&template);
    made.run(&["run", "-d", "--name", "box", "app", "sleep", "100"]).ok();
    // a copy of its directory has no monitor, which is the state after a kill
    let stopped = made.copy("stopped");
    made.clear("made");
    let gone = |victim: &Victim<'_>| victim.run(&["ps", "-a"]).ok().stdout;
    let again: &[&[&str]] = &[];
    let remove = ["rm", "-f", "-v", "box"];
    Scenario { args: &remove, before: &[], before_again: again, outcome: &gone, points: REMOVE }
        .play(&stopped);
}

#[test]
fn volumes_and_networks_are_killed() {
    if !root_or_skip() {
        return;
    }
    let space = TestSpace::new();
    let list = |victim: &Victim<'_>| victim.run(&["volume", "ls", "-q"]).ok().stdout;
    let args = ["volume", "create", "--label", "a=b", "data"];
    Scenario { args: &args, before: &[], before_again: &[], outcome: &list, points: VOLUME }
        .play(&busybox(&space));
    let list = |victim: &Victim<'_>| victim.run(&["network", "ls", "--format", "{{.Name}}"]).ok().stdout;
    let args = ["network", "create", "net"];
    let again: &[&[&str]] = &[&["network", "rm", "net"]];
    Scenario { args: &args, before: &[], before_again: again, outcome: &list, points: NETWORK }
        .play(&busybox(&space));
}

#[test]
fn pull_and_push_are_killed() {
    if !root_or_skip() {
        return;
    }
    let space = TestSpace::new();
    let Some(registry) = Registry::start(&space) else { return };
    let context = context(&space);
    let name = format!("{}/app-0:1", registry.host);
    let template = busybox(&space);
    template.run(&["build", "-q", "-t", "app", EPOCH, &context]).ok();
    // what is there is whole, for somebody who has nothing of it
    let arrived = |victim: &Victim<'_>| {
        let other = Victim::new(victim.space, &format!("other-{}", victim.number));
        let name = format!("{}/app-{}:1", registry.host, victim.number);
        other.run(&["pull", "-q", &name]).ok();
        other.run(&["tag", &name, "app"]).ok();
        let seen = app(&other);
        other.clear("other");
        seen
    };
    let push = format!("{}/app-{{}}:1", registry.host);
    Scenario {
        args: &["push", "-q", &push],
        before: &[&["tag", "app", &push]],
        before_again: &[],
        outcome: &arrived,
        points: PUSH,
    }
    .play(&template);
    let outcome = |victim: &Victim<'_>| {
        victim.run(&["tag", &name, "app"]).ok();
        app(victim)
    };
    Scenario {
        args: &["pull", "-q", &name],
        before: &[],
        before_again: &[],
        outcome: &outcome,
        points: PULL,
    }
    .play(&busybox(&space));
    space.write("lazy/Dockerfile", format!("FROM {name}\nRUN cat /f > /g\n"));
    let lazy = space.path("lazy").display().to_string();
    let args = ["build", "-q", "-t", "app", EPOCH, &lazy];
    Scenario { args: &args, before: &[], before_again: &[], outcome: &app, points: FETCH }
        .play(&busybox(&space));
}
