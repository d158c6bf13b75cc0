//! Fills a template's tree in with a value. Pure.

use super::functions::{self, Fault};
use super::parse::{Command, Node, Pipe, Tree, What, Word};
use super::value::{OMITTED, Val, left_out};
use std::ops::ControlFlow;

/// Templates may call each other, but not for ever.
const DEEPEST: usize = 200;

/// What an error says about a field that is not there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Missing<'a> {
    /// That the map has no such key, as `inspect` does.
    Key,
    /// That the type of this name has no such field, as lists do.
    Field(&'a str),
}

struct Scope<'a> {
    tree: &'a Tree,
    missing: Missing<'a>,
    /// Gives the titles while the head of a table is made.
    title: Option<&'a dyn Fn(&str) -> String>,
    variables: Vec<(String, Val)>,
    out: String,
    depth: usize,
}

/// Gives the text.
pub(super) fn render(tree: &Tree, value: &Val, missing: Missing) -> Result<String, String> {
    let variables = vec![(String::new(), value.clone())];
    let mut scope = Scope { tree, missing, title: None, variables, out: String::new(), depth: 0 };
    let _ = scope.nodes(&tree.nodes, value)?;
    Ok(scope.out)
}

/// Gives the head of a table; where the template cannot work on titles it ends.
pub(super) fn head(tree: &Tree, title: &dyn Fn(&str) -> String) -> String {
    let variables = vec![(String::new(), Val::Head)];
    let missing = Missing::Key;
    let mut scope = Scope { tree, missing, title: Some(title), variables, out: String::new(), depth: 0 };
    let _ = scope.nodes(&tree.nodes, &Val::Head);
    scope.out
}

/// `break` leaves the innermost `range`, `continue` its round.
enum Jump {
    Break,
    Continue,
}

type Flow = Result<ControlFlow<Jump>, String>;

impl Scope<'_> {
    /// Makes an error with its place and the text that is there.
    fn fail<T>(&self, pos: usize, text: &str, what: impl std::fmt::Display) -> Result<T, String> {
        let before = self.tree.text.get(..pos).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        let column = before.rfind('\n').map_or(pos, |end| pos - end - 1);
        Err(format!(":{line}:{column}: executing \"\" at <{text}>: {what}"))
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Val) -> Flow {
        let known = self.variables.len();
        for node in nodes {
            if let ControlFlow::Break(jump) = self.node(node, dot)? {
                self.variables.truncate(known);
                return Ok(ControlFlow::Break(jump));
            }
        }
        self.variables.truncate(known);
        Ok(ControlFlow::Continue(()))
    }

    fn node(&mut self, node: &Node, dot: &Val) -> Flow {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.names.is_empty() {
                    self.out.push_str(&value.show());
                }
            }
            Node::If(pipe, yes, no) => {
                let known = self.variables.len();
                let truth = self.pipe(pipe, dot)?.truth();
                let flow = self.nodes(if truth { yes } else { no }, dot);
                self.variables.truncate(known);
                return flow;
            }
            Node::With(pipe, yes, no) => {
                let known = self.variables.len();
                let value = self.pipe(pipe, dot)?;
                let flow = if value.truth() { self.nodes(yes, &value) } else { self.nodes(no, dot) };
                self.variables.truncate(known);
                return flow;
            }
            Node::Range(pipe, each, none) => return self.range(pipe, each, none, dot),
            Node::Break => return Ok(ControlFlow::Break(Jump::Break)),
            Node::Continue => return Ok(ControlFlow::Break(Jump::Continue)),
            Node::Call(name, pos, pipe) => self.template(name, *pos, pipe.as_ref(), dot)?,
        }
        Ok(ControlFlow::Continue(()))
    }

    fn template(&mut self, name: &str, pos: usize, pipe: Option<&Pipe>, dot: &Val) -> Result<(), String> {
        let text = format!("{{{{template {name:?}}}}}");
        let tree = self.tree;
        let Some(nodes) = tree.named.get(name) else {
            return self.fail(pos, &text, format!("template {name:?} not defined"));
        };
        if self.depth == DEEPEST {
            return self.fail(pos, &text, format!("exceeded maximum template depth ({DEEPEST})"));
        }
        let value = pipe.map_or(Ok(Val::Nil), |pipe| self.pipe(pipe, dot))?;
        let variables = std::mem::replace(&mut self.variables, vec![(String::new(), value.clone())]);
        self.depth += 1;
        let flow = self.nodes(nodes, &value);
        self.depth -= 1;
        self.variables = variables;
        flow.map(|_| ())
    }

    fn range(&mut self, pipe: &Pipe, each: &[Node], none: &[Node], dot: &Val) -> Flow {
        let known = self.variables.len();
        let value = self.values(pipe, dot)?;
        let items: Vec<(Val, Val)> = match value {
            Val::List(items) => {
                items.into_iter().enumerate().map(|(n, v)| (Val::Int(n as i128), v)).collect()
            }
            Val::Map(pairs, _) => pairs.into_iter().map(|(k, v)| (Val::Str(k), v)).collect(),
            Val::Nil | Val::NoValue | Val::NilList | Val::NilMap(_) => Vec::new(),
            // docker falls back on the JSON, where it is a map
            Val::Struct(fields) if matches!(self.missing, Missing::Key) => {
                fields.into_iter().map(|(k, v)| (Val::Str(k), v)).collect()
            }
            Val::Int(n) => (0..n.clamp(0, 1 << 20)).map(|n| (Val::Int(n), Val::Int(n))).collect(),
            other => {
                let (pos, text) = pipe
                    .commands
                    .last()
                    .map_or((0, String::new()), |command| (command.words[0].pos, command.text()));
                return self.fail(pos, &text, format!("range can't iterate over {}", other.show()));
            }
        };
        if items.is_empty() {
            return self.nodes(none, dot);
        }
        for (key, item) in items {
            match &pipe.names[..] {
                [one] => self.set(one, item.clone(), pipe.assigns),
                [first, second] => {
                    self.set(first, key, pipe.assigns);
                    self.set(second, item.clone(), pipe.assigns);
                }
                _ => {}
            }
            let flow = self.nodes(each, &item)?;
            self.variables.truncate(known);
            if matches!(flow, ControlFlow::Break(Jump::Break)) {
                break;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn set(&mut self, name: &str, value: Val, assigns: bool) {
        match self.variables.iter_mut().rev().find(|(known, _)| assigns && known == name) {
            Some((_, old)) => *old = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Val) -> Result<Val, String> {
        let value = self.values(pipe, dot)?;
        for name in &pipe.names {
            self.set(name, value.clone(), pipe.assigns);
        }
        Ok(value)
    }

    fn values(&mut self, pipe: &Pipe, dot: &Val) -> Result<Val, String> {
        let mut last = None;
        for command in &pipe.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.unwrap_or(Val::Nil))
    }

    fn command(&mut self, command: &Command, dot: &Val, last: Option<Val>) -> Result<Val, String> {
        let first = &command.words[0];
        let alone = command.words.len() == 1 && last.is_none();
        match &first.what {
            What::Function(name) => self.function(name, command, dot, last),
            What::Nil => self.fail(first.pos, &first.text, "nil is not a command"),
            What::Field(path) if path.len() == 1 && path[0] == "Label" && !alone => {
                // a method of docker's lines
                let mut args = command.words[1..]
                    .iter()
                    .map(|word| self.word(word, dot))
                    .collect::<Result<Vec<_>, _>>()?;
                args.extend(last);
                let name = args.first().map(Val::show).unwrap_or_default();
                Ok(Val::Str(self.label(dot, &name)))
            }
            What::Field(path) | What::Variable(_, path) if !alone && !path.is_empty() => {
                let name = path.last().map(String::as_str).unwrap_or_default();
                self.fail(first.pos, &first.text, format!("{name} is not a method but has arguments"))
            }
            _ if !alone => self.fail(
                first.pos,
                &first.text,
                format!("can't give argument to non-function {}", first.text),
            ),
            _ => self.word(first, dot),
        }
    }

    fn label(&self, dot: &Val, name: &str) -> String {
        if self.title.is_some() {
            // docker's head for a label: what is after its last dot
            return name.rsplit('.').next().unwrap_or_default().replace(['-', '_'], " ");
        }
        match find(dot, "LabelMap") {
            Some(labels) => find(&labels, name).map(|value| value.show()).unwrap_or_default(),
            None => String::new(),
        }
    }

    fn function(
        &mut self,
        name: &str,
        command: &Command,
        dot: &Val,
        last: Option<Val>,
    ) -> Result<Val, String> {
        let first = &command.words[0];
        let given = command.words.len() - 1 + usize::from(last.is_some());
        if let Some(wrong) = functions::wrong_number(name, given) {
            return self.fail(first.pos, &first.text, format!("wrong number of args for {name}: {wrong}"));
        }
        if matches!(name, "and" | "or") {
            // what comes later is not even looked at
            let mut value = Val::Nil;
            for word in &command.words[1..] {
                value = self.word(word, dot)?;
                if value.truth() == (name == "or") {
                    return Ok(value);
                }
            }
            return Ok(last.unwrap_or(value));
        }
        let mut args =
            command.words[1..].iter().map(|word| self.word(word, dot)).collect::<Result<Vec<_>, _>>()?;
        args.extend(last);
        if self.title.is_some()
            && matches!(name, "json" | "split" | "join" | "title" | "lower" | "upper" | "truncate")
        {
            return Ok(args.remove(0));
        }
        match functions::call(name, &args, matches!(self.missing, Missing::Key)) {
            Ok(value) => Ok(value),
            Err(Fault::Failed(what)) => {
                self.fail(first.pos, &command.text(), format!("error calling {name}: {what}"))
            }
            Err(Fault::Argument(at, what)) => {
                let word = command.words.get(at + 1).unwrap_or(first);
                self.fail(word.pos, &word.text, what)
            }
        }
    }

    fn word(&mut self, word: &Word, dot: &Val) -> Result<Val, String> {
        let (start, path) = match &word.what {
            What::Literal(value) => return Ok(value.clone()),
            What::Nil => return Ok(Val::Nil),
            What::Dot => return Ok(dot.clone()),
            What::Function(name) => {
                let alone =
                    Word { what: What::Function(name.clone()), pos: word.pos, text: word.text.clone() };
                return self.function(name, &Command { words: vec![alone] }, dot, None);
            }
            What::Field(path) => (dot.clone(), path),
            What::Variable(name, path) => {
                let value = self.variables.iter().rev().find(|(known, _)| known == name);
                (value.map_or(Val::Nil, |(_, value)| value.clone()), path)
            }
            What::Group(pipe, path) => (self.pipe(pipe, dot)?, path),
        };
        let mut at = start;
        for (depth, name) in path.iter().enumerate() {
            at = match self.field(&at, name, depth.checked_sub(1).map_or("", |before| &path[before])) {
                Ok(value) => value,
                Err(what) => return self.fail(word.pos, &word.text, what),
            };
        }
        Ok(at)
    }

    /// Gives a field; `of` is the name of the field that the value came from.
    fn field(&self, value: &Val, name: &str, of: &str) -> Result<Val, String> {
        if let (Val::Head, Some(title)) = (value, self.title) {
            return Ok(Val::Str(title(name)));
        }
        match value {
            Val::Map(..) | Val::NilMap(_) => Ok(find(value, name).unwrap_or(Val::NoValue)),
            // what a map does not have has nothing in it
            Val::NoValue => Ok(Val::NoValue),
            Val::Struct(_) => match (find(value, name).or_else(|| left_out(value, name)), self.missing) {
                (Some(value), _) => Ok(value),
                (None, Missing::Key) => Err(format!("map has no entry for key {name:?}")),
                (None, Missing::Field(of)) => Err(format!("can't evaluate field {name} in type {of}")),
            },
            Val::Nil if OMITTED.contains(&of) => Err(format!("map has no entry for key {of:?}")),
            Val::Nil => Err(format!("nil pointer evaluating interface {{}}.{name}")),
            other => {
                let kind = if matches!(self.missing, Missing::Key) { "interface {}" } else { other.kind() };
                Err(format!("can't evaluate field {name} in type {kind}"))
            }
        }
    }
}

/// Looks a name up. Go's names for a few fields differ in case from those in JSON (`ID` and `Id`), so case counts for the
/// first letter alone.
pub(super) fn find(value: &Val, name: &str) -> Option<Val> {
    let (fields, exact) = match value {
        Val::Struct(fields) => (fields, false),
        Val::Map(pairs, _) => (pairs, true),
        _ => return None,
    };
    let found = fields.iter().find(|(known, _)| known == name).or_else(|| {
        let near = !exact && name.starts_with(|c: char| c.is_ascii_uppercase());
        fields.iter().find(|(known, _)| near && known.eq_ignore_ascii_case(name))
    });
    found.map(|(_, value)| value.clone())
}
