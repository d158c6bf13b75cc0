//! A whole machine: limits under systemd on cgroup 2, boots, power cuts. The long form of the tests, which takes many
//! minutes: `RBUILD_LONG=1 cargo test --test virtual_machine`. Skips where there is no machine to be had (`scripts/vm`).
//!
//! What runs inside are the scripts in `tests/vm/`. `RBUILD_CUTS` is how often the power is cut.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{is_root, skip, tools_or_skip};

/// Exit codes of `scripts/vm`.
const NO_MACHINE: i32 = 97;
const POWER_CUT: i32 = 99;

/// A machine with a disk of its own.
struct Machine {
    dir: tempfile::TempDir,
}

struct Said {
    code: i32,
    text: String,
}

impl Machine {
    /// Gives a machine that was never booted; `None`, with the reason, where there is none.
    fn new() -> Option<Self> {
        if std::env::var_os("RBUILD_LONG").is_none() {
            skip("RBUILD_LONG is not set: a virtual machine takes minutes");
            return None;
        }
        if !is_root() {
            skip("making the virtual machine needs root");
            return None;
        }
        if !tools_or_skip(&["qemu-system-x86_64", "mmdebstrap"]) {
            return None;
        }
        let made = Command::new(vm()).arg("--make").output().unwrap();
        if made.status.code() == Some(NO_MACHINE) {
            skip(&format!("there is no virtual machine: {}", String::from_utf8_lossy(&made.stderr)));
            return None;
        }
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(Self { dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap() })
    }

    /// Boots it, runs scripts of `tests/vm/` one after the other in one shell, with variables, and switches it off.
    fn run(&self, scripts: &[&str], variables: &[(&str, &str)], options: &[&str]) -> Said {
        let mut text: String = variables.iter().map(|(name, value)| format!("{name}='{value}'\n")).collect();
        for script in [&["lib"], scripts].concat() {
            text.push_str(&fs::read_to_string(scripts_dir().join(format!("{script}.sh"))).unwrap());
        }
        let mut command = Command::new(vm());
        command.arg("--disk").arg(self.dir.path().join("disk")).args(options).arg("--").arg(text);
        command.env(
            "RBUILD_BINARY",
            std::env::var_os("RBUILD_TEST_BINARY").unwrap_or(env!("CARGO_BIN_EXE_rbuild").into()),
        );
        let done = command.stdin(Stdio::null()).output().unwrap();
        let mut text = String::from_utf8_lossy(&done.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&done.stderr));
        Said { code: done.status.code().unwrap_or(-1), text }
    }

    /// The file that the machine finds at `/rbuild-vm/NAME`.
    fn give(&self, name: &str, text: &str) -> Vec<String> {
        let root = self.dir.path().join("given");
        fs::create_dir_all(root.join("rbuild-vm")).unwrap();
        fs::write(root.join("rbuild-vm").join(name), text).unwrap();
        vec!["--tree".into(), root.to_str().unwrap().into()]
    }
}

impl Said {
    fn ok(self) -> String {
        assert!(self.code == 0 && !self.text.contains("FAILED"), "exit code {}\n{}", self.code, self.text);
        self.text
    }
}

fn vm() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/vm")
}

fn scripts_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm")
}

#[test]
fn limits_hold_for_root_and_for_users() {
    let Some(machine) = Machine::new() else { return };
    let part =
        ["lib", "limits"].map(|name| fs::read_to_string(scripts_dir().join(format!("{name}.sh"))).unwrap());
    let given = machine.give("part", &format!("{}finish\n", part.concat()));
    let options: Vec<&str> = given.iter().map(String::as_str).collect();
    machine.run(&["limits", "limits_root", "finish"], &[], &options).ok();
}

#[test]
fn containers_come_back_after_a_boot() {
    let Some(machine) = Machine::new() else { return };
    machine.run(&["boot_before"], &[], &[]).ok();
    machine.run(&["boot_after"], &[("EXPECTED", "")], &[]).ok();
    // and once more after a power cut
    let cut = machine.run(&["boot_after_wait"], &[], &["--cut", "60"]);
    assert_eq!(cut.code, POWER_CUT, "{}", cut.text);
    machine.run(&["boot_after"], &[("EXPECTED", "255")], &[]).ok();
}

#[test]
fn what_was_reported_survives_power_cuts() {
    let Some(machine) = Machine::new() else { return };
    let cuts = std::env::var("RBUILD_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let mut reports = 0;
    let mut given = Vec::new();
    for cut in 0..=cuts {
        let mut options: Vec<&str> = given.iter().map(String::as_str).collect();
        let scripts = [&["cut_check"][..], if cut < cuts { &["cut_work"] } else { &[] }].concat();
        // neither the first second nor a round number
        let (number, after) = (cut.to_string(), (3 + cut * 37 % 41).to_string());
        if cut < cuts {
            options.extend(["--cut", &after]);
        }
        let done = machine.run(&scripts, &[("CUT", &number)], &options);
        let said: String = done
            .text
            .lines()
            .filter(|line| line.starts_with("done "))
            .map(|line| format!("{line}\n"))
            .collect();
        eprintln!("boot {cut}: {} reports until the cut after {after} s", said.lines().count());
        done.text.lines().filter(|line| !line.starts_with("done ")).for_each(|line| eprintln!("  {line}"));
        assert!(!done.text.contains("FAILED"));
        assert_eq!(done.code, if cut < cuts { POWER_CUT } else { 0 });
        reports += said.lines().count();
        given = machine.give("said", &said);
    }
    eprintln!("{cuts} cuts, {reports} reports, nothing lost");
    assert!(cuts == 0 || reports > 0);
}
