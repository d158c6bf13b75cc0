//! The cache rule, seen from outside: which steps run again after which change. A step that ran shows twice, in the
//! progress and in the random id that it wrote.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use common::process::Running;
use common::watch::{Watch, layer_contents};
use common::{Done, TestSpace};

/// A step whose content differs each time it runs.
const MARK: &str = "RUN cat /proc/sys/kernel/random/uuid > /id";

fn busybox() -> TestSpace {
    TestSpace::new().with_busybox()
}

fn id_of(space: &TestSpace, image: &str) -> String {
    space.stdout_of(image, &["cat", "/id"])
}

/// A context whose steps depend on two files, each in a stage of its own.
fn two_sources(space: &TestSpace) -> PathBuf {
    space.write("ctx/left.txt", "left\n");
    space.write("ctx/right.txt", "right\n");
    space.dockerfile(&format!(
        "FROM busybox AS left\nCOPY left.txt /in\nRUN tr a-z A-Z < /in > /out\n\
         FROM busybox AS right\nCOPY right.txt /in\nRUN rev < /in > /out\n\
         FROM busybox\nCOPY --from=left /out /left\n{MARK}\nCOPY --from=right /out /right\n"
    ))
}

#[test]
fn nothing_changed_runs_nothing() {
    let space = busybox();
    let context = two_sources(&space);
    let first = space.build(&context, &["-t", "app"]).ok();
    assert_eq!(first.executed().len(), 7, "{first}");
    let (image, id) = (space.inspect("app")["Id"].clone(), id_of(&space, "app"));

    let again = space.build(&context, &["-t", "app"]).ok();
    again.assert_executed(&[]);
    assert_eq!(again.cached().len(), 7, "{again}");
    assert_eq!(space.inspect("app")["Id"], image, "a fully cached build makes the same image");
    assert_eq!(id_of(&space, "app"), id);
}

#[test]
fn nothing_changed_opens_no_file_of_the_context_and_no_layer() {
    let space = busybox();
    let context = two_sources(&space);
    space.write("ctx/more/deep/file.txt", "more\n");
    let text = fs::read_to_string(context.join("Dockerfile")).unwrap();
    fs::write(context.join("Dockerfile"), text + "COPY . /all/\n").unwrap();
    // a file that changed within the last tick of the clock is read again
    std::thread::sleep(Duration::from_millis(300));
    space.build(&context, &["-t", "app"]).ok();

    let store = space.store();
    let mut watch = Watch::below(&[context.clone(), store.clone()]);
    // it does see what is opened
    fs::read(context.join("more/deep/file.txt")).unwrap();
    assert!(watch.opened().iter().any(|one| one.path.ends_with("more/deep/file.txt")));

    space.build(&context, &["-t", "app"]).ok().assert_executed(&[]);
    let opened = watch.opened();
    let read: Vec<_> = opened.iter().filter(|one| !one.is_dir && one.path.starts_with(&context)).collect();
    assert!(read.iter().all(|one| one.path.ends_with("Dockerfile")), "{read:?}");
    assert_eq!(layer_contents(&opened, &store), Vec::<PathBuf>::new());
    let layers: Vec<_> = opened.iter().filter(|one| one.path.starts_with(store.join("snapshots"))).collect();
    let in_layer = |name: &str| layers.iter().any(|one| one.path.ends_with(name));
    assert!(!in_layer("fs") && !in_layer("tree"), "{layers:?}");
}

#[test]
fn a_touched_file_runs_nothing() {
    let space = busybox();
    let context = two_sources(&space);
    space.build(&context, &["-t", "app"]).ok();
    // A new time, a new inode, the same bytes.
    fs::remove_file(context.join("left.txt")).unwrap();
    space.write("ctx/left.txt", "left\n");
    space.run_tool("touch", ["-d", "2001-02-03", "ctx/right.txt"]).ok();
    space.build(&context, &["-t", "app"]).ok().assert_executed(&[]);
}

#[test]
fn one_changed_file_runs_only_what_depends_on_it() {
    let space = busybox();
    let context = two_sources(&space);
    space.build(&context, &["-t", "app"]).ok();
    let id = id_of(&space, "app");
    space.write("ctx/right.txt", "other\n");
    let again = space.build(&context, &["-t", "app"]).ok();
    again.assert_executed(&["COPY right.txt", "RUN rev", "COPY --from=right"]);
    assert_eq!(id_of(&space, "app"), id);
    assert_eq!(space.stdout_of("app", &["cat", "/left", "/right"]), "LEFT\nrehto\n");
}

#[test]
fn a_change_of_the_same_size_in_the_same_second_is_seen() {
    let space = busybox();
    space.write("ctx/data", "aaaa");
    let context = space.dockerfile("FROM busybox\nCOPY data /data\n");
    for round in ["bbbb", "cccc", "dddd"] {
        space.build(&context, &["-t", "app"]).ok();
        space.write("ctx/data", round);
        space.run_tool("touch", ["-d", "2020-01-01", "ctx/data"]).ok();
        space.build(&context, &["-t", "app"]).ok().assert_executed(&["COPY"]);
        assert_eq!(space.stdout_of("app", &["cat", "/data"]), round);
    }
}

#[test]
fn a_changed_mode_is_a_change() {
    let space = busybox();
    let file = space.write("ctx/tool", "#!/bin/sh\necho works\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let context = space.dockerfile("FROM busybox\nCOPY tool /tool\n");
    space.build(&context, &["-t", "app"]).ok();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    space.build(&context, &["-t", "app"]).ok().assert_executed(&["COPY"]);
    assert_eq!(space.stdout_of("app", &["/tool"]), "works\n");
}

#[test]
fn a_file_that_nothing_copies_is_no_change() {
    let space = busybox();
    let context = two_sources(&space);
    space.build(&context, &["-t", "app"]).ok();
    space.write("ctx/notes.txt", "new");
    space.build(&context, &["-t", "app"]).ok().assert_executed(&[]);
}

#[test]
fn a_run_step_with_the_same_outcome_ends_the_rebuild() {
    let space = busybox();
    let text = |command: &str| format!("FROM busybox\nRUN {command}\n{MARK}\nCOPY Dockerfile /last\n");
    let context = space.dockerfile(&text("echo same > /out"));
    space.build(&context, &["-t", "app"]).ok();
    let id = id_of(&space, "app");

    space.dockerfile(&text("sleep 0.1 && printf 'same\\n' > /out"));
    let again = space.build(&context, &["-t", "app"]).ok();
    again.assert_executed(&["RUN sleep", "COPY Dockerfile"]);
    assert_eq!(id_of(&space, "app"), id);

    space.dockerfile(&text("echo other > /out"));
    space.build(&context, &["-t", "app"]).ok();
    assert_ne!(id_of(&space, "app"), id, "a different outcome goes on");
}

#[test]
fn a_stage_with_the_same_outcome_ends_the_rebuild_behind_copy_from() {
    let space = busybox();
    space.write("ctx/words", "b\na\n");
    let context = space.dockerfile(&format!(
        "FROM busybox AS sorted\nCOPY words /words\nRUN sort /words > /out\nFROM busybox\nCOPY --from=sorted /out /out\n{MARK}\n"
    ));
    space.build(&context, &["-t", "app"]).ok();
    let id = id_of(&space, "app");
    space.write("ctx/words", "a\nb\n");
    space.build(&context, &["-t", "app"]).ok().assert_executed(&["COPY words", "RUN sort"]);
    assert_eq!(id_of(&space, "app"), id);
}

#[test]
fn an_argument_counts_only_where_it_is_seen() {
    let space = busybox();
    let context = space.dockerfile(&format!(
        "FROM busybox AS other\nARG WORD\nRUN echo \"$WORD\" > /word\n\
         FROM busybox\n{MARK}\nARG WORD\nCOPY Dockerfile /Dockerfile\nRUN echo \"$WORD\" > /word\n\
         COPY --from=other /word /other\n"
    ));
    space.build(&context, &["-t", "app", "--build-arg", "WORD=one"]).ok();
    let id = id_of(&space, "app");
    let again = space.build(&context, &["-t", "app", "--build-arg", "WORD=two"]).ok();
    let executed = again.executed();
    assert_eq!(executed.iter().filter(|title| title.starts_with("RUN echo")).count(), 2, "{again}");
    assert!(
        !executed.iter().any(|title| title.starts_with("RUN cat") || title.starts_with("COPY Dockerfile")),
        "{again}"
    );
    assert_eq!(id_of(&space, "app"), id);
    assert_eq!(space.stdout_of("app", &["cat", "/word", "/other"]), "two\ntwo\n");
}

#[test]
fn config_changes_run_nothing() {
    let space = busybox();
    let text = |label: &str| format!("FROM busybox\nLABEL a={label}\nEXPOSE 80\nCMD [\"{label}\"]\n{MARK}\n");
    let context = space.dockerfile(&text("one"));
    space.build(&context, &["-t", "app"]).ok();
    space.dockerfile(&text("two"));
    space.build(&context, &["-t", "app", "--label", "b=three"]).ok().assert_executed(&[]);
    let labels = &space.inspect("app")["Config"]["Labels"];
    assert_eq!((&labels["a"], &labels["b"]), (&"two".into(), &"three".into()));
}

#[test]
fn no_cache_starts_cache_mounts_with_a_mode_anew_and_leaves_plain_ones() {
    let space = busybox();
    let context = space.dockerfile(
        "FROM busybox\nARG N\nRUN --mount=type=cache,target=/p --mount=type=cache,target=/m,mode=700 \
         cat /p/f /m/f > /seen; echo $N >> /p/f; echo $N >> /m/f\n\
         RUN --mount=type=cache,target=/m,mode=700 cat /m/f >> /seen\n",
    );
    let build = |n: &str, more: &[&str]| {
        let arg = format!("N={n}");
        space.build(&context, &[&["-t", "app", "--build-arg", &arg], more].concat()).ok();
        space.stdout_of("app", &["cat", "/seen"]).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(build("1", &[]), "1");
    assert_eq!(build("2", &[]), "1 1 1 2");
    // both steps of one build see the same new directory
    assert_eq!(build("3", &["--no-cache"]), "1 2 3");
    assert_eq!(build("4", &[]), "1 2 3 3 3 4");
}

#[test]
fn no_cache_runs_everything_and_is_remembered() {
    let space = busybox();
    let context = space.dockerfile(&format!("FROM busybox\n{MARK}\n"));
    space.build(&context, &["-t", "app"]).ok();
    let first = id_of(&space, "app");
    space.build(&context, &["-t", "app", "--no-cache"]).ok().assert_executed(&["RUN cat"]);
    let second = id_of(&space, "app");
    assert_ne!(first, second);
    space.build(&context, &["-t", "app"]).ok().assert_executed(&[]);
    assert_eq!(id_of(&space, "app"), second);
}

#[test]
fn equal_steps_of_two_stages_run_once() {
    let space = busybox();
    let built = space.build_text(
        "app",
        &format!("FROM busybox AS a\n{MARK}\nFROM busybox AS b\n{MARK}\nFROM scratch\nCOPY --from=a /id /a\nCOPY --from=b /id /b\nCOPY --from=busybox /bin/busybox /bin/cat\n"),
    );
    assert_eq!(built.executed().iter().filter(|title| title.starts_with("RUN")).count(), 1, "{built}");
    let ids = space.stdout_of("app", &["/bin/cat", "/a", "/b"]);
    let (a, b) = ids.split_at(ids.len() / 2);
    assert_eq!(a, b);
}

#[test]
fn stages_that_the_target_does_not_need_do_not_run() {
    let space = busybox();
    let context = space.dockerfile(
        "FROM busybox AS broken\nRUN exit 1\nFROM busybox AS wanted\nRUN echo yes > /yes\nFROM broken\nRUN echo no\n",
    );
    let built = space.build(&context, &["-t", "app", "--target", "wanted"]).ok();
    built.assert_executed(&["RUN echo yes"]);
}

#[test]
fn independent_stages_run_at_the_same_time() {
    let space = busybox();
    // Each waits for a sign of the other in a cache that both see; one after the other they would wait for ever.
    let meet = |me: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,target=/m touch /m/{me} && \
             timeout 60 sh -c 'until [ -e /m/{other} ]; do sleep 0.05; done' && echo hi > /got"
        )
    };
    let context = space.dockerfile(&format!(
        "FROM busybox AS a\n{}\nFROM busybox AS b\n{}\n\
         FROM busybox\nCOPY --from=a /got /a\nCOPY --from=b /got /b\n",
        meet("a", "b"),
        meet("b", "a"),
    ));
    space.build(&context, &["-t", "app", "--jobs", "2"]).ok();
    assert_eq!(space.stdout_of("app", &["cat", "/a", "/b"]), "hi\nhi\n");
}

#[test]
fn one_job_runs_one_step_at_a_time() {
    let space = busybox();
    let timed = "cut -d' ' -f1 /proc/uptime > /start && sleep 0.5 && cut -d' ' -f1 /proc/uptime > /end";
    let context = space.dockerfile(&format!(
        "FROM busybox AS a\nRUN true a; {timed}\nFROM busybox AS b\nRUN true b; {timed}\n\
         FROM busybox\nCOPY --from=a /start /end /a/\nCOPY --from=b /start /end /b/\n"
    ));
    space.build(&context, &["-t", "app", "--jobs", "1"]).ok();
    let times: Vec<f64> = space
        .stdout_of("app", &["cat", "/a/start", "/a/end", "/b/start", "/b/end"])
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    assert!(times[1] <= times[2] || times[3] <= times[0], "steps overlap: {times:?}");
}

#[test]
fn two_builds_at_once_run_a_shared_step_once() {
    let space = busybox();
    let context = space.dockerfile("FROM busybox\nRUN sleep 2; cat /proc/sys/kernel/random/uuid > /id\n");
    let start = |tag| {
        let mut command = space.command(["build", "--progress", "plain", "-t", tag]);
        Running::start(command.arg(&context))
    };
    let (one, two) = (start("one"), start("two"));
    let patience = Duration::from_secs(120);
    let done: Vec<Done> = vec![one.wait(patience).ok(), two.wait(patience).ok()];
    // The one that waited may call the step done or cached; the content tells that it ran once.
    assert!(done.iter().any(|build| build.executed().len() == 1), "{}\n{}", done[0], done[1]);
    assert_eq!(id_of(&space, "one"), id_of(&space, "two"));
}

/// Builds once, lets `harm` at the index, and insists that the next two builds hit without a word about it.
fn survives(harm: impl FnOnce(&[PathBuf]) -> Box<dyn std::any::Any>) {
    let space = busybox();
    let context = two_sources(&space);
    space.build(&context, &["-t", "app"]).ok();
    let index = space.store().join("index");
    let mut files = vec![index];
    let mut next = 0;
    while next < files.len() {
        if let Ok(entries) = fs::read_dir(&files[next]) {
            files.extend(entries.flatten().map(|entry| entry.path()));
        }
        next += 1;
    }
    assert!(files.len() > 1, "there is no index to harm in {:?}", files[0]);
    let held = harm(&files);
    for _ in 0..2 {
        let again = space.build(&context, &["-t", "app"]).ok();
        again.assert_executed(&[]);
        let said = again.stderr.to_lowercase();
        assert!(!said.contains("error") && !said.contains("sled") && !said.contains("corrupt"), "{again}");
    }
    drop(held);
    space.build(&context, &["-t", "app"]).ok().assert_executed(&[]);
}

#[test]
fn a_deleted_index_is_rebuilt() {
    survives(|files| {
        fs::remove_dir_all(&files[0]).unwrap();
        Box::new(())
    });
}

#[test]
fn a_damaged_index_is_rebuilt() {
    survives(|files| {
        for file in files.iter().filter(|path| path.is_file()) {
            let garbage: Vec<u8> =
                (0..fs::metadata(file).unwrap().len().max(4096)).map(|n| (n * 131 % 251) as u8).collect();
            fs::write(file, garbage).unwrap();
        }
        Box::new(())
    });
}

#[test]
fn a_cut_off_index_is_rebuilt() {
    survives(|files| {
        for file in files.iter().filter(|path| path.is_file()) {
            let half = fs::metadata(file).unwrap().len() / 2;
            fs::OpenOptions::new().write(true).open(file).unwrap().set_len(half).unwrap();
        }
        Box::new(())
    });
}

#[test]
fn a_locked_index_is_no_obstacle() {
    survives(|files| {
        let locks: Vec<_> = files
            .iter()
            .filter(|path| path.is_file())
            .filter_map(|path| {
                let file = fs::OpenOptions::new().read(true).write(true).open(path).ok()?;
                nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).ok()
            })
            .collect();
        assert!(!locks.is_empty(), "nothing to lock");
        Box::new(locks)
    });
}
