//! `rbuild manifest`: images for several platforms under one name.

use super::{client, registry_error, transfer_error};
use crate::cli::{CliError, CommandResult, Ctx};
use crate::reference::Reference;
use crate::store::Store;
use crate::transfer::{Bundle, TransferError};
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// The commands about indexes.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ManifestCommand {
    /// Begin a list of images of registries
    Create(CreateArgs),
    /// Print a list that was begun, or what a registry has under a name
    Inspect(InspectArgs),
    /// Say which platform an image in a list is for
    Annotate(AnnotateArgs),
    /// Bring a list into its registry, with the images that its repository lacks
    Push(PushArgs),
    /// Forget lists that were begun
    Rm(RmArgs),
}

/// Arguments of `manifest create`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CreateArgs {
    /// Name of the list
    #[arg(value_name = "LIST")]
    list: Reference,
    /// Images in registries; of one for several platforms all are taken
    #[arg(value_name = "NAME", required = true)]
    images: Vec<Reference>,
    /// Add to a list that was begun before
    #[arg(short, long)]
    amend: bool,
}

/// Arguments of `manifest inspect`.
#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArgs {
    /// Name of a list or image
    #[arg(value_name = "NAME")]
    name: Reference,
    /// Say media type, digest and size, too
    #[arg(short, long)]
    verbose: bool,
}

/// Arguments of `manifest annotate`.
#[derive(Debug, Args)]
pub(in crate::cli) struct AnnotateArgs {
    /// Name of the list
    #[arg(value_name = "LIST")]
    list: Reference,
    /// The image in it
    #[arg(value_name = "NAME")]
    image: Reference,
    /// Architecture, for example arm64
    #[arg(long)]
    arch: Option<String>,
    /// Operating system, for example linux
    #[arg(long)]
    os: Option<String>,
    /// Variant, for example v7
    #[arg(long)]
    variant: Option<String>,
}

/// Arguments of `manifest push`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PushArgs {
    /// Name of the list
    #[arg(value_name = "LIST")]
    list: Reference,
    /// Forget the list afterwards
    #[arg(short, long)]
    purge: bool,
}

/// Arguments of `manifest rm`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RmArgs {
    /// Names of lists
    #[arg(value_name = "LIST", required = true)]
    lists: Vec<Reference>,
}

/// Runs one of them.
pub(in crate::cli) fn run(command: &ManifestCommand, ctx: &Ctx) -> CommandResult {
    let (store, _, _) = ctx.open()?;
    match command {
        ManifestCommand::Create(args) => create(args, &store, ctx)?,
        ManifestCommand::Inspect(args) => inspect(args, &store, ctx)?,
        ManifestCommand::Annotate(args) => annotate(args, &store)?,
        ManifestCommand::Push(args) => {
            let bundle = begun(&store, &args.list)?;
            let digest = bundle.push(&client(ctx)?).map_err(|e| transfer_error(&e))?;
            if args.purge {
                Bundle::remove(&store, &args.list).map_err(|e| transfer_error(&e))?;
            }
            ctx.out.line(&digest.to_string())?;
        }
        ManifestCommand::Rm(args) => {
            for list in &args.lists {
                if !Bundle::remove(&store, list).map_err(|e| transfer_error(&e))? {
                    return Err(missing(list));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn missing(list: &Reference) -> CliError {
    CliError::new(format!("no list {} was begun here", list.familiar()))
        .hint("rbuild manifest create LIST NAME...")
}

fn begun(store: &Store, list: &Reference) -> Result<Bundle, CliError> {
    Bundle::load(store, list).map_err(|e| transfer_error(&e))?.ok_or_else(|| missing(list))
}

fn create(args: &CreateArgs, store: &Store, ctx: &Ctx) -> Result<(), CliError> {
    let client = client(ctx)?;
    let before = Bundle::load(store, &args.list).map_err(|e| transfer_error(&e))?;
    let mut bundle = match before {
        Some(before) if args.amend => before,
        Some(_) => {
            let error = CliError::new(format!("the list {} was begun already", args.list.familiar()));
            return Err(error.hint("--amend adds to it, `rbuild manifest rm` forgets it"));
        }
        None => Bundle::new(&args.list),
    };
    for image in &args.images {
        bundle.add(&client, image).map_err(|error| {
            let shown = transfer_error(&error);
            match &error {
                TransferError::Registry(e) if e.is_not_found() => {
                    shown.hint("a list is made of images in registries: push them first")
                }
                _ => shown,
            }
        })?;
    }
    bundle.save(store).map_err(|e| transfer_error(&e))?;
    ctx.out.line(&format!("Created manifest list {}", args.list))
}

fn inspect(args: &InspectArgs, store: &Store, ctx: &Ctx) -> Result<(), CliError> {
    if let Some(bundle) = Bundle::load(store, &args.name).map_err(|e| transfer_error(&e))? {
        let index = serde_json::to_value(bundle.index())?;
        return ctx.out.line(&format!("{index:#}"));
    }
    let found = client(ctx)?.resolve(&args.name).map_err(|e| registry_error(&e))?;
    let document: serde_json::Value = serde_json::from_slice(&found.bytes).map_err(|e| {
        CliError::new(format!("{}: what the registry has is not JSON: {e}", args.name.familiar()))
    })?;
    let shown = match args.verbose {
        true => serde_json::json!({ "Ref": args.name, "Descriptor": found.descriptor, "Manifest": document }),
        false => document,
    };
    ctx.out.line(&format!("{shown:#}"))
}

fn annotate(args: &AnnotateArgs, store: &Store) -> Result<(), CliError> {
    let mut bundle = begun(store, &args.list)?;
    let member = bundle.members.iter_mut().find(|m| m.source == args.image);
    let member = member.ok_or_else(|| {
        CliError::new(format!("{} is not in the list {}", args.image.familiar(), args.list.familiar()))
    })?;
    let platform = member.descriptor.platform.get_or_insert_with(crate::platform::Platform::host);
    platform.os = args.os.clone().unwrap_or_else(|| platform.os.clone());
    platform.architecture = args.arch.clone().unwrap_or_else(|| platform.architecture.clone());
    platform.variant = args.variant.clone().or_else(|| platform.variant.clone());
    bundle.save(store).map_err(|e| transfer_error(&e))
}
