//! `rbuild import`: a root file system tar becomes a base image.

use super::image_commands::{open, source_date_epoch};
use super::{CliError, CommandResult, Ctx, happened};
use crate::digest::{Digest, ImageId};
use crate::dockerfile;
use crate::image::ImportRequest;
use crate::oci::{ImageConfig, RootFs};
use crate::plan::{BaseImage, BaseImageError, BaseImages, Op, PlanOptions, plan};
use crate::platform::Platform;
use crate::reference::Reference;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Makes an image of a root file system.
///
/// It gets the usual PATH and its shell as CMD, as the official base images have; --change has the last word.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A tar, plain or compressed; - is standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<Reference>,
    /// Apply a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL,
    /// USER, VOLUME or WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Comment in the history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Platform of the programs in it [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

/// Runs the command.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let (tar, from) = open_input(&args.file)?;
    let edit = |config: &mut ImageConfig| change(config, &args.change);
    let request = ImportRequest {
        name: args.name.clone(),
        message: args.message.clone().unwrap_or_else(|| format!("Imported from {from}")),
        platform: args.platform.clone(),
        epoch: source_date_epoch()?,
        edit: if args.change.is_empty() { None } else { Some(&edit) },
    };
    let id = open(ctx)?.import(tar, &request).map_err(|error| {
        let mut error = CliError::from(error);
        error.message = format!("{}: {}", args.file.display(), error.message);
        error
    })?;
    happened::to_image(ctx, "import", &id.to_string(), &id.to_string(), None);
    if let Some(name) = &args.name {
        happened::to_image(ctx, "tag", &id.to_string(), &name.familiar(), None);
    }
    ctx.out.line(&id.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn open_input(file: &Path) -> Result<(Box<dyn Read + Send>, String), CliError> {
    if file == Path::new("-") {
        if io::stdin().is_terminal() {
            return Err(CliError::new("standard input is a terminal, not an archive"));
        }
        return Ok((Box::new(io::stdin()), "-".into()));
    }
    let name = file.display().to_string();
    if name.starts_with("http://") || name.starts_with("https://") {
        return Err(CliError::new(format!("{name}: import does not fetch URLs"))
            .hint("download it and import the file, or pipe it in: curl URL | rbuild import - NAME"));
    }
    let open = File::open(file).map_err(|e| CliError::new(format!("cannot open {name}: {e}")))?;
    if open.metadata().is_ok_and(|m| m.is_dir()) {
        return Err(CliError::new(format!("{name} is a directory, not an archive"))
            .hint(format!("tar -C {name} -c . | rbuild import - NAME")));
    }
    // The history is part of the image ID, so it must not hold the path of the day.
    let short = file.file_name().map_or(name, |n| n.to_string_lossy().into_owned());
    Ok((Box::new(open), short))
}

/// Plans a Dockerfile of the instructions on top of the config and takes the config that comes out.
pub(super) fn change(config: &mut ImageConfig, changes: &[String]) -> Result<(), String> {
    let text = format!("FROM imported\n{}\n", changes.join("\n"));
    let show = |d: dockerfile::Diagnostic| d.render("--change", text.as_bytes(), false);
    let file = dockerfile::parse(text.as_bytes()).map_err(show)?;
    let options = PlanOptions::new();
    let planned = plan(text.as_bytes(), &file, &options, &Imported(config)).map_err(show)?;
    let changes_files = |op: &Op| !matches!(op, Op::Image(_) | Op::Scratch | Op::Workdir(_));
    if planned.graph.node_weights().any(|vertex| changes_files(&vertex.op)) || planned.stage.is_some() {
        return Err("--change takes instructions that change the config, not RUN, COPY, ADD or FROM".into());
    }
    let (rootfs, history) = (std::mem::take(&mut config.rootfs), std::mem::take(&mut config.history));
    *config = ImageConfig { rootfs, history, created: None, ..planned.config };
    Ok(())
}

/// The image in the making, as the base of its changes.
struct Imported<'a>(&'a ImageConfig);

impl BaseImages for Imported<'_> {
    fn resolve(&self, name: &str, _: Option<&Platform>) -> Result<BaseImage, BaseImageError> {
        if name != "imported" {
            return Err(BaseImageError { name: name.to_owned(), why: "--change takes no FROM".into() });
        }
        let mut config = self.0.clone();
        config.rootfs = RootFs::default();
        config.history.clear();
        Ok(BaseImage { image: ImageId(Digest::sha256_of(b"")), config })
    }
}
