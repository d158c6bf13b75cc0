//! `rbuild load`: images from archives of docker, podman, skopeo, BuildKit, or of our own.

use super::image_commands::{note, open};
use super::{CliError, CommandResult, Ctx, happened};
use crate::image::LoadInput;
use crate::platform::Platform;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

/// Loads images from an archive: Docker or OCI, plain or compressed with gzip, zstd, xz or bzip2; or from the
/// directory of an OCI layout.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Read from a file or directory instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Of an image for several platforms, load the one for this [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Accepted for docker's sake: what was loaded is said in any case
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let input = match &args.input {
        Some(path) if path.as_os_str() != "-" => LoadInput::Path(path.clone()),
        _ if io::stdin().is_terminal() => {
            return Err(CliError::new("standard input is a terminal, not an archive")
                .hint("use -i FILE, or send an archive to standard input"));
        }
        _ => LoadInput::Stream(Box::new(io::stdin())),
    };
    let loaded = open(ctx)?.load(input, args.platform.as_ref()).map_err(|error| {
        let mut error = CliError::from(error);
        if let Some(path) = args.input.as_ref().filter(|p| !error.message.contains(&*p.to_string_lossy())) {
            error.message = format!("{}: {}", path.display(), error.message);
        }
        error
    })?;
    for image in &loaded {
        for (name, old) in &image.replaced {
            note(&format!("{} was {old} before, which keeps no such name", name.familiar()));
        }
        for name in &image.names {
            happened::to_image(ctx, "load", &image.id.to_string(), &name.familiar(), None);
            ctx.out.line(&format!("Loaded image: {}", name.familiar()))?;
        }
        if image.names.is_empty() {
            ctx.out.line(&format!("Loaded image ID: {}", image.id))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
