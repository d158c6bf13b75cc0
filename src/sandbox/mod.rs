//! A root file system, mounts, a process and limits become an exit status.
//!
//! RUN steps and containers both go through here. The room knows nothing of images, caches or networks: it is given
//! directories, bytes and a network namespace.
//!
//! Three processes take part. rbuild holds a [`Launcher`] and threads. The helper, executed once, has one thread and
//! may therefore copy itself ([`helper`]). Each copy is the first process of a sandbox and becomes the program
//! ([`child`]). Every mount is made in that copy's own mount namespace and every process lives in its pid namespace, so
//! a killed rbuild leaves neither behind: the death of one ends the next.

mod apparmor;
mod capability;
mod cgroup;
mod child;
mod devices;
mod enter;
mod error;
mod exit;
mod freezer;
mod helper;
mod host;
mod init;
mod launcher;
mod loopback;
mod message;
mod mounts;
mod nursery;
mod probe;
mod program;
mod propagation;
pub mod pty;
mod resources;
mod rootfs;
pub mod rootless;
mod scope;
mod seccomp;
pub(crate) mod socket;
mod spec;
mod staging;
mod stubs;
mod system;
mod user;
mod wire;

pub use capability::CapSet;
pub use cgroup::remove_cgroups;
pub use devices::DeviceRule;
pub use error::{SandboxError, SetupError};
pub use exit::{Exit, Status};
pub use freezer::{Freezer, members};
pub(crate) use launcher::sealed_self;
pub use launcher::{Launcher, Running, Stdio};
pub use nursery::Nursery;
pub use probe::{Feature, probe, try_overlay};
pub use resources::discard_unsupported;
pub use rootfs::open_rootfs;
pub use seccomp::SeccompProfile;
pub use spec::{
    BindOptions, DeviceLimit, DeviceLimitKind, DeviceSpec, IpcNamespace, Limits, MountKind, MountSpec,
    Network, PidNamespace, ProcessSpec, Propagation, RareLimits, Rlimit, RlimitKind, Rootfs, SandboxSpec,
    Source, TmpfsOptions,
};
pub use system::covered_paths;
pub use wire::SharedFd;
pub(crate) use wire::{decode, encode};

/// Serves as the sandbox helper, or as the anchor of a user's containers, when this process was executed as one, and
/// gives its exit code; `None` in every other case. The first thing that `main` calls.
pub fn helper_main() -> Option<std::process::ExitCode> {
    helper::is_asked_for().then(|| helper::serve().into()).or_else(rootless::anchor_main)
}
