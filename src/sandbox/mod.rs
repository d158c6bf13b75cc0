//! A root file system, mounts, a process and limits become an exit status.
//!
//! RUN steps and containers both go through here. The room knows nothing of images, caches or networks: it is given
//! directories, bytes and a network namespace.

mod capability;
mod error;
mod exit;
mod seccomp;
mod spec;
mod wire;

pub use capability::CapSet;
pub use error::{SandboxError, SetupError};
pub use exit::{Exit, Status};
pub use spec::{
    DeviceSpec, IpcNamespace, Limits, MountKind, MountSpec, Network, PidNamespace, ProcessSpec, Rlimit,
    RlimitKind, Rootfs, SandboxSpec, Source,
};
pub use wire::SharedFd;
