//! Text of others on the user's terminal: only what cannot steer it comes through.

use crate::common::process::finish;
use crate::common::{Done, TestSpace, tools_or_skip};
use crate::hostile::{Tar, config, docker_archive};
use std::fs;
use std::time::Duration;

/// Sets the title, clears the screen, answers back, turns what follows around: in the forms of seven and of eight bits.
const EVIL: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{1b}[6n\u{9b}2J\r\u{8}\u{202e}";

/// Whether a terminal would do something strange. Colours, and the cursor moves of our own progress, are let pass.
fn steers(text: &str, own_moves: bool) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_control() && !matches!(c, '\n' | '\t')) {
        rest = &rest[at..];
        // of a real terminal each line ends so, and our own progress goes back to the start of one
        if rest.starts_with("\r\n") || own_moves && rest.starts_with("\r\u{1b}[") {
            rest = &rest[1..];
            continue;
        }
        let Some(sequence) = rest.strip_prefix("\u{1b}[") else { return true };
        let end = sequence.find(|c: char| !c.is_ascii_digit() && c != ';' && c != '?').unwrap_or(0);
        let kind = sequence[end..].chars().next();
        let colour = kind == Some('m');
        let moves = own_moves
            && matches!(kind, Some('A' | 'F' | 'G' | 'J' | 'K' | 'h' | 'l'))
            && &sequence[..=end] != "2J";
        if !colour && !moves {
            return true;
        }
        rest = &sequence[end + 1..];
    }
    text.contains('\u{202e}')
}

#[track_caller]
fn assert_calm(what: &str, done: &Done) {
    for text in [&done.stdout, &done.stderr] {
        assert!(!steers(text, false), "{what}: {text:?}");
    }
}

/// A container or step may colour its output; nothing else.
#[test]
fn output_of_steps_and_names_in_files_cannot_steer() {
    let space = TestSpace::new().with_busybox();
    space.write("ctx/say", EVIL);
    let odd = format!("ctx/{}", EVIL.replace('\r', ""));
    space.write(&odd, "x");
    for (what, text) in [
        ("output", "FROM busybox\nCOPY say /\nRUN cat /say; cat /say >&2; printf '\\033[31mred\\033[0m\\n'; exit 3\n".to_owned()),
        ("an instruction", format!("FROM busybox\nRUN echo '{EVIL}' > /dev/null; false\n")),
        ("a label", format!("FROM busybox\nLABEL a=\"{EVIL}\" b=c\nENV X=\"{EVIL}\"\nRUN exit 1\n")),
        ("a stage", format!("FROM busybox AS {EVIL}\n")),
        ("an instruction's name", format!("FROM busybox\n{EVIL} x\n")),
        ("a flag", format!("FROM busybox\nCOPY --{EVIL}=x a b\n")),
        ("a source", format!("FROM busybox\nCOPY [\"{}\", \"/x\"]\n", "missing\\u001b[2J")),
        ("a base", format!("FROM {EVIL}\n")),
        ("a variable", format!("FROM busybox\nRUN echo ${{X:?{EVIL}}}\nENV A=${{B:?{EVIL}}}\n")),
        ("a user", format!("FROM busybox\nUSER \"{EVIL}\"\nRUN true\n")),
        ("a directory", format!("FROM busybox\nWORKDIR \"/x{EVIL}\"\nRUN false\n")),
        ("a mount", format!("FROM busybox\nRUN --mount=type={EVIL} true\n")),
        ("a command that is missing", "FROM busybox\nRUN [\"/no\\u001b[2Jsuch\"]\n".to_owned()),
        ("a file in the way", "FROM busybox\nCOPY . /x/\nRUN mv /x/*owned* /y && mkdir /x/y\nCOPY say /y/z\n".to_owned()),
    ] {
        let context = space.dockerfile(&text);
        for flags in [&["--progress", "plain"][..], &["--progress", "rawjson"], &["--check"]] {
            let mut args = vec!["build"];
            args.extend(flags);
            args.push("--no-cache");
            args.push(context.to_str().unwrap());
            let done = space.rbuild(&args);
            assert!(!done.stderr.contains("panicked"), "{what}\n{done}");
            assert_calm(&format!("{what} with {flags:?}"), &done);
        }
    }
    // What a step says in colour keeps it.
    let context = space.dockerfile("FROM busybox\nRUN printf '\\033[31mred\\033[0m\\n'; false\n");
    assert!(space.build(&context, &[]).stderr.contains("\u{1b}[31mred\u{1b}[0m"));
}

/// The same on a real terminal, where progress moves the cursor and tables are shown.
#[test]
fn a_terminal_shows_control_characters_and_does_not_obey() {
    if !tools_or_skip(&["script"]) {
        return;
    }
    let space = TestSpace::new().with_busybox();
    let layers = [fs::read(crate::common::base("busybox")).unwrap(), Tar::new().file("a", "x").end()];
    let mut config = config(&layers);
    config["config"]["Cmd"] = serde_json::json!(["sh", "-c", format!("# {EVIL}\nexit 0")]);
    config["config"]["Labels"] = serde_json::json!({ "l": EVIL });
    config["author"] = serde_json::json!(EVIL);
    config["history"] = serde_json::json!([{ "created_by": EVIL, "comment": EVIL }, { "created_by": EVIL }]);
    let archive = space.write("evil.tar", docker_archive(&config, &layers));
    space.rbuild(["load".as_ref(), "-i".as_ref(), archive.as_os_str()]).ok();
    space
        .rbuild(["create", "--name", "box", "--network", "none", "--label", &format!("l={EVIL}"), "evil:1"])
        .ok();
    space.rbuild(["volume", "create", "--label", &format!("l={EVIL}"), "vol"]).ok();
    space.write("ctx/say", EVIL);
    space.dockerfile("FROM busybox\nCOPY say /\nRUN cat /say /say /say; sleep 0.3; cat /say; exit 3\n");
    for line in [
        "build ctx",
        "images",
        "history --no-trunc evil:1",
        "ps -a --no-trunc",
        "ps -a --format '{{.Command}} {{.Labels}}'",
        "volume ls --format '{{.Labels}}'",
        "inspect box vol evil:1",
        "inspect -f '{{.Config.Labels}} {{.Author}}' evil:1",
        "inspect -f '{{index .Config.Labels \"l\"}}' evil:1",
        "history --format '{{.CreatedBy}}' --no-trunc evil:1",
        "run \"$(printf 'x\\033[2J\\007')\"",
        "build \"$(printf -- '--x\\033[2J\\007')\"",
        "load -i \"$(printf 'x\\033[2J\\007')\"",
        "rm \"$(printf 'x\\033[2J\\007')\"",
    ] {
        let command = format!("{} {line}", space.binary().display());
        let done = finish(
            space.tool("script").args(["-q", "-e", "-c", &command, "/dev/null"]).env("TERM", "xterm"),
            Some(b""),
            Duration::from_secs(120),
        );
        let said = done.stdout.clone();
        assert!(!said.is_empty(), "{line}");
        assert!(!steers(&said, true), "{line}: {said:?}");
    }
}
