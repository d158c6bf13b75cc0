//! `kill -9` at random moments of whatever a user may run: the store stays sound, the next command works, and in the end
//! everything can be removed to the last file. `RBUILD_LONG=1` kills 320 times instead of 32, `RBUILD_SEED` repeats a run.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::process::{self, Done, Running};
use common::registry::Registry;
use common::{TestSpace, root_or_skip};
use nix::sys::signal::Signal;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

const PATIENCE: Duration = Duration::from_secs(120);

/// A sequence of numbers that look random (splitmix64).
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
        let seed = std::env::var("RBUILD_SEED").ok().and_then(|text| text.parse().ok());
        Self(seed.unwrap_or(u64::from(now)))
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// What is killed: a name, what makes it possible, the command itself.
struct Act {
    name: &'static str,
    before: Vec<Vec<String>>,
    args: Vec<String>,
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// All acts of one round; each round's context has other content, so that everything is made anew.
fn acts(space: &TestSpace, host: &str, port: u16, round: u64) -> Vec<Act> {
    let text = format!("round {round}\n");
    space.write("ctx/f", &text);
    for n in 0..100 {
        space.write(&format!("ctx/many/{n}"), format!("{round} {n}"));
    }
    space.write("ctx/big", vec![u8::try_from(round % 251).unwrap(); 1 << 20]);
    space.dockerfile("FROM busybox\nCOPY many /many\nCOPY big /big\nRUN cat /f 2>/dev/null; for i in 1 2 3; do cat /big > /copy$i; done\nCOPY f /f\nVOLUME /v\n");
    let build = format!("build -q --build-arg=SOURCE_DATE_EPOCH=1700000000 -t app -t {host}/app:{round} ctx");
    let act = |name, before: &[&str], args: &str| Act {
        name,
        before: before.iter().map(|args| words(args)).collect(),
        args: words(args),
    };
    let push = format!("push -q {host}/app:{round}");
    let pull = format!("pull -q {host}/app:{round}");
    vec![
        act("build", &[], &build),
        act("inspect", &[&build.replace("-q ", "")], "inspect app"),
        act("save", &[&build], "save -o app.tar app"),
        act(
            "load",
            &[&build, "save -o app.tar app", "rmi -f app", "builder prune -af"],
            "load -q -i app.tar",
        ),
        act("push", &[&build], &push),
        act("pull", &[&build, &push, &format!("rmi -f {host}/app:{round} app"), "builder prune -af"], &pull),
        act("tag", &[&build], "tag app other:1"),
        act("rmi", &[&build], "rmi -f app"),
        act("builder prune", &[&build, "rmi -f app"], "builder prune -af"),
        act("run -d", &[&build, "rm -f -v box"], "run -d --name box app sleep 1000"),
        act("run", &[&build, "rm -f -v box"], "run --name box -v data:/d app cat /f"),
        act(
            "commit",
            &[&build, "rm -f -v box", "run --name box app sh -c mkdir\u{a0}/new;cp\u{a0}/big\u{a0}/new"],
            "commit box kept",
        ),
        act("stop", &[&build, "rm -f -v box", "run -d --name box app sleep 1000"], "stop -t 1 box"),
        act("rm", &[&build, "rm -f -v box", "run -d --name box app sleep 1000"], "rm -f -v box"),
        act("volume create", &["volume rm vol"], "volume create vol"),
        act("network create", &["network rm net"], "network create net"),
        act("network rm", &["network create nets"], "network rm nets"),
        act(
            "network connect",
            &[&build, "rm -f -v box", "network create lan", "run -d --name box app sleep 1000"],
            "network connect lan box",
        ),
        act(
            "network disconnect",
            &[&build, "rm -f -v box", "network create lan", "run -d --name box --network lan app sleep 1000"],
            "network disconnect lan box",
        ),
        act(
            "run -p",
            &[&build, "rm -f -v box"],
            &format!("run -d --name box -p 127.0.0.1:{port}:80 app sleep 1000"),
        ),
    ]
}

fn run(space: &TestSpace, args: &[String]) -> Done {
    let args: Vec<String> = args.iter().map(|arg| arg.replace('\u{a0}', " ")).collect();
    process::finish(&mut space.command(args), None, PATIENCE)
}

fn sound(space: &TestSpace, after: &str) {
    let check = space.rbuild(["system", "check"]);
    assert_eq!(check.stdout, "The store is sound.\n", "after {after}\n{check}");
}

/// Kills one act at a moment of its usual length; gives whether it was still at work.
fn kill(space: &TestSpace, act: &Act, dice: &mut Dice) -> bool {
    for args in &act.before {
        // what is to be removed may not be there
        run(space, args);
    }
    let args: Vec<String> = act.args.iter().map(|arg| arg.replace('\u{a0}', " ")).collect();
    let running = Running::start(&mut space.command(&args));
    // short moments are as likely as long ones
    let longest = 1u64 << (6 + dice.roll(13));
    std::thread::sleep(Duration::from_micros(dice.roll(longest)));
    running.signal(Signal::SIGKILL);
    running.wait(PATIENCE).status.signal() == Some(9)
}

/// Removes all, and insists that nothing is left.
fn clear(space: &TestSpace) {
    let all = |list: &str, remove: &str| {
        let names = space.rbuild(words(list)).ok().stdout;
        if !names.is_empty() {
            let names = names.split_whitespace().map(str::to_owned);
            run(space, &words(remove).into_iter().chain(names).collect::<Vec<_>>()).ok();
        }
    };
    all("ps -aq", "rm -f -v");
    all("volume ls -q", "volume rm");
    all("network ls -q --filter type=custom", "network rm");
    all("images -q --no-trunc", "rmi -f");
    space.rbuild(["system", "prune", "-af", "--volumes"]).ok();
    let mut left = String::new();
    for dir in [
        "tmp",
        "snapshots",
        "files",
        "images/blobs",
        "steps",
        "memos",
        "contexts",
        "lists",
        "absent",
        "volumes",
        "containers/names",
        "networks",
    ] {
        below(&space.store().join(dir), &mut left);
    }
    assert_eq!(left, "", "left in the store");
}

fn below(dir: &Path, out: &mut String) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => below(&entry.path(), out),
            false => writeln!(out, "{}", entry.path().display()).unwrap(),
        }
    }
}

/// Network interfaces of pairs, network namespaces and cgroups of ours on the whole machine.
fn of_the_kernel() -> (usize, usize, usize) {
    let links = fs::read_dir("/sys/class/net").unwrap().flatten();
    let veth = links.filter(|entry| entry.file_name().to_string_lossy().starts_with("rb")).count();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let namespaces: std::collections::BTreeSet<_> =
        processes.filter_map(|entry| fs::read_link(entry.path().join("ns/net")).ok()).collect();
    let mut cgroups = String::new();
    for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        for entry in fs::read_dir(controller.path().join("rbuild")).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                writeln!(cgroups, "{}", entry.path().display()).unwrap();
            }
        }
    }
    (veth, namespaces.len(), cgroups.lines().count())
}

#[test]
fn killed_at_any_moment() {
    if !root_or_skip() {
        return;
    }
    let long = std::env::var_os("RBUILD_LONG").is_some();
    let (kills, every) = if long { (320, 40) } else { (32, 16) };
    let before = of_the_kernel();
    let space = TestSpace::new();
    let Some(registry) = Registry::start(&space) else { return };
    let mut dice = Dice::new();
    eprintln!("RBUILD_SEED={}", dice.0);
    let start = Instant::now();
    // nobody is given it: it is below those that the kernel chooses
    let port = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let (mut hit, mut rounds) = (std::collections::BTreeMap::<&str, (u32, u32)>::new(), 0);
    let space = space.with_busybox();
    space.rbuild(["save", "-o", "base.tar", "busybox"]).ok();
    let first = dice.roll(16);
    for n in 0..kills {
        rounds += u64::from(n % 8 == 0);
        let acts = acts(&space, &registry.host, port, rounds);
        let act = &acts[usize::try_from((first + n) % acts.len() as u64).unwrap()];
        let lived = kill(&space, act, &mut dice);
        let count = hit.entry(act.name).or_default();
        (count.0, count.1) = (count.0 + 1, count.1 + u32::from(lived));
        sound(&space, act.name);
        // what was to be made can be made now, and is what it should be
        for args in &act.before {
            run(&space, args);
        }
        run(&space, &act.args).ok();
        let build = &acts[0];
        run(&space, &build.args).ok();
        let seen = space.stdout_of("app", &["sh", "-c", "cat /f; cmp /big /copy3 && ls /many | wc -l"]);
        assert_eq!(seen, format!("round {rounds}\n100\n"), "after {}", act.name);
        if n % every == every - 1 {
            let id = space.inspect("app")["Id"].clone();
            clear(&space);
            space.rbuild(["load", "-q", "-i", "base.tar"]).ok();
            run(&space, &build.args).ok();
            assert_eq!(space.inspect("app")["Id"], id, "another image than on an empty store");
        }
    }
    clear(&space);
    process::eventually("nothing runs", PATIENCE, || process::holding(&space.store()).is_empty());
    let inside: u32 = hit.values().map(|(_, hit)| hit).sum();
    eprintln!("{kills} kills, {inside} of them before the end, in {:?}: {hit:?}", start.elapsed());
    drop(space);
    if long {
        // nothing else runs beside the long form
        process::eventually("as before in the kernel", PATIENCE, || {
            let now = of_the_kernel();
            now.0 <= before.0 && now.1 <= before.1 && now.2 <= before.2
        });
    }
}
