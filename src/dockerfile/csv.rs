//! One line of comma separated fields, as `--mount` and `--device` take them.

use super::diagnostic::Diagnostic;
use super::grammar::{Rule, matched};
use super::span::{Text, TextBuilder};

/// Cuts a value into fields; a field in double quotes may hold commas, and `""` in it is a quote.
pub(super) fn fields(value: &Text, flag: &str) -> Result<Vec<Text>, Diagnostic> {
    if value.is_empty() {
        return Err(Diagnostic::new("rbuild::bad_value", format!("missing a value on flag: {flag}"))
            .at(value.span())
            .help(format!("write {flag}=key=value,...")));
    }
    let Some(node) = matched(Rule::fields, value.as_str()) else {
        return Err(Diagnostic::new(
            "rbuild::bad_value",
            format!("failed to parse the comma separated value of {flag}"),
        )
        .at(value.span())
        .help("put a whole field in double quotes, and write a quote in it twice"));
    };
    let fields = node.into_inner().map(|field| {
        let whole = field.as_span();
        let mut out = TextBuilder::default();
        for part in field.into_inner() {
            let start = part.as_span().start();
            let end = if part.as_rule() == Rule::field_quote { start + 1 } else { part.as_span().end() };
            out.push_from(value, start..end);
        }
        out.finish(value.offset_in_file(whole.start()))
    });
    Ok(fields.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_fields() {
        let cases: &[(&str, Option<&[&str]>)] = &[
            ("a=b,c", Some(&["a=b", "c"])),
            ("\"a=b,c\",d", Some(&["a=b,c", "d"])),
            ("\"a\"\"b\"", Some(&["a\"b"])),
            ("a,,b,", Some(&["a", "", "b", ""])),
            ("a\"b", None),
            ("\"a", None),
            ("\"a\"b", None),
        ];
        for (text, expected) in cases {
            let found = fields(&Text::plain(*text, 0), "--mount").ok();
            let found: Option<Vec<&str>> =
                found.as_ref().map(|fields| fields.iter().map(Text::as_str).collect());
            assert_eq!(found.as_deref(), *expected, "{text}");
        }
    }
}
