//! A registry on the loopback device: Debian's docker-registry, on a free port, gone with its handle.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{TestSpace, process, tools_or_skip};

/// A running registry with its data in a test space.
pub(crate) struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`, as it stands in a reference.
    pub(crate) host: String,
}

impl Registry {
    /// Starts one, or skips the test (and returns `None`) where docker-registry is not installed.
    pub(crate) fn start(space: &TestSpace) -> Option<Self> {
        Self::start_with(space, "registry", "", "")
    }

    /// Starts one with its data in the directory `name` and more in its configuration: lines of its own, and lines
    /// below `http:` (indented by two).
    pub(crate) fn start_with(space: &TestSpace, name: &str, more: &str, http: &str) -> Option<Self> {
        if !tools_or_skip(&["docker-registry"]) {
            return None;
        }
        let data = space.mkdir(name);
        let host = format!("127.0.0.1:{}", free_port());
        let config = space.write(
            &format!("{name}.yml"),
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n{more}http:\n  addr: {host}\n{http}",
                data.display()
            ),
        );
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry starts");
        let registry = Self { child, host };
        process::eventually("the registry answers", Duration::from_secs(20), || {
            TcpStream::connect(&registry.host).is_ok()
        });
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A TCP port that nobody listens on at the moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}
