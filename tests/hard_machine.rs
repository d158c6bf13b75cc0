//! Machines that lack something: places to write, descriptors, inodes, namespaces. What can work works; what cannot says
//! what is missing; nothing panics.

mod common;

use common::process::finish;
use common::{Done, TestSpace, root_or_skip, tools_or_skip};
use std::fs;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a shell script as the space's user, with the binary as `$RBUILD`.
fn script(space: &TestSpace, text: &str) -> Done {
    let mut shell = space.tool("sh");
    shell.args(["-c", text]).env("RBUILD", space.binary());
    finish(&mut shell, None, PATIENCE)
}

#[test]
fn output_that_nobody_takes_is_an_error_and_no_panic() {
    let space = TestSpace::new().with_busybox();
    for command in
        ["images", "inspect busybox", "version", "info", "history busybox", "--help", "system df", "ps"]
    {
        let full = script(&space, &format!("$RBUILD {command} >/dev/full"));
        assert_ne!(full.status.code(), Some(0), "{command} to a full device\n{full}");
        let closed = script(&space, &format!("$RBUILD {command} >&-; echo $? >&2"));
        // as `| head` does: the reader is gone before anything is written
        let gone = script(&space, &format!("{{ sleep 0.3; $RBUILD {command}; }} | true"));
        for done in [full, closed, gone] {
            assert!(
                !done.stderr.contains("panicked") && !done.stderr.contains("BACKTRACE"),
                "{command}\n{done}"
            );
        }
    }
    space.dockerfile("FROM busybox\nRUN echo built >/f\n");
    script(&space, "$RBUILD build -t app ctx 2>/dev/full; true").ok();
    assert_eq!(space.stdout_of("app", &["cat", "/f"]), "built\n");
}

#[test]
fn few_descriptors_are_enough() {
    if !tools_or_skip(&["prlimit"]) {
        return;
    }
    let space = TestSpace::new().with_busybox();
    for file in 0..300 {
        space.write(&format!("ctx/d{}/f{file}", file % 40), format!("{file}\n"));
    }
    for (limit, tag) in [(256, "some"), (64, "few")] {
        space.dockerfile(&format!(
            "FROM busybox AS a\nRUN echo {tag} >/a\nFROM busybox\nCOPY . /all\nCOPY --from=a /a /a\nRUN ls /all/* | wc -l >/n\n"
        ));
        let done = script(
            &space,
            &format!("prlimit --nofile={limit}:{limit} $RBUILD build -t {tag} ctx && prlimit --nofile={limit}:{limit} $RBUILD run --rm {tag} cat /a"),
        )
        .ok();
        assert_eq!(done.stdout.lines().last(), Some(tag), "{done}");
    }
    // too few for anything: said, not panicked
    let done = script(&space, "prlimit --nofile=8:8 $RBUILD build -t none ctx");
    assert!(done.status.code() != Some(0) && !done.stderr.contains("panicked"), "{done}");
}

#[test]
fn a_store_that_cannot_be_written_still_shows_its_images() {
    if !root_or_skip() || !tools_or_skip(&["unshare", "mount"]) {
        return;
    }
    let space = TestSpace::new().with_busybox();
    let store = space.store();
    let read_only = |command: &str| {
        let text = format!(
            "unshare -m sh -c 'mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"' sh {} $RBUILD {command}",
            store.display()
        );
        script(&space, &text)
    };
    assert!(read_only("images").ok().stdout.contains("busybox"));
    read_only("inspect busybox").ok();
    space.dockerfile("FROM busybox\nRUN echo new >/f\n");
    for command in ["build -t app ctx", "tag busybox other", "rmi busybox", "volume create vol"] {
        let done = read_only(command);
        let store = store.display().to_string();
        done.refuses(1, &["read-only", &store]);
    }
    space.build_text("app", "FROM busybox\nRUN echo new >/f\n");
}

#[test]
fn a_disk_without_room_for_names_or_bytes_is_told_by_load_pull_and_commit() {
    if !root_or_skip() || !tools_or_skip(&["docker-registry"]) {
        return;
    }
    let held = TestSpace::new().with_busybox();
    let Some(registry) = common::registry::Registry::start(&held) else { return };
    let name = format!("{}/many:1", registry.host);
    let context = held.dockerfile(
        "FROM busybox\nRUN mkdir /many && cd /many && for i in $(seq 3000); do echo $i >f$i; done\nRUN dd if=/dev/urandom of=/big bs=1M count=30\n",
    );
    held.build(&context, &["-t", &name]).ok();
    held.rbuild(["push", "-q", &name]).ok();
    let archive = held.path("many.tar");
    held.rbuild(["save".as_ref(), "-o".as_ref(), archive.as_os_str(), name.as_ref()]).ok();
    for option in ["size=200m,nr_inodes=1500", "size=24m"] {
        let space = TestSpace::new();
        let store = space.mkdir("store");
        nix::mount::mount(Some("tmpfs"), &store, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(option))
            .expect("root may mount a tmpfs");
        let outcome = std::panic::catch_unwind(|| {
            let said = ["no space left"];
            space.import("busybox");
            space.rbuild(["load".as_ref(), "-i".as_ref(), archive.as_os_str()]).refuses(1, &said);
            space.rbuild(["pull", &name]).refuses(1, &said);
            // without a word about the disk nobody can help himself; what was there is whole
            assert!(!space.rbuild(["images"]).ok().stdout.contains("many"));
            let big = "mkdir /m; i=0; while [ $i -lt 3000 ] && echo $i >/m/$i; do i=$((i+1)); done 2>/dev/null; head -c 40000000 /dev/urandom >/big 2>/dev/null; true";
            let made = space.rbuild(["run", "--name", "filled", "busybox", "sh", "-c", big]);
            if made.status.success() {
                space.rbuild(["commit", "filled", "copy"]);
            }
            space.rbuild(["rm", "-f", "filled"]);
            space.rbuild(["system", "prune", "-f"]).ok();
            assert_eq!(space.stdout_of("busybox", &["echo", "sound"]), "sound\n");
            left_in(&store.join("tmp"));
        });
        let _ = nix::mount::umount2(&store, nix::mount::MntFlags::MNT_DETACH);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Fails when something half-written lies in a store.
fn left_in(tmp: &Path) {
    let left: Vec<_> = fs::read_dir(tmp).into_iter().flatten().flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "half-written: {left:?}");
}

#[test]
fn an_ordinary_user_without_user_namespaces_is_told_the_switch() {
    let Some(space) = TestSpace::rootless() else { return };
    if !tools_or_skip(&["unshare"]) {
        return;
    }
    space.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    // a namespace in which no other may be made, and in which this user is an ordinary one
    let text = "unshare --user --map-current-user --keep-caps sh -c 'echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set -all --inh-caps -all --ambient-caps -all \"$@\"' sh $RBUILD build -t app ctx";
    let done = script(&space, text);
    done.refuses(1, &["user namespace", "max_user_namespaces"]);
}

#[test]
fn limits_without_cgroups_are_refused_and_builds_go_on() {
    if !root_or_skip() || !tools_or_skip(&["unshare", "mount"]) {
        return;
    }
    let space = TestSpace::new().with_busybox();
    space.dockerfile("FROM busybox\nRUN echo built >/f\n");
    let bare = |command: &str| {
        script(
            &space,
            &format!("unshare -m sh -c 'umount -R -l /sys/fs/cgroup; exec \"$@\"' sh $RBUILD {command}"),
        )
    };
    bare("build -t app ctx").ok();
    assert_eq!(bare("run --rm app cat /f").ok().stdout, "built\n");
    let refused = bare("run --rm --memory 64m app cat /f");
    assert!(refused.status.code() == Some(125) && refused.stderr.contains("cgroup"), "{refused}");
    let refused = bare("build --no-cache --memory 64m -t app ctx");
    assert!(refused.status.code() == Some(1) && refused.stderr.contains("cgroup"), "{refused}");
}

#[test]
fn nothing_is_mounted_over_the_host() {
    if !root_or_skip() || !tools_or_skip(&["unshare"]) {
        return;
    }
    // where systemd is, all mounts are shared with their copies
    let space = TestSpace::new().with_busybox();
    space.dockerfile("FROM busybox\nRUN echo built >/f\n");
    let done = script(
        &space,
        "exec unshare --mount --propagation shared sh -c '
            cat /proc/self/mountinfo >before
            $RBUILD info >/dev/null && $RBUILD build -q -t app ctx >/dev/null && $RBUILD run --rm app cat /f &&
            $RBUILD create --name box app >/dev/null && $RBUILD cp box:/f copied && cat copied
            cut -d\" \" -f5 /proc/self/mountinfo >after; cut -d\" \" -f5 before | diff - after'",
    );
    assert_eq!(done.ok().stdout, "built\nbuilt\n");
}
