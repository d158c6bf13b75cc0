//! `rbuild push`: images to registries.

use super::pull::has_suffix;
use super::{client, interrupted, progress, stopping, transfer_error};
use crate::cli::{CliError, CommandResult, Ctx, happened};
use crate::image::{ExportOptions, Image, Images};
use crate::interrupt::Stop;
use crate::layer::Compression;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Client, Upload};
use crate::transfer::{Push, Pushed};
use std::process::ExitCode;

/// What is said of an interrupted push.
const KEPT: &str = "layers that had been sent whole need not be sent again";

/// Brings an image into its registry.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The image; its name says which registry and repository
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
    /// All tags that the repository has here
    #[arg(short, long)]
    all_tags: bool,
    /// Print the name and nothing else
    #[arg(short, long)]
    quiet: bool,
    /// How layers that were built here are compressed: gzip, zstd or uncompressed
    #[arg(long, value_name = "KIND", visible_alias = "compression-format", default_value = "gzip")]
    compression: String,
    /// From fast to small: gzip 0 to 9, zstd 0 to 22
    #[arg(long, value_name = "LEVEL")]
    compression_level: Option<i32>,
    /// Compress layers of base images anew, too
    #[arg(long)]
    force_compression: bool,
    /// Of an image for several platforms push only the one for this [default: all, and their index]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    disable_content_trust: Option<String>,
}

/// Runs the command.
pub(in crate::cli) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let name: Reference = args.name.parse()?;
    if name.digest().is_some() {
        return Err(CliError::new(format!(
            "{}: a digest is what comes out of a push; name a tag",
            args.name
        )));
    }
    let compression = crate::image::compression(Some(&args.compression), args.compression_level);
    let options = ExportOptions {
        compression: compression.map_err(CliError::new)?.or(Some(Compression::Gzip(6))),
        force_compression: args.force_compression,
        ..ExportOptions::default()
    };
    let client = client(ctx)?;
    let (_, _, images) = ctx.open()?;
    let (stop, interrupt) = stopping()?;
    let images = images.until(&stop);
    let names = match args.all_tags {
        false => vec![name],
        true if has_suffix(&args.name) => {
            return Err(CliError::new(format!("{}: --all-tags goes with a name without tag", args.name)));
        }
        true => all_tags(&name, &images)?,
    };
    for name in &names {
        let image = images.resolve_for(&name.to_string(), args.platform.as_ref())?;
        let pushed = push(&image, name, &client, &options, args.quiet, &images, &stop, ctx);
        pushed.map_err(|error| interrupted(&interrupt, KEPT).unwrap_or(error))?;
        happened::to_image(ctx, "push", &name.familiar(), &name.familiar_name(), Some(&image));
    }
    Ok(ExitCode::SUCCESS)
}

/// Pushes one image and says so on standard output.
#[expect(clippy::too_many_arguments, reason = "what a push needs comes from all over the command line")]
fn push(
    image: &Image,
    name: &Reference,
    client: &Client,
    options: &ExportOptions,
    quiet: bool,
    images: &Images,
    stop: &Stop,
    ctx: &Ctx,
) -> Result<(), CliError> {
    if !quiet {
        ctx.out.line(&format!("The push refers to repository [{}]", name.name()))?;
    }
    let pushed = send(image, name, client, options, false, quiet, images, stop)?;
    if quiet {
        return ctx.out.line(&name.to_string());
    }
    for (layer, how) in &pushed.layers {
        let how = match how {
            Upload::Present => "Layer already exists",
            Upload::Mounted => "Mounted from another repository",
            Upload::Sent => "Pushed",
        };
        ctx.out.line(&format!("{}: {how}", layer.digest.short()))?;
    }
    let (tag, to) = (name.tag().unwrap_or_default(), &pushed.descriptor);
    ctx.out.line(&format!("{tag}: digest: {} size: {}", to.digest, to.size))
}

/// Pushes one image with progress on standard error.
#[expect(clippy::too_many_arguments, reason = "what a push needs comes from all over the command line")]
pub(in crate::cli) fn send(
    image: &Image,
    name: &Reference,
    client: &Client,
    options: &ExportOptions,
    by_digest: bool,
    quiet: bool,
    images: &Images,
    stop: &Stop,
) -> Result<Pushed, CliError> {
    let (sink, live) = progress(quiet, "Pushing");
    let push = Push { client, images, options, by_digest, sink, stop };
    let pushed = push.image(image, name).map_err(|e| transfer_error(&e));
    drop(live);
    pushed
}

fn all_tags(name: &Reference, images: &Images) -> Result<Vec<Reference>, CliError> {
    let listing = images.list()?;
    let all = listing.images.iter().flat_map(|image| &image.names);
    let mut tags: Vec<Reference> =
        all.filter(|n| n.name() == name.name() && n.digest().is_none()).cloned().collect();
    tags.sort();
    if tags.is_empty() {
        return Err(CliError::new(format!("no image here has a name in {}", name.familiar_name())));
    }
    Ok(tags)
}
