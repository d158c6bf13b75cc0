//! `rbuild run`: a container in the foreground. Flags and exit codes are docker's.

use super::network_flags::NetworkFlags;
use super::volume_flags::VolumeFlags;
use super::{CliError, CommandResult, Ctx, build, registry, values};
use crate::build::PullPolicy;
use crate::image::{Image, ImageError, Images};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::runtime::{
    Confinement, ContainerName, NetworkRequest, Overrides, RunError, RunRequest, Tools, VolumeRequest, env,
    run_foreground,
};
use crate::sandbox::{CapSet, DeviceSpec, Launcher, Limits};
use crate::store::Store;
use clap::{ArgAction, Args};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit code of everything that goes wrong before the program runs.
pub(super) const ENGINE_ERROR: u8 = 125;

fn on(switch: Option<Option<bool>>) -> bool {
    switch.is_some_and(|value| value.unwrap_or(true))
}

/// Runs a command in a new container.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct RunArgs {
    /// Image, then the command to run in it [default: the image's own]; what follows the image is not read as flags
    #[arg(value_name = "IMAGE [COMMAND [ARG...]]", required = true, num_args = 1.., trailing_var_arg = true)]
    pub image_and_command: Vec<OsString>,
    /// Keep standard input open
    #[arg(short, long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    pub interactive: Option<Option<bool>>,
    /// Give the container a terminal
    #[arg(short, long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    pub tty: Option<Option<bool>>,
    /// Remove the container when it ends; as long as containers run in the foreground only, they always are
    #[arg(long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    pub rm: Option<Option<bool>>,
    /// Set a variable; without = it is taken from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<OsString>,
    /// Read variables from a file, one a line; -e wins
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    #[command(flatten)]
    mounts: VolumeFlags,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<OsString>,
    /// User, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Add a group to the user's
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// Replace the image's entrypoint; an empty one clears it
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<OsString>,
    /// Name of the container [default: a random one]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Host name in the container [default: the container's short id]
    #[arg(short = 'h', long, value_name = "NAME")]
    pub hostname: Option<String>,
    #[command(flatten)]
    network: NetworkFlags,
    /// Mount the root file system read-only
    #[arg(long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    pub read_only: Option<Option<bool>>,
    /// Run a small init as process 1 that passes signals on and reaps orphans
    #[arg(long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    pub init: Option<Option<bool>>,
    /// Give all rights to the container; only for images that you trust with the machine
    #[arg(long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    pub privileged: Option<Option<bool>>,
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',')]
    pub cap_add: Vec<String>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',')]
    pub cap_drop: Vec<String>,
    /// no-new-privileges, seccomp=unconfined
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// Show a device of the host
    #[arg(long, value_name = "HOST[:CONTAINER[:rwm]]")]
    pub device: Vec<OsString>,
    /// Set a kernel setting of the container's own namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    pub sysctl: Vec<String>,
    /// Limit of each process, for example nofile=1024:4096
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// Memory of the container, for example 512m
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Memory and swap together; -1 is no limit [default: twice the memory]
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Number of processors, for example 1.5
    #[arg(long, value_name = "N")]
    pub cpus: Option<String>,
    /// Weight against other containers
    #[arg(short, long, value_name = "N")]
    pub cpu_shares: Option<u64>,
    /// Processors to use, for example 0-2,5
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Most processes and threads; -1 is no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// Who goes first when memory runs out, -1000 to 1000
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub oom_score_adj: Option<i32>,
    /// Write the container's id to a new file
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// Label of the container
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub label: Vec<String>,
    /// Signal that ends the container [default: the image's, else SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// When to pull the image: always, missing or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub pull: String,
    /// Platform that the image must be for
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", env = "DOCKER_DEFAULT_PLATFORM")]
    pub platform: Option<String>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    later: Later,
}

/// Flags of docker's that are not there yet. They are known so that they can be refused by name.
#[derive(Debug, Args)]
struct Later {
    #[arg(short, long, hide = true)]
    detach: bool,
    #[arg(long, hide = true)]
    restart: Option<OsString>,
    #[arg(long, hide = true)]
    volumes_from: Vec<OsString>,
    #[arg(long, hide = true)]
    health_cmd: Option<OsString>,
}

impl Later {
    fn refuse(&self) -> Result<(), CliError> {
        let restarts = self.restart.as_ref().is_some_and(|policy| policy != "no");
        let all = [
            (
                self.detach,
                "-d, --detach",
                "containers run in the foreground; put & behind the command in a shell",
            ),
            (restarts, "--restart", "leave it out"),
            (!self.volumes_from.is_empty(), "--volumes-from", "name the volumes with -v"),
            (self.health_cmd.is_some(), "--health-cmd", "leave it out"),
        ];
        match all.into_iter().find(|(given, ..)| *given) {
            Some((_, flag, instead)) => {
                Err(CliError::new(format!("{flag} is not available yet")).hint(instead))
            }
            None => Ok(()),
        }
    }
}

/// Runs a container and gives the program's exit code.
pub(super) fn run(args: &RunArgs, ctx: &Ctx) -> CommandResult {
    start(args, ctx).map_err(|error| if error.code == 1 { error.code(ENGINE_ERROR) } else { error })
}

fn start(args: &RunArgs, ctx: &Ctx) -> CommandResult {
    args.later.refuse()?;
    if on(args.interactive) && on(args.tty) && !std::io::stdin().is_terminal() {
        return Err(run_error(RunError::NoTerminal));
    }
    let (name, command) =
        args.image_and_command.split_first().ok_or_else(|| CliError::new("no image named"))?;
    let name = name.to_str().ok_or_else(|| CliError::new("the image name is not UTF-8"))?;
    let policy = build::pull_policy(&args.pull)?;
    let parts = Parts::parse(args)?;
    // the helper process comes up while the store is read
    let launcher = Launcher::start()?;
    let (store, snapshots, images) = ctx.open()?;
    let image = find(args, name, policy, &store, &images, ctx)?;
    check_platform(args, name, &image)?;
    let request = parts.request(args, image, name, command);
    let tools = Tools { store: &store, snapshots: &snapshots, launcher: &launcher, note: super::talk };
    let outcome = run_foreground(&request, tools).map_err(run_error)?;
    if outcome.out_of_memory {
        super::talk("note: the container reached its memory limit, and a process was killed for it\n");
    }
    match outcome.not_started {
        Some(why) => Err(CliError::new(why).code(outcome.code)),
        None => Ok(ExitCode::from(outcome.code)),
    }
}

fn run_error(error: RunError) -> CliError {
    let hint = error.hint();
    let error = CliError::from_error(&error).code(ENGINE_ERROR);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Finds the image here, or brings it.
fn find(
    args: &RunArgs,
    name: &str,
    policy: PullPolicy,
    store: &Store,
    images: &Images,
    ctx: &Ctx,
) -> Result<Image, CliError> {
    let platform: Option<Platform> = args.platform.as_deref().map(str::parse).transpose()?;
    let here = match policy {
        PullPolicy::Always => None,
        _ => match images.resolve(name) {
            Ok(image) => Some(image),
            Err(ImageError::NotFound { .. }) => None,
            Err(other) => return Err(CliError::from_error(&other)),
        },
    };
    // one that is here for another platform may have a brother in the registry
    let fits = |image: &Image| platform.as_ref().is_none_or(|p| p.runs(&image.platform()));
    if let Some(image) = here.filter(|image| fits(image) || policy == PullPolicy::Never) {
        return Ok(image);
    }
    let Ok(reference) = name.parse::<Reference>() else {
        return Err(CliError::from_error(
            &images.resolve(name).err().unwrap_or(ImageError::NotFound { name: name.to_owned(), hint: None }),
        ));
    };
    if policy == PullPolicy::Never {
        let error = CliError::new(format!("Unable to find image '{}' locally", reference.familiar()));
        return Err(error.hint("--pull missing gets it from its registry"));
    }
    if policy == PullPolicy::Missing {
        super::talk(&format!("Unable to find image '{}' locally\n", reference.familiar()));
    }
    let pulled = registry::pull::bring(&reference, platform.as_ref(), store, images, ctx)?;
    Ok(images.get(&pulled.id)?)
}

/// Refuses an image of another platform than was asked for; warns about one that this machine may not execute.
fn check_platform(args: &RunArgs, name: &str, image: &Image) -> Result<(), CliError> {
    let own = image.platform();
    let own: Platform = own.to_string().parse().unwrap_or(own);
    if own.architecture.is_empty() || own.os.is_empty() {
        return Ok(());
    }
    let host = Platform::host();
    match &args.platform {
        Some(wanted) => {
            let wanted: Platform = wanted.parse()?;
            if !wanted.runs(&own) {
                let error = RunError::Platform {
                    image: name.to_owned(),
                    found: own.to_string(),
                    wanted: wanted.to_string(),
                };
                return Err(run_error(error));
            }
        }
        None if !host.runs(&own) => super::talk(&format!(
            "warning: the image's platform ({own}) does not match the host's ({host}) and no specific platform was requested\n"
        )),
        None => {}
    }
    Ok(())
}

/// The values that have a language of their own, read before anything else is done.
struct Parts {
    name: Option<ContainerName>,
    env: Vec<env::EnvChange>,
    volumes: Vec<VolumeRequest>,
    network: NetworkRequest,
    confinement: Confinement,
}

impl Parts {
    fn parse(args: &RunArgs) -> Result<Self, CliError> {
        Ok(Self {
            name: args.name.as_deref().map(str::parse).transpose().map_err(run_error)?,
            env: environment(args).map_err(run_error)?,
            volumes: args.mounts.requests()?,
            network: args.network.request()?,
            confinement: confinement(args)?,
        })
    }

    fn request(self, args: &RunArgs, image: Image, name: &str, command: &[OsString]) -> RunRequest {
        let bytes = |text: &OsString| text.clone().into_vec();
        let labels = args.label.iter().map(|label| {
            let (name, value) = values::pair(label);
            (name, value.unwrap_or_default())
        });
        RunRequest {
            image,
            image_name: name.to_owned(),
            process: Overrides {
                entrypoint: args.entrypoint.as_ref().map(bytes),
                args: command.iter().map(bytes).collect(),
                env: self.env,
                workdir: args.workdir.as_ref().map(bytes),
                user: args.user.clone(),
                stop_signal: args.stop_signal.clone(),
                labels: labels.collect::<BTreeMap<_, _>>(),
                terminal: on(args.tty),
            },
            name: self.name,
            hostname: args.hostname.clone(),
            cidfile: args.cidfile.clone(),
            volumes: self.volumes,
            network: self.network,
            interactive: on(args.interactive),
            confinement: self.confinement,
        }
    }
}

fn environment(args: &RunArgs) -> Result<Vec<env::EnvChange>, RunError> {
    let host = |name: &[u8]| std::env::var_os(OsStr::from_bytes(name)).map(OsString::into_vec);
    let mut out = Vec::new();
    for path in &args.env_file {
        out.extend(env::read_file(path, &host)?);
    }
    for text in &args.env {
        out.push(env::parse_flag(text.as_bytes(), &host)?);
    }
    Ok(out)
}

fn confinement(args: &RunArgs) -> Result<Confinement, CliError> {
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
        shm_size: args.shm_size.as_deref().map(|size| values::bytes("--shm-size", size)).transpose()?,
        sysctls: args.sysctl.iter().map(|text| sysctl(text)).collect::<Result<_, _>>()?,
        devices: args.device.iter().map(|text| device(text)).collect::<Result<_, _>>()?,
        oom_score_adj: args.oom_score_adj,
        ..Confinement::default()
    };
    let security = values::security(&args.security_opt)?;
    out.no_new_privs = security.no_new_privs;
    out.seccomp = security.seccomp;
    Ok(out)
}

fn capabilities(flag: &str, names: &[String]) -> Result<CapSet, CliError> {
    names.iter().try_fold(CapSet::EMPTY, |set, name| {
        let one = CapSet::parse(name)
            .ok_or_else(|| CliError::new(format!("{flag} {name:?}: there is no such capability")))?;
        Ok(set.with(one))
    })
}

fn limits(args: &RunArgs) -> Result<Limits, CliError> {
    let memory = args.memory.as_deref().map(|m| values::bytes("--memory", m)).transpose()?;
    Ok(Limits {
        memory,
        memory_swap: values::memory_swap(args.memory_swap.as_deref(), memory)?,
        cpu_millis: args.cpus.as_deref().map(cpus).transpose()?,
        cpu_shares: args.cpu_shares.filter(|shares| *shares > 0),
        cpuset_cpus: args.cpuset_cpus.clone(),
        pids: args.pids_limit.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
        parent: None,
    })
}

fn cpus(text: &str) -> Result<u64, CliError> {
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
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn parse(words: &[&str]) -> Result<RunArgs, clap::Error> {
        Line::try_parse_from(["run"].iter().chain(words)).map(|line| line.run)
    }

    #[test]
    fn flags_end_at_the_image() {
        let args =
            parse(&["--rm", "-it", "-eA=b", "-h", "box", "app", "--rm", "-e", "x", "--", "-h"]).unwrap();
        assert!(on(args.rm) && on(args.interactive) && on(args.tty));
        assert_eq!(args.env, ["A=b"]);
        assert_eq!(args.hostname.as_deref(), Some("box"));
        assert_eq!(args.image_and_command, ["app", "--rm", "-e", "x", "--", "-h"]);
    }

    #[test]
    fn booleans_may_have_a_value() {
        let args = parse(&["--rm=true", "--init=false", "-i=true", "-ti", "--read-only", "app"]);
        assert!(args.is_err(), "given twice");
        let args = parse(&["--rm=true", "--init=false", "-ti", "--read-only", "app", "x"]).unwrap();
        assert!(on(args.rm) && !on(args.init) && on(args.interactive) && on(args.tty) && on(args.read_only));
        assert_eq!(args.image_and_command, ["app", "x"]);
    }

    #[test]
    fn nothing_is_ignored_silently() {
        for words in [&["--no-such-flag", "app"][..], &[], &["-x", "app"], &["--dns", "name", "app"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
        for words in [&["-d", "app"][..], &["--restart=always", "app"], &["-dit", "app"]] {
            let error = parse(words).unwrap().later.refuse().unwrap_err();
            assert!(error.message.contains("not available yet"), "{words:?}");
        }
        assert!(parse(&["--restart=no", "app"]).unwrap().later.refuse().is_ok());
    }

    #[test]
    fn limits_and_devices() {
        let limited = |words: &[&str]| limits(&parse(&[words, &["app"]].concat()).unwrap());
        let got = limited(&["-m", "64m", "--memory-swap=-1", "--cpus", "1.5", "--pids-limit", "-1"]).unwrap();
        assert_eq!(
            (got.memory, got.memory_swap, got.cpu_millis, got.pids),
            (Some(64 << 20), Some(u64::MAX), Some(1500), None)
        );
        for bad in [
            &["--cpus", "0"][..],
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
