//! What the integration tests share: a space of their own to run the real binary in, and the tools around it.
//!
//! Owns scratch directories, processes and their clean-up. Knows nothing of rbuild's insides: whatever a test wants to
//! know it learns from the command line, as a user does. A test that lacks a privilege or a tool says so through
//! [`skip`] and returns.
#![allow(dead_code, reason = "each test file is a crate of its own and uses its part of these helpers")]

pub(crate) mod archive;
pub(crate) mod docker;
pub(crate) mod flat;
pub(crate) mod fleet;
pub(crate) mod git;
pub(crate) mod git_http;
pub(crate) mod http;
pub(crate) mod process;
pub(crate) mod progress;
pub(crate) mod registry;
pub(crate) mod registry_log;
pub(crate) mod token;
pub(crate) mod user;
pub(crate) mod watch;
pub(crate) mod web;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(crate) use process::Done;
use user::User;

/// How long one call of rbuild may take before the test gives up on it: apt-get in a step on a slow day included.
const PATIENCE: Duration = Duration::from_secs(400);

/// A directory tree with its own store, and the binary under test to use on it. Everything goes when it is dropped.
pub(crate) struct TestSpace {
    dir: PathBuf,
    binary: PathBuf,
    user: Option<User>,
    disks: Mutex<Vec<PathBuf>>,
}

impl TestSpace {
    /// Makes an empty space for whoever runs the tests.
    pub(crate) fn new() -> Self {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        Self::make(fresh_dir(parent), binary_under_test(), None)
    }

    /// Makes an empty space of an ordinary user: the caller when that is one, else the test user that `scripts/setup`
    /// creates. Skips the test (and returns `None`) where there is no such user.
    pub(crate) fn rootless() -> Option<Self> {
        if !is_root() {
            return Some(Self::new());
        }
        let Some(user) = User::for_tests() else {
            skip("there is no ordinary user to run it as (scripts/setup creates one)");
            return None;
        };
        Some(Self::of_user(user))
    }

    /// Makes an empty space of a user that nobody has given subordinate ids to; needs root.
    pub(crate) fn rootless_without_ranges() -> Option<Self> {
        root_or_skip().then(|| Self::of_user(User::without_name(54_321)))
    }

    fn of_user(user: User) -> Self {
        // Not below the checkout: its parents are often closed to other users. Not in /tmp: overlays on a tmpfs
        // need a younger kernel in a user namespace.
        let dir = fresh_dir(Path::new("/var/tmp"));
        let binary = dir.join("rbuild");
        copy_program(&binary_under_test(), &binary);
        user.own(&dir);
        user.own(&binary);
        Self::make(dir, binary, Some(user))
    }

    fn make(dir: PathBuf, binary: PathBuf, user: Option<User>) -> Self {
        let space = Self { dir, binary, user, disks: Mutex::default() };
        for name in ["home", "tmp", "run"] {
            let path = space.mkdir(name);
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("own directory");
        }
        space
    }

    /// Imports the busybox base as `busybox:latest`.
    pub(crate) fn with_busybox(self) -> Self {
        self.import("busybox");
        self
    }

    /// Imports the Debian base as `debian:latest`.
    pub(crate) fn with_debian(self) -> Self {
        self.import("debian");
        self
    }

    /// Imports a base image as `NAME:latest` and returns what the command said.
    pub(crate) fn import(&self, name: &str) -> Done {
        let mut tar = base(name);
        if self.user.is_some() {
            let copy = self.path(&format!("{name}.tar"));
            fs::copy(&tar, &copy).expect("the base can be copied");
            self.own(&copy);
            tar = copy;
        }
        self.rbuild(["import".as_ref(), tar.as_os_str(), name.as_ref()]).ok()
    }

    /// The path of `rel` in this space.
    pub(crate) fn path(&self, rel: &str) -> PathBuf {
        self.dir.join(rel)
    }

    /// The store (`--root`) of this space.
    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Makes a directory with its parents, owned by the space's user.
    pub(crate) fn mkdir(&self, rel: &str) -> PathBuf {
        let path = self.path(rel);
        if !path.exists() {
            if let Some(parent) = Path::new(rel).parent().and_then(Path::to_str) {
                self.mkdir(parent);
            }
            fs::create_dir(&path).expect("a new directory");
            self.own(&path);
        }
        path
    }

    /// Mounts an empty file system of so many MiB of memory at `rel`, until the space is dropped; needs root.
    pub(crate) fn small_disk(&self, rel: &str, mebibytes: u32) -> PathBuf {
        let path = self.mkdir(rel);
        let size = format!("size={mebibytes}m");
        nix::mount::mount(
            Some("tmpfs"),
            &path,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(size.as_str()),
        )
        .expect("root may mount a tmpfs");
        self.disks.lock().expect("no holder panics").push(path.clone());
        path
    }

    /// Writes a file, with the directories above it; replaces one that is there.
    pub(crate) fn write(&self, rel: &str, content: impl AsRef<[u8]>) -> PathBuf {
        if let Some(parent) = Path::new(rel).parent().and_then(Path::to_str) {
            self.mkdir(parent);
        }
        let path = self.path(rel);
        fs::write(&path, content).expect("a file can be written");
        self.own(&path);
        path
    }

    /// Writes a program that can be started at once.
    pub(crate) fn program(&self, rel: &str, text: &str) -> PathBuf {
        let draft = self.write(&format!("{rel}.draft"), text);
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).expect("own file");
        let path = self.path(rel);
        copy_program(&draft, &path);
        fs::remove_file(draft).expect("own file");
        self.own(&path);
        path
    }

    /// Writes a Dockerfile into the context `ctx` and returns the context's path.
    pub(crate) fn dockerfile(&self, text: &str) -> PathBuf {
        self.write("ctx/Dockerfile", text);
        self.path("ctx")
    }

    /// Copies a directory of `fixtures/` into the space under the same name, and returns its path.
    pub(crate) fn fixture(&self, name: &str) -> PathBuf {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
        self.mkdir(name);
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(from.join(&folder)).expect("a fixture") {
                let rel = folder.join(entry.expect("a readable fixture").file_name());
                let to = format!("{name}/{}", rel.display());
                if from.join(&rel).is_dir() {
                    self.mkdir(&to);
                    folders.push(rel);
                } else {
                    self.write(&to, fs::read(from.join(&rel)).expect("a readable fixture"));
                }
            }
        }
        self.path(name)
    }

    /// The binary that this space uses.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    fn own(&self, path: &Path) {
        if let Some(user) = &self.user {
            user.own(path);
        }
    }

    /// The binary with a clean environment, not yet started: no stdin, output captured.
    pub(crate) fn command<I, S>(&self, args: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.tool(&self.binary);
        command.args(args);
        command
    }

    /// Any other program, started as rbuild is: same user, same clean environment.
    pub(crate) fn tool(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("RBUILD_ROOT", self.store())
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(user) = &self.user {
            user.become_in(&mut command);
        }
        command
    }

    /// Runs rbuild to its end.
    pub(crate) fn rbuild<I, S>(&self, args: I) -> Done
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        process::finish(&mut self.command(args), None, PATIENCE)
    }

    /// Runs rbuild to its end with `input` on its stdin.
    pub(crate) fn rbuild_fed<I, S>(&self, args: I, input: &[u8]) -> Done
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        process::finish(&mut self.command(args), Some(input), PATIENCE)
    }

    /// Runs another program to its end.
    pub(crate) fn run_tool<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Done {
        process::finish(self.tool(program).args(args), None, PATIENCE)
    }

    /// Builds `context` with plain progress.
    pub(crate) fn build(&self, context: &Path, args: &[&str]) -> Done {
        let mut all: Vec<&OsStr> = vec!["build".as_ref(), "--progress".as_ref(), "plain".as_ref()];
        all.extend(args.iter().map(OsStr::new));
        all.push(context.as_os_str());
        self.rbuild(all)
    }

    /// Builds a Dockerfile alone (in the context `ctx`) as the image `tag`; the build must succeed.
    pub(crate) fn build_text(&self, tag: &str, dockerfile: &str) -> Done {
        let context = self.dockerfile(dockerfile);
        self.build(&context, &["-t", tag]).ok()
    }

    /// Builds and returns the image id from `--iidfile`.
    pub(crate) fn build_id(&self, context: &Path, args: &[&str]) -> String {
        let file = self.path("iid");
        let mut all = vec!["--iidfile", file.to_str().expect("a plain path")];
        all.extend(args);
        self.build(context, &all).ok();
        let id = fs::read_to_string(&file).expect("--iidfile was written");
        assert!(is_image_id(&id), "--iidfile holds {id:?}");
        id
    }

    /// Runs a command in a fresh container of `image` without network and returns its stdout; it must succeed.
    pub(crate) fn stdout_of(&self, image: &str, command: &[&str]) -> String {
        let mut args = vec!["run", "--rm", "--network", "none", image];
        args.extend(command);
        self.rbuild(args).ok().stdout
    }

    /// What `inspect` says of an image.
    pub(crate) fn inspect(&self, image: &str) -> serde_json::Value {
        let text = self.rbuild(["inspect", image]).ok().stdout;
        let all: serde_json::Value = serde_json::from_str(&text).expect("inspect prints JSON");
        all[0].clone()
    }

    /// Fails when a process, a mount or a network namespace of this space is left.
    pub(crate) fn assert_nothing_runs(&self) {
        if self.user.is_some() || !is_root() {
            // what an ordinary user's containers share ends on its own when the last one has ended
            process::eventually("nothing is left", Duration::from_secs(30), || {
                process::holding(&self.dir).is_empty()
            });
        }
        let left = process::holding(&self.dir);
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    }
}

impl Drop for TestSpace {
    fn drop(&mut self) {
        // What a test has left running goes with its space, also when it fails.
        if self.store().join("containers/names").exists() {
            let left = self.command(["ps", "-aq"]).output().map(|out| out.stdout).unwrap_or_default();
            let left = String::from_utf8_lossy(&left).into_owned();
            if !left.trim().is_empty() {
                let _ = self.command(["rm", "-f"].into_iter().chain(left.lines())).output();
            }
        }
        for disk in self.disks.lock().expect("no holder panics").iter() {
            let _ = nix::mount::umount2(disk, nix::mount::MntFlags::MNT_DETACH);
        }
        if fs::remove_dir_all(&self.dir).is_ok() || is_root() {
            return;
        }
        // An ordinary user's store holds files of its subordinate ids, which only their user namespace may remove.
        let _ = Command::new("unshare")
            .args(["--map-auto", "--map-root-user", "rm", "-rf"])
            .arg(&self.dir)
            .stdin(Stdio::null())
            .status();
    }
}

/// The binary that cargo has just built, or the one that `RBUILD_TEST_BINARY` names (an installed release).
fn binary_under_test() -> PathBuf {
    std::env::var_os("RBUILD_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_rbuild").into(), PathBuf::from)
}

/// Copies a program with its mode, in another process: a descriptor that is open for writing here may be copied into a
/// process that another test forks at this moment, and as long as that lives nobody can start the program.
fn copy_program(from: &Path, to: &Path) {
    let copied =
        Command::new("cp").arg(from).arg(to).stdin(Stdio::null()).status().expect("cp can be started");
    assert!(copied.success(), "{} cannot be copied", from.display());
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says why a test does not run here, so that a green result is not mistaken for a tested one.
#[expect(clippy::print_stderr, reason = "the test harness shows it with --nocapture, the CI log in full")]
pub(crate) fn skip(why: &str) {
    let thread = std::thread::current();
    eprintln!("skipped {}: {why}", thread.name().unwrap_or("test"));
}

/// Whether the tests run as root; says why the test is skipped when not.
pub(crate) fn root_or_skip() -> bool {
    if !is_root() {
        skip("it needs root");
    }
    is_root()
}

/// Whether all `programs` are installed; says which one is missing otherwise.
pub(crate) fn tools_or_skip(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    match programs.iter().find(|program| !dirs.iter().any(|dir| dir.join(program).exists())) {
        Some(missing) => {
            skip(&format!("{missing} is not installed (scripts/setup installs it)"));
            false
        }
        None => true,
    }
}

/// The root file system tar of a base image, made when it is missing.
pub(crate) fn base(name: &str) -> PathBuf {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = std::env::var_os("RBUILD_BASES").map_or_else(|| checkout.join(".cache/bases"), PathBuf::from);
    let tar = dir.join(format!("{name}.tar"));
    if !tar.exists() {
        let made = Command::new(checkout.join("scripts/bases")).arg(name).stdin(Stdio::null()).output();
        let made = made.expect("scripts/bases can be started");
        assert!(made.status.success(), "scripts/bases {name}: {}", String::from_utf8_lossy(&made.stderr));
    }
    tar
}

/// Whether `text` is `sha256:` with 64 hex digits and nothing more.
pub(crate) fn is_image_id(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')))
}

/// A new directory in `parent` with a name that no other test has.
fn fresh_dir(parent: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = parent.join(format!("rbuild-space-{}-{n}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory for the test");
    dir
}

/// Whether device nodes can be guarded here, so that they work in containers: root, and cgroup 2 to be written to.
pub(crate) fn guards_devices() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let writable =
        |line: &str| line.split(' ').nth(5).is_some_and(|options| options.split(',').any(|o| o == "rw"));
    is_root() && mounts.lines().any(|line| line.contains(" - cgroup2 ") && writable(line))
}
