//! What is wrong with a Dockerfile, where, and what to do about it.
//!
//! One type serves the whole front: the parser, the checks and the planner (an unknown stage, a cycle). It carries
//! places as byte spans and no source text, so it is cheap to make and to pass on; whoever prints it brings the
//! file. It implements miette's `Diagnostic`, so any miette handler can show it. Our own renderer exists because
//! rbuild's form is fixed: `FILE:LINE:COLUMN: message` first, so that editors and scripts find the place, then the
//! lines with the place marked, then one line of help.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use super::span::{LineIndex, Position, Span};

/// One wrong thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    inner: Box<Inner>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    code: &'static str,
    message: String,
    labels: Vec<Label>,
    help: Option<String>,
}

/// A place and a word or two about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The bytes to mark.
    pub span: Span,
    /// What to say beside the mark; may be empty.
    pub text: String,
}

impl Diagnostic {
    /// Says what is wrong. `code` is a stable name of the kind of error (`rbuild::unknown_flag`).
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        let inner = Inner { code, message: message.into(), labels: Vec::new(), help: None };
        Diagnostic { inner: Box::new(inner) }
    }

    /// Marks a place; the first place is the one named before the message.
    #[must_use]
    pub fn at(self, span: Span) -> Self {
        self.label(span, "")
    }

    /// Marks a place and says something about it.
    #[must_use]
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.inner.labels.push(Label { span, text: text.into() });
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.inner.help = Some(help.into());
        self
    }

    /// Says what was probably meant, if something near `word` is among `options`.
    #[must_use]
    pub fn did_you_mean<'a>(self, word: &str, options: impl IntoIterator<Item = &'a str>) -> Self {
        match crate::suggest::nearest(word, options) {
            Some(near) => self.help(format!("did you mean {near}?")),
            None => self,
        }
    }

    /// Puts all places to `span`: for text that is not in the file shown, such as a trigger of a base image.
    #[must_use]
    pub fn moved_to(mut self, span: Span) -> Self {
        self.inner.labels.truncate(1);
        self.inner.labels.iter_mut().for_each(|label| label.span = span);
        self
    }

    /// Returns the stable name of the kind of error.
    pub fn kind(&self) -> &'static str {
        self.inner.code
    }

    /// Returns what is wrong, without place and help.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// Returns the marked places, the main one first.
    pub fn places(&self) -> &[Label] {
        &self.inner.labels
    }

    /// Returns what to do.
    pub fn help_text(&self) -> Option<&str> {
        self.inner.help.as_deref()
    }

    /// Draws the error with the lines it speaks of. The text ends with a line end; control characters of the
    /// source are made visible. Colour only repeats what the characters say.
    pub fn render(&self, file_name: &str, source: &[u8], colour: bool) -> String {
        let paint = Paint { colour };
        let index = LineIndex::new(source);
        let mut out = String::new();
        match self.places().first() {
            Some(label) => {
                let Position { line, column } = index.position(label.span.start);
                out.push_str(&paint.bold(&format!("{}:{line}:{column}: ", visible(file_name))));
            }
            None => out.push_str(&paint.bold(&format!("{}: ", visible(file_name)))),
        }
        let _ = writeln!(out, "{}", paint.red(&visible(self.message())));
        draw_excerpt(&mut out, &index, self.places(), paint);
        if let Some(help) = self.help_text() {
            let _ = writeln!(out, "  {} {}", paint.cyan("help:"), visible(help));
        }
        out
    }
}

/// At most this many lines of one place are shown; a heredoc can be long.
const LINES_OF_A_PLACE: usize = 6;

/// At most this many characters of a line are shown.
const WIDTH: usize = 160;

fn draw_excerpt(out: &mut String, index: &LineIndex<'_>, labels: &[Label], paint: Paint) {
    let mut shown: Vec<(usize, Vec<&Label>)> = Vec::new();
    for label in labels {
        let (first, last) = index.lines(label.span);
        for line in first.saturating_sub(1).max(1)..=last.min(first + LINES_OF_A_PLACE - 1) {
            let at = shown.partition_point(|(number, _)| *number < line);
            if shown.get(at).is_none_or(|(number, _)| *number != line) {
                shown.insert(at, (line, Vec::new()));
            }
            if line >= first {
                shown[at].1.push(label);
            }
        }
    }
    let Some(width) = shown.last().map(|(number, _)| number.to_string().len()) else { return };
    let _ = writeln!(out, " {:width$} {}", "", paint.cyan("|"));
    let mut before = None;
    for (number, labels) in shown {
        if before.is_some_and(|before: usize| before + 1 < number) {
            let _ = writeln!(out, " {}", paint.cyan("..."));
        }
        before = Some(number);
        let line = index.line(number);
        let _ = writeln!(out, " {} {}", paint.cyan(&format!("{number:width$} |")), cut(&line));
        for label in labels {
            draw_mark(out, index, number, label, width, paint);
        }
    }
}

/// Draws `^^^ text` below one line, as far as the label covers it.
fn draw_mark(
    out: &mut String,
    index: &LineIndex<'_>,
    number: usize,
    label: &Label,
    width: usize,
    paint: Paint,
) {
    let line = index.line(number);
    let (first, last) = index.lines(label.span);
    let from = if number == first { index.position(label.span.start).column - 1 } else { 0 };
    let indent = line.chars().take_while(|c| c.is_whitespace()).count();
    let from = if number == first { from } else { indent };
    let to = if number == last { index.position(label.span.end).column - 1 } else { usize::MAX };
    let to = if index.lines(Span::new(label.span.end, label.span.end)).0 != number { usize::MAX } else { to };
    let length = line.trim_end().chars().count();
    let to = to.min(length).min(WIDTH).max(from + 1);
    if from > WIDTH || (from >= length && number != first) {
        return;
    }
    let pad: String = line.chars().take(from).flat_map(blanks).collect();
    let marked: usize = line.chars().skip(from).take(to - from).map(|c| blanks(c).count()).sum();
    let text = if number == first && !label.text.is_empty() {
        format!(" {}", visible(&label.text))
    } else {
        String::new()
    };
    let mark = "^".repeat(marked.max(1));
    let _ = writeln!(out, " {:width$} {} {pad}{}", "", paint.cyan("|"), paint.red(&format!("{mark}{text}")));
}

/// Gives as many blanks as the character is drawn wide.
fn blanks(c: char) -> std::iter::RepeatN<char> {
    let width = match c {
        '\t' => 4,
        c if c.is_control() => visible(c.encode_utf8(&mut [0; 4])).chars().count(),
        c => char_width(c),
    };
    std::iter::repeat_n(' ', width)
}

/// Gives the columns that a terminal uses for a character, well enough to put marks below it.
fn char_width(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xff00..=0xff60 => 2,
        0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

fn cut(line: &str) -> String {
    let line = without_passwords(line.trim_end());
    let mut kept: String = line
        .chars()
        .take(WIDTH)
        .map(|c| if c == '\t' { "    ".into() } else { visible(c.encode_utf8(&mut [0; 4])).into_owned() })
        .collect();
    if line.chars().nth(WIDTH).is_some() {
        kept.push_str("...");
    }
    kept
}

/// Makes control characters visible, so that a Dockerfile cannot steer the terminal.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let bad = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    match text.contains(bad) {
        false => Cow::Borrowed(text),
        true => text
            .chars()
            .map(|c| if bad(c) { c.escape_default().to_string() } else { c.to_string() })
            .collect(),
    }
}

/// Crosses out users and passwords in addresses of the web, letter by letter, so that columns stay: what is shown ends
/// up in logs and histories that many read.
pub(crate) fn without_passwords(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        rest = after;
        let web = ["http://", "https://"].iter().any(|scheme| before.to_ascii_lowercase().ends_with(scheme));
        let end = rest
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '\\'))
            .unwrap_or(rest.len());
        if let Some(host) = rest[..end].rfind('@').filter(|_| web) {
            out.extend(std::iter::repeat_n('x', rest[..host].chars().count()));
            rest = &rest[host..];
        }
    }
    match out.is_empty() {
        true => Cow::Borrowed(text),
        false => Cow::Owned(out + rest),
    }
}

#[derive(Clone, Copy)]
struct Paint {
    colour: bool,
}

impl Paint {
    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    fn cyan(self, text: &str) -> String {
        self.with("36", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Diagnostic {}

impl miette::Diagnostic for Diagnostic {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.inner.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help_text().map(|help| Box::new(help) as Box<dyn fmt::Display + 'a>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        let labels = self.places().iter().map(|label| {
            let text = (!label.text.is_empty()).then(|| label.text.clone());
            miette::LabeledSpan::new_with_span(text, label.span)
        });
        (!self.places().is_empty()).then(|| Box::new(labels) as Box<dyn Iterator<Item = _>>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] = b"FROM a AS x\nRUN true\n\tCOPY --frm=x / /\nRUN b \\\n  c\n";

    #[test]
    fn marks_one_place_and_gives_help() {
        let error = Diagnostic::new("rbuild::unknown_flag", "unknown flag: --frm")
            .at(Span::new(27, 32))
            .did_you_mean("frm", ["from", "chown"]);
        insta::assert_snapshot!(error.render("Dockerfile", FILE, false), @r"
        Dockerfile:3:7: unknown flag: --frm
           |
         2 | RUN true
         3 |     COPY --frm=x / /
           |          ^^^^^
          help: did you mean from?
        ");
    }

    #[test]
    fn marks_two_places_and_lines_of_one() {
        let error = Diagnostic::new("rbuild::x", "two")
            .label(Span::new(39, 50), "second")
            .label(Span::new(10, 11), "first");
        insta::assert_snapshot!(error.render("D", FILE, false), @r"
        D:4:1: two
           |
         1 | FROM a AS x
           |           ^ first
         ...
         3 |     COPY --frm=x / /
         4 | RUN b \
           | ^^^^^^^ second
         5 |   c
           |   ^
        ");
    }

    #[test]
    fn passwords_in_addresses_are_crossed_out() {
        for (text, want) in [
            ("ADD http://u:p@host/x /y", "ADD http://xxx@host/x /y"),
            ("HTTPS://t@h http://u:p@x@h?a@b", "HTTPS://x@h http://xxxxx@h?a@b"),
            ("[\"https://ü:p@h/x\", \"a@b\"]", "[\"https://xxx@h/x\", \"a@b\"]"),
            ("https://host/x@y git@host:x ssh://git@h/x", "https://host/x@y git@host:x ssh://git@h/x"),
            ("no address", "no address"),
        ] {
            assert_eq!(without_passwords(text), want);
        }
    }

    #[test]
    fn control_characters_cannot_reach_the_terminal() {
        let error = Diagnostic::new("rbuild::x", "bad \x1b[2J").at(Span::new(0, 4));
        let text = error.render("a\x1b]0;", b"\x1b[2J\n", false);
        assert!(!text.contains('\x1b'), "{text:?}");
    }
}
