//! The ways in which instructions cut their arguments: words, lists, JSON arrays, `key=value`.

use super::ast::{ArgVar, Command, Pair, Pairs};
use super::diagnostic::Diagnostic;
use super::grammar::{Escape, Node, Rule, matched, text_of, within};
use super::span::{Span, Text, TextBuilder};

/// Cuts at white space outside quotes; quotes and escapes stay for the expander.
pub(super) fn words(rest: &Text, escape: Escape) -> Vec<Text> {
    let rule = escape.choose(Rule::words_backslash, Rule::words_backtick);
    within(rule, rest.as_str()).map(|node| text_of(rest, &node)).collect()
}

/// Cuts at white space, quotes meaning nothing.
pub(super) fn items(rest: &Text) -> Vec<Text> {
    within(Rule::items, rest.as_str()).map(|node| text_of(rest, &node)).collect()
}

/// Reads a JSON array of strings. Text that is no JSON array at all gives nothing: it is the other form then.
pub(super) fn exec(rest: &Text) -> Result<Option<Vec<Text>>, Diagnostic> {
    if !rest.as_str().starts_with('[') {
        return Ok(None);
    }
    if let Some(array) = matched(Rule::exec, rest.as_str()) {
        return Ok(Some(array.into_inner().map(|string| json_string(rest, string)).collect()));
    }
    if serde_json::from_str::<Vec<serde_json::Value>>(rest.as_str()).is_err() {
        return Ok(None);
    }
    let prefix = matched(Rule::exec_prefix, rest.as_str()).map_or(0, |prefix| prefix.as_span().end());
    let item = &rest.as_str()[prefix..];
    let length = item.find([',', ']']).map_or(item.len(), |end| item[..end].trim_end().len()).max(1);
    Err(Diagnostic::new(
        "rbuild::not_strings",
        "when using JSON array syntax, arrays must be comprised of strings only",
    )
    .at(rest.span_of(prefix..prefix + length))
    .help("put the item in double quotes"))
}

fn json_string(rest: &Text, node: Node<'_>) -> Text {
    let whole = node.as_span();
    let span = rest.span_of(whole.start()..whole.end());
    let mut out = TextBuilder::default();
    let mut parts = node.into_inner().peekable();
    while let Some(part) = parts.next() {
        let (text, at) = (part.as_str(), part.as_span().start());
        match part.as_rule() {
            Rule::string_unicode => {
                let low = parts
                    .peek()
                    .filter(|next| next.as_rule() == Rule::string_unicode)
                    .map(|next| unit(next.as_str()));
                let (c, pair) = utf16(unit(text), low);
                if pair {
                    parts.next();
                }
                out.push(c.encode_utf8(&mut [0; 4]), rest.offset_in_file(at));
            }
            Rule::string_escape => out.push(unescaped(text), rest.offset_in_file(at)),
            _ => out.push_from(rest, at..at + text.len()),
        }
    }
    out.finish(span.start).with_span(span)
}

fn unit(escape: &str) -> u16 {
    u16::from_str_radix(&escape[2..], 16).expect("the grammar asks for four hexadecimal digits")
}

/// Decodes one or two UTF-16 units; tells whether the second was used. A lone half becomes U+FFFD.
fn utf16(first: u16, second: Option<u16>) -> (char, bool) {
    let pair = second.and_then(|second| char::decode_utf16([first, second]).next()?.ok());
    match pair {
        Some(c) => (c, u32::from(c) > 0xffff),
        None => (char::from_u32(u32::from(first)).unwrap_or(char::REPLACEMENT_CHARACTER), false),
    }
}

fn unescaped(escape: &str) -> &'static str {
    match escape {
        "\\b" => "\u{8}",
        "\\f" => "\u{c}",
        "\\n" => "\n",
        "\\r" => "\r",
        "\\t" => "\t",
        "\\/" => "/",
        "\\\\" => "\\",
        _ => "\"",
    }
}

/// Reads a command: exec form if it is a JSON array, else shell form.
pub(super) fn command(rest: &Text) -> Result<Command, Diagnostic> {
    Ok(match exec(rest)? {
        Some(words) => Command::Exec(words),
        None => Command::Shell(rest.clone()),
    })
}

/// Reads paths: a JSON array, else a list cut at white space. Tells which it was.
pub(super) fn paths(rest: &Text) -> Result<(Vec<Text>, bool), Diagnostic> {
    Ok(match exec(rest)? {
        Some(paths) => (paths, true),
        None => (items(rest), false),
    })
}

/// Reads the arguments of ENV and LABEL: `key=value ...`, or the older `key the value`.
pub(super) fn pairs(rest: &Text, keyword: &str, place: Span, escape: Escape) -> Result<Pairs, Diagnostic> {
    let words = words(rest, escape);
    let Some(first) = words.first() else {
        return Err(at_least_one(keyword, place));
    };
    if !first.as_str().contains('=') {
        return legacy_pair(rest, keyword);
    }
    let pairs = words.iter().map(|word| match split(word) {
        Some((key, _)) if key.is_empty() => Err(blank_name(keyword, word)),
        Some((key, value)) => Ok(Pair { key, value }),
        None => Err(no_equals(word)),
    });
    Ok(Pairs { pairs: pairs.collect::<Result<_, _>>()?, legacy: false })
}

fn legacy_pair(rest: &Text, keyword: &str) -> Result<Pairs, Diagnostic> {
    let Some(pair) = matched(Rule::legacy_pair, rest.as_str()) else {
        return Err(Diagnostic::new(
            "rbuild::missing_argument",
            format!("{keyword} must have two arguments"),
        )
        .at(rest.span())
        .help(format!("write {keyword} {rest}=VALUE")));
    };
    let mut parts = pair.into_inner().map(|part| text_of(rest, &part));
    let (key, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    Ok(Pairs { pairs: vec![Pair { key, value }], legacy: true })
}

/// Reads the arguments of ARG.
pub(super) fn arg_vars(rest: &Text, place: Span, escape: Escape) -> Result<Vec<ArgVar>, Diagnostic> {
    let words = words(rest, escape);
    if words.is_empty() {
        return Err(at_least_one("ARG", place));
    }
    let vars = words.into_iter().map(|word| match split(&word) {
        Some((name, _)) if name.is_empty() => Err(blank_name("ARG", &word)),
        Some((name, value)) => Ok(ArgVar { name, default: Some(value) }),
        None => Ok(ArgVar { name: word, default: None }),
    });
    vars.collect()
}

/// Splits at the first equals sign, in quotes or not.
fn split(word: &Text) -> Option<(Text, Text)> {
    let at = word.as_str().find('=')?;
    let value = word.slice(at + 1..word.as_str().len());
    let value =
        if value.is_empty() { value.with_span(Span::new(word.span().end, word.span().end)) } else { value };
    Some((word.slice(0..at), value))
}

fn no_equals(word: &Text) -> Diagnostic {
    let message =
        format!("Syntax error - can't find = in {:?}. Must be of the form: name=value", word.as_str());
    Diagnostic::new("rbuild::no_equals", message)
        .at(word.span())
        .help("put a value with blanks in double quotes: name=\"a b\"")
}

fn blank_name(keyword: &str, word: &Text) -> Diagnostic {
    Diagnostic::new("rbuild::blank_name", format!("{keyword} names can not be blank"))
        .at(word.span())
        .help(format!("write {keyword} NAME{word}, without a blank before the equals sign"))
}

pub(super) fn at_least_one(keyword: &str, place: Span) -> Diagnostic {
    let example = match keyword {
        "ENV" | "LABEL" | "ARG" => "NAME=value",
        "EXPOSE" => "8080/tcp",
        "VOLUME" => "/data",
        "ONBUILD" => "RUN command",
        "HEALTHCHECK" => "CMD command",
        "SHELL" => "[\"/bin/sh\", \"-c\"]",
        _ => "ARGUMENT",
    };
    Diagnostic::new("rbuild::missing_argument", format!("{keyword} requires at least one argument"))
        .at(place)
        .help(format!("write {keyword} {example}"))
}

pub(super) fn exactly_one(keyword: &str, place: Span) -> Diagnostic {
    let example = match keyword {
        "WORKDIR" => "/app",
        "USER" => "name[:group]",
        "STOPSIGNAL" => "SIGTERM",
        _ => "\"name <mail>\"",
    };
    Diagnostic::new("rbuild::missing_argument", format!("{keyword} requires exactly one argument"))
        .at(place)
        .help(format!("write {keyword} {example}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[Text]) -> Vec<&str> {
        texts.iter().map(Text::as_str).collect()
    }

    #[test]
    fn words_keep_quotes_and_escapes() {
        let cases: &[(&str, &[&str])] = &[
            ("a b", &["a", "b"]),
            (" a=\"b c\"  d ", &["a=\"b c\"", "d"]),
            ("a=b\\ c d", &["a=b\\ c", "d"]),
            ("a='b\\' c", &["a='b\\'", "c"]),
            ("a=\"b\\\" c\" d", &["a=\"b\\\" c\"", "d"]),
            ("a=\\\"b c\\\"", &["a=\\\"b", "c\\\""]),
            ("a\\", &["a"]),
            ("\\", &[]),
            ("a \\", &["a"]),
            ("\"a b", &["\"a b"]),
            ("\"a b\\", &["\"a b"]),
            ("'a\\", &["'a\\"]),
            ("''", &["''"]),
            ("a\u{a0}b", &["a", "b"]),
            ("", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(strings(&words(&Text::plain(*text, 0), Escape::Backslash)), *expected, "{text:?}");
        }
        assert_eq!(strings(&words(&Text::plain("a` b c\\ d", 0), Escape::Backtick)), ["a` b", "c\\", "d"]);
    }

    #[test]
    fn json_arrays() {
        let cases: &[(&str, Option<&[&str]>)] = &[
            ("[]", Some(&[])),
            ("[ \"a\" ,\t\"b c\" ] ", Some(&["a", "b c"])),
            (
                r#"["e\u0041\t\"q\"\/\\", "é", "\ud83d\ude00", "\ud83d", "\ud83d\u0041"]"#,
                Some(&["eA\t\"q\"/\\", "é", "😀", "\u{fffd}", "\u{fffd}A"]),
            ),
            ("['a']", None),
            ("[\"a\" \"b\"]", None),
            ("[\"a\",]", None),
            ("[\"a\"] x", None),
            ("[ -d /x ]", None),
            ("[\"C:\\x\"]", None),
            ("[\"a\tb\"]", None),
            ("x [\"a\"]", None),
        ];
        for (text, expected) in cases {
            let found = exec(&Text::plain(*text, 0)).expect("no error");
            assert_eq!(found.as_deref().map(strings).as_deref(), *expected, "{text}");
        }
        for bad in ["[\"a\", 1]", "[null]", "[[\"a\"]]", "[\"a\", {\"b\": 1}]", "[true]"] {
            assert!(exec(&Text::plain(bad, 0)).is_err(), "{bad}");
        }
    }

    #[test]
    fn nested_arrays_do_not_exhaust_the_stack() {
        let deep = "[".repeat(1 << 20);
        assert!(exec(&Text::plain(deep, 0)).expect("no array").is_none());
    }
}
