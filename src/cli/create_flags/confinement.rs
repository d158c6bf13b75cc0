//! The flags of `run` and `create` that are about what a container may do and use.

use super::on;
use super::rare::{self, RareFlags};
use crate::cli::{CliError, values};
use crate::runtime::Confinement;
use crate::sandbox::{CapSet, DeviceRule, DeviceSpec, IpcNamespace, Limits, PidNamespace};
use clap::Args;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Rights, limits, namespaces, devices.
#[derive(Debug, Args)]
pub(super) struct ConfinementFlags {
    /// Add a group to the user's
    #[arg(long, value_name = "GROUP")]
    pub(super) group_add: Vec<String>,
    /// Mount the root file system read-only
    #[arg(long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    pub(super) read_only: Option<Option<bool>>,
    /// Run a small init as process 1 that passes signals on and reaps orphans
    #[arg(long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    pub(super) init: Option<Option<bool>>,
    /// Give all rights to the container; only for images that you trust with the machine
    #[arg(long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    pub(super) privileged: Option<Option<bool>>,
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',')]
    pub(super) cap_add: Vec<String>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',')]
    pub(super) cap_drop: Vec<String>,
    /// no-new-privileges, seccomp=PROFILE.json|unconfined, apparmor=PROFILE, systempaths=unconfined, writable-cgroups
    #[arg(long, value_name = "OPTION")]
    pub(super) security_opt: Vec<String>,
    /// Show a device of the host
    #[arg(long, value_name = "HOST[:CONTAINER[:rwm]]")]
    pub(super) device: Vec<OsString>,
    /// Let devices be used that are not shown, for example "c 42:* rmw"
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    /// Set a kernel setting of the container's own namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) sysctl: Vec<String>,
    /// Limit of each process, for example nofile=1024:4096
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(super) ulimit: Vec<String>,
    /// Memory of the container, for example 512m
    #[arg(short, long, value_name = "BYTES")]
    pub(super) memory: Option<String>,
    /// Memory and swap together; -1 is no limit [default: twice the memory]
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(super) memory_swap: Option<String>,
    /// Number of processors, for example 1.5
    #[arg(long, value_name = "N")]
    pub(super) cpus: Option<String>,
    /// Weight against other containers
    #[arg(short, long, value_name = "N")]
    pub(super) cpu_shares: Option<u64>,
    /// Processors to use, for example 0-2,5
    #[arg(long, value_name = "LIST")]
    pub(super) cpuset_cpus: Option<String>,
    /// Most processes and threads; -1 is no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(super) pids_limit: Option<i64>,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "BYTES")]
    pub(super) shm_size: Option<String>,
    /// Who goes first when memory runs out, -1000 to 1000
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(super) oom_score_adj: Option<i32>,
    /// Process ids: host, container:NAME, or empty for its own
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,
    /// Message queues and shared memory: private, shareable, none, host, container:NAME
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// Host name: host, or empty for its own
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,
    /// User ids: host, or empty; both are those of rbuild
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,
    /// View of cgroups: private, host
    #[arg(long, value_name = "MODE")]
    cgroupns: Option<String>,
    /// Cgroup to stand below
    #[arg(long, value_name = "DIR")]
    cgroup_parent: Option<PathBuf>,
    /// Memory that it keeps when memory runs short
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// Length of a period of processor time in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Processor time in a period in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Memory nodes to use, for example 0-1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    #[command(flatten)]
    rare: RareFlags,
}

impl ConfinementFlags {
    /// Reads all of them; `named` says that the container is given a host name.
    pub(super) fn confinement(&self, named: bool) -> Result<Confinement, CliError> {
        let args = self;
        let add = capabilities("--cap-add", &args.cap_add)?;
        let drop = capabilities("--cap-drop", &args.cap_drop)?;
        let mut out = Confinement {
            privileged: on(args.privileged),
            capabilities: CapSet::DEFAULT.adjusted(add, drop),
            readonly: on(args.read_only),
            init: on(args.init),
            extra_groups: args.group_add.clone(),
            rlimits: args.ulimit.iter().map(|text| values::ulimit(text)).collect::<Result<_, _>>()?,
            limits: limits(args)?,
            shm_size: shm_size(args)?,
            sysctls: args.sysctl.iter().map(|text| sysctl(text)).collect::<Result<_, _>>()?,
            devices: args.device.iter().map(|text| device(text)).collect::<Result<_, _>>()?,
            device_rules: args
                .device_cgroup_rule
                .iter()
                .map(|text| device_rule(text))
                .collect::<Result<_, _>>()?,
            oom_score_adj: args.oom_score_adj,
            cap_add: args.cap_add.clone(),
            cap_drop: args.cap_drop.clone(),
            security_opt: args.security_opt.iter().filter(|o| *o != values::BARE_PATHS).cloned().collect(),
            ..Confinement::default()
        };
        namespaces(args, named, &mut out)?;
        let security = values::security(&args.security_opt)?;
        out.no_new_privs = security.no_new_privs;
        out.seccomp = security.seccomp;
        out.profile = security.profile;
        out.bare_paths = security.bare_paths;
        out.writable_cgroups = security.writable_cgroups;
        out.apparmor = security.apparmor;
        if !security.labels.is_empty() && values::selinux_enforces() {
            crate::cli::talk(
                "warning: --security-opt label has no effect: processes keep the SELinux label of rbuild\n",
            );
        }
        Ok(out)
    }
}

/// Reads whose namespaces the container uses.
fn namespaces(args: &ConfinementFlags, named: bool, out: &mut Confinement) -> Result<(), CliError> {
    let bad = |flag: &str, mode: &str, known: &str| {
        Err(CliError::new(format!("--{flag} {mode:?} is not available")).hint(format!("there are {known}")))
    };
    match args.pid.as_deref().unwrap_or_default() {
        "" | "private" => {}
        "host" => out.pid = PidNamespace::Host,
        other => match container(other) {
            Some(name) => out.pid_of = Some(name),
            None => return bad("pid", other, "host, container:NAME and the default, a namespace of its own"),
        },
    }
    match args.ipc.as_deref().unwrap_or_default() {
        "" | "private" => {}
        "shareable" => out.ipc_shareable = true,
        "none" => out.ipc = IpcNamespace::Closed,
        "host" => out.ipc = IpcNamespace::Host,
        other => match container(other) {
            Some(name) => out.ipc_of = Some(name),
            None => return bad("ipc", other, "host, none, private, shareable and container:NAME"),
        },
    }
    match args.uts.as_deref().unwrap_or_default() {
        "" => {}
        "host" => out.host_uts = true,
        other => return bad("uts", other, "host and the default, a namespace of its own"),
    }
    match args.userns.as_deref().unwrap_or_default() {
        "" | "host" => {}
        other => return bad("userns", other, "host and the default, which is the same here"),
    }
    match args.cgroupns.as_deref().unwrap_or_default() {
        "" | "private" => {}
        "host" => out.host_cgroups = true,
        other => return bad("cgroupns", other, "host and private, the default"),
    }
    if out.host_uts && named {
        return Err(CliError::new("conflicting options: hostname and the UTS mode"));
    }
    Ok(())
}

/// The name in `container:NAME`.
fn container(mode: &str) -> Option<String> {
    mode.strip_prefix("container:").filter(|name| !name.is_empty()).map(str::to_owned)
}

fn capabilities(flag: &str, names: &[String]) -> Result<CapSet, CliError> {
    names.iter().try_fold(CapSet::EMPTY, |set, name| {
        let one = CapSet::parse(name)
            .ok_or_else(|| CliError::new(format!("{flag} {name:?}: there is no such capability")))?;
        Ok(set.with(one))
    })
}

fn shm_size(args: &ConfinementFlags) -> Result<Option<u64>, CliError> {
    let size = args.shm_size.as_deref().map(|size| values::bytes("--shm-size", size)).transpose()?;
    // none at all would be of no use: it stands for the default
    Ok(size.filter(|size| *size > 0))
}

fn limits(args: &ConfinementFlags) -> Result<Limits, CliError> {
    // 0 stands for no limit everywhere
    let memory = args.memory.as_deref().map(|m| values::bytes("--memory", m)).transpose()?;
    let memory = memory.filter(|bytes| *bytes > 0);
    let given_cpus = args.cpus.as_deref().filter(|text| text.parse() != Ok(0.0));
    let limits = Limits {
        memory,
        memory_swap: values::memory_swap(args.memory_swap.as_deref(), memory)?,
        memory_reservation: args
            .memory_reservation
            .as_deref()
            .map(|m| values::bytes("--memory-reservation", m))
            .transpose()?,
        cpu_millis: given_cpus.map(cpus).transpose()?,
        cpuset_mems: args.cpuset_mems.clone(),
        cpu_shares: args.cpu_shares.filter(|shares| *shares > 0),
        cpuset_cpus: args.cpuset_cpus.clone(),
        pids: args.pids_limit.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
        parent: args.cgroup_parent.clone(),
        rare: args.rare.limits(given_cpus.is_some(), args.cpu_period, args.cpu_quota)?,
    };
    let mut limits = limits;
    rare::settle(&mut limits)?;
    Ok(limits)
}

pub(in crate::cli) fn cpus(text: &str) -> Result<u64, CliError> {
    let number: Option<f64> =
        text.parse().ok().filter(|n: &f64| n.is_finite() && (0.01..=100_000.0).contains(n));
    number
        .map(|n| (n * 1000.0).round() as u64)
        .ok_or_else(|| CliError::new(format!("--cpus {text:?}: expected a number of processors such as 1.5")))
}

fn sysctl(text: &str) -> Result<(String, String), CliError> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| CliError::new(format!("--sysctl {text:?}: expected NAME=VALUE")))
}

fn device_rule(text: &str) -> Result<DeviceRule, CliError> {
    DeviceRule::parse(text).ok_or_else(|| {
        CliError::new(format!("invalid device cgroup rule format: '{text}'"))
            .hint("write KIND MAJOR:MINOR ACCESS, for example 'c 42:* rwm'")
    })
}

fn device(text: &OsStr) -> Result<DeviceSpec, CliError> {
    let bad = |why: &str| CliError::new(format!("--device {:?}: {why}", text.to_string_lossy()));
    let parts: Vec<&[u8]> = text.as_bytes().split(|b| *b == b':').collect();
    let is_access = |part: &[u8]| !part.is_empty() && part.iter().all(|b| b"rwm".contains(b));
    let (source, target, access) = match parts[..] {
        [source] => (source, source, &b"rwm"[..]),
        [source, access] if is_access(access) => (source, source, access),
        [source, target] => (source, target, &b"rwm"[..]),
        [source, target, access] if is_access(access) => (source, target, access),
        _ => return Err(bad("expected HOST[:CONTAINER[:rwm]]")),
    };
    if !source.starts_with(b"/") || !target.starts_with(b"/") {
        return Err(bad("both paths must be absolute"));
    }
    Ok(DeviceSpec {
        source: OsStr::from_bytes(source).into(),
        target: target.to_vec(),
        access: String::from_utf8_lossy(access).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::*;

    #[test]
    fn limits_and_devices() {
        let limited = |words: &[&str]| limits(&parse(&[words, &["app"]].concat()).unwrap().confinement);
        let got = limited(&["-m", "64m", "--memory-swap=-1", "--cpus", "1.5", "--pids-limit", "-1"]).unwrap();
        assert_eq!(
            (got.memory, got.memory_swap, got.cpu_millis, got.pids),
            (Some(64 << 20), Some(u64::MAX), Some(1500), None)
        );
        let got = limited(&["-m", "0", "--memory-swap=-1", "--cpus", "0.0", "--pids-limit", "0"]).unwrap();
        assert_eq!(got, Limits::default());
        for bad in [
            &["--cpus", "0.001"][..],
            &["--memory-swap", "1g"],
            &["-m", "2g", "--memory-swap", "1g"],
            &["-m", "x"],
        ] {
            assert!(limited(bad).is_err(), "{bad:?}");
        }
        let got = device(OsStr::new("/dev/fuse:/dev/x:rw")).unwrap();
        assert_eq!(
            (got.source.as_path(), &got.target[..], got.access.as_str()),
            (std::path::Path::new("/dev/fuse"), &b"/dev/x"[..], "rw")
        );
        assert_eq!(device(OsStr::new("/dev/fuse:r")).unwrap().target, b"/dev/fuse");
        for bad in ["fuse", "/dev/fuse:x", "/dev/fuse:/x:q", "/a:/b:r:w"] {
            assert!(device(OsStr::new(bad)).is_err(), "{bad}");
        }
    }
}
