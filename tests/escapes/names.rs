//! Names that would be paths: of caches, secrets, stages, tags, containers, volumes, networks, heredocs.

use crate::canary::Canary;
use crate::common::{Done, TestSpace};
use crate::spaces;
use std::fs;

/// What no name may be.
fn paths(canary: &Canary) -> Vec<String> {
    let mut all: Vec<String> = [
        "..",
        ".",
        "../x",
        "../../outside",
        "a/../../outside",
        "/outside",
        "a/b",
        "a\nb",
        "-rf",
        "a b",
        "a\u{1b}[2Jb",
        "",
        "a\\b",
        "~",
    ]
    .map(str::to_owned)
    .to_vec();
    all.extend([canary.path("secret"), canary.dotted("dir"), "n".repeat(5000), "a:b:c".into(), "ä".into()]);
    all
}

#[track_caller]
fn assert_refused(what: &str, done: &Done) {
    assert!(matches!(done.status.code(), Some(1 | 2 | 125)), "{what:?}: {}\n{done}", done.status);
    assert!(!done.stderr.contains("panicked") && !done.stderr.contains('\u{1b}'), "{what:?}\n{done}");
    assert!(done.stderr.starts_with("error:"), "{what:?}\n{done}");
}

#[test]
fn names_on_the_command_line_are_no_paths() {
    let space = TestSpace::new().with_busybox();
    let canary = Canary::plant(&space);
    space.dockerfile("FROM busybox\n");
    for name in paths(&canary) {
        let name = name.as_str();
        let mut commands: Vec<Vec<&str>> = vec![
            vec!["container", "create", "--name", name, "busybox"],
            vec!["volume", "create", "--", name],
            vec!["volume", "rm", "--", name],
            vec!["volume", "inspect", "--", name],
            vec!["network", "create", "--", name],
            vec!["network", "rm", "--", name],
            vec!["rm", "-f", "--", name],
            vec!["logs", "--", name],
            vec!["exec", "--", name, "true"],
            vec!["stop", "--", name],
            vec!["rmi", "--", name],
            vec!["inspect", "--", name],
            vec!["history", "--", name],
            vec!["tag", "busybox", "--", name],
            vec!["build", "-t", name, "ctx"],
            vec!["build", "--target", name, "ctx"],
            vec!["save", "-o", "out", "--", name],
        ];
        // a name that is too much like a good one, or means something else there
        commands.retain(|command| match (command[0], command[1], name) {
            ("volume", "create", "") | ("network" | "volume", "create", "ä") => false,
            ("tag", ..) | ("build", "-t", _) if name == "a/b" => false,
            ("build", "--target", "") => false,
            ("rm", ..) => false,
            // docker writes a name with a slash before it, and chooses one where there is none
            ("container", "create", "/outside" | "") => false,
            _ => true,
        });
        for command in commands {
            assert_refused(&command.join(" "), &space.rbuild(&command));
        }
        // docker's rm -f is content with nothing
        let done = space.rbuild(["rm", "-f", "--", name]);
        assert!(matches!(done.status.code(), Some(0 | 1)), "rm {name:?}\n{done}");
        canary.assert_untouched(name);
    }
    let listed = space.rbuild(["ps", "-aq"]).ok().stdout + &space.rbuild(["volume", "ls", "-q"]).ok().stdout;
    assert_eq!(listed, "");
}

#[test]
fn volumes_and_containers_of_mount_flags_are_no_paths() {
    let space = TestSpace::new().with_busybox();
    let canary = Canary::plant(&space);
    for name in ["../../outside", "..", ".", "a/b", "a/../../outside", "~"] {
        for flags in [
            ["--mount".to_owned(), format!("type=volume,src={name},dst=/d")],
            ["--volumes-from".to_owned(), name.to_owned()],
            ["--network".to_owned(), format!("container:{name}")],
            ["--network".to_owned(), name.to_owned()],
        ] {
            let mut args = vec!["run", "--rm"];
            args.extend(flags.iter().map(String::as_str));
            args.extend(["busybox", "touch", "/d/planted"]);
            assert_refused(&flags.join(" "), &space.rbuild(&args));
        }
        canary.assert_untouched(name);
    }
    // A part of a volume is found inside it, whatever links its users leave there.
    space.rbuild(["volume", "create", "vol"]).ok();
    let script = format!("ln -s {} /d/abs; ln -s {} /d/up; mkdir /d/sub", canary.path(""), canary.dotted(""));
    space.rbuild(["run", "--rm", "--network", "none", "-v", "vol:/d", "busybox", "sh", "-c", &script]).ok();
    for part in ["abs", "up", "abs/dir", "../..", "sub/../../..", "/../../outside"] {
        let mount = format!("type=volume,src=vol,dst=/m,volume-subpath={part}");
        let done = space.rbuild([
            "run",
            "--rm",
            "--network",
            "none",
            "--mount",
            &mount,
            "busybox",
            "sh",
            "-c",
            "cat /m/secret /m/dir/inner; echo owned > /m/secret; echo owned > /m/planted",
        ]);
        assert!(!done.stdout.contains("the host's own"), "{part}\n{done}");
        canary.assert_untouched(&format!("part {part}\n{done}"));
    }
}

#[test]
fn names_in_dockerfiles_are_no_paths() {
    for (at, space) in spaces().into_iter().enumerate() {
        let canary = Canary::plant(&space);
        space.write("ctx/s", "a secret\n");
        for name in ["..", ".", "../x", "../../outside", "/outside", "a/b", "-x", "~", "\u{1b}[2J"] {
            let stage = format!("FROM busybox AS {name}\nRUN true\n");
            let source = format!("FROM busybox\nCOPY --from={name} /secret /\n");
            // the name of an image that somebody may have
            let good = name == "a/b";
            for text in [stage].into_iter().chain((!good).then_some(source)) {
                let done = space.build(&space.dockerfile(&text), &[]);
                assert!(done.status.code() == Some(1), "{text}\n{done}");
                assert!(
                    !done.stderr.contains("panicked") && !done.stderr.contains('\u{1b}'),
                    "{text}\n{done}"
                );
            }
        }
        let long = "n".repeat(5000);
        let (dotted, secret) = (canary.dotted("dir"), canary.path("dir"));
        let ids = [
            &secret,
            "../../outside",
            "..",
            ".",
            "/outside",
            "a/b",
            "-rf",
            &long,
            &dotted,
            "\u{1b}[2J",
            "a\\b",
            "%s",
            "$(id)",
        ];
        // the first of them for the ordinary user, too
        for id in &ids[..if at == 0 { ids.len() } else { 2 }] {
            // quotes keep what is odd in one word
            let text = format!(
                "FROM busybox\nARG ID='{id}'\nRUN --mount=type=cache,id=$ID,target=/c --mount=type=cache,id=$ID,sharing=locked,target=/l \
                 --mount=type=cache,id=$ID,sharing=private,target=/p echo owned | tee /c/planted /l/planted > /p/planted\n\
                 RUN --mount=type=secret,id=$ID true\nRUN --mount=type=ssh,id=$ID true\n"
            );
            let done = space.build(&space.dockerfile(&text), &[]);
            assert!(matches!(done.status.code(), Some(0 | 1)), "{id:?}\n{done}");
            assert!(!done.stderr.contains("panicked") && !done.stderr.contains('\u{1b}'), "{id:?}\n{done}");
            canary.assert_untouched(id);
        }
        for entry in fs::read_dir(space.store().join("mounts")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(name.bytes().all(|c| c.is_ascii_hexdigit() || c == b'-'), "a cache is called {name:?}");
        }
        for heredoc in ["../../outside/secret", "/outside", "..", ".", "a/b"] {
            let text = format!("FROM busybox\nCOPY <<\"{heredoc}\" /x/\nowned\n{heredoc}\n");
            space
                .build(&space.dockerfile(&text), &[])
                .refuses(1, &["cannot be the name of a file", "Dockerfile:2"]);
            canary.assert_untouched(heredoc);
        }
    }
}

/// Addresses that make git or curl run something.
#[test]
fn addresses_run_nothing() {
    let space = TestSpace::new().with_busybox();
    let canary = Canary::plant(&space);
    let planted = canary.path("planted");
    for address in [
        format!("ext::sh -c touch% {planted}"),
        format!("git::ext::sh -c touch% {planted}"),
        format!("git@-oProxyCommand=touch {planted}:x/y.git"),
        format!("ssh://-oProxyCommand=touch%20{planted}/x.git"),
        format!("git://127.0.0.1:1/x.git#--upload-pack=touch {planted}"),
        format!("http://127.0.0.1:1/x.git#--upload-pack=touch {planted}:../.."),
        format!("--upload-pack=touch {planted}"),
        format!("file://{}", canary.path("")),
        "http://127.0.0.1:1/x.git#main:../../outside".to_owned(),
    ] {
        let done = space.rbuild(["build", "--", &address]);
        assert!(matches!(done.status.code(), Some(1 | 2)), "{address}\n{done}");
        let text = format!("FROM busybox\nADD [\"{address}\", \"/x/\"]\n");
        let done = space.build(&space.dockerfile(&text), &[]);
        assert_eq!(done.status.code(), Some(1), "{address}\n{done}");
        canary.assert_untouched(&address);
    }
}
