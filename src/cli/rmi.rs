//! `rbuild rmi`: takes names and images away.

use super::{CliError, CommandResult, Ctx, happened};
use crate::digest::ImageId;
use crate::image::{ImageUser, Removed};
use crate::runtime::Containers;
use std::process::ExitCode;

/// Removes images by name or ID.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Names, IDs or beginnings of IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Remove an image with several names, or one that a stopped container uses; a missing image is no error
    #[arg(short, long)]
    force: bool,
    /// Accepted for docker's sake; layers stay until they are pruned anyway
    #[arg(long)]
    no_prune: bool,
}

/// Runs the command. Goes on after a failure and fails at the end.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let (store, _, images) = ctx.open()?;
    let containers = Containers::new(&store).list()?;
    let in_use = |id: &ImageId| {
        let users = || containers.iter().filter(|c| c.record.images().any(|image| image == id.to_string()));
        // one that runs counts more
        let user = users().find(|c| c.state.status.is_live()).or_else(|| users().next())?;
        let name = format!("{} container {}", user.state.status, user.record.name);
        Some(ImageUser { name, runs: user.state.status.is_live() })
    };
    let mut failed: Vec<CliError> = Vec::new();
    for name in &args.images {
        let known = images.resolve(name).ok().map(|image| image.shown_id().to_string());
        match images.remove(name, args.force, &in_use) {
            Ok(removed) => {
                tell_removed(&removed, known.as_deref(), ctx);
                ctx.out.text(&removed.iter().map(line).collect::<String>())?;
            }
            Err(crate::image::ImageError::NotFound { .. }) if args.force => {}
            Err(error) => failed.push(error.into()),
        }
    }
    match failed.len() {
        0 => Ok(ExitCode::SUCCESS),
        1 => Err(failed.remove(0)),
        _ => Err(CliError::new(failed.iter().map(|e| e.message.as_str()).collect::<Vec<_>>().join("\n"))),
    }
}

/// Tells `events`; `known` is the id of the image whose names go.
pub(super) fn tell_removed(removed: &[Removed], known: Option<&str>, ctx: &Ctx) {
    for one in removed {
        match one {
            Removed::Untagged(name) => {
                happened::to_image(ctx, "untag", known.unwrap_or_default(), &name.familiar(), None);
            }
            Removed::Deleted(id) => happened::to_image(ctx, "delete", &id.to_string(), &id.to_string(), None),
        }
    }
}

/// Says what was done, as docker does.
pub(super) fn line(removed: &Removed) -> String {
    match removed {
        Removed::Untagged(name) => format!("Untagged: {}\n", name.familiar()),
        Removed::Deleted(id) => format!("Deleted: {id}\n"),
    }
}
