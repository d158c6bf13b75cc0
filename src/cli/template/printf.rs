//! Go's `printf`, with its flags, widths and the notes that it leaves for what does not fit. Pure.

use super::value::Val;

/// A width beyond this is cut.
const WIDEST: usize = 10_000;

/// What stands between `%` and the verb.
#[derive(Debug, Default)]
struct Spec {
    minus: bool,
    plus: bool,
    zero: bool,
    blank: bool,
    sharp: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Fills values into a format.
pub(super) fn printf(format: &str, args: &[Val]) -> String {
    let (mut out, mut used) = (String::new(), 0);
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '+' | '0' | ' ' | '#')) {
            match flag {
                '-' => spec.minus = true,
                '+' => spec.plus = true,
                '0' => spec.zero = true,
                ' ' => spec.blank = true,
                _ => spec.sharp = true,
            }
        }
        spec.width = count(&mut chars, args, &mut used);
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = Some(count(&mut chars, args, &mut used).unwrap_or(0));
        }
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match args.get(used) {
                None => out.push_str(&format!("%!{verb}(MISSING)")),
                Some(value) => {
                    used += 1;
                    out.push_str(&one(verb, &spec, value));
                }
            },
        }
    }
    if used < args.len() {
        let extra: Vec<String> = args[used..].iter().map(noted).collect();
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

/// Reads a number or takes it from the arguments, for `*`.
fn count(chars: &mut std::iter::Peekable<std::str::Chars>, args: &[Val], used: &mut usize) -> Option<usize> {
    if chars.next_if_eq(&'*').is_some() {
        let given = args.get(*used);
        *used += 1;
        return match given {
            Some(Val::Int(n)) => usize::try_from(*n).ok().map(|n| n.min(WIDEST)),
            _ => None,
        };
    }
    let mut number: Option<usize> = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        number = Some((number.unwrap_or(0) * 10 + digit as usize).min(WIDEST));
    }
    number
}

/// A value with its type, as in Go's notes.
fn noted(value: &Val) -> String {
    match value {
        Val::Nil | Val::NoValue => "<nil>".into(),
        other => format!("{}={}", other.kind(), other.show()),
    }
}

fn one(verb: char, spec: &Spec, value: &Val) -> String {
    let bad = || match value {
        Val::Nil | Val::NoValue => format!("%!{verb}(<nil>)"),
        _ => format!("%!{verb}({})", noted(value)),
    };
    let text = match (verb, value) {
        ('T', value) => value.kind().to_owned(),
        ('v', Val::Int(n)) | ('d', Val::Int(n)) => return whole(*n, 10, false, spec),
        ('v', Val::Float(n)) => return float('g', *n, spec),
        ('v', Val::Str(text)) if spec.sharp => quote(text),
        ('v', value) => value.show(),
        ('t', Val::Bool(yes)) => yes.to_string(),
        ('s', Val::Str(text)) => cut(text, spec),
        ('q', Val::Str(text)) => quote(&cut(text, spec)),
        ('x' | 'X', Val::Str(text)) => {
            text.bytes().map(|b| if verb == 'x' { format!("{b:02x}") } else { format!("{b:02X}") }).collect()
        }
        ('s' | 'q' | 'd' | 't' | 'x', Val::List(items)) => {
            let items: Vec<String> = items.iter().map(|item| one(verb, spec, item)).collect();
            return format!("[{}]", items.join(" "));
        }
        ('s' | 'd' | 'q', Val::NilList) => "[]".into(),
        ('s', Val::Map(..) | Val::NilMap(_) | Val::Struct(_)) => value.show(),
        ('x' | 'X', Val::Int(n)) => return whole(*n, 16, verb == 'X', spec),
        ('o', Val::Int(n)) => return whole(*n, 8, false, spec),
        ('b', Val::Int(n)) => return whole(*n, 2, false, spec),
        ('c', Val::Int(n)) => character(*n).to_string(),
        ('q', Val::Int(n)) => format!("'{}'", character(*n)),
        ('U', Val::Int(n)) => format!("U+{n:04X}"),
        ('e' | 'E' | 'f' | 'F' | 'g' | 'G', Val::Float(n)) => return float(verb, *n, spec),
        _ => bad(),
    };
    pad(text, spec)
}

fn character(n: i128) -> char {
    u32::try_from(n).ok().and_then(char::from_u32).unwrap_or('\u{fffd}')
}

fn cut(text: &str, spec: &Spec) -> String {
    text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect()
}

/// Quotes as Go's `%q`.
fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

fn whole(n: i128, radix: u32, capital: bool, spec: &Spec) -> String {
    let size = n.unsigned_abs();
    let mut digits = match (radix, capital) {
        (16, true) => format!("{size:X}"),
        (16, false) => format!("{size:x}"),
        (8, _) => format!("{size:o}"),
        (2, _) => format!("{size:b}"),
        _ => size.to_string(),
    };
    if let Some(least) = spec.precision {
        digits = format!("{digits:0>least$}");
    }
    if spec.sharp {
        let prefix = match (radix, capital) {
            (16, true) => "0X",
            (16, false) => "0x",
            (8, _) => "0",
            (2, _) => "0b",
            _ => "",
        };
        digits.insert_str(0, prefix);
    }
    signed(n < 0, digits, spec)
}

/// Puts the sign before digits, and zeros between them.
fn signed(negative: bool, digits: String, spec: &Spec) -> String {
    let sign = match (negative, spec.plus, spec.blank) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    };
    if spec.zero && !spec.minus && spec.precision.is_none_or(|_| digits.contains('.')) {
        let width = spec.width.unwrap_or(0).saturating_sub(sign.len());
        return format!("{sign}{digits:0>width$}");
    }
    pad(format!("{sign}{digits}"), spec)
}

fn float(verb: char, n: f64, spec: &Spec) -> String {
    let size = n.abs();
    let digits = match verb {
        'f' | 'F' => format!("{size:.*}", spec.precision.unwrap_or(6)),
        'e' | 'E' => {
            let text = format!("{size:.*e}", spec.precision.unwrap_or(6));
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(rest) => ('-', rest),
                None => ('+', exponent),
            };
            format!("{mantissa}{verb}{sign}{exponent:0>2}")
        }
        _ => match spec.precision {
            Some(digits) => {
                let places = digits.saturating_sub(format!("{:.0}", size.trunc()).len());
                let text = format!("{size:.places$}");
                match text.contains('.') {
                    true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                    false => text,
                }
            }
            None => size.to_string(),
        },
    };
    signed(n < 0.0, digits, spec)
}

fn pad(text: String, spec: &Spec) -> String {
    let width = spec.width.unwrap_or(0);
    match (spec.minus, spec.zero) {
        (true, _) => format!("{text:<width$}"),
        (false, true) => format!("{text:0>width$}"),
        _ => format!("{text:>width$}"),
    }
}
