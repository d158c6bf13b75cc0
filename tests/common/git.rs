//! A git repository served by `git daemon` on the loopback device.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{TestSpace, process, registry, tools_or_skip};

/// A repository with a running daemon.
pub(crate) struct Repository<'s> {
    space: &'s TestSpace,
    daemon: Child,
    /// `git://127.0.0.1:PORT/app`.
    pub(crate) url: String,
}

impl<'s> Repository<'s> {
    /// Makes an empty repository in the space and serves it; skips the test (and returns `None`) without git.
    pub(crate) fn serve(space: &'s TestSpace) -> Option<Self> {
        if !tools_or_skip(&["git"]) {
            return None;
        }
        let port = registry::free_port();
        let base = space.mkdir("git");
        space.mkdir("git/app");
        let mut command = Command::new("git");
        command.args(["daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1"]);
        command.arg(format!("--port={port}")).arg(format!("--base-path={}", base.display()));
        // the daemon is not the process that git starts it through: its group is ended as a whole
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let daemon = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let url = format!("git://127.0.0.1:{port}/app");
        let repository = Self { space, daemon: daemon.expect("git starts"), url };
        repository.git(&["init", "-q", "-b", "main"]);
        process::eventually("git daemon answers", Duration::from_secs(20), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(repository)
    }

    /// Commits a file and returns the commit.
    pub(crate) fn commit(&self, name: &str, content: &str) -> String {
        self.space.write(&format!("git/app/{name}"), content);
        self.git(&["add", "--all"]);
        self.git(&["commit", "-q", "-m", name]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Runs git in the repository.
    pub(crate) fn git(&self, args: &[&str]) -> String {
        let place: PathBuf = self.space.path("git/app");
        let output = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"])
            .arg("-C")
            .arg(place)
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdin(Stdio::null())
            .output()
            .expect("git starts");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }
}

impl Drop for Repository<'_> {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.daemon.id()) {
            let _ =
                nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.daemon.wait();
    }
}
