//! `rbuild image prune`: removes images that nothing uses.

use super::image_commands::now;
use super::prune::{Filters, collector, confirm, images_in_use, images_text};
use super::table::human_size;
use super::{CommandResult, Ctx, happened, rmi};
use std::process::ExitCode;

/// Removes images without name, or all that no container runs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// All images that no container uses, not only those without name
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only what fits: until=24h (or a time), label=KEY[=VALUE], label!=KEY[=VALUE], dangling=true|false
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Runs the command.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let filters = Filters::parse(&args.filter, &["until", "label", "dangling"], now())?;
    let warning = match args.all {
        true => "This will remove all images without at least one container associated to them.",
        false => "This will remove all dangling images.",
    };
    confirm("image prune", warning, args.force)?;
    let in_use = images_in_use(ctx)?.into_iter().collect();
    let collector = collector(ctx)?;
    let (removed, bytes) = collector.prune_images(&|image| filters.takes(image, args.all, &in_use))?;
    rmi::tell_removed(&removed, None, ctx);
    happened::pruned(ctx, "image", bytes);
    ctx.out.text(&images_text(&removed))?;
    ctx.out.line(&format!("Total reclaimed space: {}", human_size(bytes)))?;
    Ok(ExitCode::SUCCESS)
}
