//! Property tests: no text breaks the parser, and what is printed means what was read.

use proptest::prelude::*;

use super::ast::Instruction;
use super::{Dockerfile, lint, parse, parse_trigger};

/// What a tree says, without where it says it. A trigger is stored with the white space behind it, which may be a
/// carriage return that cannot be printed at the end of a line.
fn meaning(file: &Dockerfile) -> String {
    let places = regex::Regex::new(r"@?\d+\.\.\d+").expect("a pattern");
    let kinds = |list: &[Instruction]| list.iter().map(|own| format!("{:?}\n", own.kind)).collect::<String>();
    let mut out = format!("{:?} {}", file.escape, kinds(&file.global_args));
    for stage in &file.stages {
        out += &format!("{:?}\n{}", stage.from, kinds(&stage.instructions));
    }
    let tails = regex::Regex::new(r#"(\\[rt]|\\u\{[0-9a-f]+\}|\s)*", text: "#).expect("a pattern");
    tails.replace_all(&places.replace_all(&out, "_"), "\", text: ").into_owned()
}

fn assert_round_trip(source: &str) {
    let Ok(first) = parse(source.as_bytes()) else { return };
    let printed = first.to_string();
    let second = parse(printed.as_bytes()).unwrap_or_else(|error| {
        panic!("{source:?} was printed as\n{printed}\n{}", error.render("printed", printed.as_bytes(), false))
    });
    assert_eq!(meaning(&first), meaning(&second), "{source:?} was printed as\n{printed}");
    let bare = |text: &str| text.replace('\r', "");
    assert_eq!(bare(&printed), bare(&second.to_string()));
}

/// Checks what must hold for every text.
fn assert_sane(source: &[u8]) {
    match parse(source) {
        Err(error) => {
            let text = error.render("Dockerfile", source, true);
            assert!(error.places().iter().all(|label| label.span.end <= source.len()), "{text}");
        }
        Ok(file) => {
            for head in file.heads() {
                assert!(head.span.end <= source.len() && head.keyword.span().start == head.span.start);
            }
            let _ = lint::check(&file);
        }
    }
    let _ = super::detect_syntax(source);
    if let Ok(text) = std::str::from_utf8(source) {
        let _ = parse_trigger(text);
        assert_round_trip(text);
    }
}

#[test]
fn known_files_survive_printing() {
    let files = [
        "FROM a\nRUN <<A cat && <<-'B C' cat\n x\nA\n\ty\nB C\n",
        "# escape=`\nFROM a AS b\nCOPY --chown=\"a b\" c:\\x `\n d:\\\nRUN x``\n",
        "FROM a\nCOPY [\"a b\", \"\", \"<<x\", \"/d\"]\nVOLUME [\"[a\"]\nADD -- --a b\nCOPY <<\"E$F\" <<G\\'H /d/\nE\nE$F\nG'H\n",
        "FROM a\nENV -- --a=b c=\"d e\" f=\nENV g  h i\nLABEL a\\ b='c\\'\nARG x y=$z\nRUN -- --x\nCMD\nENTRYPOINT []\n",
        "FROM a\nONBUILD RUN <<E   \nx\nE\nHEALTHCHECK --interval=1.5s --retries=2 CMD [\"a\", \"\\u0001\"]\nRUN --mount=\"type=bind,\\\"src=a,b\\\"\" --device=v/d=x,required --network=none x\n",
        "FROM a\nRUN a\\\u{a0}\nWORKDIR a b\\\\\nUSER $u:g\nMAINTAINER a, b\nSTOPSIGNAL 9\nSHELL [\"a\"]\nEXPOSE 80 81-90/udp",
        // Found by the property tests: words like flags, a lone `<<` before a word, escapes at the end.
        "FROM a\nHEALTHCHECK CMD --\nCOPY <<\u{b}x /d\nONBUILD RUN \\\\\nONBUILD RUN x \r\\\n",
        // Found by the fuzzer: a flag that ends in an escaped blank, and nothing after it.
        "FROM a\nRUN --mount=type=bind,x'y '\nRUN x\n",
    ];
    for file in files {
        assert!(
            parse(file.as_bytes()).is_ok(),
            "{}",
            parse(file.as_bytes()).expect_err("bad").render("f", file.as_bytes(), false)
        );
        assert_round_trip(file);
    }
}

/// Pieces that mean something to the language, in any order.
const PIECES: &str = "(FROM |from a AS b|RUN |COPY |ADD |ENV |ARG |LABEL |CMD |ENTRYPOINT |VOLUME |EXPOSE |SHELL |USER |WORKDIR |ONBUILD |HEALTHCHECK |STOPSIGNAL |NONE|MAINTAINER |# |# escape=`|# check=skip=all|<<|<<-|E|'E'|\"E\"|\\[|\\]|\\[\"a\", \"b\"\\]|\"|'|\\\\|`|\\$|\\$\\{a:-b\\}|=|a|b c|,|--|--from=|--chown=\"a b\"|--mount=type=cache,target=/a|--link| |\t|\u{a0}|\u{b}|\r|\r\n|\n|\n|\n|\\\\\n|`\n|\nE\n|é)";

fn text_of(pattern: String) -> impl Strategy<Value = String> {
    proptest::string::string_regex(&pattern).expect("a pattern")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_parse_or_fail(source in proptest::collection::vec(any::<u8>(), 0..200)) {
        assert_sane(&source);
    }

    #[test]
    fn any_text_parses_or_fails(source in "(\\PC|\n)*") {
        assert_sane(source.as_bytes());
    }

    #[test]
    fn soup_parses_or_fails(source in text_of(format!("(FROM a\n)?{PIECES}{{0,40}}"))) {
        assert_sane(source.as_bytes());
    }

    #[test]
    fn single_instructions_parse_or_fail(source in text_of(format!("FROM a\n(RUN|COPY|ADD|ENV|LABEL|ARG|CMD|VOLUME|EXPOSE|ONBUILD RUN|ONBUILD COPY|HEALTHCHECK CMD|USER) {PIECES}{{0,12}}"))) {
        assert_sane(source.as_bytes());
    }
}
