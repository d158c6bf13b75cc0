//! `rbuild save`: images as an archive that docker, podman and skopeo read.

use super::image_commands::open;
use super::{CliError, CommandResult, Ctx, happened};
use crate::image::{ExportFormat, ExportOptions, Image, Images, Target};
use crate::layer::Compression;
use crate::platform::Platform;
use crate::reference::Reference;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

/// Writes images with all layers into one archive.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Names, IDs or beginnings of IDs; an image keeps the names that it is asked for by
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Form of the archive: docker (also an OCI layout) or oci
    #[arg(long, value_name = "FORMAT", default_value = "docker", value_parser = ["docker", "oci"])]
    format: String,
    /// Of images for several platforms only those for this [default: all]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

/// Gives what to save: a repository without a tag stands for all its names.
fn names_of(asked: &[String], images: &Images) -> Result<Vec<String>, CliError> {
    let known: Vec<Reference> = images.list()?.images.into_iter().flat_map(|image| image.names).collect();
    let mut out = Vec::new();
    for text in asked {
        let bare = text
            .parse::<Reference>()
            .ok()
            .filter(|name| name.digest().is_none() && name.familiar_name() == *text && !known.is_empty());
        let of_repository =
            |name: &&Reference| bare.as_ref().is_some_and(|b| b.familiar_name() == name.familiar_name());
        let before = out.len();
        out.extend(known.iter().filter(of_repository).map(Reference::familiar));
        if out.len() == before {
            out.push(text.clone());
        }
    }
    Ok(out)
}

/// Runs the command.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    if args.output.is_none() && io::stdout().is_terminal() {
        return Err(CliError::new("an archive would be written to the terminal")
            .hint("use -o FILE, or send standard output somewhere"));
    }
    let images = open(ctx)?;
    let mut chosen: Vec<(Image, Vec<Reference>)> = Vec::new();
    for text in names_of(&args.images, &images)? {
        let text = &text;
        let image = images.resolve_for(text, args.platform.as_ref())?;
        let name = text.parse::<Reference>().ok().filter(|name| image.names.contains(name));
        let at = match chosen.iter().position(|(known, _)| known.target() == image.target()) {
            Some(at) => at,
            None => {
                chosen.push((image, Vec::new()));
                chosen.len() - 1
            }
        };
        let names = &mut chosen[at].1;
        names.extend(name.filter(|n| !names.contains(n)));
    }
    let format = match args.format.as_str() {
        "oci" => ExportFormat::Oci { archive: true },
        _ => ExportFormat::Docker { archive: true },
    };
    let options = ExportOptions {
        compression: Some(Compression::None),
        force_compression: true,
        ..ExportOptions::default()
    };
    let mut stdout = io::stdout();
    let target = match &args.output {
        Some(path) => Target::Path(path),
        None => Target::Stream(&mut stdout),
    };
    images.export(&chosen, format, &options, target)?;
    for (image, names) in &chosen {
        let id = image.shown_id().to_string();
        let name = names.first().map_or_else(|| id.clone(), Reference::familiar);
        happened::to_image(ctx, "save", &id, &name, Some(image));
    }
    Ok(ExitCode::SUCCESS)
}
