//! What a build leaves behind when it has ended well: exports, the files of `--iidfile` and `--metadata-file`, the last line.

use super::args::BuildArgs;
use crate::build::{BuildRequest, Built};
use crate::cli::{CliError, CommandResult, Ctx, registry, talk, warnings};
use crate::image::{
    Dest, ExportFormat, ExportOptions, Image, Images, Notes, OutputKind, OutputSpec, PushKind, Target,
};
use crate::interrupt::Stop;
use crate::layer::Compression;
use crate::oci::Descriptor;
use crate::reference::Reference;
use crate::registry::Client;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Tells how new layers will be compressed, if they will be: by the first archive or push that is asked for.
pub(super) fn compression(outputs: &[OutputSpec]) -> Option<Compression> {
    let packs = |spec: &&OutputSpec| {
        let format = match &spec.kind {
            OutputKind::Export(format, _) => Some(format),
            _ => None,
        };
        spec.push.is_some() || matches!(format, Some(ExportFormat::Oci { .. } | ExportFormat::Docker { .. }))
    };
    let first = outputs.iter().find(packs)?;
    Some(first.options.compression.unwrap_or(Compression::Gzip(6)))
}

/// Writes an image out as one `--output` says; gives its manifest there, where there is one.
pub(super) fn export(
    spec: &OutputSpec,
    notes: &Notes,
    names: &[Reference],
    epoch: Option<i64>,
    image: &Image,
    images: &Images,
) -> Result<Option<Descriptor>, CliError> {
    let OutputKind::Export(format, dest) = &spec.kind else { return Ok(None) };
    let mut options = spec.options.clone();
    options.epoch = epoch;
    options.notes.extend(notes);
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

/// Adds what `--push` asks for: images that are kept go out, too.
pub(super) fn push_too(outputs: &mut Vec<OutputSpec>) {
    let mut found = false;
    for spec in outputs.iter_mut().filter(|o| o.kind == OutputKind::Store) {
        spec.push.get_or_insert_default();
        found = true;
    }
    if !found {
        let (kind, names, options) = (OutputKind::Store, Vec::new(), ExportOptions::default());
        outputs.push(OutputSpec { kind, names, options, push: Some(PushKind::default()) });
    }
}

/// Refuses a push without a name, before anything is built.
pub(super) fn check_push(outputs: &[OutputSpec], names: &[Reference]) -> Result<(), CliError> {
    if names.is_empty() && outputs.iter().any(|o| o.push.is_some()) {
        let error = CliError::new("a push needs a name, which says where the image goes");
        return Err(error.hint("add --tag REGISTRY/REPOSITORY:TAG"));
    }
    Ok(())
}

/// Refuses what cannot hold images for several platforms, before anything is built.
pub(super) fn check_platforms(outputs: &[OutputSpec], platforms: usize) -> Result<(), CliError> {
    let docker = |o: &OutputSpec| matches!(o.kind, OutputKind::Export(ExportFormat::Docker { .. }, _));
    if platforms > 1 && outputs.iter().any(docker) {
        let error = CliError::new("docker exporter does not currently support exporting manifest lists");
        return Err(error.hint("use type=oci, or build for one platform"));
    }
    Ok(())
}

/// Brings the image to the registries of its names; gives its manifest there.
#[expect(clippy::too_many_arguments, reason = "what a push needs comes from all over the command line")]
pub(super) fn push(
    spec: &OutputSpec,
    kind: PushKind,
    notes: &Notes,
    names: &[Reference],
    image: &Image,
    images: &Images,
    quiet: bool,
    stop: &Stop,
    ctx: &Ctx,
) -> Result<Descriptor, CliError> {
    let mut options = spec.options.clone();
    options.notes.extend(notes);
    let mut settings = registry::settings(ctx)?;
    settings.insecure_all |= kind.insecure;
    let client = Client::new(settings);
    let mut manifest = image.target().clone();
    for name in names {
        let pushed =
            registry::push::send(image, name, &client, &options, kind.by_digest, quiet, images, stop)?;
        manifest = pushed.descriptor;
        if !quiet {
            talk(&format!("Pushed {} ({})\n", name.familiar(), manifest.digest));
        }
    }
    Ok(manifest)
}

/// Tells the user, and whoever reads the files, what was built.
pub(super) fn finish(
    args: &BuildArgs,
    request: &BuildRequest,
    built: &Built,
    manifest: Option<&Descriptor>,
    begun: Instant,
    ctx: &Ctx,
) -> CommandResult {
    let id = match (&built.index, &built.image) {
        (Some(index), _) => Some(index),
        (None, image) => image.as_ref().map(|id| &id.0),
    };
    if let (Some(id), Some(manifest)) = (id, manifest) {
        if let Some(path) = &args.metadata_file {
            write(path, &format!("{:#}\n", metadata(request, built, manifest)))?;
        }
        if let Some(path) = &args.iidfile {
            write(path, &id.to_string())?;
        }
        if args.switches.quiet {
            ctx.out.line(&id.to_string())?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    let silent = ["quiet", "none", "rawjson"].contains(&args.progress.as_str());
    if args.progress != "rawjson" {
        talk(&warnings::text(&built.warnings, &request.dockerfile));
    }
    if !silent {
        let names: Vec<String> = request.names.iter().map(Reference::familiar).collect();
        let built = match (id, names.join(", ")) {
            (Some(id), names) if names.is_empty() => id.short().to_owned(),
            (Some(id), names) => format!("{} as {names}", id.short()),
            (None, names) => names,
        };
        talk(&format!("Built {built} in {:.1}s\n", begun.elapsed().as_secs_f64()));
    }
    Ok(ExitCode::SUCCESS)
}

/// What buildx writes; several images have no one config.
fn metadata(request: &BuildRequest, built: &Built, manifest: &Descriptor) -> serde_json::Value {
    let names: Vec<String> = request.names.iter().map(ToString::to_string).collect();
    let mut out = serde_json::json!({
        "containerimage.descriptor": manifest,
        "containerimage.digest": manifest.digest.to_string(),
    });
    if let (Some(id), None) = (&built.image, &built.index) {
        out["containerimage.config.digest"] = id.to_string().into();
    }
    if !names.is_empty() {
        out["image.name"] = names.join(",").into();
    }
    out
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    std::fs::write(path, text).map_err(|e| CliError::new(format!("cannot write {}: {e}", path.display())))
}
