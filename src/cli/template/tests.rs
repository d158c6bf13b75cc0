use super::*;
use serde_json::json;

fn sample() -> Value {
    json!({
        "Id": "sha256:1", "Size": 5, "None": null, "Yes": true, "Half": 1.5,
        "Config": { "Cmd": ["a", "b"], "User": "", "Labels": { "x.y": "z" }, "Entrypoint": null },
        "Ports": { "80/tcp": [{ "HostIp": "::", "HostPort": "8080" }], "90/tcp": null },
        "State": { "Status": "up", "ExitCode": 3, "Health": null },
        "LogConfig": { "Type": "json-file", "Config": {} },
        "LabelMap": { "tier": "web" },
    })
}

/// What docker 20.10 and 28 print for these.
#[test]
fn templates_print_as_go_does() {
    let value = sample();
    for (template, want) in [
        ("plain", "plain"),
        ("{{.Id}}", "sha256:1"),
        ("{{.ID}}", "sha256:1"),
        ("{{ .Size }}\t{{.Config.Cmd}}", "5\t[a b]"),
        ("{{json .Config.Cmd}}", r#"["a","b"]"#),
        ("{{len .Config.Cmd}}", "2"),
        ("{{index .Config.Labels \"x.y\"}}", "z"),
        ("{{index .Config.Labels \"none\"}}", ""),
        ("{{.Config.Labels.none}}", "<no value>"),
        ("{{.Config.Labels.none.more}}", "<no value>"),
        ("{{index .Ports \"1/tcp\"}}", "[]"),
        ("{{.Config.Entrypoint}}{{json .Config.Entrypoint}}", "[]null"),
        ("{{index .Config.Cmd 1}}", "b"),
        ("{{join .Config.Cmd \", \"}}{{join .Config.Entrypoint \",\"}}", "a, b"),
        ("{{upper .Id}} {{title \"two words\"}}", "SHA256:1 Two Words"),
        ("{{.Config.Labels}} {{.Ports}}", "map[x.y:z] map[80/tcp:[{:: 8080}] 90/tcp:[]]"),
        ("{{.State}} {{.LogConfig}}", "{up 3 <nil>} {json-file map[]}"),
        ("{{range .Config.Cmd}}<{{.}}>{{end}}", "<a><b>"),
        ("{{range .Config.Labels}}{{.}}{{else}}none{{end}}", "z"),
        ("{{range .None}}x{{else}}none{{end}}", "none"),
        ("{{range .Config.Cmd}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}", "a"),
        ("{{range .Config.Cmd}}{{if eq . \"a\"}}{{continue}}{{end}}{{.}}{{end}}", "b"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{if .Config.User}}u{{else}}no user{{end}}", "no user"),
        ("{{if .None}}a{{else if .Yes}}b{{else}}c{{end}}", "b"),
        ("{{with .None}}a{{else with .Yes}}{{.}}{{end}}", "true"),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
        ("{{if and .State.Health (eq .State.Health.Status \"healthy\")}}h{{else}}n{{end}}", "n"),
        ("{{or .Config.User \"root\"}}", "root"),
        ("a {{- .Size -}} b", "a5b"),
        ("a\n  {{- /* gone */ -}}  \n b", "ab"),
        ("{{.None}}", "<nil>"),
        (
            "{{range $p, $c := .Ports}}{{$p}}={{if $c}}{{(index $c 0).HostPort}}{{end}};{{end}}",
            "80/tcp=8080;90/tcp=;",
        ),
        ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
        ("{{index .Ports \"80/tcp\" 0 \"HostPort\"}}", "8080"),
        ("{{range $i, $e := .Config.Cmd}}{{if $i}},{{end}}{{$e}}{{end}}", "a,b"),
        ("{{with .Config}}{{.Cmd}}{{$.Size}}{{end}}", "[a b]5"),
        ("{{with $x := .Size}}{{$x}}{{end}}", "5"),
        ("{{$x := 1}}{{$x = .Size}}{{$x}}", "5"),
        ("{{$x := \"\"}}{{range .Config.Cmd}}{{$x = .}}{{end}}{{$x}}", "b"),
        ("{{define \"t\"}}[{{.}}]{{end}}{{template \"t\" .Size}}", "[5]"),
        ("{{block \"b\" .Size}}<{{.}}>{{end}}", "<5>"),
        ("{{.Config.Cmd | json}}", r#"["a","b"]"#),
        ("{{json .Config.Cmd | len}}", "9"),
        ("{{.Id | printf \"%.6s\"}}", "sha256"),
        ("{{if and .Yes (eq .Size 5)}}y{{end}}", "y"),
        ("{{if or .None (ne .Id \"x\")}}y{{end}}{{not .Yes}}", "yfalse"),
        ("{{eq .State.ExitCode \"3\"}}{{eq 1 2 3 1}}", "truetrue"),
        ("{{printf \"%s-%d %v %q\" .Id .Size .Yes \"q\"}}", "sha256:1-5 true \"q\""),
        (
            "{{printf \"%-4s|%4s|%04d|%x|%+d|%8.2f|%c%U\" \"a\" \"b\" 7 255 7 2.345 65 66}}",
            "a   |   b|0007|ff|+7|    2.35|AU+0042",
        ),
        (
            "{{printf \"%d\" \"x\"}} {{printf \"%s\"}} {{printf \"a\" 1}}",
            "%!d(string=x) %!s(MISSING) a%!(EXTRA int=1)",
        ),
        ("{{println .Size \"a\" true}}", "5 a true\n"),
        ("{{print 1 2 \"a\" \"b\" 3}}", "1 2ab3"),
        ("{{range split \"a,b\" \",\"}}{{.}}.{{end}}", "a.b."),
        ("{{slice .Id 0 3}}{{slice .Config.Cmd 1}}{{truncate .Id 2}}", "sha[b]sh"),
        ("[{{pad \"x\" 1 2}}][{{pad \"\" 1 2}}]", "[ x  ][]"),
        ("{{.Label \"tier\"}}{{.Label \"none\"}}", "web"),
        ("{{/* a comment */}}x", "x"),
        ("{{`raw`}}{{.Half}}{{gt .Size 4}}", "raw1.5true"),
        ("{{0x10}} {{1e3}} {{'a'}} {{-3}} {{1_000}}", "16 1000 97 -3 1000"),
        ("{{html \"<a&b>\"}} {{js \"it's\"}} {{urlquery \"a b&c\"}}", "&lt;a&amp;b&gt; it\\'s a+b%26c"),
        ("}} {{.Size}} {", "}} 5 {"),
        ("{{json \"<a>&\"}}{{json .None}}", "\"<a>&\"null"),
    ] {
        let got = Template::single(template).and_then(|t| t.render(&value)).map_err(|e| e.message);
        assert_eq!(got.as_deref(), Ok(want), "{template}");
    }
    assert!(Template::single("json").unwrap().render(&value).unwrap().starts_with("{\"Id\""));
    let row = Template::parse("json")
        .unwrap()
        .render_row(&json!({"B": "1", "A": "2", "LabelMap": {}}), "")
        .unwrap();
    assert_eq!(row, r#"{"A":"2","B":"1"}"#);
}

/// The words are Go's, after "template parsing error: ".
#[test]
fn what_cannot_be_read_or_filled_in_is_said_as_go_does() {
    for (template, want) in [
        ("{{.Id", ":1: unclosed action"),
        ("{{end}}", ":1: unexpected {{end}}"),
        ("{{if .Id}}x", ":1: unexpected EOF"),
        ("a\n{{nofunc .Id}}", ":2: function \"nofunc\" not defined"),
        ("{{}}", ":1: missing value for command"),
        ("{{range}}{{end}}", ":1: missing value for range"),
        ("{{ | \"a\" }}", ":1: unexpected \"|\" in command"),
        ("{{(.Id}}", ":1: unclosed left paren"),
        ("{{\"x}}", ":1: unterminated quoted string"),
        ("{{else}}", ":1: unexpected {{else}}"),
        ("{{$x}}", ":1: undefined variable \"$x\""),
        ("{{.Id}", ":1: bad character U+007D '}'"),
        ("{{{.Id}}}", ":1: unexpected \"{\" in command"),
        ("{{break}}", ":1: {{break}} outside {{range}}"),
        ("{{.Idd}}", ":1:2: executing \"\" at <.Idd>: map has no entry for key \"Idd\""),
        ("{{ .Config.Nope }}", ":1:10: executing \"\" at <.Config.Nope>: map has no entry for key \"Nope\""),
        ("{{.config}}", ":1:2: executing \"\" at <.config>: map has no entry for key \"config\""),
        (
            "{{.State.Health.Status}}",
            ":1:8: executing \"\" at <.State.Health.Status>: map has no entry for key \"Health\"",
        ),
        ("{{.Id.x}}", ":1:5: executing \"\" at <.Id.x>: can't evaluate field x in type interface {}"),
        (
            "{{index .Config.Cmd 5}}",
            ":1:2: executing \"\" at <index .Config.Cmd 5>: error calling index: index out of range: 5",
        ),
        (
            "{{(index (index .Ports \"81/tcp\") 0).HostPort}}",
            ":1:3: executing \"\" at <index (index .Ports \"81/tcp\") 0>: error calling index: index of untyped nil",
        ),
        (
            "{{index .Config.Cmd \"x\"}}",
            ":1:2: executing \"\" at <index .Config.Cmd \"x\">: error calling index: cannot index slice/array with type string",
        ),
        ("{{len 3}}", ":1:2: executing \"\" at <len 3>: error calling len: len of type int"),
        ("{{and}}", ":1:2: executing \"\" at <and>: wrong number of args for and: want at least 1 got 0"),
        ("{{nil}}", ":1:2: executing \"\" at <nil>: nil is not a command"),
        ("{{1 2}}", ":1:2: executing \"\" at <1>: can't give argument to non-function 1"),
        (
            "{{lt 1 1.5}}",
            ":1:2: executing \"\" at <lt 1 1.5>: error calling lt: incompatible types for comparison",
        ),
        (
            "{{define \"t\"}}{{template \"t\"}}{{end}}{{template \"t\"}}",
            ":1:25: executing \"\" at <{{template \"t\"}}>: exceeded maximum template depth (200)",
        ),
    ] {
        let got = Template::single(template).and_then(|t| t.render(&sample())).map_err(|e| e.message);
        assert_eq!(got, Err(format!("template parsing error: template: {want}")), "{template}");
    }
    let code = |template: &str| Template::single(template).map_err(|e| e.code).err();
    assert_eq!((code("{{"), code("{{.Id}}")), (Some(64), None));
    let row =
        Template::parse("{{.Nope}}").unwrap().render_row(&json!({"ID": "1"}), "*formatter.x").unwrap_err();
    assert!(row.message.ends_with("can't evaluate field Nope in type *formatter.x"), "{}", row.message);
}

#[test]
fn a_table_has_a_head() {
    let title = |field: &str| field.to_uppercase();
    for (template, want) in [
        ("table {{.ID}}\\t{{.Names}}", "ID\tNAMES"),
        ("table {{.Label \"com.acme.my-tier\"}} {{upper .Image}} {{json .State}}", "my tier IMAGE STATE"),
        ("table {{truncate .ID 1}}|{{pad .ID 1 1}}|{{if .ID}}x{{end}}", "ID| ID |x"),
    ] {
        let template = Template::parse(template).unwrap();
        assert!(template.table);
        assert_eq!(template.head(&title), want);
    }
    assert!(Template::parse("{{.Size}}").unwrap().asks_for("Size"));
    assert!(!Template::parse("{{.ID}}").unwrap().asks_for("Size"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[{}\\-a-z.$\"'`|() :=,0-9/*\n%]{0,40}") {
        if let Ok(template) = Template::single(&text) {
            let _ = template.render(&sample());
            let _ = template.head(&|field| field.to_owned());
        }
        let inside = format!("{{{{{text}}}}}");
        if let Ok(template) = Template::single(&inside) {
            let _ = template.render(&sample());
        }
    }
}
