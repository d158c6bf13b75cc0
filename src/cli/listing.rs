//! What the lists of networks and volumes share: filters by label, the table, templates.

use super::image_commands::list_with;
use super::table::table;
use super::template::Template;
use super::{CliError, Ctx};
use serde_json::Value;
use std::collections::BTreeMap;

/// How a list is printed.
#[derive(Debug, clap::Args)]
pub(super) struct Look {
    /// Print with a template, as a table, or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only the names or ids
    #[arg(short, long)]
    quiet: bool,
}

impl Look {
    /// Prints rows; `columns` are the fields of the table, the first one is what `--quiet` shows. `of` is docker's name for a
    /// row, for errors.
    pub(super) fn print(
        &self,
        ctx: &Ctx,
        rows: &[Value],
        columns: &[&str],
        title: &dyn Fn(&str) -> String,
        of: &str,
    ) -> Result<(), CliError> {
        self.print_with(ctx, rows, columns, columns[0], title, of)
    }

    /// The same, with the field that `--quiet` shows.
    pub(super) fn print_with(
        &self,
        ctx: &Ctx,
        rows: &[Value],
        columns: &[&str],
        quiet: &str,
        title: &dyn Fn(&str) -> String,
        of: &str,
    ) -> Result<(), CliError> {
        let cell = |row: &Value, column: &str| row[column].as_str().unwrap_or_default().to_owned();
        let text = match self.format.as_deref().filter(|format| *format != "table") {
            Some("raw") => list_with(&Template::parse(raw(of, self.quiet))?, rows, title, of)?,
            Some(format) => list_with(&Template::parse(format)?, rows, title, of)?,
            None if self.quiet => rows.iter().map(|row| cell(row, quiet) + "\n").collect(),
            None => {
                let head = vec![columns.iter().map(|column| title(column)).collect::<Vec<String>>()];
                let body = rows.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect());
                table(&head.into_iter().chain(body).collect::<Vec<_>>())
            }
        };
        ctx.out.text(&text)
    }
}

/// The form that docker calls raw.
fn raw(of: &str, quiet: bool) -> &'static str {
    match (of.contains("network"), quiet) {
        (true, true) => "network_id: {{.ID}}",
        (true, false) => "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n",
        (false, true) => "name: {{.Name}}",
        (false, false) => "name: {{.Name}}\ndriver: {{.Driver}}\n",
    }
}

/// One `--filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) key: String,
    pub(super) value: String,
}

impl Wanted {
    /// Reads them; `known` are the keys that the command takes.
    pub(super) fn all(texts: &[String], known: &[&str]) -> Result<Vec<Self>, CliError> {
        let one = |text: &String| {
            let (key, value) = split_filter(text)?;
            if !known.contains(&key.as_str()) {
                return Err(unknown_filter(&key, &known.join(", ")));
            }
            Ok(Self { key, value: value.to_owned() })
        };
        texts.iter().map(one).collect()
    }

    /// Reads the value as yes or no.
    pub(super) fn truth(&self) -> Result<bool, CliError> {
        match self.value.as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => {
                Err(CliError::new(format!("invalid filter '{}={other}'", self.key))
                    .hint("it is true or false"))
            }
        }
    }

    /// Says whether a text is the value, or fits it as a regular expression, as docker looks for names and ids.
    pub(super) fn matches(&self, text: &str) -> Result<bool, CliError> {
        if self.value == text {
            return Ok(true);
        }
        let pattern = regex::Regex::new(&self.value)
            .map_err(|e| CliError::new(format!("invalid filter {}={}: {e}", self.key, self.value)))?;
        Ok(pattern.is_match(text))
    }

    /// Says whether labels have `KEY` or `KEY=VALUE`.
    pub(super) fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        match self.value.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
            None => labels.contains_key(&self.value),
        }
    }
}

/// Cuts a `--filter` as docker does, which does not mind blanks around its parts and capitals in its key.
pub(super) fn split_filter(text: &str) -> Result<(String, &str), CliError> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        CliError::new(format!("invalid filter {text:?}: bad format of filter (expected name=value)"))
            .code(125)
    })?;
    Ok((key.trim().to_ascii_lowercase(), value.trim()))
}

/// Makes the error about a filter that there is not; `known` are those that there are.
pub(super) fn unknown_filter(key: &str, known: &str) -> CliError {
    CliError::new(format!("invalid filter '{key}'")).hint(format!("the filters here are {known}"))
}

/// Says whether all filters of some kinds have one that fits: several of one kind are alternatives, as docker has it, but
/// labels must all be there.
pub(super) fn pass(
    wanted: &[Wanted],
    fits: &dyn Fn(&Wanted) -> Result<bool, CliError>,
) -> Result<bool, CliError> {
    let mut kinds: BTreeMap<&str, bool> = BTreeMap::new();
    for one in wanted {
        let fit = fits(one)?;
        let kind = kinds.entry(one.key.as_str()).or_insert(one.key.starts_with("label"));
        *kind = if one.key.starts_with("label") { *kind && fit } else { *kind || fit };
    }
    Ok(kinds.values().all(|fit| *fit))
}

/// Writes labels as docker lists them.
pub(super) fn labels_text(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Reads `KEY=VALUE` flags; a key without a value has an empty one.
pub(super) fn pairs(texts: &[String]) -> BTreeMap<String, String> {
    texts
        .iter()
        .map(|text| {
            let (key, value) = super::values::pair(text);
            (key, value.unwrap_or_default())
        })
        .collect()
}

/// Succeeds, or fails with all that went wrong.
pub(super) fn finish(mut failed: Vec<CliError>) -> super::CommandResult {
    match failed.len() {
        0 => Ok(std::process::ExitCode::SUCCESS),
        1 => Err(failed.remove(0)),
        _ => Err(CliError::new(failed.iter().map(|e| e.message.as_str()).collect::<Vec<_>>().join("\n"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_alternatives_but_labels() {
        let wanted = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
            Wanted::all(&texts, &["name", "label"])
        };
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
        let check = |texts: &[&str]| {
            let fits =
                |one: &Wanted| Ok(if one.key == "name" { one.value == "x" } else { one.fits(&labels) });
            pass(&wanted(texts).unwrap(), &fits).unwrap()
        };
        assert!(check(&[]) && check(&["name=x", "name=y"]) && check(&["label=a=1", "label=b"]));
        assert!(!check(&["name=y"]) && !check(&["label=a", "label=c"]) && !check(&["name=x", "label=a=2"]));
        assert!(wanted(&["what=1"]).is_err() && wanted(&["name"]).is_err());
    }
}
