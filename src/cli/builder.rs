//! `rbuild builder`: building, and looking after the build cache.

use super::image_commands::now;
use super::prune::{Filters, cache_text, collector, confirm};
use super::table::human_size;
use super::{CommandResult, Ctx, build, values};
use crate::gc::PruneRequest;
use std::process::ExitCode;

/// The commands of the group.
#[derive(Debug, clap::Subcommand)]
pub(super) enum BuilderCommand {
    /// Build an image from a Dockerfile
    Build(Box<build::BuildArgs>),
    /// Remove build cache
    Prune(PruneArgs),
}

/// Removes build cache: what no image, container or running build uses.
#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// Also cache mounts and what is known of the steps of images: the next build runs everything
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only what was last used before: until=24h, or a time
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Remove the longest unused only, until no more than this is left, for example 10GB
    #[arg(long, value_name = "BYTES", visible_aliases = ["max-used-space", "reserved-space"])]
    keep_storage: Option<String>,
}

/// Runs one of the group.
pub(super) fn run(command: &BuilderCommand, ctx: &Ctx) -> CommandResult {
    match command {
        BuilderCommand::Build(args) => build::run(args, ctx),
        BuilderCommand::Prune(args) => prune(args, ctx),
    }
}

fn prune(args: &PruneArgs, ctx: &Ctx) -> CommandResult {
    let filters = Filters::parse(&args.filter, &["until"], now())?;
    let keep_bytes =
        args.keep_storage.as_deref().map(|text| values::bytes("--keep-storage", text)).transpose()?;
    let warning = match args.all {
        true => "This will remove all build cache.",
        false => "This will remove all dangling build cache.",
    };
    confirm("build cache prune", warning, args.force)?;
    let request = PruneRequest { all: args.all, older_than: filters.until, keep_bytes };
    let pruned = collector(ctx)?.prune(&request)?;
    ctx.out.text(&cache_text(&pruned))?;
    ctx.out.line(&format!("Total reclaimed space: {}", human_size(pruned.bytes)))?;
    Ok(ExitCode::SUCCESS)
}
