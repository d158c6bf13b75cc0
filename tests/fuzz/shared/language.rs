//! What must hold for every text given to the language: no panic, places inside the text, and printing that means
//! what was read. Shared by the fuzz targets and by the test that mutates known files.

use rbuild::dockerfile::ast::Kind;
use rbuild::dockerfile::word::{LONGEST, Lexer};
use rbuild::dockerfile::{detect_syntax, lint, parse, parse_trigger};

/// Checks one text as a Dockerfile and as a trigger.
pub(crate) fn check_dockerfile(source: &[u8]) {
    let _ = detect_syntax(source);
    if let Ok(text) = std::str::from_utf8(source) {
        let _ = parse_trigger(text);
    }
    let file = match parse(source) {
        Ok(file) => file,
        Err(error) => {
            assert!(error.places().iter().all(|label| label.span.end <= source.len()));
            assert!(!error.render("Dockerfile", source, false).contains('\x1b'));
            return;
        }
    };
    for warning in lint::check(&file) {
        assert!(warning.spans.iter().all(|span| span.end <= source.len()));
    }
    let lexer = Lexer::new(file.escape);
    for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
        if let Kind::Run(run) = &instruction.kind {
            for mount in &run.mounts {
                let _ = mount.expand(&mut |word| lexer.word(word, &()).map(|expanded| expanded.text));
            }
        }
    }
    let printed = file.to_string();
    let again = match parse(printed.as_bytes()) {
        Ok(again) => again,
        Err(error) => panic!("{printed:?} does not parse: {error}"),
    };
    let bare = |text: &str| text.replace('\r', "");
    assert_eq!(bare(&printed), bare(&again.to_string()));
}

/// Checks one text as a word; its first byte chooses the escape character.
pub(crate) fn check_word(source: &[u8]) {
    let (Some(first), Ok(word)) = (source.first(), std::str::from_utf8(source.get(1..).unwrap_or_default()))
    else {
        return;
    };
    let env: std::collections::BTreeMap<String, String> =
        [("a", "x/y.z"), ("b", ""), ("c", "two words"), ("d", "$a*")]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
    let lexer = Lexer::new(if first % 2 == 0 { '\\' } else { '`' });
    match lexer.word(word, &env) {
        Ok(expanded) => assert!(expanded.text.len() <= LONGEST),
        Err(error) => assert!(error.range.end <= word.len() && error.range.start <= error.range.end),
    }
    let _ = lexer.words(word, &env);
    let _ = Lexer::for_heredoc().word(word, &env);
}
