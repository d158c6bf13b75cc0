//! `rbuild network`: the commands about networks, with docker's flags and words.

mod connect;
mod create;
mod list;
mod remove;

pub(super) use list::describe;
pub(super) use remove::prune_networks;

use super::network_flags::{PlaceFlags, refused};
use super::{CliError, CommandResult, Ctx};
use crate::network::NetEnv;
use crate::runtime::network::networks;
use crate::sandbox::rootless;
use std::path::PathBuf;

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub(super) enum NetworkCommand {
    /// Put a container into a network, also while it runs
    Connect(connect::ConnectArgs),
    /// Take a container out of a network, also while it runs
    Disconnect(connect::DisconnectArgs),
    /// Make a network
    Create(create::Args),
    /// Show all about networks
    Inspect(list::InspectArgs),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(list::Args),
    /// Remove networks that no running container is in
    Prune(remove::PruneArgs),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(remove::Args),
}

/// Runs one of them.
pub(super) fn run(command: &NetworkCommand, ctx: &Ctx) -> CommandResult {
    match command {
        NetworkCommand::Connect(args) => connect::connect(args, ctx),
        NetworkCommand::Disconnect(args) => connect::disconnect(args, ctx),
        NetworkCommand::Create(args) => create::run(args, ctx),
        NetworkCommand::Inspect(args) => list::inspect(args, ctx),
        NetworkCommand::Ls(args) => list::run(args, ctx),
        NetworkCommand::Prune(args) => remove::prune(args, ctx),
        NetworkCommand::Rm(args) => remove::run(args, ctx),
    }
}

/// Where networks are kept, and the host that they are on.
fn place(ctx: &Ctx) -> Result<(PathBuf, NetEnv), CliError> {
    let (store, ..) = ctx.open()?;
    Ok((networks(&store), NetEnv::new(rootless::state().is_some())))
}
