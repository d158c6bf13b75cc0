//! `events`: what happens to containers, as it happens.

use super::logs::moment;
use crate::cli::template::Template;
use crate::cli::{CliError, CommandResult, Ctx};
use crate::runtime::{EventQuery, EventReader, time};
use clap::Args;
use serde_json::Value;
use std::process::ExitCode;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(50);

/// `events`.
#[derive(Debug, Args)]
pub(in crate::cli) struct EventsArgs {
    /// Only what fits: container= event= image= label= type=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print with a template, or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Begin at a time, or so long ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End at a time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// Shows events until the end that was asked for, or for ever.
pub(in crate::cli) fn run(args: &EventsArgs, ctx: &Ctx) -> CommandResult {
    let moment = |flag: &str, text: &Option<String>| text.as_deref().map(|t| moment(flag, t)).transpose();
    let query = EventQuery { since: moment("--since", &args.since)?, until: moment("--until", &args.until)? };
    // with an end and no beginning docker shows all there is
    let query = EventQuery { since: query.since.or(query.until.map(|_| 0)), ..query };
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    for filter in &args.filter {
        let known = ["container", "event", "image", "label", "type", "scope", "daemon"];
        if !filter.split_once('=').is_some_and(|(key, _)| known.contains(&key)) {
            return Err(CliError::new(format!(
                "--filter {filter:?}: the filters here are {}",
                known.join(", ")
            )));
        }
    }
    super::open(ctx)?;
    let broken = |e: std::io::Error| CliError::new(format!("cannot read the events: {e}"));
    let mut reader = EventReader::open(&ctx.root, query).map_err(broken)?;
    loop {
        for event in reader.next_events().map_err(broken)? {
            if !fits(&event, &args.filter) {
                continue;
            }
            match &template {
                Some(template) => ctx.out.line(&template.render(&event)?)?,
                None => ctx.out.line(&line(&event))?,
            }
        }
        if query.until.is_some_and(|until| time::now() > until) {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(PAUSE);
    }
}

/// `TIME container ACTION ID (NAME=VALUE, ...)`.
fn line(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let attributes = event["Actor"]["Attributes"].as_object().cloned().unwrap_or_default();
    let mut pairs: Vec<String> = attributes.iter().map(|(k, v)| format!("{k}={}", text(v))).collect();
    pairs.sort();
    let at = time::format(i128::from(event["timeNano"].as_i64().unwrap_or(0)));
    format!(
        "{at} {} {} {} ({})",
        text(&event["Type"]),
        text(&event["Action"]),
        text(&event["id"]),
        pairs.join(", ")
    )
}

/// Filters of one key are alternatives, those of different keys must all fit.
fn fits(event: &Value, filters: &[String]) -> bool {
    let attribute = |name: &str| event["Actor"]["Attributes"][name].as_str().map(str::to_owned);
    let one = |key: &str, wanted: &str| match key {
        "container" => {
            attribute("name").as_deref() == Some(wanted)
                || event["id"].as_str().is_some_and(|id| id.starts_with(wanted))
        }
        "event" => {
            event["Action"].as_str().is_some_and(|a| a == wanted || a.split(':').next() == Some(wanted))
        }
        "image" => attribute("image").as_deref() == Some(wanted),
        "label" => match wanted.split_once('=') {
            Some((name, value)) => attribute(name).as_deref() == Some(value),
            None => attribute(wanted).is_some(),
        },
        "type" => event["Type"].as_str() == Some(wanted),
        _ => true,
    };
    let pairs: Vec<(&str, &str)> = filters.iter().filter_map(|f| f.split_once('=')).collect();
    pairs.iter().all(|(key, _)| pairs.iter().any(|(other, wanted)| other == key && one(key, wanted)))
}
