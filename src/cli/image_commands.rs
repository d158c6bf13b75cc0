//! The commands about images as one group, and what they share.

use super::template::Template;
use super::{
    CliError, CommandResult, Ctx, build, history, image_prune, images, import, inspect, load, registry, rmi,
    save, table, tag,
};
use crate::image::Images;
use crate::progress::printable;
use clap::Subcommand;
use serde_json::Value;

/// The commands about images.
#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    /// List images
    Images(images::Args),
    /// Give an image one more name
    Tag(tag::Args),
    /// Remove images
    Rmi(rmi::Args),
    /// Tell all about an image, as JSON
    Inspect(inspect::Args),
    /// Show how an image came about
    History(history::Args),
    /// Write images into an archive
    Save(save::Args),
    /// Load images from an archive
    Load(load::Args),
    /// Make a base image of a root file system tar
    Import(import::Args),
    /// Bring an image from a registry
    Pull(registry::pull::Args),
    /// Bring an image into its registry
    Push(registry::push::Args),
}

/// Runs one of them.
pub(super) fn run(command: &ImageCommand, ctx: &Ctx) -> CommandResult {
    match command {
        ImageCommand::Images(args) => images::run(args, ctx),
        ImageCommand::Tag(args) => tag::run(args, ctx),
        ImageCommand::Rmi(args) => rmi::run(args, ctx),
        ImageCommand::Inspect(args) => inspect::run(args, ctx),
        ImageCommand::History(args) => history::run(args, ctx),
        ImageCommand::Save(args) => save::run(args, ctx),
        ImageCommand::Load(args) => load::run(args, ctx),
        ImageCommand::Import(args) => import::run(args, ctx),
        ImageCommand::Pull(args) => registry::pull::run(args, ctx),
        ImageCommand::Push(args) => registry::push::run(args, ctx),
    }
}

/// The same under their names in the group, `rbuild image ...`.
#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// Build an image from a Dockerfile
    Build(Box<build::BuildArgs>),
    /// Show how an image came about
    History(history::Args),
    /// Make a base image of a root file system tar
    Import(import::Args),
    /// Tell all about an image, as JSON
    Inspect(inspect::Args),
    /// Load images from an archive
    Load(load::Args),
    /// List images
    #[command(visible_alias = "list")]
    Ls(images::Args),
    /// Remove images that nothing uses
    Prune(image_prune::Args),
    /// Bring an image from a registry
    Pull(registry::pull::Args),
    /// Bring an image into its registry
    Push(registry::push::Args),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(rmi::Args),
    /// Write images into an archive
    Save(save::Args),
    /// Give an image one more name
    Tag(tag::Args),
}

/// Runs one of the group.
pub(super) fn run_group(command: &GroupCommand, ctx: &Ctx) -> CommandResult {
    match command {
        GroupCommand::Build(args) => build::run(args, ctx),
        GroupCommand::History(args) => history::run(args, ctx),
        GroupCommand::Import(args) => import::run(args, ctx),
        GroupCommand::Inspect(args) => inspect::run_image(args, ctx),
        GroupCommand::Load(args) => load::run(args, ctx),
        GroupCommand::Ls(args) => images::run(args, ctx),
        GroupCommand::Prune(args) => image_prune::run(args, ctx),
        GroupCommand::Pull(args) => registry::pull::run(args, ctx),
        GroupCommand::Push(args) => registry::push::run(args, ctx),
        GroupCommand::Rm(args) => rmi::run(args, ctx),
        GroupCommand::Save(args) => save::run(args, ctx),
        GroupCommand::Tag(args) => tag::run(args, ctx),
    }
}

/// Opens the images of the store.
pub(super) fn open(ctx: &Ctx) -> Result<Images, CliError> {
    let (_, _, images) = ctx.open()?;
    Ok(images)
}

/// Says something in passing on standard error.
pub(super) fn note(text: &str) {
    super::talk(&format!("note: {}\n", printable(text.as_bytes())));
}

/// Gives the seconds since the epoch.
pub(super) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(0))
}

/// Reads SOURCE_DATE_EPOCH, in seconds; empty counts as not set.
pub(super) fn source_date_epoch() -> Result<Option<i64>, CliError> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => {
            let bad = || CliError::new(format!("SOURCE_DATE_EPOCH={text}: expected seconds since 1970"));
            text.parse().map(Some).map_err(|_| bad())
        }
        _ => Ok(None),
    }
}

/// Fills a template in for each row; a table gets a head line and even columns. `of` is docker's name for a row, for errors.
pub(super) fn list_with(
    template: &Template,
    rows: &[Value],
    title: &dyn Fn(&str) -> String,
    of: &str,
) -> Result<String, CliError> {
    let mut lines: Vec<String> =
        rows.iter().map(|row| template.render_row(row, of)).collect::<Result<_, _>>()?;
    if !template.table {
        return Ok(lines.iter().map(|line| format!("{line}\n")).collect());
    }
    lines.insert(0, template.head(title));
    let lines = lines.iter().flat_map(|line| line.split('\n'));
    let cells: Vec<Vec<String>> = lines.map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    Ok(table::table(&cells))
}
