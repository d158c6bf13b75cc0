//! Text of a template to its tree. Pure.

use super::{CliError, FUNCTIONS, bad};
use serde_json::Value;

/// A piece of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipe),
    Set(String, Pipe),
    If(Pipe, Vec<Node>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
    /// Names for key and value.
    Range(Option<String>, Option<String>, Pipe, Vec<Node>, Vec<Node>),
}

/// Commands, each of which gets the value of the one before as its last argument.
#[derive(Debug)]
pub(super) struct Pipe(pub(super) Vec<Command>);

/// A function or a value, and arguments.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) function: Option<String>,
    pub(super) words: Vec<Word>,
}

/// A value.
#[derive(Debug)]
pub(super) enum Word {
    Literal(Value),
    /// Fields from the dot down.
    Field(Vec<String>),
    /// A variable, `$` alone has no name, and fields from there.
    Variable(String, Vec<String>),
    Group(Pipe, Vec<String>),
}

impl Pipe {
    /// Names the field that is printed, for the head of a table.
    pub(super) fn last_field(&self) -> Option<String> {
        let field = |word: &Word| match word {
            Word::Field(path) | Word::Variable(_, path) | Word::Group(_, path) => path.last().cloned(),
            Word::Literal(_) => None,
        };
        let words = &self.0.first()?.words;
        // `.Label "x"` is headed by x
        match &words[..] {
            [Word::Field(path), Word::Literal(Value::String(name))]
                if path.len() == 1 && path[0] == "Label" =>
            {
                Some(name.clone())
            }
            words => words.iter().find_map(field),
        }
    }
}

/// Reads a template.
pub(super) fn template(text: &str) -> Result<Vec<Node>, CliError> {
    let mut reader = Reader { rest: text };
    let (nodes, end) = reader.nodes()?;
    match end {
        None => Ok(nodes),
        Some(word) => Err(bad(&format!("{{{{{word}}}}} without {{{{if}}}}, {{{{with}}}} or {{{{range}}}}"))),
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    /// Reads to the end of the text or to an `end` or `else ...`, which is given.
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<String>), CliError> {
        let mut nodes = Vec::new();
        while let Some((before, after)) = self.rest.split_once("{{") {
            let close = end_of_action(after).ok_or_else(|| bad("}} is missing"))?;
            let (inside, after) = (&after[..close], &after[close + 2..]);
            let before = if inside.starts_with("- ") { before.trim_end() } else { before };
            self.rest = if inside.ends_with(" -") { after.trim_start() } else { after };
            if !before.is_empty() {
                nodes.push(Node::Text(before.to_owned()));
            }
            let inside = inside.strip_prefix("- ").unwrap_or(inside);
            let inside = inside.strip_suffix(" -").unwrap_or(inside).trim().to_owned();
            if inside.starts_with("/*") && inside.ends_with("*/") {
                continue;
            }
            if inside == "end" || inside == "else" || inside.starts_with("else ") {
                return Ok((nodes, Some(inside)));
            }
            nodes.push(self.action(&inside)?);
        }
        if !self.rest.is_empty() {
            nodes.push(Node::Text(std::mem::take(&mut self.rest).to_owned()));
        }
        Ok((nodes, None))
    }

    fn action(&mut self, inside: &str) -> Result<Node, CliError> {
        let (word, rest) = inside.split_once(' ').unwrap_or((inside, ""));
        match word {
            "if" | "with" => {
                let pipe = pipe(rest)?;
                let (yes, no) = self.branches()?;
                Ok(if word == "if" { Node::If(pipe, yes, no) } else { Node::With(pipe, yes, no) })
            }
            "range" => {
                let (names, rest) = match rest.split_once(":=") {
                    Some((names, rest)) => (names.split(',').map(str::trim).collect(), rest),
                    None => (Vec::new(), rest),
                };
                let name = |text: &str| match text.strip_prefix('$') {
                    Some(name) if is_word(name) => Ok(name.to_owned()),
                    _ => Err(bad(&format!("{text:?} is no variable"))),
                };
                let (key, value) = match names[..] {
                    [] => (None, None),
                    [value] => (None, Some(name(value)?)),
                    [key, value] => (Some(name(key)?), Some(name(value)?)),
                    _ => return Err(bad("range has at most two variables")),
                };
                let pipe = pipe(rest)?;
                let (each, none) = self.branches()?;
                Ok(Node::Range(key, value, pipe, each, none))
            }
            _ => match inside.split_once(":=") {
                Some((name, value)) if name.trim().strip_prefix('$').is_some_and(is_word) => {
                    Ok(Node::Set(name.trim()[1..].to_owned(), pipe(value)?))
                }
                _ => Ok(Node::Print(pipe(inside)?)),
            },
        }
    }

    /// Reads to the end of a block.
    fn branches(&mut self) -> Result<(Vec<Node>, Vec<Node>), CliError> {
        let missing = || bad("{{end}} is missing");
        let (yes, end) = self.nodes()?;
        let end = end.ok_or_else(missing)?;
        if end == "end" {
            return Ok((yes, Vec::new()));
        }
        match end.strip_prefix("else").map(str::trim) {
            Some("") => {
                let (no, end) = self.nodes()?;
                if end.as_deref() == Some("end") { Ok((yes, no)) } else { Err(missing()) }
            }
            // the block that follows ends this one too
            Some(again) => Ok((yes, vec![self.action(again)?])),
            None => Err(missing()),
        }
    }
}

/// Finds the end of an action; `}}` inside quotation marks is none.
fn end_of_action(text: &str) -> Option<usize> {
    let (bytes, mut quote, mut at) = (text.as_bytes(), None, 0);
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(b'"'), b'\\') => at += 1,
            (Some(mark), byte) if mark == byte => quote = None,
            (Some(_), _) => {}
            (None, mark @ (b'"' | b'`')) => quote = Some(mark),
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn pipe(text: &str) -> Result<Pipe, CliError> {
    let mut words = Words { text, rest: text };
    let pipe = words.pipe()?;
    words.skip();
    if words.rest.is_empty() { Ok(pipe) } else { Err(words.unknown()) }
}

struct Words<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn unknown(&self) -> CliError {
        bad(&format!("{{{{{}}}}} is not understood", self.text.trim()))
    }

    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn pipe(&mut self) -> Result<Pipe, CliError> {
        let mut commands = vec![self.command()?];
        loop {
            self.skip();
            let Some(rest) = self.rest.strip_prefix('|') else { return Ok(Pipe(commands)) };
            self.rest = rest;
            commands.push(self.command()?);
        }
    }

    fn command(&mut self) -> Result<Command, CliError> {
        self.skip();
        let name = self.take(|b| b.is_ascii_alphanumeric() || b == b'_');
        let function = match name {
            "" => None,
            "true" | "false" | "nil" => {
                let value = match name {
                    "nil" => Value::Null,
                    word => Value::Bool(word == "true"),
                };
                return Ok(Command { function: None, words: vec![Word::Literal(value)] });
            }
            name if FUNCTIONS.contains(&name) => Some(name.to_owned()),
            number if number.bytes().all(|b| b.is_ascii_digit()) => {
                self.rest = &self.text[self.text.len() - self.rest.len() - number.len()..];
                None
            }
            _ => return Err(self.unknown()),
        };
        let mut words = Vec::new();
        while let Some(word) = self.word()? {
            words.push(word);
        }
        if function.is_none() && words.is_empty() {
            Err(self.unknown())
        } else {
            Ok(Command { function, words })
        }
    }

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let end = self.rest.bytes().position(|b| !wanted(b)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// Reads `.A.B` as far as it goes.
    fn path(&mut self) -> Vec<String> {
        let mut path = Vec::new();
        while let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            let field = self.take(|b| b.is_ascii_alphanumeric() || b == b'_');
            if field.is_empty() {
                break;
            }
            path.push(field.to_owned());
        }
        path
    }

    fn word(&mut self) -> Result<Option<Word>, CliError> {
        self.skip();
        let Some(first) = self.rest.bytes().next() else { return Ok(None) };
        Ok(Some(match first {
            b'|' | b')' => return Ok(None),
            b'.' => Word::Field(self.path()),
            b'$' => {
                self.rest = &self.rest[1..];
                let name = self.take(|b| b.is_ascii_alphanumeric() || b == b'_').to_owned();
                Word::Variable(name, self.path())
            }
            b'(' => {
                self.rest = &self.rest[1..];
                let pipe = self.pipe()?;
                self.skip();
                self.rest = self.rest.strip_prefix(')').ok_or_else(|| self.unknown())?;
                Word::Group(pipe, self.path())
            }
            b'"' | b'`' => self.text_literal(first)?,
            b'-' | b'0'..=b'9' => {
                let number = self.take(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.'));
                Word::Literal(serde_json::from_str(number).map_err(|_| self.unknown())?)
            }
            _ => match self.take(|b| b.is_ascii_alphanumeric() || b == b'_') {
                "true" => Word::Literal(true.into()),
                "false" => Word::Literal(false.into()),
                "nil" => Word::Literal(Value::Null),
                _ => return Err(self.unknown()),
            },
        }))
    }

    fn text_literal(&mut self, mark: u8) -> Result<Word, CliError> {
        let bytes = self.rest.as_bytes();
        let mut at = 1;
        while bytes.get(at).is_some_and(|b| *b != mark) {
            at += if bytes[at] == b'\\' && mark == b'"' { 2 } else { 1 };
        }
        if at >= bytes.len() {
            return Err(bad("a quotation mark is not closed"));
        }
        let (inside, rest) = (&self.rest[1..at], &self.rest[at + 1..]);
        self.rest = rest;
        if mark == b'`' {
            return Ok(Word::Literal(inside.into()));
        }
        // tabs and line ends have become what they stand for already
        let quoted = format!("\"{}\"", inside.replace('\t', "\\t").replace('\n', "\\n"));
        Ok(Word::Literal(serde_json::from_str(&quoted).map_err(|_| self.unknown())?))
    }
}
