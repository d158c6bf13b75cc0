//! Base images of registries: config and manifest first, layers when something needs their files.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::registry_log::LoggedRegistry;
use common::{Done, TestSpace, process, tools_or_skip};
use std::time::Duration;

/// A registry with the busybox base as `base:1`; what it was asked for until now is forgotten.
fn with_base(space: &TestSpace) -> Option<(LoggedRegistry, String)> {
    let registry = LoggedRegistry::start(space)?;
    let name = format!("{}/base:1", registry.host);
    on(space, "maker", &["import", common::base("busybox").to_str().unwrap(), &name]).ok();
    on(space, "maker", &["push", &name]).ok();
    registry.forget();
    Some((registry, name))
}

fn on(space: &TestSpace, store: &str, args: &[&str]) -> Done {
    let mut command = space.command(args);
    command.env("RBUILD_ROOT", space.path(store));
    process::finish(&mut command, None, Duration::from_secs(300))
}

fn build(space: &TestSpace, store: &str, args: &[&str]) -> Done {
    let context = space.path("ctx");
    let mut all = vec!["build", "--progress", "plain"];
    all.extend(args);
    all.push(context.to_str().unwrap());
    on(space, store, &all)
}

#[test]
fn layers_come_when_a_step_must_run_on_them() {
    let space = TestSpace::new();
    let Some((registry, name)) = with_base(&space) else { return };
    space.dockerfile(&format!("FROM {name}\nENV A=b\nCMD [\"echo\", \"it works\"]\n"));
    build(&space, "one", &["-t", "app"]).ok();
    // the config alone
    assert_eq!(registry.downloaded(&[]).len(), 1, "{:?}", registry.asked());
    let listed = on(&space, "one", &["images"]).ok().stdout;
    assert!(listed.contains("app") && listed.contains("base"), "{listed}");
    on(&space, "one", &["system", "df"]).ok();
    on(&space, "one", &["builder", "prune", "-af"]).ok();
    // the tag is known by now
    registry.forget();
    build(&space, "one", &["-t", "app"]).ok();
    assert!(registry.asked().is_empty(), "{:?}", registry.asked());
    // and now the files are needed
    let done = on(&space, "one", &["run", "--rm", "--network", "none", "app"]).ok();
    assert_eq!(done.stdout, "it works\n");
    assert_eq!(registry.downloaded(&[]).len(), 1, "{:?}", registry.asked());
    registry.forget();
    space.dockerfile(&format!("FROM {name}\nRUN echo x > /x\n"));
    build(&space, "one", &["-t", "more"]).ok().assert_executed(&["RUN echo x"]);
    assert!(registry.downloaded(&[]).is_empty(), "{:?}", registry.asked());
}

#[test]
fn processes_that_want_a_layer_at_once_fetch_it_once() {
    let space = TestSpace::new();
    let Some((registry, name)) = with_base(&space) else { return };
    space.dockerfile(&format!("FROM {name}\nCMD [\"echo\", \"here\"]\n"));
    build(&space, "one", &["-t", "app"]).ok();
    registry.forget();
    let start = || {
        let mut command = space.command(["run", "--rm", "--network", "none", "app"]);
        process::Running::start(command.env("RBUILD_ROOT", space.path("one")))
    };
    let running: Vec<_> = (0..4).map(|_| start()).collect();
    let done: Vec<Done> = running.into_iter().map(|r| r.wait(Duration::from_secs(300)).ok()).collect();
    assert!(done.iter().all(|done| done.stdout == "here\n"), "{done:?}");
    assert_eq!(registry.downloaded(&[]).len(), 1, "{:?}", registry.asked());
    // builds, too, and they show what they wait for
    space.dockerfile(&format!("FROM {name}\nRUN echo x > /x\n"));
    registry.forget();
    let start = || {
        let context = space.path("ctx");
        let mut command =
            space.command(["build", "--progress", "plain", "-t", "more", context.to_str().unwrap()]);
        process::Running::start(command.env("RBUILD_ROOT", space.path("two")))
    };
    let running: Vec<_> = (0..3).map(|_| start()).collect();
    let done: Vec<Done> = running.into_iter().map(|r| r.wait(Duration::from_secs(300)).ok()).collect();
    let layers = |digest: &String| {
        let blob = LoggedRegistry::data(&space).join("docker/registry/v2/blobs/sha256");
        let hex = digest.trim_start_matches("sha256:");
        blob.join(&hex[..2]).join(hex).join("data").metadata().unwrap().len() > 100_000
    };
    // each asks for the config, which is small
    let fetched: Vec<String> = registry.downloaded(&[]).into_iter().filter(layers).collect();
    assert_eq!(fetched.len(), 1, "{:?}", registry.asked());
    assert_eq!(done.iter().filter(|done| done.stderr.contains("pull layer ")).count(), 1, "{done:?}");
}

#[test]
fn a_build_that_is_known_pulls_no_layer() {
    let space = TestSpace::new();
    let Some((registry, name)) = with_base(&space) else { return };
    space.dockerfile(&format!(
        "FROM {name} AS builder\nRUN echo built > /f\nFROM {name}\nCOPY --from=builder /f /f\nRUN cat /f > /g\nCMD [\"cat\", \"/g\"]\n"
    ));
    let cache = format!("{}/cache", registry.host);
    let to = format!("type=registry,ref={cache},mode=max");
    let ids: Vec<String> = ["one", "two"]
        .iter()
        .map(|store| {
            let file = space.path("iid");
            let args =
                ["-t", "app", "--iidfile", file.to_str().unwrap(), "--cache-from", &cache, "--cache-to", &to];
            registry.forget();
            let done = build(&space, store, &args).ok();
            assert_eq!(done.executed().is_empty(), *store == "two", "{done}");
            std::fs::read_to_string(file).unwrap()
        })
        .collect();
    assert_eq!(ids[0], ids[1]);
    // the config of the base, twice at most since two stages ask, and the list of steps
    let downloaded = registry.downloaded(&[]);
    assert!(downloaded.len() <= 3, "{downloaded:?}");
    assert!(!registry.asked().iter().any(|request| request.starts_with("PATCH")), "{:?}", registry.asked());
    // an archive needs all files
    let archive = space.path("app.tar");
    on(&space, "two", &["save", "-o", archive.to_str().unwrap(), "app"]).ok();
    assert_eq!(registry.downloaded(&[]).len(), downloaded.len() + 3, "{:?}", registry.asked());
    on(&space, "three", &["load", "-i", archive.to_str().unwrap()]).ok();
    assert_eq!(on(&space, "three", &["run", "--rm", "--network", "none", "app"]).ok().stdout, "built\n");
}

#[test]
fn the_policy_says_when_the_registry_is_asked() {
    let space = TestSpace::new();
    let Some((registry, name)) = with_base(&space) else { return };
    space.dockerfile(&format!("FROM {name}\nRUN cat /which > /seen || true\nCMD [\"cat\", \"/seen\"]\n"));
    build(&space, "one", &["--pull=never", "-t", "app"]).refuses(1, &["no such image in the store"]);
    assert!(registry.asked().is_empty());
    build(&space, "one", &["-t", "app"]).ok();
    // another image takes the name
    space.write("new/Dockerfile", format!("FROM {name}\nRUN echo new > /which\n"));
    on(&space, "maker", &["build", "-t", &name, space.path("new").to_str().unwrap()]).ok();
    on(&space, "maker", &["push", &name]).ok();
    let ran = |args: &[&str]| {
        !build(&space, "one", &[args, &["-t", "app"][..]].concat()).ok().executed().is_empty()
    };
    assert!(!ran(&[]) && !ran(&["--pull=missing"]) && !ran(&["--pull=false"]));
    assert!(ran(&["--pull"]));
    assert_eq!(on(&space, "one", &["run", "--rm", "--network", "none", "app"]).ok().stdout, "new\n");
    assert!(!ran(&["--pull=always"]));
}

#[test]
fn what_a_registry_lost_or_damaged_is_an_error_that_says_so() {
    let space = TestSpace::new();
    let Some((registry, name)) = with_base(&space) else { return };
    space.dockerfile(&format!("FROM {name}\nRUN true\n"));
    // the layer is the largest blob
    let blobs = LoggedRegistry::data(&space).join("docker/registry/v2/blobs/sha256");
    let mut largest = (0, std::path::PathBuf::new());
    for fan in std::fs::read_dir(blobs).unwrap() {
        for blob in std::fs::read_dir(fan.unwrap().path()).unwrap() {
            let data = blob.unwrap().path().join("data");
            largest = largest.max((data.metadata().unwrap().len(), data));
        }
    }
    let good = std::fs::read(&largest.1).unwrap();
    let mut bad = good.clone();
    bad[1000] ^= 1;
    std::fs::write(&largest.1, bad).unwrap();
    build(&space, "one", &["-t", "app"]).refuses(1, &["sha256:"]);
    let snapshots = std::fs::read_dir(space.path("one/snapshots")).unwrap().count();
    assert_eq!(snapshots, 0);
    // nothing of it stays: with the right bytes it goes on
    std::fs::write(&largest.1, good).unwrap();
    build(&space, "one", &["-t", "app"]).ok();
    drop(registry);
}

#[test]
fn skopeo_can_put_the_base_there() {
    let space = TestSpace::new();
    if !tools_or_skip(&["skopeo"]) {
        return;
    }
    let Some((registry, name)) = with_base(&space) else { return };
    let target = format!("docker://{}/copied:z", registry.host);
    let copied = space.run_tool(
        "skopeo",
        [
            "copy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            "--dest-compress-format",
            "zstd",
            &format!("docker://{name}"),
            &target,
        ],
    );
    copied.ok();
    space.dockerfile(&format!(
        "FROM {}/copied:z\nRUN echo works > /f\nCMD [\"cat\", \"/f\"]\n",
        registry.host
    ));
    build(&space, "one", &["-t", "app"]).ok();
    assert_eq!(on(&space, "one", &["run", "--rm", "--network", "none", "app"]).ok().stdout, "works\n");
}
