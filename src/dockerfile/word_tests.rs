//! Tests of the expander: what each form gives, and that nothing breaks it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::word::{LONGEST, Lexer};

fn env() -> BTreeMap<String, String> {
    let values = [
        ("home", "/root"),
        ("empty", ""),
        ("two", "a  b"),
        ("path", "/usr/lib/x.tar.gz"),
        ("rep", "aXbXc"),
        ("lit", "*lit*"),
        ("star", "*"),
        ("slash", "/"),
        ("hash", "#a"),
        ("lines", "a\nb"),
        ("_x1", "under"),
        ("é", "accent"),
        ("word", "한국어"),
        ("meta", "a.b(c)[d]{e}^$|+"),
    ];
    values.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn expand(word: &str) -> String {
    match Lexer::new('\\').word(word, &env()) {
        Ok(expanded) => expanded.text,
        Err(error) => format!("ERROR {error}"),
    }
}

fn check(cases: &[(&str, &str)]) {
    for (word, expected) in cases {
        assert_eq!(expand(word), *expected, "{word}");
    }
}

#[test]
fn quotes_and_escapes() {
    check(&[
        ("plain", "plain"),
        ("it\\'s", "it's"),
        ("a'b c'd", "ab cd"),
        ("'a\\'", "a\\"),
        ("'$home \"x\"'", "$home \"x\""),
        ("\"$home 'x'\"", "/root 'x'"),
        ("\"a\\\"b\\$c\\\\d\\e\"", "a\"b$c\\d\\e"),
        ("a\\tb", "atb"),
        ("end\\", "end"),
        ("end\\\\", "end\\"),
        ("\\$home", "$home"),
        ("\\\\$home", "\\/root"),
        ("\\${home}", "${home}"),
        ("''", ""),
        ("a<<  b", "a<<  b"),
        ("\"open", "ERROR unexpected end of statement while looking for matching double-quote"),
        ("it's", "ERROR unexpected end of statement while looking for matching single-quote"),
        ("\"open\\\"", "ERROR unexpected end of statement while looking for matching double-quote"),
    ]);
    let tick = Lexer::new('`');
    let word = |word| tick.word(word, &env()).expect("no error").text;
    assert_eq!((word("c:\\a`$home\\"), word("\"`\"`a\"")), ("c:\\a$home\\".into(), "\"`a".into()));
}

#[test]
fn names() {
    check(&[
        ("$home.", "/root."),
        ("${home}.", "/root."),
        ("$_x1-", "under-"),
        ("$é", "accent"),
        ("$word", "한국어"),
        ("$HOME", ""),
        ("a$", "a$"),
        ("$.a", "$.a"),
        ("$1x$23y", "xy"),
        ("$@@$*$#$?$-$!$$", "@"),
        ("${1}${@}${*}${#}${?}${-}${!}${$}${0}", ""),
        ("${1:-x}${#:-y}", "xy"),
        ("${}", "ERROR syntax error: bad substitution"),
        ("${:-x}", "ERROR syntax error: bad substitution"),
        ("${{home}}", "ERROR syntax error: bad substitution"),
        ("${home", "ERROR syntax error: missing '}'"),
        ("${", "ERROR syntax error: missing '}'"),
        ("${home:", "ERROR syntax error: missing '}'"),
        ("${home.}", "ERROR unsupported modifier (.) in substitution"),
        ("${home:=x}", "ERROR unsupported modifier (:=) in substitution"),
        ("${home:0:2}", "ERROR unsupported modifier (:0) in substitution"),
        ("${home:#x}", "ERROR unsupported modifier (:#) in substitution"),
        ("${home:/a/b}", "ERROR unsupported modifier (:/) in substitution"),
        ("${home}}", "/root}"),
    ]);
}

#[test]
fn defaults_and_alternatives() {
    check(&[
        ("${home-x} ${empty-x} ${none-x}", "/root  x"),
        ("${home:-x} ${empty:-x} ${none:-x}", "/root x x"),
        ("${home+x} ${empty+x} ${none+x}", "x x "),
        ("${home:+x} ${empty:+x} ${none:+x}", "x  "),
        ("${home?x} ${empty?x}", "/root "),
        ("${none:-$home/${none:-${empty:-deep}}}", "/root/deep"),
        ("${none:-'a}b'}", "a}b"),
        ("${none:-\"a}b\"}", "a}b"),
        ("${none:-a\\}b}", "a}b"),
        ("${none:-a b}", "a b"),
        ("${none:-{}", "{"),
        ("\"${none:-\"a\"}\"", "a"),
        ("${none?}", "ERROR none: is not allowed to be unset"),
        ("${none:?}", "ERROR none: is not allowed to be unset"),
        ("${empty:?}", "ERROR empty: is not allowed to be empty"),
        ("${none:?tell $home}", "ERROR none: tell /root"),
        ("${none:-${x}", "ERROR syntax error: missing '}'"),
    ]);
}

#[test]
fn patterns_at_the_ends() {
    check(&[
        ("${path#*/}", "usr/lib/x.tar.gz"),
        ("${path##*/}", "x.tar.gz"),
        ("${path%.*}", "/usr/lib/x.tar"),
        ("${path%%.*}", "/usr/lib/x"),
        ("${rep#?X}", "bXc"),
        ("${rep%X?}", "aXb"),
        ("${rep#no}${rep%no}", "aXbXcaXbXc"),
        ("${rep#}${rep##}${rep%}${rep%%}", "aXbXcaXbXcaXbXcaXbXc"),
        ("${lit#\\*}", "lit*"),
        ("${lit%\\*}", "*lit"),
        ("${lit%%\\*lit*}", ""),
        ("${lit##*$star}", ""),
        ("${path##*$slash}", "x.tar.gz"),
        ("${path##*${none:-/}}", "x.tar.gz"),
        ("${rep#$hash}", "XbXc"),
        ("${word#?}${word%?}", "국어한국"),
        ("${lines##*b}", "a\nb"),
        ("${none#x}", ""),
        ("${rep#\\a}", "ERROR invalid pattern (\\a) in substitution: invalid escape '\\a'"),
        ("${meta#a.b(c)[d]{e\\}}", "^$|+"),
        ("${rep%\\a}", "ERROR invalid pattern (\\a) in substitution: invalid escape '\\a'"),
        ("${rep#a", "ERROR syntax error: missing '}'"),
    ]);
}

#[test]
fn replacements() {
    check(&[
        ("${rep/X/-}", "a-bXc"),
        ("${rep//X/-}", "a-b-c"),
        ("${rep//X/}", "abc"),
        ("${rep/X*X/-}", "a-c"),
        ("${rep//?/-}", "-----"),
        ("${path/\\//-}", "-usr/lib/x.tar.gz"),
        ("${path//\\//-}", "-usr-lib-x.tar.gz"),
        ("${rep/X/$home}", "a/rootbXc"),
        ("${rep/X/\\}}", "a\\}bXc"),
        ("${rep//X/[\\$0]}", "a[\\X]b[\\X]c"),
        ("${rep/none/x}", "aXbXc"),
        ("${rep///-}", "-a-X-b-X-c-"),
        ("${none/a/b}", ""),
        ("${meta//./-}", "a-b(c)[d]{e}^$|+"),
        ("${rep/X}", "ERROR syntax error: missing '/' in ${}"),
        ("${rep/X/a", "ERROR syntax error: missing '}'"),
    ]);
}

#[test]
fn only_words_splits() {
    let words = |word| Lexer::new('\\').words(word, &env()).expect("no error");
    let cases: &[(&str, &[&str])] = &[
        ("x$two", &["xa", "b"]),
        ("\"x$two\"", &["xa  b"]),
        ("$two$two", &["a", "ba", "b"]),
        ("${empty}\"\" a\\ b", &["a b"]),
        ("  80  81/udp ", &["80", "81/udp"]),
        ("8$empty$none", &["8"]),
        ("", &[]),
        ("80${none:-90}", &["90"]),
    ];
    for (word, expected) in cases {
        assert_eq!(words(word), *expected, "{word}");
    }
    assert_eq!(expand("x$two"), "xa  b");
}

#[test]
fn heredoc_bodies_keep_their_quotes() {
    let body = |text| Lexer::for_heredoc().word(text, &env()).map(|expanded| expanded.text);
    let text = "it's \"$home\" \\$home ${none:-'x'}\n<<EOF\n";
    assert_eq!(body(text), Ok("it's \"/root\" $home 'x'\n<<EOF\n".into()));
}

#[test]
fn variables_met_are_reported() {
    let expanded = Lexer::new('\\').word("$home${a:-$b}'$c'${empty+$d}", &env()).expect("no error");
    assert_eq!(expanded.used.iter().map(String::as_str).collect::<Vec<_>>(), ["empty", "home"]);
    assert_eq!(expanded.unset.iter().map(String::as_str).collect::<Vec<_>>(), ["a", "b", "d"]);
}

#[test]
fn errors_know_their_place() {
    let range = |word: &str| Lexer::new('\\').word(word, &()).expect_err(word).range;
    assert_eq!(range("ab${c:?d}e"), 2..9);
    assert_eq!(range("ab\"cd"), 2..5);
    assert_eq!(range("ab${c"), 2..5);
    assert_eq!(range("é${c.}"), 5..6);
}

#[test]
fn hostile_words_are_bounded() {
    let mut env = env();
    env.insert("big".into(), "x".repeat(LONGEST));
    let lexer = Lexer::new('\\');
    assert!(lexer.word("$big", &env).is_ok());
    for word in
        ["$big$big", "\"$big$big\"", "${none:-$big$big}", "${big//x/yy}", "${rep//?/$big}", "${path#$big}"]
    {
        let error = lexer.word(word, &env).expect_err(word).to_string();
        assert!(error.contains("longer"), "{word}: {error}");
    }
    let deep = "${a:-".repeat(1 << 16);
    assert!(lexer.word(&deep, &env).expect_err("deep").to_string().contains("deeper"));
    let stars = format!("${{big##{}y}}", "*x".repeat(1000));
    assert!(lexer.word(&stars, &env).is_ok());
}

proptest! {
    #[test]
    fn any_text_expands_or_fails(word in "\\PC*", tick in any::<bool>()) {
        let lexer = Lexer::new(if tick { '`' } else { '\\' });
        let _ = lexer.word(&word, &env());
        let _ = lexer.words(&word, &env());
        let _ = Lexer::for_heredoc().word(&word, &env());
    }

    #[test]
    fn shell_like_text_expands_or_fails(word in "([${}a:#%/?*\\\\\"'<` -]|home|path|none|:-|:\\?|//)*") {
        let result = Lexer::new('\\').word(&word, &env());
        if let Err(error) = &result {
            prop_assert!(error.range.start <= error.range.end && error.range.end <= word.len());
        }
        let _ = Lexer::new('\\').words(&word, &env());
    }

    #[test]
    fn single_quoted_text_is_itself(text in "[^']*") {
        prop_assert_eq!(Lexer::new('\\').word(&format!("'{text}'"), &()).expect("no error").text, text);
    }

    #[test]
    fn escaped_text_is_itself(text in "\\PC{0,40}") {
        let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
        prop_assert_eq!(Lexer::new('\\').word(&escaped, &()).expect("no error").text, text);
    }
}
