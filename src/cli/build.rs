//! `rbuild build`, and `rbuild` with anything that is no command.

use super::call::{Call, Question};
use super::signals::Interrupt;
use super::{CliError, CommandResult, Ctx, values};
use crate::build::{self, BuildError, BuildRequest, Built, ContextSource, Tools};
use crate::context::{Dockerfile, find_dockerfile};
use crate::gc::{Collector, Keep};
use crate::image::{Dest, Image, Images, OutputKind, OutputSpec, Target};
use crate::network::{ExtraHost, NetworkMode};
use crate::plan::{NamedContext, PlanOptions};
use crate::progress::plain::Plain;
use crate::progress::tty::Tty;
use crate::progress::{EventSink, Silent};
use crate::reference::Reference;
use crate::sandbox::{Launcher, Limits};
use crate::solve::{Processes, RunSettings, Secrets};
use clap::Args;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Builds an image from a Dockerfile.
#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    /// Build context: a directory, or - for a tar archive or Dockerfile on standard input
    #[arg(value_name = "PATH | -")]
    pub context: OsString,
    /// Name and optionally tag of the image; may be repeated
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub tag: Vec<String>,
    /// Dockerfile [default: PATH/Dockerfile]; - reads standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Value of an ARG; without = it is taken from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// File with one NAME=VALUE a line; --build-arg wins
    #[arg(long, value_name = "FILE")]
    pub build_arg_file: Vec<PathBuf>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Platform of the image, for example linux/arm64
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", env = "DOCKER_DEFAULT_PLATFORM")]
    pub platform: Option<String>,
    /// Run every step even when its result is known
    #[arg(long)]
    pub no_cache: bool,
    /// The same for the steps of these stages only
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,
    /// Squash the new layers into one on top of the base image's
    #[arg(long)]
    pub squash: bool,
    /// Label of the image; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// Annotation of the manifest; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub annotation: Vec<String>,
    /// Further build context: NAME=DIR or NAME=docker-image://REF
    #[arg(long, value_name = "NAME=VALUE")]
    pub build_context: Vec<String>,
    /// Where the result goes, for example type=oci,dest=app.tar; may be repeated [default: the image store]
    #[arg(short, long, value_name = "DEST")]
    pub output: Vec<String>,
    /// The image store; the default, accepted for docker's sake
    #[arg(long)]
    pub load: bool,
    /// Print the image id and nothing else
    #[arg(short, long)]
    pub quiet: bool,
    /// Write the image id to a file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// How progress is shown: auto, plain, tty, quiet
    #[arg(long, value_name = "KIND", default_value = "auto", env = "BUILDKIT_PROGRESS")]
    pub progress: String,
    /// Network of RUN steps: default, none, host
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub network: String,
    /// Further line of /etc/hosts; may be repeated
    #[arg(long, value_name = "NAME:IP")]
    pub add_host: Vec<String>,
    /// Most steps that run at once [default: as many as the graph allows]
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Secret for RUN --mount=type=secret: id=ID[,src=FILE | ,env=NAME]
    #[arg(long, value_name = "SPEC")]
    pub secret: Vec<String>,
    /// Agent for RUN --mount=type=ssh: default or ID=SOCKET
    #[arg(long, value_name = "SPEC")]
    pub ssh: Vec<String>,
    /// Extra right: network.host or security.insecure
    #[arg(long, value_name = "RIGHT", value_delimiter = ',')]
    pub allow: Vec<String>,
    /// Size of /dev/shm in RUN steps, for example 128m
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// Limit of a RUN step's processes: NAME=SOFT[:HARD]
    #[arg(long, value_name = "LIMIT")]
    pub ulimit: Vec<String>,
    /// Memory of a RUN step, for example 512m
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Processor time of a RUN step in microseconds of each period
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_quota: Option<u64>,
    /// Length of that period in microseconds
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 100_000)]
    pub cpu_period: u64,
    /// Ignore file [default: FILE.dockerignore beside the Dockerfile, else PATH/.dockerignore]
    #[arg(long, value_name = "FILE")]
    pub ignorefile: Option<PathBuf>,
    /// Say for each step that runs which of its inputs changed
    #[arg(long)]
    pub explain: bool,
    /// Answer a question instead of building: check, outline or targets, with ,format=json
    #[arg(long, value_name = "WHAT", default_value = "build")]
    pub call: String,
    /// Check the Dockerfile without building; the same as --call=check
    #[arg(long)]
    pub check: bool,
    /// Always on; accepted for docker's sake
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    pub rm: Option<String>,
    /// Always on; accepted for docker's sake
    #[arg(long, hide = true)]
    pub force_rm: bool,
    /// Not needed without a daemon; accepted for docker's sake
    #[arg(long, hide = true)]
    pub compress: bool,
    /// Always on; accepted for buildah's sake
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    pub layers: Option<String>,
}

/// Longest Dockerfile that is read from standard input, in bytes.
const STDIN_LIMIT: u64 = 16 << 20;
/// Steps at once when `--jobs` does not say: enough to never be the limit of an honest graph.
const JOBS: usize = 64;

/// Builds.
pub(super) fn run(args: &BuildArgs, ctx: &Ctx) -> CommandResult {
    let begun = Instant::now();
    let outputs = args.output.iter().map(|o| OutputSpec::parse(o)).collect::<Result<Vec<_>, _>>()?;
    let to_stdout = outputs.iter().any(|o| matches!(o.kind, OutputKind::Export(_, Dest::Stdout)));
    if to_stdout && std::io::stdout().is_terminal() {
        let error = CliError::new("an archive is not written to a terminal");
        return Err(error.hint("redirect standard output, or give dest=FILE"));
    }
    let request = request(args, &outputs)?;
    let call = if args.check { Call::CHECK } else { Call::parse(&args.call)? };
    if call.question != Question::Build {
        return call.answer(&request, &ctx.open()?.2, ctx);
    }
    let keep = keep_storage()?;
    // before any thread: the helper process is forked
    let launcher = Launcher::start()?;
    let (store, snapshots, images) = ctx.open()?;
    let records = build::records(&store);
    let collector = Collector::new(store.clone(), snapshots.clone(), images.clone(), records);
    let processes = Arc::new(Processes::default());
    let stopping = processes.clone();
    let interrupt = Interrupt::watch(move || stopping.stop())?;
    let (sink, live) = progress(args)?;
    let tools = Tools { store, snapshots, images: images.clone(), launcher, sink };
    let outcome = build::build(&request, tools, &processes);
    drop(live);
    let built = match outcome {
        Ok(built) => built,
        Err(error) => {
            let error = failure(error, interrupt.code(), shows_logs(args));
            if interrupt.code().is_none() {
                tidy(&collector, keep);
            }
            return Err(error);
        }
    };
    if !outputs.is_empty() {
        let image = images.get(&built.image)?;
        for spec in &outputs {
            export(spec, &request, built.epoch, &image, &images)?;
        }
    }
    if let Some(code) = interrupt.code() {
        return Err(CliError::new("interrupted").code(code));
    }
    let code = finish(args, &request, &built, begun, ctx)?;
    tidy(&collector, keep);
    Ok(code)
}

/// Removes build cache that is over the limit. The build is done; nothing about this makes it fail.
fn tidy(collector: &Collector, keep: Keep) {
    match collector.after_build(keep) {
        Ok(Some(pruned)) if pruned.bytes > 0 => super::talk(&format!(
            "Removed {} of build cache that was over the limit (RBUILD_KEEP_STORAGE)\n",
            super::table::human_size(pruned.bytes)
        )),
        Ok(_) => {}
        Err(error) => super::talk(&format!("warning: the build cache could not be tidied up: {error}\n")),
    }
}

/// Reads `RBUILD_KEEP_STORAGE`: bytes of build cache to keep, 0 for all; by the size of the disk if not set.
fn keep_storage() -> Result<Keep, CliError> {
    match std::env::var("RBUILD_KEEP_STORAGE") {
        Ok(text) if !text.is_empty() => Ok(match values::bytes("RBUILD_KEEP_STORAGE", &text)? {
            0 => Keep::All,
            bytes => Keep::Bytes(bytes),
        }),
        _ => Ok(Keep::ByDisk),
    }
}

fn export(
    spec: &OutputSpec,
    request: &BuildRequest,
    epoch: Option<i64>,
    image: &Image,
    images: &Images,
) -> Result<(), CliError> {
    let OutputKind::Export(format, dest) = &spec.kind else { return Ok(()) };
    let mut options = spec.options.clone();
    options.epoch = epoch;
    options.annotations.extend(request.annotations.iter().cloned());
    let named = [(image.clone(), request.names.clone())];
    let exported = match dest {
        Dest::Path(path) => images.export(&named, *format, &options, Target::Path(path))?,
        Dest::Stdout => images.export(&named, *format, &options, Target::Stream(&mut std::io::stdout()))?,
    };
    if let Some(first) = exported.skipped.first() {
        let more = exported.skipped.len();
        super::talk(&format!(
            "warning: {more} path(s) could not be made here and were left out, the first is {first}\n"
        ));
    }
    Ok(())
}

fn finish(
    args: &BuildArgs,
    request: &BuildRequest,
    built: &Built,
    begun: Instant,
    ctx: &Ctx,
) -> CommandResult {
    if let Some(path) = &args.iidfile {
        std::fs::write(path, built.image.to_string())
            .map_err(|e| CliError::new(format!("cannot write {}: {e}", path.display())))?;
    }
    if let Some(path) = &args.metadata_file {
        let names: Vec<String> = request.names.iter().map(ToString::to_string).collect();
        let doc = serde_json::json!({
            "containerimage.config.digest": built.image.to_string(),
            "image.name": names.join(","),
        });
        std::fs::write(path, format!("{doc:#}\n"))
            .map_err(|e| CliError::new(format!("cannot write {}: {e}", path.display())))?;
    }
    if args.quiet {
        ctx.out.line(&built.image.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    super::talk(&super::warnings::text(&built.warnings, &request.dockerfile));
    if args.progress != "quiet" {
        let names: Vec<String> = request.names.iter().map(Reference::familiar).collect();
        let named = if names.is_empty() { String::new() } else { format!(" as {}", names.join(", ")) };
        super::talk(&format!(
            "Built {}{named} in {:.1}s\n",
            built.image.0.short(),
            begun.elapsed().as_secs_f64()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the log of each step has been shown already when it fails.
fn shows_logs(args: &BuildArgs) -> bool {
    !args.quiet && !is_live(args) && args.progress != "quiet"
}

fn is_live(args: &BuildArgs) -> bool {
    match args.progress.as_str() {
        "tty" => true,
        "auto" => std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb"),
        _ => false,
    }
}

/// Who hears the events, and the live view if there is one.
type Progress = (Arc<dyn EventSink>, Option<Arc<Tty>>);

/// Chooses how progress is drawn. The second value ends the live view when it is dropped.
fn progress(args: &BuildArgs) -> Result<Progress, CliError> {
    let known = ["auto", "plain", "tty", "quiet", "none", "rawjson"];
    if !known.contains(&args.progress.as_str()) {
        return Err(CliError::new(format!(
            "--progress {:?}: expected auto, plain, tty or quiet",
            args.progress
        )));
    }
    if args.quiet || ["quiet", "none"].contains(&args.progress.as_str()) {
        return Ok((Arc::new(Silent), None));
    }
    if is_live(args) {
        let tty = Arc::new(Tty::new(Box::new(std::io::stderr()), terminal_size));
        return Ok((tty.clone(), Some(tty)));
    }
    Ok((Arc::new(Plain::new(Box::new(std::io::stderr()))), None))
}

/// Columns and rows of the terminal.
fn terminal_size() -> (usize, usize) {
    let size = terminal_size::terminal_size_of(std::io::stderr());
    size.map_or((80, 24), |(w, h)| (usize::from(w.0).max(20), usize::from(h.0).max(5)))
}

pub(super) fn failure(error: BuildError, interrupted: Option<u8>, log_shown: bool) -> CliError {
    if let Some(code) = interrupted {
        return CliError::new("interrupted; what had ended before stays in the cache").code(code);
    }
    match error {
        BuildError::Dockerfile { name, source_text, diagnostic } => {
            CliError::new(diagnostic.render(&name, &source_text, false).trim_end())
        }
        BuildError::Checks { ref name, ref source_text, ref warnings } => {
            let shown: String = warnings.iter().map(|w| w.render(name, source_text, false)).collect();
            CliError::new(format!("{error}\n{}", shown.trim_end()))
        }
        BuildError::Step { name, source_text, step } => {
            super::step_failure::describe(&name, &source_text, &step, log_shown)
        }
        other => CliError::from_error(&other),
    }
}

fn request(args: &BuildArgs, outputs: &[OutputSpec]) -> Result<BuildRequest, CliError> {
    let (context, dockerfile) = context_and_dockerfile(args)?;
    let mut names = args.tag.iter().map(|t| t.parse::<Reference>()).collect::<Result<Vec<_>, _>>()?;
    names.extend(outputs.iter().flat_map(|o| o.names.iter().cloned()));
    let (contexts, named) = build_contexts(args)?;
    let allows = |right: &str| args.allow.iter().any(|a| a == right);
    if let Some(other) =
        args.allow.iter().find(|a| !["network.host", "security.insecure"].contains(&a.as_str()))
    {
        return Err(CliError::new(format!("--allow {other:?}: expected network.host or security.insecure")));
    }
    let network: NetworkMode = args.network.parse()?;
    let plan = PlanOptions {
        build_args: build_args(args)?,
        target: args.target.clone(),
        labels: args
            .label
            .iter()
            .map(|l| {
                let (k, v) = values::pair(l);
                (k, v.unwrap_or_default())
            })
            .collect(),
        platform: args.platform.as_deref().map(str::parse).transpose()?,
        no_cache: args.no_cache,
        no_cache_filter: args.no_cache_filter.clone(),
        contexts,
        allow_host_network: allows("network.host") || network == NetworkMode::Host,
        allow_insecure: allows("security.insecure"),
        ..PlanOptions::new()
    };
    Ok(BuildRequest {
        context,
        named,
        dockerfile,
        annotations: args.annotation.iter().map(|a| annotation(a)).collect(),
        ignore_file: args.ignorefile.clone(),
        plan,
        names,
        squash: args.squash,
        run: RunSettings {
            network,
            extra_hosts: args.add_host.iter().map(|h| h.parse::<ExtraHost>()).collect::<Result<_, _>>()?,
            shm_size: args.shm_size.as_deref().map(|s| values::bytes("--shm-size", s)).transpose()?,
            rlimits: args.ulimit.iter().map(|u| values::ulimit(u)).collect::<Result<_, _>>()?,
            limits: limits(args)?,
            allow_insecure: allows("security.insecure"),
            allow_host_network: allows("network.host"),
        },
        secrets: secrets(args)?,
        jobs: match args.jobs {
            Some(0) => return Err(CliError::new("--jobs must be at least 1")),
            jobs => jobs.unwrap_or(JOBS),
        },
        explain: args.explain,
    })
}

/// Reads `[manifest:]NAME=VALUE`.
fn annotation(text: &str) -> (String, String) {
    let (name, value) = values::pair(text.strip_prefix("manifest:").unwrap_or(text));
    (name, value.unwrap_or_default())
}

fn limits(args: &BuildArgs) -> Result<Limits, CliError> {
    let memory = args.memory.as_deref().map(|m| values::bytes("--memory", m)).transpose()?;
    let cpu_millis = args.cpu_quota.map(|quota| quota * 1000 / args.cpu_period.max(1));
    Ok(Limits { memory, cpu_millis, ..Limits::default() })
}

fn secrets(args: &BuildArgs) -> Result<Secrets, CliError> {
    Ok(Secrets {
        secrets: args.secret.iter().map(|s| values::secret(s)).collect::<Result<_, _>>()?,
        agents: args.ssh.iter().map(|s| values::agent(s)).collect::<Result<_, _>>()?,
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
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        out.entry("SOURCE_DATE_EPOCH".into()).or_insert(Some(epoch));
    }
    Ok(out)
}

/// A name without value takes that of the environment.
fn given(text: &str) -> (String, Option<String>) {
    let (name, value) = values::pair(text);
    let value = value.or_else(|| std::env::var(&name).ok());
    (name, value)
}

type Contexts = (BTreeMap<String, NamedContext>, BTreeMap<String, PathBuf>);

fn build_contexts(args: &BuildArgs) -> Result<Contexts, CliError> {
    let (mut contexts, mut dirs) = (BTreeMap::new(), BTreeMap::new());
    for text in &args.build_context {
        let bad = |why: String| CliError::new(format!("--build-context {text:?}: {why}"));
        let (name, value) =
            text.split_once('=').ok_or_else(|| bad("write NAME=DIR or NAME=docker-image://REF".into()))?;
        let name = name.to_ascii_lowercase();
        let context = if let Some(image) = value.strip_prefix("docker-image://") {
            NamedContext::Image(image.to_owned())
        } else if value.contains("://") {
            return Err(bad("only directories and docker-image:// are understood".into()));
        } else if Path::new(value).is_dir() {
            dirs.insert(name.clone(), PathBuf::from(value));
            NamedContext::Files
        } else {
            return Err(bad(format!("{value} is no directory")));
        };
        contexts.insert(name, context);
    }
    Ok((contexts, dirs))
}

fn context_and_dockerfile(args: &BuildArgs) -> Result<(ContextSource, Dockerfile), CliError> {
    let from_stdin = args.file.as_deref() == Some(Path::new("-"));
    if args.context == "-" {
        if from_stdin {
            return Err(CliError::new("the context and the Dockerfile cannot both be standard input"));
        }
        return Ok((ContextSource::Empty, Dockerfile { path: "Dockerfile".into(), text: stdin()? }));
    }
    let dir = PathBuf::from(&args.context);
    if !dir.is_dir() {
        let hint = "the last argument is the build context: a directory such as . or - for standard input";
        let text = dir.display();
        let why = if dir.exists() { "is not a directory" } else { "does not exist" };
        let near = super::near_command(&text.to_string());
        return Err(
            CliError::new(format!("build context {text} {why}")).hint(near.unwrap_or_else(|| hint.into()))
        );
    }
    let dockerfile = if from_stdin {
        Dockerfile { path: "Dockerfile".into(), text: stdin()? }
    } else {
        find_dockerfile(&dir, args.file.as_deref())?
    };
    Ok((ContextSource::Dir(dir), dockerfile))
}

fn stdin() -> Result<Vec<u8>, CliError> {
    let mut text = Vec::new();
    std::io::stdin()
        .lock()
        .take(STDIN_LIMIT)
        .read_to_end(&mut text)
        .map_err(|e| CliError::new(format!("cannot read standard input: {e}")))?;
    Ok(text)
}
