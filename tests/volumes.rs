//! Volumes: made, listed, used, shared, removed.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fs;

use common::TestSpace;
use common::fleet::Fleet;
use serde_json::Value;

fn fleet() -> Fleet {
    Fleet::new(TestSpace::new())
}

#[test]
fn volumes_are_managed_as_docker_does() {
    let space = TestSpace::new();
    let says = |args: &[&str]| space.rbuild(args).ok().stdout;
    assert_eq!(says(&["volume", "create", "--label", "a=b", "data"]), "data\n");
    assert_eq!(says(&["volume", "create", "data"]), "data\n");
    let random = says(&["volume", "create"]);
    assert_eq!(random.trim_end().len(), 64);
    let table = says(&["volume", "ls", "-f", "name=data"]);
    assert_eq!(table, "DRIVER    VOLUME NAME\nlocal     data\n");
    assert_eq!(says(&["volume", "ls", "-q", "-f", "label=a"]), "data\n");
    assert_eq!(says(&["volume", "ls", "-q", "-f", "dangling=true"]).lines().count(), 2);
    assert_eq!(says(&["volume", "ls", "--format", "{{.Name}} {{.Labels}}", "-f", "name=data"]), "data a=b\n");
    let json: Value = serde_json::from_str(&says(&["volume", "inspect", "data"])).unwrap();
    let place = space.store().join("volumes/data/_data");
    assert_eq!(json[0]["Mountpoint"], place.canonicalize().unwrap().to_str().unwrap());
    assert_eq!((&json[0]["Labels"]["a"], &json[0]["Driver"]), (&"b".into(), &"local".into()));
    let missing = space.rbuild(["volume", "inspect", "gone"]).code(1);
    assert_eq!((missing.stdout.as_str(), missing.stderr.contains("no such volume")), ("[]\n", true));
    space.rbuild(["volume", "create", "a/b"]).refuses(1, &["invalid characters"]);
    space.rbuild(["volume", "create", "-d", "nfs", "x1"]).refuses(1, &["there is only local"]);
    space.rbuild(["volume", "create", "-o", "what=1", "x1"]).refuses(1, &["invalid option"]);
    space.rbuild(["volume", "create", "-o", "type=tmpfs", "data"]).refuses(1, &["other options"]);
    // only those without a name, unless all are meant
    let pruned = says(&["volume", "prune", "-f"]);
    assert!(
        pruned.starts_with(&format!("Deleted Volumes:\n{random}")) && pruned.contains("reclaimed space: ")
    );
    assert_eq!(says(&["volume", "ls", "-q"]), "data\n");
    assert!(says(&["volume", "prune", "-af", "--filter", "label!=a"]).starts_with("Total"));
    assert!(says(&["volume", "prune", "-af"]).contains("data\n"));
    space.rbuild(["volume", "rm", "data"]).refuses(1, &["no such volume"]);
    says(&["volume", "rm", "-f", "data"]);
}

#[test]
fn a_volume_in_use_stays() {
    let fleet = fleet();
    fleet.says(&["create", "--name", "c1", "-v", "data:/d", "-v", "/anon", "busybox", "true"]);
    let id = fleet.says(&["inspect", "c1", "-f", "{{.Id}}"]);
    fleet.space.rbuild(["volume", "rm", "data"]).refuses(1, &["volume is in use", &id]);
    fleet.space.rbuild(["volume", "rm", "-f", "data"]).refuses(1, &["volume is in use"]);
    assert!(fleet.says(&["volume", "prune", "-af"]).starts_with("Total reclaimed space: 0B"));
    assert_eq!(fleet.says(&["volume", "ls", "-q"]).lines().count(), 2);
    assert_eq!(fleet.says(&["ps", "-aq", "--no-trunc", "--filter", "volume=data"]), id);
    // -v takes the anonymous one along, never the named one
    fleet.says(&["rm", "-v", "c1"]);
    assert_eq!(fleet.says(&["volume", "ls", "-q"]), "data");
    fleet.says(&["volume", "rm", "data"]);
}

#[test]
fn anonymous_volumes_go_with_a_container_that_removes_itself() {
    let fleet = fleet();
    fleet.shell(&["-v", "/anon", "-v", "kept:/k"], "touch /anon/x /k/x").ok();
    assert_eq!(fleet.says(&["volume", "ls", "-q"]), "kept");
    fleet.space.rbuild(["run", "--name", "stays", "-v", "/anon", "busybox", "touch", "/anon/x"]).ok();
    assert_eq!(fleet.says(&["volume", "ls", "-q"]).lines().count(), 2);
    let volume = fleet.says(&["volume", "ls", "-q", "-f", "dangling=false"]);
    assert!(fleet.space.store().join("volumes").join(volume).join("_data/x").exists());
}

#[test]
fn mounts_are_taken_over_from_other_containers() {
    let fleet = fleet();
    let host = fleet.space.mkdir("host");
    let bind = format!("{}:/h", host.display());
    fleet
        .space
        .rbuild(["run", "--name", "first", "-v", "data:/d", "-v", &bind, "busybox", "touch", "/d/x", "/h/y"])
        .ok();
    assert_eq!(fleet.shell(&["--volumes-from", "first"], "ls /d /h").ok().stdout, "/d:\nx\n\n/h:\ny\n");
    let done = fleet.shell(&["--volumes-from", "first:ro"], "touch /d/z");
    assert!(!done.status.success() && done.stderr.contains("Read-only"), "{done}");
    fleet.shell(&["--volumes-from", "nobody"], "true").refuses(125, &["nobody"]);
}

#[test]
fn a_part_of_a_volume_is_mounted() {
    let fleet = fleet();
    fleet.shell(&["-v", "data:/d"], "mkdir -p /d/a/b && echo deep > /d/a/b/file && ln -s /etc /d/evil").ok();
    let flags = ["--mount", "type=volume,src=data,dst=/part,volume-subpath=a/b"];
    assert_eq!(fleet.shell(&flags, "cat /part/file").ok().stdout, "deep\n");
    let flags = ["--mount", "src=data,dst=/part,volume-subpath=none"];
    assert!(!fleet.shell(&flags, "true").status.success());
    // a link in the volume stays in it
    let flags = ["--mount", "src=data,dst=/part,volume-subpath=evil"];
    let done = fleet.shell(&flags, "cat /part/hostname");
    assert!(!done.status.success(), "{done}");
    let flags = ["--mount", "src=new,dst=/n,volume-label=k=v"];
    fleet.shell(&flags, "true").ok();
    assert_eq!(fleet.says(&["volume", "ls", "-q", "-f", "label=k=v"]), "new");
}

#[test]
fn a_volume_may_be_kept_elsewhere() {
    let fleet = fleet();
    let host = fleet.space.mkdir("elsewhere");
    let device = format!("device={}", host.display());
    fleet.says(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "there"]);
    fleet.shell(&["-v", "there:/t"], "echo hello > /t/file").ok();
    assert_eq!(fs::read_to_string(host.join("file")).unwrap(), "hello\n");
    fleet.says(&["volume", "rm", "there"]);
    assert!(host.join("file").exists());
    fleet.says(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "memory"]);
    let said = fleet.shell(&["-v", "memory:/m"], "grep ' /m ' /proc/mounts").ok().stdout;
    assert!(said.contains("tmpfs") && said.contains("size=1024k"), "{said}");
}

#[test]
fn an_ordinary_user_has_volumes() {
    let Some(space) = TestSpace::rootless() else { return };
    let fleet = Fleet::new(space);
    fleet.says(&["volume", "create", "data"]);
    fleet.shell(&["-v", "data:/d", "-v", "/anon"], "echo mine > /d/file && chown 12:34 /d/file").ok();
    let said = fleet.shell(&["-v", "data:/d:ro"], "cat /d/file; stat -c %u:%g /d/file").ok().stdout;
    assert_eq!(said, "mine\n12:34\n");
    assert_eq!(fleet.says(&["volume", "ls", "-q"]), "data");
    fleet.says(&["volume", "rm", "data"]);
}

/// What the host mounts below a bound directory while the container runs.
#[test]
fn mounts_of_the_host_come_along_as_asked() {
    if !common::root_or_skip() {
        return;
    }
    let fleet = fleet();
    let host = fleet.space.mkdir("host");
    fleet.space.mkdir("host/early");
    fleet.space.mkdir("host/late");
    let text = host.display().to_string();
    let mount = |args: &[&str]| fleet.space.run_tool("mount", args).ok();
    mount(&["--bind", &text, &text]);
    mount(&["--make-shared", &text]);
    mount(&["-t", "tmpfs", "early", &format!("{text}/early")]);
    fs::write(host.join("early/file"), "").unwrap();
    for (name, options) in [
        ("private", "dst=/h"),
        ("slave", "dst=/h,bind-propagation=rslave"),
        ("alone", "dst=/h,bind-recursive=disabled"),
    ] {
        let spec = format!("type=bind,src={text},{options}");
        fleet.start(name, &["--network", "none", "--mount", &spec], &["busybox", "sleep", "3600"]);
    }
    fleet.start(
        "short",
        &["--network", "none", "-v", &format!("{text}:/h:ro,rslave")],
        &["busybox", "sleep", "3600"],
    );
    mount(&["-t", "tmpfs", "late", &format!("{text}/late")]);
    fs::write(host.join("late/file"), "").unwrap();
    let sees = |name: &str| fleet.says(&["exec", name, "sh", "-c", "cd /h && ls -d */file | tr '\n' ' '"]);
    let seen = ["private", "slave", "alone", "short"].map(sees);
    let plain = fleet.space.mkdir("plain").display().to_string();
    let refused: Vec<_> = [("rshared", "shared mount"), ("rslave", "shared or slave mount")]
        .into_iter()
        .map(|(word, kind)| {
            let bound = fleet.space.run_tool("mount", ["--bind", &plain, &plain]).ok();
            mount(&["--make-private", &plain]);
            let said = fleet.shell(&["-v", &format!("{plain}:/h:{word}")], "true");
            let _ = fleet.space.run_tool("umount", [&plain]);
            drop(bound);
            (said, format!("path {plain} is mounted on {plain} but it is not a {kind}"))
        })
        .collect();
    // the other way round: what the container mounts, the host sees
    let inside = "mkdir /h/theirs && mount -t tmpfs theirs /h/theirs && echo inside > /h/theirs/file && cat /h/late/file";
    let shared = fleet.shell(&["--cap-add", "SYS_ADMIN", "-v", &format!("{text}:/h:rshared")], inside);
    let theirs = fs::read_to_string(host.join("theirs/file"));
    let described = fleet.says(&[
        "create",
        "--name",
        "kept",
        "--mount",
        &format!("type=bind,src={text},dst=/h,bind-propagation=shared"),
        "busybox",
        "true",
    ]);
    let word = fleet.says(&["inspect", "-f", "{{(index .Mounts 0).Propagation}}", &described]);
    let _ = fleet.space.run_tool("umount", ["-R", text.as_str()]);
    shared.ok();
    assert_eq!((theirs.unwrap_or_default().as_str(), word.as_str()), ("inside\n", "shared"));
    for (said, why) in refused {
        said.refuses(125, &[&why]);
    }
    assert_eq!(
        seen,
        ["early/file ", "early/file late/file ", "", "early/file late/file "].map(str::trim_end)
    );
}

/// A read-only bind whose mounts below stay writable, and one where they do not.
#[test]
fn a_read_only_bind_is_deep_or_shallow() {
    if !common::root_or_skip() {
        return;
    }
    let fleet = fleet();
    let host = fleet.space.mkdir("host");
    let below = fleet.space.mkdir("host/below").display().to_string();
    fleet.space.run_tool("mount", ["-t", "tmpfs", "below", &below]).ok();
    let said = ["enabled", "writable", "readonly,bind-propagation=rprivate"].map(|how| {
        let spec = format!("type=bind,src={},dst=/h,readonly,bind-recursive={how}", host.display());
        fleet.shell(
            &["--network", "none", "--mount", &spec],
            "touch /h/x 2> /dev/null && echo top; touch /h/below/x 2> /dev/null && echo below; true",
        )
    });
    let _ = fleet.space.run_tool("umount", [&below]);
    assert_eq!(said.map(|done| done.ok().stdout), ["", "below\n", ""]);
}

/// The files of an image in a container of another: read-only, in part, and there as long as the container is.
#[test]
fn an_image_is_mounted() {
    for space in [Some(TestSpace::new()), TestSpace::rootless()].into_iter().flatten() {
        let space = space.with_busybox();
        let text = "FROM busybox\nRUN mkdir -p /data/sub && echo one > /data/file && ln -s /data/file /link\n\
            RUN rm /data/file && echo two > /data/sub/file && chown 7:8 /data/sub/file\nRUN echo three > /data/three\n";
        space.build_text("files", text);
        let run = |specs: &[&str], script: &str| {
            let mut args = vec!["run", "--rm", "--network", "none"];
            specs.iter().for_each(|spec| args.extend(["--mount", spec]));
            args.extend(["busybox", "sh", "-c", script]);
            space.rbuild(args)
        };
        let look = "cat /i/data/sub/file; stat -c %u:%g /i/data/sub/file; ls /i/data; touch /i/x 2>&1 | grep -o Read-only; ls /s; cat /f";
        let specs = [
            "type=image,source=files,target=/i",
            "type=image,src=files,dst=/s,image-subpath=data/sub",
            "type=image,src=files,dst=/f,image-subpath=data/three",
        ];
        assert_eq!(run(&specs, look).ok().stdout, "two\n7:8\nsub\nthree\nRead-only\nfile\nthree\n");
        run(&["type=image,source=files,target=/i,image-subpath=no/such"], "true").refuses(125, &["no/such"]);
        run(&["type=image,target=/i"], "true").refuses(125, &["source is required"]);
        let missing =
            ["run", "--rm", "--pull", "never", "--mount", "type=image,src=nobody,dst=/i", "busybox", "true"];
        space.rbuild(missing).refuses(125, &["Unable to find image 'nobody:latest' locally"]);

        // the container needs the image, and keeps its files when the image goes by force
        let says = |args: &[&str]| space.rbuild(args).ok().stdout.trim_end().to_owned();
        let id = says(&["images", "-q", "--no-trunc", "files"]);
        let kept = ["create", "--name", "kept", "--mount", specs[0], "busybox", "cat", "/i/data/three"];
        says(&kept);
        let mounts: Value =
            serde_json::from_str(&says(&["inspect", "-f", "{{json .Mounts}}", "kept"])).unwrap();
        let want = serde_json::json!([{ "Type": "image", "Name": "files", "Source": id, "Destination": "/i",
            "Mode": "", "RW": false, "Propagation": "rprivate" }]);
        assert_eq!(mounts, want);
        assert_eq!(says(&["ps", "-a", "--format", "{{.Mounts}}"]), "files");
        space.rbuild(["rmi", "files"]).refuses(1, &["container kept uses it"]);
        says(&["image", "prune", "-af"]);
        assert_eq!(says(&["images", "-q", "--no-trunc", "files"]), id);
        says(&["rmi", "-f", "files"]);
        says(&["image", "prune", "-af"]);
        says(&["builder", "prune", "-af"]);
        assert_eq!(says(&["start", "-a", "kept"]), "three");
        assert!(says(&["cp", "kept:/i/data/sub/file", "-"]).contains("two"));
        says(&["rm", "kept"]);
        says(&["system", "prune", "-af"]);
        assert_eq!(fs::read_dir(space.store().join("snapshots")).unwrap().count(), 0);
    }
}

/// A container that is being made counts as a user of its volumes before anybody can see it.
#[test]
fn a_volume_is_not_removed_under_a_container_that_is_being_made() {
    let fleet = fleet();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let remover = scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                // in use, or not there, or gone
                fleet.space.rbuild(["volume", "rm", "race"]);
            }
        });
        for _ in 0..12 {
            let done =
                fleet.shell(&["--network", "none", "-v", "race:/d"], "echo x > /d/file && cat /d/file");
            if !done.status.success() {
                over.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            assert_eq!(done.ok().stdout, "x\n");
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        remover.join().unwrap();
    });
}
