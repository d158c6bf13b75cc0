//! `rbuild history`: how an image came about.

use super::image_commands::{list_with, now, open};
use super::table::{cut, human_size, table};
use super::template::Template;
use super::{CliError, CommandResult, Ctx};
use crate::image::{HistoryLine, ago, format_time};
use crate::platform::Platform;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Where docker cuts CREATED BY.
const CREATED_BY_WIDTH: usize = 45;

/// Shows the history of an image.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name, ID or the beginning of an ID
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Print with a template, as a table, or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Sizes and times for people
    #[arg(short = 'H', long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    human: bool,
    /// Do not cut anything
    #[arg(long)]
    no_trunc: bool,
    /// Only IDs
    #[arg(short, long)]
    quiet: bool,
    /// Of an image for several platforms take the one for this [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

/// Runs the command.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let template = args.format.as_deref().filter(|f| *f != "table").map(Template::parse).transpose()?;
    let images = open(ctx)?;
    let image = images.resolve_for(&args.image, args.platform.as_ref())?;
    let now = now();
    let rows: Vec<Value> = images.history(&image).iter().map(|line| row(line, args, now)).collect();
    ctx.out.text(&print(&rows, args, template.as_ref())?)?;
    Ok(ExitCode::SUCCESS)
}

fn row(line: &HistoryLine, args: &Args, now: i64) -> Value {
    let id = line.id.as_ref().map(|id| if args.no_trunc { id.to_string() } else { id.0.short().to_owned() });
    let width = if args.no_trunc { usize::MAX } else { CREATED_BY_WIDTH };
    json!({
        "ID": id.unwrap_or_else(|| "<missing>".into()),
        "CreatedSince": line.created.map_or("N/A".into(), |t| ago(t, now)),
        "CreatedAt": line.created.map_or("N/A".into(), format_time),
        "CreatedBy": cut(&line.created_by, width),
        "Size": if args.human { human_size(line.size) } else { line.size.to_string() },
        "Comment": cut(&line.comment, usize::MAX),
    })
}

fn print(rows: &[Value], args: &Args, template: Option<&Template>) -> Result<String, CliError> {
    let field = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    if args.quiet && template.is_none() {
        return Ok(rows.iter().map(|row| format!("{}\n", field(row, "ID"))).collect());
    }
    if let Some(template) = template {
        return list_with(template, rows, &title, "*image.historyContext");
    }
    let created = if args.human { "CreatedSince" } else { "CreatedAt" };
    let columns = ["ID", created, "CreatedBy", "Size", "Comment"];
    let mut cells = vec![columns.map(title).to_vec()];
    cells.extend(rows.iter().map(|row| columns.map(|c| field(row, c)).to_vec()));
    Ok(table(&cells))
}

fn title(field: &str) -> String {
    match field {
        "ID" => "IMAGE".into(),
        "CreatedSince" => "CREATED".into(),
        "CreatedAt" => "CREATED AT".into(),
        "CreatedBy" => "CREATED BY".into(),
        other => other.to_uppercase(),
    }
}
