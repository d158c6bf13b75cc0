//! `--format`: Go's templates as people use them with docker, on JSON values.
//!
//! All of Go's language is here: text, fields, variables, pipelines, `if`, `range`, `with`, `break`, `define` and `template`, its
//! functions and docker's own. What a template prints, and the words of an error, are those that docker's users know; only
//! channels and methods of Go's types are not there. Docker has typed structures where rbuild has JSON: [`value`] tells them apart by
//! the names of their fields.

mod eval;
mod functions;
mod lex;
mod parse;
mod printf;
mod value;

use super::CliError;
use eval::Missing;
use parse::Tree;
use serde_json::Value;
use value::Val;

/// Exit code of commands that show one thing when their template cannot be read.
const BAD_TEMPLATE: u8 = 64;

/// A parsed `--format`.
#[derive(Debug)]
pub(super) struct Template {
    tree: Tree,
    /// `table ...`: a head line and aligned columns.
    pub(super) table: bool,
}

fn bad(what: &str) -> CliError {
    CliError::new(format!("template parsing error: template: {what}"))
}

impl Template {
    /// Reads the template of a list: `json` is short for `{{json .}}`, `table` asks for a head, `\t` and `\n` are a tab and a line end.
    pub(super) fn parse(text: &str) -> Result<Self, CliError> {
        let (table, text) = match text.strip_prefix("table") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let text = if text == "json" && !table { "{{json .}}" } else { text.trim_matches(' ') };
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let tree = parse::tree(&text).map_err(|what| bad(&what))?;
        Ok(Self { tree, table })
    }

    /// Reads the template of one thing, which has no table and no escapes; one that cannot be read ends with code 64.
    pub(super) fn single(text: &str) -> Result<Self, CliError> {
        let text = if text == "json" { "{{json .}}" } else { text };
        let tree = parse::tree(text).map_err(|what| bad(&what).code(BAD_TEMPLATE))?;
        Ok(Self { tree, table: false })
    }

    /// Fills in what describes one thing, as `inspect` does.
    pub(super) fn render(&self, value: &Value) -> Result<String, CliError> {
        eval::render(&self.tree, &Val::of(value), Missing::Key).map_err(|what| bad(&what))
    }

    /// The same; a field that is not there is not in the type `of`.
    pub(super) fn render_of(&self, value: &Value, of: &str) -> Result<String, CliError> {
        eval::render(&self.tree, &Val::of(value), Missing::Field(of)).map_err(|what| bad(&what))
    }

    /// Fills in a line of a list; `of` is the word for its kind in errors.
    pub(super) fn render_row(&self, value: &Value, of: &str) -> Result<String, CliError> {
        eval::render(&self.tree, &Val::row(value), Missing::Field(of)).map_err(|what| bad(&what))
    }

    /// Gives the head of a table: the same template with the titles of the fields in it.
    pub(super) fn head(&self, title: &dyn Fn(&str) -> String) -> String {
        eval::head(&self.tree, title)
    }

    /// Says whether the template asks for a field.
    pub(super) fn asks_for(&self, field: &str) -> bool {
        self.tree.fields.contains(field) || self.tree.fields.contains("")
    }
}

#[cfg(test)]
mod tests;
