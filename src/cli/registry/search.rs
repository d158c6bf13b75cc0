//! `rbuild search`: repositories by name.

use super::{client, registry_error};
use crate::cli::image_commands::list_with;
use crate::cli::table::table;
use crate::cli::template::Template;
use crate::cli::{CliError, CommandResult, Ctx};
use crate::registry::Repository;
use serde_json::json;
use std::process::ExitCode;

/// Columns of a description, as docker cuts it.
const DESCRIPTION: usize = 45;

/// Searches Docker Hub, or another registry when the term begins with its host.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// What to look for
    #[arg(value_name = "[HOST/]TERM")]
    term: String,
    /// Most results
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    /// Only what fits: is-official=true|false, stars=N
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print with a template, as a table, or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not cut descriptions
    #[arg(long)]
    no_trunc: bool,
}

/// Runs the command.
pub(in crate::cli) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let template = args.format.as_deref().filter(|f| *f != "table").map(Template::parse).transpose()?;
    let filters: Vec<Filter> = args.filter.iter().map(|f| Filter::parse(f)).collect::<Result<_, _>>()?;
    let (registry, term) = match args.term.split_once('/') {
        Some((host, term)) if host.contains(['.', ':']) || host == "localhost" => (host, term),
        _ => ("docker.io", args.term.as_str()),
    };
    let client = client(ctx)?;
    let found = client.search(registry, term, args.limit as usize).map_err(|e| registry_error(&e))?;
    let found: Vec<&Repository> = found.iter().filter(|r| filters.iter().all(|f| f.passes(r))).collect();
    let short = |text: &str| match args.no_trunc || text.chars().count() <= DESCRIPTION {
        true => text.to_owned(),
        false => text.chars().take(DESCRIPTION - 1).chain(['…']).collect(),
    };
    let official = |r: &Repository| if r.official { "[OK]" } else { "" };
    if let Some(template) = template {
        let row = |r: &&Repository| json!({ "Name": r.name, "Description": short(&r.description), "StarCount": r.stars, "IsOfficial": r.official });
        let rows: Vec<_> = found.iter().map(row).collect();
        ctx.out.text(&list_with(
            &template,
            &rows,
            &|key| key.to_ascii_uppercase(),
            "*registry.searchContext",
        )?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![["NAME", "DESCRIPTION", "STARS", "OFFICIAL"].map(str::to_owned).to_vec()];
    rows.extend(
        found.iter().map(|r| {
            vec![r.name.clone(), short(&r.description), r.stars.to_string(), official(r).to_owned()]
        }),
    );
    ctx.out.text(&table(&rows))?;
    Ok(ExitCode::SUCCESS)
}

enum Filter {
    Official(bool),
    Stars(u64),
}

impl Filter {
    fn parse(text: &str) -> Result<Self, CliError> {
        let bad = || CliError::new(format!("--filter {text:?}: expected is-official=true|false or stars=N"));
        match text.split_once('=') {
            Some(("is-official", value)) => value.parse().map(Self::Official).map_err(|_| bad()),
            Some(("stars", value)) => value.parse().map(Self::Stars).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }

    fn passes(&self, repository: &Repository) -> bool {
        match self {
            Self::Official(official) => repository.official == *official,
            Self::Stars(least) => repository.stars >= *least,
        }
    }
}
