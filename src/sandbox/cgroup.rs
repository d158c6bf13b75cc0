//! Limits for all processes of a sandbox together: cgroup 2 where it has the controllers, else version 1, or a clear
//! error. Without limits there is no cgroup at all.
//!
//! rbuild makes the directories; the new process enters them by itself before it does anything else. They are removed
//! when the sandbox has ended; what a killed rbuild has left is removed by the next one that makes a cgroup.
//!
//! Root's are in `/sys/fs/cgroup/rbuild`, an ordinary user's in `rbuild` below the topmost cgroup that was delegated to
//! the user, usually the one of the user's systemd. systemd switches controllers off that none of its units needs, at
//! every reload; it cannot where a child passes them on, which our directory does whose children are the sandboxes.

mod settings;
mod tree;

use super::error::SandboxError;
use super::spec::Limits;
use super::wire::SharedFd;
use settings::{RT_RUNTIME, Setting, settings};
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(super) use tree::{DELEGATION, Tree};

/// Every directory of ours is below this one.
pub(super) const FAMILY: &str = "rbuild";

/// The names of directories that are made to freeze a sandbox begin so.
pub(super) const FREEZER: &str = "freezer-";

/// Whoever makes a directory puts processes in before this.
const SETTLED: Duration = Duration::from_secs(30);

/// The directories of one sandbox, removed on drop.
#[derive(Debug)]
pub(super) struct Cgroup {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    dir: PathBuf,
    version: Version,
    door: SharedFd,
}

/// Of cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

impl Cgroup {
    /// Makes a cgroup for the limits; `None` when there are none. `starters` are the processes beside this one whose
    /// children will enter it.
    pub(super) fn create(limits: &Limits, starters: &[u32]) -> Result<Option<Self>, SandboxError> {
        if limits.is_empty() {
            return Ok(None);
        }
        let tree = Tree::read_for(starters);
        let name = unique_name();
        let mut made = Self { parts: Vec::new() };
        for setting in settings(limits, true)? {
            made.apply(&tree, limits, &name, &setting)?;
        }
        if made.parts.is_empty() {
            // Only a place was asked for.
            made.open(&tree, limits, &name, "memory", "the cgroup parent")?;
        }
        Ok(Some(made))
    }

    fn apply(&mut self, tree: &Tree, limits: &Limits, name: &str, set: &Setting) -> Result<(), SandboxError> {
        let at = self.open(tree, limits, name, set.controller, set.what)?;
        let part = &self.parts[at];
        let line = match part.version {
            Version::One => &set.one,
            Version::Two => &set.two,
        };
        let Some((file, value)) = line else { return Ok(()) };
        let (mut path, mut value) = (part.dir.join(file), value);
        if set.implied && !path.exists() {
            return Ok(());
        }
        if *file == "io.weight" && !path.exists() {
            // the scheduler BFQ has a scale of its own, that of version 1
            path = part.dir.join("io.bfq.weight");
            value = set.one.as_ref().map_or(value, |(_, raw)| raw);
        }
        let mut written = write(&path, value);
        if written.is_err() && *file == RT_RUNTIME && lend_runtime(&part.dir) {
            written = write(&path, value);
        }
        written.map_err(|e| SandboxError::Limit {
            what: set.what,
            why: format!("writing {value:?} to {} failed: {e}", path.display()),
        })
    }

    /// Changes limits of a running sandbox; those that are `None` stay.
    pub(super) fn change(&mut self, limits: &Limits) -> Result<(), SandboxError> {
        let tree = Tree::read();
        let mut settings = settings(limits, false)?;
        // memory must not be above memory and swap together, neither before nor after
        if let (Some(_), Some(_)) = (limits.memory, limits.memory_swap) {
            let swap = settings.iter().position(|set| set.what == "swap");
            if let Some(at) = swap {
                let higher = settings[at].clone_value();
                if self
                    .current("memory.memsw.limit_in_bytes")
                    .is_some_and(|now| higher.is_none_or(|new| new > now))
                {
                    settings.swap(0, at);
                }
            }
        }
        for setting in settings {
            let known = self.parts.iter().any(|part| {
                tree.place(setting.controller).is_some_and(|(_, base)| part.dir.starts_with(base))
            });
            if !known {
                return Err(SandboxError::Limit {
                    what: setting.what,
                    why: "the container was started without a limit of this kind, so its processes are in no cgroup \
                          for it: stop it, update it, and start it again"
                        .into(),
                });
            }
            for part in &self.parts {
                let line = match part.version {
                    Version::One => &setting.one,
                    Version::Two => &setting.two,
                };
                let Some((file, value)) = line else { continue };
                let path = part.dir.join(file);
                if !path.exists() {
                    continue;
                }
                write(&path, value).map_err(|e| SandboxError::Limit {
                    what: setting.what,
                    why: format!("writing {value:?} to {} failed: {e}", path.display()),
                })?;
            }
        }
        Ok(())
    }

    fn current(&self, file: &str) -> Option<u64> {
        self.parts.iter().find_map(|part| fs::read_to_string(part.dir.join(file)).ok()?.trim().parse().ok())
    }

    /// Finds or makes the directory for a controller.
    fn open(
        &mut self,
        tree: &Tree,
        limits: &Limits,
        name: &str,
        controller: &str,
        what: &'static str,
    ) -> Result<usize, SandboxError> {
        let Some((version, base)) = tree.place(controller) else {
            return Err(SandboxError::Limit { what, why: tree.why_not(controller) });
        };
        let family = base.join(family_of(limits.parent.as_deref(), version));
        let dir = family.join(name);
        if let Some(at) = self.parts.iter().position(|part| part.dir == dir) {
            return Ok(at);
        }
        let failed = |doing: &str, path: &Path, e: io::Error| SandboxError::Limit {
            what,
            why: format!("{doing} {} failed: {e}{}", path.display(), tree.advice()),
        };
        fs::create_dir_all(&family).map_err(|e| failed("making", &family, e))?;
        sweep(&family);
        if version == Version::Two {
            let mut above: Vec<&Path> = family.ancestors().take_while(|dir| dir.starts_with(&base)).collect();
            above.reverse();
            for above in above {
                let wanted = tree.controllers(above);
                write(&above.join("cgroup.subtree_control"), &wanted)
                    .map_err(|e| failed("opening", above, e))?;
            }
        }
        if controller == "cpuset" && version == Version::One {
            inherit_cpuset(&base, &family);
        }
        fs::create_dir(&dir).map_err(|e| failed("making", &dir, e))?;
        if controller == "cpuset" && version == Version::One {
            inherit_cpuset(&family, &dir);
        }
        let door = fs::OpenOptions::new().write(true).open(dir.join("cgroup.procs"));
        let door = SharedFd::from(OwnedFd::from(door.map_err(|e| failed("entering", &dir, e))?));
        self.parts.push(Part { dir, version, door });
        Ok(self.parts.len() - 1)
    }

    /// Gives the files through which a process enters.
    pub(super) fn doors(&self) -> Vec<SharedFd> {
        self.parts.iter().map(|part| part.door.clone()).collect()
    }

    /// Gives the directory of version 2, if there is one.
    pub(super) fn unified(&self) -> Option<&Path> {
        self.parts.iter().find(|part| part.version == Version::Two).map(|part| part.dir.as_path())
    }

    pub(super) fn dirs(&self) -> Vec<PathBuf> {
        self.parts.iter().map(|part| part.dir.clone()).collect()
    }

    /// Says whether the memory limit killed a process.
    pub(super) fn oom_killed(&self) -> bool {
        let count = |text: String| {
            text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|n| n.trim() != "0"))
        };
        self.parts.iter().any(|part| {
            ["memory.events", "memory.oom_control"]
                .iter()
                .any(|f| fs::read_to_string(part.dir.join(f)).is_ok_and(count))
        })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for part in &self.parts {
            // Removed by the next sweep when a process is still on its way out.
            let _ = fs::remove_dir(&part.dir);
        }
    }
}

/// Gives the directory of our sandboxes, relative to the root of the tree.
///
/// A slice stands below the slices that its name begins with, as systemd has them. In version 2 our own directory is
/// below what was asked for as well, see the module's description.
fn family_of(parent: Option<&Path>, version: Version) -> PathBuf {
    let Some(parent) = parent else { return FAMILY.into() };
    let mut place = parent.strip_prefix("/").unwrap_or(parent).to_owned();
    if let Some(stem) = parent.to_str().filter(|p| !p.contains('/')).and_then(|p| p.strip_suffix(".slice")) {
        let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
        place = ends.map(|end| format!("{}.slice", &stem[..end])).collect();
    }
    if version == Version::Two { place.join(FAMILY) } else { place }
}

/// Lets the directory above have as much real-time processor time as the one above that: a new one has none to give.
fn lend_runtime(dir: &Path) -> bool {
    let Some((family, base)) = dir.parent().and_then(|family| Some((family, family.parent()?))) else {
        return false;
    };
    ["cpu.rt_period_us", RT_RUNTIME].iter().all(|file| {
        let value = fs::read_to_string(base.join(file));
        value.is_ok_and(|value| write(&family.join(file), value.trim()).is_ok())
    })
}

fn inherit_cpuset(from: &Path, to: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(to.join(file)).is_ok_and(|text| text.trim().is_empty())
            && let Ok(value) = fs::read_to_string(from.join(file))
        {
            let _ = write(&to.join(file), value.trim());
        }
    }
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    // One write call: the kernel takes each as a whole.
    fs::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Removes what dead rbuilds have left. A directory with a living process cannot be removed, and one of a living
/// rbuild is left alone.
fn sweep(family: &Path) {
    for entry in fs::read_dir(family).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|n| n.split_once('-')).and_then(|(pid, _)| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !is_alive(pid)) || is_old_freezer(&entry) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Says whether a directory was made to freeze a sandbox, and not just now: then it is empty or cannot be removed.
fn is_old_freezer(entry: &fs::DirEntry) -> bool {
    let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
    entry.file_name().as_encoded_bytes().starts_with(FREEZER.as_bytes())
        && age().is_some_and(|age| age > SETTLED)
}

/// Removes the cgroups of a sandbox whose keeper was killed. Those that are in use stay.
pub fn remove_cgroups(dirs: &[PathBuf]) {
    for dir in dirs.iter().filter(|dir| dir.starts_with("/sys/fs/cgroup")) {
        let owner = dir.file_name().and_then(|name| name.to_str()?.split_once('-')?.0.parse().ok());
        if owner.is_some_and(|pid| !is_alive(pid)) {
            let _ = fs::remove_dir(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_stand_where_systemd_has_them() {
        for (parent, one, two) in [
            (None, "rbuild", "rbuild"),
            (Some("/a/b"), "a/b", "a/b/rbuild"),
            (Some("system.slice"), "system.slice", "system.slice/rbuild"),
            (Some("a-b-c.slice"), "a.slice/a-b.slice/a-b-c.slice", "a.slice/a-b.slice/a-b-c.slice/rbuild"),
            (Some("x/a-b.slice"), "x/a-b.slice", "x/a-b.slice/rbuild"),
        ] {
            let parent = parent.map(Path::new);
            assert_eq!(family_of(parent, Version::One), Path::new(one));
            assert_eq!(family_of(parent, Version::Two), Path::new(two));
        }
    }

    #[test]
    fn no_limits_need_no_cgroup() {
        assert!(Cgroup::create(&Limits::default(), &[]).unwrap().is_none());
    }
}
