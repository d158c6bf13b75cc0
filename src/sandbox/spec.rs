//! What a sandbox is, as plain data: the root file system, the mounts, the process, its limits.
//!
//! A spec says what is wanted and knows nothing of how the kernel is asked for it. It crosses a socket to the helper
//! process that starts sandboxes (see [`super::Launcher`]); the descriptors in it ride along as [`SharedFd`]s.
//! Paths of the host are `PathBuf`s, paths inside the container are bytes and are only ever resolved inside its root.

use super::capability::CapSet;
use super::devices::DeviceRule;
use super::seccomp::SeccompProfile;
use super::wire::SharedFd;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything that decides how one process runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The root file system.
    pub rootfs: Rootfs,
    /// Further mounts. Parents are mounted before what lies below them, whatever the order here.
    pub mounts: Vec<MountSpec>,
    /// The process.
    pub process: ProcessSpec,
    /// The network namespace.
    pub network: Network,
    /// Host name inside; `None` leaves the host's (with [`Network::Host`] docker does that).
    pub hostname: Option<String>,
    /// Whether the root is read-only for the process; mounts keep their own mode.
    pub readonly_rootfs: bool,
    /// Size of `/dev/shm` in bytes; docker's default is 64 MiB.
    pub shm_size: u64,
    /// Kernel settings such as `net.ipv4.ip_forward`; only those that a namespace of the sandbox owns.
    pub sysctls: Vec<(String, String)>,
    /// Resource limits of the whole sandbox.
    pub limits: Limits,
    /// `--privileged` and `RUN --security=insecure`: all capabilities, no filter, the host's devices, writable
    /// `/proc` and `/sys`.
    pub privileged: bool,
    /// Device nodes of the host to show beside the standard ones.
    pub devices: Vec<DeviceSpec>,
    /// Devices that may be used beside the standard ones and those that are shown.
    pub device_rules: Vec<DeviceRule>,
    /// Whose pid namespace; always a new one unless the user asked for `--pid=host`.
    pub pid: PidNamespace,
    /// Whose IPC namespace.
    pub ipc: IpcNamespace,
    /// Whether the cgroups of the caller are seen, and not those below the sandbox's own alone.
    pub host_cgroups: bool,
    /// Nothing of `/proc` and `/sys` is hidden or made read-only, as with `--security-opt systempaths=unconfined`.
    pub bare_paths: bool,
    /// The cgroup tree can be written to.
    pub writable_cgroups: bool,
    /// As many processes may live at once in a pid namespace of its own, where the kernel counts them there (Linux
    /// 6.14); needs no cgroup, so that every step can have it. At least 301; `None` for no limit.
    pub most_processes: Option<u32>,
}

impl SandboxSpec {
    /// Starts from what an unprivileged docker container gets.
    pub fn new(rootfs: Rootfs, process: ProcessSpec) -> Self {
        Self {
            rootfs,
            mounts: Vec::new(),
            process,
            network: Network::None,
            hostname: None,
            readonly_rootfs: false,
            shm_size: 64 << 20,
            sysctls: Vec::new(),
            limits: Limits::default(),
            privileged: false,
            devices: Vec::new(),
            device_rules: Vec::new(),
            pid: PidNamespace::New,
            ipc: IpcNamespace::New,
            host_cgroups: false,
            bare_paths: false,
            writable_cgroups: false,
            most_processes: None,
        }
    }
}

/// Where the root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// Layers with a writable one on top.
    Overlay {
        /// Read-only directories, top first; may be empty (`FROM scratch`).
        lowers: Vec<PathBuf>,
        /// Takes the changes.
        upper: PathBuf,
        /// Empty directory on the same file system as `upper`.
        work: PathBuf,
        /// Leaves out every sync: right for build steps, wrong for what must survive a power cut.
        volatile: bool,
    },
    /// Layers, nothing writable.
    ReadOnlyOverlay {
        /// Read-only directories, top first.
        lowers: Vec<PathBuf>,
    },
    /// One plain directory, written in place.
    Dir(PathBuf),
}

/// One mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MountSpec {
    /// Path inside the container; links are followed inside its root. Missing directories are made as stubs.
    pub target: Vec<u8>,
    /// What is mounted.
    pub kind: MountKind,
    /// Whether the process may not write to it.
    pub readonly: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum MountKind {
    /// A directory, file or socket of the host or of another tree.
    Bind(Source),
    /// A bind whose changes are thrown away: an overlay of its own for a directory, a copy for a file.
    Discard {
        /// What is seen first.
        source: Source,
        /// Existing directory that takes the changes, emptied by the caller afterwards; `None` keeps them in memory.
        scratch: Option<PathBuf>,
    },
    /// An empty memory file system.
    Tmpfs {
        /// Limit in bytes; `None` is half of the memory.
        size: Option<u64>,
        /// Mode of its root, octal; `None` is that of the directory that it covers, 0755 where there is none.
        mode: Option<u32>,
    },
    /// The same with an owner and flags of its own.
    TmpfsWith(TmpfsOptions),
    /// A file that the engine supplies: a secret, `resolv.conf`, `hosts`, a heredoc script. Lives on a memory file
    /// system of its own and never touches the disk.
    File {
        /// Its bytes.
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner inside the container.
        uid: u32,
        /// Group inside the container.
        gid: u32,
    },
}

/// How a memory file system is mounted. `noexec,nosuid,nodev` hold unless taken back, as for `docker run --tmpfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TmpfsOptions {
    /// Limit in bytes; `None` is half of the memory.
    pub size: Option<u64>,
    /// Mode of its root, octal; `None` is 01777.
    pub mode: Option<u32>,
    /// Owner of its root.
    pub uid: u32,
    /// Group of its root.
    pub gid: u32,
    /// Programs on it can be executed.
    pub exec: bool,
    /// Set-user-id counts.
    pub suid: bool,
    /// Device nodes work.
    pub dev: bool,
}

/// Where a bind comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Source {
    /// A path inside a directory that is not trusted: context, cache mount. Links cannot lead out of it.
    InDir {
        /// The directory.
        root: PathBuf,
        /// Path inside it; empty for the directory itself.
        path: Vec<u8>,
    },
    /// A path inside a stack of layers, mounted read-only: another stage or image.
    InLayers {
        /// Read-only directories, top first.
        lowers: Vec<PathBuf>,
        /// Path inside the stack.
        path: Vec<u8>,
    },
    /// A path of the host that the user named (`-v`), with the mounts below it. Followed like any path.
    Host(PathBuf),
    /// The same with options.
    HostWith(PathBuf, BindOptions),
    /// Something already open (`O_PATH` suffices).
    Fd(SharedFd),
}

/// How mounts of the host below a bound directory are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BindOptions {
    /// Those that are there are left out (`bind-recursive=disabled`).
    pub alone: bool,
    /// Which later mounts are seen where.
    #[serde(default)]
    pub propagation: Propagation,
    /// A read-only bind leaves the mounts below it as they are (`bind-recursive=writable`).
    #[serde(default)]
    pub shallow: bool,
}

/// Which mounts that come and go later below a bound directory are seen on the other side. The words with an `r` are
/// about the mounts below as well; those without differ from them in name only, since a mount below a bound directory
/// that is not mounted over keeps its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// None.
    Private,
    /// None, and docker's default.
    #[default]
    RPrivate,
    /// Those of the host are seen by the container.
    Slave,
    /// The same.
    RSlave,
    /// Those of the container are seen by the host, too.
    Shared,
    /// The same.
    RShared,
}

impl Propagation {
    const ALL: [Self; 6] =
        [Self::Private, Self::RPrivate, Self::Slave, Self::RSlave, Self::Shared, Self::RShared];

    /// Reads docker's word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Gives docker's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::RPrivate => "rprivate",
            Self::Slave => "slave",
            Self::RSlave => "rslave",
            Self::Shared => "shared",
            Self::RShared => "rshared",
        }
    }

    /// Whether later mounts of the host are seen.
    pub fn follows(self) -> bool {
        !matches!(self, Self::Private | Self::RPrivate)
    }

    /// Whether mounts of the container reach the host.
    pub fn shares(self) -> bool {
        matches!(self, Self::Shared | Self::RShared)
    }
}

/// What runs, and as whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Program and arguments. A program without a slash is looked up in `PATH` of `env`, inside the container.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value` entries. `HOME` is added from the container's passwd file when absent.
    pub env: Vec<Vec<u8>>,
    /// Working directory inside the container; empty is `/`.
    pub cwd: Vec<u8>,
    /// Whether a missing working directory is made (`docker run -w` does).
    pub create_cwd: bool,
    /// `user`, `user:group`, `uid`, `uid:gid` or empty for root: looked up in the container's own files.
    pub user: String,
    /// Groups beside those of the user: names or numbers (`--group-add`).
    pub extra_groups: Vec<String>,
    /// Whether the process gets a terminal of its own, which [`super::Running::terminal`] then hands out.
    pub terminal: bool,
    /// Columns and rows of that terminal.
    pub terminal_size: Option<(u16, u16)>,
    /// Bounding, permitted and effective capabilities of root; `privileged` overrides.
    pub capabilities: CapSet,
    /// Whether set-user-id programs lose their power.
    pub no_new_privs: bool,
    /// Whether a system call filter applies; `privileged` overrides.
    pub seccomp: bool,
    /// The filter, if not the default one.
    pub profile: Option<SeccompProfile>,
    /// The AppArmor profile that it gets with the execution; without AppArmor in the kernel it is ignored, as by docker.
    pub apparmor: Option<String>,
    /// Limits of the process. A limit above what this machine lets us set is lowered to that.
    pub rlimits: Vec<Rlimit>,
    /// File mode creation mask; docker uses 0022.
    pub umask: u32,
    /// Whether a small init runs as process 1, reaps orphans and passes signals on (`--init`).
    pub init: bool,
    /// `oom_score_adj` of the process.
    pub oom_score_adj: Option<i32>,
}

impl ProcessSpec {
    /// Starts from docker's defaults.
    pub fn new(argv: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: Vec::new(),
            create_cwd: false,
            user: String::new(),
            extra_groups: Vec::new(),
            terminal: false,
            terminal_size: None,
            capabilities: CapSet::DEFAULT,
            no_new_privs: false,
            seccomp: true,
            profile: None,
            apparmor: None,
            rlimits: Vec::new(),
            umask: 0o022,
            init: false,
            oom_score_adj: None,
        }
    }
}

/// One resource limit of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Which.
    pub kind: RlimitKind,
    /// Soft limit; `None` is unlimited.
    pub soft: Option<u64>,
    /// Hard limit; `None` is unlimited.
    pub hard: Option<u64>,
}

macro_rules! rlimit_kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal => $kernel:ident),* $(,)?) => {
        /// Which resource a limit is about (getrlimit(2)); the unit is the kernel's.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum RlimitKind { $($(#[$doc])* $name),* }

        impl RlimitKind {
            /// Reads docker's `--ulimit` name: `nofile`, `nproc`, ...
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$name),)* _ => None }
            }

            /// Gives the name that `--ulimit` takes.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            pub(super) fn kernel(self) -> rustix::process::Resource {
                match self { $(Self::$name => rustix::process::Resource::$kernel),* }
            }
        }
    };
}

rlimit_kinds! {
    /// Address space in bytes.
    As = "as" => As,
    /// Core file in bytes.
    Core = "core" => Core,
    /// Processor time in seconds.
    Cpu = "cpu" => Cpu,
    /// Data segment in bytes.
    Data = "data" => Data,
    /// File size in bytes.
    Fsize = "fsize" => Fsize,
    /// File locks.
    Locks = "locks" => Locks,
    /// Locked memory in bytes.
    Memlock = "memlock" => Memlock,
    /// Message queues in bytes.
    Msgqueue = "msgqueue" => Msgqueue,
    /// Ceiling of the nice value.
    Nice = "nice" => Nice,
    /// Open files.
    Nofile = "nofile" => Nofile,
    /// Processes of the user.
    Nproc = "nproc" => Nproc,
    /// Resident set in bytes.
    Rss = "rss" => Rss,
    /// Real-time priority.
    Rtprio = "rtprio" => Rtprio,
    /// Real-time run without a blocking call, in microseconds.
    Rttime = "rttime" => Rttime,
    /// Queued signals.
    Sigpending = "sigpending" => Sigpending,
    /// Stack in bytes.
    Stack = "stack" => Stack,
}

/// The network a sandbox sees.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Network {
    /// A new namespace with nothing but `lo`, which is up.
    None,
    /// The host's.
    Host,
    /// An existing namespace.
    Join(SharedFd),
    /// An existing namespace by path (`/proc/PID/ns/net`, a bind mount).
    JoinPath(PathBuf),
}

/// The process ids a sandbox sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PidNamespace {
    /// Its own.
    #[default]
    New,
    /// The host's (`--pid=host`). The end of the first process does not end its children then.
    Host,
    /// Those of this process, for the sandboxes of a [`super::Nursery`]; the same holds.
    Of(u32),
}

/// The System V and POSIX message queues a sandbox sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum IpcNamespace {
    /// Its own.
    #[default]
    New,
    /// Its own, without `/dev/shm` (`--ipc=none`).
    Closed,
    /// The host's, with the host's `/dev/shm` (`--ipc=host`).
    Host,
    /// Those of this process, with its `/dev/shm`.
    Of(u32),
}

/// Resource limits of all processes of a sandbox together. `None` means no limit. A limit that this machine cannot
/// set is an error; no limit asked for needs no cgroup at all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Memory and swap together in bytes, as docker counts; `Some(u64::MAX)` is unlimited swap.
    pub memory_swap: Option<u64>,
    /// Memory in bytes that is left to it when memory runs short.
    #[serde(default)]
    pub memory_reservation: Option<u64>,
    /// Memory nodes to use, as in `--cpuset-mems`.
    #[serde(default)]
    pub cpuset_mems: Option<String>,
    /// Processor time in units of a thousandth of a processor: 1500 is one and a half.
    pub cpu_millis: Option<u64>,
    /// Relative weight as in `--cpu-shares`, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Processors to run on, as in `--cpuset-cpus`: `0-2,5`.
    pub cpuset_cpus: Option<String>,
    /// Number of processes and threads.
    pub pids: Option<u64>,
    /// A cgroup to stand below, relative to the cgroup root (`--cgroup-parent`).
    pub parent: Option<PathBuf>,
    /// What is seldom asked for.
    #[serde(default)]
    pub rare: RareLimits,
}

/// Limits that are seldom asked for; some exist in version 1 of cgroups alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RareLimits {
    /// How readily memory is swapped, 0 to 100 (`--memory-swappiness`); version 1.
    pub swappiness: Option<u64>,
    /// What runs out of memory waits instead of being killed (`--oom-kill-disable`); version 1.
    pub oom_kill_disable: bool,
    /// Length of a period of processor time in microseconds.
    pub cpu_period: Option<u64>,
    /// Processor time in a period in microseconds.
    pub cpu_quota: Option<u64>,
    /// Length of a period of real-time processor time in microseconds; version 1.
    pub cpu_rt_period: Option<u64>,
    /// Real-time processor time in a period in microseconds; version 1.
    pub cpu_rt_runtime: Option<u64>,
    /// Weight at the disks against others, 10 to 1000 (`--blkio-weight`).
    pub blkio_weight: Option<u64>,
    /// Limits at single disks.
    pub devices: Vec<DeviceLimit>,
}

/// A limit at one disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLimit {
    /// Of what.
    pub kind: DeviceLimitKind,
    /// Node of the disk on the host.
    pub path: PathBuf,
    /// Weight, bytes or operations a second.
    pub value: u64,
}

/// What is limited at a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceLimitKind {
    /// The weight against others (`--blkio-weight-device`).
    Weight,
    /// Bytes read a second.
    ReadBps,
    /// Bytes written a second.
    WriteBps,
    /// Reads a second.
    ReadIops,
    /// Writes a second.
    WriteIops,
}

impl DeviceLimitKind {
    pub(super) const ALL: [Self; 5] =
        [Self::Weight, Self::ReadBps, Self::WriteBps, Self::ReadIops, Self::WriteIops];
}

impl Limits {
    /// Says whether nothing is limited and no place asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A device node of the host shown in the container (`--device`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// Path on the host.
    pub source: PathBuf,
    /// Path in the container, below `/dev`.
    pub target: Vec<u8>,
    /// `r`, `w`, `m` letters, as docker takes them.
    pub access: String,
}
