//! The `--name=value` flags between a keyword and its arguments.
//!
//! pest cuts the flags out and removes their quotes; what a flag may be depends on the instruction, which takes the
//! ones it knows from [`Flags`] and then calls [`Flags::finish`]. An instruction that ignores its flags, as a few
//! do in the reference builder, does not ask.

use super::diagnostic::Diagnostic;
use super::grammar::{Node, Rule};
use super::span::{Span, Text, TextBuilder};
use crate::suggest::nearest;

/// One flag as written, quotes and escapes removed.
#[derive(Clone, Debug)]
struct Flag {
    name: String,
    value: Option<Text>,
    /// `--name`
    name_span: Span,
    span: Span,
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Takes {
    /// Nothing, `true` or `false`.
    Bool,
    /// A value, once.
    Value,
    /// A value, any number of times.
    Values,
}

/// The flags of one instruction.
#[derive(Clone, Debug, Default)]
pub(super) struct Flags {
    flags: Vec<Flag>,
}

impl Flags {
    /// Takes up a `flag` node of the logical line `line`.
    pub(super) fn push(&mut self, line: &Text, node: Node<'_>) {
        let whole = node.as_span();
        let span = line.span_of(whole.start()..whole.end());
        let mut cooked = TextBuilder::default();
        for part in node.into_inner() {
            cooked.push_from(line, part.as_span().start()..part.as_span().end());
        }
        let text = cooked.finish(span.start);
        let name_end = text.as_str().find('=').unwrap_or(text.as_str().len());
        let value = text.as_str().get(name_end + 1..).map(|value| {
            let value_start = text.as_str().len() - value.len();
            let value = text.slice(value_start..text.as_str().len());
            if value.is_empty() { value.with_span(Span::new(span.end, span.end)) } else { value }
        });
        let name = text.as_str()[..name_end].to_owned();
        self.flags.push(Flag { name, value, name_span: text.span_of(0..name_end), span });
    }

    /// Checks all flags against those that the instruction knows.
    pub(super) fn check(&self, keyword: &str, known: &[(&str, Takes)]) -> Result<(), Diagnostic> {
        for (at, flag) in self.flags.iter().enumerate() {
            let bare = flag.name.trim_start_matches('-');
            let found = known.iter().find(|(name, _)| flag.name.strip_prefix("--") == Some(name));
            let Some((_, takes)) = found else {
                return Err(unknown(flag, bare, keyword, known));
            };
            let earlier = self.flags[..at].iter().find(|earlier| earlier.name == flag.name);
            if let (Some(earlier), Takes::Bool | Takes::Value) = (earlier, takes) {
                let message = format!("duplicate flag specified: {}", flag.name);
                return Err(Diagnostic::new("rbuild::duplicate_flag", message)
                    .label(flag.span, "second time")
                    .label(earlier.span, "first time")
                    .help(format!("give {} once", flag.name)));
            }
            flag.check_value(*takes)?;
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<&Flag> {
        self.flags.iter().find(|flag| flag.name.strip_prefix("--") == Some(name))
    }

    /// Gives the value of a flag.
    pub(super) fn value(&self, name: &str) -> Option<Text> {
        self.find(name)?.value.clone()
    }

    /// Gives the values of a flag that may be repeated.
    pub(super) fn values(&self, name: &str) -> Vec<Text> {
        let own = self.flags.iter().filter(|flag| flag.name.strip_prefix("--") == Some(name));
        own.filter_map(|flag| flag.value.clone()).collect()
    }

    /// Gives the setting of a checked boolean flag, when it is there.
    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        let flag = self.find(name)?;
        Some(flag.value.as_ref().is_none_or(|value| value.as_str().eq_ignore_ascii_case("true")))
    }

    /// Gives the place of a flag.
    pub(super) fn span(&self, name: &str) -> Option<Span> {
        self.find(name).map(|flag| flag.span)
    }
}

impl Flag {
    fn check_value(&self, takes: Takes) -> Result<(), Diagnostic> {
        let missing = |form: &str| {
            let message = format!("missing a value on flag: {}", self.name);
            Err(Diagnostic::new("rbuild::missing_value", message)
                .at(self.span)
                .help(format!("write {}{form}, without blanks around the equals sign", self.name)))
        };
        match (takes, &self.value) {
            (Takes::Bool, None) => Ok(()),
            (Takes::Value | Takes::Values, None) => missing("=VALUE"),
            (Takes::Bool, Some(value)) if value.is_empty() => missing("=true"),
            (Takes::Bool, Some(value))
                if !matches!(&*value.as_str().to_ascii_lowercase(), "true" | "false") =>
            {
                let message = format!("expecting boolean value for flag {}, not: {value}", self.name);
                Err(Diagnostic::new("rbuild::bad_value", message)
                    .at(value.span())
                    .help(format!("write {0}, {0}=true or {0}=false", self.name)))
            }
            _ => Ok(()),
        }
    }
}

fn unknown(flag: &Flag, bare: &str, keyword: &str, known: &[(&str, Takes)]) -> Diagnostic {
    let error =
        Diagnostic::new("rbuild::unknown_flag", format!("unknown flag: {}", flag.name)).at(flag.name_span);
    match nearest(bare, known.iter().map(|(name, _)| *name)) {
        Some(near) => error.help(format!("did you mean --{near}?")),
        None if known.is_empty() => error.help(format!(
            "{keyword} takes no flags; put `--` before an argument that begins with two dashes"
        )),
        None => {
            let names: Vec<String> = known.iter().map(|(name, _)| format!("--{name}")).collect();
            error.help(format!("{keyword} takes {}", names.join(", ")))
        }
    }
}

/// Tells whether a node is a flag.
pub(super) fn is_flag(node: &Node<'_>) -> bool {
    node.as_rule() == Rule::flag
}
