//! The tutorial: every example in `docs/tutorial.md` is run and compared, as root and as an ordinary user. And the table of
//! docker's commands: whatever docker has is there or explained in `docs/docker-cli.md`.
//!
//! In its `console` blocks `$ ` begins a command for the shell and `> ` continues it; what follows is what it prints.
//! `/ # ` begins what is typed at the prompt of a container, `^` with a letter is a control key, `...` matches anything
//! in a line, and alone in a line any number of lines.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::io::Write;
use std::process::{ChildStdin, Stdio};
use std::time::{Duration, Instant};

use common::process::{Running, finish};
use common::{TestSpace, root_or_skip, tools_or_skip};

const MINUTE: Duration = Duration::from_secs(60);
/// What a container's shell asks with.
const PROMPT: &str = "/ # ";

#[test]
fn every_example_works_as_root() {
    if root_or_skip() {
        follow(&TestSpace::new().with_busybox());
    }
}

#[test]
fn every_example_works_as_an_ordinary_user() {
    if let Some(space) = TestSpace::rootless() {
        follow(&space.with_busybox());
    }
}

#[test]
fn every_command_and_flag_of_docker_is_there_or_explained() {
    let space = TestSpace::new();
    let table = include_str!("../docs/docker-cli.md");
    let words: Vec<&str> = table.split(['`', ' ', ',', '|', '\n']).collect();
    // `--cpu-rt-*` stands for all that begins so
    let explained = |flag: &str| {
        words.iter().any(|word| match word.split_once('*') {
            Some((start, end)) => flag.starts_with(start) && flag.ends_with(end),
            None => *word == flag,
        })
    };
    let mut missing = Vec::new();
    for line in include_str!("../fixtures/docker-commands.txt").lines().filter(|line| !line.starts_with('#'))
    {
        let (command, flags) = line.split_once(':').unwrap();
        let help = space.rbuild(command.split(' ').chain(["--help"]));
        if !help.status.success() {
            let known = table.contains(&format!("`{command}`"));
            missing.extend((!known).then(|| command.to_owned()));
            continue;
        }
        let ours: Vec<&str> = help.stdout.split([' ', ',', '=', '[', ']', '\n']).collect();
        let unknown = |flag: &&str| !ours.contains(flag) && !explained(flag);
        missing.extend(flags.split_whitespace().filter(unknown).map(|flag| format!("{command} {flag}")));
    }
    assert!(missing.is_empty(), "neither there nor explained: {missing:#?}");
}

/// One command of the tutorial, what is typed into it, what it shall print.
#[derive(Debug, Default)]
struct Example {
    line: usize,
    command: String,
    typed: Vec<String>,
    output: Vec<String>,
}

fn examples() -> Vec<Example> {
    let text = include_str!("../docs/tutorial.md");
    let (mut all, mut inside) = (Vec::<Example>::new(), false);
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
            continue;
        }
        if !inside {
            continue;
        }
        if let Some(command) = line.strip_prefix("$ ") {
            all.push(Example { line: number + 1, command: command.to_owned(), ..Example::default() });
            continue;
        }
        let last = all.last_mut().expect("a block begins with a command");
        if let Some(more) = line.strip_prefix("> ") {
            last.command += &format!("\n{more}");
        } else if line.starts_with(PROMPT) || line.starts_with('^') {
            last.typed.push(line.to_owned());
        } else {
            last.output.push(line.to_owned());
        }
    }
    all
}

fn follow(space: &TestSpace) {
    if !tools_or_skip(&["script", "curl"]) {
        return;
    }
    let bin = space.mkdir("bin");
    std::os::unix::fs::symlink(space.binary(), bin.join("rbuild")).unwrap();
    space.mkdir("work");
    let port = common::registry::free_port().to_string();
    let examples = examples();
    assert!(examples.len() > 60, "{}", examples.len());
    for mut example in examples {
        // no two tests can have the same port
        example.command = example.command.replace("8080", &port);
        example.output.iter_mut().for_each(|line| *line = line.replace("8080", &port));
        let started = Instant::now();
        loop {
            let said = if example.typed.is_empty() { plain(space, &example) } else { typed(space, &example) };
            let said: Vec<&str> = said.lines().map(str::trim_end).collect();
            let wanted: Vec<&str> = example.output.iter().map(|line| line.trim_end()).collect();
            if fits(&wanted, &said) {
                break;
            }
            // a server that has just been started takes a moment
            let may_come = example.command.contains("http://") && started.elapsed() < MINUTE;
            assert!(
                may_come,
                "docs/tutorial.md:{}: {}\nprinted\n{}\nand not\n{}",
                example.line,
                example.command,
                said.join("\n"),
                wanted.join("\n")
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    let left = space.rbuild(["ps", "-aq"]).ok().stdout;
    assert_eq!(left, "", "the tutorial tidies up");
    space.assert_nothing_runs();
}

fn shell(space: &TestSpace, program: &str) -> std::process::Command {
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", space.path("bin").display());
    let mut command = space.tool(program);
    command.env("PATH", path).env("TERM", "dumb").current_dir(space.path("work"));
    command
}

fn plain(space: &TestSpace, example: &Example) -> String {
    let mut command = shell(space, "sh");
    // both streams in one, as on a terminal
    command.args(["-c", &format!("exec 2>&1\n{}", example.command)]);
    finish(&mut command, None, MINUTE * 3).stdout
}

/// Runs a command in a terminal and types into it; gives what it printed beside prompts and what was typed.
fn typed(space: &TestSpace, example: &Example) -> String {
    let mut command = shell(space, "script");
    command.args(["-qec", &example.command, "/dev/null"]).stdin(Stdio::piped());
    let mut running = Running::start(&mut command);
    let mut keyboard = running.child.stdin.take().unwrap();
    let mut before: Option<&str> = None;
    for line in &example.typed {
        match line.strip_prefix(PROMPT) {
            Some(line) => {
                until(&mut running, line, |text| asks(text, before));
                press(&mut keyboard, line);
                before = Some(line);
            }
            // the prompt was there before anybody listened; the key calls for another
            None => {
                let mut pressed: Option<Instant> = None;
                until(&mut running, "the shell", |text| {
                    if pressed.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
                        press(&mut keyboard, line);
                        pressed = Some(Instant::now());
                    }
                    asks(text, None)
                });
            }
        }
    }
    let done = running.wait(MINUTE);
    drop(keyboard);
    let text = clean(&done.stdout);
    let mut out = Vec::new();
    for line in text.lines() {
        // a prompt and what was typed there, and what some builds of busybox greet with
        let others = [PROMPT.trim_end(), "BusyBox v", "Enter 'help'"];
        if !others.iter().any(|other| line.starts_with(other)) && !line.is_empty() {
            out.push(line.to_owned());
        }
    }
    out.join("\n")
}

/// Whether the shell asks for a command, after it has read the one before.
fn asks(text: &str, before: Option<&str>) -> bool {
    let text = clean(text);
    let read = |command| text.lines().any(|line| line.strip_prefix(PROMPT) == Some(command));
    text.ends_with(PROMPT) && before.is_none_or(read)
}

/// What a terminal would show: without control sequences.
fn clean(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => {
                // ESC [ numbers letter
                chars.next();
                chars.find(char::is_ascii_alphabetic);
            }
            '\r' => {}
            c => out.push(c),
        }
    }
    out
}

fn press(keyboard: &mut ChildStdin, line: &str) {
    let mut keys = Vec::new();
    let mut rest = line.bytes();
    let control = line.starts_with('^');
    while let Some(byte) = rest.next() {
        match byte {
            b'^' if control => keys.extend(rest.next().map(|letter| letter - b'@')),
            byte => keys.push(byte),
        }
    }
    if !control {
        keys.push(b'\r');
    }
    keyboard.write_all(&keys).unwrap();
    keyboard.flush().unwrap();
}

fn until(running: &mut Running, what: &str, mut ready: impl FnMut(&str) -> bool) {
    let start = Instant::now();
    while !ready(&running.so_far()) {
        let ended = running.child.try_wait().unwrap();
        assert!(ended.is_none(), "ended before {what}\n{}", running.so_far());
        assert!(start.elapsed() < MINUTE, "no {what}\n{}", running.so_far());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether lines are as the tutorial says.
fn fits(wanted: &[&str], said: &[&str]) -> bool {
    match (wanted.split_first(), said.split_first()) {
        (None, None) => true,
        (Some((&"...", rest)), _) => (0..=said.len()).any(|n| fits(rest, &said[n..])),
        (Some((want, wanted)), Some((line, said))) => line_fits(want, line) && fits(wanted, said),
        _ => false,
    }
}

/// Blanks count as one; `...` is anything.
fn line_fits(want: &str, line: &str) -> bool {
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (want, line) = (squeeze(want), squeeze(line));
    let mut parts = want.split("...").map(str::trim);
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut open = false;
    for part in parts {
        open = true;
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
        if part.is_empty() {
            rest = "";
        } else {
            open = false;
        }
    }
    open || rest.is_empty()
}
