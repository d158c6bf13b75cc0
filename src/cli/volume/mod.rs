//! `rbuild volume`: the commands about volumes, with docker's flags and words.

mod create;
mod list;
mod remove;

pub(super) use list::describe;
pub(super) use remove::prune_volumes;

use super::{CliError, CommandResult, Ctx};
use crate::runtime::RunError;
use crate::runtime::volumes::Volumes;
use crate::store::Store;

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub(super) enum VolumeCommand {
    /// Make a volume
    Create(create::Args),
    /// Show all about volumes
    Inspect(list::InspectArgs),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(list::Args),
    /// Remove volumes that no container uses
    Prune(remove::PruneArgs),
    /// Remove volumes
    #[command(visible_alias = "remove")]
    Rm(remove::Args),
}

/// Runs one of them.
pub(super) fn run(command: &VolumeCommand, ctx: &Ctx) -> CommandResult {
    match command {
        VolumeCommand::Create(args) => create::run(args, ctx),
        VolumeCommand::Inspect(args) => list::inspect(args, ctx),
        VolumeCommand::Ls(args) => list::run(args, ctx),
        VolumeCommand::Prune(args) => remove::prune(args, ctx),
        VolumeCommand::Rm(args) => remove::run(args, ctx),
    }
}

fn open(ctx: &Ctx) -> Result<Volumes, CliError> {
    Ok(Volumes::new(&Store::open(&ctx.root)?))
}

fn failed(error: RunError) -> CliError {
    let hint = error.hint();
    CliError::from_error(&error).with_hint(hint)
}
