//! `rbuild volume ls` and `volume inspect`.

use super::super::inspect::{Described, finish};
use super::super::listing::{Look, Wanted, labels_text, pass};
use super::super::{CliError, CommandResult, Ctx};
use super::{failed, open};
use crate::runtime::RunError;
use crate::runtime::volumes::{VolumeInfo, Volumes};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Lists volumes.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Only what fits: name=, driver=, label=KEY[=VALUE], dangling=true|false
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    look: Look,
}

/// Shows all about volumes.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InspectArgs {
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
    /// Print with a template, or as json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

fn title(field: &str) -> String {
    match field {
        "Name" => "VOLUME NAME".into(),
        other => other.to_uppercase(),
    }
}

fn row(volumes: &Volumes, info: &VolumeInfo, used: usize) -> Value {
    json!({
        "Driver": "local", "Name": info.name, "Labels": labels_text(&info.labels), "LabelMap": info.labels, "Scope": "local",
        "Mountpoint": volumes.data(&info.name).display().to_string(), "Links": used.to_string(),
        "Availability": "N/A", "Group": "N/A", "Size": "N/A", "Status": "N/A",
    })
}

/// Runs `volume ls`.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let wanted = Wanted::all(&args.filter, &["name", "driver", "label", "dangling"])?;
    let volumes = open(ctx)?;
    let users = volumes.users().map_err(failed)?;
    let mut rows = Vec::new();
    for info in volumes.list().map_err(failed)? {
        let used = users.get(&info.name).map_or(0, Vec::len);
        let fits = |one: &Wanted| {
            Ok(match one.key.as_str() {
                "name" => info.name.contains(&one.value),
                "driver" => one.value == "local",
                "label" => one.fits(&info.labels),
                _ => (used == 0) == one.truth()?,
            })
        };
        if pass(&wanted, &fits)? {
            rows.push(row(&volumes, &info, used));
        }
    }
    // docker shows the driver first but prints names with --quiet
    args.look.print_with(ctx, &rows, &["Driver", "Name"], "Name", &title, "*formatter.volumeContext")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `volume inspect`.
pub(super) fn inspect(args: &InspectArgs, ctx: &Ctx) -> CommandResult {
    let described = args.names.iter().map(|name| describe(name, ctx)).collect::<Result<_, _>>()?;
    finish(described, args.format.as_deref(), ctx)
}

/// Describes a volume in the terms of `docker volume inspect`.
pub(in crate::cli) fn describe(name: &str, ctx: &Ctx) -> Result<Described, CliError> {
    let volumes = open(ctx)?;
    Ok(match volumes.get(name) {
        Ok(Some(info)) => Described::Found(json!({
            "CreatedAt": info.created, "Driver": "local", "Labels": info.labels,
            "Mountpoint": volumes.data(&info.name).display().to_string(), "Name": info.name,
            "Options": info.options, "Scope": "local",
        })),
        Ok(None) => Described::Missing(failed(RunError::NoVolume(name.to_owned())).message),
        Err(error) => Described::Missing(failed(error).message),
    })
}
