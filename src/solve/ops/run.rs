//! RUN: a command in a sandbox on top of its base; what it changed is the result.

use super::mounts::{MountSource, Mounts};
use crate::cache::KeyBuilder;
use crate::digest::ResultId;
use crate::dockerfile::lint::names_a_secret;
use crate::network::NetworkMode;
use crate::plan::{RunNetwork, RunOp};
use crate::platform::Platform;
use crate::progress::{Event, Stream};
use crate::sandbox::{Exit, MountKind, MountSpec, Network, ProcessSpec, SandboxSpec, Status, Stdio};
use crate::snapshot::Prepared;
use crate::solve::network::StepNetwork;
use crate::solve::{BuildEnv, OpError, Processes};
use crate::tree::Diff;
use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

/// As many processes may a step have at once: far more than builds use, far fewer than take a machine down.
const MOST_PROCESSES: u32 = 16_384;

/// Feeds all that can change what a RUN produces. Proxies, resource limits, the addresses of extra hosts, volumes, the
/// values of secrets and the content of cache mounts are left out on purpose: they may change without a need to run again.
pub(in crate::solve) fn feed(
    op: &RunOp,
    base: &ResultId,
    mounts: &[MountSource],
    env: &BuildEnv,
    key: &mut KeyBuilder,
) {
    key.id("base", &base.0)
        .list("command", &op.args)
        .text("working directory", &op.cwd)
        .text("user", &op.user);
    for (name, value) in &op.env {
        let part = format!("env {name}");
        // the parts are kept for --explain, and what is called like a secret shall not lie about
        match names_a_secret(name) {
            true => key.id(&part, blake3::hash(value.as_bytes()).as_bytes()),
            false => key.text(&part, value),
        };
    }
    for (name, body) in &op.scripts {
        key.text(&format!("script {name}"), body);
    }
    let network = network_mode(op, env);
    key.text("network", &network.to_string())
        .text("security", if op.insecure { "insecure" } else { "sandbox" })
        .text("host name", &op.hostname)
        .text("platform", &op.platform.to_string())
        .list("extra hosts", env.run.extra_hosts.iter().map(|h| h.name.clone()));
    super::mounts::feed(op, mounts, key);
}

fn network_mode(op: &RunOp, env: &BuildEnv) -> NetworkMode {
    match op.network {
        RunNetwork::Default => env.run.network,
        RunNetwork::None => NetworkMode::None,
        RunNetwork::Host => NetworkMode::Host,
    }
}

/// Refuses what the command line did not allow. The one place that decides it.
fn check_rights(op: &RunOp, env: &BuildEnv) -> Result<(), OpError> {
    let host = Platform::host();
    if !host.runs(&op.platform) && !super::binfmt::is_registered(&op.platform) {
        return Err(OpError::Platform { wanted: op.platform.to_string(), host: host.to_string() });
    }
    if op.insecure && !env.run.allow_insecure {
        return Err(OpError::NotAllowed { what: "RUN --security=insecure", right: "security.insecure" });
    }
    let asks_host = op.network == RunNetwork::Host && env.run.network != NetworkMode::Host;
    if asks_host && !env.run.allow_host_network {
        return Err(OpError::NotAllowed { what: "RUN --network=host", right: "network.host" });
    }
    Ok(())
}

/// Runs the command on a prepared tree and gives what it changed. `fresh` is for `--no-cache`.
#[expect(clippy::too_many_arguments, reason = "a step meets all of the build here")]
pub(in crate::solve) fn run(
    op: &RunOp,
    prepared: &Prepared,
    mounts: &[MountSource],
    fresh: bool,
    env: &BuildEnv,
    network: &StepNetwork,
    step: usize,
    processes: &Processes,
) -> Result<Diff, OpError> {
    check_rights(op, env)?;
    let mounts = Mounts::make(op, mounts, fresh, env, processes)?;
    let spec = spec(op, prepared, &mounts, env, network)?;
    let exit = spawn(&spec, env, step, processes)?;
    match exit.status {
        Status::Code(0) => {
            let stubs: HashSet<_> = exit.stubs.into_iter().collect();
            Ok(prepared.scan(&stubs)?)
        }
        _ if processes.is_stopped() => Err(OpError::Cancelled),
        _ => Err(OpError::Process { command: op.args.join(" "), how: how(&exit) }),
    }
}

fn how(exit: &Exit) -> String {
    let killed = if exit.oom_killed { " (out of memory: the limit of --memory was reached)" } else { "" };
    match (&exit.exec_error, exit.status) {
        (Some(why), status) => format!("exit code: {}: {why}", status.code()),
        (None, Status::Code(code)) => format!("exit code: {code}{killed}"),
        (None, Status::Signal(signal)) => format!("exit code: {} (signal {signal}){killed}", 128 + signal),
    }
}

fn spec(
    op: &RunOp,
    prepared: &Prepared,
    mounts: &Mounts,
    env: &BuildEnv,
    network: &StepNetwork,
) -> Result<SandboxSpec, OpError> {
    let mut process = ProcessSpec::new(op.args.iter().map(String::as_str));
    process.env = op.env.iter().chain(&op.proxy_env).map(|(k, v)| format!("{k}={v}").into_bytes()).collect();
    process.env.extend(mounts.env.iter().cloned());
    process.cwd = op.cwd.clone().into_bytes();
    process.create_cwd = true;
    process.user.clone_from(&op.user);
    process.rlimits.clone_from(&env.run.rlimits);
    process.seccomp = !env.run.unconfined;
    process.no_new_privs = env.run.no_new_privs;
    let joined = network.join(network_mode(op, env), &op.hostname, &env.run.extra_hosts)?;
    let mut spec = SandboxSpec::new(prepared.rootfs()?, process);
    spec.network = joined.network;
    spec.hostname = (!matches!(spec.network, Network::Host)).then(|| op.hostname.clone());
    spec.privileged = op.insecure;
    spec.limits = env.run.limits.clone();
    spec.most_processes = (!op.insecure).then_some(MOST_PROCESSES);
    if let Some(size) = env.run.shm_size {
        spec.shm_size = size;
    }
    spec.mounts.push(file("/etc/resolv.conf", env.run.dns.apply(joined.resolv_conf), 0o644));
    spec.mounts.push(file("/etc/hosts", joined.hosts, 0o644));
    for (name, body) in &op.scripts {
        spec.mounts.push(MountSpec {
            readonly: true,
            ..file(&format!("/dev/pipes/{name}"), body.as_bytes().to_vec(), 0o755)
        });
    }
    // what the Dockerfile mounts goes over what the command line mounts at the same place
    let covered = |volume: &&MountSpec| !mounts.specs.iter().any(|own| own.target == volume.target);
    spec.mounts.extend(env.run.volumes.iter().filter(covered).cloned());
    spec.mounts.extend(mounts.specs.iter().cloned());
    Ok(spec)
}

fn file(target: &str, content: Vec<u8>, mode: u32) -> MountSpec {
    MountSpec {
        target: target.into(),
        kind: MountKind::File { content, mode, uid: 0, gid: 0 },
        readonly: false,
    }
}

/// Starts the process, carries its output to the log and the sink, and waits for its end.
fn spawn(spec: &SandboxSpec, env: &BuildEnv, step: usize, processes: &Processes) -> Result<Exit, OpError> {
    let io = |action: &str| {
        let action = action.to_owned();
        move |source: std::io::Error| OpError::Io { action, source }
    };
    let (out_read, out_write) = std::io::pipe().map_err(io("make a pipe"))?;
    let (err_read, err_write) = std::io::pipe().map_err(io("make a pipe"))?;
    let null = File::open("/dev/null").map_err(io("open /dev/null"))?;
    let stdio =
        Stdio { stdin: null.into(), stdout: OwnedFd::from(out_write), stderr: OwnedFd::from(err_write) };
    let mut process = env.launcher.spawn(spec, stdio)?;
    let _entry = processes.add(&process);
    let carried = carry(out_read.into(), err_read.into(), env, step);
    let exit = process.wait()?;
    carried.map_err(io("keep the step's log"))?;
    Ok(exit)
}

/// Reads both pipes until the last process of the sandbox is gone. A full disk must not block the step, so a log that
/// cannot be written is reported at its end.
fn carry(out: OwnedFd, err: OwnedFd, env: &BuildEnv, step: usize) -> std::io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut pipes = [Some((File::from(out), Stream::Stdout)), Some((File::from(err), Stream::Stderr))];
    let (mut log, mut failure) = (None, None);
    let mut buffer = vec![0; 64 * 1024];
    while pipes.iter().any(Option::is_some) {
        let ready: Vec<bool> = {
            let mut fds: Vec<PollFd<'_>> =
                pipes.iter().flatten().map(|(file, _)| PollFd::new(file, PollFlags::IN)).collect();
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            fds.iter().map(|fd| !fd.revents().is_empty()).collect()
        };
        let mut ready = ready.into_iter();
        for pipe in &mut pipes {
            let Some((file, stream)) = pipe else { continue };
            if !ready.next().unwrap_or(false) {
                continue;
            }
            let n = file.read(&mut buffer)?;
            if n == 0 {
                *pipe = None;
                continue;
            }
            let bytes = &buffer[..n];
            env.sink.send(Event::Log { step, stream: *stream, bytes: bytes.to_vec() });
            if failure.is_none() {
                failure = keep(&mut log, bytes, env, step).err();
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

fn keep(log: &mut Option<File>, bytes: &[u8], env: &BuildEnv, step: usize) -> std::io::Result<()> {
    if log.is_none() {
        *log = Some(env.folder.log(step)?);
    }
    log.as_mut().map_or(Ok(()), |file| file.write_all(bytes))
}
