//! `rbuild system`: disk use and clean-up of everything at once.

use super::image_commands::now;
use super::listing::Wanted;
use super::prune::{Filters, cache_text, collector, confirm, images_in_use, images_text};
use super::table::human_size;
use super::{
    CliError, CommandResult, Ctx, containers, happened, info, network, rmi, system_boot, system_check,
    system_df, volume,
};
use crate::gc::PruneRequest;
use std::process::ExitCode;

/// The commands of the group.
#[derive(Debug, clap::Subcommand)]
pub(super) enum SystemCommand {
    /// Start the containers that shall run after a boot, or have the machine do so
    Boot(system_boot::Args),
    /// Verify that everything in the store is what it should be
    Check(system_check::Args),
    /// Show how much disk is used
    Df(system_df::Args),
    /// Show what happens to containers
    Events(containers::events::EventsArgs),
    /// Show what works on this machine, and what is missing
    Info(info::InfoArgs),
    /// Remove what nothing uses
    Prune(PruneArgs),
}

impl SystemCommand {
    /// Whether it may start containers that outlive it.
    pub(super) fn starts(&self) -> bool {
        matches!(self, Self::Boot(_))
    }
}

/// Removes containers that do not run, networks and images that nothing uses, and build cache.
#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// All images that no container uses, and all build cache
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Anonymous volumes that no container uses, too
    #[arg(long)]
    volumes: bool,
    /// Only what fits: until=24h (or a time), label=KEY[=VALUE], label!=KEY[=VALUE]; labels are not for build cache
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Runs one of the group.
pub(super) fn run(command: &SystemCommand, ctx: &Ctx) -> CommandResult {
    match command {
        SystemCommand::Boot(args) => system_boot::run(args, ctx),
        SystemCommand::Check(args) => system_check::run(args, ctx),
        SystemCommand::Df(args) => system_df::run(args, ctx),
        SystemCommand::Events(args) => containers::events::run(args, ctx),
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
    let mut warning = "This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n"
        .to_owned();
    if args.volumes {
        warning.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    warning.push_str(&format!("  - {images}\n  - {cache}\n"));
    if !args.filter.is_empty() {
        warning.push_str("\n  Items to be pruned will be filtered with:\n");
        args.filter.iter().for_each(|filter| warning.push_str(&format!("  - {filter}\n")));
    }
    confirm("system prune", &warning, args.force)?;
    let mut bytes = others(args, &filters, ctx)?;
    let in_use = images_in_use(ctx)?.into_iter().collect();
    let collector = collector(ctx)?;
    let (removed, of_images) = collector.prune_images(&|image| filters.takes(image, args.all, &in_use))?;
    let request = PruneRequest { all: args.all, older_than: filters.until, keep_bytes: None };
    let pruned = collector.prune(&request)?;
    rmi::tell_removed(&removed, None, ctx);
    for (kind, bytes) in [("image", of_images), ("builder", pruned.bytes)] {
        happened::pruned(ctx, kind, bytes);
    }
    ctx.out.text(&images_text(&removed))?;
    ctx.out.text(&cache_text(&pruned))?;
    bytes = bytes.saturating_add(of_images).saturating_add(pruned.bytes);
    ctx.out.line(&format!("Total reclaimed space: {}", human_size(bytes)))?;
    Ok(ExitCode::SUCCESS)
}

/// Removes containers that do not run, then networks and volumes, which they no longer need; gives the bytes.
fn others(args: &PruneArgs, filters: &Filters, ctx: &Ctx) -> Result<u64, CliError> {
    let say = |what: &str, names: &[String]| match names {
        [] => Ok(()),
        _ => ctx.out.text(&format!("Deleted {what}:\n{}\n\n", names.join("\n"))),
    };
    let (gone, mut bytes) = containers::prune::prune(&containers::open(ctx)?, &|container| {
        let created = i64::try_from(container.record.created / 1_000_000_000).unwrap_or(0);
        filters.until.is_none_or(|until| created < until)
            && filters.labels_fit(&container.record.config.labels)
    })?;
    say("Containers", &gone)?;
    let wanted = Wanted::all(&args.filter, &["until", "label", "label!"])?;
    say("Networks", &network::prune_networks(ctx, &wanted)?)?;
    if args.volumes {
        let labels: Vec<Wanted> = wanted.into_iter().filter(|one| one.key != "until").collect();
        let (gone, of_volumes) = volume::prune_volumes(ctx, false, &labels)?;
        say("Volumes", &gone)?;
        bytes = bytes.saturating_add(of_volumes);
    }
    Ok(bytes)
}
