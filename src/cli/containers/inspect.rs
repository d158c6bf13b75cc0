//! `container inspect`: all that is known about a container, under docker's names.

use super::{failure, open};
use crate::cli::inspect::{Described, finish};
use crate::cli::{CommandResult, Ctx};
use crate::runtime::{Container, MountPoint, MountSource, Record, State, Status, time};
use crate::sandbox::{DeviceLimitKind, IpcNamespace, Limits, PidNamespace, covered_paths};
use clap::Args;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// `container inspect`.
#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArgs {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    /// Print with a template, or as json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Also tell how much the container has written
    #[arg(short, long)]
    size: bool,
}

/// Tells all about containers.
pub(in crate::cli) fn run(args: &InspectArgs, ctx: &Ctx) -> CommandResult {
    let containers = open(ctx)?;
    let described = args.names.iter().map(|name| match containers.find(name) {
        Ok(container) => Described::Found(describe(&container, ctx, args.size)),
        Err(error) => Described::Missing(failure(error).message),
    });
    finish(described.collect(), args.format.as_deref(), ctx)
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn texts(list: &[Vec<u8>]) -> Vec<Cow<'_, str>> {
    list.iter().map(|bytes| text(bytes)).collect()
}

/// Describes a container in the terms of `docker inspect`.
pub(in crate::cli) fn describe(container: &Container, ctx: &Ctx, size: bool) -> Value {
    let (record, state) = (&container.record, &container.state);
    let (path, args) = record.config.argv.split_first().map_or((&[][..], &[][..]), |(p, a)| (&p[..], a));
    let links = open(ctx).map(|all| record.network.links(&all)).unwrap_or_default();
    let in_dir = |name: &str| container.dir.join(name).display().to_string();
    // each container has its mounts for itself; this is where others see them while it runs
    let merged = match state.status.has_process() {
        true => format!("/proc/{}/root", state.pid),
        false => in_dir("merged"),
    };
    let mut out = json!({
        "Id": record.id.as_str(),
        "Created": time::format(record.created),
        "Path": text(path),
        "Args": texts(args),
        "State": describe_state(state),
        "Image": record.image_id,
        "ResolvConfPath": in_dir("resolv.conf"),
        "HostnamePath": in_dir("hostname"),
        "HostsPath": in_dir("hosts"),
        "LogPath": container.log_path().display().to_string(),
        "Name": format!("/{}", record.name),
        "RestartCount": state.restarts,
        "Driver": "overlay2",
        "Platform": record.platform.split('/').next().unwrap_or("linux"),
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": record.confinement.apparmor.as_deref().unwrap_or_default(),
        "ExecIDs": null,
        "HostConfig": host_config(record, &links),
        "GraphDriver": {
            "Name": "overlay2",
            "Data": { "LowerDir": "", "MergedDir": merged, "UpperDir": in_dir("fs"), "WorkDir": in_dir("work") },
        },
        "Mounts": record.mounts.iter().map(|mount| describe_mount(mount, ctx)).collect::<Vec<_>>(),
        "Config": config(record),
        "NetworkSettings": state.network.settings(record, container.live_pid()),
    });
    if size && let Some(fields) = out.as_object_mut() {
        let written = super::ps::written(container);
        let of_image = crate::cli::image_commands::open(ctx).ok().and_then(|images| {
            let image = images.resolve(&record.image_id).ok()?;
            Some(images.size(&image, &mut std::collections::HashMap::new()))
        });
        fields.insert("SizeRw".into(), written.into());
        fields.insert("SizeRootFs".into(), written.saturating_add(of_image.unwrap_or(0)).into());
    }
    out
}

fn describe_state(state: &State) -> Value {
    let mut out = json!({
        "Status": state.status.word(),
        "Running": state.status.is_live(),
        "Paused": state.status == Status::Paused,
        "Restarting": state.status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == Status::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time::format(state.started),
        "FinishedAt": time::format(state.finished),
        "Health": null,
    });
    if let (Some(health), Some(fields)) = (&state.health, out.as_object_mut()) {
        let log = health.log.iter().map(|probe| {
            json!({
                "Start": time::format(probe.start), "End": time::format(probe.end),
                "ExitCode": probe.exit_code, "Output": probe.output,
            })
        });
        let log: Vec<Value> = log.collect();
        let value = json!({ "Status": health.status.word(), "FailingStreak": health.failing, "Log": log });
        fields.insert("Health".into(), value);
    }
    out
}

fn describe_mount(mount: &MountPoint, ctx: &Ctx) -> Value {
    let (target, rw) = (text(&mount.target), !mount.readonly);
    let mode = if mount.readonly { "ro" } else { "" };
    match &mount.source {
        MountSource::Bind { path, options, .. } => json!({
            "Type": "bind", "Source": path.display().to_string(), "Destination": target, "Mode": mode, "RW": rw,
            "Propagation": options.propagation.word(),
        }),
        MountSource::Volume { name, .. } => json!({
            "Type": "volume", "Name": name,
            "Source": ctx.root.join("volumes").join(name).join("_data").display().to_string(),
            "Destination": target, "Driver": "local", "Mode": mode, "RW": rw, "Propagation": "",
        }),
        // no directory of the host has its files in one place
        MountSource::Image { name, image, .. } => json!({
            "Type": "image", "Name": name, "Source": image.id, "Destination": target, "Mode": "", "RW": false,
            "Propagation": "rprivate",
        }),
        MountSource::Tmpfs(_) => json!({
            "Type": "tmpfs", "Source": "", "Destination": target, "Mode": mode, "RW": rw, "Propagation": "",
        }),
    }
}

fn config(record: &Record) -> Value {
    let config = &record.config;
    let (entrypoint, command) = config.argv.split_at(config.entrypoint_words.min(config.argv.len()));
    let list = |words: &[Vec<u8>]| if words.is_empty() { Value::Null } else { json!(texts(words)) };
    let set = |names: Vec<String>| -> Value {
        if names.is_empty() {
            return Value::Null;
        }
        Value::Object(names.into_iter().map(|name| (name, json!({}))).collect::<Map<_, _>>())
    };
    let volumes = config.volumes.iter().map(|path| text(path).into_owned()).collect();
    let ports = record.network.exposed(&config.exposed).iter().map(ToString::to_string).collect();
    let mut out = json!({
        "Hostname": record.hostname, "Domainname": record.domainname, "User": config.user,
        "AttachStdin": record.attached[0], "AttachStdout": record.attached[1], "AttachStderr": record.attached[2],
        "ExposedPorts": set(ports), "Tty": record.terminal, "OpenStdin": record.interactive,
        "StdinOnce": record.stdin_once, "Env": texts(&environment(record)), "Cmd": list(command), "Image": record.image,
        "Volumes": set(volumes), "WorkingDir": text(&config.workdir), "Entrypoint": list(entrypoint),
        "OnBuild": null, "Labels": config.labels, "StopSignal": signal_name(config.stop_signal),
    });
    if let Some(fields) = out.as_object_mut() {
        if let Some(timeout) = record.stop_timeout {
            fields.insert("StopTimeout".into(), timeout.into());
        }
        if let Some(health) = &record.health {
            fields.insert("Healthcheck".into(), json!(health));
        }
        if let Some(shell) = &record.shell {
            fields.insert("Shell".into(), json!(shell));
        }
    }
    out
}

/// Gives the variables that image and command line set, without those that every container gets at its start.
pub(super) fn environment(record: &Record) -> Vec<Vec<u8>> {
    let hostname = format!("HOSTNAME={}", record.hostname).into_bytes();
    let own =
        |entry: &&Vec<u8>| **entry != hostname && !(record.terminal && entry.as_slice() == b"TERM=xterm");
    record.config.env.iter().filter(own).cloned().collect()
}

fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number)
        .map_or_else(|_| number.to_string(), |signal| signal.to_string())
}

fn host_config(record: &Record, links: &[(String, String)]) -> Value {
    let confinement = &record.confinement;
    let limits: &Limits = &confinement.limits;
    let bind = |mount: &MountPoint| {
        let ro = if mount.readonly { ":ro" } else { "" };
        match &mount.source {
            MountSource::Bind { path, .. } => Some(format!("{}:{}{ro}", path.display(), text(&mount.target))),
            MountSource::Volume { name, anonymous: false, .. } => {
                Some(format!("{name}:{}{ro}", text(&mount.target)))
            }
            _ => None,
        }
    };
    let binds: Vec<String> = record.mounts.iter().filter_map(bind).collect();
    let nothing_or = |list: Vec<Value>| if list.is_empty() { Value::Null } else { Value::Array(list) };
    let strings = |list: &[String]| nothing_or(list.iter().map(|s| json!(s)).collect());
    let ulimits = confinement.rlimits.iter().map(|limit| {
        let number = |n: Option<u64>| n.map_or(json!(-1), |n| json!(n));
        json!({ "Name": limit.kind.name(), "Hard": number(limit.hard), "Soft": number(limit.soft) })
    });
    let devices = confinement.devices.iter().map(|device| {
        json!({
            "PathOnHost": device.source.display().to_string(), "PathInContainer": text(&device.target),
            "CgroupPermissions": device.access,
        })
    });
    let sysctls: Map<String, Value> =
        confinement.sysctls.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    let hosts: Vec<String> = record.network.extra_hosts.iter().map(host_entry).collect();
    let own_ipc = match confinement.ipc {
        IpcNamespace::Closed => "none",
        _ if confinement.ipc_shareable => "shareable",
        _ => "private",
    };
    let swap = limits.memory_swap.or(limits.memory.map(|m| m * 2)).unwrap_or(0);
    let mut out = json!({
        "Binds": if binds.is_empty() { Value::Null } else { json!(binds) },
        "ContainerIDFile": record.cidfile,
        "LogConfig": { "Type": record.log.driver.word(), "Config": record.log.options },
        "NetworkMode": record.network.choice.mode(),
        "PortBindings": record.network.port_bindings(),
        "RestartPolicy": { "Name": record.restart.word(), "MaximumRetryCount": record.restart.retries() },
        "AutoRemove": record.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": null,
        "ConsoleSize": [0, 0],
        "Annotations": record.annotations,
        "CapAdd": strings(&confinement.cap_add),
        "CapDrop": strings(&confinement.cap_drop),
        "CgroupnsMode": if confinement.host_cgroups { "host" } else { "private" },
        "Dns": record.network.dns.servers,
        "DnsOptions": record.network.dns.options,
        "DnsSearch": record.network.dns.search,
        "ExtraHosts": if hosts.is_empty() { Value::Null } else { json!(hosts) },
        "GroupAdd": strings(&confinement.extra_groups),
        "IpcMode": mode(&confinement.ipc_of, confinement.ipc == IpcNamespace::Host, own_ipc),
        "Cgroup": "",
        "Links": nothing_or(links.iter().map(|(name, alias)| json!(format!("/{name}:/{}/{alias}", record.name))).collect()),
        "OomScoreAdj": confinement.oom_score_adj.unwrap_or(0),
        "PidMode": mode(&confinement.pid_of, confinement.pid == PidNamespace::Host, ""),
        "Privileged": confinement.privileged,
        "PublishAllPorts": record.network.publish_all,
        "ReadonlyRootfs": confinement.readonly,
        "SecurityOpt": strings(&confinement.security_opt),
        "Tmpfs": tmpfs(record),
        "UTSMode": if confinement.host_uts { "host" } else { "" },
        "UsernsMode": "",
        "ShmSize": confinement.shm_size.unwrap_or(64 << 20),
        "Sysctls": sysctls,
        "Runtime": "rbuild",
    });
    let resources = json!({
        "Isolation": "",
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "Memory": limits.memory.unwrap_or(0),
        "NanoCpus": limits.cpu_millis.unwrap_or(0) * 1_000_000,
        "CgroupParent": limits.parent.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
        "CpuPeriod": limits.rare.cpu_period.unwrap_or(0),
        "CpuQuota": limits.rare.cpu_quota.unwrap_or(0),
        "CpuRealtimePeriod": limits.rare.cpu_rt_period.unwrap_or(0),
        "CpuRealtimeRuntime": limits.rare.cpu_rt_runtime.unwrap_or(0),
        "BlkioWeight": limits.rare.blkio_weight.unwrap_or(0),
        "BlkioWeightDevice": at_disks(limits, DeviceLimitKind::Weight),
        "BlkioDeviceReadBps": at_disks(limits, DeviceLimitKind::ReadBps),
        "BlkioDeviceWriteBps": at_disks(limits, DeviceLimitKind::WriteBps),
        "BlkioDeviceReadIOps": at_disks(limits, DeviceLimitKind::ReadIops),
        "BlkioDeviceWriteIOps": at_disks(limits, DeviceLimitKind::WriteIops),
        "MemorySwappiness": limits.rare.swappiness,
        "CpusetCpus": limits.cpuset_cpus.clone().unwrap_or_default(),
        "CpusetMems": limits.cpuset_mems.clone().unwrap_or_default(),
        "Devices": devices.collect::<Vec<_>>(),
        "DeviceCgroupRules": nothing_or(confinement.device_rules.iter().map(|r| json!(r.to_string())).collect()),
        "MemoryReservation": limits.memory_reservation.unwrap_or(0),
        "MemorySwap": if swap == u64::MAX { json!(-1) } else { json!(swap) },
        "OomKillDisable": limits.rare.oom_kill_disable,
        "Init": confinement.init,
        "PidsLimit": limits.pids.map_or(Value::Null, |n| json!(n)),
        "Ulimits": nothing_or(ulimits.collect()),
    });
    if let (Some(all), Value::Object(more)) = (out.as_object_mut(), resources) {
        all.extend(more);
        let bare = confinement.privileged || confinement.bare_paths;
        let (masked, readonly) = if bare { Default::default() } else { covered_paths() };
        for (name, value) in [("MaskedPaths", json!(masked)), ("ReadonlyPaths", json!(readonly))] {
            all.insert(name.into(), value);
        }
        // what was not asked for: programs that read the JSON expect these names
        for (name, value) in UNSET {
            let value = serde_json::from_str(value).unwrap_or_default();
            all.entry(name).or_insert(value);
        }
    }
    out
}

/// Fields that docker shows also when nobody has set them, with what it shows.
const UNSET: [(&str, &str); 5] = [
    ("DeviceRequests", "null"),
    ("CpuCount", "0"),
    ("CpuPercent", "0"),
    ("IOMaximumIOps", "0"),
    ("IOMaximumBandwidth", "0"),
];

fn at_disks(limits: &Limits, kind: DeviceLimitKind) -> Vec<Value> {
    let number = if kind == DeviceLimitKind::Weight { "Weight" } else { "Rate" };
    let of_kind = limits.rare.devices.iter().filter(|limit| limit.kind == kind);
    of_kind.map(|limit| json!({ "Path": limit.path.display().to_string(), number: limit.value })).collect()
}

/// How a namespace was asked for.
fn mode(of: &Option<String>, host: bool, own: &str) -> String {
    match of {
        Some(name) => format!("container:{name}"),
        None if host => "host".into(),
        None => own.into(),
    }
}

fn host_entry(host: &crate::network::ExtraHost) -> String {
    match host.address {
        crate::network::HostAddress::Ip(ip) => format!("{}:{ip}", host.name),
        crate::network::HostAddress::Gateway => format!("{}:host-gateway", host.name),
    }
}

fn tmpfs(record: &Record) -> Value {
    let all: Map<String, Value> = record
        .mounts
        .iter()
        .filter(|mount| matches!(mount.source, MountSource::Tmpfs(_)))
        .map(|mount| (text(&mount.target).into_owned(), json!("")))
        .collect();
    if all.is_empty() { Value::Null } else { Value::Object(all) }
}
