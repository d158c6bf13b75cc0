//! `.dockerignore`: which files of a context a build sees. Every case is a list of files, the ignore file, and what
//! `COPY . /` leaves.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::path::Path;

use common::TestSpace;

/// What a build of `context` copies, without the empty directories.
fn copied(space: &TestSpace, context: &Path, flags: &[&str]) -> Vec<String> {
    let dest = space.path("out");
    let _ = std::fs::remove_dir_all(&dest);
    let output = format!("type=local,dest={}", dest.display());
    let mut args = vec!["--output", output.as_str()];
    args.extend(flags);
    space.build(context, &args).ok();
    let found = space.run_tool("find", [dest.to_str().unwrap(), "-type", "f", "-printf", "%P\n"]).ok().stdout;
    let mut names: Vec<String> = found.lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn rules_select_what_docker_would() {
    let files = [
        "a.txt",
        "b.md",
        "src/main.c",
        "src/main.o",
        "src/deep/x.o",
        "src/deep/keep.o",
        "node_modules/top.js",
        "src/node_modules/inner.js",
        "docs/a.md",
        "docs/b/c.md",
        "README.md",
        "#odd",
        "with space",
    ];
    let cases: &[(&str, &str, &[&str])] = &[
        ("nothing is excluded by an empty file", "", &files),
        ("a comment starts in the first column only", "#odd\n  # not a comment\n", &files),
        ("an escaped hash is a name", "\\#odd\n", &["-#odd"]),
        ("a name is anchored at the top", "node_modules\n", &["-node_modules/top.js"]),
        (
            "two stars match at any depth",
            "**/node_modules\n",
            &["-node_modules/top.js", "-src/node_modules/inner.js"],
        ),
        ("one star stays in its directory", "*.md\n", &["-b.md", "-README.md"]),
        ("two stars and a suffix", "**/*.o\n", &["-src/main.o", "-src/deep/x.o", "-src/deep/keep.o"]),
        ("slashes around a name do not matter", "/docs/\n", &["-docs/a.md", "-docs/b/c.md"]),
        ("dots are cleaned away", "./docs/../docs/b/.\n", &["-docs/b/c.md"]),
        ("blanks around a line are cut, inside they stay", "  with space  \n", &["-with space"]),
        ("a question mark is one character", "?.txt\n", &["-a.txt"]),
        ("a class of characters", "[a-b].*\n", &["-a.txt", "-b.md"]),
        ("the last match wins", "*.md\n!README.md\n", &["-b.md"]),
        ("and again", "!README.md\n*.md\n", &["-b.md", "-README.md"]),
        (
            "a file comes back out of an excluded directory",
            "src\n!src/deep/keep.o\n",
            &["-src/main.c", "-src/main.o", "-src/deep/x.o", "-src/node_modules/inner.js"],
        ),
        ("everything but one directory", "*\n!docs\ndocs/b\n", &["docs/a.md"]),
        (
            "a directory below comes back",
            "src/*\n!src/deep\n",
            &["-src/main.c", "-src/main.o", "-src/node_modules/inner.js"],
        ),
        ("case matters", "readme.md\n", &files),
        ("a byte order mark and CRLF are no part of a rule", "\u{feff}*.md\r\n!README.md\r\n", &["-b.md"]),
    ];
    let space = TestSpace::new();
    for file in files {
        space.write(&format!("ctx/{file}"), file);
    }
    // Outside the context, so that it is not among the files.
    let dockerfile = space.write("Dockerfile.all", "FROM scratch\nCOPY . /\n");
    let flags = ["-f", dockerfile.to_str().unwrap()];
    for (what, rules, wanted) in cases {
        space.write("ctx/.dockerignore", rules);
        let names: Vec<String> =
            copied(&space, &space.path("ctx"), &flags).into_iter().filter(|n| n != ".dockerignore").collect();
        let mut expected: Vec<&str> = if wanted.iter().any(|name| name.starts_with('-')) {
            files.iter().copied().filter(|name| !wanted.contains(&format!("-{name}").as_str())).collect()
        } else {
            wanted.to_vec()
        };
        expected.sort_unstable();
        assert_eq!(names, expected, "{what}: {rules:?}");
    }
}

#[test]
fn the_dockerfile_is_used_though_it_is_excluded() {
    let space = TestSpace::new();
    space.write("ctx/kept", "");
    space.write("ctx/.dockerignore", "Dockerfile\n.dockerignore\n");
    let context = space.dockerfile("FROM scratch\nCOPY . /\n");
    assert_eq!(copied(&space, &context, &[]), ["kept"]);
}

#[test]
fn the_file_beside_the_dockerfile_goes_first() {
    let space = TestSpace::new();
    for file in ["a", "b"] {
        space.write(&format!("ctx/{file}"), "");
    }
    space.write("ctx/.dockerignore", "a\n");
    space.write("ctx/other.Dockerfile", "FROM scratch\nCOPY a b* /\n");
    space.write("ctx/other.Dockerfile.dockerignore", "b\n");
    let file = space.path("ctx/other.Dockerfile");
    let context = space.path("ctx");
    let dest = format!("type=local,dest={}", space.path("out").display());
    let failed = space.build(&context, &["-f", file.to_str().unwrap(), "-o", &dest]);
    // `b*` matches nothing then, which is no error beside a source that does; `a` is there.
    failed.ok();
    assert!(space.path("out/a").exists() && !space.path("out/b").exists());
}

#[test]
fn an_excluded_file_is_not_found_by_name() {
    let space = TestSpace::new();
    space.write("ctx/secret.key", "x");
    space.write("ctx/.dockerignore", "*.key\n");
    let context = space.dockerfile("FROM scratch\nCOPY secret.key /\n");
    let failed = space.build(&context, &[]).refuses(1, &["secret.key", "not found"]);
    assert!(failed.stderr.contains(".dockerignore"), "the message says where to look\n{failed}");
}

#[test]
fn a_bad_rule_names_its_line() {
    let space = TestSpace::new();
    space.write("ctx/a", "");
    space.write("ctx/.dockerignore", "fine\n[a-\n");
    let context = space.dockerfile("FROM scratch\nCOPY a /\n");
    space.build(&context, &[]).refuses(1, &[".dockerignore", "[a-"]);
    space.write("ctx/.dockerignore", "!\n");
    space.build(&context, &[]).refuses(1, &[".dockerignore"]);
}
