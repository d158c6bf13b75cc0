//! `rbuild volume rm` and `volume prune`.

use super::super::listing::{Wanted, finish};
use super::super::prune::confirm;
use super::super::table::human_size;
use super::super::{CliError, CommandResult, Ctx, happened};
use super::{failed, open};
use crate::runtime::RunError;
use std::process::ExitCode;

/// Removes volumes.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
    /// A volume that is not there is no error; one in use stays all the same
    #[arg(short, long)]
    force: bool,
}

/// Removes volumes that no container uses.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PruneArgs {
    /// Those with a name too, not only the anonymous ones
    #[arg(short, long)]
    all: bool,
    /// Only what fits: label=KEY[=VALUE], label!=KEY[=VALUE], all=true|false
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Runs `volume rm`. Goes on after a failure and fails at the end.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let volumes = open(ctx)?;
    let mut bad = Vec::new();
    for name in &args.names {
        match volumes.remove(name) {
            Ok(()) => ctx.out.line(name)?,
            Err(RunError::NoVolume(_)) if args.force => ctx.out.line(name)?,
            Err(error) => bad.push(failed(error)),
        }
    }
    finish(bad)
}

/// Runs `volume prune`.
pub(super) fn prune(args: &PruneArgs, ctx: &Ctx) -> CommandResult {
    let wanted = Wanted::all(&args.filter, &["label", "label!", "all"])?;
    let mut all = args.all;
    for one in wanted.iter().filter(|one| one.key == "all") {
        all = one.truth()?;
    }
    let kind = if all { "all" } else { "anonymous" };
    let warning = format!("This will remove {kind} local volumes not used by at least one container.");
    confirm("volume prune", &warning, args.force)?;
    let (gone, bytes) = prune_volumes(ctx, all, &wanted)?;
    happened::pruned(ctx, "volume", bytes);
    if !gone.is_empty() {
        ctx.out.text(&format!("Deleted Volumes:\n{}\n\n", gone.join("\n")))?;
    }
    ctx.out.line(&format!("Total reclaimed space: {}", human_size(bytes)))?;
    Ok(ExitCode::SUCCESS)
}

/// Removes the volumes that fit and that no container uses; gives their names and the bytes that they took.
pub(in crate::cli) fn prune_volumes(
    ctx: &Ctx,
    named_too: bool,
    wanted: &[Wanted],
) -> Result<(Vec<String>, u64), CliError> {
    let volumes = open(ctx)?;
    volumes.sweep().map_err(failed)?;
    let users = volumes.users().map_err(failed)?;
    let (mut gone, mut bytes) = (Vec::new(), 0_u64);
    for info in volumes.list().map_err(failed)? {
        let fits = wanted.iter().all(|one| match one.key.as_str() {
            "label" => one.fits(&info.labels),
            "label!" => !one.fits(&info.labels),
            _ => true,
        });
        if !fits || users.contains_key(&info.name) || !(named_too || info.anonymous) {
            continue;
        }
        let size = volumes.size(&info.name);
        match volumes.remove(&info.name) {
            Ok(()) => {
                gone.push(info.name);
                bytes = bytes.saturating_add(size);
            }
            // a container came meanwhile, or another command was faster
            Err(RunError::VolumeInUse { .. } | RunError::NoVolume(_)) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok((gone, bytes))
}
