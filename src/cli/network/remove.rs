//! `rbuild network rm` and `network prune`.

use super::super::listing::{Wanted, finish};
use super::super::prune::{confirm, until};
use super::super::{CliError, CommandResult, Ctx, happened};
use super::{place, refused};
use crate::image::parse_time;
use crate::network::{Definitions, Lives, NetworkError, remove_network, sweep_networks};
use std::process::ExitCode;

/// Removes networks.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
    /// A network that is not there is no error
    #[arg(short, long)]
    force: bool,
}

/// Removes networks that no running container is in.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PruneArgs {
    /// Only what fits: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Runs `network rm`. Goes on after a failure and fails at the end.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let (dir, env) = place(ctx)?;
    let mut failed = Vec::new();
    for name in &args.names {
        let found = Definitions::new(&dir).find(name).ok();
        match remove_network(&dir, &env, name) {
            Ok(()) => {
                if let Some(found) = &found {
                    happened::to_network(ctx, "destroy", &found.id, &found.name, None);
                }
                ctx.out.line(name)?;
            }
            Err(NetworkError::NotFound { .. }) if args.force => {}
            Err(error) => failed.push(refused(error)),
        }
    }
    finish(failed)
}

/// Runs `network prune`.
pub(super) fn prune(args: &PruneArgs, ctx: &Ctx) -> CommandResult {
    let wanted = Wanted::all(&args.filter, &["until", "label", "label!"])?;
    let warning = "This will remove all custom networks not used by at least one container.";
    confirm("network prune", warning, args.force)?;
    let gone = prune_networks(ctx, &wanted)?;
    happened::pruned(ctx, "network", 0);
    if !gone.is_empty() {
        ctx.out.text(&format!(
            "Deleted Networks:\n{}\n",
            gone.iter().map(|n| format!("{n}\n")).collect::<String>()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes the networks that fit and that nobody is in; gives their names.
pub(in crate::cli) fn prune_networks(ctx: &Ctx, wanted: &[Wanted]) -> Result<Vec<String>, CliError> {
    let now = super::super::image_commands::now();
    let (dir, env) = place(ctx)?;
    sweep_networks(&dir, &env).map_err(refused)?;
    let lives = Lives::new(&dir).all();
    let mut gone = Vec::new();
    for network in Definitions::new(&dir).all().map_err(refused)? {
        let mut goes = lives.iter().all(|live| live.endpoint(&network.id).is_none());
        for one in wanted {
            goes &= match one.key.as_str() {
                "label" => one.fits(&network.labels),
                "label!" => !one.fits(&network.labels),
                _ => {
                    let limit = until(&one.value, now).map_err(CliError::new)?;
                    parse_time(&network.created).is_some_and(|created| created < limit)
                }
            };
        }
        if !goes {
            continue;
        }
        match remove_network(&dir, &env, &network.id) {
            Ok(()) => {
                happened::to_network(ctx, "destroy", &network.id, &network.name, None);
                gone.push(network.name);
            }
            // a container came meanwhile, or another command was faster
            Err(NetworkError::InUse { .. } | NetworkError::NotFound { .. }) => {}
            Err(error) => return Err(refused(error)),
        }
    }
    Ok(gone)
}
