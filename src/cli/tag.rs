//! `rbuild tag`: one more name for an image.

use super::image_commands::open;
use super::{CliError, CommandResult, Ctx, happened};
use crate::reference::Reference;
use std::process::ExitCode;

/// Gives an image one more name.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The image: a name, an ID or the beginning of one
    #[arg(value_name = "IMAGE")]
    source: String,
    /// The new name
    #[arg(value_name = "NAME[:TAG]")]
    target: String,
}

/// Runs the command.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let target: Reference =
        args.target.parse().map_err(|e: crate::reference::ParseReferenceError| CliError::from_error(&e))?;
    let images = open(ctx)?;
    let image = images.resolve(&args.source)?;
    images.tag(&image, &target)?;
    happened::to_image(ctx, "tag", &image.shown_id().to_string(), &target.familiar(), Some(&image));
    Ok(ExitCode::SUCCESS)
}
