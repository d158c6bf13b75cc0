//! One container from start to end, in the foreground.

use super::config::{ContainerConfig, Overrides};
use super::mounts;
use super::network::{Joined, Member, NetworkRequest};
use super::signals::{Forwarder, Target};
use super::terminal::Outputs;
use super::volume::VolumeRequest;
use super::{Card, Claim, ContainerId, ContainerName, RunError, terminal};
use crate::image::Image;
use crate::sandbox::{
    CapSet, DeviceSpec, Exit, Launcher, Limits, MountKind, MountSpec, Network, ProcessSpec, Rlimit, Rootfs,
    Running, SandboxSpec, Stdio,
};
use crate::snapshot::Snapshots;
use crate::store::Store;
use serde::{Deserialize, Serialize};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// Everything that the command line says about a container.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// What it is made from.
    pub image: Image,
    /// The image's name as typed.
    pub image_name: String,
    /// The process.
    pub process: Overrides,
    /// `--name`; `None` draws one.
    pub name: Option<ContainerName>,
    /// `--hostname`; `None` is the short id, or the host's name on the host's network.
    pub hostname: Option<String>,
    /// Takes the id; must not exist yet.
    pub cidfile: Option<PathBuf>,
    /// `-v`, `--mount`, `--tmpfs`.
    pub volumes: Vec<VolumeRequest>,
    /// Namespace, hosts, name servers.
    pub network: NetworkRequest,
    /// `-i`: the caller's input is the program's.
    pub interactive: bool,
    /// What the process may do and use.
    pub confinement: Confinement,
}

/// What the process may do and use.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Confinement {
    /// All capabilities, no filter, all devices.
    pub privileged: bool,
    /// Capabilities, if not privileged.
    pub capabilities: CapSet,
    /// Set-user-id programs lose their power.
    pub no_new_privs: bool,
    /// The default filter of system calls.
    pub seccomp: bool,
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
    /// `oom_score_adj`.
    pub oom_score_adj: Option<i32>,
}

impl Default for Confinement {
    /// What an ordinary container gets.
    fn default() -> Self {
        Self {
            privileged: false,
            capabilities: CapSet::DEFAULT,
            no_new_privs: false,
            seccomp: true,
            readonly: false,
            init: false,
            extra_groups: Vec::new(),
            rlimits: Vec::new(),
            limits: Limits::default(),
            shm_size: None,
            sysctls: Vec::new(),
            devices: Vec::new(),
            oom_score_adj: None,
        }
    }
}

/// What a container needs of the rest of rbuild.
#[derive(Debug, Clone, Copy)]
pub struct Tools<'a> {
    /// Where it is kept while it runs.
    pub store: &'a Store,
    /// Its image's files.
    pub snapshots: &'a Snapshots,
    /// Starts its process.
    pub launcher: &'a Launcher,
    /// Tells the user something, a line at a time.
    pub note: fn(&str),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The program's exit code; 128 + N after signal N; 126 or 127 when it could not be started.
    pub code: u8,
    /// Why it could not be started, in docker's words.
    pub not_started: Option<String>,
    /// The memory limit ended something.
    pub out_of_memory: bool,
}

/// Runs a container on the caller's streams until it ends. Afterwards nothing of it is left.
///
/// # Errors
/// It could not be started because of the request, the store, the network or the kernel. A program that is missing
/// in the image is an [`Outcome`].
pub fn run_foreground(request: &RunRequest, tools: Tools<'_>) -> Result<Outcome, RunError> {
    let on_terminal = request.process.terminal;
    if on_terminal && request.interactive && !std::io::stdin().is_terminal() {
        return Err(RunError::NoTerminal);
    }
    let signals = Forwarder::start(on_terminal)?;
    let id = ContainerId::random()?;
    let hostname = hostname(request, &id)?;
    let config = ContainerConfig::new(&request.image.config.config, &request.process, &hostname)?;
    let card = Card::new(&id, &request.image_name, &config.labels).with_image_id(&request.image.id);
    let claim = Claim::take(tools.store, request.name.as_ref(), &card)?;
    write_cidfile(request, &id)?;
    let prepared = tools.snapshots.prepare_for("container", &request.image.top())?;
    let mounts = mounts::prepare(&request.volumes, &config.volumes, &prepared.parent, tools.store)?;
    let _volumes = Anonymous { store: tools.store, mounts: &mounts };
    let mounts = mounts::specs(&mounts, tools.store)?;
    let member = Member {
        store: tools.store,
        id: &id,
        name: claim.name().as_str(),
        hostname: &hostname,
        exposed: &config.exposed,
        env: &config.env,
    };
    let joined = request.network.join(&member, &mut |text| (tools.note)(text))?;
    if let Some(signal) = signals.interrupted() {
        return Ok(Outcome { code: 128 + signal as u8, not_started: None, out_of_memory: false });
    }
    let root = prepared.rootfs()?;
    let spec = spec(request, &config, root, &mounts, &joined, &hostname);
    // on a terminal of its own it uses none of these
    let stdin = terminal::input(request.interactive && !on_terminal)?;
    let Outputs { stdout, stderr, carriers } = terminal::outputs()?;
    let mut running = tools.launcher.spawn(&spec, Stdio { stdin, stdout, stderr })?;
    let exit = follow(&mut running, &signals, request, config.stop_signal, tools.note)?;
    carriers.finish(tools.note);
    Ok(outcome(exit))
}

/// The volumes of a container that goes with this process.
struct Anonymous<'a> {
    store: &'a Store,
    mounts: &'a [super::MountPoint],
}

impl Drop for Anonymous<'_> {
    fn drop(&mut self) {
        mounts::remove_anonymous(self.store, self.mounts);
    }
}

fn outcome(exit: Exit) -> Outcome {
    let code = u8::try_from(exit.status.code()).unwrap_or(u8::MAX);
    Outcome { code, not_started: exit.exec_error, out_of_memory: exit.oom_killed }
}

fn hostname(request: &RunRequest, id: &ContainerId) -> Result<String, RunError> {
    use crate::network::ContainerNetwork;
    match &request.hostname {
        // the kernel takes 64 bytes
        Some(name) if name.is_empty() || name.len() > 64 => {
            Err(RunError::flag("--hostname", name, "a host name has 1 to 64 bytes"))
        }
        Some(name) if name.chars().any(|c| c.is_whitespace() || c.is_control()) => {
            Err(RunError::flag("--hostname", name, "it holds a blank or a control character"))
        }
        Some(name) => Ok(name.clone()),
        None if request.network.choice == ContainerNetwork::Host => {
            Ok(rustix::system::uname().nodename().to_string_lossy().into_owned())
        }
        None => Ok(id.short().to_owned()),
    }
}

fn write_cidfile(request: &RunRequest, id: &ContainerId) -> Result<(), RunError> {
    let Some(path) = &request.cidfile else { return Ok(()) };
    let file = std::fs::File::options().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(id.as_str().as_bytes())).map_err(|e| {
        let why = match e.kind() {
            std::io::ErrorKind::AlreadyExists => "the file exists: delete it, or name another".to_owned(),
            _ => e.to_string(),
        };
        RunError::flag("--cidfile", path.as_os_str().as_encoded_bytes(), why)
    })
}

fn spec(
    request: &RunRequest,
    config: &ContainerConfig,
    root: Rootfs,
    mounts: &[MountSpec],
    joined: &Joined,
    hostname: &str,
) -> SandboxSpec {
    let limits = &request.confinement;
    let mut spec = SandboxSpec::new(root, process(request, config, joined));
    spec.network = joined.network.clone();
    let hosts_own = matches!(joined.network, Network::Host) && request.hostname.is_none();
    spec.hostname = (!hosts_own).then(|| hostname.to_owned());
    spec.readonly_rootfs = limits.readonly;
    spec.shm_size = limits.shm_size.unwrap_or(spec.shm_size);
    spec.sysctls.clone_from(&limits.sysctls);
    spec.limits = limits.limits.clone();
    spec.privileged = limits.privileged;
    spec.devices.clone_from(&limits.devices);
    let ours = [("/etc/resolv.conf", &joined.resolv_conf), ("/etc/hosts", &joined.hosts)];
    let hostname_file = [hostname.as_bytes(), b"\n"].concat();
    for (path, content) in ours.into_iter().chain([("/etc/hostname", &hostname_file)]) {
        // the user's own file wins
        if mounts.iter().all(|mount| mount.target != path.as_bytes()) {
            let kind = MountKind::File { content: content.clone(), mode: 0o644, uid: 0, gid: 0 };
            spec.mounts.push(MountSpec { target: path.into(), kind, readonly: false });
        }
    }
    spec.mounts.extend(mounts.iter().cloned());
    spec
}

fn process(request: &RunRequest, config: &ContainerConfig, joined: &Joined) -> ProcessSpec {
    let limits = &request.confinement;
    let mut process = ProcessSpec::new(config.argv.iter().cloned());
    process.env.clone_from(&config.env);
    process.env.extend(joined.env.iter().cloned());
    process.cwd.clone_from(&config.workdir);
    process.create_cwd = true;
    process.user.clone_from(&config.user);
    process.extra_groups.clone_from(&limits.extra_groups);
    process.terminal = request.process.terminal;
    process.terminal_size = terminal::size();
    process.capabilities = limits.capabilities;
    process.no_new_privs = limits.no_new_privs;
    process.seccomp = limits.seccomp;
    process.rlimits.clone_from(&limits.rlimits);
    process.init = limits.init;
    process.oom_score_adj = limits.oom_score_adj;
    process
}

/// Connects signals and terminal with a container that runs, and waits for its end.
fn follow(
    running: &mut Running,
    signals: &Forwarder,
    request: &RunRequest,
    stop_signal: i32,
    note: fn(&str),
) -> Result<Exit, RunError> {
    let handle = || running.pidfd().map(|fd| fd.try_clone_to_owned()).transpose();
    let process = handle().map_err(RunError::io("keep the container's process"))?;
    let terminal = running.terminal().map(Arc::new);
    if let Some(process) = process {
        let copy = process.try_clone().map_err(RunError::io("keep the container's process"))?;
        signals.deliver_to(Target { process: copy, terminal: terminal.clone(), stop_signal, note });
        if let Some(terminal) = &terminal {
            use std::os::fd::AsFd;
            terminal::attach(terminal, process.as_fd(), request.interactive)?;
        }
    }
    Ok(running.wait()?)
}
