//! The files of containers from outside: cp, diff, commit, export; and what else is said of containers: events, update.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::Duration;

use common::TestSpace;
use common::process::{Running, eventually};

const MINUTE: Duration = Duration::from_secs(60);

fn start(space: &TestSpace, flags: &[&str], script: &str) {
    let mut args = vec!["run", "-d", "--name", "box", "--network", "none"];
    args.extend(flags);
    args.extend(["busybox", "sh", "-c", script]);
    space.rbuild(args).ok();
}

fn inside(space: &TestSpace, script: &str) -> String {
    space.rbuild(["exec", "box", "sh", "-c", script]).ok().stdout
}

/// Each rule of cp, into a container that runs and into one that does not.
#[test]
fn cp_follows_the_rules_of_cp() {
    let space = TestSpace::new().with_busybox();
    space.write("src/one", "1");
    space.write("src/sub/two", "2");
    space.write("file", "content");
    start(
        &space,
        &["-v", "vol:/vol"],
        "mkdir -p /d /there; echo old > /there/file; ln -s there /link; sleep 3600",
    );
    eventually("it is ready", MINUTE, || {
        space.rbuild(["exec", "box", "test", "-L", "/link"]).status.success()
    });
    for running in [true, false] {
        if !running {
            space.rbuild(["stop", "-t", "0", "box"]).ok();
        }
        let cp = |from: &str, to: &str| space.rbuild(["cp", from, to]);
        let back = |path: &str| {
            let out = space.path("back");
            let _ = fs::remove_file(&out);
            space.rbuild(["cp", &format!("box:{path}"), "back"]).ok();
            fs::read_to_string(&out).unwrap()
        };
        // a file: to a new name, over a file, into a directory, through a link
        cp("file", "box:/new").ok();
        assert_eq!(back("/new"), "content");
        cp("src/one", "box:/new").ok();
        assert_eq!(back("/new"), "1");
        cp("file", "box:/there").ok();
        assert_eq!(back("/there/file"), "content");
        cp("src/one", "box:/link/file").ok();
        assert_eq!(back("there/file"), "1");
        cp("file", "box:/missing/").refuses(1, &["must exist"]);
        cp("file", "box:/missing/x").refuses(1, &["does not exist"]);
        cp("nothing", "box:/x").refuses(1, &["nothing"]);
        cp("box:/nothing", "x").refuses(1, &["/nothing"]);
        // a directory: to a new name, into one, its content, over a file
        let name = if running { "a" } else { "b" };
        cp("src", &format!("box:/{name}")).ok();
        assert_eq!(back(&format!("/{name}/sub/two")), "2");
        cp("src", "box:/d").ok();
        assert_eq!(back("/d/src/one"), "1");
        cp("src/.", "box:/d").ok();
        assert_eq!(back("/d/sub/two"), "2");
        cp("src", "box:/new").refuses(1, &["cannot copy a directory"]);
        // a volume, as the container sees it
        cp("file", "box:/vol/x").ok();
        assert_eq!(fs::read_to_string(space.store().join("volumes/vol/_data/x")).unwrap(), "content");
        // out again, with links as they are unless they are followed
        let _ = fs::remove_dir_all(space.path("out"));
        cp("box:/d", "out").ok();
        assert_eq!(fs::read_to_string(space.path("out/src/sub/two")).unwrap(), "2");
        let _ = fs::remove_file(space.path("l"));
        cp("box:/link", "l").ok();
        assert_eq!(fs::read_link(space.path("l")).unwrap().to_str(), Some("there"));
        let _ = fs::remove_dir_all(space.path("followed"));
        space.rbuild(["cp", "-L", "box:/link", "followed"]).ok();
        assert!(space.path("followed/file").exists());
    }
    space.rbuild(["cp", "file", "other"]).refuses(1, &["container"]);
    space.rbuild(["cp", "nobody:/x", "y"]).refuses(1, &["no such container"]);
}

#[test]
fn cp_gives_files_to_root_unless_owners_are_kept() {
    let space = TestSpace::new().with_busybox();
    if !common::root_or_skip() {
        return;
    }
    let file = space.write("file", "x");
    std::os::unix::fs::chown(&file, Some(77), Some(78)).unwrap();
    start(&space, &[], "sleep 3600");
    space.rbuild(["cp", "file", "box:/plain"]).ok();
    space.rbuild(["cp", "-a", "file", "box:/kept"]).ok();
    assert_eq!(inside(&space, "stat -c %u:%g /plain /kept"), "0:0\n77:78\n");
    space.rbuild(["cp", "box:/kept", "plain"]).ok();
    space.rbuild(["cp", "-a", "box:/kept", "kept"]).ok();
    let owner = |name: &str| fs::metadata(space.path(name)).unwrap().uid();
    assert_eq!((owner("plain"), owner("kept")), (0, 77));
}

#[test]
fn cp_takes_and_gives_tars() {
    let space = TestSpace::new().with_busybox();
    start(&space, &[], "mkdir -p /in /out/sub; echo x > /out/sub/file; sleep 3600");
    eventually("it is ready", MINUTE, || {
        space.rbuild(["exec", "box", "test", "-e", "/out/sub/file"]).status.success()
    });
    space.write("tree/a", "A");
    let tar = space.tool("tar").args(["-C", "tree", "-c", "."]).output().unwrap().stdout;
    space.rbuild_fed(["cp", "-", "box:/in"], &tar).ok();
    assert_eq!(inside(&space, "cat /in/a"), "A");
    space.rbuild_fed(["cp", "-", "box:/in/a"], &tar).refuses(1, &["must be a directory"]);
    let out = space.command(["cp", "box:/out", "-"]).output().unwrap();
    assert!(out.status.success());
    let mut list = space.tool("tar");
    list.arg("-t").stdin(Stdio::piped());
    let mut running = Running::start(&mut list);
    std::io::Write::write_all(running.child.stdin.as_mut().unwrap(), &out.stdout).unwrap();
    drop(running.child.stdin.take());
    assert_eq!(running.wait(MINUTE).code(0).stdout, "out/\nout/sub/\nout/sub/file\n");
}

#[test]
fn a_container_cannot_lead_cp_out_of_it() {
    let space = TestSpace::new().with_busybox();
    let secret = space.write("secret", "host");
    start(
        &space,
        &[],
        &format!("ln -s {} /leak; ln -s {} /dir; sleep 3600", secret.display(), space.path("").display()),
    );
    eventually("it is ready", MINUTE, || {
        space.rbuild(["exec", "box", "test", "-L", "/dir"]).status.success()
    });
    for stopped in [false, true] {
        if stopped {
            space.rbuild(["stop", "-t", "0", "box"]).ok();
        }
        space.rbuild(["cp", "-L", "box:/leak", "got"]).code(1);
        space.rbuild(["cp", "secret", "box:/dir/planted"]).code(1);
        assert!(!space.path("planted").exists() && !space.path("got").exists());
    }
}

/// A look at the files of a stopped container once mounted them in a way that kept it from starting.
#[test]
fn a_stopped_container_starts_after_cp_and_export() {
    let space = TestSpace::new().with_busybox();
    space.rbuild(["create", "--name", "box", "--network", "none", "busybox", "cat", "/note"]).ok();
    let note = space.write("note", "kept\n");
    for _ in 0..2 {
        space.rbuild(["cp", note.to_str().unwrap(), "box:/"]).ok();
        space.rbuild(["export", "-o", space.path("out.tar").to_str().unwrap(), "box"]).ok();
        assert_eq!(space.rbuild(["start", "-a", "box"]).ok().stdout, "kept\n");
    }
}

#[test]
fn diff_lists_what_has_changed() {
    let space = TestSpace::new().with_busybox();
    start(
        &space,
        &["-v", "/data"],
        "touch /new; mkdir /dir; touch /dir/x /data/y; echo x >> /etc/passwd; rm /bin/ls",
    );
    space.rbuild(["wait", "box"]).ok();
    let text = space.rbuild(["diff", "box"]).ok().stdout;
    assert_eq!(text, "C /bin\nD /bin/ls\nA /dir\nA /dir/x\nC /etc\nC /etc/passwd\nA /new\n");
}

#[test]
fn commit_makes_an_image_of_it() {
    let space = TestSpace::new().with_busybox();
    start(
        &space,
        &["-e", "A=1", "-w", "/work", "-l", "k=v", "-v", "/data"],
        "echo kept > /note; touch /data/x; rm /bin/ls; sleep 3600",
    );
    eventually("it has written", MINUTE, || {
        space.rbuild(["exec", "box", "test", "-e", "/data/x"]).status.success()
    });
    let flags = ["-c", "CMD [\"cat\", \"/note\"]", "-c", "ENV B=2", "-m", "my note", "-a", "me"];
    let mut args = vec!["commit"];
    args.extend(flags);
    args.extend(["box", "made:1"]);
    let id = space.rbuild(args).ok().stdout.trim().to_owned();
    assert!(common::is_image_id(&id));
    let image = space.inspect("made:1");
    assert_eq!(
        (image["Id"].as_str(), image["Author"].as_str(), image["Comment"].as_str()),
        (Some(&*id), Some("me"), Some("my note"))
    );
    assert_eq!(image["Config"]["WorkingDir"], "/work");
    assert_eq!(image["Config"]["Labels"]["k"], "v");
    let env = image["Config"]["Env"].to_string();
    assert!(env.contains("A=1") && env.contains("B=2") && !env.contains("HOSTNAME"), "{env}");
    assert_eq!(space.rbuild(["run", "--rm", "--network", "none", "made:1"]).ok().stdout, "kept\n");
    let done = space.stdout_of("made:1", &["sh", "-c", "test ! -e /bin/ls && test ! -e /data/x && pwd"]);
    assert_eq!(done, "/work\n");
    // It goes on, and the image can be written out and built upon.
    assert_eq!(inside(&space, "echo on"), "on\n");
    space.rbuild(["save", "-o", "made.tar", "made:1"]).ok();
    space.build_text("above", "FROM made:1\nRUN cat /note > /copy\n");
    assert_eq!(space.stdout_of("above", &["cat", "/copy"]), "kept\n");
    // Without a change there is no layer.
    space.rbuild(["create", "--name", "idle", "busybox"]).ok();
    space.rbuild(["commit", "idle", "same"]).ok();
    let layers = |name: &str| space.inspect(name)["RootFS"]["Layers"].as_array().unwrap().len();
    assert_eq!(layers("same"), layers("busybox"));
}

#[test]
fn export_gives_all_files_but_those_of_volumes() {
    let space = TestSpace::new().with_busybox();
    start(&space, &["-v", "/data"], "echo mine > /note; touch /data/x; rm /bin/ls; sleep 3600");
    eventually("it has written", MINUTE, || {
        space.rbuild(["exec", "box", "test", "-e", "/data/x"]).status.success()
    });
    for stopped in [false, true] {
        if stopped {
            space.rbuild(["stop", "-t", "0", "box"]).ok();
        }
        space.rbuild(["export", "-o", "flat.tar", "box"]).ok();
        let list = space.run_tool("tar", ["-tf", "flat.tar"]).ok().stdout;
        let has = |name: &str| list.lines().any(|line| line == name);
        assert!(
            has("note") && has("bin/busybox") && has("etc/passwd") && !has("bin/ls") && !has("data/x"),
            "{list}"
        );
        space.rbuild(["import", "flat.tar", "again"]).ok();
        assert_eq!(space.stdout_of("again", &["cat", "/note"]), "mine\n");
    }
}

#[test]
fn events_tell_what_happens() {
    let space = TestSpace::new().with_busybox();
    let mut following =
        Running::start(&mut space.command(["events", "--format", "{{.Action}} {{.Actor.Attributes.name}}"]));
    std::thread::sleep(Duration::from_millis(300));
    start(&space, &["-l", "k=v"], "exit 3");
    space.rbuild(["wait", "box"]).ok();
    space.rbuild(["rm", "box"]).ok();
    following.wait_for("destroy box", MINUTE);
    following.signal(nix::sys::signal::Signal::SIGTERM);
    let seen = following.wait(MINUTE).stdout;
    assert_eq!(seen, "create box\nstart box\ndie box\ndestroy box\n");
    let past =
        space.rbuild(["events", "--since", "1h", "--until", "0s", "-f", "event=die", "-f", "label=k=v"]).ok();
    assert!(past.stdout.contains("container die ") && past.stdout.contains("exitCode=3"), "{past}");
    assert_eq!(past.stdout.lines().count(), 1);
}

#[test]
fn update_changes_policy_and_limits() {
    let space = TestSpace::new().with_busybox();
    if !common::root_or_skip() {
        return;
    }
    start(&space, &["-m", "64m"], "sleep 3600");
    space.rbuild(["update", "--restart", "on-failure:2", "box"]).ok();
    let field = |template: &str| space.rbuild(["inspect", "-f", template, "box"]).ok().stdout;
    assert_eq!(
        field("{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}"),
        "on-failure 2\n"
    );
    space.rbuild(["update", "-m", "48m", "box"]).ok();
    assert_eq!(field("{{.HostConfig.Memory}}"), format!("{}\n", 48 << 20));
    let dirs: serde_json::Value = serde_json::from_slice(
        &fs::read(space.store().join("containers").join(field("{{.Id}}").trim()).join("state.json")).unwrap(),
    )
    .unwrap();
    let dir = dirs["cgroups"][0].as_str().unwrap();
    let limit = ["memory.limit_in_bytes", "memory.max"]
        .iter()
        .find_map(|f| fs::read_to_string(format!("{dir}/{f}")).ok());
    assert_eq!(limit.unwrap().trim(), (48 << 20).to_string());
    space.rbuild(["update", "box"]).refuses(1, &["one or more flags"]);
    space.rbuild(["update", "--pids-limit", "5", "box"]).refuses(1, &["processes"]);
}
