//! What the prune commands share: the question, the filters, the answer.

use super::{CliError, Ctx};
use crate::build;
use crate::gc::{Collector, Pruned};
use crate::image::{Filter, Image, Removed, parse_time};
use crate::runtime::Containers;
use std::collections::HashSet;
use std::io::BufRead;

/// Makes the collector of a store.
pub(super) fn collector(ctx: &Ctx) -> Result<Collector, CliError> {
    let (store, snapshots, images) = ctx.open()?;
    let records = build::records(&store);
    Ok(Collector::new(store, snapshots, images, records))
}

/// Gives the ID of each container's image.
pub(super) fn images_in_use(ctx: &Ctx) -> Result<Vec<String>, CliError> {
    let (store, ..) = ctx.open()?;
    let containers = Containers::new(&store).list()?;
    Ok(containers.iter().flat_map(|container| container.record.images().map(str::to_owned)).collect())
}

/// Asks before something is removed. Only `y` on standard input is yes; its end is no.
pub(super) fn confirm(what: &str, warning: &str, force: bool) -> Result<(), CliError> {
    if force {
        return Ok(());
    }
    super::talk(&format!("WARNING! {warning}\nAre you sure you want to continue? [y/N] "));
    let mut answer = String::new();
    // what cannot be read is no yes
    let _ = std::io::stdin().lock().read_line(&mut answer);
    if answer.trim().eq_ignore_ascii_case("y") {
        return Ok(());
    }
    if !answer.ends_with('\n') {
        super::talk("\n");
    }
    Err(CliError::new(format!("{what} has been cancelled")).hint("-f removes without asking"))
}

/// The `--filter`s of the prune commands.
#[derive(Debug, Default)]
pub(super) struct Filters {
    /// Only older than this, in seconds since the epoch.
    pub(super) until: Option<i64>,
    labels: Vec<Filter>,
    without_labels: Vec<Filter>,
    dangling: Option<bool>,
}

impl Filters {
    /// Reads `KEY=VALUE`s; `known` are the keys that the command takes.
    pub(super) fn parse(texts: &[String], known: &[&str], now: i64) -> Result<Self, CliError> {
        let mut out = Self::default();
        for text in texts {
            let bad = |why: String| CliError::new(format!("--filter {text:?}: {why}"));
            let (key, value) = super::listing::split_filter(text)?;
            let bare = key.strip_suffix('!').unwrap_or(&key);
            if !known.contains(&bare) || (bare != key && bare != "label") {
                return Err(super::listing::unknown_filter(&key, &known.join(", ")));
            }
            match key.as_str() {
                "until" => out.until = Some(until(value, now).map_err(bad)?),
                "label" => out.labels.push(label(value)),
                "label!" => out.without_labels.push(label(value)),
                "dangling" => match value {
                    "true" | "1" => out.dangling = Some(true),
                    "false" | "0" => out.dangling = Some(false),
                    _ => return Err(bad("expected true or false".into())),
                },
                _ => return Err(bad("unknown filter".into())),
            }
        }
        Ok(out)
    }

    /// Says whether labels fit.
    pub(super) fn labels_fit(&self, labels: &std::collections::BTreeMap<String, String>) -> bool {
        let has = |filter: &Filter| match filter {
            Filter::Label(key, value) => {
                labels.get(key).is_some_and(|found| value.as_ref().is_none_or(|wanted| wanted == found))
            }
            _ => true,
        };
        self.labels.iter().all(has) && !self.without_labels.iter().any(has)
    }

    /// Says whether an image may go: dangling unless `all`, old enough, with the right labels, and not in use.
    pub(super) fn takes(&self, image: &Image, all: bool, in_use: &HashSet<String>) -> bool {
        let dangling_only = self.dangling.unwrap_or(!all);
        (image.names.is_empty() || !dangling_only)
            && self.until.is_none_or(|until| image.created().is_some_and(|created| created < until))
            && self.labels.iter().all(|label| image.passes(label))
            && !self.without_labels.iter().any(|label| image.passes(label))
            && !image.ids().iter().any(|id| in_use.contains(&id.to_string()))
    }
}

fn label(text: &str) -> Filter {
    match text.split_once('=') {
        Some((key, value)) => Filter::Label(key.into(), Some(value.into())),
        None => Filter::Label(text.into(), None),
    }
}

/// Reads a point in time: a duration before now as Go writes it, seconds since 1970, or a date with or without time.
pub(super) fn until(text: &str, now: i64) -> Result<i64, String> {
    let bad =
        || format!("{text:?} is neither a duration such as 24h nor a time such as 2006-01-02T15:04:05Z");
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(seconds);
    }
    if let Some(ago) = crate::dockerfile::parse_duration(text) {
        return Ok(now.saturating_sub(i64::try_from(ago.as_secs()).unwrap_or(i64::MAX)));
    }
    let full = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        19 => format!("{text}Z"),
        _ => text.to_owned(),
    };
    parse_time(&full).ok_or_else(bad)
}

/// Says which images went.
pub(super) fn images_text(removed: &[Removed]) -> String {
    if removed.is_empty() {
        return String::new();
    }
    let lines: String = removed.iter().map(super::rmi::line).collect();
    format!("Deleted Images:\n{lines}\n")
}

/// Says which build cache went.
pub(super) fn cache_text(pruned: &Pruned) -> String {
    if pruned.items.is_empty() {
        return String::new();
    }
    let line = |id: &String| format!("{}\n", id.get(..25).unwrap_or(id));
    let lines: String = pruned.items.iter().map(|item| line(&item.id)).collect();
    format!("Deleted build cache objects:\n{lines}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dockers() {
        let now = 1_000_000_000;
        for (text, want) in [
            ("24h", now - 86_400),
            ("1h30m", now - 5400),
            ("0s", now),
            ("1136214245", 1_136_214_245),
            ("2006-01-02T15:04:05Z", 1_136_214_245),
            ("2006-01-02T15:04:05", 1_136_214_245),
            ("2006-01-02", 1_136_160_000),
            ("2006-01-02T17:04:05+02:00", 1_136_214_245),
        ] {
            assert_eq!(until(text, now), Ok(want), "{text}");
        }
        for text in ["", "x", "24 h", "1d", "2006-13-01", "-1h"] {
            assert!(until(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn filters_are_checked() {
        let parse = |text: &str| Filters::parse(&[text.to_owned()], &["until", "label"], 0);
        assert_eq!(parse("until=10").unwrap().until, Some(10));
        assert_eq!(parse("label=a=b").unwrap().labels, [Filter::Label("a".into(), Some("b".into()))]);
        assert_eq!(parse("label!=a").unwrap().without_labels, [Filter::Label("a".into(), None)]);
        for text in ["until", "until!=10", "dangling=true", "what=x", "until=soon"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
