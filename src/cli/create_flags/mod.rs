//! The flags that `run` and `create` share, docker's, and the container that they describe.
//!
//! Those about rights and limits, and about the health check, are in files of their own.

mod confinement;
mod health;
mod rare;

pub(in crate::cli) use confinement::cpus;
pub(in crate::cli) use rare::{processor_time, settle};

use confinement::ConfinementFlags;
use health::{HealthChange, HealthFlags};

use super::network_flags::NetworkFlags;
use super::volume_flags::VolumeFlags;
use super::{CliError, Ctx, registry, values};
use crate::build::PullPolicy;
use crate::image::{Image, ImageError, Images};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::runtime::log::LogConfig;
use crate::runtime::{
    Confinement, ContainerName, MountedImage, NetworkRequest, Overrides, RestartPolicy, RunError, RunRequest,
    VolumeRequest, VolumeSource, env,
};
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
    #[command(flatten)]
    confinement: ConfinementFlags,
    /// Write the container's id to a new file
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<OsString>,
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
    #[command(flatten)]
    health: HealthFlags,
    /// Domain name in the container
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
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
        let policy = match self.pull.as_str() {
            "" | "missing" => PullPolicy::Missing,
            "always" => PullPolicy::Always,
            "never" => PullPolicy::Never,
            other => {
                let error = CliError::new(format!("--pull {other:?}: there is no such way to pull"));
                return Err(error.hint("write always, missing or never").code(ENGINE_ERROR));
            }
        };
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
        mut self,
        flags: &CreateFlags,
        store: &Store,
        images: &Images,
        ctx: &Ctx,
    ) -> Result<RunRequest, CliError> {
        let image = find(flags, &self.image_name, self.policy, store, images, ctx)?;
        images.mend(&image)?;
        check_platform(flags, &self.image_name, &image)?;
        self.find_mounted(flags, store, images, ctx)?;
        Ok(self.parts.request(flags, image, &self.image_name, &self.command))
    }
}

impl Described {
    /// Finds the images that are mounted, or brings them.
    fn find_mounted(
        &mut self,
        flags: &CreateFlags,
        store: &Store,
        images: &Images,
        ctx: &Ctx,
    ) -> Result<(), CliError> {
        // only what the container is made of is asked for anew
        let policy = if self.policy == PullPolicy::Always { PullPolicy::Missing } else { self.policy };
        for volume in &mut self.parts.volumes {
            if let VolumeSource::Image { name, image, .. } = &mut volume.source {
                let found = find(flags, name, policy, store, images, ctx)?;
                images.mend(&found)?;
                *image = Some(MountedImage { id: found.id.to_string(), top: found.top() });
            }
        }
        Ok(())
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
    let platform: Option<Platform> = said(&flags.platform).map(str::parse).transpose()?;
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
    match said(&args.platform) {
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
    health: HealthChange,
    attached: [bool; 3],
    confinement: Confinement,
}

impl Parts {
    fn parse(args: &CreateFlags, detached: bool) -> Result<Self, CliError> {
        // what docker's command line refuses by itself; all else its engine does, which is 1 for `create`
        let flag = |error: CliError| error.code(ENGINE_ERROR);
        let engine = |error: RunError| run_error(error).code(1);
        let restart = RestartPolicy::parse(&args.restart).map_err(engine)?;
        if on(args.rm) && restart != RestartPolicy::No {
            return Err(flag(CliError::new("conflicting options: cannot specify both --restart and --rm")));
        }
        if args.volume_driver.as_deref().is_some_and(|driver| !matches!(driver, "" | "local")) {
            return Err(CliError::new("--volume-driver: only local volumes are available"));
        }
        Ok(Self {
            name: said(&args.name).map(str::parse).transpose().map_err(engine)?,
            env: environment(args).map_err(run_error)?,
            labels: labels(args).map_err(flag)?,
            volumes: args.mounts.requests()?,
            volumes_from: args
                .volumes_from
                .iter()
                .map(|text| volumes_from(text))
                .collect::<Result<_, _>>()?,
            network: args.network.request().map_err(flag)?,
            restart,
            log: LogConfig::parse(said(&args.log_driver), &args.log_opt).map_err(engine)?,
            health: args.health.change().map_err(flag)?,
            attached: attached(args, detached).map_err(flag)?,
            confinement: args.confinement.confinement(said(&args.hostname).is_some()).map_err(flag)?,
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
                workdir: args.workdir.as_ref().filter(|dir| !dir.is_empty()).map(bytes),
                user: args.user.clone(),
                stop_signal: said(&args.stop_signal).map(str::to_owned),
                labels: self.labels,
                terminal: on(args.tty),
            },
            name: self.name,
            hostname: said(&args.hostname).map(str::to_owned),
            domainname: args.domainname.clone().unwrap_or_default(),
            cidfile: args.cidfile.as_deref().filter(|path| !path.is_empty()).map(PathBuf::from),
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
    let mut out = [on(args.interactive), args.attach.is_empty(), args.attach.is_empty()];
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
    Ok(if detached { [false; 3] } else { out })
}

/// Gives what a flag says; an empty word says nothing, as in a script with a variable that is not set.
pub(super) fn said(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
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
    if let Some(text) = args.label.iter().find(|text| values::pair(text).0.trim().is_empty()) {
        return Err(CliError::new(format!("--label {text:?}: the name is empty")));
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: CreateFlags,
    }

    pub(super) fn parse(words: &[&str]) -> Result<CreateFlags, clap::Error> {
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
        let args = parse(&["--rm=true", "--init=false", "-ti", "--read-only", "app", "x"]).unwrap();
        assert!(on(args.rm) && on(args.interactive) && on(args.tty));
        assert!(!on(args.confinement.init) && on(args.confinement.read_only));
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
}
