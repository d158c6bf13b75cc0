//! A registry on the loopback device that writes down what it is asked for.

use super::{TestSpace, process, registry::free_port, tools_or_skip};
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Debian's docker-registry with its access log in a file; gone with its handle.
pub(crate) struct LoggedRegistry {
    child: Child,
    log: PathBuf,
    /// `127.0.0.1:PORT`, as it stands in a reference.
    pub(crate) host: String,
}

impl LoggedRegistry {
    /// Starts one with its data in the space, or skips the test where docker-registry is not installed.
    pub(crate) fn start(space: &TestSpace) -> Option<Self> {
        if !tools_or_skip(&["docker-registry"]) {
            return None;
        }
        let data = space.mkdir("logged-registry");
        let host = format!("127.0.0.1:{}", free_port());
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: false}}}}\nstorage:\n  filesystem: \
             {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp: {{addr: {host}}}\n",
            data.display()
        );
        let config = space.write("logged-registry.yml", text);
        let log = space.path("registry.log");
        let file = File::options().append(true).create(true).open(&log).expect("a log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry starts");
        let registry = Self { child, log, host };
        process::eventually("the registry answers", Duration::from_secs(20), || {
            TcpStream::connect(&registry.host).is_ok()
        });
        Some(registry)
    }

    /// Where its blobs are.
    pub(crate) fn data(space: &TestSpace) -> PathBuf {
        space.path("logged-registry")
    }

    /// Forgets what was asked until now.
    pub(crate) fn forget(&self) {
        // the registry may be writing its last line
        std::thread::sleep(Duration::from_millis(200));
        File::options().write(true).open(&self.log).and_then(|log| log.set_len(0)).expect("the log");
    }

    /// The requests since then, as `METHOD PATH`.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::thread::sleep(Duration::from_millis(200));
        let bytes = fs::read(&self.log).expect("the log");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let request = |line: &str| {
            let quoted = line.split('"').nth(1)?;
            quoted.strip_suffix(" HTTP/1.1").map(str::to_owned)
        };
        text.lines().filter_map(request).collect()
    }

    /// The blobs that were downloaded since then, as digests; those in `but` do not count.
    pub(crate) fn downloaded(&self, but: &[&str]) -> Vec<String> {
        let blob = |request: &String| {
            let digest = request.strip_prefix("GET ")?.split("/blobs/").nth(1)?.to_owned();
            (!but.contains(&digest.as_str())).then_some(digest)
        };
        self.asked().iter().filter_map(blob).collect()
    }
}

impl Drop for LoggedRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
