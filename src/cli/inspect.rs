//! `rbuild inspect`: all that is known about containers and images, as docker's JSON.

use super::image_commands::open;
use super::template::Template;
use super::{CliError, CommandResult, Ctx, containers};
use crate::platform::Platform;
use crate::progress::plain_json;
use crate::runtime::RunError;
use serde::Serialize;
use serde_json::Value;
use std::process::ExitCode;

/// Tells all about containers and images.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Names, IDs or beginnings of IDs
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Print with a template, or as json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// What the names mean
    #[arg(long = "type", value_name = "TYPE", value_parser = ["image", "container"])]
    kind: Option<String>,
    /// Also tell how much containers have written; the size of images is always told
    #[arg(short, long)]
    size: bool,
    /// Of an image for several platforms take the one for this [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

/// What became of one name.
pub(super) enum Described {
    /// What is known.
    Found(Value),
    /// Why nothing is.
    Missing(String),
}

/// Runs the command of the top level: a container wins over an image.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let (mut all, wanted) = (Vec::new(), args.kind.as_deref());
    let container = |name: &str| containers::open(ctx).map(|containers| containers.find(name));
    for name in &args.names {
        if wanted != Some("image") {
            match container(name)? {
                Ok(container) => {
                    all.push(Described::Found(containers::describe(&container, ctx, args.size)));
                    continue;
                }
                Err(RunError::NoContainer(_)) if wanted.is_none() => {}
                Err(error) => {
                    all.push(Described::Missing(error.to_string()));
                    continue;
                }
            }
        }
        all.push(image(name, wanted.is_none(), args.platform.as_ref(), ctx)?);
    }
    finish(all, args.format.as_deref(), ctx)
}

/// Runs `image inspect`.
pub(super) fn run_image(args: &Args, ctx: &Ctx) -> CommandResult {
    let all = args
        .names
        .iter()
        .map(|name| image(name, false, args.platform.as_ref(), ctx))
        .collect::<Result<_, _>>()?;
    finish(all, args.format.as_deref(), ctx)
}

fn image(name: &str, any: bool, platform: Option<&Platform>, ctx: &Ctx) -> Result<Described, CliError> {
    let images = open(ctx)?;
    Ok(match images.resolve_for(name, platform) {
        Ok(image) => Described::Found(images.inspect(&image)),
        Err(crate::image::ImageError::NotFound { .. }) if any => {
            Described::Missing(format!("No such object: {name}"))
        }
        Err(error) => Described::Missing(CliError::from(error).message),
    })
}

/// Prints what was found, then fails if something was not.
pub(super) fn finish(all: Vec<Described>, format: Option<&str>, ctx: &Ctx) -> CommandResult {
    let template = format.map(Template::parse).transpose()?;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for one in all {
        match one {
            Described::Found(value) => found.push(value),
            Described::Missing(why) => missing.push(why),
        }
    }
    match &template {
        Some(template) => {
            for value in &found {
                ctx.out.line(&template.render(value)?)?;
            }
        }
        None => {
            for state in found.iter_mut().filter_map(|value| value.get_mut("State")?.as_object_mut()) {
                // a template may ask for it; docker's JSON leaves it out
                if state.get("Health").is_some_and(Value::is_null) {
                    state.shift_remove("Health");
                }
            }
            ctx.out.line(&pretty(&Value::Array(found))?)?;
        }
    }
    if missing.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(CliError::new(missing.join("\n"))) }
}

/// Docker indents by four.
pub(super) fn pretty(value: &Value) -> Result<String, CliError> {
    let mut out = Vec::new();
    let four = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, four))?;
    Ok(plain_json(&String::from_utf8_lossy(&out)))
}
