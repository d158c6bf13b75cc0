//! `rbuild inspect`: all that is known about images, as docker's JSON.

use super::image_commands::open;
use super::template::Template;
use super::{CliError, CommandResult, Ctx};
use serde::Serialize;
use serde_json::Value;
use std::process::ExitCode;

/// Tells all about images.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Names, IDs or beginnings of IDs
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
    /// Print with a template, or as json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// What the names mean
    #[arg(long = "type", value_name = "TYPE", value_parser = ["image"])]
    kind: Option<String>,
    /// Accepted for docker's sake; the size is always told
    #[arg(short, long)]
    size: bool,
}

/// Runs the command: prints what is found, then fails if something was not.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    let images = open(ctx)?;
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in &args.names {
        match images.resolve(name) {
            Ok(image) => found.push(images.inspect(&image)),
            Err(error) => missing.push(CliError::from(error).message),
        }
    }
    match &template {
        Some(template) => {
            for value in &found {
                ctx.out.line(&template.render(value)?)?;
            }
        }
        None => ctx.out.line(&pretty(&Value::Array(found))?)?,
    }
    if missing.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(CliError::new(missing.join("\n"))) }
}

/// Docker indents by four.
pub(super) fn pretty(value: &Value) -> Result<String, CliError> {
    let mut out = Vec::new();
    let four = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, four))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}
