//! `rbuild images`: what is in the store.

use super::image_commands::{list_with, note, now, open};
use super::listing::{split_filter, unknown_filter};
use super::table::{human_size, table};
use super::template::Template;
use super::{CliError, CommandResult, Ctx};
use crate::digest::ResultId;
use crate::image::{Filter, Image, ago};
use crate::reference::Reference;
use crate::runtime::time;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::ExitCode;

const NONE: &str = "<none>";

/// Lists images.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only images of this repository, with a tag only that one; * and ? stand for anything
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
    /// Show all images (nothing is hidden without it)
    #[arg(short, long)]
    all: bool,
    /// Show the digests of the manifests
    #[arg(long)]
    digests: bool,
    /// Only what fits: dangling=true|false, label=KEY[=VALUE], before=IMAGE, since=IMAGE, reference=PATTERN
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print with a template, as a table, or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not cut IDs
    #[arg(long)]
    no_trunc: bool,
    /// Only IDs
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let images = open(ctx)?;
    let template = args.format.as_deref().filter(|f| *f != "table").map(Template::parse).transpose()?;
    let filter = |text: &String| {
        let (key, value) = split_filter(text)?;
        let known = ["dangling", "label", "before", "since", "reference"];
        if !known.contains(&key.as_str()) {
            return Err(unknown_filter(&key, &known.join(", ")));
        }
        images
            .parse_filter(&format!("{key}={value}"))
            .map_err(|e| CliError::new(format!("invalid filter: {e}")))
    };
    let mut filters: Vec<Filter> = args.filter.iter().map(filter).collect::<Result<_, _>>()?;
    filters.extend(args.name.clone().map(Filter::Reference));
    let listing = images.list()?;
    for (name, error) in &listing.damaged {
        note(&format!("image {name} cannot be read: {error}"));
    }
    let now = now();
    let mut sizes: HashMap<ResultId, u64> = HashMap::new();
    let mut rows = Vec::new();
    for image in listing.images.iter().filter(|i| i.passes_all(&filters)) {
        let size = if args.quiet { 0 } else { images.size(image, &mut sizes) };
        for name in shown_names(image, &filters) {
            rows.push(row(image, name, size, now, args));
        }
    }
    ctx.out.text(&print(&rows, args, template.as_ref())?)?;
    Ok(ExitCode::SUCCESS)
}

/// Gives the names that the filters ask for, or one "no name".
fn shown_names<'i>(image: &'i Image, filters: &[Filter]) -> Vec<Option<&'i Reference>> {
    let patterns: Vec<Filter> =
        filters.iter().filter(|f| matches!(f, Filter::Reference(_))).cloned().collect();
    let asked =
        |name: &&Reference| Image { names: vec![(*name).clone()], ..image.clone() }.passes_all(&patterns);
    let names: Vec<_> = image.names.iter().filter(asked).map(Some).collect();
    if names.is_empty() { vec![None] } else { names }
}

fn row(image: &Image, name: Option<&Reference>, size: u64, now: i64, args: &Args) -> Value {
    let (created, id) = (image.created(), image.shown_id());
    let platforms = match &image.several {
        Some(several) => several.index.platforms().replace(", ", ","),
        None => image.platform().to_string(),
    };
    json!({
        "Repository": name.map_or(NONE.to_owned(), Reference::familiar_name),
        "Tag": name.and_then(Reference::tag).unwrap_or(NONE),
        "Digest": image.target().digest.to_string(),
        "ID": if args.no_trunc { id.to_string() } else { id.short().to_owned() },
        "Platforms": platforms,
        "CreatedSince": created.map_or("N/A".into(), |t| ago(t, now)),
        "CreatedAt": created.map_or("N/A".into(), |t| time::column(i128::from(t) * 1_000_000_000)),
        "Size": human_size(size),
        "Containers": "N/A",
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
    })
}

fn print(rows: &[Value], args: &Args, template: Option<&Template>) -> Result<String, CliError> {
    let field = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    if args.quiet && template.is_none() {
        // as with docker a line a name, not one an image
        return Ok(rows.iter().map(|row| format!("{}\n", field(row, "ID"))).collect());
    }
    if let Some(template) = template {
        return list_with(template, rows, &title, "*formatter.imageContext");
    }
    let mut columns = vec!["Repository", "Tag"];
    columns.extend(args.digests.then_some("Digest"));
    columns.extend(["ID", "CreatedSince", "Size"]);
    let mut cells = vec![columns.iter().map(|c| title(c)).collect::<Vec<_>>()];
    cells.extend(rows.iter().map(|row| columns.iter().map(|c| field(row, c)).collect()));
    Ok(table(&cells))
}

/// Gives the head of a column.
fn title(field: &str) -> String {
    match field {
        "ID" => "IMAGE ID".into(),
        "CreatedSince" => "CREATED".into(),
        "CreatedAt" => "CREATED AT".into(),
        "SharedSize" => "SHARED SIZE".into(),
        "UniqueSize" => "UNIQUE SIZE".into(),
        other => other.to_uppercase(),
    }
}
