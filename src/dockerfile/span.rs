//! Places in a Dockerfile: byte spans, and text that remembers where each of its bytes stood.
//!
//! Continuations, comments inside an instruction, quotes and JSON escapes make the text of a word differ from
//! the bytes of the file. [`Text`] therefore keeps, beside its characters, the few points at which reading
//! jumped; every offset inside a word can be turned into a byte offset of the file, and nothing is guessed.

use std::fmt;
use std::ops::Range;

/// A half-open range of bytes of the Dockerfile, counted from the first byte of the file (a byte order mark counts).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset after the last byte.
    pub end: usize,
}

impl Span {
    /// Makes the span `start..end`; an end before the start gives the empty span at `start`.
    pub fn new(start: usize, end: usize) -> Self {
        Span { start, end: end.max(start) }
    }

    /// Makes the smallest span that holds both.
    pub fn to(self, other: Span) -> Self {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// Counts the bytes.
    pub fn len(self) -> usize {
        self.end - self.start
    }

    /// Tells whether the span holds no byte.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Span::new(range.start, range.end)
    }
}

impl From<Span> for miette::SourceSpan {
    fn from(span: Span) -> Self {
        (span.start, span.len()).into()
    }
}

/// From this offset of a text on, its bytes stand at `file` and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Jump {
    text: usize,
    file: usize,
}

/// A piece of the Dockerfile as read: its characters (variables not expanded) and where they stand.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Text {
    text: String,
    span: Span,
    /// Only the places where the offset in the file does not follow from the previous byte; empty for plain text.
    jumps: Vec<Jump>,
}

impl Text {
    /// Makes a text whose bytes stand in the file exactly as they are, from `start` on.
    pub fn plain(text: impl Into<String>, start: usize) -> Self {
        let text = text.into();
        let span = Span::new(start, start + text.len());
        Text { text, span, jumps: Vec::new() }
    }

    /// Makes a text that stands in no file (a value from the command line or an image).
    pub fn detached(text: impl Into<String>) -> Self {
        Text { text: text.into(), span: Span::default(), jumps: Vec::new() }
    }

    /// Returns the characters.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the bytes of the file that the text was read from, quotes and line ends between its parts included.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Replaces the reported span, which then may hold more than the characters (the quotes around them).
    pub(crate) fn with_span(mut self, span: Span) -> Self {
        if self.jumps.is_empty() && span.start != self.span.start {
            self.jumps.push(Jump { text: 0, file: self.span.start });
        }
        self.span = span;
        self
    }

    /// Tells whether there are no characters.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Turns an offset into the text into an offset of the file.
    pub fn offset_in_file(&self, offset: usize) -> usize {
        match self.jumps.partition_point(|jump| jump.text <= offset) {
            0 => self.span.start + offset,
            n => self.jumps[n - 1].file + (offset - self.jumps[n - 1].text),
        }
    }

    /// Turns a range of the text into the bytes of the file from its first to its last character.
    pub fn span_of(&self, range: Range<usize>) -> Span {
        let start = self.offset_in_file(range.start);
        match range.end > range.start {
            true => Span::new(start, self.offset_in_file(range.end - 1) + 1),
            false => Span::new(start, start),
        }
    }

    /// Copies a range of the text together with its places. The range must lie on character boundaries.
    pub fn slice(&self, range: Range<usize>) -> Text {
        let mut out = TextBuilder::default();
        out.push_from(self, range.clone());
        let mut text = out.finish(self.offset_in_file(range.start));
        text.span = self.span_of(range);
        text
    }

    /// Copies the text without the white space around it.
    pub fn trimmed(&self) -> Text {
        let start = self.text.len() - self.text.trim_start().len();
        self.slice(start..start + self.text.trim().len())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} @{:?}", self.text, self.span)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

/// Collects a [`Text`] piece by piece.
#[derive(Debug, Default)]
pub(crate) struct TextBuilder {
    text: String,
    jumps: Vec<Jump>,
    end: usize,
}

impl TextBuilder {
    /// Appends `piece`, whose first byte stands at `file`.
    pub(crate) fn push(&mut self, piece: &str, file: usize) {
        if self.text.is_empty() || self.end != file {
            self.jumps.push(Jump { text: self.text.len(), file });
        }
        self.text.push_str(piece);
        self.end = file + piece.len();
    }

    /// Appends a range of another text.
    pub(crate) fn push_from(&mut self, from: &Text, range: Range<usize>) {
        let first = from.jumps.partition_point(|jump| jump.text <= range.start);
        let mut at = range.start;
        for jump in from.jumps[first..].iter().take_while(|jump| jump.text < range.end) {
            self.push(&from.text[at..jump.text], from.offset_in_file(at));
            at = jump.text;
        }
        if at < range.end {
            self.push(&from.text[at..range.end], from.offset_in_file(at));
        }
    }

    /// Ends the text; an empty one stands at `fallback`.
    pub(crate) fn finish(self, fallback: usize) -> Text {
        let start = self.jumps.first().map_or(fallback, |jump| jump.file);
        let end = if self.text.is_empty() { start } else { self.end };
        let jumps = if self.jumps.len() > 1 { self.jumps } else { Vec::new() };
        Text { text: self.text, span: Span::new(start, end), jumps }
    }
}

/// A line and a column as people count them: both from 1; columns count characters, not bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line number, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
}

/// Finds lines and columns of byte offsets in one file.
#[derive(Debug, Clone)]
pub struct LineIndex<'a> {
    source: &'a [u8],
    starts: Vec<usize>,
}

impl<'a> LineIndex<'a> {
    /// Notes where the lines of `source` begin.
    pub fn new(source: &'a [u8]) -> Self {
        let after = source.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        LineIndex { source, starts: std::iter::once(0).chain(after).collect() }
    }

    /// Gives the line and column of a byte offset; an offset behind the end counts as the end.
    pub fn position(&self, offset: usize) -> Position {
        let offset = offset.min(self.source.len());
        let line = self.starts.partition_point(|start| *start <= offset);
        let mut head = &self.source[self.starts[line - 1]..offset];
        if line == 1 {
            head = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head);
        }
        Position { line, column: String::from_utf8_lossy(head).chars().count() + 1 }
    }

    /// Gives the numbers of the first and the last line that a span touches.
    pub fn lines(&self, span: Span) -> (usize, usize) {
        let last = if span.is_empty() { span.end } else { span.end - 1 };
        (self.position(span.start).line, self.position(last).line)
    }

    /// Counts the lines; a final line end does not begin another one.
    pub fn count(&self) -> usize {
        self.starts.len()
            - usize::from(self.starts.last() == Some(&self.source.len()) && self.starts.len() > 1)
    }

    /// Returns the text of a line (from 1) without its line end; damaged UTF-8 is shown as U+FFFD.
    pub fn line(&self, number: usize) -> std::borrow::Cow<'a, str> {
        let bytes = self.line_bytes(number);
        String::from_utf8_lossy(bytes)
    }

    /// Returns the offset of the first byte of a line (from 1).
    pub fn start_of(&self, number: usize) -> usize {
        self.starts.get(number.wrapping_sub(1)).copied().unwrap_or(self.source.len())
    }

    fn line_bytes(&self, number: usize) -> &'a [u8] {
        let start = self.start_of(number);
        let end = self.starts.get(number).copied().unwrap_or(self.source.len());
        let line = &self.source[start..end];
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if number == 1 { line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line) } else { line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_follow_the_jumps() {
        let mut builder = TextBuilder::default();
        builder.push("ab", 10);
        builder.push("cd", 12);
        builder.push("ef", 20);
        let text = builder.finish(0);
        assert_eq!(text.as_str(), "abcdef");
        assert_eq!(text.span(), Span::new(10, 22));
        let places: Vec<usize> = (0..6).map(|at| text.offset_in_file(at)).collect();
        assert_eq!(places, [10, 11, 12, 13, 20, 21]);
        assert_eq!(text.span_of(3..5), Span::new(13, 21));
        let part = text.slice(3..6);
        assert_eq!((part.as_str(), part.span()), ("def", Span::new(13, 22)));
        assert_eq!(part.offset_in_file(1), 20);
    }

    #[test]
    fn positions_count_characters_and_skip_the_mark() {
        let source = "\u{feff}aé\nb\r\n".as_bytes();
        let index = LineIndex::new(source);
        assert_eq!(index.position(3), Position { line: 1, column: 1 });
        assert_eq!(index.position(6), Position { line: 1, column: 3 });
        assert_eq!(index.position(7), Position { line: 2, column: 1 });
        assert_eq!(index.count(), 2);
        assert_eq!((&*index.line(1), &*index.line(2)), ("aé", "b"));
    }
}
