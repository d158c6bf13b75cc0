//! A large COPY of which little has changed: its new layer is written as a difference to the old one, and nobody can
//! tell. Each state of the context is built in a store that has seen the ones before and in one that has not.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::{TestSpace, skip};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Enough files for a difference to be worth while.
const DIRS: usize = 30;
const EACH: usize = 20;

const DOCKERFILE: &str = "FROM busybox\nRUN mkdir -p /src/d1 && echo base > /src/shadow && echo base > /src/d1/shadow\n\
     COPY . /src/\nRUN cat /src/d0/f0 > /seen; ls -R /src | wc -l >> /seen\n";

fn fill(space: &TestSpace) {
    for dir in 0..DIRS {
        for file in 0..EACH {
            space.write(&format!("ctx/d{dir}/f{file}"), format!("{dir} {file}\n"));
        }
    }
    space.write("ctx/shadow", "of the context\n");
    space.write("ctx/d1/shadow", "of the context\n");
    space.write("Dockerfile", DOCKERFILE);
}

/// Builds in a store and tells all that can be seen of the result: the image's ID, which is made of the layers' bytes, and
/// what a container sees.
fn build(space: &TestSpace, store: &str) -> (String, String) {
    let root = space.path(store);
    if !root.exists() {
        let base = space.path("busybox-saved.tar");
        if !base.exists() {
            space.rbuild(["save", "-o", base.to_str().unwrap(), "busybox"]).ok();
        }
        space.rbuild(["--root", root.to_str().unwrap(), "load", "-i", base.to_str().unwrap()]).ok();
    }
    let root = root.to_str().unwrap();
    let (file, context) = (space.path("Dockerfile"), space.path("ctx"));
    let args = ["--root", root, "build", "-q", "-t", "app", "--source-date-epoch", "1600000000", "-f"];
    let args = args.iter().copied().chain([file.to_str().unwrap(), context.to_str().unwrap()]);
    let id = space.rbuild(args).ok().stdout;
    let look = "cat /seen; cd /src; find . | sort | while read -r f; do stat -c '%n %a %u %g %F' \"$f\"; \
                if [ -L \"$f\" ]; then readlink \"$f\"; elif [ -f \"$f\" ]; then md5sum \"$f\"; fi; done";
    let run = ["--root", root, "run", "--rm", "--network", "none", "app", "sh", "-c", look];
    (id, space.rbuild(run).ok().stdout)
}

/// Counts the snapshots of a store that are differences.
fn differences(space: &TestSpace, store: &str) -> usize {
    let snapshots = fs::read_dir(space.path(store).join("snapshots")).unwrap();
    let record = |dir: &Path| fs::read_to_string(dir.join("record.json")).unwrap_or_default();
    let all = snapshots.map(|entry| entry.unwrap()).filter(|entry| entry.file_type().unwrap().is_dir());
    all.filter(|entry| record(&entry.path()).contains("\"rest\":")).count()
}

type Edit = fn(&TestSpace, &Path);

fn edits() -> Vec<(&'static str, Option<bool>, Edit)> {
    vec![
        ("a file changes", Some(true), |space, _| drop(space.write("ctx/d3/f4", "other\n"))),
        ("another one as well", Some(true), |space, _| drop(space.write("ctx/d9/f4", "other\n"))),
        ("a file goes", Some(true), |_, ctx| fs::remove_file(ctx.join("d0/f1")).unwrap()),
        ("a directory goes", Some(true), |_, ctx| fs::remove_dir_all(ctx.join("d2")).unwrap()),
        ("a directory comes", Some(true), |space, _| drop(space.write("ctx/new/deep/file", "new\n"))),
        ("a file of the base shows again", Some(false), |_, ctx| {
            fs::remove_file(ctx.join("shadow")).unwrap()
        }),
        ("modes change", Some(true), |_, ctx| {
            fs::set_permissions(ctx.join("d4/f0"), fs::Permissions::from_mode(0o751)).unwrap();
            fs::set_permissions(ctx.join("d5"), fs::Permissions::from_mode(0o700)).unwrap();
        }),
        ("a directory becomes a file", Some(true), |space, ctx| {
            fs::remove_dir_all(ctx.join("d6")).unwrap();
            space.write("ctx/d6", "a file now\n");
        }),
        ("a file becomes a directory", None, |space, ctx| {
            fs::remove_file(ctx.join("d7/f0")).unwrap();
            space.write("ctx/d7/f0/inside", "a directory now\n");
        }),
        ("a file becomes a link", Some(true), |_, ctx| {
            fs::remove_file(ctx.join("d8/f0")).unwrap();
            symlink("f1", ctx.join("d8/f0")).unwrap();
        }),
        ("two files become one", Some(false), |_, ctx| {
            fs::remove_file(ctx.join("d8/f3")).unwrap();
            fs::hard_link(ctx.join("d8/f2"), ctx.join("d8/f3")).unwrap();
        }),
        ("much changes", Some(false), |space, _| {
            (10..20)
                .for_each(|dir| (0..EACH).for_each(|f| drop(space.write(&format!("ctx/d{dir}/f{f}"), "x"))));
        }),
    ]
}

fn each_state_is_what_it_would_be_from_nothing(space: &TestSpace, edits: Vec<(&str, Option<bool>, Edit)>) {
    fill(space);
    build(space, "grown");
    for (n, (what, difference, edit)) in edits.into_iter().enumerate() {
        let before = differences(space, "grown");
        edit(space, &space.path("ctx"));
        let fresh = format!("fresh{n}");
        let (grown, new) = (build(space, "grown"), build(space, &fresh));
        assert_eq!(grown.1, new.1, "{what}");
        assert_eq!(grown.0, new.0, "{what}");
        assert_eq!(differences(space, &fresh), 0);
        if let Some(difference) = difference {
            assert_eq!(differences(space, "grown") > before, difference, "{what}");
        }
    }
}

#[test]
fn an_edited_context_gives_what_a_new_one_would() {
    each_state_is_what_it_would_be_from_nothing(&TestSpace::new().with_busybox(), edits());
}

#[test]
fn an_ordinary_users_edited_context_gives_what_a_new_one_would() {
    let Some(space) = TestSpace::rootless() else { return };
    let edits = edits().into_iter().filter(|(what, ..)| !what.starts_with("modes")).take(5).collect();
    each_state_is_what_it_would_be_from_nothing(&space.with_busybox(), edits);
}

#[test]
fn what_shows_through_stays_as_long_as_it_does() {
    let space = TestSpace::new().with_busybox();
    fill(&space);
    build(&space, "grown");
    space.write("ctx/d3/f4", "other\n");
    let (id, seen) = build(&space, "grown");
    assert_eq!(differences(&space, "grown"), 1);
    let root = space.path("grown");
    let root = root.to_str().unwrap();
    // the image of the first build, and all that no image needs
    space.rbuild(["--root", root, "image", "prune", "-f"]).ok();
    space.rbuild(["--root", root, "builder", "prune", "-af"]).ok();
    let look = ["--root", root, "run", "--rm", "--network", "none", "app", "cat", "/src/d3/f4", "/src/d0/f0"];
    assert_eq!(space.rbuild(look).ok().stdout, "other\n0 0\n");
    assert_eq!(build(&space, "grown"), (id, seen), "from its parts, or once more");
    // its owner gone it goes, too
    space.rbuild(["--root", root, "system", "prune", "-af"]).ok();
    assert_eq!(fs::read_dir(Path::new(root).join("snapshots")).unwrap().count(), 0);
}

#[test]
fn a_difference_whose_rest_is_lost_is_made_again() {
    let space = TestSpace::new().with_busybox();
    fill(&space);
    build(&space, "grown");
    space.write("ctx/d3/f4", "other\n");
    let first = build(&space, "grown");
    let snapshots = space.path("grown/snapshots");
    let mut lost = 0;
    for entry in fs::read_dir(&snapshots).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_type().unwrap().is_dir() {
            continue;
        }
        let record = entry.path().join("record.json");
        let Ok(text) = fs::read_to_string(&record) else { continue };
        let Some((_, rest)) = text.split_once("\"rest\":\"") else { continue };
        let rest = snapshots.join(rest.split('"').next().unwrap());
        fs::remove_file(rest.join("record.json")).unwrap();
        lost += 1;
    }
    if lost == 0 {
        skip("no layer was written as a difference here");
        return;
    }
    let again = build(&space, "grown");
    assert_eq!(again.1, first.1);
}
