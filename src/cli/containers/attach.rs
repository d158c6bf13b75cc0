//! `attach`: back to the streams of a container.

use super::super::run::ended;
use super::{failure, open};
use crate::cli::{CliError, CommandResult, Ctx, talk};
use crate::runtime::signals::Forwarder;
use crate::runtime::{
    Attachment, Client, Container, DetachKeys, RunError, Status, Streams, follow, terminal,
};
use clap::Args;
use std::io::IsTerminal;

/// `attach`.
#[derive(Debug, Args)]
pub(in crate::cli) struct AttachArgs {
    /// Name, id or beginning of an id
    #[arg(value_name = "CONTAINER")]
    name: String,
    /// Leave the input alone
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the container [default: true]
    #[arg(long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    sig_proxy: Option<Option<bool>>,
    /// Keys that leave the container to itself [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
}

/// Attaches until the container ends or the user leaves.
pub(in crate::cli) fn run(args: &AttachArgs, ctx: &Ctx) -> CommandResult {
    let container = open(ctx)?.find(&args.name).map_err(failure)?;
    let record = &container.record;
    match container.state.status {
        Status::Running => {}
        Status::Paused => {
            return Err(CliError::new("You cannot attach to a paused container, unpause it first"));
        }
        Status::Restarting => {
            return Err(CliError::new(
                "You cannot attach to a restarting container, wait until it is running",
            ));
        }
        _ => return Err(CliError::new("You cannot attach to a stopped container, start it first")),
    }
    let detach_keys = DetachKeys::parse(args.detach_keys.as_deref().unwrap_or_default()).map_err(failure)?;
    let sig_proxy = args.sig_proxy.is_none_or(|value| value.unwrap_or(true));
    join(&container, record.interactive && !args.no_stdin, sig_proxy, detach_keys)
}

/// Takes part in a container that runs.
pub(super) fn join(
    container: &Container,
    input: bool,
    sig_proxy: bool,
    detach_keys: DetachKeys,
) -> CommandResult {
    let record = &container.record;
    if input && record.terminal && !std::io::stdin().is_terminal() {
        return Err(failure(RunError::NoTerminal));
    }
    let signals = Forwarder::start().map_err(failure)?;
    let client = Client::connect(container).map_err(failure)?;
    let streams = Streams { stdin: input, stdout: true, stderr: true };
    client.attach(streams, terminal::size()).map_err(failure)?;
    let stop_signal = record.config.stop_signal;
    let how =
        Attachment { terminal: record.terminal, owner: false, input, sig_proxy, stop_signal, detach_keys };
    let parting = follow(&client, &how, Some(&signals), talk).map_err(failure)?;
    drop(signals);
    ended(&parting, record)
}
