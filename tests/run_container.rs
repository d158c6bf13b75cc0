//! What a container of `rbuild run` is made of: volumes, memory file systems, rights, limits, names.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fs;

use common::{Done, TestSpace, is_root, root_or_skip};

/// Runs `run --rm --network none FLAGS... IMAGE sh -c SCRIPT`.
fn shell_in(space: &TestSpace, flags: &[&str], image: &str, script: &str) -> Done {
    let mut args = vec!["run", "--rm", "--network", "none"];
    args.extend(flags);
    args.extend([image, "sh", "-c", script]);
    space.rbuild(args)
}

fn shell(space: &TestSpace, flags: &[&str], script: &str) -> Done {
    shell_in(space, flags, "busybox", script)
}

/// An image `app` with files below `/data`, which it declares a volume.
fn with_volume(space: &TestSpace) {
    space.build_text(
        "app",
        "FROM busybox\n\
         RUN mkdir -p /data/sub && echo from image > /data/sub/file && ln -s sub/file /data/link \
         && ln /data/sub/file /data/sub/twin && chown 12:34 /data/sub/file && chmod 4750 /data/sub/file \
         && chown 56:78 /data && chmod 1777 /data && touch -d '2001-02-03 04:05:06' /data/sub\n\
         VOLUME /data\n",
    );
}

#[test]
fn a_new_volume_starts_with_what_the_image_has() {
    let space = TestSpace::new().with_busybox();
    with_volume(&space);
    let look = "cat /data/link; stat -c '%a %u:%g %h' /data/sub/file; stat -c '%a %u:%g' /data; stat -c %Y /data/sub";
    let wanted = "from image\n4750 12:34 2\n1777 56:78\n981173106\n";
    for flags in [&["-v", "vol:/data"][..], &["-v", "/data"], &["--mount", "src=other,dst=/data"], &[]] {
        assert_eq!(shell_in(&space, flags, "app", look).ok().stdout, wanted, "{flags:?}");
    }
    let done = shell_in(&space, &["-v", "empty:/data:nocopy"], "app", "ls -A /data; stat -c %a /data");
    assert_eq!(done.ok().stdout, "755\n");
    // One that the container may not see gets nothing, and one that is not empty stays as it is.
    shell_in(&space, &["-v", "vol:/data"], "app", "echo mine > /data/sub/file; rm /data/link").ok();
    let done =
        shell_in(&space, &["-v", "vol:/data:ro"], "app", "cat /data/sub/file; ls /data; ! touch /data/x");
    assert_eq!(done.ok().stdout, "mine\nsub\n");
    let done = shell(&space, &["-v", "vol:/elsewhere"], "cat /elsewhere/sub/file");
    assert_eq!(done.ok().stdout, "mine\n");
    // One that is still empty is filled in place, since another container may have it.
    let place = space.store().join("volumes/empty/_data");
    let before = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&place).unwrap());
    assert_eq!(shell_in(&space, &["-v", "empty:/data"], "app", look).ok().stdout, wanted);
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&fs::metadata(&place).unwrap()), before);
    // The image itself has not changed by all this.
    assert_eq!(shell_in(&space, &["-v", "fresh:/data"], "app", look).ok().stdout, wanted);
}

#[test]
fn an_ordinary_user_has_volumes_with_the_owners_of_the_image() {
    let Some(space) = TestSpace::rootless() else { return };
    let space = space.with_busybox();
    with_volume(&space);
    let look = "stat -c '%a %u:%g' /data/sub/file; stat -c '%a %u:%g' /data";
    for flags in [&["-v", "vol:/data"][..], &["-v", "vol:/data"], &[]] {
        assert_eq!(shell_in(&space, flags, "app", look).ok().stdout, "4750 12:34\n1777 56:78\n", "{flags:?}");
    }
    // Files of the host belong to the user, who is root inside.
    shell(&space, &["-v", "./made:/host"], "touch /host/x; stat -c %u /host/x | grep -qx 0").ok();
    let (dir, file) =
        (fs::metadata(space.path("home")).unwrap(), fs::metadata(space.path("made/x")).unwrap());
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&file), std::os::unix::fs::MetadataExt::uid(&dir));
}

#[test]
fn volumes_of_a_container_go_with_it_and_named_ones_stay() {
    let space = TestSpace::new().with_busybox();
    with_volume(&space);
    shell_in(&space, &["-v", "vol:/keep", "-v", "/more"], "app", "touch /data/x /more/x /keep/x").ok();
    assert_eq!(fs::read_dir(space.store().join("tmp")).unwrap().count(), 0);
    let names: Vec<_> = fs::read_dir(space.store().join("volumes")).unwrap().flatten().collect();
    assert_eq!(names.len(), 1);
    assert!(names[0].path().join("_data/x").exists());
}

#[test]
fn a_read_only_root_leaves_volumes_and_memory_writable() {
    let space = TestSpace::new().with_busybox();
    with_volume(&space);
    let script = "touch /data/x /t/x && ! touch /x && ! touch /etc/hosts && df /t | grep -q ^tmpfs";
    shell_in(&space, &["--read-only", "--tmpfs", "/t"], "app", script).ok();
}

#[test]
fn memory_file_systems_have_their_options() {
    let space = TestSpace::new().with_busybox();
    let flags = [
        "--tmpfs",
        "/a",
        "--tmpfs",
        "/b:size=1m,mode=0710,uid=3,gid=4,exec",
        "--mount",
        "type=tmpfs,dst=/c,tmpfs-size=64k",
    ];
    let script = "grep -E ' /[abc] ' /proc/mounts | cut -d' ' -f2-4; stat -c '%a %u:%g' /a /b; \
                  cp /bin/busybox /b/sh 2>&1 | grep -c 'No space'; cp /bin/busybox /a/true; /a/true 2>&1";
    let said = shell(&space, &flags, script).stdout;
    let line = |start: &str| said.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    for word in ["nosuid", "nodev", "noexec"] {
        assert!(line("/a tmpfs").contains(word), "{said}");
    }
    assert!(!line("/b tmpfs").contains("noexec") && line("/b tmpfs").contains("size=1024k"), "{said}");
    assert!(line("/c tmpfs").contains("size=64k"), "{said}");
    assert!(said.contains("1777 0:0\n710 3:4\n1\n") && said.contains("Permission denied"), "{said}");
}

#[test]
fn wrong_mounts_are_refused_before_anything_runs() {
    let space = TestSpace::new().with_busybox();
    for (flag, value, word) in [
        ("-v", "a:/b:c:d", "three parts"),
        ("-v", "/h:/c:what", "unknown option"),
        ("-v", "no/name:/c", "volume name"),
        ("--mount", "type=bind,src=/does/not/exist,dst=/c", "/does/not/exist"),
        ("--mount", "type=what,dst=/c", "what"),
        ("--tmpfs", "relative", "absolute"),
    ] {
        shell(&space, &[flag, value], "echo ran").refuses(125, &[word]);
    }
    shell(&space, &["-v", "a1:/c", "-v", "b1:/c/"], "true").refuses(125, &["duplicate mount point"]);
}

#[test]
fn rights_are_dockers_unless_changed() {
    let space = TestSpace::new().with_busybox();
    let status = |flags: &[&str]| {
        let script = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t' | tr '\\n' ' '";
        shell(&space, flags, script).ok().stdout
    };
    assert_eq!(status(&[]), "CapEff:00000000a80425fb NoNewPrivs:0 Seccomp:2 ");
    assert_eq!(status(&["--cap-drop", "ALL"]), "CapEff:0000000000000000 NoNewPrivs:0 Seccomp:2 ");
    assert_eq!(
        status(&["--cap-drop", "all", "--cap-add", "CAP_CHOWN"]),
        "CapEff:0000000000000001 NoNewPrivs:0 Seccomp:2 "
    );
    assert!(status(&["--security-opt", "no-new-privileges"]).contains("NoNewPrivs:1"));
    assert!(status(&["--security-opt=seccomp=unconfined"]).contains("Seccomp:0"));
    let privileged = status(&["--privileged"]);
    assert!(privileged.contains("Seccomp:0") && !privileged.contains("a80425fb"), "{privileged}");
    shell(&space, &["--cap-add", "NOPE"], "true").refuses(125, &["NOPE"]);
    shell(&space, &["--security-opt", "what=x"], "true").refuses(125, &["what=x"]);
}

#[test]
fn the_devices_of_the_machine_cannot_be_changed() {
    use std::os::unix::fs::MetadataExt;
    let space = TestSpace::new().with_busybox();
    let look = || fs::metadata("/dev/null").map(|m| (m.mode(), m.uid(), m.ctime(), m.ctime_nsec())).unwrap();
    let before = look();
    // The owner that it has: a chown that works shows in the time of the change, and does no harm.
    let change = |path: &str| {
        format!("chown 0:0 {path} 2>&1 && echo changed; echo x > /dev/null && head -c 2 /dev/zero | wc -c")
    };
    // What hides a file of /proc is that device, too.
    for (flags, path) in [(&[][..], "/dev/null"), (&[], "/proc/interrupts"), (&["--privileged"], "/dev/null")]
    {
        // it may work, as with docker: then it is the container's own node
        let said = shell(&space, flags, &change(path)).ok().stdout;
        assert!(said.ends_with("\n2\n"), "{flags:?} {path}: {said}");
        assert_eq!(look(), before, "{flags:?} {path}");
    }
}

#[test]
fn limits_hold() {
    let space = TestSpace::new().with_busybox();
    let done = shell(
        &space,
        &["--ulimit", "nofile=100:200", "--ulimit", "core=0"],
        "ulimit -Sn; ulimit -Hn; ulimit -c",
    );
    assert_eq!(done.ok().stdout, "100\n200\n0\n");
    let done = shell(&space, &["--shm-size", "1m"], "df -k /dev/shm | tail -1 | awk '{ print $2 }'");
    assert_eq!(done.ok().stdout, "1024\n");
    assert_eq!(shell(&space, &["--group-add", "mail", "--group-add", "77"], "id -G").ok().stdout, "0 8 77\n");
    let done = shell(&space, &["--sysctl", "net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward");
    assert_eq!(done.ok().stdout, "1\n");
    if !root_or_skip() {
        return;
    }
    // Where there is no controller to set it with, a limit is an error and never ignored.
    let done = shell(&space, &["-m", "8m"], "tail /dev/zero");
    match done.status.code() {
        Some(125) => assert!(done.stderr.contains("cannot limit"), "{done}"),
        code => assert_eq!(code, Some(137), "{done}"),
    }
}

#[test]
fn an_init_stands_before_the_program() {
    let space = TestSpace::new().with_busybox();
    assert_eq!(shell(&space, &[], "echo $$").ok().stdout, "1\n");
    assert_ne!(shell(&space, &["--init"], "echo $$; exit 0").ok().stdout, "1\n");
    shell(&space, &["--init"], "exit 9").code(9);
    shell(&space, &["--init"], "kill -9 $$").code(137);
}

#[test]
fn a_container_has_a_name_inside() {
    let space = TestSpace::new().with_busybox();
    let said = shell(&space, &[], "hostname; echo $HOSTNAME; cat /etc/hostname").ok().stdout;
    let names: Vec<&str> = said.lines().collect();
    assert!(names.len() == 3 && names.iter().all(|name| *name == names[0]), "{said}");
    assert!(names[0].len() == 12 && names[0].bytes().all(|c| c.is_ascii_hexdigit()), "{said}");
    let done =
        shell(&space, &["-h", "box", "--add-host", "db:10.1.2.3"], "hostname; grep -E 'box|db' /etc/hosts");
    assert_eq!(done.ok().stdout, "box\n10.1.2.3\tdb\n");
    let done = shell(&space, &["--dns", "192.0.2.7"], "grep nameserver /etc/resolv.conf");
    assert_eq!(done.ok().stdout, "nameserver 192.0.2.7\n");
    let args =
        ["run", "--rm", "--network", "host", "--add-host", "up:host-gateway", "busybox", "cat", "/etc/hosts"];
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    assert_eq!(space.rbuild(args).ok().stdout.replace("127.0.0.1\tup\n", "").trim_end(), hosts.trim_end());
    shell(&space, &["-h", &"x".repeat(65)], "true").refuses(125, &["64 bytes"]);
}

#[test]
fn the_id_is_written_to_a_new_file() {
    let space = TestSpace::new().with_busybox();
    let flags = ["--cidfile", "cid"];
    let host = shell(&space, &flags, "hostname").ok().stdout;
    let id = fs::read_to_string(space.path("cid")).unwrap();
    assert!(id.len() == 64 && id.starts_with(host.trim()), "{id} {host}");
    shell(&space, &flags, "true").refuses(125, &["cid", "exists"]);
}

#[test]
fn what_is_not_available_is_refused_by_name() {
    let space = TestSpace::new().with_busybox();
    for (flags, words) in [
        (&["--restart", "sometimes"][..], &["--restart", "unless-stopped"][..]),
        (&["--restart", "always"], &["--restart and --rm"]),
        (&["--pid", "its"], &["--pid", "not available"]),
        (&["--pid", "container:x"], &["No such container: x"]),
        (&["--log-driver", "syslog"], &["json-file"]),
        (&["--gpus", "all"], &["--gpus"]),
        (&["--platform", "linux/s390x", "--pull", "never"], &["linux/s390x", "platform"]),
    ] {
        shell(&space, flags, "echo ran").refuses(125, words);
    }
    shell(&space, &["--pull", "never"], "true").ok();
    space
        .rbuild(["run", "--rm", "--pull", "never", "busybux", "true"])
        .refuses(125, &["Unable to find image 'busybux:latest' locally"]);
}

#[test]
fn info_says_what_is_there_and_what_is_missing() {
    let space = TestSpace::new();
    let text = space.rbuild(["info"]).ok().stdout;
    let store = space.store().display().to_string();
    for word in [
        "Version",
        "Rootless",
        "Snapshotter",
        "Private network",
        "Cgroups",
        "Seccomp",
        "Kernel",
        "Missing",
        &store,
    ] {
        assert!(text.contains(word), "no {word} in\n{text}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&space.rbuild(["info", "--format", "json"]).ok().stdout).unwrap();
    assert_eq!(json["root"], store);
    assert_eq!(json["rootless"].is_null(), is_root());
    assert!(
        json["missing"].as_array().unwrap().iter().all(|m| !m["remedy"].as_str().unwrap().is_empty()),
        "{json}"
    );
    let version = space.rbuild(["version"]).ok().stdout;
    assert!(version.starts_with(concat!("rbuild ", env!("CARGO_PKG_VERSION"))), "{version}");
}

/// As root and as an ordinary user, whose containers share a user namespace for it.
#[test]
fn process_ids_and_memory_of_another_container_are_shared() {
    for space in [Some(TestSpace::new()), TestSpace::rootless()].into_iter().flatten() {
        let space = space.with_busybox();
        let start = |name: &str, flags: &[&str]| {
            let args = ["run", "-d", "--network", "none", "--name", name];
            space.rbuild([&args, flags, &["busybox", "sleep", "3600"]].concat()).ok();
        };
        let says = |flags: &[&str], script: &str| {
            let args = ["run", "--rm", "--network", "none"];
            space.rbuild([&args, flags, &["busybox", "sh", "-c", script]].concat()).ok().stdout
        };
        start("one", &["--ipc", "shareable"]);
        let own = says(&[], "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc");
        let of = |kind: &str| {
            space.rbuild(["exec", "one", "readlink", &format!("/proc/self/ns/{kind}")]).ok().stdout
        };
        assert!(!own.contains(&of("pid")) && !own.contains(&of("ipc")), "{own}");
        assert_eq!(says(&["--pid", "container:one"], "readlink /proc/self/ns/pid"), of("pid"));
        assert!(says(&["--pid", "container:one"], "ps").contains("sleep 3600"));
        space.rbuild(["exec", "one", "sh", "-c", "echo shared > /dev/shm/note"]).ok();
        let both = ["--ipc", "container:one", "--pid", "container:one"];
        assert_eq!(
            says(&both, "cat /dev/shm/note; readlink /proc/self/ns/ipc"),
            format!("shared\n{}", of("ipc"))
        );
        // each has its own end
        start("two", &["--pid", "container:one"]);
        assert_eq!(
            space.rbuild(["inspect", "-f", "{{.HostConfig.PidMode}}", "two"]).ok().stdout,
            "container:one\n"
        );
        space.rbuild(["stop", "two"]).ok();
        let code = space.rbuild(["inspect", "-f", "{{.State.ExitCode}}", "two"]).ok().stdout;
        assert_eq!(code, "143\n", "it is no process 1, so it hears SIGTERM");
        assert!(!of("pid").is_empty());
        space.rbuild(["stop", "-t", "0", "one"]).ok();
        space.rbuild(["start", "two"]).refuses(1, &["cannot join PID of a non running container"]);
        let gone = ["run", "--rm", "--ipc", "container:nobody", "busybox", "true"];
        space.rbuild(gone).refuses(125, &["nobody"]);
    }
}

/// What `--ipc`, `--cgroupns` and `systempaths` leave and take away.
#[test]
fn parts_of_the_isolation_are_left_out() {
    for space in [Some(TestSpace::new()), TestSpace::rootless()].into_iter().flatten() {
        let space = space.with_busybox();
        let mounts = |flags: &[&str]| shell(&space, flags, "cut -d' ' -f5 /proc/self/mountinfo").ok().stdout;
        let has = |flags: &[&str], path: &str| mounts(flags).lines().any(|line| line == path);
        assert!(has(&[], "/dev/shm") && has(&["--ipc", "shareable"], "/dev/shm"));
        assert!(!has(&["--ipc", "none"], "/dev/shm") && has(&["--ipc", "none"], "/dev/mqueue"));
        let none = [
            "run",
            "-d",
            "--name",
            "closed",
            "--network",
            "none",
            "--ipc",
            "none",
            "busybox",
            "sleep",
            "3600",
        ];
        space.rbuild(none).ok();
        shell(&space, &["--ipc", "container:closed"], "true").refuses(125, &["non-shareable IPC"]);
        let says = |args: &[&str]| space.rbuild(args).ok().stdout.trim_end().to_owned();
        assert_eq!(says(&["inspect", "-f", "{{.HostConfig.IpcMode}}", "closed"]), "none");
        space.rbuild(["rm", "-f", "closed"]).ok();
        let cgroup = |flags: &[&str]| shell(&space, flags, "readlink /proc/self/ns/cgroup").ok().stdout;
        let hosts = format!("{}\n", fs::read_link("/proc/self/ns/cgroup").unwrap().display());
        assert_ne!(cgroup(&[]), hosts);
        assert_eq!(cgroup(&["--cgroupns", "host"]), hosts);
        let hidden = |flags: &[&str]| {
            shell(
                &space,
                flags,
                "wc -c < /proc/interrupts; touch /proc/sys/kernel/domainname 2>&1 | grep -o Read-only; true",
            )
            .ok()
            .stdout
        };
        assert_eq!(hidden(&[]), "0\nRead-only\n");
        let bare = hidden(&["--security-opt", "systempaths=unconfined"]);
        assert!(!bare.starts_with("0\n") && !bare.contains("Read-only"), "{bare}");
        space
            .rbuild([
                "create",
                "--name",
                "bare",
                "--security-opt",
                "systempaths=unconfined",
                "--security-opt",
                "label=level:s0",
                "busybox",
            ])
            .ok();
        assert_eq!(says(&["inspect", "-f", "{{.HostConfig.SecurityOpt}}", "bare"]), "[label=level:s0]");
        // without AppArmor a profile is of no consequence, as for docker; with it, it must be there
        let enabled =
            fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"));
        let done = shell(&space, &["--security-opt", "apparmor=no-such-profile"], "echo ran");
        match enabled {
            true => drop(done.refuses(125, &["no-such-profile", "apparmor_parser"])),
            false => assert_eq!(done.ok().stdout, "ran\n"),
        }
        for (option, why) in [
            ("systempaths=what", "systempaths=what"),
            ("apparmor=", "invalid --security-opt"),
            ("label", "label"),
        ] {
            shell(&space, &["--security-opt", option], "true").refuses(125, &[why]);
        }
    }
}

#[test]
fn a_filter_of_ones_own_decides_what_is_allowed() {
    for space in [Some(TestSpace::new()), TestSpace::rootless()].into_iter().flatten() {
        let space = space.with_busybox();
        let file = space.write(
            "profile.json",
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"], "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
                {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}]}"#,
        );
        let own = format!("seccomp={}", file.display());
        let run = |option: &str, script: &str| {
            let args =
                ["run", "--rm", "--network", "none", "--security-opt", option, "busybox", "sh", "-c", script];
            space.rbuild(args)
        };
        run(&own, "mkdir /x").refuses(1, &["No space left on device"]);
        run(&own, "sleep 9 & kill -USR1 $!").refuses(1, &["not permitted"]);
        run(&own, "sleep 9 & kill -USR2 $!").ok();
        run("seccomp=unconfined", "mkdir /x").ok();
        run("seccomp=/no/such/file", "true").refuses(125, &["/no/such/file", "No such file"]);
        let bad = space.write("bad.json", r#"{"defaultAction": "SCMP_ACT_DANCE"}"#);
        run(&format!("seccomp={}", bad.display()), "true").refuses(125, &["SCMP_ACT_DANCE"]);
        run("apparmor=unconfined", "true").ok();
    }
}

/// A device of the machine that no container may use unasked and that can be opened without consequences.
fn spare_device() -> Option<(&'static str, String)> {
    use std::os::unix::fs::MetadataExt;
    ["/dev/fuse", "/dev/loop-control", "/dev/hwrng", "/dev/rtc0"].into_iter().find_map(|path| {
        let device = fs::metadata(path).ok()?.rdev();
        Some((path, format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))))
    })
}

/// Nodes work as in docker, in containers and in steps: what debootstrap tries first, and a node of an image.
#[test]
fn nodes_that_are_made_work() {
    if !common::guards_devices() {
        common::skip("device nodes cannot be guarded here");
        return;
    }
    let space = TestSpace::new().with_busybox();
    let debootstraps = "mknod /tmp/n c 1 3 && echo x > /tmp/n && rm /tmp/n && mknod /dev/more c 1 5 && head -c 3 /dev/more | wc -c";
    assert_eq!(shell(&space, &[], debootstraps).ok().stdout, "3\n");
    space.build_text("nodes", &format!("FROM busybox\nRUN {debootstraps}\nRUN mknod /null c 1 3 && mknod /disk b 4095 1\n\
        RUN echo x > /null && ! head -c 1 /disk 2> /said && grep 'not permitted' /said\nRUN --mount=type=cache,target=/c mknod /c/n c 1 3 && echo x > /c/n\n"));
    let said = shell_in(
        &space,
        &[],
        "nodes",
        "echo x > /null && echo wrote; head -c 1 /disk 2>&1 | grep -o 'not permitted'",
    );
    assert_eq!(said.ok().stdout, "wrote\nnot permitted\n");
    let volume = space.mkdir("volume").display().to_string();
    shell(
        &space,
        &["-v", &format!("{volume}:/v")],
        "mknod /v/n c 1 7 && ! echo x > /v/n 2> /said && grep 'No space' /said",
    )
    .ok();
}

/// What `--device` and `--device-cgroup-rule` allow, and no more.
#[test]
fn devices_are_used_as_far_as_the_flags_say() {
    let space = TestSpace::new().with_busybox();
    for (flag, value, why) in [
        ("--device-cgroup-rule", "c 1 r", "invalid device cgroup rule format: 'c 1 r'"),
        (
            "--device",
            "/no/such/device",
            "error gathering device information while adding custom device \"/no/such/device\": no such file",
        ),
        ("--device", "/proc/version:/dev/v", "not a device node"),
    ] {
        shell(&space, &[flag, value], "true").refuses(125, &[why]);
    }
    let Some((path, numbers)) = spare_device().filter(|_| common::guards_devices()) else {
        common::skip("device nodes cannot be guarded here, or there is none to try");
        return;
    };
    let tries = |node: &str| {
        format!("exec 2> /dev/null; (exec 3< {node}) && echo reads; (exec 3>> {node}) && echo writes; true")
    };
    let says = |flags: &[&str], script: &str| shell(&space, flags, script).ok().stdout;
    assert_eq!(says(&["--device", &format!("{path}:/dev/x")], &tries("/dev/x")), "reads\nwrites\n");
    assert_eq!(says(&["--device", &format!("{path}:/dev/x:r")], &tries("/dev/x")), "reads\n");
    assert_eq!(says(&["--device", &format!("{path}:/dev/sub/x:w")], &tries("/dev/sub/x")), "writes\n");
    let made = format!("mknod /x c {} && {}", numbers.replace(':', " "), tries("/x"));
    assert_eq!(says(&[], &made), "");
    assert_eq!(says(&["--device-cgroup-rule", &format!("c {numbers} r")], &made), "reads\n");
    assert_eq!(says(&["--device-cgroup-rule", "a *:* rwm"], &made), "reads\nwrites\n");
    assert_eq!(says(&["--privileged"], &made), "reads\nwrites\n");
    // a directory stands for the nodes in it
    let dir = space.mkdir("devices");
    space
        .run_tool(
            "mknod",
            [
                dir.join("one").to_str().unwrap(),
                "c",
                numbers.split(':').next().unwrap(),
                numbers.split(':').nth(1).unwrap(),
            ],
        )
        .ok();
    assert_eq!(
        says(&["--device", &format!("{}:/dev/dir:r", dir.display())], &tries("/dev/dir/one")),
        "reads\n"
    );
    space.rbuild(["create", "--name", "box", "--device-cgroup-rule", "c 42:* rwm", "busybox"]).ok();
    let shown = space.rbuild(["inspect", "-f", "{{.HostConfig.DeviceCgroupRules}}", "box"]).ok().stdout;
    assert_eq!(shown, "[c 42:* rwm]\n");
}

/// Limits that few machines can set: set, or left out with docker's warning; never an error for that reason.
#[test]
fn rare_limits_are_set_or_said_to_be_left_out() {
    let space = TestSpace::new().with_busybox();
    for (flag, value, why) in [
        ("--memory-swappiness", "101", "Valid memory swappiness range is 0-100"),
        ("--blkio-weight-device", "/dev/null:5", "invalid weight for device: /dev/null:5"),
        ("--device-read-bps", "null:1mb", "bad format for device path: null:1mb"),
        ("--device-write-iops", "/dev/null:1mb", "invalid rate for device: /dev/null:1mb"),
        ("--cpu-period", "10", "CPU cfs period can not be less than 1ms"),
        ("--cpu-quota", "10", "CPU cfs quota can not be less than 1ms"),
    ] {
        shell(&space, &[flag, value], "true").refuses(125, &[why]);
    }
    let said = shell(&space, &["--kernel-memory", "64m"], "echo ran").ok();
    assert_eq!(said.stdout, "ran\n");
    assert!(said.stderr.contains("Flag --kernel-memory has been deprecated"), "{said}");
    let disk = fs::read_dir("/sys/block").ok().and_then(|dir| {
        let disks = dir.flatten().map(|entry| format!("/dev/{}", entry.file_name().display()));
        disks.filter(|path| fs::metadata(path).is_ok()).max()
    });
    let Some(disk) = disk.filter(|_| is_root()) else {
        common::skip("no disk, or not root");
        return;
    };
    let at = |value: &str| format!("{disk}:{value}");
    let (weighted, read, write) = (at("200"), at("1mb"), at("100"));
    let flags = [
        "--cpu-period",
        "50000",
        "--cpu-quota",
        "25000",
        "--memory-swappiness",
        "10",
        "-m",
        "64m",
        "--oom-kill-disable",
        "--blkio-weight",
        "300",
        "--blkio-weight-device",
        &weighted,
        "--device-read-bps",
        &read,
        "--device-write-iops",
        &write,
    ];
    let started = space.rbuild(
        [&["run", "-d", "--name", "box", "--network", "none"], &flags[..], &["busybox", "sleep", "3600"]]
            .concat(),
    );
    if started.status.code() == Some(125) && started.stderr.contains("cannot limit") {
        common::skip("this machine has no cgroups to limit with");
        return;
    }
    let started = started.ok();
    let state = space.store().join("containers").join(started.stdout.trim()).join("state.json");
    let dirs: serde_json::Value = serde_json::from_slice(&fs::read(state).unwrap()).unwrap();
    let file = |name: &str| {
        let dirs = dirs["cgroups"].as_array().unwrap().iter();
        let found = dirs
            .filter_map(|dir| fs::read_to_string(format!("{}/{name}", dir.as_str().unwrap())).ok())
            .collect::<Vec<_>>();
        found.concat()
    };
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata(&disk).unwrap().rdev();
    let numbers = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    for (one, two, words) in [
        (("cpu.cfs_quota_us", "25000".to_owned()), ("cpu.max", "25000 50000".to_owned()), "never"),
        (("memory.swappiness", "10".into()), ("-", String::new()), "Memory swappiness discarded"),
        (
            ("memory.oom_control", "oom_kill_disable 1".into()),
            ("-", String::new()),
            "OomKillDisable discarded",
        ),
        (("blkio.weight", "300".into()), ("io.weight", "default ".into()), "Weight discarded"),
        (
            ("blkio.weight_device", format!("{numbers} 200")),
            ("io.weight", format!("{numbers} ")),
            "Weight-device discarded",
        ),
        (
            ("blkio.throttle.read_bps_device", format!("{numbers} 1048576")),
            ("io.max", "rbps=1048576".into()),
            "BPS read limit discarded",
        ),
        (
            ("blkio.throttle.write_iops_device", format!("{numbers} 100")),
            ("io.max", "wiops=100".into()),
            "IOPS write limit discarded",
        ),
    ] {
        let set = file(one.0).contains(&one.1) || file(two.0).contains(&two.1) && two.0 != "-";
        let left_out = started.stderr.contains(words)
            && started.stderr.contains("WARNING: Your kernel does not support");
        assert!(set != left_out, "{} {} {}: {}", one.0, two.0, file(one.0), started.stderr);
    }
    let inspect = |what: &str| {
        space.rbuild(["inspect", "-f", &format!("{{{{.HostConfig.{what}}}}}"), "box"]).ok().stdout
    };
    assert_eq!(
        (inspect("CpuPeriod").as_str(), inspect("CpuQuota").as_str(), inspect("NanoCpus").as_str()),
        ("50000\n", "25000\n", "0\n")
    );
    space.rbuild(["update", "--cpu-quota", "30000", "--blkio-weight", "500", "box"]).ok();
    assert!(file("cpu.cfs_quota_us").contains("30000") || file("cpu.max").contains("30000 50000"));
    assert_eq!((inspect("CpuPeriod").as_str(), inspect("CpuQuota").as_str()), ("50000\n", "30000\n"));
    space.rbuild(["update", "--cpus", "1", "box"]).refuses(1, &["CPU Quota has already been set"]);
    space.rbuild(["rm", "-f", "box"]).ok();
}
