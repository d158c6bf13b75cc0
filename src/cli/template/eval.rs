//! Fills a template's tree in with a value. Pure.

use super::parse::{Command, Node, Pipe, Word};
use super::{CliError, bad};
use serde_json::Value;
use std::cmp::Ordering;

struct Scope<'a> {
    root: &'a Value,
    variables: Vec<(String, Value)>,
}

/// Gives the text.
pub(super) fn render(nodes: &[Node], value: &Value) -> Result<String, CliError> {
    let mut out = String::new();
    Scope { root: value, variables: Vec::new() }.nodes(nodes, value, &mut out)?;
    Ok(out)
}

impl Scope<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value, out: &mut String) -> Result<(), CliError> {
        let known = self.variables.len();
        for node in nodes {
            self.node(node, dot, out)?;
        }
        self.variables.truncate(known);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value, out: &mut String) -> Result<(), CliError> {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipe) => out.push_str(&show(&self.pipe(pipe, dot)?)),
            Node::Set(name, pipe) => {
                let value = self.pipe(pipe, dot)?;
                self.variables.push((name.clone(), value));
            }
            Node::If(pipe, yes, no) => {
                let branch = if truth(&self.pipe(pipe, dot)?) { yes } else { no };
                self.nodes(branch, dot, out)?;
            }
            Node::With(pipe, yes, no) => {
                let value = self.pipe(pipe, dot)?;
                if truth(&value) { self.nodes(yes, &value, out)? } else { self.nodes(no, dot, out)? }
            }
            Node::Range(key, name, pipe, each, none) => {
                let items: Vec<(Value, Value)> = match self.pipe(pipe, dot)? {
                    Value::Array(items) => {
                        items.into_iter().enumerate().map(|(n, v)| (n.into(), v)).collect()
                    }
                    Value::Object(fields) => {
                        let mut fields: Vec<_> = fields.into_iter().collect();
                        fields.sort_by(|a, b| a.0.cmp(&b.0));
                        fields.into_iter().map(|(k, v)| (k.into(), v)).collect()
                    }
                    Value::Null => Vec::new(),
                    other => return Err(bad(&format!("range over {}", show(&other)))),
                };
                if items.is_empty() {
                    return self.nodes(none, dot, out);
                }
                for (at, item) in items {
                    let known = self.variables.len();
                    self.variables.extend(key.clone().map(|key| (key, at)));
                    self.variables.extend(name.clone().map(|name| (name, item.clone())));
                    self.nodes(each, &item, out)?;
                    self.variables.truncate(known);
                }
            }
        }
        Ok(())
    }

    fn pipe(&self, pipe: &Pipe, dot: &Value) -> Result<Value, CliError> {
        let mut last = None;
        for command in &pipe.0 {
            last = Some(self.command(command, dot, last)?);
        }
        last.ok_or_else(|| bad("an action is empty"))
    }

    fn command(&self, command: &Command, dot: &Value, last: Option<Value>) -> Result<Value, CliError> {
        if let (None, [Word::Field(path), rest @ ..]) = (&command.function, &command.words[..])
            && path.len() == 1
            && path[0] == "Label"
            && rest.len() == 1
        {
            // a method of docker's rows
            let name = show(&self.word(&rest[0], dot)?);
            return Ok(dot["LabelMap"].get(&name).cloned().unwrap_or_else(|| "".into()));
        }
        let mut args =
            command.words.iter().map(|word| self.word(word, dot)).collect::<Result<Vec<_>, _>>()?;
        args.extend(last);
        match &command.function {
            Some(name) => call(name, &args),
            None if args.len() == 1 => Ok(args.remove(0)),
            None => Err(bad("a value takes no arguments")),
        }
    }

    fn word(&self, word: &Word, dot: &Value) -> Result<Value, CliError> {
        match word {
            Word::Literal(value) => Ok(value.clone()),
            Word::Field(path) => field(dot, path).cloned(),
            Word::Variable(name, path) if name.is_empty() => field(self.root, path).cloned(),
            Word::Variable(name, path) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = found.ok_or_else(|| bad(&format!("there is no variable ${name}")))?;
                field(value, path).cloned()
            }
            Word::Group(pipe, path) => field(&self.pipe(pipe, dot)?, path).cloned(),
        }
    }
}

fn field<'v>(dot: &'v Value, path: &[String]) -> Result<&'v Value, CliError> {
    let mut at = dot;
    for key in path {
        at = match at {
            Value::Object(fields) => fields
                .get(key)
                .or_else(|| fields.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v))
                .ok_or_else(|| {
                    let known: Vec<&str> = fields.keys().map(String::as_str).take(30).collect();
                    bad(&format!("there is no field {key:?} ({})", known.join(", ")))
                })?,
            Value::Null => return Ok(&Value::Null),
            _ => return Err(bad(&format!("{key:?} is asked of what has no fields"))),
        };
    }
    Ok(at)
}

fn call(name: &str, args: &[Value]) -> Result<Value, CliError> {
    let wrong = || bad(&format!("{name} does not take {} arguments like these", args.len()));
    let text = |at: usize| args.get(at).map(show).ok_or_else(wrong);
    let number = |at: usize| {
        args.get(at).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).ok_or_else(wrong)
    };
    let first = args.first();
    Ok(match name {
        "and" => args.iter().find(|v| !truth(v)).or(args.last()).ok_or_else(wrong)?.clone(),
        "or" => args.iter().find(|v| truth(v)).or(args.last()).ok_or_else(wrong)?.clone(),
        "not" => (!truth(first.ok_or_else(wrong)?)).into(),
        "eq" => {
            let [one, others @ ..] = args else { return Err(wrong()) };
            others.iter().any(|other| compare(one, other) == Some(Ordering::Equal)).into()
        }
        "ne" | "lt" | "le" | "gt" | "ge" => {
            let [one, other] = args else { return Err(wrong()) };
            let order = compare(one, other);
            match name {
                "ne" => order != Some(Ordering::Equal),
                "lt" => order == Some(Ordering::Less),
                "le" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                "gt" => order == Some(Ordering::Greater),
                _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            }
            .into()
        }
        "len" => match first.ok_or_else(wrong)? {
            Value::Array(items) => items.len(),
            Value::Object(fields) => fields.len(),
            Value::String(text) => text.len(),
            Value::Null => 0,
            _ => return Err(wrong()),
        }
        .into(),
        "index" => index(args)?,
        "slice" => {
            let (from, text) = (if args.len() > 1 { number(1)? } else { 0 }, text(0)?);
            let to = if args.len() > 2 { number(2)? } else { text.len() };
            text.get(from..to).ok_or_else(wrong)?.into()
        }
        "truncate" => text(0)?.chars().take(number(1)?).collect::<String>().into(),
        "pad" => {
            let (before, after) = (number(1)?, number(2)?);
            format!("{}{}{}", " ".repeat(before.min(1000)), text(0)?, " ".repeat(after.min(1000))).into()
        }
        "print" => args.iter().map(show).collect::<String>().into(),
        "println" => format!("{}\n", args.iter().map(show).collect::<Vec<_>>().join(" ")).into(),
        "printf" => printf(args)?.into(),
        "html" => text(0)?.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").into(),
        "json" => first.ok_or_else(wrong)?.to_string().into(),
        "join" => match first.ok_or_else(wrong)? {
            Value::Array(items) => items.iter().map(show).collect::<Vec<_>>().join(&text(1)?).into(),
            Value::Null => "".into(),
            _ => return Err(wrong()),
        },
        "split" => text(0)?.split(&text(1)?).map(Value::from).collect::<Vec<_>>().into(),
        "upper" => text(0)?.to_uppercase().into(),
        "lower" => text(0)?.to_lowercase().into(),
        "title" => {
            let text = text(0)?;
            let mut chars = text.chars();
            chars.next().map(|c| c.to_uppercase().chain(chars).collect::<String>()).unwrap_or_default().into()
        }
        _ => return Err(wrong()),
    })
}

fn index(args: &[Value]) -> Result<Value, CliError> {
    let [value, keys @ ..] = args else { return Err(bad("index of nothing")) };
    let mut at = value;
    for key in keys {
        at = match (at, key) {
            (Value::Array(items), key) => key
                .as_u64()
                .and_then(|n| items.get(usize::try_from(n).ok()?))
                .ok_or_else(|| bad(&format!("there is no element {}", show(key))))?,
            // a map gives an empty value for what it does not have
            (Value::Object(fields), key) => match fields.get(&show(key)) {
                Some(value) => value,
                None => return Ok("".into()),
            },
            (Value::Null, _) => return Err(bad("index of a nil value")),
            _ => return Err(bad("index of what has no elements")),
        };
    }
    Ok(at.clone())
}

fn printf(args: &[Value]) -> Result<String, CliError> {
    let [format, rest @ ..] = args else { return Err(bad("printf of nothing")) };
    let (format, mut rest, mut out) = (show(format), rest.iter(), String::new());
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => out.push('%'),
            Some(verb @ ('s' | 'd' | 'v' | 'q' | 't')) => {
                let value = rest.next().ok_or_else(|| bad("printf has too few arguments"))?;
                let text = show(value);
                out.push_str(&if verb == 'q' { format!("{text:?}") } else { text });
            }
            other => {
                return Err(bad(&format!(
                    "printf does not know %{}",
                    other.map(String::from).unwrap_or_default()
                )));
            }
        }
    }
    Ok(out)
}

fn compare(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) => (a == b).then_some(Ordering::Equal),
    }
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// Prints as Go does: `[a b]` for a list, `map[a:1]` for a map.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let mut pairs: Vec<String> = fields.iter().map(|(k, v)| format!("{k}:{}", show(v))).collect();
            pairs.sort();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}
