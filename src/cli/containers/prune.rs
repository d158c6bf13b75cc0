//! `container prune`: removes what does not run.

use super::super::prune::{Filters, confirm};
use super::super::table::human_size;
use super::{open, remove};
use crate::cli::image_commands::now;
use crate::cli::{CommandResult, Ctx, happened};
use crate::runtime::{Container, Containers, Status};
use clap::Args;
use std::process::ExitCode;

/// `container prune`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only what fits: until=24h (or a time), label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Removes all containers that do not run.
pub(in crate::cli) fn run(args: &PruneArgs, ctx: &Ctx) -> CommandResult {
    let filters = Filters::parse(&args.filter, &["until", "label"], now())?;
    confirm("container prune", "This will remove all stopped containers.", args.force)?;
    let (removed, bytes) = prune(&open(ctx)?, &|container| {
        let created = i64::try_from(container.record.created / 1_000_000_000).unwrap_or(0);
        filters.until.is_none_or(|until| created < until)
            && filters.labels_fit(&container.record.config.labels)
    })?;
    happened::pruned(ctx, "container", bytes);
    if !removed.is_empty() {
        ctx.out.text(&format!("Deleted Containers:\n{}\n\n", removed.join("\n")))?;
    }
    ctx.out.line(&format!("Total reclaimed space: {}", human_size(bytes)))?;
    Ok(ExitCode::SUCCESS)
}

/// Removes those that do not run and that `fits` agrees to; gives their ids and the bytes of what they had written.
pub(in crate::cli) fn prune(
    containers: &Containers,
    fits: &dyn Fn(&Container) -> bool,
) -> Result<(Vec<String>, u64), crate::cli::CliError> {
    let (mut removed, mut bytes) = (Vec::new(), 0u64);
    let all = containers.list().map_err(super::failure)?;
    let idle = |c: &Container| matches!(c.state.status, Status::Created | Status::Exited | Status::Dead);
    for container in all.into_iter().filter(|c| idle(c) && fits(c)) {
        let (id, size) = (container.record.id.to_string(), super::ps::written(&container));
        // one that somebody starts at this moment stays
        if !containers.is_starting(&container.record.id)
            && remove::remove(containers, container, false, false).is_ok()
        {
            removed.push(id);
            bytes = bytes.saturating_add(size);
        }
    }
    Ok((removed, bytes))
}
