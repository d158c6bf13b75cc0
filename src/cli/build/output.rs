//! What a build leaves behind when it has ended well: exports, the files of `--iidfile` and `--metadata-file`, the last line.

use super::args::BuildArgs;
use super::settings::Annotations;
use crate::build::{BuildRequest, Built};
use crate::cli::{CliError, CommandResult, Ctx, talk, warnings};
use crate::image::{Dest, Image, Images, OutputKind, OutputSpec, Target};
use crate::oci::Descriptor;
use crate::reference::Reference;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Writes an image out as one `--output` says; gives its manifest there, where there is one.
pub(super) fn export(
    spec: &OutputSpec,
    annotations: &Annotations,
    names: &[Reference],
    epoch: Option<i64>,
    image: &Image,
    images: &Images,
) -> Result<Option<Descriptor>, CliError> {
    let OutputKind::Export(format, dest) = &spec.kind else { return Ok(None) };
    let mut options = spec.options.clone();
    options.epoch = epoch;
    options.annotations.extend(annotations.manifest.clone());
    options.index_annotations.extend(annotations.index.clone());
    options.descriptor_annotations.extend(annotations.descriptor.clone());
    let named = [(image.clone(), names.to_vec())];
    let exported = match dest {
        Dest::Path(path) => images.export(&named, *format, &options, Target::Path(path))?,
        Dest::Stdout => images.export(&named, *format, &options, Target::Stream(&mut std::io::stdout()))?,
    };
    if let Some(first) = exported.skipped.first() {
        let more = exported.skipped.len();
        talk(&format!(
            "warning: {more} path(s) could not be made here and were left out, the first is {first}\n"
        ));
    }
    Ok(exported.manifests.into_iter().next())
}

/// Tells the user, and whoever reads the files, what was built.
pub(super) fn finish(
    args: &BuildArgs,
    request: &BuildRequest,
    built: &Built,
    manifest: &Descriptor,
    begun: Instant,
    ctx: &Ctx,
) -> CommandResult {
    if let Some(path) = &args.metadata_file {
        write(path, &format!("{:#}\n", metadata(request, built, manifest)))?;
    }
    if let Some(path) = &args.iidfile {
        write(path, &built.image.to_string())?;
    }
    if args.switches.quiet {
        ctx.out.line(&built.image.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let silent = ["quiet", "none", "rawjson"].contains(&args.progress.as_str());
    if args.progress != "rawjson" {
        talk(&warnings::text(&built.warnings, &request.dockerfile));
    }
    if !silent {
        let names: Vec<String> = request.names.iter().map(Reference::familiar).collect();
        let named = if names.is_empty() { String::new() } else { format!(" as {}", names.join(", ")) };
        let id = built.image.0.short();
        talk(&format!("Built {id}{named} in {:.1}s\n", begun.elapsed().as_secs_f64()));
    }
    Ok(ExitCode::SUCCESS)
}

/// What buildx writes.
fn metadata(request: &BuildRequest, built: &Built, manifest: &Descriptor) -> serde_json::Value {
    let names: Vec<String> = request.names.iter().map(ToString::to_string).collect();
    let mut out = serde_json::json!({
        "containerimage.config.digest": built.image.to_string(),
        "containerimage.descriptor": manifest,
        "containerimage.digest": manifest.digest.to_string(),
    });
    if !names.is_empty() {
        out["image.name"] = names.join(",").into();
    }
    out
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    std::fs::write(path, text).map_err(|e| CliError::new(format!("cannot write {}: {e}", path.display())))
}
