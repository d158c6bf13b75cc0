//! `diff`, `commit` and `export`: what a container has made of its image.

use super::{failure, open};
use crate::cli::import::change;
use crate::cli::{CliError, CommandResult, Ctx};
use crate::digest::{Digest, ImageId};
use crate::image::AssembleRequest;
use crate::oci::{History, ImageConfig};
use crate::plan::BaseImage;
use crate::reference::Reference;
use crate::runtime::archive::{self, PackOptions};
use crate::runtime::files::{self, Change};
use crate::runtime::{Client, Container, Record, Status, record_event, time};
use crate::tree::TreePath;
use clap::Args;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

/// `diff`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArgs {
    /// Name, id or beginning of an id
    #[arg(value_name = "CONTAINER")]
    name: String,
}

/// Lists what has changed: A for new, C for changed, D for gone.
pub(in crate::cli) fn diff(args: &DiffArgs, ctx: &Ctx) -> CommandResult {
    let container = open(ctx)?.find(&args.name).map_err(failure)?;
    let (_, snapshots, _) = ctx.open()?;
    let mut text = Vec::new();
    for (change, path) in files::changes(&container, &snapshots).map_err(failure)? {
        let letter: &[u8] = match change {
            Change::Added => b"A /",
            Change::Changed => b"C /",
            Change::Deleted => b"D /",
        };
        text.extend([letter, path.as_bytes(), b"\n"].concat());
    }
    ctx.out.bytes(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// `commit`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CommitArgs {
    /// Name, id or beginning of an id
    #[arg(value_name = "CONTAINER")]
    name: String,
    /// Name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    image: Option<Reference>,
    /// Author of the image
    #[arg(short, long, value_name = "TEXT")]
    author: Option<String>,
    /// Apply a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, USER, VOLUME or WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Comment in the history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Freeze the container meanwhile [default: true]
    #[arg(short, long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    pause: Option<Option<bool>>,
    /// Do not freeze the container meanwhile
    #[arg(long)]
    no_pause: bool,
}

/// Makes an image of a container.
pub(in crate::cli) fn commit(args: &CommitArgs, ctx: &Ctx) -> CommandResult {
    let containers = open(ctx)?;
    let container = containers.find(&args.name).map_err(failure)?;
    let (_, snapshots, images) = ctx.open()?;
    let digest: Digest = container.record.image_id.parse()?;
    let base = images.get(&ImageId(digest)).map_err(|error| {
        CliError::from(error).hint("the image of the container is gone; build, load or pull it again")
    })?;
    let pause = !args.no_pause && args.pause.is_none_or(|value| value.unwrap_or(true));
    let frozen = if pause { freeze(&container) } else { None };
    let layer = files::keep_changes(&container, &snapshots).map_err(failure);
    if let Some(client) = frozen {
        let _ = client.unpause();
    }
    let layer = layer?;
    let mut config = base.config.clone();
    container_config(&mut config, &container.record);
    if !args.change.is_empty() {
        change(&mut config, &args.change).map_err(CliError::new)?;
    }
    config.author.clone_from(&args.author);
    let argv: Vec<_> = container.record.config.argv.iter().map(|w| String::from_utf8_lossy(w)).collect();
    let line = History {
        created: Some(time::format(time::now())),
        created_by: Some(argv.join(" ")),
        author: args.author.clone(),
        comment: args.message.clone(),
        empty_layer: layer.is_none(),
    };
    let id = images.assemble(AssembleRequest {
        config,
        history: vec![line],
        layers: layer.into_iter().collect(),
        base: Some(BaseImage { image: base.id.clone(), config: base.config.clone() }),
        epoch: None,
        squash: false,
        annotations: Default::default(),
        names: args.image.clone().into_iter().collect(),
    })?;
    record_event(&containers, &container.record, "commit", &[("imageID", id.to_string())]);
    ctx.out.line(&id.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// Freezes a running container where that is possible; where it is not, the copy is made of what moves.
fn freeze(container: &Container) -> Option<Client> {
    let client = Client::connect(container).ok().filter(|_| container.state.status == Status::Running)?;
    client.pause().ok().map(|()| client)
}

/// Lays what the command line of the container said over the image's config.
fn container_config(config: &mut ImageConfig, record: &Record) {
    let own = &record.config;
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let (entrypoint, command) = own.argv.split_at(own.entrypoint_words.min(own.argv.len()));
    let list = |words: &[Vec<u8>]| (!words.is_empty()).then(|| words.iter().map(text).collect::<Vec<_>>());
    let inner = &mut config.config;
    (inner.entrypoint, inner.cmd) = (list(entrypoint), list(command));
    inner.env = super::inspect::environment(record).iter().map(text).collect();
    inner.user.clone_from(&own.user);
    inner.labels.clone_from(&own.labels);
    if own.workdir != b"/" || !inner.working_dir.is_empty() {
        inner.working_dir = text(&own.workdir);
    }
    for port in &record.network.expose {
        inner.exposed_ports.entry(port.to_string()).or_default();
    }
    if record.health.is_some() {
        inner.healthcheck.clone_from(&record.health);
    }
}

/// `export`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// Name, id or beginning of an id
    #[arg(value_name = "CONTAINER")]
    name: String,
    /// Write to a file, not to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes the files of a container as one tar; volumes are left out.
pub(in crate::cli) fn export(args: &ExportArgs, ctx: &Ctx) -> CommandResult {
    let containers = open(ctx)?;
    let container = containers.find(&args.name).map_err(failure)?;
    if args.output.is_none() && std::io::stdout().is_terminal() {
        return Err(
            CliError::new("cowardly refusing to save to a terminal").hint("use the -o flag or redirect")
        );
    }
    let (_, snapshots, _) = ctx.open()?;
    let root = files::open_root(&container, &containers, &snapshots, b"/").map_err(failure)?;
    let dir = crate::sys::inroot::open_dir_in_root(&root.dir, ".")?;
    let opts = PackOptions { one_file_system: true, hollow: false };
    let write = |out: &mut dyn std::io::Write| archive::pack(dir.as_fd(), &TreePath::root(), b"", opts, out);
    let written = match &args.output {
        Some(path) => std::fs::File::create(path).and_then(|file| write(&mut std::io::BufWriter::new(file))),
        None => write(&mut std::io::BufWriter::new(std::io::stdout().lock())),
    };
    written.map_err(|e| CliError::new(format!("cannot export {}: {e}", args.name)))?;
    record_event(&containers, &container.record, "export", &[]);
    Ok(ExitCode::SUCCESS)
}
