//! `rbuild inspect`: all that is known about containers, images, networks and volumes, as docker's JSON.

use super::image_commands::open;
use super::template::Template;
use super::{CliError, CommandResult, Ctx, containers, network, volume};
use crate::platform::Platform;
use crate::progress::plain_json;
use crate::runtime::RunError;
use serde::Serialize;
use serde_json::Value;
use std::process::ExitCode;

/// Tells all about containers, images, networks and volumes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Names, IDs or beginnings of IDs
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Print with a template, or as json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// What the names mean
    #[arg(long = "type", value_name = "TYPE", value_parser = ["image", "container", "network", "volume"])]
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

/// Runs the command of the top level: a container wins over an image, that over a network, that over a volume.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let described = args.names.iter().map(|name| one(name, args, ctx)).collect::<Result<_, _>>()?;
    finish(described, args.format.as_deref(), ctx)
}

fn one(name: &str, args: &Args, ctx: &Ctx) -> Result<Described, CliError> {
    let wanted = args.kind.as_deref();
    let may_be = |kind: &str| wanted.is_none_or(|wanted| wanted == kind);
    if may_be("container") {
        match containers::open(ctx)?.find(name) {
            Ok(container) => return Ok(Described::Found(containers::describe(&container, ctx, args.size))),
            Err(RunError::NoContainer(_)) if wanted.is_none() => {}
            Err(error) => return Ok(Described::Missing(error.to_string())),
        }
    }
    if may_be("image") {
        match image(name, args.platform.as_ref(), ctx)? {
            Described::Missing(_) if wanted.is_none() => {}
            described => return Ok(described),
        }
    }
    if may_be("network") {
        match network::describe(name, ctx)? {
            Described::Missing(_) if wanted.is_none() => {}
            described => return Ok(described),
        }
    }
    match volume::describe(name, ctx)? {
        Described::Missing(_) if wanted.is_none() => {
            Ok(Described::Missing(format!("No such object: {name}")))
        }
        described => Ok(described),
    }
}

/// Runs `image inspect`.
pub(super) fn run_image(args: &Args, ctx: &Ctx) -> CommandResult {
    let all =
        args.names.iter().map(|name| image(name, args.platform.as_ref(), ctx)).collect::<Result<_, _>>()?;
    finish(all, args.format.as_deref(), ctx)
}

fn image(name: &str, platform: Option<&Platform>, ctx: &Ctx) -> Result<Described, CliError> {
    let images = open(ctx)?;
    Ok(match images.resolve_for(name, platform) {
        Ok(image) => Described::Found(images.inspect(&image)),
        Err(error) => Described::Missing(CliError::from(error).message),
    })
}

/// Prints what was found, then fails if something was not, or if the template did not fit.
pub(super) fn finish(all: Vec<Described>, format: Option<&str>, ctx: &Ctx) -> CommandResult {
    let format = format.filter(|format| !format.is_empty());
    let template = format.filter(|format| *format != "json").map(Template::single).transpose()?;
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for one in all {
        match one {
            Described::Found(value) => found.push(value),
            Described::Missing(why) => wrong.push(why),
        }
    }
    let text = match &template {
        Some(template) => {
            let mut text = String::new();
            for value in &found {
                match template.render(value) {
                    Ok(one) => text.push_str(&format!("{one}\n")),
                    Err(error) => wrong.push(error.message),
                }
            }
            // docker writes a line end when it has nothing to say
            if text.is_empty() { "\n".to_owned() } else { text }
        }
        None => {
            for state in found.iter_mut().filter_map(|value| value.get_mut("State")?.as_object_mut()) {
                // a template may ask for it; docker's JSON leaves it out
                if state.get("Health").is_some_and(Value::is_null) {
                    state.shift_remove("Health");
                }
            }
            let all = Value::Array(found);
            if format.is_some() { format!("{all}\n") } else { format!("{}\n", pretty(&all)?) }
        }
    };
    ctx.out.text(&text)?;
    if wrong.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(CliError::new(wrong.join("\n"))) }
}

/// Docker indents by four.
pub(super) fn pretty(value: &Value) -> Result<String, CliError> {
    let mut out = Vec::new();
    let four = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, four))?;
    Ok(plain_json(&String::from_utf8_lossy(&out)))
}
