//! `--format`: Go's templates as people use them with docker, on JSON values.
//!
//! Understood are text, fields (`.A.B`), `$` and variables, parentheses and pipelines, `if`, `else if`, `range` (also over
//! key and value), `with`, and the functions listed in [`FUNCTIONS`]. All else is an error that says so, never a wrong output.

mod eval;
mod parse;

use super::CliError;
use parse::Node;
use serde_json::Value;

/// All functions; the last line is of docker's own.
const FUNCTIONS: [&str; 24] = [
    "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "index", "slice", "print", "printf",
    "println", "html", //
    "json", "join", "split", "upper", "lower", "title", "truncate", "pad",
];

/// A parsed `--format`.
#[derive(Debug)]
pub(super) struct Template {
    nodes: Vec<Node>,
    /// `table ...`: a head line and aligned columns.
    pub(super) table: bool,
}

fn bad(what: &str) -> CliError {
    CliError::new(format!("--format: {what}")).hint(format!(
        "it takes Go templates such as {{{{.Field}}}} or {{{{range .List}}}}{{{{.}}}}{{{{end}}}}, the word json, and the functions {}",
        FUNCTIONS.join(" ")
    ))
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
        Ok(Self { nodes: parse::template(&text)?, table })
    }

    /// Fills the template in.
    pub(super) fn render(&self, value: &Value) -> Result<String, CliError> {
        eval::render(&self.nodes, value)
    }

    /// Gives the fields by name, upper case, as the head of a table.
    pub(super) fn head(&self, title: &dyn Fn(&str) -> String) -> String {
        let node = |node: &Node| match node {
            Node::Text(text) => text.clone(),
            Node::Print(pipe) => pipe.last_field().map(|field| title(&field)).unwrap_or_default(),
            _ => String::new(),
        };
        self.nodes.iter().map(node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_print_as_go_does() {
        let value = json!({
            "Id": "sha256:1", "Size": 5, "None": null, "Yes": true, "Half": 1.5,
            "Config": { "Cmd": ["a", "b"], "User": "", "Labels": { "x.y": "z" } },
            "Ports": { "80/tcp": [{ "HostPort": "8080" }], "90/tcp": null },
            "LabelMap": { "tier": "web" },
        });
        for (template, want) in [
            ("plain", "plain"),
            ("{{.Id}}", "sha256:1"),
            ("{{ .Size }}\\t{{.Config.Cmd}}", "5\t[a b]"),
            ("{{json .Config.Cmd}}", r#"["a","b"]"#),
            ("{{len .Config.Cmd}}", "2"),
            ("{{index .Config.Labels \"x.y\"}}", "z"),
            ("{{index .Config.Cmd 1}}", "b"),
            ("{{join .Config.Cmd \", \"}}", "a, b"),
            ("{{upper .Id}} {{title \"word\"}}", "SHA256:1 Word"),
            ("{{.Config.Labels}}", "map[x.y:z]"),
            ("{{range .Config.Cmd}}<{{.}}>{{end}}", "<a><b>"),
            ("{{range .Config.Labels}}{{.}}{{else}}none{{end}}", "z"),
            ("{{range .None}}x{{else}}none{{end}}", "none"),
            ("{{if .Config.User}}u{{else}}no user{{end}}", "no user"),
            ("{{if .None}}a{{else if .Yes}}b{{else}}c{{end}}", "b"),
            ("a {{- .Size -}} b", "a5b"),
            ("{{.None}}", "<nil>"),
            (
                "{{range $p, $c := .Ports}}{{$p}}={{if $c}}{{(index $c 0).HostPort}}{{end}};{{end}}",
                "80/tcp=8080;90/tcp=;",
            ),
            ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
            ("{{index .Ports \"80/tcp\" 0 \"HostPort\"}}", "8080"),
            ("{{range $i, $e := .Config.Cmd}}{{$i}}{{$e}}{{end}}", "0a1b"),
            ("{{with .Config}}{{.Cmd}}{{$.Size}}{{end}}", "[a b]5"),
            ("{{$x := .Size}}{{$x}}", "5"),
            ("{{.Config.Cmd | json}}", r#"["a","b"]"#),
            ("{{json .Config.Cmd | len}}", "9"),
            ("{{if and .Yes (eq .Size 5)}}y{{end}}", "y"),
            ("{{if or .None (ne .Id \"x\")}}y{{end}}{{not .Yes}}", "yfalse"),
            ("{{printf \"%s-%d %v %q\" .Id .Size .Yes \"q\"}}", "sha256:1-5 true \"q\""),
            ("{{println .Size}}", "5\n"),
            ("{{range split \"a,b\" \",\"}}{{.}}.{{end}}", "a.b."),
            ("{{slice .Id 0 3}}{{truncate .Id 2}}", "shash"),
            ("{{.Label \"tier\"}}{{.Label \"none\"}}", "web"),
            ("{{/* a comment */}}x", "x"),
            ("{{`raw`}}{{.Half}}{{gt .Size 4}}", "raw1.5true"),
        ] {
            let got = Template::parse(template).and_then(|t| t.render(&value)).map_err(|e| e.message);
            assert_eq!(got.as_deref(), Ok(want), "{template}");
        }
        assert!(Template::parse("json").unwrap().render(&value).unwrap().starts_with("{\"Id\""));
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for template in [
            "{{.Id",
            "{{end}}",
            "{{if .A}}x",
            "{{what .Id}}",
            "{{Id}}",
            "{{}}",
            "{{.A | }}",
            "{{(.A}}",
            "{{\"x}}",
            "{{range $a, .B}}{{end}}",
            "{{else}}",
        ] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
        let error = Template::parse("{{.Idd}}").unwrap().render(&json!({"Id": 1})).unwrap_err();
        assert!(error.message.contains("no field \"Idd\" (Id)"), "{}", error.message);
        for template in ["{{index .L 5}}", "{{.L.x}}", "{{$y}}", "{{len 5}}", "{{printf \"%z\" 1}}"] {
            let got = Template::parse(template).and_then(|t| t.render(&json!({"L": [1]})));
            assert!(got.is_err(), "{template}");
        }
    }

    #[test]
    fn a_table_has_a_head() {
        let template = Template::parse("table {{.ID}}\\t{{.Names}}").unwrap();
        assert!(template.table);
        assert_eq!(template.head(&|field| field.to_uppercase()), "ID\tNAMES");
    }
}
