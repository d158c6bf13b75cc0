//! `port`: which port of the host leads to which of the container.

use super::{failure, open};
use crate::cli::{CliError, CommandResult, Ctx};
use clap::Args;
use std::process::ExitCode;

/// `port`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PortArgs {
    /// Name, id or beginning of an id
    #[arg(value_name = "CONTAINER")]
    name: String,
    /// Only this port of the container
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

/// Lists published ports.
pub(in crate::cli) fn run(args: &PortArgs, ctx: &Ctx) -> CommandResult {
    let container = open(ctx)?.find(&args.name).map_err(failure)?;
    let published = container.state.network.published();
    let Some(wanted) = &args.port else {
        for (port, host) in published {
            ctx.out.line(&format!("{port} -> {host}"))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let full = if wanted.contains('/') { wanted.clone() } else { format!("{wanted}/tcp") };
    let found: Vec<_> = published.into_iter().filter(|(port, _)| *port == full).collect();
    if found.is_empty() {
        return Err(CliError::new(format!("no public port '{full}' published for {}", args.name)));
    }
    for (_, host) in found {
        ctx.out.line(&host)?;
    }
    Ok(ExitCode::SUCCESS)
}
