//! `--format`: the part of Go's templates that people use with docker, on JSON values.
//!
//! Understood are text, `{{.A.B}}`, `{{json .A}}`, `{{len .A}}`, `{{index .A "key"}}`, `{{join .A ","}}`, `{{upper .A}}`,
//! `{{lower .A}}`, and `{{range .A}}...{{end}}`, `{{if .A}}...{{else}}...{{end}}`. All else is an error that says so, never a wrong output.

use super::CliError;
use serde_json::Value;

/// A parsed `--format`.
#[derive(Debug)]
pub(super) struct Template {
    parts: Vec<Part>,
    /// `table ...`: a head line and aligned columns.
    pub(super) table: bool,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Print(Call),
    If(Call, Vec<Part>, Vec<Part>),
    Range(Call, Vec<Part>, Vec<Part>),
}

#[derive(Debug)]
struct Call {
    function: Function,
    /// Keys from the dot down.
    path: Vec<String>,
    argument: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Show,
    Json,
    Len,
    Index,
    Join,
    Upper,
    Lower,
}

fn bad(what: &str) -> CliError {
    CliError::new(format!("--format: {what}"))
        .hint("it takes {{.Field}}, {{json .Field}}, {{len .Field}}, {{index .Field \"key\"}}, {{join .Field \",\"}}, {{range}}, {{if}}, or the word json")
}

impl Template {
    /// Reads a template; `json` is short for `{{json .}}`.
    pub(super) fn parse(text: &str) -> Result<Self, CliError> {
        let (table, text) = match text.strip_prefix("table ") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let text = if text == "json" { "{{json .}}" } else { text };
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut words = Words { rest: &text };
        let (parts, end) = words.parts()?;
        match end {
            None => Ok(Self { parts, table }),
            Some(word) => Err(bad(&format!("{{{{{word}}}}} without {{{{if}}}} or {{{{range}}}}"))),
        }
    }

    /// Fills the template in.
    pub(super) fn render(&self, value: &Value) -> Result<String, CliError> {
        let mut out = String::new();
        render(&self.parts, value, &mut out)?;
        Ok(out)
    }

    /// Gives the fields by name, upper case, as the head of a table.
    pub(super) fn head(&self, title: &dyn Fn(&str) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Print(call) => title(call.path.last().map_or("", String::as_str)),
            Part::If(..) | Part::Range(..) => String::new(),
        };
        self.parts.iter().map(part).collect()
    }
}

struct Words<'a> {
    rest: &'a str,
}

impl Words<'_> {
    /// Reads to the end of the text or to an `end` or `else`, which is given.
    fn parts(&mut self) -> Result<(Vec<Part>, Option<&'static str>), CliError> {
        let mut parts = Vec::new();
        while let Some((before, after)) = self.rest.split_once("{{") {
            let (inside, after) = after.split_once("}}").ok_or_else(|| bad("}} is missing"))?;
            self.rest = after;
            let trims = inside.starts_with("- ");
            let before = if trims { before.trim_end() } else { before };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            if let Some(cut) = inside.strip_suffix(" -") {
                self.rest = self.rest.trim_start();
                let cut = cut.to_owned();
                if let Some(end) = self.action(cut.trim_start_matches("- ").trim(), &mut parts)? {
                    return Ok((parts, Some(end)));
                }
                continue;
            }
            let inside = inside.trim_start_matches("- ").trim().to_owned();
            if let Some(end) = self.action(&inside, &mut parts)? {
                return Ok((parts, Some(end)));
            }
        }
        if !self.rest.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut self.rest).to_owned()));
        }
        Ok((parts, None))
    }

    fn action(&mut self, inside: &str, parts: &mut Vec<Part>) -> Result<Option<&'static str>, CliError> {
        let (word, rest) = inside.split_once(' ').unwrap_or((inside, ""));
        match word {
            "end" => return Ok(Some("end")),
            "else" if rest.is_empty() => return Ok(Some("else")),
            "if" | "range" => {
                let call = call(rest)?;
                let (yes, end) = self.parts()?;
                let (no, end) = match end {
                    Some("else") => self.parts()?,
                    other => (Vec::new(), other),
                };
                if end != Some("end") {
                    return Err(bad("{{end}} is missing"));
                }
                parts.push(if word == "if" { Part::If(call, yes, no) } else { Part::Range(call, yes, no) });
            }
            _ => parts.push(Part::Print(call(inside)?)),
        }
        Ok(None)
    }
}

fn call(text: &str) -> Result<Call, CliError> {
    let unknown = || bad(&format!("{{{{{text}}}}} is not understood"));
    let words = split(text).ok_or_else(unknown)?;
    let (function, rest) = match words.first().map(String::as_str) {
        Some("json") => (Function::Json, &words[1..]),
        Some("len") => (Function::Len, &words[1..]),
        Some("index") => (Function::Index, &words[1..]),
        Some("join") => (Function::Join, &words[1..]),
        Some("upper") => (Function::Upper, &words[1..]),
        Some("lower") => (Function::Lower, &words[1..]),
        _ => (Function::Show, &words[..]),
    };
    let takes_argument = matches!(function, Function::Index | Function::Join);
    let (field, argument) = match rest {
        [field] if !takes_argument => (field, None),
        [field, argument] if takes_argument => {
            let plain = argument.strip_prefix('"').map_or(argument.as_str(), |a| a.trim_end_matches('"'));
            (field, Some(plain.to_owned()))
        }
        _ => return Err(unknown()),
    };
    let path = field.strip_prefix('.').ok_or_else(unknown)?;
    let path: Vec<String> = path.split('.').filter(|k| !k.is_empty()).map(str::to_owned).collect();
    if path.iter().any(|k| !k.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')) {
        return Err(unknown());
    }
    Ok(Call { function, path, argument })
}

/// Splits at spaces that are not in quotation marks.
fn split(text: &str) -> Option<Vec<String>> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                words.last_mut()?.push(c);
            }
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut()?.push(c),
        }
    }
    words.retain(|w| !w.is_empty());
    (!quoted).then_some(words)
}

fn render(parts: &[Part], dot: &Value, out: &mut String) -> Result<(), CliError> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Print(call) => out.push_str(&call.value(dot)?),
            Part::If(call, yes, no) => {
                let branch = if truth(call.field(dot)?) { yes } else { no };
                render(branch, dot, out)?;
            }
            Part::Range(call, each, none) => match call.field(dot)? {
                Value::Array(items) if !items.is_empty() => {
                    for item in items {
                        render(each, item, out)?;
                    }
                }
                Value::Object(fields) if !fields.is_empty() => {
                    for item in fields.values() {
                        render(each, item, out)?;
                    }
                }
                _ => render(none, dot, out)?,
            },
        }
    }
    Ok(())
}

impl Call {
    fn field<'v>(&self, dot: &'v Value) -> Result<&'v Value, CliError> {
        let mut at = dot;
        for key in &self.path {
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

    fn value(&self, dot: &Value) -> Result<String, CliError> {
        let field = self.field(dot)?;
        let argument = self.argument.as_deref().unwrap_or_default();
        Ok(match self.function {
            Function::Show => show(field),
            Function::Json => field.to_string(),
            Function::Len => match field {
                Value::Array(items) => items.len(),
                Value::Object(fields) => fields.len(),
                Value::String(text) => text.len(),
                _ => 0,
            }
            .to_string(),
            Function::Index => match (field, argument.parse::<usize>()) {
                (Value::Array(items), Ok(at)) => {
                    show(items.get(at).ok_or_else(|| bad(&format!("there is no element {at}")))?)
                }
                (Value::Object(fields), _) => fields.get(argument).map(show).unwrap_or_default(),
                _ => String::new(),
            },
            Function::Join => match field {
                Value::Array(items) => items.iter().map(show).collect::<Vec<_>>().join(argument),
                _ => String::new(),
            },
            Function::Upper => show(field).to_uppercase(),
            Function::Lower => show(field).to_lowercase(),
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_are_filled_in() {
        let value = json!({"Id": "sha256:1", "Config": {"Cmd": ["a", "b"], "Labels": {"x.y": "z"}, "User": ""},
            "Size": 5, "None": null});
        for (template, want) in [
            ("plain", "plain"),
            ("{{.Id}}", "sha256:1"),
            ("{{ .Size }}\\t{{.Config.Cmd}}", "5\t[a b]"),
            ("{{json .Config.Cmd}}", r#"["a","b"]"#),
            ("{{len .Config.Cmd}}", "2"),
            ("{{index .Config.Labels \"x.y\"}}", "z"),
            ("{{index .Config.Cmd 1}}", "b"),
            ("{{join .Config.Cmd \", \"}}", "a, b"),
            ("{{upper .Id}}", "SHA256:1"),
            ("{{.Config.Labels}}", "map[x.y:z]"),
            ("{{range .Config.Cmd}}<{{.}}>{{end}}", "<a><b>"),
            ("{{range .Config.Labels}}{{.}}{{else}}none{{end}}", "z"),
            ("{{if .Config.User}}u{{else}}no user{{end}}", "no user"),
            ("a {{- .Size -}} b", "a5b"),
            ("{{.None}}", "<nil>"),
        ] {
            assert_eq!(Template::parse(template).unwrap().render(&value).unwrap(), want, "{template}");
        }
        assert!(Template::parse("json").unwrap().render(&value).unwrap().starts_with("{\"Id\""));
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for template in
            ["{{.Id", "{{end}}", "{{if .A}}x", "{{printf \"%s\" .Id}}", "{{Id}}", "{{.A | json}}", "{{}}"]
        {
            assert!(Template::parse(template).is_err(), "{template}");
        }
        let error = Template::parse("{{.Idd}}").unwrap().render(&json!({"Id": 1})).unwrap_err();
        assert!(error.message.contains("no field \"Idd\" (Id)"), "{}", error.message);
    }
}
