//! A commit from a git remote, by the git program.
//!
//! It runs without the configuration of the user or the machine, without hooks, without prompts, with the network
//! transports only; refs and addresses were checked by [`GitSource`] and stand after `--`. The tree is then made the
//! same on every machine: modes 0644 and 0755, no `.git` unless it is asked for.

use super::{GitSource, RemoteError, redact};
use crate::sys::{fsutil, inroot};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps};
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How git is used.
#[derive(Debug, Clone, Copy, Default)]
pub struct GitOptions<'a> {
    /// Keep `.git`, unless the address says otherwise.
    pub keep_git_dir: bool,
    /// The agent's socket for ssh remotes.
    pub ssh_auth_sock: Option<&'a Path>,
}

/// Longest end of git's own words in an error, in bytes.
const MESSAGE: usize = 2000;

/// Asks the remote which commit the address means.
pub fn resolve(source: &GitSource, options: &GitOptions<'_>) -> Result<String, RemoteError> {
    let commit = match (&source.checksum, source.reference.as_deref()) {
        (Some(checksum), _) if source.by_commit && is_commit(checksum) => return Ok(checksum.clone()),
        (_, Some(reference)) if is_commit(reference) => Found::only(reference.to_owned()),
        (_, reference) => ask(source, reference.unwrap_or("HEAD"), options)?,
    };
    if let Some(want) = &source.checksum
        && !commit.names.iter().any(|name| name.starts_with(&want.to_ascii_lowercase()))
    {
        let (url, want, found) = (redact(&source.remote), want.clone(), commit.commit);
        return Err(RemoteError::Checksum { url, want, found });
    }
    Ok(commit.commit)
}

/// Fetches a commit and gives the directory below the empty directory `into` that holds the wanted tree.
pub fn checkout(
    source: &GitSource,
    commit: &str,
    options: &GitOptions<'_>,
    into: &Path,
) -> Result<PathBuf, RemoteError> {
    let keep = |e: io::Error| RemoteError::Keep { url: redact(&source.remote), source: e };
    let keep_git = keeps_git(source, options);
    let (tree, git_dir) = places(source, options, into);
    rustix::fs::mkdir(&tree, Mode::from_raw_mode(0o755)).map_err(|e| keep(e.into()))?;
    let git = Git { source, options, dirs: Some((&tree, &git_dir)) };
    git.run(["-c", "init.defaultBranch=master", "init", "-q"])?;
    git.fetch(commit)?;
    git.run(["checkout", "-q", "--force", "--detach", commit])?;
    if source.submodules
        && fsutil::stat_at(open(&tree).map_err(keep)?.as_fd(), OsStr::new(".gitmodules"))
            .map_err(keep)?
            .is_some()
    {
        // addresses of submodules may be relative to that of the remote; it is told here and kept nowhere
        let origin = format!("remote.origin.url={}", source.remote);
        git.run(["-c", &origin, "submodule", "update", "-q", "--init", "--recursive", "--depth=1"])?;
    }
    let time = match source.commit_mtime {
        true => git.time_of(commit)?,
        false => None,
    };
    if keep_git {
        git.run(["remote", "add", "origin", &redact(&source.remote)])?;
        git.run(["reflog", "expire", "--all", "--expire=now"])?;
        let _ = rustix::fs::unlink(git_dir.join("FETCH_HEAD"));
    }
    normalise(&tree, keep_git, time).map_err(keep)?;
    // each part a directory of the repository, not a link out of it
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    inroot::open_without_links(open(&tree).map_err(keep)?, source.subdir.as_os_str(), flags).map_err(
        |_| {
            let why = format!("there is no directory {} in commit {commit}", source.subdir);
            RemoteError::Address { url: redact(&source.remote), why }
        },
    )?;
    Ok(tree.join(source.subdir.as_os_str()))
}

use std::os::fd::AsFd;

fn open(dir: &Path) -> io::Result<std::os::fd::OwnedFd> {
    fsutil::open_dir(dir)
}

/// Gives the time of a commit that [`checkout`] has brought into `into`, in seconds since 1970.
pub fn commit_time(
    source: &GitSource,
    commit: &str,
    options: &GitOptions<'_>,
    into: &Path,
) -> Result<Option<i64>, RemoteError> {
    let (tree, git_dir) = places(source, options, into);
    let git = Git { source, options, dirs: Some((&tree, &git_dir)) };
    git.time_of(commit)
}

/// Where the files and where git's own data go.
fn places(source: &GitSource, options: &GitOptions<'_>, into: &Path) -> (PathBuf, PathBuf) {
    let tree = into.join("tree");
    let git_dir = if keeps_git(source, options) { tree.join(".git") } else { into.join("git") };
    (tree, git_dir)
}

fn keeps_git(source: &GitSource, options: &GitOptions<'_>) -> bool {
    source.keep_git_dir.unwrap_or(options.keep_git_dir) && source.subdir.is_root()
}

/// What the remote says about a ref.
struct Found {
    commit: String,
    /// The commit, and the tag object that points to it.
    names: Vec<String>,
}

impl Found {
    fn only(commit: String) -> Self {
        Self { names: vec![commit.clone()], commit }
    }
}

fn ask(source: &GitSource, reference: &str, options: &GitOptions<'_>) -> Result<Found, RemoteError> {
    let git = Git { source, options, dirs: None };
    let peeled = format!("{reference}^{{}}");
    let lines = git.run(["ls-remote", "--", &source.remote, reference, &peeled])?;
    let find = |name: &str| {
        lines
            .lines()
            .find_map(|line| line.split_once('\t').filter(|(_, n)| *n == name).map(|(sha, _)| sha.to_owned()))
    };
    // a branch wins over a tag of the same name, as for git checkout
    let branch = find(&format!("refs/heads/{reference}"));
    let tag = |name: &str| match find(&format!("{name}^{{}}")) {
        Some(commit) => {
            Some(Found { names: [Some(commit.clone()), find(name)].into_iter().flatten().collect(), commit })
        }
        None => find(name).map(Found::only),
    };
    let found = branch
        .map(Found::only)
        .or_else(|| tag(reference))
        .or_else(|| tag(&format!("refs/tags/{reference}")))
        .or_else(|| tag(&format!("refs/{reference}")));
    found
        .filter(|f| is_commit(&f.commit))
        .ok_or_else(|| RemoteError::NoRef { url: redact(&source.remote), name: reference.to_owned() })
}

struct Git<'a> {
    source: &'a GitSource,
    options: &'a GitOptions<'a>,
    /// Work tree and git directory.
    dirs: Option<(&'a Path, &'a Path)>,
}

impl Git<'_> {
    fn time_of(&self, commit: &str) -> Result<Option<i64>, RemoteError> {
        Ok(self.run(["show", "-s", "--format=%ct", commit])?.trim().parse().ok())
    }

    /// Gets the commit with as little history as the server allows.
    fn fetch(&self, commit: &str) -> Result<(), RemoteError> {
        let remote = &self.source.remote;
        let reference = self.source.reference.as_deref().unwrap_or("HEAD");
        let has = || self.run(["cat-file", "-e", &format!("{commit}^{{commit}}")]).is_ok();
        let tries: [&[&str]; 4] = [
            &["fetch", "-q", "--depth=1", "--no-tags", "--", remote, commit],
            &["fetch", "-q", "--depth=1", "--no-tags", "--", remote, reference],
            &["fetch", "-q", "--no-tags", "--", remote, reference],
            &[
                "fetch",
                "-q",
                "--no-tags",
                "--",
                remote,
                "+refs/heads/*:refs/remotes/origin/*",
                "+refs/tags/*:refs/tags/*",
            ],
        ];
        let mut first = None;
        for args in tries {
            match self.run(args) {
                Ok(_) if has() => return Ok(()),
                Ok(_) => {}
                Err(e @ RemoteError::NoGit { .. }) => return Err(e),
                Err(e) => first = first.or(Some(e)),
            }
        }
        Err(first.unwrap_or_else(|| RemoteError::NoRef { url: redact(remote), name: commit.to_owned() }))
    }

    fn run<'s>(
        &self,
        args: impl IntoIterator<Item = &'s (impl AsRef<OsStr> + ?Sized + 's)>,
    ) -> Result<String, RemoteError> {
        let args: Vec<&OsStr> = args.into_iter().map(AsRef::as_ref).collect();
        let url = || redact(&self.source.remote);
        let mut command = Command::new("git");
        command.stdin(Stdio::null()).env_clear();
        for (key, value) in [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("HOME", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ALLOW_PROTOCOL", "https:http:ssh:git"),
            ("GIT_SSH_COMMAND", "ssh -F /dev/null -o BatchMode=yes"),
            ("LC_ALL", "C"),
        ] {
            command.env(key, value);
        }
        let proxies = ["http_proxy", "https_proxy", "no_proxy", "all_proxy"];
        let proxies = proxies.iter().flat_map(|name| [(*name).to_owned(), name.to_ascii_uppercase()]);
        for name in proxies.chain(["PATH".to_owned(), "SSL_CERT_FILE".to_owned()]) {
            if let Some(value) = std::env::var_os(&name) {
                command.env(name, value);
            }
        }
        if let Some(socket) = self.options.ssh_auth_sock {
            command.env("SSH_AUTH_SOCK", socket);
        }
        for setting in [
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "http.lowSpeedLimit=100",
            "http.lowSpeedTime=120",
        ] {
            command.args(["-c", setting]);
        }
        if let Some((tree, git_dir)) = self.dirs {
            command.current_dir(tree).arg("--work-tree").arg(tree).arg("--git-dir").arg(git_dir);
        }
        command.args(&args);
        let output = command.output().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => RemoteError::NoGit { url: url() },
            _ => RemoteError::Git { url: url(), step: "start".to_owned(), message: e.to_string() },
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).replace(&self.source.remote, &url());
        let start = said.char_indices().rev().nth(MESSAGE).map_or(0, |(at, _)| at);
        let step = args
            .iter()
            .find(|a| !a.as_encoded_bytes().starts_with(b"-") && !a.as_encoded_bytes().contains(&b'='));
        let step = step.map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        Err(RemoteError::Git { url: url(), step, message: said[start..].trim().to_owned() })
    }
}

/// Sets the modes that BuildKit gives a checkout, takes the submodules' `.git` files away, and sets times if asked to.
fn normalise(tree: &Path, keep_git: bool, time: Option<i64>) -> io::Result<()> {
    for item in walkdir::WalkDir::new(tree).follow_links(false).follow_root_links(false).contents_first(true)
    {
        let item = item.map_err(io::Error::from)?;
        let inside = item.path().strip_prefix(tree).unwrap_or(item.path());
        let in_git = inside.components().any(|c| c.as_os_str() == ".git");
        if in_git && !keep_git {
            // contents first: a submodule's own directory is empty by now
            let flags = if item.file_type().is_dir() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            rustix::fs::unlinkat(CWD, item.path(), flags)?;
            continue;
        }
        if !in_git && !item.file_type().is_symlink() {
            let mode = item.metadata().map_err(io::Error::from)?.permissions().mode();
            let mode = if item.file_type().is_dir() || mode & 0o100 != 0 { 0o755 } else { 0o644 };
            rustix::fs::chmod(item.path(), Mode::from_raw_mode(mode))?;
        }
        if let Some(secs) = time {
            let at = Timespec { tv_sec: secs, tv_nsec: 0 };
            let times = Timestamps { last_access: at, last_modification: at };
            rustix::fs::utimensat(CWD, item.path(), &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(())
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::CommandExt;

    /// A repository with a daemon that serves it; stopped when dropped.
    struct Served {
        daemon: std::process::Child,
        _dir: tempfile::TempDir,
        url: String,
    }

    impl Drop for Served {
        fn drop(&mut self) {
            // git starts the daemon as a process of its own, which would stay and hold our output open
            let group = nix::unistd::Pid::from_raw(self.daemon.id().cast_signed());
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGTERM);
            let _ = self.daemon.wait();
        }
    }

    const SCRIPT: &str = "set -e; cd \"$1\"; umask 077; git init -q -b main r; cd r; git config uploadpack.allowAnySHA1InWant false; \
        export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b \
        GIT_AUTHOR_DATE=2001-01-01T00:00:00Z GIT_COMMITTER_DATE=2001-01-01T00:00:00Z; \
        echo one > a; mkdir sub; echo s > sub/s; echo x > x.sh; chmod 755 x.sh; ln -s /etc out; git add -A; git commit -qm one; \
        git tag v1; git tag -m x annotated; echo two > a; git commit -qam two; git checkout -qb side; echo side > a; git commit -qam side; git checkout -q main";

    fn serve() -> Option<Served> {
        let dir = tempfile::tempdir().unwrap();
        let mut script = Command::new("sh");
        script
            .args(["-c", SCRIPT, "sh"])
            .arg(dir.path())
            .env("HOME", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        if !script.output().is_ok_and(|o| o.status.success()) {
            println!("skipped: no working git");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let daemon = Command::new("git")
            .args(["daemon", "--listen=127.0.0.1", "--export-all", "--reuseaddr"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", dir.path().display()))
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let served = Served { daemon, _dir: dir, url: format!("git://127.0.0.1:{port}/r/.git") };
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(served);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        println!("skipped: git daemon does not start");
        None
    }

    #[test]
    fn refs_are_found_and_trees_come_out_the_same_everywhere() {
        let Some(served) = serve() else { return };
        let options = GitOptions::default();
        for (suffix, content) in [
            ("", "two\n"),
            ("#v1", "one\n"),
            ("#annotated", "one\n"),
            ("#side", "side\n"),
            ("?branch=side", "side\n"),
            ("?tag=v1", "one\n"),
        ] {
            let source = GitSource::parse(&format!("{}{suffix}", served.url)).unwrap();
            let commit = resolve(&source, &options).unwrap();
            assert!(is_commit(&commit));
            let dir = tempfile::tempdir().unwrap();
            let tree = checkout(&source, &commit, &options, dir.path()).unwrap();
            assert_eq!(std::fs::read_to_string(tree.join("a")).unwrap(), content, "{suffix}");
            let mode = |name: &str| std::fs::symlink_metadata(tree.join(name)).unwrap().mode() & 0o777;
            assert_eq!((mode("a"), mode("x.sh"), mode("sub")), (0o644, 0o755, 0o755));
            assert!(!tree.join(".git").exists());
            // a commit by its name, also one that is no tip
            let by_commit = GitSource::parse(&format!("{}#{commit}:sub", served.url)).unwrap();
            assert_eq!(resolve(&by_commit, &options).unwrap(), commit);
            let dir = tempfile::tempdir().unwrap();
            let tree = checkout(&by_commit, &commit, &options, dir.path()).unwrap();
            assert_eq!(std::fs::read_to_string(tree.join("s")).unwrap(), "s\n");
        }
    }

    #[test]
    fn wrong_refs_checksums_and_directories_are_errors() {
        let Some(served) = serve() else { return };
        let options = GitOptions::default();
        let parse = |suffix: &str| GitSource::parse(&format!("{}{suffix}", served.url)).unwrap();
        assert!(matches!(resolve(&parse("#none"), &options), Err(RemoteError::NoRef { .. })));
        assert!(matches!(resolve(&parse("?checksum=ffff#v1"), &options), Err(RemoteError::Checksum { .. })));
        let commit = resolve(&parse("#v1"), &options).unwrap();
        assert_eq!(resolve(&parse(&format!("?checksum={}#v1", &commit[..12])), &options).unwrap(), commit);
        for subdir in ["#v1:out", "#v1:none", "#v1:a"] {
            let dir = tempfile::tempdir().unwrap();
            assert!(
                matches!(
                    checkout(&parse(subdir), &commit, &options, dir.path()),
                    Err(RemoteError::Address { .. })
                ),
                "{subdir}"
            );
        }
    }

    #[test]
    fn the_git_directory_and_commit_times_come_on_request() {
        let Some(served) = serve() else { return };
        let options = GitOptions { keep_git_dir: true, ..GitOptions::default() };
        let source = GitSource::parse(&format!("{}?mtime=commit#v1", served.url)).unwrap();
        let commit = resolve(&source, &options).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let tree = checkout(&source, &commit, &options, dir.path()).unwrap();
        assert!(tree.join(".git/HEAD").exists());
        assert_eq!(std::fs::metadata(tree.join("a")).unwrap().mtime(), 978_307_200);
    }
}
