//! `rbuild run`: exit codes, streams, terminals, signals, and every flag that shapes the container.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use common::process::{Running, eventually, finish};
use common::{Done, TestSpace, is_root, root_or_skip, tools_or_skip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const MINUTE: Duration = Duration::from_secs(60);

/// Runs `run --rm --network none FLAGS... busybox COMMAND...`.
fn run(space: &TestSpace, flags: &[&str], command: &[&str]) -> Done {
    let mut args = vec!["run", "--rm", "--network", "none"];
    args.extend(flags);
    args.push("busybox");
    args.extend(command);
    space.rbuild(args)
}

fn shell(space: &TestSpace, flags: &[&str], script: &str) -> Done {
    run(space, flags, &["sh", "-c", script])
}

#[test]
fn exit_codes_are_dockers() {
    let space = TestSpace::new().with_busybox();
    run(&space, &[], &["true"]).ok();
    shell(&space, &[], "exit 3").code(3);
    shell(&space, &[], "exit 255").code(255);
    run(&space, &[], &["no-such-program"]).refuses(127, &["no-such-program"]);
    run(&space, &[], &["/no/such/program"]).refuses(127, &["/no/such/program"]);
    run(&space, &[], &["/etc/passwd"]).refuses(126, &["/etc/passwd", "permission denied"]);
    run(&space, &[], &["/etc"]).refuses(126, &["/etc"]);
    space.rbuild(["run", "--rm", "no-such-image"]).refuses(125, &["no-such-image"]);
    space.rbuild(["run", "--no-such-flag", "busybox"]).refuses(125, &["--no-such-flag"]);
    let bare = space.rbuild(["run"]);
    assert!(bare.status.code() != Some(0) && bare.stderr.to_lowercase().contains("image"), "{bare}");
    space.assert_nothing_runs();
}

#[test]
fn a_killed_process_ends_with_128_and_the_signal() {
    let space = TestSpace::new().with_busybox();
    if !root_or_skip() {
        return;
    }
    let mark = format!("5{}", std::process::id());
    let running =
        Running::start(&mut space.command(["run", "--rm", "--network", "none", "busybox", "sleep", &mark]));
    let line = format!("sleep\0{mark}\0");
    let find = || {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.find(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|seen| seen == line.as_bytes()))
    };
    eventually("the container's process", MINUTE, || find().is_some());
    kill(Pid::from_raw(find().unwrap()), Signal::SIGKILL).unwrap();
    running.wait(MINUTE).code(137);
    space.assert_nothing_runs();
}

#[test]
fn signals_reach_the_process() {
    let space = TestSpace::new().with_busybox();
    for (signal, word, code) in
        [(Signal::SIGTERM, "TERM", 7), (Signal::SIGINT, "INT", 8), (Signal::SIGUSR1, "USR1", 9)]
    {
        let script = format!(
            "trap 'echo caught {word}; exit {code}' {word}; echo ready; while :; do sleep 0.05; done"
        );
        let mut running = Running::start(&mut space.command([
            "run",
            "--rm",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            &script,
        ]));
        running.wait_for("ready", MINUTE);
        running.signal(signal);
        let done = running.wait(MINUTE).code(code);
        assert_eq!(done.stdout, format!("ready\ncaught {word}\n"));
    }
    space.assert_nothing_runs();
}

#[test]
fn a_killed_rbuild_leaves_its_container_to_its_monitor() {
    let space = TestSpace::new().with_busybox();
    let mut running = Running::start(&mut space.command([
        "run",
        "--name",
        "left",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "echo ready; sleep 3600",
    ]));
    running.wait_for("ready", MINUTE);
    running.signal(Signal::SIGKILL);
    running.wait(MINUTE);
    assert_eq!(space.rbuild(["ps", "--format", "{{.Names}} {{.State}}"]).ok().stdout, "left running\n");
    assert_eq!(space.rbuild(["logs", "left"]).ok().stdout, "ready\n");
    space.rbuild(["rm", "-f", "left"]).ok();
    eventually("the container is gone", Duration::from_secs(10), || {
        common::process::holding(&space.path("")).is_empty()
    });
}

#[test]
fn the_streams_stay_apart() {
    let space = TestSpace::new().with_busybox();
    let done = shell(&space, &[], "echo out; echo err >&2").ok();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn input_comes_in_with_i_only() {
    let space = TestSpace::new().with_busybox();
    let lines = "one\ntwo\n".repeat(200_000);
    let args = ["run", "--rm", "--network", "none", "-i", "busybox", "sh", "-c", "md5sum"];
    let inside = space.rbuild_fed(args, lines.as_bytes()).ok().stdout;
    let outside = finish(&mut space.tool("md5sum"), Some(lines.as_bytes()), MINUTE).ok().stdout;
    assert_eq!(inside, outside);
    let done =
        space.rbuild_fed(["run", "--rm", "--network", "none", "busybox", "wc", "-c"], b"not for you").ok();
    assert_eq!(done.stdout, "0\n");
}

#[test]
fn a_large_output_arrives_whole() {
    let space = TestSpace::new().with_busybox();
    let done = shell(&space, &[], "seq 1 200000; seq 1 100000 >&2").ok();
    assert_eq!((done.stdout.lines().count(), done.stderr.lines().count()), (200_000, 100_000));
}

/// Runs a shell line in a terminal of its own, typing `input`.
fn in_terminal(space: &TestSpace, line: &str, input: &str) -> Done {
    let mut script = space.tool("script");
    script.args(["--quiet", "--return", "--command", line, "/dev/null"]).env("TERM", "xterm");
    finish(&mut script, Some(input.as_bytes()), MINUTE)
}

#[test]
fn a_terminal_is_a_real_one() {
    if !tools_or_skip(&["script"]) {
        return;
    }
    let space = TestSpace::new().with_busybox();
    let rbuild = space.binary().display();
    let line = format!(
        "stty rows 33 cols 77; stty -g > before; {rbuild} run --rm --network none -it busybox sh; code=$?; stty -g > after; exit $code"
    );
    let done = in_terminal(
        &space,
        &line,
        "test -t 0 && test -t 1 && test -t 2 && echo it\"'\"s a terminal\ntty; for try in 1 2 3 4 5 6 7 8 9; do stty size 2>&1 | grep 33 && break; sleep 0.2; done; echo $TERM\nexit 5\n",
    );
    let said = done.code(5).stdout;
    for word in ["it's a terminal\r\n", "/dev/", "33 77\r\n", "xterm\r\n"] {
        assert!(said.contains(word), "no {word:?} in {said:?}");
    }
    let (before, after) = (fs::read(space.path("before")).unwrap(), fs::read(space.path("after")).unwrap());
    assert_eq!(before, after, "the caller's terminal is as it was");
}

#[test]
fn a_terminal_needs_one() {
    let space = TestSpace::new().with_busybox();
    let done = space.rbuild_fed(["run", "--rm", "-it", "busybox", "true"], b"");
    assert_ne!(done.status.code(), Some(0), "{done}");
    assert!(done.stderr.contains("the input device is not a TTY"), "{done}");
    // Output alone may be a terminal without one outside.
    let done = run(&space, &["-t"], &["sh", "-c", "test -t 1 && echo yes; echo err >&2"]).ok();
    assert_eq!(done.stdout, "yes\r\nerr\r\n");
}

#[test]
fn directories_and_files_of_the_host_are_mounted() {
    let space = TestSpace::new().with_busybox();
    space.write("host/file", "outside\n");
    let host = space.path("host").display().to_string();
    let done =
        shell(&space, &["-v", &format!("{host}:/data")], "cat /data/file; echo inside > /data/new").ok();
    assert_eq!(done.stdout, "outside\n");
    assert_eq!(fs::read(space.path("host/new")).unwrap(), b"inside\n");

    shell(&space, &["-v", &format!("{host}:/data:ro")], "echo x > /data/new").refuses(1, &["read-only"]);
    let done = shell(
        &space,
        &["-v", &format!("{host}/file:/etc/motd:ro"), "--volume", "./host:/again"],
        "cat /etc/motd /again/new",
    );
    assert_eq!(done.ok().stdout, "outside\ninside\n");

    // A missing directory is made, as docker does.
    shell(&space, &["-v", &format!("{host}/made/here:/data")], "touch /data/x").ok();
    assert!(space.path("host/made/here/x").exists());

    run(&space, &["-v", "/data:ro"], &["true"]).code(125);
    run(&space, &["-v", &format!("{host}:relative")], &["true"]).refuses(125, &["relative"]);
    run(&space, &["-v", &format!("{host}:/")], &["true"]).code(125);
}

#[test]
fn environment_variables_are_set() {
    let space = TestSpace::new().with_busybox();
    space.build_text("app", "FROM busybox\nENV BASE=image OTHER=image\n");
    let file = space.write(
        "env",
        "\u{feff}# a comment\n\nBASE=file\nQUOTED=\"as it is\"  \n  INDENTED=yes\nFROM_HOST\nMISSING_HERE\n",
    );
    let mut command = space.command([
        "run",
        "--rm",
        "--network",
        "none",
        "-e",
        "OTHER=flag",
        "--env",
        "EMPTY=",
        "-e",
        "PASSED",
        "-e",
        "NOT_THERE",
        "--env-file",
        file.to_str().unwrap(),
        "app",
        "env",
    ]);
    command.env("PASSED", "from outside").env("FROM_HOST", "host");
    let env = finish(&mut command, None, MINUTE).ok().stdout;
    let has = |line: &str| env.lines().any(|seen| seen == line);
    for line in [
        "BASE=file",
        "OTHER=flag",
        "EMPTY=",
        "PASSED=from outside",
        "QUOTED=\"as it is\"  ",
        "INDENTED=yes",
        "FROM_HOST=host",
        "HOME=/root",
    ] {
        assert!(has(line), "no {line:?} in\n{env}");
    }
    for absent in ["NOT_THERE", "MISSING_HERE", "RBUILD_ROOT", "TMPDIR", "XDG_RUNTIME_DIR"] {
        assert!(!env.contains(absent), "{absent} in\n{env}");
    }
    assert!(env.contains("PATH=/usr/local/sbin:") && env.contains("HOSTNAME="), "{env}");
    run(&space, &["--env-file", "no-such-file"], &["true"]).refuses(125, &["no-such-file"]);
}

#[test]
fn users_are_looked_up_in_the_image() {
    let space = TestSpace::new().with_busybox();
    let context = space.dockerfile(
        "FROM busybox\nRUN echo 'app:x:1000:1000::/srv/app:/bin/sh' >> /etc/passwd && echo 'app:x:1000:' >> /etc/group && echo 'extra:x:2000:app' >> /etc/group\n",
    );
    space.build(&context, &["-t", "app"]).ok();
    let cases = [
        ("app", "1000 1000 1000 2000 /srv/app"),
        ("1000", "1000 1000 1000 2000 /srv/app"),
        ("app:mail", "1000 8 8 /srv/app"),
        ("1000:5", "1000 5 5 /srv/app"),
        ("4321", "4321 0 0 /"),
        ("4321:4321", "4321 4321 4321 /"),
        ("nobody", "65534 65534 65534 /home"),
        ("root", "0 0 0 /root"),
    ];
    for (user, wanted) in cases {
        let args = [
            "run",
            "--rm",
            "--network",
            "none",
            "-u",
            user,
            "app",
            "sh",
            "-c",
            "echo $(id -u) $(id -g) $(id -G) $HOME",
        ];
        assert_eq!(space.rbuild(args).ok().stdout.trim(), wanted, "-u {user}");
    }
    space.rbuild(["run", "--rm", "-u", "stranger", "app", "true"]).refuses(125, &["stranger"]);
    space.rbuild(["run", "--rm", "-u", "app:strangers", "app", "true"]).refuses(125, &["strangers"]);
}

#[test]
fn the_entrypoint_and_the_directory_can_be_replaced() {
    let space = TestSpace::new().with_busybox();
    space.build_text("app", "FROM busybox\nWORKDIR /srv\nENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"cmd\"]\n");
    let said = |args: &[&str]| {
        let all = ["run", "--rm", "--network", "none"].iter().chain(args);
        space.rbuild(all).ok().stdout
    };
    assert_eq!(said(&["app"]), "entry cmd\n");
    assert_eq!(said(&["app", "mine", "too"]), "entry mine too\n");
    assert_eq!(said(&["--entrypoint", "echo", "app"]), "\n", "it drops the image's CMD");
    assert_eq!(said(&["--entrypoint", "pwd", "app"]), "/srv\n");
    assert_eq!(said(&["--entrypoint", "", "app", "echo", "bare"]), "bare\n");
    assert_eq!(said(&["-w", "/made/new", "--entrypoint", "pwd", "app"]), "/made/new\n");
    assert_eq!(said(&["--workdir=/etc", "--entrypoint", "pwd", "app"]), "/etc\n");
    // Flags behind the image belong to the command.
    assert_eq!(said(&["app", "--rm", "-e", "x"]), "entry --rm -e x\n");
}

#[test]
fn an_image_without_a_command_needs_one() {
    let space = TestSpace::new().with_busybox();
    space.rbuild(["run", "--rm", "--entrypoint", "", "busybox"]).refuses(125, &["no command specified"]);
    space.build_text("bare", "FROM busybox\nCMD []\n");
    space.rbuild(["run", "--rm", "bare"]).refuses(125, &["no command specified", "after the image"]);
    assert_eq!(space.stdout_of("bare", &["echo", "given"]), "given\n");
}

#[test]
fn a_read_only_root_takes_nothing() {
    let space = TestSpace::new().with_busybox();
    let host = space.mkdir("host").display().to_string();
    let mount = format!("{host}:/data");
    let done = shell(
        &space,
        &["--read-only", "-v", &mount],
        "touch /x 2>&1; touch /data/x && touch /dev/shm/x && echo fine",
    )
    .ok();
    assert!(
        done.stdout.to_lowercase().contains("read-only file system") && done.stdout.ends_with("fine\n"),
        "{done}"
    );
    assert!(space.path("host/x").exists());
}

#[test]
fn what_a_container_writes_stays_in_it() {
    let space = TestSpace::new().with_busybox();
    shell(&space, &[], "echo x > /etc/passwd; rm -r /bin/ls; touch /new").ok();
    let done = shell(&space, &[], "test ! -e /new && ls -d /bin/ls && grep -c ^root: /etc/passwd").ok();
    assert_eq!(done.stdout, "/bin/ls\n1\n");
    assert_eq!(space.rbuild(["ps", "-aq"]).ok().stdout, "", "--rm leaves no container");
}

#[test]
fn a_name_is_taken_once() {
    let space = TestSpace::new().with_busybox();
    let script = "echo ready; read line";
    let mut command = space.command([
        "run",
        "--rm",
        "-i",
        "--network",
        "none",
        "--name",
        "web-1",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    let mut first = Running::start(command.stdin(std::process::Stdio::piped()));
    first.wait_for("ready", MINUTE);
    run(&space, &["--name", "web-1"], &["true"]).refuses(125, &["web-1", "in use"]);
    drop(first.child.stdin.take());
    first.wait(MINUTE);
    run(&space, &["--name", "web-1"], &["true"]).ok();
    run(&space, &["--name", "-bad name"], &["true"]).code(125);
}

#[test]
fn the_network_is_what_was_asked_for() {
    let space = TestSpace::new().with_busybox();
    let namespace = |mode: &str| {
        space
            .rbuild(["run", "--rm", "--network", mode, "busybox", "readlink", "/proc/self/ns/net"])
            .ok()
            .stdout
    };
    let host = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    assert_eq!(namespace("host").trim(), host);
    assert_ne!(namespace("none").trim(), host);
    assert_ne!(namespace("bridge").trim(), host);
    let script = "ls /sys/class/net | grep -c eth0; ip route | grep -c ^default; grep -c \"$(hostname)\" /etc/hosts; grep -c nameserver /etc/resolv.conf";
    let done = space.rbuild(["run", "--rm", "--network", "bridge", "busybox", "sh", "-c", script]);
    if is_root() {
        let counts: Vec<u32> = done.ok().stdout.lines().map(|line| line.parse().unwrap()).collect();
        assert!(counts.len() == 4 && counts.iter().all(|count| *count > 0), "{counts:?}");
    }
    space
        .rbuild(["run", "--rm", "--network", "no-such-net", "busybox", "true"])
        .refuses(125, &["no-such-net"]);
}

#[test]
fn files_made_on_the_host_are_roots() {
    if !root_or_skip() {
        return;
    }
    let space = TestSpace::new().with_busybox();
    let host = space.mkdir("host").display().to_string();
    shell(&space, &["-u", "1000:1001", "-v", &format!("{host}:/data"), "-w", "/"], "true").ok();
    fs::set_permissions(&host, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    shell(&space, &["-u", "1000:1001", "-v", &format!("{host}:/data")], "touch /data/mine").ok();
    let made = fs::metadata(space.path("host/mine")).unwrap();
    assert_eq!((made.uid(), made.gid()), (1000, 1001));
}

#[test]
fn a_file_as_input_cannot_be_written_from_inside() {
    let space = TestSpace::new().with_busybox();
    let file = space.write("input", "precious\n");
    let mut command = space.command([
        "run",
        "--rm",
        "--network",
        "none",
        "-i",
        "busybox",
        "sh",
        "-c",
        "cat; echo evil > /proc/self/fd/0; true",
    ]);
    command.stdin(fs::File::open(&file).unwrap());
    assert_eq!(finish(&mut command, None, MINUTE).ok().stdout, "precious\n");
    assert_eq!(fs::read(&file).unwrap(), b"precious\n");
}

#[test]
fn a_file_as_output_keeps_what_it_had() {
    let space = TestSpace::new().with_busybox();
    let file = space.write("log", "precious\n");
    let script = "echo out; echo err >&2; : > /proc/self/fd/1; echo more";
    let mut command = space.command(["run", "--rm", "--network", "none", "busybox", "sh", "-c", script]);
    let log = fs::File::options().append(true).open(&file).unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log);
    finish(&mut command, None, MINUTE).ok();
    // The two streams go two ways, so their order may change; what was there before may not.
    let text = fs::read_to_string(&file).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines[1..].sort_unstable();
    assert_eq!(lines, ["precious", "err", "more", "out"]);
    // A device that takes nothing ends the program as a closed pipe does, and is named.
    let mut command = space.command(["run", "--rm", "--network", "none", "busybox", "yes"]);
    command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let done = finish(&mut command, None, MINUTE);
    assert!(!done.status.success() && done.stderr.contains("No space left"), "{done}");
}

#[test]
fn a_new_size_of_the_terminal_goes_inside() {
    if !tools_or_skip(&["script"]) {
        return;
    }
    let space = TestSpace::new().with_busybox();
    let script = "trap 'stty size; exit 7' WINCH; while :; do sleep 0.1; done";
    let line = format!(
        "while sleep 0.2; do stty rows 41 cols 91 </dev/tty; stty rows 40 cols 90 </dev/tty; done & \
         {} run --rm --network none -it busybox sh -c \"{script}\"; code=$?; kill $!; exit $code",
        space.binary().display()
    );
    let said = in_terminal(&space, &line, "").code(7).stdout;
    assert!(said.contains("40 90\r\n") || said.contains("41 91\r\n"), "{said:?}");
}

#[test]
fn a_terminal_is_put_right_when_rbuild_is_told_to_end() {
    if !tools_or_skip(&["script"]) {
        return;
    }
    let space = TestSpace::new().with_busybox();
    // As process 1, sleep has no handler for SIGTERM and is killed after its grace.
    let line = format!(
        "stty -g > before; (until test -s pid; do sleep 0.1; done; sleep 1; kill -TERM $(cat pid)) & \
         sh -c 'echo $$ > pid; exec {} run --rm --network none -it busybox sleep 3600'; code=$?; stty -g > after; exit $code",
        space.binary().display()
    );
    in_terminal(&space, &line, "").code(137);
    let (before, after) = (fs::read(space.path("before")).unwrap(), fs::read(space.path("after")).unwrap());
    assert_eq!(before, after, "the caller's terminal is as it was");
    space.assert_nothing_runs();
}

#[test]
fn three_times_ctrl_c_ends_what_does_not_listen() {
    let space = TestSpace::new().with_busybox();
    let script = "trap '' INT; echo ready; while :; do sleep 0.05; done";
    let mut running = Running::start(&mut space.command([
        "run",
        "--rm",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        script,
    ]));
    running.wait_for("ready", MINUTE);
    for _ in 0..2 {
        running.signal(Signal::SIGINT);
        std::thread::sleep(Duration::from_millis(200));
        assert!(running.child.try_wait().unwrap().is_none(), "it need not listen yet");
    }
    running.signal(Signal::SIGINT);
    let done = running.wait(MINUTE).code(137);
    assert!(done.stderr.contains("does not react"), "{done}");
    space.assert_nothing_runs();
}
