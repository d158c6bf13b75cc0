//! A Docker engine of a test's own: the machine's, or the one that `scripts/setup` unpacked, on a private socket.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::process::{self, Done, Running};
use super::{TestSpace, is_root, skip};

/// A running engine with an empty store, without network.
pub(crate) struct Docker {
    daemon: Option<Running>,
    environment: Vec<(&'static str, OsString)>,
}

impl Docker {
    /// Starts one, or skips the test (and returns `None`) where that cannot be.
    pub(crate) fn start(space: &TestSpace) -> Option<Self> {
        if !is_root() {
            skip("a Docker engine of its own needs root");
            return None;
        }
        let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/docker-engine");
        let mut path = vec![unpacked.join("usr/bin"), unpacked.join("usr/sbin")];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        path.push("/usr/sbin".into());
        let daemon = path.iter().map(|dir| dir.join("dockerd")).find(|file| file.exists());
        let Some(daemon) = daemon else {
            skip("there is no dockerd (scripts/setup unpacks one)");
            return None;
        };
        // A socket's path has a short limit, so this is not in the space.
        let socket = PathBuf::from(format!("/tmp/rbuild-docker-{}.sock", std::process::id()));
        let host = format!("unix://{}", socket.display());
        let environment = vec![
            ("PATH", std::env::join_paths(path).expect("plain paths")),
            ("LD_LIBRARY_PATH", libraries(&unpacked)),
            ("HOME", space.path("home").into()),
            ("DOCKER_HOST", host.clone().into()),
        ];
        let mut command = Command::new(daemon);
        command
            .args([
                "--iptables=false",
                "--ip6tables=false",
                "--bridge=none",
                "--storage-driver=vfs",
                "--host",
                &host,
            ])
            .args([OsString::from("--data-root"), space.path("docker").into()])
            .args([OsString::from("--exec-root"), space.path("docker-exec").into()])
            .args([OsString::from("--pidfile"), space.path("docker.pid").into()])
            .env_clear()
            .envs(environment.clone())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut docker = Self { daemon: Some(Running::start(&mut command)), environment };
        let daemon = docker.daemon.as_mut()?;
        process::eventually("dockerd listens or gives up", Duration::from_secs(60), || {
            daemon.so_far().contains("API listen on") || !matches!(daemon.child.try_wait(), Ok(None))
        });
        if matches!(daemon.child.try_wait(), Ok(None)) {
            return Some(docker);
        }
        skip(&format!("dockerd does not start here:\n{}", daemon.so_far()));
        None
    }

    /// Runs one docker command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        let mut command = Command::new("docker");
        command.args(args).env_clear().envs(self.environment.clone());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        process::finish(&mut command, None, Duration::from_secs(120))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Its containerd ends with it, but only when it is asked to.
        if let Some(daemon) = self.daemon.take() {
            daemon.signal(Signal::SIGTERM);
            daemon.wait(Duration::from_secs(60));
        }
    }
}

/// Where the unpacked engine's shared libraries are.
fn libraries(unpacked: &Path) -> OsString {
    let below = std::fs::read_dir(unpacked.join("lib")).into_iter().flatten().flatten();
    std::env::join_paths(below.map(|entry| entry.path())).unwrap_or_default()
}
