//! From the record of a container to what the sandbox runs. Pure but for the mounts, which must be there.

use super::network::Joined;
use super::protocol::ExecRequest;
use super::record::Record;
use super::{Containers, RunError, env, mounts};
use crate::sandbox::{
    IpcNamespace, MountKind, MountSpec, Network, PidNamespace, ProcessSpec, Rootfs, SandboxSpec,
};
use crate::snapshot::Snapshots;
use crate::store::Store;

/// Describes the sandbox of a container.
pub(super) fn sandbox(
    record: &Record,
    root: Rootfs,
    joined: &Joined,
    store: &Store,
    snapshots: &Snapshots,
    size: Option<(u16, u16)>,
) -> Result<SandboxSpec, RunError> {
    let limits = &record.confinement;
    let mut process = process(record);
    process.env = merged(process.env, &joined.env);
    process.terminal_size = size;
    let mut spec = SandboxSpec::new(root, process);
    spec.network = joined.network.clone();
    let hosts_own = limits.host_uts || matches!(joined.network, Network::Host) && !record.own_hostname;
    spec.hostname = (!hosts_own).then(|| record.hostname.clone());
    spec.readonly_rootfs = limits.readonly;
    spec.shm_size = limits.shm_size.unwrap_or(spec.shm_size);
    spec.sysctls.clone_from(&limits.sysctls);
    if !record.domainname.is_empty() {
        spec.sysctls.push(("kernel.domainname".into(), record.domainname.clone()));
    }
    spec.limits = limits.limits.clone();
    spec.privileged = limits.privileged;
    spec.devices.clone_from(&limits.devices);
    spec.device_rules.clone_from(&limits.device_rules);
    spec.pid = match &limits.pid_of {
        Some(other) => PidNamespace::Of(first_process(store, other, "PID")?),
        None => limits.pid,
    };
    spec.ipc = match &limits.ipc_of {
        Some(other) => IpcNamespace::Of(first_process(store, other, "IPC")?),
        None => limits.ipc,
    };
    spec.host_cgroups = limits.host_cgroups;
    spec.bare_paths = limits.bare_paths;
    spec.writable_cgroups = limits.writable_cgroups;
    let mounts = mounts::specs(&record.mounts, store, snapshots)?;
    let ours = [("/etc/resolv.conf", &joined.resolv_conf), ("/etc/hosts", &joined.hosts)];
    let hostname_file = [record.hostname.as_bytes(), b"\n"].concat();
    for (path, content) in ours.into_iter().chain([("/etc/hostname", &hostname_file)]) {
        // the user's own file wins
        if mounts.iter().all(|mount| mount.target != path.as_bytes()) {
            let kind = MountKind::File { content: content.clone(), mode: 0o644, uid: 0, gid: 0 };
            spec.mounts.push(MountSpec { target: path.into(), kind, readonly: limits.readonly });
        }
    }
    spec.mounts.extend(mounts);
    Ok(spec)
}

/// Finds the first process of a running container, whose namespace of a kind another one joins.
fn first_process(store: &Store, other: &str, kind: &str) -> Result<u32, RunError> {
    let found = Containers::new(store).find(other)?;
    if kind == "IPC" && found.record.confinement.ipc == IpcNamespace::Closed {
        return Err(RunError::Refused(format!(
            "cannot join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
            found.record.id
        )));
    }
    found.live_pid().ok_or_else(|| {
        RunError::Refused(format!("cannot join {kind} of a non running container: {}", found.record.id))
    })
}

/// Lays links under the container's own variables.
fn merged(own: Vec<Vec<u8>>, links: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let name = |entry: &[u8]| entry.split(|b| *b == b'=').next().unwrap_or_default().to_vec();
    let new = links
        .iter()
        .filter(|link| own.iter().all(|entry| name(entry) != name(link)))
        .cloned()
        .collect::<Vec<_>>();
    own.into_iter().chain(new).collect()
}

fn process(record: &Record) -> ProcessSpec {
    let limits = &record.confinement;
    let mut process = ProcessSpec::new(record.config.argv.iter().cloned());
    process.env.clone_from(&record.config.env);
    process.cwd.clone_from(&record.config.workdir);
    process.create_cwd = true;
    process.user.clone_from(&record.config.user);
    process.extra_groups.clone_from(&limits.extra_groups);
    process.terminal = record.terminal;
    process.capabilities = limits.capabilities;
    process.no_new_privs = limits.no_new_privs;
    process.seccomp = limits.seccomp;
    process.profile.clone_from(&limits.profile);
    process.apparmor.clone_from(&limits.apparmor);
    process.rlimits.clone_from(&limits.rlimits);
    process.init = limits.init;
    process.oom_score_adj = limits.oom_score_adj;
    process
}

/// Describes a further process.
pub(super) fn exec(record: &Record, request: &ExecRequest) -> ProcessSpec {
    let mut process = process(record);
    process.argv.clone_from(&request.argv);
    if request.terminal {
        let term = (b"TERM".to_vec(), Some(b"xterm".to_vec()));
        process.env = env::merge(process.env, [&term]);
    }
    process.env = env::merge(process.env, &request.env);
    if let Some(dir) = &request.workdir {
        process.cwd.clone_from(dir);
    }
    process.create_cwd = false;
    if let Some(user) = &request.user {
        process.user.clone_from(user);
        process.extra_groups.clear();
    }
    process.terminal = request.terminal;
    process.terminal_size = request.size;
    process.init = false;
    process
}
