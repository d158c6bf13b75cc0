//! What the process of a container may do and use.

use crate::sandbox::{
    CapSet, DeviceRule, DeviceSpec, IpcNamespace, Limits, PidNamespace, Rlimit, SeccompProfile,
};
use serde::{Deserialize, Serialize};

/// What the process may do and use.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Confinement {
    /// All capabilities, no filter, all devices.
    pub privileged: bool,
    /// Capabilities, if not privileged.
    pub capabilities: CapSet,
    /// As typed, for `inspect`.
    pub cap_add: Vec<String>,
    /// As typed, for `inspect`.
    pub cap_drop: Vec<String>,
    /// As typed, for `inspect`.
    pub security_opt: Vec<String>,
    /// Set-user-id programs lose their power.
    pub no_new_privs: bool,
    /// A filter of system calls.
    pub seccomp: bool,
    /// The filter, if not the default one.
    pub profile: Option<SeccompProfile>,
    /// The root file system takes no writes.
    pub readonly: bool,
    /// A small init reaps orphans.
    pub init: bool,
    /// Groups beside the user's.
    pub extra_groups: Vec<String>,
    /// Of each process.
    pub rlimits: Vec<Rlimit>,
    /// Of all processes together.
    pub limits: Limits,
    /// Bytes of `/dev/shm`; `None` is docker's 64 MiB.
    pub shm_size: Option<u64>,
    /// Kernel settings of the container's own namespaces.
    pub sysctls: Vec<(String, String)>,
    /// Devices of the host.
    pub devices: Vec<DeviceSpec>,
    /// Devices that may be used beside these and the standard ones.
    pub device_rules: Vec<DeviceRule>,
    /// `oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// Whose process ids.
    pub pid: PidNamespace,
    /// Of which container, as named.
    pub pid_of: Option<String>,
    /// Whose message queues and shared memory.
    pub ipc: IpcNamespace,
    /// Of which container, as named.
    pub ipc_of: Option<String>,
    /// `--ipc shareable`, for `inspect`: every container's can be shared but that of `--ipc none`.
    pub ipc_shareable: bool,
    /// Whether the cgroups of the caller are seen (`--cgroupns host`).
    pub host_cgroups: bool,
    /// Nothing of `/proc` and `/sys` is hidden (`systempaths=unconfined`).
    pub bare_paths: bool,
    /// The cgroup tree can be written to (`writable-cgroups`).
    pub writable_cgroups: bool,
    /// The AppArmor profile, as typed.
    pub apparmor: Option<String>,
    /// Whether the host name is the host's own, to be changed with it.
    pub host_uts: bool,
}

impl Default for Confinement {
    /// What an ordinary container gets.
    fn default() -> Self {
        Self {
            privileged: false,
            capabilities: CapSet::DEFAULT,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            security_opt: Vec::new(),
            no_new_privs: false,
            seccomp: true,
            profile: None,
            readonly: false,
            init: false,
            extra_groups: Vec::new(),
            rlimits: Vec::new(),
            limits: Limits::default(),
            shm_size: None,
            sysctls: Vec::new(),
            devices: Vec::new(),
            device_rules: Vec::new(),
            oom_score_adj: None,
            pid: PidNamespace::New,
            pid_of: None,
            ipc: IpcNamespace::New,
            ipc_of: None,
            ipc_shareable: false,
            host_cgroups: false,
            bare_paths: false,
            writable_cgroups: false,
            apparmor: None,
            host_uts: false,
        }
    }
}
