//! `rbuild volume create`.

use super::super::listing::pairs;
use super::super::{CliError, CommandResult, Ctx};
use super::{failed, open};
use crate::runtime::VolumeName;
use std::process::ExitCode;

/// Makes a volume.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Its name [default: a random one]
    #[arg(value_name = "VOLUME", conflicts_with = "name")]
    volume: Option<String>,
    /// Its name, in docker's old way
    #[arg(long, hide = true)]
    name: Option<String>,
    /// Driver; there is one
    #[arg(short, long, default_value = "local", value_name = "DRIVER")]
    driver: String,
    /// Label of the volume
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// What holds its files, if not the store: type=tmpfs with o=size=64m, or type=none, o=bind and device=PATH
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
}

/// Runs the command and prints the name.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    if args.driver != "local" {
        return Err(CliError::new(format!("--driver {}: there is only local", args.driver)));
    }
    let name = args.volume.as_ref().or(args.name.as_ref()).map(|name| {
        VolumeName::parse(name.as_bytes()).ok_or_else(|| {
            CliError::new(format!(
                "create {name}: {name:?} includes invalid characters for a local volume name, only \
                 \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed, two or more of them"
            ))
            .hint("if you intended to pass a host directory, use an absolute path with run -v")
        })
    });
    let made = open(ctx)?.create(name.transpose()?, pairs(&args.label), pairs(&args.opt)).map_err(failed)?;
    ctx.out.line(&made.name)?;
    Ok(ExitCode::SUCCESS)
}
