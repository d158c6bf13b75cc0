//! What the flags of `build` mean, as far as it can be told before anything is read or fetched.

use super::args::{BuildArgs, Elsewhere};
use crate::build::{FilesWanted, PullPolicy};
use crate::cli::{CliError, values};
use crate::dockerfile::mount::RawMount;
use crate::image::{Notes, OutputKind, OutputSpec, Place, parse_place};
use crate::network::{DnsRequest, ExtraHost, NetworkMode};
use crate::plan::PlanOptions;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::runtime::{VolumeSource, volume};
use crate::sandbox::{Limits, MountKind, MountSpec, Source};
use crate::share::{ExportSpec, ImportSpec};
use crate::solve::{RunSettings, Secrets};
use std::collections::BTreeMap;

/// The build argument with the time of everything.
pub(super) const EPOCH: &str = "SOURCE_DATE_EPOCH";
/// Its value that means the time of the context.
pub(super) const OF_CONTEXT: &str = "context";
/// Steps at once when `--jobs` does not say: enough to never be the limit of an honest graph.
const JOBS: usize = 64;

/// The flags, understood.
pub(super) struct Settings {
    pub(super) names: Vec<Reference>,
    pub(super) plan: PlanOptions,
    pub(super) run: RunSettings,
    pub(super) secrets: Secrets,
    pub(super) notes: Notes,
    pub(super) platforms: Vec<Platform>,
    pub(super) jobs: usize,
    pub(super) pull: PullPolicy,
    pub(super) cache_from: Vec<ImportSpec>,
    pub(super) cache_to: Vec<ExportSpec>,
    pub(super) files: FilesWanted,
}

impl Settings {
    /// Reads all flags but those of contexts and progress.
    pub(super) fn read(args: &BuildArgs, outputs: &[OutputSpec]) -> Result<Self, CliError> {
        refuse(&args.elsewhere)?;
        let mut names = args.tag.iter().map(|t| name(t)).collect::<Result<Vec<_>, _>>()?;
        names.extend(outputs.iter().flat_map(|o| o.names.iter().cloned()));
        let allows = |right: &str| args.allow.iter().any(|a| a == right);
        let rights = ["network.host", "security.insecure"];
        if let Some(other) = args.allow.iter().find(|a| !rights.contains(&a.as_str())) {
            return Err(CliError::new(format!(
                "--allow {other:?}: expected network.host or security.insecure"
            )));
        }
        let network: NetworkMode = args.network.parse()?;
        let label = |text: &String| {
            let (name, value) = values::pair(text);
            (name, value.unwrap_or_default())
        };
        let mut platforms = platforms(args)?;
        let plan = PlanOptions {
            build_args: build_args(args)?,
            target: args.target.clone(),
            labels: args.label.iter().map(label).collect(),
            platform: if platforms.len() == 1 { platforms.pop() } else { None },
            no_cache: args.switches.no_cache,
            no_cache_filter: args.no_cache_filter.clone(),
            mounts: args.mount.iter().map(|m| mount(m)).collect::<Result<_, _>>()?,
            allow_host_network: allows("network.host") || network == NetworkMode::Host,
            allow_insecure: allows("security.insecure"),
            ..PlanOptions::new()
        };
        let security = values::security(&args.security_opt)?;
        if security.bare_paths
            || security.writable_cgroups
            || security.apparmor.is_some_and(|p| p != "unconfined")
        {
            let error = "--security-opt of a build is no-new-privileges or seccomp=unconfined; the others are for containers";
            return Err(CliError::new(error));
        }
        if security.profile.is_some() {
            let error = "--security-opt seccomp=PROFILE is for containers: RUN steps have the default profile or none";
            return Err(CliError::new(error));
        }
        let run = RunSettings {
            network,
            extra_hosts: args.add_host.iter().map(|h| h.parse::<ExtraHost>()).collect::<Result<_, _>>()?,
            shm_size: args.shm_size.as_deref().map(|s| values::bytes("--shm-size", s)).transpose()?,
            rlimits: args.ulimit.iter().map(|u| values::ulimit(u)).collect::<Result<_, _>>()?,
            limits: limits(args)?,
            volumes: volumes(args)?,
            dns: DnsRequest {
                servers: args.dns.clone(),
                search: values::words("--dns-search", &args.dns_search)?,
                options: values::words("--dns-option", &args.dns_option)?,
            },
            unconfined: !security.seccomp,
            no_new_privs: security.no_new_privs,
            allow_insecure: allows("security.insecure"),
            allow_host_network: allows("network.host"),
        };
        let secrets = Secrets {
            secrets: args.secret.iter().map(|s| values::secret(s)).collect::<Result<_, _>>()?,
            agents: args.ssh.iter().map(|s| values::agent(s)).collect::<Result<_, _>>()?,
        };
        let jobs = match args.jobs {
            Some(0) => return Err(CliError::new("--jobs must be at least 1")),
            jobs => jobs.unwrap_or(JOBS),
        };
        let pull = pull_policy(&args.pull)?;
        let cache_from = args.cache_from.iter().filter(|text| !text.is_empty());
        let cache_from = cache_from.map(|text| ImportSpec::parse(text)).collect::<Result<_, _>>()?;
        let cache_to = args.cache_to.iter().filter(|text| !text.is_empty());
        let cache_to = cache_to.map(|text| ExportSpec::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let mut cache_to = cache_to;
        let inline = plan.build_args.get("BUILDKIT_INLINE_CACHE").cloned().flatten().unwrap_or_default();
        if is_yes(&inline) && !cache_to.iter().any(ExportSpec::is_inline) {
            cache_to.push(ExportSpec::parse("type=inline")?);
        }
        let files = files(outputs);
        Ok(Self {
            names,
            plan,
            run,
            secrets,
            pull,
            cache_from,
            cache_to,
            files,
            notes: notes(&args.annotation)?,
            platforms,
            jobs,
        })
    }

    /// Says whether a build argument of BuildKit's own is on.
    pub(super) fn is_on(&self, name: &str) -> bool {
        is_yes(&self.plan.build_args.get(name).cloned().flatten().unwrap_or_default())
    }
}

/// Says what the outputs need of the image's files.
fn files(outputs: &[OutputSpec]) -> FilesWanted {
    let is = |kind: fn(&OutputKind) -> bool| move |output: &OutputSpec| kind(&output.kind);
    if outputs.iter().any(is(|kind| matches!(kind, OutputKind::Export(..)))) {
        FilesWanted::All
    } else if !outputs.is_empty() && outputs.iter().all(is(|kind| matches!(kind, OutputKind::CacheOnly))) {
        FilesWanted::No
    } else {
        FilesWanted::Kept
    }
}

/// Reads `--pull`, with the words of other builders for the same.
pub(in crate::cli) fn pull_policy(text: &str) -> Result<PullPolicy, CliError> {
    match text.to_ascii_lowercase().as_str() {
        "always" | "true" | "1" | "newer" | "ifnewer" => Ok(PullPolicy::Always),
        "missing" | "false" | "0" | "ifnotpresent" => Ok(PullPolicy::Missing),
        "never" | "ifneeded" => Ok(PullPolicy::Never),
        _ => {
            Err(CliError::new(format!("--pull={text}: is no policy")).hint("write always, missing or never"))
        }
    }
}

/// Whether `--push` asks for the image to go to its registry.
pub(super) fn is_pushed(args: &BuildArgs) -> bool {
    args.elsewhere.push.as_deref().is_some_and(|text| !is_off(text))
}

fn is_yes(text: &str) -> bool {
    ["1", "t", "true"].contains(&text.to_ascii_lowercase().as_str())
}

fn is_off(text: &str) -> bool {
    ["0", "f", "false"].contains(&text.to_ascii_lowercase().as_str())
}

/// Says what is not available, and why nothing of it is done in silence.
fn refuse(flags: &Elsewhere) -> Result<(), CliError> {
    let no = |flag: &str, why: &str, what: &str| Err(CliError::new(format!("{flag} {why}")).hint(what));
    let disabled = |text: &str| is_off(text) || text.split(',').any(|field| field == "disabled=true");
    let attest = flags.attest.iter().map(|text| ("--attest", text));
    let attestations = flags.provenance.iter().map(|text| ("--provenance", text));
    let attestations = attestations.chain(flags.sbom.iter().map(|text| ("--sbom", text))).chain(attest);
    for (flag, text) in attestations {
        if !disabled(text) {
            let why = "is not available: rbuild writes no attestations";
            return no(&format!("{flag} {text}"), why, "leave it out or write false");
        }
    }
    if flags.rewrite_timestamp.as_deref().is_some_and(is_off) {
        let why = "is not available: times in layers are lowered to SOURCE_DATE_EPOCH whenever it is given";
        return no("--rewrite-timestamp=false", why, "leave it out, or leave SOURCE_DATE_EPOCH out");
    }
    if flags.cpuset_mems.is_some() {
        return no("--cpuset-mems", "is not available", "leave it out; --cpuset-cpus is available");
    }
    match flags.isolation.as_deref() {
        None | Some("" | "default" | "oci" | "rootless") => Ok(()),
        Some(other) => no(&format!("--isolation {other}"), "is not available", "leave it out"),
    }
}

/// Reads a name for the image.
fn name(text: &str) -> Result<Reference, CliError> {
    let name: Reference = text.parse()?;
    if name.digest().is_some() {
        return Err(CliError::new(format!("--tag {text:?}: a name that is given cannot have a digest"))
            .hint("leave @sha256:... out"));
    }
    Ok(name)
}

/// Reads `--platform`; one that is named twice counts once.
fn platforms(args: &BuildArgs) -> Result<Vec<Platform>, CliError> {
    let mut platforms: Vec<Platform> = Vec::new();
    for text in args.platform.iter().filter(|text| !text.is_empty()) {
        let platform = text.trim().parse()?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

/// Reads `--annotation`: `[TYPE[PLATFORM],...:]NAME=VALUE`.
fn notes(texts: &[String]) -> Result<Notes, CliError> {
    let mut notes = Notes::default();
    for text in texts {
        note(&mut notes, text).map_err(|why| {
            CliError::new(format!("--annotation {text:?}: {why}")).hint(
                "write [manifest|index|manifest-descriptor:]NAME=VALUE, or manifest[OS/ARCH]:NAME=VALUE",
            )
        })?;
    }
    Ok(notes)
}

fn note(notes: &mut Notes, text: &str) -> Result<(), String> {
    let (key, value) = text.split_once('=').ok_or("there is no =")?;
    let typed = key.split_once(':').and_then(|(types, name)| {
        let places = types.split(',').map(parse_place).collect::<Option<Vec<_>>>()?;
        Some((places, name))
    });
    let (places, name) = typed.unwrap_or_else(|| (vec![(Place::Manifest, None)], key));
    if name.is_empty() {
        return Err("there is no name".into());
    }
    for (place, platform) in places {
        notes.add(place, platform, name, value);
    }
    Ok(())
}

fn limits(args: &BuildArgs) -> Result<Limits, CliError> {
    let memory = args.memory.as_deref().map(|m| values::bytes("--memory", m)).transpose()?;
    Ok(Limits {
        memory,
        memory_swap: values::memory_swap(args.memory_swap.as_deref(), memory)?,
        cpu_millis: args.cpu_quota.map(|quota| quota * 1000 / args.cpu_period.max(1)),
        cpu_shares: args.cpu_shares.filter(|shares| *shares > 0),
        cpuset_cpus: args.cpuset_cpus.clone(),
        pids: None,
        parent: args.cgroup_parent.clone(),
        ..Limits::default()
    })
}

fn volumes(args: &BuildArgs) -> Result<Vec<MountSpec>, CliError> {
    if args.volume.is_empty() {
        return Ok(Vec::new());
    }
    let cwd = std::env::current_dir()
        .map_err(|e| CliError::new(format!("cannot find the working directory: {e}")))?;
    let one = |text: &std::ffi::OsString| {
        let request = volume::parse_volume(text.as_encoded_bytes(), &cwd)?;
        let bad = |why: String| CliError::new(format!("--volume {:?}: {why}", text.to_string_lossy()));
        let VolumeSource::Host { path, options, .. } = request.source else {
            return Err(bad("a build can mount directories of the host only, not volumes".into())
                .hint("write DIR:TARGET[:ro] with an absolute DIR, or RUN --mount=type=cache for a directory that stays"));
        };
        if options.propagation.shares() {
            return Err(bad("mounts that a step makes never reach the host".into()));
        }
        path.symlink_metadata().map_err(|e| bad(format!("{}: {e}", path.display())))?;
        let (target, readonly) = (request.target, request.readonly);
        Ok(MountSpec { target, kind: MountKind::Bind(Source::Host(path)), readonly })
    };
    args.volume.iter().map(one).collect()
}

fn mount(text: &str) -> Result<RawMount, CliError> {
    RawMount::of_command_line(text).map_err(|error| {
        let shown = CliError::new(format!("--mount {text:?}: {}", error.message()));
        match error.help_text() {
            Some(help) => shown.hint(help),
            None => shown,
        }
    })
}

/// Files first, then the command line; `SOURCE_DATE_EPOCH` of the environment counts when nothing else sets it.
fn build_args(args: &BuildArgs) -> Result<BTreeMap<String, Option<String>>, CliError> {
    let mut out = BTreeMap::new();
    for path in &args.build_arg_file {
        let text = std::fs::read_to_string(path)
            .map_err(|e| CliError::new(format!("--build-arg-file {}: {e}", path.display())))?;
        out.extend(text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(given));
    }
    out.extend(args.build_arg.iter().map(|a| given(a)));
    if let Some(epoch) = &args.source_date_epoch {
        if epoch != OF_CONTEXT && epoch.parse::<u32>().is_err() {
            return Err(CliError::new(format!("--source-date-epoch {epoch:?}: expected seconds since 1970")));
        }
        out.insert(EPOCH.into(), Some(epoch.clone()));
    } else if let Ok(epoch) = std::env::var(EPOCH) {
        out.entry(EPOCH.into()).or_insert(Some(epoch));
    }
    Ok(out)
}

/// A name without value takes that of the environment.
fn given(text: &str) -> (String, Option<String>) {
    let (name, value) = values::pair(text);
    let value = value.or_else(|| std::env::var(&name).ok());
    (name, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_go_where_they_are_sent() {
        let read = |texts: &[&str]| notes(&texts.iter().map(ToString::to_string).collect::<Vec<_>>());
        let got = read(&[
            "a=1",
            "manifest:b=2",
            "index:c=3",
            "manifest-descriptor[linux/amd64]:d=4",
            "manifest,index:e=5",
            "org:f=x=y",
            "manifest[linux/arm64],index:g=6",
        ])
        .unwrap();
        let keys = |map: BTreeMap<String, String>| map.keys().cloned().collect::<Vec<_>>().join(" ");
        let (amd, arm) = ("linux/amd64".parse().unwrap(), "linux/arm64".parse().unwrap());
        assert_eq!(keys(got.manifest(&amd)), "a b e org:f");
        assert_eq!(keys(got.manifest(&arm)), "a b e g org:f");
        assert_eq!((keys(got.index()), keys(got.descriptor(&amd))), ("c e g".into(), "d".into()));
        assert_eq!(keys(got.descriptor(&arm)), "");
        assert_eq!(got.manifest(&amd)["org:f"], "x=y");
        assert!(read(&["a"]).is_err() && read(&["=x"]).is_err() && read(&["index:=x"]).is_err());
    }
}
