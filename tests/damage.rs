//! Files of the store that are spoiled: `system check` finds each of them, no command panics or gives a wrong image, and
//! `system check --repair` leaves a store in which the same builds and loads give the same again.
//!
//! `RBUILD_LONG=1` spoils each file in every way; else in two of them.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::process::{self, Done, Running};
use common::{TestSpace, base, root_or_skip};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

/// How a file is spoiled, in a word.
type Way = (&'static str, fn(&Path));

const WAYS: [Way; 5] = [
    ("emptied", |path| fs::write(path, b"").unwrap()),
    ("cut", |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }),
    ("garbage", |path| fs::write(path, vec![0xa5; 700]).unwrap()),
    ("one bit", |path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(path, bytes).unwrap();
    }),
    ("gone", |path| fs::remove_file(path).unwrap()),
];

/// What is expected of a spoiled file.
struct Kind {
    /// What it is called here.
    name: &'static str,
    /// Finds it in a store.
    find: fn(&Path) -> PathBuf,
    /// Ways after which it may be as if it had never been.
    unseen: &'static [&'static str],
    /// A program would read it without knowing; only the check does.
    only_checked: bool,
    /// Nobody can make it again.
    lost: bool,
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// The file below `dir` that a pattern of the content or name chooses.
fn search(dir: &Path, fits: &dyn Fn(&Path) -> bool) -> PathBuf {
    let mut next = vec![dir.to_owned()];
    while let Some(dir) = next.pop() {
        for path in below(&dir).into_iter().filter(|path| !path.is_symlink()) {
            if path.is_dir() {
                next.push(path);
            } else if fits(&path) {
                return path;
            }
        }
    }
    panic!("there is none in {}", dir.display());
}

fn ends(dir: &Path, end: &str) -> PathBuf {
    search(dir, &|path| path.ends_with(end))
}

fn blob(store: &Path, word: &str) -> PathBuf {
    search(&store.join("images/blobs/sha256"), &|path| {
        fs::read(path).unwrap().windows(word.len()).any(|part| part == word.as_bytes())
    })
}

const KINDS: [Kind; 17] = [
    Kind {
        name: "list of images",
        find: |s| s.join("images/index.json"),
        unseen: &[],
        only_checked: false,
        lost: false,
    },
    Kind {
        name: "its copy",
        find: |s| s.join("images/index.copy.json"),
        unseen: &[],
        only_checked: false,
        lost: false,
    },
    Kind {
        name: "manifest",
        find: |s| blob(s, "\"schemaVersion\":2"),
        unseen: &[],
        only_checked: false,
        lost: true,
    },
    Kind { name: "config", find: |s| blob(s, "\"rootfs\""), unseen: &[], only_checked: false, lost: true },
    Kind {
        name: "layer",
        find: |s| {
            search(&s.join("images/blobs/sha256"), &|path| {
                fs::read(path).unwrap().get(257..262) == Some(b"ustar")
            })
        },
        unseen: &["gone"],
        only_checked: false,
        lost: false,
    },
    Kind {
        name: "snapshot record",
        find: |s| ends(&s.join("snapshots"), "record.json"),
        unseen: &[],
        only_checked: false,
        lost: false,
    },
    Kind {
        name: "snapshot tree",
        find: |s| ends(&s.join("snapshots"), "tree"),
        unseen: &[],
        only_checked: false,
        lost: false,
    },
    Kind {
        name: "record of a tar",
        find: |s| ends(&s.join("snapshots"), "layer.json"),
        unseen: &["gone"],
        only_checked: false,
        lost: false,
    },
    Kind {
        name: "file of a layer",
        find: |s| ends(&s.join("snapshots"), "fs/etc/passwd"),
        unseen: &[],
        only_checked: true,
        lost: false,
    },
    Kind {
        name: "shared file",
        find: |s| search(&s.join("files"), &|_| true),
        unseen: &["gone"],
        only_checked: true,
        lost: false,
    },
    Kind {
        name: "step",
        find: |s| search(&s.join("steps"), &|_| true),
        unseen: &["gone"],
        only_checked: false,
        lost: false,
    },
    Kind {
        name: "context",
        find: |s| search(&s.join("contexts"), &|_| true),
        unseen: &["gone"],
        only_checked: false,
        lost: false,
    },
    Kind {
        name: "index",
        find: |s| s.join("index/conf"),
        unseen: &["gone", "emptied", "cut"],
        only_checked: false,
        lost: false,
    },
    Kind {
        name: "container",
        find: |s| ends(&s.join("containers"), "config.json"),
        unseen: &["one bit"],
        only_checked: false,
        lost: true,
    },
    Kind {
        name: "container's state",
        find: |s| ends(&s.join("containers"), "state.json"),
        unseen: &["gone", "emptied", "one bit"],
        only_checked: false,
        lost: true,
    },
    Kind {
        name: "volume",
        find: |s| s.join("volumes/data/volume.json"),
        unseen: &["gone", "one bit"],
        only_checked: false,
        lost: false,
    },
    Kind {
        name: "network",
        find: |s| search(&s.join("networks/defined"), &|_| true),
        unseen: &["gone", "one bit"],
        only_checked: false,
        lost: false,
    },
];

struct Victim<'a> {
    space: &'a TestSpace,
    root: PathBuf,
    context: String,
    archive: String,
}

impl Victim<'_> {
    #[track_caller]
    fn run(&self, args: &[&str]) -> Done {
        let mut command = self.space.command(args);
        let done = process::finish(command.env("RBUILD_ROOT", &self.root), None, PATIENCE);
        assert!(
            done.status.code().is_some_and(|code| code != 101) && !done.stderr.contains("panicked"),
            "{args:?}\n{done}"
        );
        done
    }

    fn build(&self) -> Done {
        self.run(&["build", "-q", "--build-arg=SOURCE_DATE_EPOCH=1700000000", "-t", "app", &self.context])
    }

    fn copy(&self, name: &str) -> Self {
        let root = self.space.path(name);
        assert!(Command::new("cp").arg("-a").args([&self.root, &root]).status().unwrap().success());
        Self { space: self.space, root, context: self.context.clone(), archive: self.archive.clone() }
    }

    /// What the image shows, and its bytes as an archive.
    fn outcome(&self, app: &str) -> [Done; 2] {
        let archive = self.root.with_extension("tar");
        let show = ["run", "--rm", "--network", "none", app, "sh", "-c", "cat /f /g /etc/passwd"];
        let save = self.run(&["save", "-o", archive.to_str().unwrap(), app]);
        let sum = fs::read(&archive).map(|bytes| common::archive::sha256(&bytes)).unwrap_or_default();
        let _ = fs::remove_file(&archive);
        [self.run(&show), Done { stdout: sum, ..save }]
    }
}

/// A loaded base, an image on it, a container, a volume, a network.
fn template(space: &TestSpace) -> Victim<'_> {
    space.write("ctx/f", "text of a file\n");
    let context = space.dockerfile("FROM base\nCOPY f /f\nRUN cat /f > /g\n").display().to_string();
    let archive = space.path("base.tar").display().to_string();
    let made = Victim { space, root: space.path("other"), context, archive };
    made.run(&["import", base("busybox").to_str().unwrap(), "base"]).ok();
    made.run(&["save", "--format", "oci", "-o", &made.archive, "base"]);
    if !Path::new(&made.archive).exists() {
        made.run(&["save", "-o", &made.archive, "base"]).ok();
    }
    let victim = Victim { root: space.path("template"), ..made };
    victim.run(&["load", "-q", "-i", &victim.archive]).ok();
    victim.build().ok();
    victim.run(&["volume", "create", "data"]).ok();
    victim.run(&["network", "create", "net"]).ok();
    victim.run(&["run", "--name", "box", "--network", "none", "app", "true"]).ok();
    victim.run(&["system", "check"]).ok();
    victim
}

fn spoil(template: &Victim<'_>, kind: &Kind, way: Way, wanted: &[String; 2]) {
    let victim = template.copy(&format!("{}-{}", kind.name, way.0).replace([' ', '\''], "_"));
    let path = (kind.find)(&victim.root);
    way.1(&path);
    let check = victim.run(&["system", "check"]);
    let seen = check.status.code() == Some(1);
    assert!(seen || kind.unseen.contains(&way.0), "not found\n{check}");
    // an image is as it was, or there is none and a reason
    for image in ["app", "base"] {
        if kind.only_checked {
            continue;
        }
        for (done, wanted) in victim.outcome(image).iter().zip(wanted) {
            let right = done.status.success() && (image == "base" || done.stdout == *wanted);
            let refused = !done.status.success() && done.stderr.contains("error: ");
            let no_file = image == "base" && done.stderr.contains("can't open '/f'");
            assert!(right || refused || no_file, "{image}\n{done}");
        }
    }
    victim.run(&["system", "check", "--repair"]);
    victim.run(&["load", "-q", "-i", &victim.archive]).ok();
    victim.build().ok();
    let after = victim.outcome("app");
    for (done, wanted) in after.iter().zip(wanted) {
        assert_eq!(done.stdout, *wanted, "after repair\n{done}");
    }
    let check = victim.run(&["system", "check"]);
    assert!(kind.lost || check.status.success(), "{check}");
    fs::remove_dir_all(&victim.root).unwrap();
}

#[test]
fn spoiled_files_are_found_and_made_good() {
    if !root_or_skip() {
        return;
    }
    let space = TestSpace::new();
    let template = template(&space);
    let wanted = template.outcome("app").map(|done| done.ok().stdout);
    let long = std::env::var_os("RBUILD_LONG").is_some();
    let ways = |n: usize| (0..WAYS.len()).filter(move |way| long || [n % 5, (n + 3) % 5].contains(way));
    let all: Vec<(&Kind, usize)> =
        KINDS.iter().enumerate().flat_map(|(n, kind)| ways(n).map(move |way| (kind, way))).collect();
    let (next, failed) = (Mutex::new(all.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((kind, way)) = next.lock().unwrap().next() else { break };
                    let one = || spoil(&template, kind, WAYS[*way], &wanted);
                    if let Err(error) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(one)) {
                        let text = error.downcast_ref::<String>().cloned().unwrap_or_default();
                        failed.lock().unwrap().push(format!("{} {}: {text}", kind.name, WAYS[*way].0));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn a_lost_layer_is_unpacked_again_and_one_without_a_blob_is_named() {
    if !root_or_skip() {
        return;
    }
    let space = TestSpace::new();
    let victim = template(&space);
    for entry in below(&victim.root.join("snapshots")) {
        if entry.is_symlink() { fs::remove_file(entry) } else { fs::remove_dir_all(entry) }.unwrap();
    }
    let check = victim.run(&["system", "check"]).code(1);
    assert!(check.stdout.contains("image base:latest: a layer is not unpacked any more"), "{check}");
    assert!(check.stdout.contains("image app:latest: layer 2 of 3 ("), "{check}");
    victim
        .run(&["run", "--rm", "--network", "none", "app", "true"])
        .refuses(125, &["layer 2 of 3", "is lost"]);
    victim.run(&["run", "--rm", "--network", "none", "base", "true"]).ok();
    victim.build().ok();
    victim.run(&["run", "--rm", "--network", "none", "app", "true"]).ok();
    victim.run(&["rm", "box"]).ok();
    victim.run(&["system", "check", "--repair"]).ok();
}

#[test]
fn whoever_waits_is_told_for_whom() {
    let space = TestSpace::new();
    space.rbuild(["images"]).ok();
    let lock = fs::File::create(space.store().join("locks/gc")).unwrap();
    let held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let mut waits = Running::start(&mut space.command(["builder", "prune", "-f"]));
    waits.wait_for("waiting for the lock \"gc\", which process ", PATIENCE);
    let told = waits.so_far();
    assert!(told.contains(&format!("process {} (", std::process::id())), "{told}");
    drop(held);
    waits.wait(PATIENCE).ok();
}
