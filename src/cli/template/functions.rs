//! The functions of templates: Go's own and docker's. Pure.

use super::eval::find;
use super::printf::printf;
use super::value::Val;
use std::cmp::Ordering;

/// Each function with the fewest and the most arguments it takes.
const FUNCTIONS: [(&str, usize, usize); 27] = [
    ("and", 1, MANY),
    ("or", 1, MANY),
    ("not", 1, 1),
    ("eq", 1, MANY),
    ("ne", 2, 2),
    ("lt", 2, 2),
    ("le", 2, 2),
    ("gt", 2, 2),
    ("ge", 2, 2),
    ("len", 1, 1),
    ("index", 1, MANY),
    ("slice", 1, MANY),
    ("print", 0, MANY),
    ("printf", 1, MANY),
    ("println", 0, MANY),
    ("html", 0, MANY),
    ("js", 0, MANY),
    ("urlquery", 0, MANY),
    ("call", 1, MANY),
    ("json", 1, 1),
    ("join", 2, 2),
    ("split", 2, 2),
    ("upper", 1, 1),
    ("lower", 1, 1),
    ("title", 1, 1),
    ("truncate", 2, 2),
    ("pad", 3, 3),
];
const MANY: usize = usize::MAX;
/// A pad or a width beyond this is a mistake.
const WIDEST: i128 = 10_000;

/// Why a function gives nothing.
pub(super) enum Fault {
    /// It was called, and failed.
    Failed(String),
    /// This argument, counted from 0, cannot be given to it.
    Argument(usize, String),
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Self::Failed(what)
    }
}

impl From<&str> for Fault {
    fn from(what: &str) -> Self {
        Self::Failed(what.to_owned())
    }
}

/// Says whether there is a function of this name.
pub(super) fn known(name: &str) -> bool {
    FUNCTIONS.iter().any(|(known, ..)| *known == name)
}

/// Says in Go's words that the number of arguments is wrong, if it is.
pub(super) fn wrong_number(name: &str, given: usize) -> Option<String> {
    let (_, least, most) = FUNCTIONS.iter().find(|(known, ..)| *known == name)?;
    match (least, most) {
        (least, _) if given < *least && *most == MANY => Some(format!("want at least {least} got {given}")),
        (_, most) if given > *most || given < *least => Some(format!("want {most} got {given}")),
        _ => None,
    }
}

/// Calls one, with a number of arguments that it takes. `loose` compares numbers with texts, as docker's `inspect` does.
pub(super) fn call(name: &str, args: &[Val], loose: bool) -> Result<Val, Fault> {
    Ok(match name {
        "not" => Val::Bool(!args[0].truth()),
        "eq" => equal(&args[0], &args[1..], loose)?,
        "ne" => match equal(&args[0], &args[1..], loose)? {
            Val::Bool(same) => Val::Bool(!same),
            other => other,
        },
        "lt" | "le" | "gt" | "ge" => {
            let order = order(&args[0], &args[1], loose)?;
            Val::Bool(match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            })
        }
        "len" => Val::Int(length(&args[0])? as i128),
        "index" => index(args)?,
        "slice" => slice(args)?,
        "print" => Val::Str(print(args)),
        "println" => Val::Str(args.iter().map(Val::show).collect::<Vec<_>>().join(" ") + "\n"),
        "printf" => Val::Str(printf(text(args, 0)?, &args[1..])),
        "html" => Val::Str(html(&print(args))),
        "js" => Val::Str(js(&print(args))),
        "urlquery" => Val::Str(url_query(&print(args))),
        "call" => return Err(format!("non-function of type {}", args[0].kind()).into()),
        "json" => Val::Str(args[0].json().to_string()),
        "join" => Val::Str(join(&args[0], text(args, 1)?)?),
        "split" => Val::List(split(text(args, 0)?, text(args, 1)?)),
        "upper" => Val::Str(text(args, 0)?.to_uppercase()),
        "lower" => Val::Str(text(args, 0)?.to_lowercase()),
        "title" => Val::Str(title(text(args, 0)?)),
        "truncate" => {
            let (all, length) = (text(args, 0)?, number(args, 1)?);
            let length = usize::try_from(length).unwrap_or(0).min(all.len());
            Val::Str(String::from_utf8_lossy(&all.as_bytes()[..length]).into_owned())
        }
        _ => {
            let (all, before, after) = (text(args, 0)?, number(args, 1)?, number(args, 2)?);
            let blanks = |n: i128| " ".repeat(usize::try_from(n.clamp(0, WIDEST)).unwrap_or(0));
            Val::Str(match all {
                "" => String::new(),
                all => format!("{}{all}{}", blanks(before), blanks(after)),
            })
        }
    })
}

fn text(args: &[Val], at: usize) -> Result<&str, Fault> {
    match &args[at] {
        Val::Str(text) => Ok(text),
        Val::Nil | Val::NoValue => Err(Fault::Argument(at, "invalid value; expected string".into())),
        other => {
            Err(Fault::Argument(at, format!("wrong type for value; expected string; got {}", other.kind())))
        }
    }
}

fn number(args: &[Val], at: usize) -> Result<i128, Fault> {
    match &args[at] {
        Val::Int(n) => Ok(*n),
        other => {
            Err(Fault::Argument(at, format!("wrong type for value; expected int; got {}", other.kind())))
        }
    }
}

fn equal(one: &Val, others: &[Val], loose: bool) -> Result<Val, Fault> {
    if others.is_empty() {
        return Err("missing argument for comparison".into());
    }
    for other in others {
        let same = match (one, other) {
            (Val::Nil | Val::NoValue | Val::NilList | Val::NilMap(_), Val::Nil) => true,
            (Val::Nil, Val::NilList | Val::NilMap(_) | Val::NoValue) => true,
            (_, Val::Nil) | (Val::Nil, _) => false,
            (Val::Int(n), Val::Str(text)) | (Val::Str(text), Val::Int(n)) if loose => n.to_string() == *text,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::Int(a), Val::Int(b)) => a == b,
            (Val::Float(a), Val::Float(b)) => a == b,
            (Val::Str(a), Val::Str(b)) => a == b,
            (Val::List(_) | Val::Map(..), _) => {
                return Err(format!("non-comparable type {}: {}", one.show(), one.kind()).into());
            }
            _ => return Err("incompatible types for comparison".into()),
        };
        if same {
            return Ok(Val::Bool(true));
        }
    }
    Ok(Val::Bool(false))
}

fn order(one: &Val, other: &Val, loose: bool) -> Result<Ordering, Fault> {
    match (one, other) {
        (Val::Int(a), Val::Int(b)) => Ok(a.cmp(b)),
        (Val::Str(a), Val::Str(b)) => Ok(a.cmp(b)),
        (Val::Float(a), Val::Float(b)) => a.partial_cmp(b).ok_or_else(|| "NaN has no order".into()),
        (Val::Int(a), Val::Str(b)) if loose => Ok(a.to_string().cmp(b)),
        (Val::Str(a), Val::Int(b)) if loose => Ok(a.cmp(&b.to_string())),
        (Val::Bool(_), Val::Bool(_)) => Err("invalid type for comparison".into()),
        _ => Err("incompatible types for comparison".into()),
    }
}

fn length(value: &Val) -> Result<usize, Fault> {
    match value {
        Val::Str(text) => Ok(text.len()),
        Val::List(items) => Ok(items.len()),
        Val::Map(pairs, _) => Ok(pairs.len()),
        Val::Struct(fields) => Ok(fields.len()),
        Val::NilList | Val::NilMap(_) => Ok(0),
        Val::Nil | Val::NoValue => Err("len of nil pointer".into()),
        other => Err(format!("len of type {}", other.kind()).into()),
    }
}

fn index(args: &[Val]) -> Result<Val, Fault> {
    let mut at = args[0].clone();
    for key in &args[1..] {
        at = match (&at, key) {
            (Val::List(items), Val::Int(n)) => usize::try_from(*n)
                .ok()
                .and_then(|n| items.get(n))
                .cloned()
                .ok_or_else(|| format!("index out of range: {n}"))?,
            (Val::Str(text), Val::Int(n)) => usize::try_from(*n)
                .ok()
                .and_then(|n| text.as_bytes().get(n))
                .map(|byte| Val::Int((*byte).into()))
                .ok_or_else(|| format!("index out of range: {n}"))?,
            (Val::List(_) | Val::Str(_), Val::Nil) => return Err("cannot index slice/array with nil".into()),
            (Val::List(_) | Val::Str(_), key) => {
                return Err(format!("cannot index slice/array with type {}", key.kind()).into());
            }
            (Val::Map(..) | Val::NilMap(_), Val::Str(key)) => find(&at, key).unwrap_or_else(|| at.zero()),
            (Val::Struct(_), Val::Str(key)) => find(&at, key).unwrap_or(Val::Nil),
            (Val::Map(..) | Val::NilMap(_) | Val::Struct(_), key) => {
                return Err(format!("value has type {}; should be string", key.kind()).into());
            }
            (Val::Nil | Val::NoValue | Val::NilList, _) => return Err("index of untyped nil".into()),
            (other, _) => return Err(format!("can't index item of type {}", other.kind()).into()),
        };
    }
    Ok(at)
}

fn slice(args: &[Val]) -> Result<Val, Fault> {
    let [value, bounds @ ..] = args else { return Err("slice of untyped nil".into()) };
    if bounds.len() > 3 {
        return Err(format!("too many slice indexes: {}", bounds.len()).into());
    }
    let all = match value {
        Val::Str(text) => text.len(),
        Val::List(items) => items.len(),
        Val::NilList => 0,
        Val::Nil | Val::NoValue => return Err("slice of untyped nil".into()),
        other => return Err(format!("can't slice item of type {}", other.kind()).into()),
    };
    let bound = |at: usize, usual: usize| match bounds.get(at) {
        None => Ok(usual),
        Some(Val::Int(n)) => {
            usize::try_from(*n).ok().filter(|n| *n <= all).ok_or(format!("index out of range: {n}"))
        }
        Some(other) => Err(format!("cannot index slice/array with type {}", other.kind())),
    };
    let (from, to) = (bound(0, 0)?, bound(1, all)?);
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}").into());
    }
    Ok(match value {
        Val::Str(text) => Val::Str(String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()),
        Val::List(items) => Val::List(items[from..to].to_vec()),
        _ => Val::NilList,
    })
}

/// Joins arguments as Go's Sprint does: a blank between two that are no texts.
fn print(args: &[Val]) -> String {
    let mut out = String::new();
    for (at, arg) in args.iter().enumerate() {
        if at > 0 && !matches!(arg, Val::Str(_)) && !matches!(args[at - 1], Val::Str(_)) {
            out.push(' ');
        }
        out.push_str(&arg.show());
    }
    out
}

fn join(list: &Val, separator: &str) -> Result<String, Fault> {
    let mut items: Vec<String> = match list {
        Val::List(items) => items.iter().map(Val::show).collect(),
        Val::Map(pairs, _) => pairs.iter().map(|(_, value)| value.show()).collect(),
        Val::Nil | Val::NilList | Val::NilMap(_) | Val::NoValue => Vec::new(),
        other => return Err(format!("expected slice, got {}", other.kind()).into()),
    };
    if matches!(list, Val::Map(..)) {
        items.sort();
    }
    Ok(items.join(separator))
}

fn split(text: &str, separator: &str) -> Vec<Val> {
    match separator {
        "" => text.chars().map(|c| Val::Str(c.to_string())).collect(),
        separator => text.split(separator).map(|part| Val::Str(part.to_owned())).collect(),
    }
}

/// Makes the first letter of each word a capital.
fn title(text: &str) -> String {
    let mut before = ' ';
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match before.is_alphanumeric() || before == '_' || before == '\'' {
            true => out.push(c),
            false => out.extend(c.to_uppercase()),
        }
        before = c;
    }
    out
}

fn html(text: &str) -> String {
    let entity = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".into(),
        '>' => "&gt;".into(),
        '"' => "&#34;".into(),
        '\'' => "&#39;".into(),
        c => c.into(),
    };
    text.chars().map(entity).collect()
}

fn js(text: &str) -> String {
    let escape = |c: char| match c {
        '\\' => "\\\\".to_owned(),
        '\'' => "\\'".into(),
        '"' => "\\\"".into(),
        '<' | '>' | '&' | '=' => format!("\\u{:04X}", u32::from(c)),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.into(),
    };
    text.chars().map(escape).collect()
}

fn url_query(text: &str) -> String {
    let byte = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
        b' ' => "+".into(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}
