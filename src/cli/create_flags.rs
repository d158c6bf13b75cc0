//! The flags that `run` and `create` share, docker's, and the container that they describe.

use super::network_flags::NetworkFlags;
use super::volume_flags::VolumeFlags;
use super::{CliError, Ctx, build, registry, values};
use crate::build::PullPolicy;
use crate::image::{Image, ImageError, Images};
use crate::oci::Healthcheck;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::runtime::log::LogConfig;
use crate::runtime::{
    Confinement, ContainerName, NetworkRequest, Overrides, RestartPolicy, RunError, RunRequest,
    VolumeRequest, env,
};
use crate::sandbox::{CapSet, DeviceSpec, IpcNamespace, Limits, PidNamespace};
use crate::store::Store;
use clap::Args;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Exit code of everything that goes wrong before the program runs.
pub(super) const ENGINE_ERROR: u8 = 125;

pub(super) fn on(switch: Option<Option<bool>>) -> bool {
    switch.is_some_and(|value| value.unwrap_or(true))
}

/// What a container is made of.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct CreateFlags {
    /// Image, then the command to run in it [default: the image's own]; what follows the image is not read as flags
    #[arg(value_name = "IMAGE [COMMAND [ARG...]]", required = true, num_args = 1.., trailing_var_arg = true)]
    pub image_and_command: Vec<OsString>,
    /// Keep standard input open
    #[arg(short, long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    pub interactive: Option<Option<bool>>,
    /// Give the container a terminal
    #[arg(short, long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    pub tty: Option<Option<bool>>,
    /// Remove the container when it ends, with the volumes that were made for it alone
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
    /// Read labels from a file, one a line; --label wins
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Note on the container, for other tools
    #[arg(long, value_name = "NAME=VALUE")]
    annotation: Vec<String>,
    /// Attach to stdin, stdout or stderr [default: to stdout and stderr, with -i also to stdin]
    #[arg(short, long, value_name = "STREAM")]
    pub attach: Vec<String>,
    /// Start it again when it ends: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no", hide_default_value = true)]
    restart: String,
    /// Take over the mounts of another container
    #[arg(long, value_name = "CONTAINER[:ro|:rw]")]
    volumes_from: Vec<String>,
    /// Seconds that it may take to stop; -1 is without limit [default: the image's, else 10]
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    stop_timeout: Option<i64>,
    /// Where its output goes: json-file, local, none
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// max-size=10m, max-file=3, compress=true, labels=, env=, tag=
    #[arg(long, value_name = "NAME=VALUE")]
    log_opt: Vec<String>,
    /// Command that tells whether the container works
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks [default: 30s]
    #[arg(long, value_name = "DURATION")]
    health_interval: Option<String>,
    /// Time for one check [default: 30s]
    #[arg(long, value_name = "DURATION")]
    health_timeout: Option<String>,
    /// Failures in a row until it is unhealthy [default: 3]
    #[arg(long, value_name = "N")]
    health_retries: Option<u32>,
    /// Time from the start in which failures do not count [default: 0s]
    #[arg(long, value_name = "DURATION")]
    health_start_period: Option<String>,
    /// Time between checks in the start period [default: 5s]
    #[arg(long, value_name = "DURATION")]
    health_start_interval: Option<String>,
    /// Leave the image's health check out
    #[arg(long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    no_healthcheck: Option<Option<bool>>,
    /// Domain name in the container
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Process ids: host, or empty for its own
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,
    /// Message queues and shared memory: private, host
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// Host name: host, or empty for its own
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,
    /// User ids: host, or empty; both are those of rbuild
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,
    /// View of cgroups: private
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
    /// Driver of named volumes; only local
    #[arg(long, value_name = "DRIVER")]
    volume_driver: Option<String>,
    /// Accepted for docker's sake; images of the store are not signed
    #[arg(long, hide = true, require_equals = true)]
    disable_content_trust: Option<Option<bool>>,
    /// Say nothing about pulling
    #[arg(short, long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    quiet: Option<Option<bool>>,
    /// Signal that ends the container [default: the image's, else SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// When to pull the image: always, missing or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub pull: String,
    /// Platform that the image must be for
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", env = "DOCKER_DEFAULT_PLATFORM")]
    pub platform: Option<String>,
}

/// What a command line describes.
pub(super) struct Described {
    /// What the flags say.
    parts: Parts,
    policy: PullPolicy,
    image_name: String,
    command: Vec<OsString>,
}

impl CreateFlags {
    /// Reads all flags, before anything is done. `detached` says that nobody stays attached.
    pub(super) fn describe(&self, detached: bool) -> Result<Described, CliError> {
        let (name, command) =
            self.image_and_command.split_first().ok_or_else(|| CliError::new("no image named"))?;
        let name = name.to_str().ok_or_else(|| CliError::new("the image name is not UTF-8"))?;
        let policy = build::pull_policy(&self.pull)?;
        let parts = Parts::parse(self, detached)?;
        Ok(Described { parts, policy, image_name: name.to_owned(), command: command.to_vec() })
    }
}

impl Described {
    /// Says whether the caller's input goes to the container.
    pub(super) fn reads(&self) -> bool {
        self.parts.attached[0]
    }

    /// Finds the image and puts everything together.
    pub(super) fn request(
        self,
        flags: &CreateFlags,
        store: &Store,
        images: &Images,
        ctx: &Ctx,
    ) -> Result<RunRequest, CliError> {
        let image = find(flags, &self.image_name, self.policy, store, images, ctx)?;
        images.mend(&image)?;
        check_platform(flags, &self.image_name, &image)?;
        Ok(self.parts.request(flags, image, &self.image_name, &self.command))
    }
}

/// Says what went wrong with a container, with docker's exit code for it.
pub(super) fn run_error(error: RunError) -> CliError {
    let hint = error.hint();
    let code = if let RunError::NotStarted { code, .. } = &error { *code } else { ENGINE_ERROR };
    let text = if let RunError::NotStarted { text, .. } = &error { Some(text.clone()) } else { None };
    if let Some((message, hint)) = text.as_deref().and_then(|text| text.split_once('\n')) {
        // the monitor sends an error and what helps as two lines
        return CliError::new(message).code(code).hint(hint);
    }
    let error = CliError::from_error(&error).code(code);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Finds the image here, or brings it.
fn find(
    flags: &CreateFlags,
    name: &str,
    policy: PullPolicy,
    store: &Store,
    images: &Images,
    ctx: &Ctx,
) -> Result<Image, CliError> {
    let platform: Option<Platform> = flags.platform.as_deref().map(str::parse).transpose()?;
    let here = match policy {
        PullPolicy::Always => None,
        _ => match images.resolve_for(name, platform.as_ref()) {
            Ok(image) => Some(image),
            Err(ImageError::NotFound { .. }) => None,
            Err(ImageError::Platform { .. }) if policy != PullPolicy::Never => None,
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
fn check_platform(args: &CreateFlags, name: &str, image: &Image) -> Result<(), CliError> {
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
    labels: BTreeMap<String, String>,
    volumes: Vec<VolumeRequest>,
    volumes_from: Vec<(String, Option<bool>)>,
    network: NetworkRequest,
    restart: RestartPolicy,
    log: LogConfig,
    health: HealthFlags,
    attached: [bool; 3],
    confinement: Confinement,
}

impl Parts {
    fn parse(args: &CreateFlags, detached: bool) -> Result<Self, CliError> {
        let restart = RestartPolicy::parse(&args.restart).map_err(run_error)?;
        if on(args.rm) && restart != RestartPolicy::No {
            return Err(CliError::new("conflicting options: cannot specify both --restart and --rm"));
        }
        if args.volume_driver.as_deref().is_some_and(|driver| !matches!(driver, "" | "local")) {
            return Err(CliError::new("--volume-driver: only local volumes are available"));
        }
        Ok(Self {
            name: args.name.as_deref().map(str::parse).transpose().map_err(run_error)?,
            env: environment(args).map_err(run_error)?,
            labels: labels(args)?,
            volumes: args.mounts.requests()?,
            volumes_from: args
                .volumes_from
                .iter()
                .map(|text| volumes_from(text))
                .collect::<Result<_, _>>()?,
            network: args.network.request()?,
            restart,
            log: LogConfig::parse(args.log_driver.as_deref(), &args.log_opt).map_err(run_error)?,
            health: HealthFlags::parse(args)?,
            attached: attached(args, detached)?,
            confinement: confinement(args)?,
        })
    }

    fn request(self, args: &CreateFlags, image: Image, name: &str, command: &[OsString]) -> RunRequest {
        let bytes = |text: &OsString| text.clone().into_vec();
        let health = self.health.over(image.config.config.healthcheck.as_ref());
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
                labels: self.labels,
                terminal: on(args.tty),
            },
            name: self.name,
            hostname: args.hostname.clone(),
            domainname: args.domainname.clone().unwrap_or_default(),
            cidfile: args.cidfile.clone(),
            volumes: self.volumes,
            volumes_from: self.volumes_from,
            network: self.network,
            interactive: on(args.interactive),
            stdin_once: on(args.interactive) && self.attached[0],
            attached: self.attached,
            auto_remove: on(args.rm),
            restart: self.restart,
            health,
            stop_timeout: args.stop_timeout,
            log: self.log,
            annotations: pairs(&args.annotation),
            confinement: self.confinement,
        }
    }
}

/// Which streams the command stays attached to: input, output, errors.
fn attached(args: &CreateFlags, detached: bool) -> Result<[bool; 3], CliError> {
    if args.attach.is_empty() {
        return Ok(if detached { [false; 3] } else { [on(args.interactive), true, true] });
    }
    if detached {
        return Err(CliError::new("conflicting options: cannot specify both --attach and --detach"));
    }
    let mut out = [false; 3];
    for stream in &args.attach {
        match stream.to_ascii_lowercase().as_str() {
            "stdin" => out[0] = true,
            "stdout" => out[1] = true,
            "stderr" => out[2] = true,
            _ => {
                return Err(CliError::new(format!(
                    "--attach {stream:?}: valid streams are STDIN, STDOUT and STDERR"
                )));
            }
        }
    }
    Ok(out)
}

fn pairs(texts: &[String]) -> BTreeMap<String, String> {
    let pair = |text: &String| {
        let (name, value) = values::pair(text);
        (name, value.unwrap_or_default())
    };
    texts.iter().map(pair).collect()
}

fn labels(args: &CreateFlags) -> Result<BTreeMap<String, String>, CliError> {
    let mut out = BTreeMap::new();
    for path in &args.label_file {
        let nothing = |_: &[u8]| Some(Vec::new());
        for (name, value) in env::read_file(path, &nothing).map_err(run_error)? {
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            out.insert(text(name), value.map(text).unwrap_or_default());
        }
    }
    out.extend(pairs(&args.label));
    Ok(out)
}

fn volumes_from(text: &str) -> Result<(String, Option<bool>), CliError> {
    match text.split_once(':') {
        None => Ok((text.to_owned(), None)),
        Some((name, "ro")) => Ok((name.to_owned(), Some(true))),
        Some((name, "rw")) => Ok((name.to_owned(), Some(false))),
        Some(_) => Err(CliError::new(format!(
            "--volumes-from {text:?}: expected CONTAINER, CONTAINER:ro or CONTAINER:rw"
        ))),
    }
}

/// What the command line says about the health check.
#[derive(Debug, Default)]
struct HealthFlags {
    none: bool,
    check: Healthcheck,
}

impl HealthFlags {
    fn parse(args: &CreateFlags) -> Result<Self, CliError> {
        let nanos = |flag: &str, text: &Option<String>| match text {
            None => Ok(0),
            Some(text) => crate::dockerfile::parse_duration(text)
                .filter(|time| time.is_zero() || time.as_millis() > 0)
                .and_then(|time| i64::try_from(time.as_nanos()).ok())
                .ok_or_else(|| {
                    CliError::new(format!("{flag} {text:?}: expected a duration such as 30s or 1m30s"))
                        .hint("the shortest is 1ms; 0s stands for the default")
                }),
        };
        let test = args.health_cmd.as_ref().map(|text| vec!["CMD-SHELL".to_owned(), text.clone()]);
        let check = Healthcheck {
            test: test.unwrap_or_default(),
            interval: nanos("--health-interval", &args.health_interval)?,
            timeout: nanos("--health-timeout", &args.health_timeout)?,
            start_period: nanos("--health-start-period", &args.health_start_period)?,
            start_interval: nanos("--health-start-interval", &args.health_start_interval)?,
            retries: args.health_retries.map_or(0, i64::from),
        };
        let none = on(args.no_healthcheck);
        if none && check != Healthcheck::default() {
            return Err(CliError::new("--no-healthcheck conflicts with --health-* options"));
        }
        Ok(Self { none, check })
    }

    /// Lays it over the image's.
    fn over(self, image: Option<&Healthcheck>) -> Option<Healthcheck> {
        if self.none {
            return Some(Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() });
        }
        if self.check == Healthcheck::default() {
            return image.cloned();
        }
        let image = image.cloned().unwrap_or_default();
        let or = |given: i64, below: i64| if given == 0 { below } else { given };
        Some(Healthcheck {
            test: if self.check.test.is_empty() { image.test } else { self.check.test },
            interval: or(self.check.interval, image.interval),
            timeout: or(self.check.timeout, image.timeout),
            start_period: or(self.check.start_period, image.start_period),
            start_interval: or(self.check.start_interval, image.start_interval),
            retries: or(self.check.retries, image.retries),
        })
    }
}

fn environment(args: &CreateFlags) -> Result<Vec<env::EnvChange>, RunError> {
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

fn confinement(args: &CreateFlags) -> Result<Confinement, CliError> {
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
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        security_opt: args.security_opt.clone(),
        ..Confinement::default()
    };
    namespaces(args, &mut out)?;
    let security = values::security(&args.security_opt)?;
    out.no_new_privs = security.no_new_privs;
    out.seccomp = security.seccomp;
    Ok(out)
}

/// Reads whose namespaces the container uses.
fn namespaces(args: &CreateFlags, out: &mut Confinement) -> Result<(), CliError> {
    let bad = |flag: &str, mode: &str, known: &str| {
        Err(CliError::new(format!("--{flag} {mode:?} is not available")).hint(format!("there are {known}")))
    };
    match args.pid.as_deref().unwrap_or_default() {
        "" | "private" => {}
        "host" => out.pid = PidNamespace::Host,
        other => return bad("pid", other, "host and the default, a namespace of its own"),
    }
    match args.ipc.as_deref().unwrap_or_default() {
        "" | "private" | "shareable" => {}
        "host" => out.ipc = IpcNamespace::Host,
        other => return bad("ipc", other, "host and private"),
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
        other => return bad("cgroupns", other, "private, the default"),
    }
    if out.host_uts && args.hostname.is_some() {
        return Err(CliError::new("conflicting options: hostname and the UTS mode"));
    }
    Ok(())
}

fn capabilities(flag: &str, names: &[String]) -> Result<CapSet, CliError> {
    names.iter().try_fold(CapSet::EMPTY, |set, name| {
        let one = CapSet::parse(name)
            .ok_or_else(|| CliError::new(format!("{flag} {name:?}: there is no such capability")))?;
        Ok(set.with(one))
    })
}

fn limits(args: &CreateFlags) -> Result<Limits, CliError> {
    let memory = args.memory.as_deref().map(|m| values::bytes("--memory", m)).transpose()?;
    Ok(Limits {
        memory,
        memory_swap: values::memory_swap(args.memory_swap.as_deref(), memory)?,
        memory_reservation: args
            .memory_reservation
            .as_deref()
            .map(|m| values::bytes("--memory-reservation", m))
            .transpose()?,
        cpu_millis: processor_time(args)?,
        cpuset_mems: args.cpuset_mems.clone(),
        cpu_shares: args.cpu_shares.filter(|shares| *shares > 0),
        cpuset_cpus: args.cpuset_cpus.clone(),
        pids: args.pids_limit.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
        parent: args.cgroup_parent.clone(),
    })
}

fn processor_time(args: &CreateFlags) -> Result<Option<u64>, CliError> {
    let quota = args.cpu_quota.and_then(|quota| u64::try_from(quota).ok()).filter(|quota| *quota > 0);
    match (&args.cpus, quota) {
        (Some(_), Some(_)) => {
            Err(CliError::new("conflicting options: Nano CPUs and CPU Period cannot both be set")
                .hint("use --cpus alone"))
        }
        (Some(text), None) => cpus(text).map(Some),
        (None, Some(quota)) => {
            let period = args.cpu_period.filter(|period| *period > 0).unwrap_or(100_000);
            Ok(Some((quota.saturating_mul(1000) / period).max(1)))
        }
        (None, None) => Ok(None),
    }
}

pub(super) fn cpus(text: &str) -> Result<u64, CliError> {
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
        run: CreateFlags,
    }

    fn parse(words: &[&str]) -> Result<CreateFlags, clap::Error> {
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
    }

    #[test]
    fn flags_that_exclude_each_other_are_refused() {
        let describe =
            |words: &[&str], detached| parse(words).unwrap().describe(detached).err().map(|e| e.message);
        for (words, detached, why) in [
            (&["--rm", "--restart=always", "app"][..], false, "--restart and --rm"),
            (&["-a", "stdout", "app"], true, "--attach and --detach"),
            (&["-a", "what", "app"], false, "valid streams"),
            (&["--no-healthcheck", "--health-cmd", "x", "app"], false, "conflicts"),
            (&["--health-interval", "soon", "app"], false, "duration"),
            (&["--cpus", "1", "--cpu-quota", "5000", "app"], false, "conflicting"),
            (&["--uts", "host", "-h", "x", "app"], false, "hostname"),
            (&["--log-driver", "syslog", "app"], false, "json-file"),
            (&["--volumes-from", "a:x", "app"], false, "CONTAINER:ro"),
        ] {
            let message = describe(words, detached).unwrap_or_default();
            assert!(message.contains(why), "{words:?}: {message}");
        }
        assert!(describe(&["--restart=always", "--health-cmd", "x", "app"], true).is_none());
    }

    #[test]
    fn health_flags_lie_over_the_image() {
        let test = vec!["CMD".into(), "a".into()];
        let image = Healthcheck { test, interval: 5, retries: 7, ..Healthcheck::default() };
        let health = |words: &[&str]| {
            let args = parse(&[words, &["app"]].concat()).unwrap();
            HealthFlags::parse(&args).unwrap().over(Some(&image))
        };
        assert_eq!(health(&[]).unwrap(), image);
        let got = health(&["--health-retries", "2", "--health-timeout", "1s"]).unwrap();
        assert_eq!((got.test.len(), got.interval, got.retries, got.timeout), (2, 5, 2, 1_000_000_000));
        assert_eq!(health(&["--health-cmd", "x y"]).unwrap().test, ["CMD-SHELL", "x y"]);
        assert_eq!(health(&["--no-healthcheck"]).unwrap().test, ["NONE"]);
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
