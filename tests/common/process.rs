//! Child processes with a deadline, what they left, and signals to them.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::progress::{self, Step};

/// A finished process: how it ended and all that it wrote.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// Insists on exit code 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.code(0)
    }

    /// Insists on an exit code.
    #[track_caller]
    pub(crate) fn code(self, wanted: i32) -> Self {
        assert_eq!(
            self.status.code(),
            Some(wanted),
            "{} (signal {:?})\n{self}",
            self.status,
            self.status.signal()
        );
        self
    }

    /// Insists on a refusal that a user can act on: this exit code, each of `words` on stderr, and neither a panic nor
    /// a backtrace.
    #[track_caller]
    pub(crate) fn refuses(self, code: i32, words: &[&str]) -> Self {
        let done = self.code(code);
        let stderr = done.stderr.to_lowercase();
        for word in words {
            assert!(stderr.contains(&word.to_lowercase()), "stderr does not say {word:?}\n{done}");
        }
        for ugly in ["panicked", "rust_backtrace", "unwrap"] {
            assert!(!stderr.contains(ugly), "stderr says {ugly:?}\n{done}");
        }
        done
    }

    /// The steps of a build with plain progress.
    pub(crate) fn steps(&self) -> Vec<Step> {
        progress::parse(&self.stderr)
    }

    /// The instructions that were really executed, in the order in which they were announced.
    pub(crate) fn executed(&self) -> Vec<String> {
        self.steps().into_iter().filter(|step| step.worked()).map(|step| step.title).collect()
    }

    /// The instructions that came from the cache.
    pub(crate) fn cached(&self) -> Vec<String> {
        self.steps()
            .into_iter()
            .filter(|step| step.cached && step.is_instruction())
            .map(|step| step.title)
            .collect()
    }

    /// Insists that exactly the steps starting with these words were executed, in any order.
    #[track_caller]
    pub(crate) fn assert_executed(&self, wanted: &[&str]) {
        let executed = self.executed();
        let fits = executed.len() == wanted.len()
            && wanted
                .iter()
                .all(|start| executed.iter().filter(|title| title.starts_with(start)).count() == 1);
        assert!(fits, "executed {executed:?}\nwanted   {wanted:?}\n{self}");
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr)
    }
}

/// Runs a command to its end, feeding it `input`. Kills it and fails the test after `patience`.
#[track_caller]
pub(crate) fn finish(command: &mut Command, input: Option<&[u8]>, patience: Duration) -> Done {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut running = Running::start(command);
    if let (Some(input), Some(mut stdin)) = (input, running.child.stdin.take()) {
        // A child that does not want it all closes the pipe; what it made of that shows in its output.
        let _ = stdin.write_all(input);
    }
    running.wait(patience)
}

/// A process that runs beside the test, its output gathered by threads. Killed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
    seen: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Running {
    /// Starts a command whose stdout and stderr are pipes.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("{:?} cannot be started: {error}", command.get_program()),
        };
        let seen = std::sync::Arc::default();
        let stdout = child.stdout.take().map(|pipe| gather(pipe, &seen));
        let stderr = child.stderr.take().map(|pipe| gather(pipe, &seen));
        Self { child, stdout, stderr, seen }
    }

    /// Everything written to stdout and stderr until now.
    pub(crate) fn so_far(&self) -> String {
        self.seen.lock().expect("no reader panics").clone()
    }

    /// Waits until the output holds `text`; fails the test when it ends or `patience` runs out before.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str, patience: Duration) {
        let start = Instant::now();
        while !self.so_far().contains(text) {
            let ended = self.child.try_wait().expect("an own child");
            assert!(
                ended.is_none() || self.so_far().contains(text),
                "ended ({ended:?}) before {text:?}\n{}",
                self.so_far()
            );
            assert!(start.elapsed() < patience, "no {text:?} in {patience:?}\n{}", self.so_far());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
    }

    /// Waits for the end; kills the process and fails the test when it does not come.
    #[track_caller]
    pub(crate) fn wait(mut self, patience: Duration) -> Done {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("an own child") {
                break status;
            }
            if start.elapsed() > patience {
                let _ = self.child.kill();
                panic!("still running after {patience:?}\n{}", self.so_far());
            }
            thread::sleep(Duration::from_millis(2));
        };
        let text = |reader: Option<JoinHandle<String>>| {
            reader.map_or_else(String::new, |r| r.join().expect("a reader"))
        };
        Done { status, stdout: text(self.stdout.take()), stderr: text(self.stderr.take()) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn gather(
    mut pipe: impl Read + Send + 'static,
    seen: &std::sync::Arc<std::sync::Mutex<String>>,
) -> JoinHandle<String> {
    let seen = std::sync::Arc::clone(seen);
    thread::spawn(move || {
        let (mut all, mut chunk) = (Vec::new(), [0; 8192]);
        while let Ok(n @ 1..) = pipe.read(&mut chunk) {
            all.extend_from_slice(&chunk[..n]);
            seen.lock().expect("no reader panics").push_str(&String::from_utf8_lossy(&chunk[..n]));
        }
        String::from_utf8_lossy(&all).into_owned()
    })
}

/// What holds on to `dir`: processes with a mount, an argument or their working directory there, one line each.
pub(crate) fn holding(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().expect("a plain path");
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let path = entry.path();
        if entry.file_name() == "self"
            || !entry.file_name().to_string_lossy().bytes().all(|c| c.is_ascii_digit())
        {
            continue;
        }
        let mounts = fs::read_to_string(path.join("mountinfo")).unwrap_or_default();
        let arguments = fs::read(path.join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        let cwd = fs::read_link(path.join("cwd")).unwrap_or_default();
        let mount = mounts.lines().find(|line| line.contains(dir));
        if mount.is_some() || arguments.contains(dir) || cwd.starts_with(dir) {
            left.push(format!("{}: {arguments} {}", path.display(), mount.unwrap_or_default()));
        }
    }
    left
}

/// Waits until `ready` holds; fails the test when it does not within `patience`.
#[track_caller]
pub(crate) fn eventually(what: &str, patience: Duration, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < patience, "not within {patience:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
