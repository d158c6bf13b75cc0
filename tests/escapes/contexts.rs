//! Builds whose context or image leads out by links: sources, destinations, mounts; and a context that changes meanwhile.

use crate::canary::Canary;
use crate::common::{TestSpace, archive};
use crate::spaces;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the canary's files say.
const SECRET: &str = "the host's own";

fn says_secret(done: &crate::common::Done) -> bool {
    done.stdout.contains(SECRET) || done.stderr.contains(SECRET)
}

/// Makes links in the context that lead to the canary in all ways.
fn links(space: &TestSpace, canary: &Canary) {
    space.write("ctx/ordinary", "x");
    for (name, target) in [
        ("abs", canary.path("")),
        ("up", "../outside".into()),
        ("dots", canary.dotted("")),
        ("file", "../outside/secret".into()),
        ("root", "/proc/self/root".into()),
        ("cwd", "/proc/self/cwd/../outside".into()),
        ("fds", "/proc/self/fd".into()),
        ("parent", "..".into()),
    ] {
        symlink(target, space.path("ctx").join(name)).unwrap();
    }
}

#[test]
fn sources_do_not_leave_the_context() {
    let space = TestSpace::new().with_busybox();
    let canary = Canary::plant(&space);
    let (secret, secret_of_root) = (canary.path("secret"), canary.path("secret"));
    space.mkdir("ctx");
    links(&space, &canary);
    let mut refused = 0;
    let sources = [
        "abs/secret",
        "up/secret",
        "dots/secret",
        "file",
        "cwd/secret",
        "parent/outside/secret",
        "abs/*",
        "u*/s*",
        "*/secret",
        "../outside/secret",
        "/../../outside/secret",
        &secret,
        "./../outside/",
        "fds/0",
        "fds/*",
        &format!("root{secret_of_root}"),
    ];
    for (at, source) in sources.into_iter().enumerate() {
        let lines = [
            format!("COPY [\"{source}\", \"/x/\"]"),
            format!("ADD [\"{source}\", \"/x/\"]"),
            format!("COPY --parents [\"{source}\", \"/x/\"]"),
            format!("RUN --mount=type=bind,source={source},target=/x cat /x || cat /x/*"),
            format!("RUN --mount=type=cache,from=ctx,source={source},target=/x cat /x || cat /x/*"),
        ];
        // COPY always, the others in their turn
        let turn = [0, 1 + at % 4, 1 + (at + 1) % 4];
        for line in turn.map(|n| &lines[n]) {
            let context = space
                .dockerfile(&format!("FROM busybox\n{line}\nRUN cat /x /x/* /x/*/* 2>/dev/null || true\n"));
            let named = format!("ctx={}", context.display());
            let done = space.build(&context, &["--build-context", &named]);
            assert!(matches!(done.status.code(), Some(0 | 1)), "{line}\n{done}");
            assert!(!done.stderr.contains("panicked"), "{line}\n{done}");
            // the instruction itself is shown, and it does not hold the words
            assert!(!says_secret(&done), "{line}\n{done}");
            refused += usize::from(!done.status.success());
        }
        canary.assert_untouched(source);
    }
    assert!(refused > 24, "only {refused} of 48 were refused");
    // Links that are copied with their directory stay links.
    let context = space.dockerfile("FROM busybox\nCOPY . /all/\nRUN test -L /all/abs && test -L /all/file && ! cat /all/abs/secret /all/file\n");
    let done = space.build(&context, &[]).ok();
    assert!(!says_secret(&done), "{done}");
    canary.assert_untouched("COPY of links");
}

/// The files that say what to build are part of what is not trusted.
#[test]
fn a_dockerfile_and_an_ignore_file_do_not_lead_out() {
    let space = TestSpace::new().with_busybox();
    let canary = Canary::plant(&space);
    space.mkdir("ctx");
    for target in [canary.path("secret"), "../outside/secret".into()] {
        for (name, flags) in
            [("Dockerfile", &[][..]), (".dockerignore", &[]), ("sub/D", &["-f", "ctx/sub/D"])]
        {
            let _ = fs::remove_dir_all(space.path("ctx"));
            space.write("ctx/Dockerfile", "FROM busybox\nCOPY . /\n");
            space.mkdir("ctx/sub");
            let link = space.path("ctx").join(name);
            let _ = fs::remove_file(&link);
            symlink(&target, &link).unwrap();
            let done = space.build(&space.path("ctx"), flags);
            assert!(!says_secret(&done), "{name} -> {target}\n{done}");
            canary.assert_untouched(name);
        }
    }
}

#[test]
fn destinations_and_mount_points_do_not_leave_the_image() {
    for space in spaces() {
        let canary = Canary::plant(&space);
        let outside = canary.path("");
        space.write("ctx/f", "owned\n");
        space.write("ctx/secret", "owned\n");
        let tar = crate::hostile::Tar::new()
            .file("secret", "owned\n")
            .dir("dir")
            .file("dir/inner", "owned\n")
            .end();
        space.write("ctx/a.tar", tar);
        space.write("ctx/s", "a secret\n");
        let targets = [
            outside.clone(),
            canary.dotted(""),
            format!("/proc/self/root{outside}"),
            format!("/proc/1/cwd{outside}"),
        ];
        let lines = [
            "COPY f /out/secret",
            "COPY secret /out/",
            "COPY --link secret /out/",
            "COPY --parents secret /out/",
            "COPY --chmod=777 --chown=7:7 . /out/",
            "ADD a.tar /out/",
            "ADD --chown=7:7 a.tar /out",
            "COPY --from=base /out/secret /got",
            "COPY --from=base /out/ /got/",
            "COPY <<end /out/secret\nowned\nend",
            "WORKDIR /out/new",
            "WORKDIR /out/dir",
            "VOLUME /out",
            "VOLUME /out/dir",
            "USER 7\nWORKDIR /out/dir/new",
            "RUN --mount=type=bind,source=f,target=/out/secret true",
            "RUN --mount=type=bind,source=f,target=/out/new true",
            "RUN --mount=type=bind,from=base,source=/out,target=/x cat /x/secret",
            "RUN --mount=type=bind,from=base,source=/out/../../../..,target=/x ls /x/etc/passwd",
            "RUN --mount=type=tmpfs,target=/out/dir echo owned > /out/dir/inner",
            "RUN --mount=type=cache,target=/out/dir/new echo owned > /out/dir/new/x",
            "RUN --mount=type=secret,id=s,target=/out/dir/er/f true",
            "RUN --mount=type=secret,id=s,target=/out/secret true",
        ];
        // each in its turn through another of the links; for the ordinary user every third
        let step = if space.binary().starts_with(space.path("")) { 3 } else { 1 };
        for (at, line) in lines.iter().enumerate().step_by(step) {
            let target = &targets[at % targets.len()];
            let link = format!("FROM busybox AS base\nRUN ln -s {target} /out\nFROM base\n");
            let context =
                space.dockerfile(&format!("{link}{line}\nRUN cat /got /got/* 2>/dev/null || true\n"));
            let done = space.build(&context, &["--secret", "id=s,src=ctx/s", "-t", "evil:1"]);
            assert!(matches!(done.status.code(), Some(0 | 1)), "{line} with {target}\n{done}");
            assert!(!says_secret(&done), "{line} with {target}\n{done}");
            canary.assert_untouched(&format!("{line} with {target}\n{done}"));
        }
    }
}

/// What looks like a mount point that was made for a step, and is not.
#[test]
fn the_removal_of_mount_points_stays_inside() {
    for space in spaces() {
        let canary = Canary::plant(&space);
        space.write("ctx/s", "a secret\n");
        let outside = canary.path("");
        // The step moves the directories of its mount points and puts links to look-alikes in their place.
        let text = format!(
            "FROM busybox\nRUN --mount=type=secret,id=s,target=/opt/dir/er/f --mount=type=tmpfs,target=/opt/dir/er/empty \
             mv /opt /moved && ln -s {outside} /opt && ls -l /opt\n\
             RUN --mount=type=secret,id=s,target=/opt2/er/f mv /opt2/er /opt2/old && ln -s {outside}dir/er /opt2/er\n\
             RUN --mount=type=secret,id=s,target=/a/b/f mv /a/b /a/c && ln -s {} /a/b\n",
            canary.dotted("dir/er"),
        );
        let context = space.dockerfile(&text);
        let done = space.build(&context, &["--secret", "id=s,src=ctx/s", "-t", "evil:1"]);
        assert!(matches!(done.status.code(), Some(0 | 1)), "{done}");
        canary.assert_untouched(&format!("stubs\n{done}"));
        // Files of the host that are mount points themselves look like stubs, too.
        let data = format!("{}:/data", canary.path("dir"));
        for _ in 0..2 {
            space
                .rbuild([
                    "run",
                    "--rm",
                    "--network",
                    "none",
                    "-v",
                    &data,
                    "-v",
                    "/data/er/empty",
                    "--mount",
                    "type=bind,src=ctx/s,dst=/data/er/f",
                    "busybox",
                    "cat",
                    "/data/er/f",
                ])
                .ok();
            canary.assert_untouched("mounts over files of the host");
        }
    }
}

/// A writer exchanges a directory and a link all the time; what comes into the image is the one, or the build fails.
#[test]
fn a_context_that_changes_meanwhile_lets_nothing_in() {
    let space = TestSpace::new().with_busybox();
    let canary = Canary::plant(&space);
    space.write("ctx/d/secret", "inside\n");
    space.write("ctx/d/inner", "inside\n");
    space.write("ctx/f", "inside\n");
    symlink(canary.path(""), space.path("ctx/d2")).unwrap();
    symlink(canary.path("secret"), space.path("ctx/f2")).unwrap();
    let context = space.dockerfile(
        "FROM busybox\nCOPY d/secret /one\nCOPY d /all/\nCOPY f /two\nADD d/inner /three\nCOPY --parents d/inner /four/\n\
         RUN --mount=type=bind,target=/m cat /m/d/secret /m/f > /five\n",
    );
    let stop = AtomicBool::new(false);
    let dest = space.path("out");
    let output = format!("type=tar,dest={}", dest.display());
    let (mut built, mut failed) = (0, 0);
    std::thread::scope(|scope| {
        let racer = scope.spawn(|| {
            let mut rounds = 0u64;
            while !stop.load(Ordering::Relaxed) {
                for (a, b) in [("ctx/d", "ctx/d2"), ("ctx/f", "ctx/f2")] {
                    renameat_with(CWD, space.path(a), CWD, space.path(b), RenameFlags::EXCHANGE).unwrap();
                }
                rounds += 1;
                // leaves the processor to the build now and then
                if rounds.is_multiple_of(64) {
                    std::thread::yield_now();
                }
            }
            rounds
        });
        for _ in 0..16 {
            let done = space.build(&context, &["--no-cache", "-o", &output]);
            assert!(matches!(done.status.code(), Some(0 | 1)), "{done}");
            assert!(!says_secret(&done) && !done.stderr.contains("panicked"), "{done}");
            if done.status.success() {
                built += 1;
                let tree = archive::read(&dest);
                for (name, entry) in &tree {
                    let content = String::from_utf8_lossy(&entry.content);
                    assert!(!content.contains(SECRET), "{name} came in");
                }
            } else {
                failed += 1;
            }
            let _ = fs::remove_file(&dest);
        }
        stop.store(true, Ordering::Relaxed);
        let rounds = racer.join().unwrap();
        assert!(rounds > 100, "only {rounds} rounds");
    });
    assert_eq!(built + failed, 16);
    canary.assert_untouched("a race");
}
