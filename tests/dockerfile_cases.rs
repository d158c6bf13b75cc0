//! Builds every case of `fixtures/cases/` and compares files and config with what BuildKit makes of the same.
//!
//! A case is one text file. Lines before the first section: `# why`, and `key: value` with `build` (flags), `env`
//! (variables of the caller), `base` (`busybox` or `scratch`: what the expected lines leave out), `fails` (a phrase of
//! the message, when the build must fail) and `differs` (what BuildKit does instead, where that is on purpose). Then
//! sections `-- NAME --`: `Dockerfile` and other files of the context, or beside it with `../`; `setup`, a shell script
//! run in the context; and `expected`, the lines that `common/flat.rs` writes: kind, mode, owner and path of each file
//! that differs from the base, and the config.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::archive::Image;
use common::flat::{Tree, config_lines};
use common::{TestSpace, process, root_or_skip, tools_or_skip};

/// How many builds go at once.
const WORKERS: usize = 4;
/// How long one build may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// One case as it stands in its file.
struct Case {
    name: String,
    head: BTreeMap<String, String>,
    sections: BTreeMap<String, String>,
}

impl Case {
    fn read(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(path).unwrap();
        let (mut head, mut sections) = (BTreeMap::new(), BTreeMap::new());
        let mut section: Option<&str> = None;
        for line in text.split_inclusive('\n') {
            let title = line.strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --\n"));
            match (title, section) {
                (Some(title), _) => {
                    section = Some(title);
                    sections.insert(title.to_owned(), String::new());
                }
                (None, Some(title)) => sections.get_mut(title).unwrap().push_str(line),
                (None, None) if line.starts_with('#') => {}
                (None, None) => {
                    let (key, value) = line.split_once(':').unwrap_or_else(|| panic!("{name}: {line:?}"));
                    head.insert(key.to_owned(), value.trim().to_owned());
                }
            }
        }
        Self { name, head, sections }
    }

    fn head(&self, key: &str) -> &str {
        self.head.get(key).map_or("", String::as_str)
    }

    /// Writes the context and what is beside it, and runs the setup.
    fn lay_out(&self, space: &TestSpace) {
        space.mkdir(&format!("{}/ctx", self.name));
        for (name, content) in &self.sections {
            match name.strip_prefix("../") {
                _ if name == "setup" || name == "expected" => {}
                Some(beside) => drop(space.write(&format!("{}/{beside}", self.name), content)),
                None => drop(space.write(&format!("{}/ctx/{name}", self.name), content)),
            }
        }
        if let Some(script) = self.sections.get("setup") {
            let mut shell = space.tool("sh");
            shell.args(["-euc", &format!("umask 022\n{script}")]);
            shell.current_dir(space.path(&self.name).join("ctx"));
            process::finish(&mut shell, None, PATIENCE).ok();
        }
    }

    /// Builds it and says what is wrong with the result, line by line.
    fn check(&self, space: &TestSpace, busybox: &Tree) -> Result<(), String> {
        self.lay_out(space);
        let dir = space.path(&self.name);
        let dest = dir.join("out.tar");
        let mut command = space.command(["build", "--progress", "plain"]);
        command.args(self.head("build").split_whitespace());
        command.arg("--output").arg(format!("type=oci,compression=uncompressed,dest={}", dest.display()));
        command.arg("ctx").current_dir(&dir);
        command.envs(self.head("env").split_whitespace().filter_map(|pair| pair.split_once('=')));
        let done = process::finish(&mut command, None, PATIENCE);

        let phrase = self.head("fails");
        match (done.status.code(), phrase) {
            (Some(0), "") => {}
            (Some(0), _) => return Err(format!("it was built, but has to fail with {phrase:?}")),
            (Some(1..=127), phrase) if !phrase.is_empty() => {
                let said = done.stderr.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
                let says = said.contains(&phrase.to_lowercase());
                return if says { Ok(()) } else { Err(format!("the message lacks {phrase:?}\n{done}")) };
            }
            (code, _) => return Err(format!("the build failed ({code:?})\n{done}")),
        }
        let image = Image::from_oci(&dest);
        let scratch = Tree::default();
        let base = if self.head("base") == "scratch" { &scratch } else { busybox };
        let mut lines = Tree::of(&image.layers).lines(base);
        lines.extend(config_lines(&image.config));
        let expected = self.sections.get("expected").map_or("", String::as_str);
        difference(&expected.lines().collect::<Vec<_>>(), &lines)
    }
}

/// The lines that only one side has: `-` is missing, `+` is too much.
fn difference(expected: &[&str], lines: &[String]) -> Result<(), String> {
    let missing =
        expected.iter().filter(|line| !lines.iter().any(|l| l == *line)).map(|l| format!("  - {l}"));
    let extra = lines.iter().filter(|line| !expected.contains(&line.as_str())).map(|l| format!("  + {l}"));
    let all: Vec<String> = missing.chain(extra).collect();
    if all.is_empty() { Ok(()) } else { Err(all.join("\n")) }
}

/// The cases in the order of their names; `RBUILD_CASES` picks those whose name has one of its words.
fn cases() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases");
    let picked = std::env::var("RBUILD_CASES").unwrap_or_default();
    let mut all: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| {
        let name = path.file_stem().unwrap().to_string_lossy();
        picked.is_empty() || picked.split_whitespace().any(|word| name.contains(word))
    });
    all.sort();
    all
}

/// The base's tree, from the layer that importing it makes.
fn base_tree(space: &TestSpace) -> Tree {
    let dest = space.path("base.tar");
    let output = format!("type=oci,compression=uncompressed,dest={}", dest.display());
    let context = space.write("base/Dockerfile", "FROM busybox\n");
    space.build(context.parent().unwrap(), &["--output", &output]).ok();
    Tree::of(&Image::from_oci(&dest).layers)
}

#[test]
fn every_case_makes_the_image_that_buildkit_makes() {
    if !root_or_skip() || !tools_or_skip(&["tar", "gzip", "bzip2", "xz", "zstd", "setfattr"]) {
        return;
    }
    let cases = cases();
    assert!(!cases.is_empty(), "no case has such a name");
    let space = TestSpace::new().with_busybox();
    let busybox = base_tree(&space);
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(path) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let case = Case::read(path);
                    if let Err(what) = case.check(&space, &busybox) {
                        failed.lock().unwrap().insert(case.name, what);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    let list: Vec<String> = failed.iter().map(|(name, what)| format!("{name}\n{what}")).collect();
    assert!(failed.is_empty(), "{} of {} cases differ\n{}", failed.len(), cases.len(), list.join("\n"));
}
