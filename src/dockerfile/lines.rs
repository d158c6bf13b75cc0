//! From bytes to logical lines: continuations joined, comments and blank lines in between taken out.
//!
//! The file is read step by step, because what a byte means depends on what came before: a directive changes the
//! escape character, a heredoc marker makes the next lines data. One call of [`step`] gives one blank line, one
//! comment or one logical line, cut by pest; the caller decides where the next one begins.

use super::grammar::{Escape, Node, Rule, matched};
use super::span::{Span, Text, TextBuilder};

/// What stands at one place of the file.
#[derive(Debug)]
pub(super) enum Step {
    Blank,
    /// The text after `#` of a comment line, white space trimmed.
    Comment(Text),
    Line(LogicalLine),
}

/// An instruction on one line.
#[derive(Debug)]
pub(super) struct LogicalLine {
    /// The parts joined, white space around the whole trimmed.
    pub(super) text: Text,
    /// White space behind `text` that was trimmed; triggers are stored with it.
    pub(super) tail: String,
    /// Blank lines between the parts.
    pub(super) blanks: Vec<Span>,
    /// End of the last part that holds text, line end not included.
    pub(super) end: usize,
}

/// Reads one step at `at`, which must be a line start before the end of the file. Gives it and where it ends.
pub(super) fn step(source: &str, at: usize, escape: Escape) -> (Step, usize) {
    let rule = escape.choose(Rule::step_backslash, Rule::step_backtick);
    let whole =
        matched(rule, &source[at..]).expect("every text is a blank line, a comment or a logical line");
    let next = at + whole.as_span().end();
    let node = whole.into_inner().next().expect("a step holds what it is");
    let step = match node.as_rule() {
        Rule::blank_line => Step::Blank,
        Rule::comment_line => Step::Comment(comment(node, at)),
        _ => Step::Line(logical_line(node, at)),
    };
    (step, next)
}

/// A comment above an instruction may describe it. An indented one keeps its `#`, as in the reference builder,
/// and so describes nothing.
fn comment(node: Node<'_>, base: usize) -> Text {
    let line = node.as_span();
    let indented = !line.as_str().starts_with('#');
    let body = node.into_inner().next().expect("a comment line holds the comment").as_span();
    let start = body.start() - usize::from(indented);
    Text::plain(&line.get_input()[start..body.end()], base + start).trimmed()
}

fn logical_line(node: Node<'_>, base: usize) -> LogicalLine {
    let mut text = TextBuilder::default();
    let mut blanks = Vec::new();
    let mut end = base + node.as_span().start();
    for part in node.into_inner() {
        let span = part.as_span();
        match part.as_rule() {
            Rule::line_part if !span.as_str().is_empty() => {
                text.push(span.as_str(), base + span.start());
                end = base + span.start() + span.as_str().trim_end().len();
            }
            Rule::blank_line => blanks.push(Span::new(base + span.start(), base + span.end())),
            _ => {}
        }
    }
    let whole = text.finish(end);
    let tail = whole.as_str()[whole.as_str().trim_end().len()..].to_owned();
    LogicalLine { text: whole.trimmed(), tail, blanks, end }
}

/// A parser directive as written.
#[derive(Debug)]
pub(super) struct DirectiveLine {
    /// Name in lower case.
    pub(super) name: String,
    pub(super) value: Text,
    pub(super) span: Span,
}

/// Reads a directive at `at`, if the line has the form of one.
pub(super) fn directive(source: &str, at: usize) -> Option<DirectiveLine> {
    let node = matched(Rule::directive, &source[at..])?;
    let line = node.as_span();
    let span = Span::new(at + line.start(), at + line.as_str().trim_end().len());
    let mut parts = node.into_inner();
    let name = parts.next()?.as_str().to_ascii_lowercase();
    let value = match parts.next() {
        Some(value) => Text::plain(value.as_str(), at + value.as_span().start()),
        None => Text::plain("", span.end),
    };
    Some(DirectiveLine { name, value, span })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(source: &str, escape: Escape) -> (String, usize, usize) {
        match step(source, 0, escape) {
            (Step::Line(line), next) => (line.text.as_str().to_owned(), line.blanks.len(), next),
            (other, _) => panic!("{other:?}"),
        }
    }

    #[test]
    fn joins_continuations() {
        let cases = [
            ("RUN a\\\n  b\n", "RUN a  b", 0),
            ("RUN a\\  \t\n  b\nX", "RUN a  b", 0),
            ("RUN a\\\\\nX", "RUN a\\\\", 0),
            ("RUN a\\\\\\\nX", "RUN a\\\\\\", 0),
            ("  RUN a \\\n# c\n\t# d\n\n \nb", "RUN a b", 2),
            ("RUN a\\\r\nb\r\r\nX", "RUN ab", 0),
            ("RUN a\rb\\", "RUN a\rb", 0),
            ("\\\n  RUN a\\", "RUN a", 0),
            ("RUN a\\\n\\\nb\nX", "RUN ab", 0),
            ("RUN a\\ b\nX", "RUN a\\ b", 0),
            ("RUN a `\nX", "RUN a `", 0),
            ("\\", "", 0),
        ];
        for (source, joined, blanks) in cases {
            let (text, found, next) = line(source, Escape::Backslash);
            assert_eq!((text.as_str(), found), (joined, blanks), "{source:?}");
            assert!(source[next..].is_empty() || source[next..].starts_with('X'), "{source:?}");
        }
        assert_eq!(line("RUN a\\ `\nb\\\nX", Escape::Backtick).0, "RUN a\\ b\\");
    }

    #[test]
    fn places_survive_joining() {
        let source = "  RUN a\\\n# c\n  b\n";
        let (Step::Line(line), _) = step(source, 0, Escape::Backslash) else { panic!("not a line") };
        let at = line.text.as_str().find('b').map(|at| line.text.offset_in_file(at));
        assert_eq!(at, source.find("b\n"));
        assert_eq!((line.text.span(), line.end), (Span::new(2, 16), 16));
    }

    #[test]
    fn reads_directives() {
        let cases = [
            ("# escape=`\n", Some(("escape", "`"))),
            ("#ESCAPE = ` \r\n", Some(("escape", "`"))),
            ("  #\tsyntax=a b\t c  \n", Some(("syntax", "a b\t c"))),
            ("# check=skip=all;error=true", Some(("check", "skip=all;error=true"))),
            ("# escape=\n", None),
            ("# escape= \n", Some(("escape", ""))),
            ("# a comment\n", None),
            ("## escape=`\n", None),
            ("# 1a=b\n", None),
        ];
        for (source, expected) in cases {
            let found = directive(source, 0);
            let found = found.as_ref().map(|line| (line.name.as_str(), line.value.as_str()));
            assert_eq!(found, expected, "{source:?}");
        }
    }

    #[test]
    fn long_hostile_lines_take_linear_time() {
        let n = 1 << 18;
        for unit in ["\\ ", "\\", "\r", " ", "a\\\n", "\\\n#\n", "\\\n \n", "# ", "\t", "é"] {
            let source = unit.repeat(n / unit.len());
            let started = crate::dockerfile::tests::cpu_time();
            let mut at = 0;
            while at < source.len() {
                let (_, next) = step(&source, at, Escape::Backslash);
                assert!(next > at);
                at = next;
            }
            let took = crate::dockerfile::tests::cpu_time() - started;
            assert!(took.as_secs() < 5, "{unit:?} took {took:?}");
        }
    }
}
