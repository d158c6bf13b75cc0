//! `RUN --mount` where others have a part in it: two steps that want one cache, a real ssh agent.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{TestSpace, process, root_or_skip, tools_or_skip};

/// Waits at most ten seconds for a file that the other stage makes.
const MEET: &str = "meet() { touch /meet/$1; n=0; until [ -e /meet/$2 ]; do n=$((n+1)); [ $n -lt 200 ] || exit 9; sleep 0.05; done; }";

/// Builds two stages at the same time, which run `one` and `two` with the given cache mounts.
fn beside(space: &TestSpace, mounts: &str, one: &str, two: &str) {
    let stage = |name: &str, script: &str| {
        format!("FROM busybox AS {name}\nRUN {mounts} <<E\n{MEET}\n{script}\nE\nRUN touch /{name}\n")
    };
    let last = "FROM busybox\nCOPY --from=one /one /\nCOPY --from=two /two /\n";
    let context = space.dockerfile(&format!("{}{}{last}", stage("one", one), stage("two", two)));
    space.build(&context, &["--jobs", "2"]).ok();
}

#[test]
fn two_steps_at_once_share_a_cache_or_not() {
    if !root_or_skip() {
        return;
    }
    let space = TestSpace::new().with_busybox();
    let meeting = "--mount=type=cache,id=meet,target=/meet";
    // shared: both are in it at the same time
    beside(&space, meeting, "meet 1 2", "meet 2 1");

    // private: both are there at the same time, and each has one of its own
    let private = format!("{meeting} --mount=type=cache,id=own,target=/own,sharing=private");
    let own = |name: &str, other: &str| {
        format!("echo {name} > /own/who; meet p{name} p{other}; [ \"$(cat /own/who)\" = {name} ]")
    };
    beside(&space, &private, &own("1", "2"), &own("2", "1"));

    // locked: one after the other, in the same
    let locked = "--mount=type=cache,id=one,target=/one,sharing=locked";
    let alone = "mkdir /one/busy || exit 8; sleep 0.3; rmdir /one/busy; echo x >> /one/count";
    beside(&space, locked, alone, &format!("{alone} "));
    let context =
        space.dockerfile("FROM busybox\nRUN --mount=type=cache,id=one,target=/c wc -l < /c/count > /n\n");
    space.build(&context, &["-t", "counted"]).ok();
    assert_eq!(space.stdout_of("counted", &["cat", "/n"]), "2\n");
}

/// An agent that is ended with the test.
struct Agent(Child);

impl Agent {
    fn start(socket: &Path) -> Self {
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(socket);
        let agent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let agent = Self(agent.expect("the agent starts"));
        process::eventually("the agent listens", Duration::from_secs(10), || socket.exists());
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A step once waited for itself when it had two mounts of one cache and one of them locked.
#[test]
fn a_step_has_one_cache_twice() {
    let space = TestSpace::new().with_busybox();
    for (at, (one, two)) in [
        ("locked", "locked"),
        ("shared", "locked"),
        ("locked", "shared"),
        ("private", "shared"),
        ("private", "locked"),
    ]
    .into_iter()
    .enumerate()
    {
        let mount = |sharing: &str, target: &str| {
            format!("--mount=type=cache,id=c{at},sharing={sharing},target={target}")
        };
        space.build_text(
            "twice",
            &format!(
                "FROM busybox\nRUN {} {} echo {at} > /a/f; cat /b/f > /out || true\n",
                mount(one, "/a"),
                mount(two, "/b")
            ),
        );
        // a private one beside it is a cache of its own
        let want = if one == "private" { String::new() } else { format!("{at}\n") };
        assert_eq!(space.stdout_of("twice", &["cat", "/out"]), want, "{one} {two}");
    }
}

#[test]
fn an_agent_of_openssh_answers_in_a_step() {
    if !root_or_skip() || !tools_or_skip(&["ssh-agent", "ssh-add", "ssh-keygen"]) {
        return;
    }
    let space = TestSpace::new().with_debian();
    let (socket, key) = (space.path("agent"), space.path("key"));
    let key_name = key.to_str().unwrap();
    space.run_tool("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", key_name]).ok();
    let _agent = Agent::start(&socket);
    let added = Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket).status().unwrap();
    assert!(added.success());
    let print = space.run_tool("ssh-keygen", ["-l", "-f", key_name]).ok().stdout;

    // the programs are the host's: the base has none of OpenSSH
    let context = space.dockerfile(
        "FROM debian\nRUN --mount=type=ssh ssh-add -l > /listed\n\
         RUN --mount=type=ssh,id=other,target=/a/sock,uid=7,mode=0600 \
         stat -c '%a %u %F' /a/sock > /look; echo $SSH_AUTH_SOCK >> /look; ssh-add -l >> /look\n\
         RUN ! ssh-add -l 2> /none && ls -A /run > /run-left\n",
    );
    let agent = |id: &str| format!("{id}={}", socket.display());
    let (default, other) = (agent("default"), agent("other"));
    space
        .build(&context, &["-t", "app", "--ssh", &default, "--ssh", &other, "--volume", "/usr:/usr:ro"])
        .ok();
    assert_eq!(space.stdout_of("app", &["cat", "/listed"]), print);
    let look = space.stdout_of("app", &["cat", "/look"]);
    assert_eq!(look, format!("600 7 socket\n/a/sock\n{print}"));

    let required = space.dockerfile("FROM debian\nRUN --mount=type=ssh,required true\n");
    space.build(&required, &[]).refuses(1, &["agent", "--ssh"]);
}
