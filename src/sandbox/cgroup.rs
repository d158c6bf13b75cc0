//! Limits for all processes of a sandbox together: cgroup 2 where it has the controllers, else version 1, or a clear
//! error. Without limits there is no cgroup at all.
//!
//! rbuild makes the directories; the new process enters them by itself before it does anything else. They are removed
//! when the sandbox has ended; what a killed rbuild has left is removed by the next one that makes a cgroup.
//!
//! Root's are in `/sys/fs/cgroup/rbuild`, an ordinary user's in `rbuild` below the topmost cgroup that was delegated to
//! the user, usually the one of the user's systemd. systemd switches controllers off that none of its units needs, at
//! every reload; it cannot where a child passes them on, which our directory does whose children are the sandboxes.

use super::error::SandboxError;
use super::host::in_user_namespace;
use super::scope;
use super::spec::{DeviceLimitKind, Limits, RareLimits};
use super::wire::SharedFd;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Every directory of ours is below this one.
pub(super) const FAMILY: &str = "rbuild";

/// The names of directories that are made to freeze a sandbox begin so.
pub(super) const FREEZER: &str = "freezer-";

/// Whoever makes a directory puts processes in before this.
const SETTLED: Duration = Duration::from_secs(30);

/// Length of a period of processor time in microseconds, the kernel's default.
const PERIOD: u64 = 100_000;

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

/// One file to write in the directory of one controller.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    controller: &'static str,
    what: &'static str,
    /// File and value for version 1 and version 2; `None` where that version has no such setting.
    one: Option<(&'static str, String)>,
    two: Option<(&'static str, String)>,
    /// Nobody has asked for it: it is left out where the kernel does not know it.
    implied: bool,
}

impl Setting {
    /// The value for version 1 as a number; `None` is no limit.
    fn clone_value(&self) -> Option<u64> {
        self.one.as_ref().and_then(|(_, value)| value.parse().ok())
    }
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

pub(super) const DELEGATION: &str = "as an ordinary user this needs a delegated cgroup: start rbuild with `systemd-run --user --scope -p \
     Delegate=yes`, or leave the limit out";

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

const RT_RUNTIME: &str = "cpu.rt_runtime_us";

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

/// Adds the settings for what is seldom asked for.
fn rare_settings(rare: &RareLimits, out: &mut Vec<Setting>) -> Result<(), SandboxError> {
    let mut set =
        |controller, what, one: Option<(&'static str, String)>, two: Option<(&'static str, String)>| {
            out.push(Setting { controller, what, implied: false, one, two });
        };
    if let Some(swappiness) = rare.swappiness {
        set("memory", "the readiness to swap", Some(("memory.swappiness", swappiness.to_string())), None);
    }
    if rare.oom_kill_disable {
        set("memory", "the killer of processes", Some(("memory.oom_control", "1".into())), None);
    }
    let time = "processor time";
    if let Some(period) = rare.cpu_period {
        let quota = rare.cpu_quota.map_or("max".to_owned(), |quota| quota.to_string());
        let two = Some(("cpu.max", format!("{quota} {period}")));
        set("cpu", time, Some(("cpu.cfs_period_us", period.to_string())), two);
    }
    if let Some(quota) = rare.cpu_quota {
        let two = rare.cpu_period.is_none().then(|| ("cpu.max", quota.to_string()));
        set("cpu", time, Some(("cpu.cfs_quota_us", quota.to_string())), two);
    }
    for (file, value) in [("cpu.rt_period_us", rare.cpu_rt_period), (RT_RUNTIME, rare.cpu_rt_runtime)] {
        if let Some(value) = value {
            set("cpu", "real-time processor time", Some((file, value.to_string())), None);
        }
    }
    if let Some(weight) = rare.blkio_weight {
        set(
            "blkio",
            "the weight at disks",
            Some(("blkio.weight", weight.to_string())),
            Some(("io.weight", spread(weight).to_string())),
        );
    }
    for limit in &rare.devices {
        let what = "the use of a disk";
        let stat = rustix::fs::stat(&limit.path)
            .map_err(|e| SandboxError::Limit { what, why: format!("stat {}: {e}", limit.path.display()) })?;
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let (one, two, value) = match limit.kind {
            DeviceLimitKind::Weight => ("blkio.weight_device", "", spread(limit.value)),
            DeviceLimitKind::ReadBps => ("blkio.throttle.read_bps_device", "rbps=", limit.value),
            DeviceLimitKind::WriteBps => ("blkio.throttle.write_bps_device", "wbps=", limit.value),
            DeviceLimitKind::ReadIops => ("blkio.throttle.read_iops_device", "riops=", limit.value),
            DeviceLimitKind::WriteIops => ("blkio.throttle.write_iops_device", "wiops=", limit.value),
        };
        let file = if two.is_empty() { "io.weight" } else { "io.max" };
        let of_one = format!("{major}:{minor} {}", limit.value);
        set("blkio", what, Some((one, of_one)), Some((file, format!("{major}:{minor} {two}{value}"))));
    }
    Ok(())
}

/// Maps 10..1000 onto 1..10000 as container runtimes do.
fn spread(weight: u64) -> u64 {
    1 + weight.saturating_sub(10) * 9999 / 990
}

/// What to write where. `fresh` adds what docker takes for granted in a new container.
fn settings(limits: &Limits, fresh: bool) -> Result<Vec<Setting>, SandboxError> {
    let mut out = Vec::new();
    let mut set =
        |controller, what, one: Option<(&'static str, String)>, two: Option<(&'static str, String)>| {
            out.push(Setting { controller, what, one, two, implied: false });
        };
    let bytes = |n: u64| {
        if n == u64::MAX { ("-1".to_owned(), "max".to_owned()) } else { (n.to_string(), n.to_string()) }
    };
    if let Some(memory) = limits.memory {
        let (one, two) = bytes(memory);
        set("memory", "memory", Some(("memory.limit_in_bytes", one)), Some(("memory.max", two)));
    }
    if let Some(both) = limits.memory_swap {
        // Version 1 counts memory and swap together as docker does, version 2 swap alone.
        let swap = if both == u64::MAX { both } else { both.saturating_sub(limits.memory.unwrap_or(0)) };
        let (one, two) = (bytes(both).0, bytes(swap).1);
        set("memory", "swap", Some(("memory.memsw.limit_in_bytes", one)), Some(("memory.swap.max", two)));
    }
    let implied_swap = limits.memory.filter(|_| fresh && limits.memory_swap.is_none());
    if let Some(soft) = limits.memory_reservation {
        let (one, two) = bytes(soft);
        set(
            "memory",
            "the memory reservation",
            Some(("memory.soft_limit_in_bytes", one)),
            Some(("memory.low", two)),
        );
    }
    if let Some(millis) = limits.cpu_millis {
        let quota = millis * PERIOD / 1000;
        let two = Some(("cpu.max", format!("{quota} {PERIOD}")));
        set("cpu", "processor time", Some(("cpu.cfs_quota_us", quota.to_string())), two);
    }
    if let Some(shares) = limits.cpu_shares {
        // The range 2..262144 is mapped onto 1..10000 as container runtimes do.
        let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
        set(
            "cpu",
            "processor shares",
            Some(("cpu.shares", shares.to_string())),
            Some(("cpu.weight", weight.to_string())),
        );
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        let value = || Some(("cpuset.cpus", cpus.clone()));
        set("cpuset", "the set of processors", value(), value());
    }
    if let Some(nodes) = &limits.cpuset_mems {
        let value = || Some(("cpuset.mems", nodes.clone()));
        set("cpuset", "the set of memory nodes", value(), value());
    }
    if let Some(pids) = limits.pids {
        let value = || Some(("pids.max", bytes(pids).1));
        set("pids", "the number of processes", value(), value());
    }
    if let Some(memory) = implied_swap {
        // as much swap as memory; version 1 is left as it is, where the memory could not be raised later
        let two = Some(("memory.swap.max", bytes(memory).1));
        out.push(Setting { controller: "memory", what: "swap", one: None, two, implied: true });
    }
    rare_settings(&limits.rare, &mut out)?;
    Ok(out)
}

/// Where each controller is mounted and which part of its tree is ours.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Controller and directory.
    one: Vec<(String, PathBuf)>,
    two: Option<PathBuf>,
    /// Where version 2 is mounted.
    root: Option<PathBuf>,
    /// Why the user's systemd gave us no cgroup.
    refused: Option<String>,
}

impl Tree {
    pub(super) fn read() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut tree = Self::default();
        for line in mounts.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let point = left.split(' ').nth(4).map(PathBuf::from);
            let mut kind = right.split(' ');
            match (kind.next(), kind.nth(1), point) {
                (Some("cgroup2"), _, Some(point)) if tree.two.is_none() => tree.two = Some(point),
                (Some("cgroup"), Some(options), Some(point)) => {
                    tree.one.extend(options.split(',').map(|name| (name.to_owned(), point.clone())));
                }
                _ => {}
            }
        }
        tree.root = tree.two.clone();
        tree.two =
            tree.two.map(|root| if is_writable(&root) { root } else { delegated(&root).unwrap_or(root) });
        tree
    }

    /// The same for whoever is about to put processes into cgroups: an ordinary user in a place that was not delegated
    /// has systemd make one, and this process and `others` move there.
    pub(super) fn read_for(others: &[u32]) -> Self {
        let tree = Self::read();
        if !tree.is_out_of_reach() {
            return tree;
        }
        match scope::enter(others) {
            Ok(()) => Self::read(),
            Err(e) => Self { refused: Some(e.to_string()), ..tree },
        }
    }

    /// Says whether there are controllers of version 2 which this user has not been given.
    fn is_out_of_reach(&self) -> bool {
        self.two.as_ref().is_some_and(|dir| {
            in_user_namespace() && !is_writable(dir) && !list(dir, "cgroup.controllers").is_empty()
        })
    }

    /// Gives the directory of version 2 that this process is in.
    pub(super) fn own_place(&self) -> PathBuf {
        let root = self.root.clone().unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        own.lines().find_map(|line| line.strip_prefix("0::/")).map_or(root.clone(), |own| root.join(own))
    }

    /// What to do about a cgroup that cannot be had, after the reason; nothing for root.
    fn advice(&self) -> String {
        match &self.refused {
            _ if !in_user_namespace() => String::new(),
            None => format!("; {DELEGATION}"),
            Some(why) => format!(
                "; as an ordinary user this needs a cgroup from the user's systemd: {why}. Log in over ssh or at the \
                 console rather than with su, or have root run `loginctl enable-linger` for this user, or leave the limit out"
            ),
        }
    }

    /// Finds the directory below which a controller can be used. That for disks has two names.
    pub(super) fn place(&self, controller: &str) -> Option<(Version, PathBuf)> {
        if let Some(two) = &self.two
            && list(two, "cgroup.controllers")
                .iter()
                .any(|c| c == if controller == "blkio" { "io" } else { controller })
        {
            return Some((Version::Two, two.clone()));
        }
        self.one.iter().find(|(name, _)| name == controller).map(|(_, dir)| (Version::One, dir.clone()))
    }

    /// Finds a freezer: whether it is version 2, and the directory below which it can be used.
    pub(super) fn freezer(&self) -> Option<(bool, PathBuf)> {
        let one = self.one.iter().find(|(name, _)| name == "freezer").map(|(_, dir)| (false, dir.clone()));
        one.or_else(|| self.two.clone().map(|dir| (true, dir)))
    }

    fn why_not(&self, controller: &str) -> String {
        match (&self.two, self.one.is_empty()) {
            (None, true) => "no cgroup file system is mounted; leave the limit out".to_owned(),
            (Some(dir), _) if in_user_namespace() && self.refused.is_none() && is_writable(dir) => format!(
                "the controller {controller:?} is not delegated to this user: have root write the lines `[Service]` and \
                 `Delegate=cpu cpuset io memory pids` to /etc/systemd/system/user@.service.d/delegate.conf, run \
                 `systemctl daemon-reload`, and log in again; or leave the limit out"
            ),
            (Some(dir), _) => {
                format!(
                    "the controller {controller:?} is not available in {}{}",
                    dir.display(),
                    self.advice()
                )
            }
            (None, false) => format!("this kernel has no controller {controller:?}; leave the limit out"),
        }
    }

    /// The controllers that a directory of version 2 can pass on, as `+name` words.
    fn controllers(&self, dir: &Path) -> String {
        let wanted = ["cpu", "cpuset", "io", "memory", "pids"];
        let here = list(dir, "cgroup.controllers");
        let have: Vec<_> =
            wanted.iter().filter(|w| here.iter().any(|h| h == *w)).map(|w| format!("+{w}")).collect();
        have.join(" ")
    }

    /// Describes what is there in a few words.
    pub(super) fn describe(&self) -> (bool, String) {
        let names = ["memory", "cpu", "pids", "cpuset"];
        let usable: Vec<String> = names
            .iter()
            .filter_map(|name| {
                self.place(name).filter(|(_, dir)| is_writable(dir)).map(|(version, _)| (name, version))
            })
            .map(|(name, version)| format!("{name} (v{})", if version == Version::One { 1 } else { 2 }))
            .collect();
        if usable.is_empty() && self.is_out_of_reach() && scope::can_be_had() {
            return (true, "those that the user's systemd gives (v2)".to_owned());
        }
        (!usable.is_empty(), if usable.is_empty() { "none usable".to_owned() } else { usable.join(", ") })
    }
}

/// The topmost directory above our own cgroup that we may write to.
fn delegated(root: &Path) -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    let own = root.join(own);
    own.ancestors()
        .take_while(|dir| dir.starts_with(root))
        .filter(|dir| is_writable(dir))
        .last()
        .map(Path::to_owned)
}

fn is_writable(dir: &Path) -> bool {
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
        && rustix::fs::access(dir.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).is_ok()
}

fn list(dir: &Path, file: &str) -> Vec<String> {
    let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
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
    use super::super::spec::DeviceLimit;
    use super::*;

    #[test]
    fn limits_become_files_of_both_versions() {
        let limits = Limits {
            memory: Some(64 << 20),
            memory_swap: Some(96 << 20),
            cpu_millis: Some(1500),
            cpu_shares: Some(1024),
            pids: Some(100),
            ..Limits::default()
        };
        let files: Vec<_> = settings(&limits, true).unwrap().into_iter().filter_map(|s| s.two).collect();
        let want = [
            ("memory.max", "67108864"),
            ("memory.swap.max", "33554432"),
            ("cpu.max", "150000 100000"),
            ("cpu.weight", "39"),
            ("pids.max", "100"),
        ];
        assert_eq!(files, want.map(|(f, v)| (f, v.to_owned())));
        let one = settings(&Limits { memory: Some(u64::MAX), ..Limits::default() }, true).unwrap();
        assert_eq!(one[0].one, Some(("memory.limit_in_bytes", "-1".to_owned())));
    }

    #[test]
    fn swap_is_as_much_as_memory_when_nothing_is_said() {
        let limits = Limits { memory: Some(64 << 20), ..Limits::default() };
        let swap = |fresh| settings(&limits, fresh).unwrap().into_iter().find(|set| set.what == "swap");
        assert_eq!(swap(true).unwrap().two, Some(("memory.swap.max", "67108864".to_owned())));
        assert!(swap(true).unwrap().implied && swap(false).is_none());
    }

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
    fn rare_limits_become_files_of_both_versions() {
        let disk = |kind, value| DeviceLimit { kind, path: "/dev/null".into(), value };
        let rare = RareLimits {
            swappiness: Some(0),
            oom_kill_disable: true,
            cpu_period: Some(50_000),
            cpu_quota: Some(25_000),
            cpu_rt_runtime: Some(1000),
            blkio_weight: Some(1000),
            devices: vec![disk(DeviceLimitKind::Weight, 10), disk(DeviceLimitKind::WriteIops, 7)],
            ..RareLimits::default()
        };
        let all = settings(&Limits { rare, ..Limits::default() }, true).unwrap();
        let one: Vec<String> =
            all.iter().filter_map(|s| s.one.as_ref()).map(|(f, v)| format!("{f}={v}")).collect();
        let two: Vec<String> =
            all.iter().filter_map(|s| s.two.as_ref()).map(|(f, v)| format!("{f}={v}")).collect();
        assert_eq!(
            one,
            [
                "memory.swappiness=0",
                "memory.oom_control=1",
                "cpu.cfs_period_us=50000",
                "cpu.cfs_quota_us=25000",
                "cpu.rt_runtime_us=1000",
                "blkio.weight=1000",
                "blkio.weight_device=1:3 10",
                "blkio.throttle.write_iops_device=1:3 7"
            ]
        );
        assert_eq!(two, ["cpu.max=25000 50000", "io.weight=10000", "io.weight=1:3 1", "io.max=1:3 wiops=7"]);
        let rare = RareLimits {
            devices: vec![DeviceLimit { kind: DeviceLimitKind::ReadBps, path: "/no/such".into(), value: 1 }],
            ..RareLimits::default()
        };
        assert!(
            settings(&Limits { rare, ..Limits::default() }, true)
                .unwrap_err()
                .to_string()
                .contains("stat /no/such")
        );
    }

    #[test]
    fn no_limits_need_no_cgroup() {
        assert!(Cgroup::create(&Limits::default(), &[]).unwrap().is_none());
    }

    #[test]
    fn a_missing_controller_is_an_error_with_a_way_out() {
        let why = Tree::default().why_not("memory");
        assert!(why.contains("leave the limit out"), "{why}");
    }
}
