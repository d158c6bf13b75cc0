//! Disk use and taking away: the numbers are true, what is needed stays, and nothing that happens at the same time
//! makes a difference.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::TestSpace;
use common::archive::sha256;
use common::process::{self, Running};
use common::watch::{Watch, layer_contents};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// Bytes that the store takes, by du, run as whoever runs the tests.
fn du(space: &TestSpace) -> u64 {
    let done = Command::new("du").args(["-s", "-B1"]).arg(space.store()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// A row of `system df`.
fn df(space: &TestSpace, kind: &str) -> serde_json::Value {
    let out = space.rbuild(["system", "df", "--format", "json"]).ok().stdout;
    let mut rows = out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    rows.find(|row| row["Type"] == kind).unwrap()
}

fn df_total(space: &TestSpace) -> u64 {
    let out = space.rbuild(["system", "df", "--format", "json"]).ok().stdout;
    let rows = out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    rows.map(|row| row["SizeBytes"].as_u64().unwrap()).sum()
}

/// All files below a directory of the store.
fn files(space: &TestSpace, dir: &str) -> Vec<PathBuf> {
    let below = |dir: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    below(&space.store().join(dir)).iter().flat_map(|shard| below(shard)).collect()
}

/// Makes all records say that their steps were last used so many hours ago (or hence).
fn used_hours_ago(space: &TestSpace, hours: i64, but: &[PathBuf]) {
    let span = Duration::from_secs(hours.unsigned_abs() * 3600);
    let now = SystemTime::now();
    let time = if hours < 0 { now + span } else { now - span };
    for path in files(space, "steps").iter().filter(|path| !but.contains(path)) {
        std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }
}

fn prune(space: &TestSpace, args: &[&str]) -> String {
    space.rbuild(["builder", "prune", "-f"].iter().chain(args)).ok().stdout
}

/// A Dockerfile whose RUN makes a file of 2 MB that depends on `name`.
fn two_megabytes(name: &str) -> String {
    format!("FROM busybox\nRUN yes {name} | head -c 2000000 > /{name}\n")
}

#[test]
fn df_says_what_du_says() {
    let space = TestSpace::new().with_busybox();
    space.write("ctx/big", vec![7u8; 3_000_000]);
    space.build_text("one", "FROM busybox\nCOPY big /big\nRUN ln /big /again && echo x > /x\n");
    space.build_text(
        "two",
        "FROM busybox\nRUN echo before\nCOPY big /big\nRUN --mount=type=cache,target=/c echo x > /c/x\n",
    );
    space.build_text("three", &two_megabytes("a"));
    space.rbuild(["rmi", "three"]).ok();
    // the first measurement is remembered in the store, so it must count itself too
    for _ in 0..2 {
        assert_eq!(df_total(&space), du(&space));
    }
    // the body that both copies share is there once
    assert!(df(&space, "Images")["SizeBytes"].as_u64().unwrap() < 8_000_000 + 3_500_000);
    let cache = df(&space, "Build Cache")["ReclaimableBytes"].as_u64().unwrap();
    assert!((2_000_000..2_200_000).contains(&cache), "{cache}");
    let before = du(&space);
    let said = prune(&space, &[]);
    assert!(said.contains("Deleted build cache objects:\n"), "{said}");
    let freed = before - du(&space);
    assert!((2_000_000..2_200_000).contains(&freed), "{freed}");
    assert_eq!(df_total(&space), du(&space));
    let table = space.rbuild(["system", "df", "-v"]).ok().stdout;
    for words in ["Images space usage:", "exec.cachemount", "Build cache usage: ", "UNIQUE SIZE"] {
        assert!(table.contains(words), "{table}");
    }
}

#[test]
fn nothing_that_an_image_needs_is_removed() {
    let space = TestSpace::new().with_busybox();
    // an empty step in the middle and a twice used layer make chain ids and results differ
    space.write("ctx/f", "text");
    let context = space.dockerfile(
        "FROM busybox AS tools\nRUN echo tool > /tool\nFROM busybox\nRUN true\nCOPY f /f\nRUN true\nCOPY --from=tools /tool /tool\nRUN cat /f /tool > /both\n",
    );
    space.build(&context, &["-t", "app"]).ok();
    space.build(&context, &["-t", "squashed", "--squash"]).ok();
    let save = |name: &str| {
        let path = space.path("out.tar");
        space.rbuild(["save".as_ref(), name.as_ref(), "-o".as_ref(), path.as_os_str()]).ok();
        sha256(&std::fs::read(path).unwrap())
    };
    let before = [save("app"), save("squashed")];
    space.rbuild(["rmi", "busybox"]).ok();
    for args in [&["-a"][..], &["--keep-storage", "0"], &["-a", "--filter", "until=0s"]] {
        prune(&space, args);
        assert_eq!([save("app"), save("squashed")], before, "{args:?}");
        for image in ["app", "squashed"] {
            assert_eq!(space.stdout_of(image, &["cat", "/both"]), "texttool\n");
        }
    }
    validate_all(&space);
    // the base of an image is still there for another build
    let id = space.inspect("app")["Id"].as_str().unwrap().to_owned();
    space.build_text("next", &format!("FROM {id}\nRUN cat /both\n"));
}

/// Computes every promise of every image anew.
fn validate_all(space: &TestSpace) {
    let store = rbuild::store::Store::open(&space.store()).unwrap();
    let snapshots = rbuild::snapshot::Snapshots::new(store.clone());
    let images = rbuild::image::Images::new(store, snapshots);
    let listing = images.list().unwrap();
    assert!(listing.damaged.is_empty(), "{:?}", listing.damaged);
    for image in listing.images {
        images.validate(&image.id).unwrap();
    }
}

#[test]
fn no_content_of_a_layer_is_read_to_list_measure_or_remove() {
    let space = TestSpace::new().with_busybox();
    for name in ["one", "two"] {
        space.write(&format!("ctx/{name}.txt"), name);
        let context = space.dockerfile(&(two_megabytes(name) + "COPY . /all/\n"));
        space.build(&context, &["-q", "-t", name]).ok();
    }
    space.rbuild(["rmi", "two"]).ok();
    let store = space.store();
    let mut watch = Watch::below(std::slice::from_ref(&store));
    let snapshots = || std::fs::read_dir(store.join("snapshots")).unwrap().count();
    let before = snapshots();
    for command in [
        &["images"][..],
        &["system", "df"],
        &["inspect", "one"],
        &["history", "one"],
        &["builder", "prune", "-a", "-f"],
    ] {
        space.rbuild(command).ok();
        let opened = watch.opened();
        assert!(!opened.is_empty(), "{command:?} has looked into the store");
        assert_eq!(layer_contents(&opened, &store), Vec::<PathBuf>::new(), "{command:?}");
    }
    assert!(snapshots() < before, "something was removed");
    space.rbuild(["save", "-o", space.path("one.tar").to_str().unwrap(), "one"]).ok();
    let read = layer_contents(&watch.opened(), &store);
    assert!(!read.is_empty(), "what does read a layer is seen");
}

#[test]
fn prune_keeps_the_cache_of_images_unless_all_is_said() {
    let space = TestSpace::new().with_busybox();
    let context = space.dockerfile(
        "FROM busybox AS other\nRUN echo a > /a\nFROM busybox\nCOPY --from=other /a /b\nRUN --mount=type=cache,target=/c date >> /c/x; wc -l < /c/x > /n\n",
    );
    space.build(&context, &["-t", "app"]).ok();
    prune(&space, &[]);
    space.build(&context, &[]).ok().assert_executed(&["RUN echo a"]);
    space.build(&context, &[]).ok().assert_executed(&[]);
    prune(&space, &["-a"]);
    assert_eq!(files(&space, "steps"), Vec::<PathBuf>::new());
    assert_eq!(files(&space, "memos"), Vec::<PathBuf>::new());
    let done = space.build(&context, &["-t", "app"]).ok();
    assert_eq!(done.executed().len(), 3, "{:?}", done.executed());
    // the cache mount is new
    assert_eq!(space.stdout_of("app", &["cat", "/n"]), "1\n");
}

#[test]
fn a_filter_takes_what_was_not_used_since() {
    let space = TestSpace::new().with_busybox();
    space.build_text("old", &two_megabytes("old"));
    used_hours_ago(&space, 48, &[]);
    let old = files(&space, "steps");
    space.build_text("new", &two_megabytes("new"));
    space.rbuild(["rmi", "old", "new"]).ok();
    prune(&space, &["--filter", "until=24h"]);
    assert!(files(&space, "steps").iter().all(|path| !old.contains(path)));
    let context = space.dockerfile(&two_megabytes("new"));
    space.build(&context, &[]).ok().assert_executed(&[]);
    // a hit is a use
    used_hours_ago(&space, 48, &[]);
    space.build(&context, &["-t", "new"]).ok().assert_executed(&[]);
    space.rbuild(["rmi", "new"]).ok();
    prune(&space, &["--filter", "until=24h"]);
    space.build(&context, &[]).ok().assert_executed(&[]);
    space.rbuild(["builder", "prune", "-f", "--filter", "until=soon"]).refuses(1, &["until=soon", "24h"]);
    space.rbuild(["builder", "prune", "-f", "--filter", "label=x"]).refuses(1, &["until"]);
}

#[test]
fn keep_storage_takes_the_longest_unused_first() {
    let space = TestSpace::new().with_busybox();
    let mut known: Vec<PathBuf> = Vec::new();
    // the clock was wrong when the third was used
    for (name, hours) in [("first", 3), ("second", 90), ("third", -1_000_000), ("fourth", 50)] {
        space.build_text(name, &two_megabytes(name));
        used_hours_ago(&space, hours, &known);
        known = files(&space, "steps");
        space.rbuild(["rmi", name]).ok();
    }
    prune(&space, &["--keep-storage", "5MB"]);
    let cache = df(&space, "Build Cache")["ReclaimableBytes"].as_u64().unwrap();
    assert!((4_000_000..5_300_000).contains(&cache), "{cache}");
    for (name, cached) in [("first", true), ("third", true), ("second", false), ("fourth", false)] {
        let context = space.dockerfile(&two_megabytes(name));
        assert_eq!(space.build(&context, &[]).ok().executed().is_empty(), cached, "{name}");
    }
    // enough room is no reason to remove anything
    assert!(!prune(&space, &["--keep-storage", "1GB"]).contains("Deleted"));
}

#[test]
fn a_build_keeps_the_cache_within_its_limit() {
    let space = TestSpace::new().with_busybox();
    let build = |name: &str, limit: &str| {
        let context = space.dockerfile(&two_megabytes(name));
        let mut command = space.command(["build", "--progress", "plain", context.to_str().unwrap()]);
        process::finish(
            command.args(["-t", "app"]).env("RBUILD_KEEP_STORAGE", limit),
            None,
            Duration::from_secs(100),
        )
    };
    let mut last = String::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        last = build(name, "5MB").ok().stderr;
        space.rbuild(["image", "prune", "-f"]).ok();
        let cache = df(&space, "Build Cache")["SizeBytes"].as_u64().unwrap();
        // the image before this one was needed until a moment ago; index and logs are not under the limit
        assert!(cache < 8_000_000, "{name}: {cache}");
    }
    assert!(last.contains("Removed ") && last.contains("RBUILD_KEEP_STORAGE"), "{last}");
    assert!(last.find("Built ") < last.find("Removed "), "{last}");
    // without the further names that images give them
    let count = || {
        let all = std::fs::read_dir(space.store().join("snapshots")).unwrap();
        all.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir()).count()
    };
    let before = count();
    // 0 is no limit
    for name in ["g", "h", "i"] {
        assert!(!build(name, "0").ok().stderr.contains("Removed "));
    }
    assert_eq!(count(), before + 3);
    // a build that runs nothing does nothing
    assert!(!build("i", "1").ok().stderr.contains("Removed "));
    assert_eq!(count(), before + 3);
    build("i", "much").refuses(1, &["RBUILD_KEEP_STORAGE", "much"]);
}

#[test]
fn image_prune_takes_what_nobody_uses() {
    let space = TestSpace::new().with_busybox();
    space.build_text("app", "FROM busybox\nLABEL keep=yes\nRUN echo 1 > /f\n");
    space.build_text("app", "FROM busybox\nLABEL keep=no\nRUN echo 2 > /f\n");
    space.build_text("app", "FROM busybox\nRUN echo 3 > /f\n");
    let ids = || space.rbuild(["image", "ls", "-q"]).ok().stdout.lines().count();
    assert_eq!(ids(), 4);
    let prune = |args: &[&str]| space.rbuild(["image", "prune", "-f"].iter().chain(args)).ok().stdout;
    prune(&["--filter", "until=24h"]);
    assert_eq!(ids(), 4);
    let said = prune(&["--filter", "label!=keep=yes"]);
    assert_eq!(ids(), 3);
    assert!(said.starts_with("Deleted Images:\nDeleted: sha256:"), "{said}");
    assert!(said.contains("Total reclaimed space: "), "{said}");
    prune(&[]);
    assert_eq!(ids(), 2);
    // a container that runs keeps its image
    let mut container = Running::start(
        space
            .command(["run", "--network", "none", "--name", "c1", "busybox", "sh", "-c", "echo up; sleep 60"])
            .stdin(Stdio::null()),
    );
    container.wait_for("up", Duration::from_secs(30));
    let said = prune(&["-a"]);
    assert!(said.contains("Untagged: app:latest"), "{said}");
    assert_eq!(space.rbuild(["image", "ls", "--format", "{{.Repository}}"]).ok().stdout, "busybox\n");
    let containers = df(&space, "Containers");
    assert_eq!((containers["TotalCount"].as_str(), containers["Active"].as_str()), (Some("1"), Some("1")));
    assert_eq!(df(&space, "Images")["Active"], "1");
    space.rbuild(["rmi", "busybox"]).refuses(1, &["c1", "--force"]);
    space.rbuild(["system", "prune", "-af"]).ok();
    // the container outlives whoever started it, so it is the container that has to go
    space.rbuild(["rm", "-f", "c1"]).ok();
    container.wait(Duration::from_secs(30));
    assert_eq!(space.stdout_of("busybox", &["echo", "there"]), "there\n");
    space.rbuild(["system", "prune", "-af"]).ok();
    assert_eq!(ids(), 0);
    assert_eq!(std::fs::read_dir(space.store().join("snapshots")).unwrap().count(), 0);
    assert!(files(&space, "images/blobs").is_empty());
}

#[test]
fn nothing_is_removed_without_a_yes() {
    let space = TestSpace::new().with_busybox();
    space.build_text("app", &two_megabytes("a"));
    space.rbuild(["rmi", "app"]).ok();
    let before = du(&space);
    for (what, command) in [
        ("build cache prune", ["builder", "prune"]),
        ("image prune", ["image", "prune"]),
        ("system prune", ["system", "prune"]),
    ] {
        for answer in ["", "n\n", "\n", "yes please\n"] {
            let done = space.rbuild_fed(command, answer.as_bytes());
            let done = done.refuses(1, &["WARNING! This will remove", "[y/N]", what, "cancelled", "-f"]);
            assert_eq!(done.stdout, "");
        }
    }
    assert_eq!(du(&space), before);
    let said = space.rbuild_fed(["builder", "prune"], b"y\n").ok();
    assert!(said.stdout.contains("Total reclaimed space: 2."), "{}", said.stdout);
}

#[test]
fn builds_do_not_notice_that_things_are_removed() {
    let space = TestSpace::new().with_busybox();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for args in [&["builder", "prune", "-af"][..], &["system", "prune", "-f"]] {
            let (space, over) = (&space, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    space.rbuild(args).ok();
                }
            });
        }
        let builders: Vec<_> = (0..2)
            .map(|builder| {
                let space = &space;
                scope.spawn(move || {
                    for round in 0..12 {
                        // Every other round is the same again, and may find some of it and not the rest. Each
                        // has a cache mount of its own, since the other would change it meanwhile.
                        let text = format!("{builder} {}", round / 2);
                        let dir = format!("ctx{builder}");
                        space.write(&format!("{dir}/f"), &text);
                        space.write(
                            &format!("{dir}/Dockerfile"),
                            format!("FROM busybox AS a\nCOPY f /f\nRUN cat /f > /g\nFROM busybox\nCOPY f /f\nRUN --mount=type=cache,target=/c{builder} cat /f > /c{builder}/f; cat /c{builder}/f > /h\nCOPY --from=a /g /g\n"),
                        );
                        let name = format!("app{builder}");
                        space.build(&space.path(&dir), &["-t", &name]).ok();
                        let seen = space.stdout_of(&name, &["cat", "/f", "/g", "/h"]);
                        assert_eq!(seen, text.repeat(3));
                    }
                })
            })
            .collect();
        let ends: Vec<_> = builders.into_iter().map(|builder| builder.join()).collect();
        over.store(true, Ordering::Relaxed);
        for end in ends {
            end.unwrap();
        }
    });
    validate_all(&space);
}

#[test]
fn a_cache_mount_in_use_stays() {
    let space = TestSpace::new().with_busybox();
    let context = space.dockerfile(
        "FROM busybox\nRUN --mount=type=cache,target=/c echo kept > /c/x; echo ready; sleep 3; cat /c/x > /x\n",
    );
    let context = context.to_str().unwrap();
    let mut build = Running::start(
        space.command(["build", "--progress", "plain", "-t", "app", context]).stdin(Stdio::null()),
    );
    build.wait_for(" ready", Duration::from_secs(30));
    prune(&space, &["-a"]);
    build.wait(Duration::from_secs(60)).ok();
    assert_eq!(space.stdout_of("app", &["cat", "/x"]), "kept\n");
    prune(&space, &[]);
    assert_eq!(std::fs::read_dir(space.store().join("mounts")).unwrap().count(), 1);
    prune(&space, &["-a"]);
    assert_eq!(std::fs::read_dir(space.store().join("mounts")).unwrap().count(), 0);
}

#[test]
fn a_kill_while_things_are_removed_does_no_harm() {
    let space = TestSpace::new().with_busybox();
    space.build_text("app", "FROM busybox\nRUN echo kept > /f\n");
    let before = space.inspect("app")["Id"].clone();
    let mut steps = String::from("FROM busybox\n");
    for n in 0..12 {
        steps.push_str(&format!("RUN mkdir /{n} && for i in $(seq 40); do echo $i > /{n}/$i; done\n"));
    }
    for round in 0..8u64 {
        space.build_text("other", &format!("{steps}RUN echo {round} > /round\n"));
        space.rbuild(["rmi", "other"]).ok();
        let command: &[&str] =
            if round % 2 == 0 { &["builder", "prune", "-f"] } else { &["builder", "prune", "-af"] };
        let running = Running::start(space.command(command).stdin(Stdio::null()));
        std::thread::sleep(Duration::from_millis(3 + round * 9));
        running.signal(Signal::SIGKILL);
        running.wait(Duration::from_secs(30));
        assert_eq!(space.stdout_of("app", &["cat", "/f"]), "kept\n");
    }
    assert_eq!(space.inspect("app")["Id"], before);
    validate_all(&space);
    space.build_text("other", &steps);
    assert_eq!(space.stdout_of("other", &["cat", "/11/40"]), "40\n");
    space.rbuild(["rmi", "other"]).ok();
    prune(&space, &["-a"]);
    // busybox and one step with its chain id, and nothing of all the rest
    assert_eq!(std::fs::read_dir(space.store().join("snapshots")).unwrap().count(), 3);
    assert_eq!(std::fs::read_dir(space.store().join("tmp")).unwrap().count(), 0);
    assert_eq!(files(&space, "files"), Vec::<PathBuf>::new());
    assert_eq!(df_total(&space), du(&space));
}

#[test]
fn an_ordinary_user_cleans_up_too() {
    let Some(space) = TestSpace::rootless() else { return };
    let space = space.with_busybox();
    space.build_text("app", "FROM busybox\nRUN mkdir -m 0 /closed && echo x > /x && chown 5:5 /x\n");
    // to the user itself /closed is closed, from outside of the user namespace
    assert!(!common::is_root() || df_total(&space) == du(&space));
    space.rbuild(["rmi", "app"]).ok();
    assert!(prune(&space, &["-a"]).contains("Deleted build cache objects:"));
    assert_eq!(std::fs::read_dir(space.store().join("snapshots")).unwrap().count(), 1);
    // to the user itself /closed is closed, from outside of the user namespace
    assert!(!common::is_root() || df_total(&space) == du(&space));
}
