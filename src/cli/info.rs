//! `rbuild info`: what rbuild found on this machine, and what is missing for more. `rbuild version`: which rbuild.

use super::template::Template;
use super::{CliError, CommandResult, Ctx};
use crate::network;
use crate::platform::Platform;
use crate::runtime::{Status, time};
use crate::sandbox::{self, Feature, rootless};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Shows what works here and what is missing.
#[derive(Debug, Args)]
pub(super) struct InfoArgs {
    /// Print with a template or as json, with docker's fields and rbuild's own; text is what it is without
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub format: String,
}

/// Shows the version.
#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    /// Print with a template or as json, with docker's fields; text is what it is without
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub format: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    version: &'static str,
    platform: String,
    kernel: String,
    root: String,
    rootless: Option<Rootless>,
    snapshotter: &'static str,
    network: Option<String>,
    cgroups: String,
    seccomp: bool,
    features: Vec<Line>,
    missing: Vec<Missing>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rootless {
    uid: u32,
    gid: u32,
    mapped_ids: u32,
}

#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    works: bool,
    detail: String,
}

#[derive(Debug, Serialize)]
struct Missing {
    what: String,
    remedy: String,
    /// Whether nothing can be run without it.
    needed: bool,
}

/// Shows what works here.
pub(super) fn run(args: &InfoArgs, ctx: &Ctx) -> CommandResult {
    let template = as_template(&args.format)?;
    let info = Info::gather(ctx);
    match &template {
        Some(template) => {
            let mut all = as_docker(&info, ctx);
            if let (Some(all), Value::Object(own)) = (all.as_object_mut(), serde_json::to_value(&info)?) {
                all.extend(own);
            }
            ctx.out.line(&template.render_of(&all, "system.dockerInfo")?)?;
        }
        None => ctx.out.text(&info.text())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the version.
pub(super) fn version(args: &VersionArgs, ctx: &Ctx) -> CommandResult {
    let platform = Platform::host().to_string();
    match as_template(&args.format)? {
        Some(template) => {
            let text = template.render_of(&version_as_docker(&platform), "system.versionInfo")?;
            ctx.out.line(&text)?;
        }
        None => ctx.out.line(&format!("rbuild {VERSION} ({platform})"))?,
    }
    Ok(ExitCode::SUCCESS)
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn as_template(format: &str) -> Result<Option<Template>, CliError> {
    match format {
        "text" | "" => Ok(None),
        other => Template::single(other).map(Some),
    }
}

/// Gives the version under docker's names. Client and server are one program; there is no API, so that has no version.
fn version_as_docker(platform: &str) -> Value {
    let (os, arch) = platform.split_once('/').unwrap_or(("linux", platform));
    let arch = arch.split('/').next().unwrap_or(arch);
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let details = json!({ "ApiVersion": "", "MinAPIVersion": "", "Os": os, "Arch": arch, "KernelVersion": kernel,
        "GitCommit": "", "GoVersion": "", "BuildTime": "", "Experimental": "false" });
    json!({
        "Client": {
            "Platform": { "Name": "rbuild" }, "Version": VERSION, "ApiVersion": "", "DefaultAPIVersion": "",
            "GitCommit": "", "GoVersion": "", "Os": os, "Arch": arch, "BuildTime": "", "Context": "default",
        },
        "Server": {
            "Platform": { "Name": "rbuild" }, "Version": VERSION, "ApiVersion": "", "MinAPIVersion": "",
            "Os": os, "Arch": arch,
            "Components": [{ "Name": "Engine", "Version": VERSION, "Details": details }],
            "GitCommit": "", "GoVersion": "", "KernelVersion": kernel, "Experimental": false, "BuildTime": "",
        },
        "version": VERSION, "platform": platform,
    })
}

/// How many containers are in which state, and how many images there are; nothing where there is no store yet.
fn counts(ctx: &Ctx) -> [usize; 5] {
    if !ctx.root.exists() {
        return [0; 5];
    }
    let all = super::containers::open(ctx).ok().and_then(|all| all.list().ok()).unwrap_or_default();
    let of = |fits: &dyn Fn(Status) -> bool| all.iter().filter(|one| fits(one.state.status)).count();
    let paused = of(&|status| status == Status::Paused);
    let live = of(&|status| status.is_live());
    let images = super::image_commands::open(ctx).ok().and_then(|images| images.list().ok());
    let images = images.map_or(0, |listing| listing.images.len());
    [all.len(), live - paused, paused, all.len() - live, images]
}

/// Gives the fields of `docker info` that mean something here.
fn as_docker(info: &Info, ctx: &Ctx) -> Value {
    let [containers, running, paused, stopped, images] = counts(ctx);
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let of_system = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let proxy = |name: &str| {
        let value = std::env::var(name).or_else(|_| std::env::var(name.to_lowercase())).unwrap_or_default();
        super::values::without_user(&value)
    };
    let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let mut security: Vec<&str> = Vec::new();
    security.extend(info.seccomp.then_some("name=seccomp,profile=builtin"));
    security.extend(info.rootless.is_some().then_some("name=rootless"));
    security.push("name=cgroupns");
    let warnings: Vec<&str> = info.missing.iter().map(|missing| missing.what.as_str()).collect();
    let commit = json!({ "ID": "" });
    let head = json!({
        "ID": crate::digest::Digest::sha256_of(format!("{} {}", text(uname.nodename()), info.root).as_bytes()).encoded(),
        "Containers": containers, "ContainersRunning": running, "ContainersPaused": paused,
        "ContainersStopped": stopped, "Images": images,
        "Driver": if info.snapshotter == "overlay" { "overlay2" } else { "vfs" }, "DriverStatus": [],
        "Plugins": { "Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": null,
            "Log": ["json-file", "local", "none"] },
    });
    let machine = json!({
        "MemoryLimit": true, "SwapLimit": true, "CpuCfsPeriod": true, "CpuCfsQuota": true, "CPUShares": true,
        "CPUSet": true, "PidsLimit": true, "IPv4Forwarding": true, "Debug": false, "NFd": 0,
        "OomKillDisable": !unified, "NGoroutines": 0, "SystemTime": time::format(time::now()),
        "LoggingDriver": "json-file", "CgroupDriver": "cgroupfs", "CgroupVersion": if unified { "2" } else { "1" },
        "NEventsListener": 0, "KernelVersion": text(uname.release()),
        "OperatingSystem": of_system("PRETTY_NAME"), "OSVersion": of_system("VERSION_ID"), "OSType": "linux",
        "Architecture": text(uname.machine()), "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": { "InsecureRegistryCIDRs": [], "IndexConfigs": {}, "Mirrors": [] },
    });
    let rest = json!({
        "NCPU": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "MemTotal": super::containers::all_memory(), "GenericResources": null,
        "DockerRootDir": ctx.root.display().to_string(),
        "HttpProxy": proxy("HTTP_PROXY"), "HttpsProxy": proxy("HTTPS_PROXY"), "NoProxy": proxy("NO_PROXY"),
        "Name": text(uname.nodename()), "Labels": [], "ExperimentalBuild": false, "ServerVersion": VERSION,
        "Runtimes": { "rbuild": { "path": "rbuild" } }, "DefaultRuntime": "rbuild",
        "Swarm": { "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false,
            "Error": "", "RemoteManagers": null },
        "LiveRestoreEnabled": true, "Isolation": "", "InitBinary": "rbuild",
        "ContainerdCommit": commit, "RuncCommit": commit, "InitCommit": commit,
        "SecurityOptions": security, "CDISpecDirs": null, "Warnings": warnings,
        "ClientInfo": { "Debug": false, "Version": VERSION, "Context": "default", "Plugins": [], "Warnings": null },
    });
    let parts = [head, machine, rest].into_iter().filter_map(|part| match part {
        Value::Object(fields) => Some(fields),
        _ => None,
    });
    Value::Object(parts.flatten().collect())
}

impl Info {
    /// Tries everything. Before any thread is started.
    fn gather(ctx: &Ctx) -> Self {
        let features = sandbox::probe();
        let state = rootless::state();
        let network = network::probe(state.is_some());
        let find = |name: &str| features.iter().find(|feature| feature.name == name);
        let works = |name: &str| find(name).is_some_and(|feature| feature.works);
        let uname = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let mut missing: Vec<Missing> = features.iter().filter(|f| !f.works).map(Missing::from).collect();
        missing.extend(network.missing.iter().map(|m| Missing {
            what: m.what.to_owned(),
            remedy: m.remedy.to_owned(),
            needed: false,
        }));
        if let Some(advice) = state.as_ref().and_then(|state| state.advice()) {
            let (what, remedy) = advice.split_once("; ").unwrap_or((&advice, ""));
            missing.push(Missing { what: what.to_owned(), remedy: remedy.to_owned(), needed: false });
        }
        Self {
            version: env!("CARGO_PKG_VERSION"),
            platform: Platform::host().to_string(),
            kernel: format!("{} {}", text(uname.sysname()), text(uname.release())),
            root: ctx.root.display().to_string(),
            rootless: state.map(|s| Rootless { uid: s.real_uid, gid: s.real_gid, mapped_ids: s.mapped_ids }),
            snapshotter: if works("overlayfs") { "overlay" } else { "copy" },
            network: network.private.map(|kind| kind.to_string()),
            cgroups: find("cgroups").map(|feature| feature.detail.clone()).unwrap_or_default(),
            seccomp: works("seccomp"),
            features: features.into_iter().map(Line::from).collect(),
            missing,
        }
    }

    fn text(&self) -> String {
        let rootless = match &self.rootless {
            None => "no".to_owned(),
            Some(r) => format!("yes, user {}:{} with {} mapped ids", r.uid, r.gid, r.mapped_ids),
        };
        let network = self.network.clone().unwrap_or_else(|| "none; --network host and none work".into());
        let rows = [
            ("Version", self.version.to_owned()),
            ("Platform", self.platform.clone()),
            ("Kernel", self.kernel.clone()),
            ("Root", self.root.clone()),
            ("Rootless", rootless),
            ("Snapshotter", self.snapshotter.to_owned()),
            ("Private network", network),
            ("Cgroups", self.cgroups.clone()),
            ("Seccomp", if self.seccomp { "yes".into() } else { "no".into() }),
        ];
        let mut out: String = rows.iter().map(|(name, value)| format!("{name:16} {value}\n")).collect();
        out.push_str("\nWhat works:\n");
        for line in &self.features {
            let mark = if line.works { "yes" } else { "no " };
            out.push_str(&format!("  {mark}  {:22} {}\n", line.name, line.detail));
        }
        out.push_str(if self.missing.is_empty() { "\nMissing: nothing\n" } else { "\nMissing:\n" });
        for missing in &self.missing {
            let needed = if missing.needed { " (nothing can be run without it)" } else { "" };
            out.push_str(&format!("  {}{needed}\n    how to get it: {}\n", missing.what, missing.remedy));
        }
        out
    }
}

impl From<Feature> for Line {
    fn from(feature: Feature) -> Self {
        Self { name: feature.name, works: feature.works, detail: feature.detail }
    }
}

impl From<&Feature> for Missing {
    fn from(feature: &Feature) -> Self {
        let what = format!("{}: {}", feature.name, feature.detail);
        Self { what, remedy: feature.hint.clone(), needed: feature.needed }
    }
}
