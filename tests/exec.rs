//! `exec`: further processes in a running container.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::time::Duration;

use common::process::{Running, eventually};
use common::{Done, TestSpace, tools_or_skip};
use nix::sys::signal::Signal;

const MINUTE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);

fn with_box(flags: &[&str]) -> TestSpace {
    let space = TestSpace::new().with_busybox();
    start(&space, flags);
    space
}

fn start(space: &TestSpace, flags: &[&str]) {
    let mut args = vec!["run", "-d", "--network", "none", "--name", "box"];
    args.extend(flags);
    args.extend(["busybox", "sleep", "3600"]);
    space.rbuild(args).ok();
}

fn exec(space: &TestSpace, flags: &[&str], command: &[&str]) -> Done {
    let mut args = vec!["exec"];
    args.extend(flags);
    args.push("box");
    args.extend(command);
    space.rbuild(args)
}

#[test]
fn it_is_in_the_container_with_its_environment() {
    let space =
        with_box(&["-e", "A=container", "-e", "B=container", "-w", "/work", "-u", "12:34", "-h", "inside"]);
    let script =
        "echo $A $B $C; pwd; id -u; id -g; hostname; cat /proc/1/cmdline | tr '\\0' ' '; echo; echo $HOME";
    let done = exec(&space, &["-e", "B=exec", "-e", "C=exec"], &["sh", "-c", script]).ok();
    assert_eq!(done.stdout, "container exec exec\n/work\n12\n34\ninside\nsleep 3600 \n/\n");
    let done = exec(&space, &["-u", "0", "-w", "/etc"], &["sh", "-c", "id -u; pwd"]).ok();
    assert_eq!(done.stdout, "0\n/etc\n");
    let file = space.write("env", "C=file\nD=file\n");
    let done =
        exec(&space, &["--env-file", file.to_str().unwrap(), "-e", "C=flag"], &["sh", "-c", "echo $C $D"]);
    assert_eq!(done.ok().stdout, "flag file\n");
    // What it writes is the container's.
    exec(&space, &["-u", "0"], &["sh", "-c", "echo mine > /note"]).ok();
    assert_eq!(exec(&space, &[], &["cat", "/note"]).ok().stdout, "mine\n");
}

#[test]
fn exit_codes_and_streams_are_its_own() {
    let space = with_box(&[]);
    for code in [0, 1, 7, 125, 255] {
        exec(&space, &[], &["sh", "-c", &format!("exit {code}")]).code(code);
    }
    exec(&space, &[], &["sh", "-c", "kill -9 $$"]).code(137);
    exec(&space, &[], &["nope"]).refuses(127, &["nope", "not found"]);
    exec(&space, &[], &["/etc"]).refuses(126, &["/etc"]);
    exec(&space, &["-w", "/missing"], &["true"]).refuses(126, &["/missing"]);
    exec(&space, &["-w", "relative"], &["true"]).refuses(126, &["absolute"]);
    exec(&space, &["-u", "nobody-here"], &["true"]).refuses(126, &["nobody-here"]);
    exec(&space, &["-e", "=x"], &["true"]).refuses(125, &["empty"]);
    exec(&space, &["-w", "", "-u", "", "-t=false"], &["true"]).ok();
    let done = exec(&space, &[], &["sh", "-c", "echo out; echo err >&2"]).ok();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(
        space.rbuild_fed(["exec", "-i", "box", "wc", "-c"], &[b'x'; 300_000]).ok().stdout.trim(),
        "300000"
    );
    assert_eq!(space.rbuild_fed(["exec", "box", "wc", "-c"], b"ignored").ok().stdout.trim(), "0");
    space.rbuild(["exec", "box"]).code(1);
    space.rbuild(["exec", "nobody", "true"]).refuses(1, &["no such container: nobody"]);
    space.rbuild(["stop", "-t", "0", "box"]).ok();
    exec(&space, &[], &["true"]).refuses(1, &["box", "not running"]);
}

#[test]
fn it_has_the_rights_and_limits_of_the_container() {
    let space = with_box(&["--cap-drop", "ALL", "--ulimit", "nofile=77"]);
    let rights = |flags: &[&str]| {
        let script =
            "grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status | cut -f2 | tr '\\n' ' '; ulimit -n";
        exec(&space, flags, &["sh", "-c", script]).ok().stdout
    };
    assert_eq!(rights(&[]), "0000000000000000 0 2 77\n");
    let all = rights(&["--privileged"]);
    assert!(!all.starts_with("0000000000000000") && all.contains(" 0 0 77"), "{all}");
    assert_eq!(
        exec(&space, &[], &["sh", "-c", "cat /proc/1/cgroup > /a; cmp /a /proc/self/cgroup"]).ok().stdout,
        ""
    );
}

#[test]
fn a_detached_one_goes_on_alone() {
    let space = with_box(&[]);
    assert_eq!(exec(&space, &["-d"], &["sh", "-c", "sleep 0.3; echo done > /done"]).ok().stdout, "");
    eventually("it has done it", SOON, || exec(&space, &[], &["cat", "/done"]).stdout == "done\n");
    exec(&space, &["-d", "-t"], &["sh", "-c", "tty > /tty; sleep 0.5; echo x > /after"]).ok();
    eventually("it lives without the caller", SOON, || exec(&space, &[], &["cat", "/after"]).stdout == "x\n");
    assert!(exec(&space, &[], &["cat", "/tty"]).ok().stdout.starts_with("/dev/"));
    exec(&space, &["-d"], &["nope"]).refuses(127, &["nope"]);
    // A killed command leaves its process to the container.
    let mut running =
        Running::start(&mut space.command(["exec", "box", "sh", "-c", "echo on; sleep 1; touch /late"]));
    running.wait_for("on", MINUTE);
    running.signal(Signal::SIGKILL);
    running.wait(MINUTE);
    eventually("it went on", SOON, || exec(&space, &[], &["ls", "/late"]).status.success());
    // The end of the container is theirs.
    let mut running = Running::start(&mut space.command(["exec", "box", "sh", "-c", "echo on; sleep 3600"]));
    running.wait_for("on", MINUTE);
    space.rbuild(["kill", "box"]).ok();
    running.wait(MINUTE).code(137);
    space.assert_nothing_runs();
}

#[test]
fn a_terminal_is_a_real_one() {
    if !tools_or_skip(&["script"]) {
        return;
    }
    let space = with_box(&[]);
    let binary = space.binary().display().to_string();
    let line = format!(
        "stty rows 31 cols 97; {binary} exec -it box sh -c 'tty; stty size; echo $TERM; read x; echo got $x; exit 5'"
    );
    let mut command = space.tool("script");
    command.args(["-qec", &line, "/dev/null"]);
    let done = common::process::finish(&mut command, Some(b"word\n"), MINUTE).code(5);
    let text = done.stdout.replace('\r', "");
    for wanted in ["/dev/pts/", "31 97\n", "xterm\n", "got word\n"] {
        assert!(text.contains(wanted), "{wanted:?} in {text:?}");
    }
    space.rbuild(["exec", "-it", "box", "sh"]).refuses(1, &["not a tty"]);
    // -t alone needs no terminal of the caller
    assert!(exec(&space, &["-t"], &["tty"]).ok().stdout.contains("/dev/pts/"));
}

#[test]
fn a_shell_can_be_left_with_the_detach_keys() {
    if !tools_or_skip(&["script"]) {
        return;
    }
    let space = with_box(&[]);
    let binary = space.binary().display().to_string();
    let typed = |line: &str, keys: &[u8]| {
        let mut command = space.tool("script");
        command.args(["-qec", line, "/dev/null"]);
        let mut running = Running::start(command.stdin(std::process::Stdio::piped()));
        running.wait_for("#", MINUTE);
        use std::io::Write;
        let mut stdin = running.child.stdin.take().unwrap();
        stdin.write_all(keys).unwrap();
        stdin.flush().unwrap();
        let done = running.wait(MINUTE);
        drop(stdin);
        done
    };
    typed(&format!("{binary} exec -it box sh"), b"\x10\x11").code(0);
    typed(&format!("{binary} exec -it --detach-keys x box sh"), b"x").code(0);
    typed(&format!("{binary} run -it --name shell --network none busybox sh"), b"echo hi\n\x10\x11").code(0);
    let state = space.rbuild(["inspect", "-f", "{{.State.Status}}", "shell"]).ok().stdout;
    assert_eq!(state, "running\n");
    typed(&format!("echo '#'; {binary} attach shell"), b"exit 4\n").code(4);
    assert!(space.rbuild(["logs", "shell"]).ok().stdout.contains("hi\r\n"));
}

#[test]
fn many_at_once() {
    let space = with_box(&[]);
    std::thread::scope(|scope| {
        for n in 0..20 {
            let space = &space;
            scope.spawn(move || {
                let text = n.to_string();
                assert_eq!(exec(space, &[], &["echo", &text]).ok().stdout, format!("{n}\n"));
            });
        }
    });
}

#[test]
fn an_ordinary_user_enters_too() {
    let Some(space) = TestSpace::rootless() else { return };
    let space = space.with_busybox();
    start(&space, &["-v", "data:/data"]);
    assert_eq!(exec(&space, &["-u", "5"], &["id", "-u"]).ok().stdout, "5\n");
    exec(&space, &[], &["sh", "-c", "echo x > /data/file; chown 9 /data/file"]).ok();
    assert_eq!(exec(&space, &[], &["stat", "-c", "%u", "/data/file"]).ok().stdout, "9\n");
    exec(&space, &[], &["sh", "-c", "exit 3"]).code(3);
    assert_eq!(space.rbuild_fed(["exec", "-i", "box", "cat"], b"through").ok().stdout, "through");
}

#[test]
fn one_on_a_terminal_outlives_its_command() {
    let space = with_box(&[]);
    let done = |file: &str| exec(&space, &[], &["test", "-e", file]).status.success();
    // more than a terminal holds when nobody reads
    let script = "yes | head -c 300000; touch /detached";
    exec(&space, &["-dt"], &["sh", "-c", script]).ok();
    eventually("nobody's terminal is read", SOON, || done("/detached"));
    let script = "echo ready; until test -e /go; do sleep 0.1; done; yes | head -c 300000; touch /left";
    let mut running = Running::start(&mut space.command(["exec", "-t", "box", "sh", "-c", script]));
    running.wait_for("ready", MINUTE);
    running.signal(Signal::SIGKILL);
    running.child.wait().unwrap();
    exec(&space, &[], &["touch", "/go"]).ok();
    eventually("a terminal that was left is read", SOON, || done("/left"));
}
