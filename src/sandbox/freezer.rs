//! Stops all processes of a sandbox where they are, and lets them go on.
//!
//! The cgroup for that is made when it is needed: most containers are never paused, and a cgroup costs more than their
//! start. Processes that are born meanwhile are in it, so it is filled until a look finds nobody outside.

use super::cgroup::{FAMILY, FREEZER, Tree};
use super::launcher::Running;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// So often is looked for processes that are not in the cgroup yet.
const ROUNDS: usize = 50;

/// A cgroup that can be frozen.
#[derive(Debug)]
pub struct Freezer {
    dir: PathBuf,
    file: &'static str,
    words: (&'static str, &'static str),
    /// The sandbox's own, which is not ours to remove.
    own: bool,
    /// Where its processes go back to.
    home: PathBuf,
}

impl Freezer {
    /// Finds or makes the cgroup for a sandbox.
    ///
    /// # Errors
    /// This machine has no freezer, or it may not be used.
    pub fn new(name: &str, running: &Running) -> io::Result<Self> {
        let two = ("cgroup.freeze", ("1", "0"));
        if let Some(dir) = running
            .cgroup_dirs()
            .into_iter()
            .chain(running.unified_dir())
            .find(|dir| dir.join(two.0).exists())
        {
            let home = dir.clone();
            return Ok(Self { dir, file: two.0, words: two.1, own: true, home });
        }
        let tree = Tree::read_for(&running.process_ids());
        let (base, (file, words), home) = match tree.freezer() {
            // Version 2 has processes in leaves alone, so they go back to where the monitor is.
            Some((true, base)) => (base, two, tree.own_place()),
            Some((false, base)) => {
                let home = base.join(FAMILY);
                (base, ("freezer.state", ("FROZEN", "THAWED")), home)
            }
            None => {
                let why = "no cgroup freezer is available here: pausing needs cgroup 2, or the freezer of version 1";
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            }
        };
        let dir = base.join(FAMILY).join(format!("{FREEZER}{name}"));
        fs::create_dir_all(&dir).map_err(|e| explain(&dir, &e))?;
        Ok(Self { dir, file, words, own: false, home })
    }

    /// Freezes all processes of the pid namespace whose first process is `first`.
    pub fn freeze(&self, first: u32) -> io::Result<()> {
        for _ in 0..ROUNDS {
            let inside = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
            let inside: Vec<u32> = inside.lines().filter_map(|line| line.parse().ok()).collect();
            let outside: Vec<u32> = match self.own {
                true => Vec::new(),
                false => members(first).into_iter().filter(|pid| !inside.contains(pid)).collect(),
            };
            if outside.is_empty() {
                break;
            }
            for pid in outside {
                match fs::write(self.dir.join("cgroup.procs"), pid.to_string()) {
                    // it has just ended
                    Err(e) if e.raw_os_error() == Some(nix::libc::ESRCH) => {}
                    other => other.map_err(|e| explain(&self.dir, &e))?,
                }
            }
        }
        self.write(self.words.0).map_err(|e| explain(&self.dir, &e))
    }

    /// Lets them go on, and takes the cgroup away when it is empty.
    pub fn thaw(self) {
        let _ = self.write(self.words.1);
    }

    fn write(&self, word: &str) -> io::Result<()> {
        fs::write(self.dir.join(self.file), word)
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = self.write(self.words.1);
        if self.own {
            return;
        }
        // so that the directory can go
        for pid in fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(self.home.join("cgroup.procs"), pid);
        }
        for _ in 0..5 {
            if fs::remove_dir(&self.dir).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn explain(dir: &Path, e: &io::Error) -> io::Error {
    io::Error::new(
        e.kind(),
        format!("cannot use the cgroup {}: {e}; {}", dir.display(), super::cgroup::DELEGATION),
    )
}

/// Lists the processes of the pid namespace whose first process is `first`, that one first. Where the namespace is the
/// host's own (`--pid=host`) only the first one and its descendants.
pub fn members(first: u32) -> Vec<u32> {
    let ns = |pid: u32| fs::metadata(format!("/proc/{pid}/ns/pid")).ok().map(|meta| meta.ino());
    let own = fs::metadata("/proc/self/ns/pid").ok().map(|meta| meta.ino());
    let Some(wanted) = ns(first) else { return Vec::new() };
    let mut all: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    all.sort_unstable();
    if Some(wanted) == own {
        let parent = |pid: u32| -> Option<u32> {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
        };
        let mut family = vec![first];
        for pid in all {
            if pid != first && parent(pid).is_some_and(|parent| family.contains(&parent)) {
                family.push(pid);
            }
        }
        return family;
    }
    let mut out: Vec<u32> = all.into_iter().filter(|pid| ns(*pid) == Some(wanted)).collect();
    if let Some(at) = out.iter().position(|pid| *pid == first) {
        let first = out.remove(at);
        out.insert(0, first);
    }
    out
}
