//! What a process sees and may, told from inside a step, a container and an `exec`, against the same told from inside a
//! container of podman (`fixtures/prober/podman.txt`; the program is `probe.sh` beside it).
//!
//! Each difference from the reference is listed here with its reason; one more or one less fails.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::{TestSpace, root_or_skip};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

type Facts = BTreeMap<String, String>;

/// Reads `key = value` lines; the numbers of namespaces become whose they are.
fn facts(text: &str) -> Facts {
    let mut all = Facts::new();
    for (key, value) in
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" = "))
    {
        let mut value = value.trim().to_owned();
        if let (Some(name), true) = (key.strip_prefix("namespace "), value.contains(":[")) {
            let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            value = if host == Path::new(&value) { "the host's" } else { "own" }.to_owned();
        }
        all.insert(key.to_owned(), value);
    }
    assert!(all.len() > 80, "the prober said only {} things:\n{text}", all.len());
    all
}

fn reference() -> Facts {
    facts(include_str!("../fixtures/prober/podman.txt"))
}

/// Where two sets of facts differ, as `key: one | other`; what only one has is `-` in the other.
fn differences(one: &Facts, other: &Facts, skip: &[&str]) -> Vec<String> {
    let none = "-".to_owned();
    let keys: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    keys.into_iter()
        .filter(|key| !skip.iter().any(|start| key.starts_with(start)))
        .filter(|key| one.get(*key) != other.get(*key))
        .map(|key| format!("{key}: {} | {}", one.get(key).unwrap_or(&none), other.get(key).unwrap_or(&none)))
        .collect()
}

/// Runs the prober in a container with more flags.
fn in_container(space: &TestSpace, flags: &[&str]) -> Facts {
    let probe = format!("{}:/probe:ro", space.fixture("prober").display());
    let mut args = vec!["run", "--rm", "--network", "none", "-v", &probe];
    args.extend(flags);
    args.extend(["busybox", "sh", "/probe/probe.sh"]);
    facts(&space.rbuild(args).ok().stdout)
}

/// The capabilities of whoever runs the tests; nobody can give more.
fn permitted() -> u64 {
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let line = own.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

/// What is otherwise than with podman, and why.
const LISTED: [(&str, &[&str]); 9] = [
    (
        "docker's capabilities, and the kernel's CAP_MKNOD, CAP_NET_RAW and CAP_AUDIT_WRITE with them",
        &[
            "status CapBnd: 00000000800405fb | 00000000a80425fb",
            "status CapEff: 00000000800405fb | 00000000a80425fb",
            "status CapPrm: 00000000800405fb | 00000000a80425fb",
            "try a device node: fails | works",
            "try ping: fails | works",
            "try to open a device node: fails | works",
        ],
    ),
    ("root is in its own group, as with docker", &["status Groups: - | 0"]),
    (
        "user namespaces are for those who may mount, as docker's filter has it",
        &["try a user namespace: works | fails"],
    ),
    (
        "device nodes are own ones on a file system that is not writable for others, so that a change of mode stays inside",
        &[
            "mount /dev: noexec nosuid rw tmpfs mode=755 size=65536k | nodev nosuid rw tmpfs mode=755 size=65536k",
            "mount /dev: noexec nosuid rw tmpfs mode=755 size=65536k | nosuid rw tmpfs mode=755 size=65536k",
            "mount /dev/full: - | nosuid rw tmpfs",
            "mount /dev/null: - | nosuid rw tmpfs",
            "mount /dev/random: - | nosuid rw tmpfs",
            "mount /dev/tty: - | nosuid rw tmpfs",
            "mount /dev/urandom: - | nosuid rw tmpfs",
            "mount /dev/zero: - | nosuid rw tmpfs",
        ],
    ),
    (
        "docker's size of /dev/shm",
        &[
            "mount /dev/shm: nodev noexec nosuid rw tmpfs size=64000k | nodev noexec nosuid rw tmpfs size=65536k",
        ],
    ),
    (
        "masks have no devices, programs or setuid files either",
        &[
            "mount /proc/acpi: ro tmpfs | nodev noexec nosuid ro tmpfs",
            "mount /proc/keys: ro devtmpfs | nosuid rw tmpfs",
            "mount /proc/timer_list: ro devtmpfs | nosuid rw tmpfs",
            "mount /sys/firmware: ro tmpfs | nodev noexec nosuid ro tmpfs",
            "mount /proc/bus: ro proc | nodev noexec nosuid ro proc",
            "mount /proc/fs: ro proc | nodev noexec nosuid ro proc",
            "mount /proc/irq: ro proc | nodev noexec nosuid ro proc",
            "mount /proc/sys: ro proc | nodev noexec nosuid ro proc",
        ],
    ),
    (
        "docker masks /proc/interrupts and not /sys/dev/block",
        &[
            "mount /proc/interrupts: - | nosuid rw tmpfs",
            "path /proc/interrupts: filled writable | empty writable",
            "path /sys/dev/block: empty writable | filled writable",
        ],
    ),
    (
        "the cgroups of the machine are not shown at all",
        &["namespace cgroup: the host's | own", "path /sys/fs/cgroup: filled writable | empty writable"],
    ),
    ("docker's variables", &["variables: HOME HOSTNAME PATH TERM container | HOME HOSTNAME PATH"]),
];

#[test]
fn a_container_is_as_the_reference_but_for_what_is_listed() {
    if !root_or_skip() {
        return;
    }
    let space = TestSpace::new().with_busybox();
    let ours = in_container(&space, &[]);
    let full = permitted() & 0xa804_25fb == 0xa804_25fb;
    // Another kernel may lack a file that is masked, or show it otherwise without a mask.
    let here = |line: &&str| {
        let key = line.split(": ").next().unwrap();
        let path = key.split(' ').nth(1).filter(|path| path.starts_with('/'));
        let of_rights = line.starts_with("status Cap")
            || line.starts_with("try a device")
            || line.starts_with("try ping");
        // other nodes in /dev work where something else guards the devices
        let of_dev = line.starts_with("mount /dev: ");
        if line.starts_with("try to open") && !common::guards_devices() {
            return false;
        }
        if of_dev && line.contains("| nodev") == common::guards_devices() {
            return false;
        }
        path.is_none_or(|path| Path::new(path).exists()) && (full || !of_rights)
    };
    let wanted: Vec<&str> = LISTED.iter().flat_map(|(_, lines)| lines.iter().copied()).filter(here).collect();
    let found = differences(&reference(), &ours, &["limit", "oom score"]);
    let found: Vec<&str> = found.iter().map(String::as_str).filter(here).collect();
    let more: Vec<&&str> = found.iter().filter(|line| !wanted.contains(line)).collect();
    let fewer: Vec<&&str> = wanted.iter().filter(|line| !found.contains(line)).collect();
    assert!(more.is_empty() && fewer.is_empty(), "not listed:\n{more:#?}\nlisted and not so:\n{fewer:#?}");
    // Limits are those of whoever starts it, as far as no flag says otherwise.
    let own = fs::read_to_string("/proc/self/limits").unwrap();
    for (key, name) in
        [("fsize", "Max file size"), ("memlock", "Max locked memory"), ("stack", "Max stack size")]
    {
        let line = own.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let both: Vec<&str> = line.split_whitespace().take(2).collect();
        assert_eq!(ours[&format!("limit {key}")], both.join(" "), "{name}");
    }
}

/// What `run` does differently from a step, and an `exec` from the first process.
#[test]
fn a_step_and_an_exec_are_as_a_container() {
    let space = TestSpace::new().with_busybox();
    let container = in_container(&space, &[]);
    let probe = space.fixture("prober");
    space.write("ctx/probe.sh", fs::read(probe.join("probe.sh")).unwrap());
    space.build_text(
        "probed",
        "FROM busybox\nCOPY probe.sh /\nRUN --network=none sh /probe.sh > /out\nCMD [\"cat\", \"/out\"]\n",
    );
    let step = facts(&space.stdout_of("probed", &[]));
    assert_eq!(
        differences(&container, &step, &[]),
        ["host name: xxxxxxxxxxxx | xuilxkitsxnxxox", "variables: HOME HOSTNAME PATH | HOME PATH"]
    );
    let probe = format!("{}:/probe:ro", probe.display());
    space
        .rbuild(["run", "-d", "--name", "box", "--network", "none", "-v", &probe, "busybox", "sleep", "3600"])
        .ok();
    let entered = facts(&space.rbuild(["exec", "box", "sh", "/probe/probe.sh"]).ok().stdout);
    // the first process is another, and there is one more
    assert_eq!(differences(&container, &entered, &["pid", "processes", "descriptors of the first"]), [""; 0]);
    assert_eq!(entered["descriptors of the first"], "0 1 2");
}

#[test]
fn flags_change_what_they_name_and_nothing_else() {
    if !root_or_skip() || permitted() & 0xa804_25fb != 0xa804_25fb {
        return;
    }
    let space = TestSpace::new().with_busybox();
    let plain = in_container(&space, &[]);
    for (flags, wanted) in [
        (
            &["--cap-drop", "all", "--cap-add", "chown"][..],
            &["CapBnd", "CapEff", "CapPrm", "device node", "chroot", "ping", "low port"][..],
        ),
        (&["--security-opt", "no-new-privileges"], &["NoNewPrivs"]),
        (&["--hostname", "other"], &["host name"]),
        (&["-e", "A=1"], &["variables"]),
        (
            &["-u", "7:8"],
            &[
                "CapEff",
                "CapPrm",
                "Groups",
                "ids",
                "device node",
                "chroot",
                "another owner",
                "ping",
                "low port",
                "path",
                "mount",
                "dev",
                "kernel log",
            ],
        ),
    ] {
        let found = differences(&plain, &in_container(&space, flags), &[]);
        assert!(!found.is_empty(), "{flags:?} changes nothing");
        let other: Vec<&String> =
            found.iter().filter(|line| !wanted.iter().any(|word| line.contains(word))).collect();
        assert!(other.is_empty(), "{flags:?} also change {other:#?}");
    }
}

#[test]
fn an_ordinary_user_s_container_is_as_root_s_but_for_its_ids() {
    if !root_or_skip() {
        return;
    }
    let Some(theirs) = TestSpace::rootless() else { return };
    let theirs = in_container(&theirs.with_busybox(), &[]);
    let ours = in_container(&TestSpace::new().with_busybox(), &[]);
    let differ = differences(&ours, &theirs, &["dev ", "mount ", "uid map", "gid map", "oom score", "limit"]);
    let mut wanted = vec!["namespace user: the host's | own"];
    if ours["try a device node"] == "works" {
        wanted.push("try a device node: works | fails");
    }
    if ours["try to open a device node"] == "works" {
        wanted.push("try to open a device node: works | fails");
    }
    let caps = "status Cap";
    assert_eq!(differ.iter().filter(|line| !line.starts_with(caps)).collect::<Vec<_>>(), wanted);
    assert_eq!(theirs["status CapEff"], "00000000a80425fb");
    // Its ids are mapped: root inside is nobody special outside.
    assert!(
        theirs["uid map"].starts_with("0 ") && !theirs["uid map"].starts_with("0 0 "),
        "{}",
        theirs["uid map"]
    );
    // The same places are mounted; nodes are the machine's, read-only, as an ordinary user can make none.
    let points =
        |facts: &Facts| facts.keys().filter(|key| key.starts_with("mount ")).cloned().collect::<Vec<_>>();
    assert_eq!(points(&ours), points(&theirs));
    for node in ["null", "zero", "tty"] {
        let mount = &theirs[&format!("mount /dev/{node}")];
        assert!(mount.split(' ').any(|flag| flag == "ro"), "{node}: {mount}");
    }
}
