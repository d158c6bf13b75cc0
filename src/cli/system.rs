//! `rbuild system`: disk use and clean-up of everything at once.

use super::image_commands::now;
use super::prune::{Filters, cache_text, collector, confirm, images_in_use, images_text};
use super::table::human_size;
use super::{CommandResult, Ctx, info, system_df};
use crate::gc::PruneRequest;
use std::process::ExitCode;

/// The commands of the group.
#[derive(Debug, clap::Subcommand)]
pub(super) enum SystemCommand {
    /// Show how much disk is used
    Df(system_df::Args),
    /// Show what works on this machine, and what is missing
    Info(info::InfoArgs),
    /// Remove what nothing uses
    Prune(PruneArgs),
}

/// Removes images that nothing uses, and build cache.
#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// All images that no container uses, and all build cache
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only what fits: until=24h (or a time), label=KEY[=VALUE], label!=KEY[=VALUE]; labels are for images
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Runs one of the group.
pub(super) fn run(command: &SystemCommand, ctx: &Ctx) -> CommandResult {
    match command {
        SystemCommand::Df(args) => system_df::run(args, ctx),
        SystemCommand::Info(args) => info::run(args, ctx),
        SystemCommand::Prune(args) => prune(args, ctx),
    }
}

fn prune(args: &PruneArgs, ctx: &Ctx) -> CommandResult {
    let filters = Filters::parse(&args.filter, &["until", "label"], now())?;
    let (images, cache) = match args.all {
        true => ("all images without at least one container associated to them", "all build cache"),
        false => ("all dangling images", "unused build cache"),
    };
    let mut warning = format!("This will remove:\n  - {images}\n  - {cache}\n");
    if !args.filter.is_empty() {
        warning.push_str("\n  Items to be pruned will be filtered with:\n");
        args.filter.iter().for_each(|filter| warning.push_str(&format!("  - {filter}\n")));
    }
    confirm("system prune", &warning, args.force)?;
    let in_use = images_in_use(ctx)?.into_iter().collect();
    let collector = collector(ctx)?;
    let (removed, bytes) = collector.prune_images(&|image| filters.takes(image, args.all, &in_use))?;
    let request = PruneRequest { all: args.all, older_than: filters.until, keep_bytes: None };
    let pruned = collector.prune(&request)?;
    ctx.out.text(&images_text(&removed))?;
    ctx.out.text(&cache_text(&pruned))?;
    ctx.out.line(&format!("Total reclaimed space: {}", human_size(bytes.saturating_add(pruned.bytes))))?;
    Ok(ExitCode::SUCCESS)
}
