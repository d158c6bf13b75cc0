//! `events`: what happens to containers, images, volumes and networks, as it happens.

use super::logs::moment;
use crate::cli::listing::{Wanted, pass};
use crate::cli::template::Template;
use crate::cli::{CliError, CommandResult, Ctx};
use crate::runtime::{EventQuery, EventReader, time};
use clap::Args;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(50);

/// `events`.
#[derive(Debug, Args)]
pub(in crate::cli) struct EventsArgs {
    /// Only what fits: type= event= container= image= volume= network= label= scope=
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
    let template = args.format.as_deref().filter(|f| !f.is_empty()).map(Template::single).transpose()?;
    if let Some(template) = &template {
        // what the template asks of an event without anything in it, it may ask of all
        let empty = json!({ "Type": "", "Action": "", "Actor": { "ID": "", "Attributes": {} }, "scope": "", "time": 0,
            "timeNano": 0 });
        template.render_of(&empty, "*events.Message").map_err(|error| error.code(64))?;
    }
    let known = [
        "type",
        "event",
        "container",
        "image",
        "volume",
        "network",
        "label",
        "scope",
        "daemon",
        "config",
        "node",
        "plugin",
        "secret",
        "service",
    ];
    let wanted = Wanted::all(&args.filter, &known)?;
    super::open(ctx)?;
    let broken = |e: std::io::Error| CliError::new(format!("cannot read the events: {e}"));
    let mut reader = EventReader::open(&ctx.root, query).map_err(broken)?;
    loop {
        for event in reader.next_events().map_err(broken)? {
            if !fits(&event, &wanted) {
                continue;
            }
            match &template {
                Some(template) => ctx.out.line(&template.render_of(&event, "*events.Message")?)?,
                None => ctx.out.line(&line(&event))?,
            }
        }
        if query.until.is_some_and(|until| time::now() > until) {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(PAUSE);
    }
}

/// `TIME TYPE ACTION ID (NAME=VALUE, ...)`, the time with all nine digits behind the second.
fn line(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let attributes = event["Actor"]["Attributes"].as_object().cloned().unwrap_or_default();
    let mut pairs: Vec<String> = attributes.iter().map(|(k, v)| format!("{k}={}", text(v))).collect();
    pairs.sort();
    let nanos = i128::from(event["timeNano"].as_i64().unwrap_or(0));
    let second = time::format(nanos - nanos.rem_euclid(1_000_000_000));
    let mut out = format!(
        "{}.{:09}Z {} {} {}",
        second.trim_end_matches('Z'),
        nanos.rem_euclid(1_000_000_000),
        text(&event["Type"]),
        text(&event["Action"]),
        text(&event["Actor"]["ID"]),
    );
    if !pairs.is_empty() {
        out.push_str(&format!(" ({})", pairs.join(", ")));
    }
    out
}

/// Filters of one key are alternatives, those of different keys must all fit; so must all labels.
fn fits(event: &Value, wanted: &[Wanted]) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (id, action, kind) = (text(&event["Actor"]["ID"]), text(&event["Action"]), text(&event["Type"]));
    let attribute = |name: &str| text(&event["Actor"]["Attributes"][name]);
    let has_label = |wanted: &str| {
        let attributes = event["Actor"]["Attributes"].as_object();
        let (name, value) =
            wanted.split_once('=').map_or((wanted, None), |(name, value)| (name, Some(value)));
        let found = attributes.and_then(|all| all.get(name));
        found.is_some_and(|found| value.is_none_or(|value| found.as_str() == Some(value)))
    };
    let one = |wanted: &Wanted| {
        let value = wanted.value.as_str();
        Ok(match wanted.key.as_str() {
            "event" => action == value || action.split(':').next() == Some(value),
            "type" => kind == value,
            "scope" => value == "local",
            "label" => has_label(value),
            "image" => {
                let name = if kind == "image" { attribute("name") } else { attribute("image") };
                let bare = |name: &str| match name.rsplit_once(':') {
                    Some((repository, tag)) if !tag.contains('/') => repository.to_owned(),
                    _ => name.to_owned(),
                };
                [&id, &name].into_iter().any(|known| known == value || bare(known) == value)
            }
            // docker compares all of these with the beginnings of id and name, whatever the event is of
            _ => id.starts_with(value) || attribute("name").starts_with(value),
        })
    };
    pass(wanted, &one).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_and_chosen() {
        let event = json!({
            "Type": "image", "Action": "tag", "status": "tag", "id": "sha256:12", "scope": "local",
            "Actor": { "ID": "sha256:12", "Attributes": { "name": "reg:5000/app:1", "tier": "web" } },
            "timeNano": 1_136_214_245_120_000_000_i64,
        });
        assert_eq!(
            line(&event),
            "2006-01-02T15:04:05.120000000Z image tag sha256:12 (name=reg:5000/app:1, tier=web)"
        );
        let mut bare = event.clone();
        bare["Actor"]["Attributes"] = json!({});
        assert!(line(&bare).ends_with("image tag sha256:12"));
        for (filters, want) in [
            (&[][..], true),
            (&["type=image"], true),
            (&["type=container", "type=image"], true),
            (&["type=image", "event=untag"], false),
            (&["image=reg:5000/app"], true),
            (&["image=reg:5000/app:1"], true),
            (&["image=app"], false),
            (&["label=tier", "label=tier=web"], true),
            (&["label=tier", "label=who"], false),
            (&["container=reg"], true),
            (&["volume=x"], false),
        ] {
            let texts: Vec<String> = filters.iter().map(|f| (*f).to_owned()).collect();
            let wanted =
                Wanted::all(&texts, &["type", "event", "image", "label", "container", "volume"]).unwrap();
            assert_eq!(fits(&event, &wanted), want, "{filters:?}");
        }
    }
}
