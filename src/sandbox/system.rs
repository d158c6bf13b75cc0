//! What every container finds besides its image: `/proc`, `/sys`, `/dev`, with the parts covered that docker covers.
//!
//! All of it is mounted fresh for the sandbox. The mount points must be real directories of the image: a link there is
//! an error, never followed. The few device nodes are the sandbox's own, each mounted by itself on a `/dev` where no
//! other node can be opened unless a [gate](super::devices) guards the devices: a `chmod /dev/null` inside must not change the host's node. Where nodes cannot be made (in
//! a user namespace) the host's are mounted, read-only, which protects the node and not the device.

use super::error::{Doing, Setup, SetupError, show};
use super::host::Host;
use super::spec::{DeviceSpec, IpcNamespace, PidNamespace, SandboxSpec};
use super::staging::Staging;
use crate::sys::mount::{self, INERT, NewFs};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Name and device number.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];

/// Below `/proc`; what tells of or changes the machine rather than the container.
const MASKED_PROC: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
const READONLY_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
const MASKED_SYS: [&str; 2] = ["firmware", "devices/virtual/powercap"];

/// Gives the paths that are hidden from a sandbox, and those that are read-only in it.
#[must_use]
pub fn covered_paths() -> (Vec<String>, Vec<String>) {
    let below = |dir: &'static str| move |name: &&str| format!("{dir}/{name}");
    let masked = MASKED_PROC.iter().map(below("/proc")).chain(MASKED_SYS.iter().map(below("/sys")));
    (masked.collect(), READONLY_PROC.iter().map(below("/proc")).collect())
}

const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Sources on the host, opened before its paths are covered.
#[derive(Debug)]
pub(super) struct HostParts {
    /// The standard nodes, in the order of `NODES`.
    nodes: Vec<OwnedFd>,
    /// Whether these are still the host's.
    hosts_nodes: bool,
    /// Further nodes: name below `/dev`, mount.
    devices: Vec<(Vec<u8>, OwnedFd)>,
    /// For a sandbox that may not mount one of its own.
    sys: Option<OwnedFd>,
    shm: Option<OwnedFd>,
    /// For a user's sandbox with the machine's process ids, which may mount none of its own.
    proc: Option<OwnedFd>,
    /// The machine's cgroup trees, for a sandbox that may see or change them.
    cgroups: Option<OwnedFd>,
}

impl HostParts {
    pub(super) fn open(spec: &SandboxSpec) -> Setup<Self> {
        let node = |(name, major, minor)| host_node(name, major, minor);
        let nodes = NODES.into_iter().map(node).collect::<Setup<_>>()?;
        let mut devices = Vec::new();
        for device in &spec.devices {
            devices.push((below_dev(device), open_device(device)?));
        }
        if spec.privileged {
            all_devices(&mut devices).doing(|| "list the devices of the host".into())?;
        }
        let place = |path: &str| fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let sys = place("/sys").and_then(|sys| mount::clone_tree(sys, true).map_err(|_| Errno::PERM)).ok();
        let shm = match spec.ipc {
            IpcNamespace::New | IpcNamespace::Closed => None,
            IpcNamespace::Host => {
                let shm =
                    place("/dev/shm").map_err(io::Error::from).and_then(|shm| mount::clone_tree(shm, false));
                Some(shm.doing(|| "take the host's /dev/shm".into())?)
            }
            IpcNamespace::Of(pid) => Some(
                share_memory(pid).doing(|| "share the memory and queues of the other container".into())?,
            ),
        };
        let proc = if spec.pid == PidNamespace::Host { place("/proc").ok() } else { None };
        let proc = proc.and_then(|place| mount::clone_tree(place, true).ok());
        let wants_cgroups = spec.privileged || spec.writable_cgroups || spec.host_cgroups;
        let cgroups = if wants_cgroups { place("/sys/fs/cgroup").ok() } else { None };
        let cgroups = cgroups.and_then(|place| mount::clone_tree(place, true).ok());
        Ok(Self { nodes, hosts_nodes: true, devices, sys, shm, proc, cgroups })
    }

    /// Makes nodes of the sandbox's own in place of the host's. Where that is not allowed the host's stay.
    pub(super) fn own_nodes(&mut self, staging: &mut Staging) {
        let own = NODES.into_iter().map(|(_, major, minor)| staging.node(major, minor)).collect();
        if let Ok(nodes) = own {
            self.nodes = nodes;
            self.hosts_nodes = false;
        }
    }

    /// Gives a mount of the standard node at this position.
    fn node(&self, at: usize) -> io::Result<OwnedFd> {
        let tree = mount::clone_tree(&self.nodes[at], false)?;
        if self.hosts_nodes {
            mount::add_attributes(&tree, MountAttrFlags::MOUNT_ATTR_RDONLY, false)?;
        }
        Ok(tree)
    }

    /// Gives a mount of the null device.
    fn null(&self) -> io::Result<OwnedFd> {
        self.node(0)
    }
}

/// Joins the IPC namespace of a process, and gives a mount of its `/dev/shm`.
fn share_memory(pid: u32) -> io::Result<OwnedFd> {
    let open = |of: &str, what: &str| std::fs::File::open(format!("/proc/{of}/ns/{what}"));
    let (own, theirs) = (open("self", "mnt")?, open(&pid.to_string(), "mnt")?);
    nix::sched::setns(open(&pid.to_string(), "ipc")?, nix::sched::CloneFlags::CLONE_NEWIPC)?;
    // a mount can only be copied by somebody who is where it is
    nix::sched::setns(theirs, nix::sched::CloneFlags::CLONE_NEWNS)?;
    let shm = fs::open("/dev/shm", PLACE | OFlags::DIRECTORY, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|shm| mount::clone_tree(shm, false));
    nix::sched::setns(own, nix::sched::CloneFlags::CLONE_NEWNS)?;
    shm
}

/// Opens a node of the host's `/dev` and makes sure that it is the device it should be.
fn host_node(name: &str, major: u32, minor: u32) -> Setup<OwnedFd> {
    let doing = || format!("open /dev/{name} of the host");
    let node = fs::open(format!("/dev/{name}"), PLACE, Mode::empty()).doing(doing)?;
    let stat = fs::fstat(&node).doing(doing)?;
    let is_it = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == fs::makedev(major, minor);
    if is_it { Ok(node) } else { Err(SetupError::new(doing(), format!("it is not device {major}:{minor}"))) }
}

fn below_dev(device: &DeviceSpec) -> Vec<u8> {
    let clean = crate::tree::TreePath::clean(&device.target);
    let path = clean.as_bytes();
    path.strip_prefix(b"dev/").unwrap_or(path).to_vec()
}

fn open_device(device: &DeviceSpec) -> Setup<OwnedFd> {
    let doing = || format!("take the device {}", show(device.source.as_os_str().as_bytes()));
    let node = fs::open(&device.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing(doing)?;
    let kind = FileType::from_raw_mode(fs::fstat(&node).doing(doing)?.st_mode);
    if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice | FileType::Directory) {
        return Err(SetupError::new(doing(), "it is no device node"));
    }
    let tree = mount::clone_tree(node, true).doing(doing)?;
    // the device can be written to all the same, but the host's node cannot be changed
    mount::add_attributes(&tree, MountAttrFlags::MOUNT_ATTR_RDONLY, true).doing(doing)?;
    Ok(tree)
}

/// Takes every device of the host's `/dev` but terminals.
fn all_devices(out: &mut Vec<(Vec<u8>, OwnedFd)>) -> io::Result<()> {
    let skip = ["pts", "shm", "mqueue", "ptmx", "console", "fd", "stdin", "stdout", "stderr", "core"];
    let standard = |name: &[u8]| {
        NODES.iter().any(|n| n.0.as_bytes() == name) || skip.iter().any(|s| s.as_bytes() == name)
    };
    for entry in std::fs::read_dir("/dev")?.flatten() {
        let name = entry.file_name().as_bytes().to_vec();
        let kind = entry.file_type()?;
        use std::os::unix::fs::FileTypeExt;
        if standard(&name) || !(kind.is_dir() || kind.is_char_device() || kind.is_block_device()) {
            continue;
        }
        // A node may vanish meanwhile, a mount may be locked: what cannot be shown is left out.
        if let Ok(node) = fs::open(Path::new("/dev").join(entry.file_name()), PLACE, Mode::empty())
            && let Ok(tree) = mount::clone_tree(node, true)
            && mount::add_attributes(&tree, MountAttrFlags::MOUNT_ATTR_RDONLY, true).is_ok()
        {
            out.push((name, tree));
        }
    }
    Ok(())
}

/// Mounts `/proc` and covers parts of it.
pub(super) fn proc(place: OwnedFd, spec: &SandboxSpec, parts: &mut HostParts, host: &Host) -> Setup<OwnedFd> {
    let own = NewFs::open("proc").and_then(|fs| fs.mount(INERT));
    let own = own.or_else(|e| match parts.proc.take() {
        Some(hosts) => {
            mount::make_private(&hosts, true)?;
            mount::add_attributes(&hosts, INERT, true)?;
            Ok(hosts)
        }
        None => Err(e),
    });
    let proc = own.doing(|| "mount /proc".into()).map_err(|e| match e.errno {
        Some(nix::libc::EPERM) => e.hint(
            "inside another container its /proc must be wholly visible: run that one with \
                 `--security-opt systempaths=unconfined`",
        ),
        _ => e,
    })?;
    // Before parts of it are made read-only.
    sysctls(proc.as_fd(), spec)?;
    if spec.pid == PidNamespace::New
        && let Some(most) = spec.most_processes
        && host.counts_pids
    {
        bound_processes(proc.as_fd(), most);
    }
    mount::attach(&proc, place).doing(|| "mount /proc".into())?;
    if !spec.privileged && !spec.bare_paths {
        cover(proc.as_fd(), "/proc", &MASKED_PROC, parts)?;
        for name in READONLY_PROC {
            freeze(proc.as_fd(), name)?;
        }
    }
    Ok(proc)
}

/// Mounts `/sys` with the cgroup tree in it.
pub(super) fn sys(place: OwnedFd, spec: &SandboxSpec, parts: &mut HostParts, host: &Host) -> Setup<()> {
    let readonly = if spec.privileged { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    let own = NewFs::open("sysfs").and_then(|fs| fs.mount(INERT | readonly));
    let (tree, fresh) = match (own, parts.sys.take()) {
        (Ok(own), _) => (own, true),
        // The network namespace is not ours: then neither is a sysfs.
        (Err(_), Some(hosts)) => {
            mount::add_attributes(&hosts, INERT | readonly, true).doing(|| "mount the host's /sys".into())?;
            (hosts, false)
        }
        (Err(e), None) => return Err(e).doing(|| "mount /sys".into()),
    };
    mount::attach(&tree, place).doing(|| "mount /sys".into())?;
    let writable = spec.privileged || spec.writable_cgroups;
    let cgroups_readonly = if writable { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    if fresh && (!host.cgroup2 || spec.host_cgroups) {
        // Those of version 1 cannot be mounted anew. Those of version 2 must not be where the machine's own are seen:
        // that would set their options anew for everybody.
        let at = fs::openat(&tree, "fs/cgroup", PLACE, Mode::empty());
        if let (Some(cgroups), Ok(at)) = (parts.cgroups.take(), at)
            && mount::make_private(&cgroups, true).is_ok()
            && mount::add_attributes(&cgroups, INERT | cgroups_readonly, true).is_ok()
        {
            mount::attach(&cgroups, at).doing(|| "mount /sys/fs/cgroup".into())?;
        }
    } else if fresh {
        let cgroup = NewFs::open("cgroup2").and_then(|fs| fs.mount(INERT | cgroups_readonly));
        let at = fs::openat(&tree, "fs/cgroup", PLACE, Mode::empty());
        if let (Ok(cgroup), Ok(at)) = (cgroup, at) {
            mount::attach(&cgroup, at).doing(|| "mount /sys/fs/cgroup".into())?;
        }
    }
    if !spec.privileged && !spec.bare_paths {
        cover(tree.as_fd(), "/sys", &MASKED_SYS, parts)?;
    }
    Ok(())
}

/// Hides files behind the null device and directories behind an empty one.
fn cover(root: BorrowedFd<'_>, path: &str, names: &[&str], parts: &HostParts) -> Setup<()> {
    let mut empty: Option<OwnedFd> = None;
    for name in names {
        let doing = || format!("cover {path}/{name}");
        let place = match fs::openat(root, *name, PLACE, Mode::empty()) {
            Ok(place) => place,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => continue,
            Err(e) => return Err(e).doing(doing),
        };
        let is_dir = FileType::from_raw_mode(fs::fstat(&place).doing(doing)?.st_mode) == FileType::Directory;
        let veil = match (&empty, is_dir) {
            (_, false) => parts.null().doing(doing)?,
            (Some(first), true) => mount::clone_tree(first, false).doing(doing)?,
            (None, true) => NewFs::open("tmpfs")
                .and_then(|fs| {
                    fs.set("nr_inodes", "1")?;
                    fs.mount(INERT | MountAttrFlags::MOUNT_ATTR_RDONLY)
                })
                .doing(doing)?,
        };
        mount::attach(&veil, &place).doing(doing)?;
        if is_dir && empty.is_none() {
            empty = Some(veil);
        }
    }
    Ok(())
}

/// Makes one part of a mount read-only.
fn freeze(root: BorrowedFd<'_>, name: &str) -> Setup<()> {
    let doing = || format!("make /proc/{name} read-only");
    let place = match fs::openat(root, name, PLACE, Mode::empty()) {
        Ok(place) => place,
        Err(Errno::NOENT | Errno::ACCESS) => return Ok(()),
        Err(e) => return Err(e).doing(doing),
    };
    let copy = mount::clone_tree(&place, false).doing(doing)?;
    mount::add_attributes(&copy, INERT | MountAttrFlags::MOUNT_ATTR_RDONLY, false).doing(doing)?;
    mount::attach(copy, place).doing(doing)
}

/// A mounted `/dev`.
#[derive(Debug)]
pub(super) struct Dev {
    pub mount: OwnedFd,
    /// The terminals of this sandbox alone.
    pub pts: OwnedFd,
}

/// Mounts `/dev`: a few nodes, terminals, shared memory. `opens` says whether nodes that are made there work.
pub(super) fn dev(
    place: OwnedFd,
    spec: &SandboxSpec,
    parts: &mut HostParts,
    host: &Host,
    opens: bool,
) -> Setup<Dev> {
    let doing = || "mount /dev".to_owned();
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    // The nodes are mounts of their own; unless something else guards the devices others that are made here are dead.
    let nodev = if opens { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_NODEV };
    let dev = new_fs("tmpfs", &[("mode", "755"), ("size", "65536k")], flags | nodev).doing(doing)?;
    mount::attach(&dev, place).doing(doing)?;
    for (at, (name, ..)) in NODES.iter().enumerate() {
        let node = parts.node(at).doing(|| format!("take /dev/{name}"))?;
        attach_file(&dev, name.as_bytes(), &node).doing(|| format!("put /dev/{name} there"))?;
    }
    for (name, target) in LINKS {
        fs::symlinkat(target, &dev, name).doing(|| format!("put /dev/{name} there"))?;
    }
    for (name, node) in std::mem::take(&mut parts.devices) {
        attach_device(&dev, &name, &node).doing(|| format!("put /dev/{} there", show(&name)))?;
    }
    let mut options = vec![("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620"))];
    if host.tty_group {
        options.push(("gid", Some("5")));
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let pts = devpts(&options, attributes).doing(|| "mount /dev/pts".into())?;
    attach_dir(&dev, "pts", &pts).doing(|| "mount /dev/pts".into())?;
    let shm = match parts.shm.take() {
        Some(hosts) => Some(hosts),
        None if spec.ipc == IpcNamespace::Closed => None,
        None => {
            let size = spec.shm_size.to_string();
            let own = new_fs("tmpfs", &[("mode", "1777"), ("size", &size)], INERT);
            Some(own.doing(|| "mount /dev/shm".into())?)
        }
    };
    if let Some(shm) = shm {
        attach_dir(&dev, "shm", &shm).doing(|| "mount /dev/shm".into())?;
    }
    // A kernel without message queues is fine.
    if spec.ipc != IpcNamespace::Host
        && let Ok(queues) = new_fs("mqueue", &[], INERT)
    {
        attach_dir(&dev, "mqueue", &queues).doing(|| "mount /dev/mqueue".into())?;
    }
    Ok(Dev { mount: dev, pts })
}

fn new_fs(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let fs = NewFs::open(kind)?;
    for (key, value) in options {
        fs.set(key, *value)?;
    }
    fs.mount(attributes)
}

fn devpts(options: &[(&str, Option<&str>)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let fs = NewFs::open("devpts")?;
    for (key, value) in options {
        match value {
            Some(value) => fs.set(key, *value)?,
            None => fs.flag(key)?,
        };
    }
    fs.mount(attributes)
}

/// Makes an empty file in `dir` and mounts `node` on it.
pub(super) fn attach_file(dir: &OwnedFd, name: &[u8], node: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(fs::openat(dir, name, flags, Mode::from_raw_mode(0o666))?);
    mount::attach(node, fs::openat(dir, name, PLACE, Mode::empty())?)
}

fn attach_dir(dir: &OwnedFd, name: &str, tree: &OwnedFd) -> io::Result<()> {
    fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))?;
    mount::attach(tree, fs::openat(dir, name, PLACE, Mode::empty())?)
}

/// Like [`attach_file`] for a name that may have directories in it and may exist.
fn attach_device(dev: &OwnedFd, name: &[u8], node: &OwnedFd) -> io::Result<()> {
    let path = std::ffi::OsStr::from_bytes(name);
    let parent = path.as_bytes().iter().rposition(|b| *b == b'/').map_or(&b""[..], |cut| &name[..cut]);
    let (dir, _) = crate::sys::inroot::mkdir_all_in_root(
        dev,
        std::ffi::OsStr::from_bytes(parent),
        Mode::from_raw_mode(0o755),
    )?;
    let last = &name[if parent.is_empty() { 0 } else { parent.len() + 1 }..];
    if FileType::from_raw_mode(fs::fstat(node)?.st_mode) == FileType::Directory {
        match fs::mkdirat(&dir, last, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        return mount::attach(node, fs::openat(&dir, last, PLACE, Mode::empty())?);
    }
    if fs::statat(&dir, last, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        return mount::attach(node, fs::openat(&dir, last, PLACE, Mode::empty())?);
    }
    attach_file(&dir, last, node)
}

/// Sets the highest process number of the sandbox's own pid namespace. What cannot be bounded is bounded by the host.
fn bound_processes(proc: BorrowedFd<'_>, most: u32) {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(file) = fs::openat(proc, "sys/kernel/pid_max", flags, Mode::empty()) {
        let _ = rustix::io::write(&file, most.to_string().as_bytes());
    }
}

/// Writes kernel settings of the sandbox's own namespaces through its `/proc`.
fn sysctls(proc: BorrowedFd<'_>, spec: &SandboxSpec) -> Setup<()> {
    for (key, value) in &spec.sysctls {
        let doing = || format!("set {} to {value:?}", show(key.as_bytes()));
        let ipc = matches!(spec.ipc, IpcNamespace::New | IpcNamespace::Closed)
            && ["kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue."].iter().any(|p| key.starts_with(p));
        let net = !matches!(spec.network, super::spec::Network::Host) && key.starts_with("net.");
        if key == "kernel.domainname" && spec.hostname.is_some() {
            // the file belongs to the machine's root, the name to the namespace
            rustix::system::setdomainname(value.as_bytes()).doing(doing)?;
            continue;
        }
        if !ipc && !net {
            return Err(SetupError::new(doing(), "it does not belong to a namespace of the sandbox"));
        }
        let path = format!("sys/{}", key.replace('.', "/"));
        let file = fs::openat(proc, path, OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        let file = file.doing(doing)?;
        rustix::io::write(&file, value.as_bytes()).doing(doing)?;
    }
    Ok(())
}
