//! `rbuild pull`: images from registries.

use super::{client, interrupted, progress, registry_error, stopping, transfer_error};
use crate::cli::{CliError, CommandResult, Ctx, happened};
use crate::image::Images;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::Store;
use crate::transfer::{Pull, Pulled};
use std::process::ExitCode;

/// What is said of an interrupted pull.
const KEPT: &str = "layers that had come whole are kept, and need not come again";

/// Brings an image from a registry.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The image: name, with tag or digest
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
    /// All tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Print the name and nothing else
    #[arg(short, long)]
    quiet: bool,
    /// Take the image for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", env = "DOCKER_DEFAULT_PLATFORM")]
    platform: Option<Platform>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    disable_content_trust: Option<String>,
}

/// Runs the command.
pub(in crate::cli) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let name: Reference = args.name.parse()?;
    let client = client(ctx)?;
    let (store, _, images) = ctx.open()?;
    let (sink, live) = progress(args.quiet, "Pulling");
    let (stop, interrupt) = stopping()?;
    let images = images.until(&stop);
    let platform = args.platform.as_ref();
    let pull = Pull { client: &client, store: &store, images: &images, platform, sink, stop: &stop };
    let names = match args.all_tags {
        false => vec![name],
        true if has_suffix(&args.name) => {
            return Err(CliError::new(format!(
                "{}: --all-tags goes with a name without tag or digest",
                args.name
            )));
        }
        true => {
            let tags = client.tags(&name).map_err(|e| registry_error(&e))?;
            tags.iter().map(|t| name.with_tag(t)).collect::<Result<_, _>>()?
        }
    };
    for name in &names {
        if !args.quiet {
            let which = name.digest().map(ToString::to_string).or_else(|| name.tag().map(str::to_owned));
            ctx.out.line(&format!("{}: Pulling from {}", which.unwrap_or_default(), name.repository()))?;
        }
        let pulled = pull.image(name);
        let pulled =
            pulled.map_err(|e| interrupted(&interrupt, KEPT).unwrap_or_else(|| transfer_error(&e)))?;
        happened::to_image(ctx, "pull", &name.familiar(), &name.familiar_name(), None);
        tell(name, &pulled, args.quiet, ctx)?;
    }
    drop(live);
    Ok(ExitCode::SUCCESS)
}

fn tell(name: &Reference, pulled: &Pulled, quiet: bool, ctx: &Ctx) -> Result<(), CliError> {
    if !quiet {
        ctx.out.line(&format!("Digest: {}", pulled.digest))?;
        let what = if pulled.up_to_date { "Image is up to date" } else { "Downloaded newer image" };
        ctx.out.line(&format!("Status: {what} for {}", name.familiar()))?;
    }
    ctx.out.line(&name.to_string())
}

/// Whether a tag or digest was written.
pub(super) fn has_suffix(text: &str) -> bool {
    text.rsplit('/').next().is_some_and(|last| last.contains([':', '@']))
}

/// Brings an image that a command needs, with its progress on standard error.
pub(in crate::cli) fn bring(
    name: &Reference,
    platform: Option<&Platform>,
    store: &Store,
    images: &Images,
    ctx: &Ctx,
) -> Result<Pulled, CliError> {
    let client = client(ctx)?;
    let (sink, live) = progress(false, "Pulling");
    let pull = Pull { client: &client, store, images, platform, sink, stop: images.stop() };
    let pulled = pull.image(name).map_err(|e| transfer_error(&e));
    drop(live);
    if pulled.is_ok() {
        happened::to_image(ctx, "pull", &name.familiar(), &name.familiar_name(), None);
    }
    pulled
}
