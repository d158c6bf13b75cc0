//! The expander: quotes, escapes and `$variables` of one word, as the reference builder's shell lexer reads them.
//!
//! It is close to a POSIX shell but is not one, and its differences are the point: an escape character outside
//! quotes always vanishes, positional and special parameters are unset variables, `[...]` is no pattern, and only
//! [`Lexer::words`] splits. It knows nothing about where values come from (see [`Env`]) and does no I/O.
//!
//! Hostile input is bounded: nesting to [`DEEPEST`] levels, results and intermediate texts to [`LONGEST`] bytes.
//! Everything else is one pass over the characters.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use super::pattern::Pattern;
pub use super::pattern::PatternError;
use super::word_error::shortened;
pub use super::word_error::{WordError, WordErrorKind};

/// The longest expanded word in bytes.
pub const LONGEST: usize = 1 << 20;

/// How many `${a:-${b:-...}}` may stand in each other.
pub const DEEPEST: usize = 100;

/// Where values of variables come from.
pub trait Env {
    /// Gives the value of a variable, or nothing when it is unset.
    fn get(&self, name: &str) -> Option<&str>;
}

impl Env for () {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }
}

impl Env for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str)
    }
}

impl Env for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        HashMap::get(self, name).map(String::as_str)
    }
}

impl<E: Env + ?Sized> Env for &E {
    fn get(&self, name: &str) -> Option<&str> {
        (**self).get(name)
    }
}

/// An expanded word and the variables met on the way.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Expanded {
    /// The result, quotes and escapes removed.
    pub text: String,
    /// Variables that were asked for and set.
    pub used: BTreeSet<String>,
    /// Variables that were asked for and not set, those with a default (`${x:-y}`) among them.
    pub unset: BTreeSet<String>,
}

/// How words are read. Make one with [`Lexer::new`] or [`Lexer::for_heredoc`].
#[derive(Clone, Copy, Debug)]
pub struct Lexer {
    escape: char,
    /// Quotes are ordinary characters.
    ignore_quotes: bool,
    /// Quotes are kept in the result.
    keep_quotes: bool,
    /// Escape characters are kept in the result.
    keep_escapes: bool,
    /// References to unset variables are kept as they are.
    keep_unset: bool,
}

impl Lexer {
    /// Reads instruction words with the given escape character (`\` or a backtick).
    pub fn new(escape: char) -> Self {
        Lexer { escape, ignore_quotes: false, keep_quotes: false, keep_escapes: false, keep_unset: false }
    }

    /// Reads the bodies of heredocs of COPY and ADD: quotes are text, and the escape character is always `\`.
    pub fn for_heredoc() -> Self {
        Lexer { ignore_quotes: true, ..Lexer::new('\\') }
    }

    /// Reads a RUN line to show it: quotes and unset variables stay.
    pub fn for_label(escape: char) -> Self {
        Lexer { keep_quotes: true, keep_unset: true, ..Lexer::new(escape) }
    }

    /// Reads the marker of a heredoc: quotes go or stay, variables stay.
    pub(super) fn for_marker(keep_quotes: bool, keep_escapes: bool) -> Self {
        Lexer { keep_quotes, keep_escapes, keep_unset: true, ..Lexer::new('\\') }
    }

    /// Expands a word to one text; white space in values does not split it.
    pub fn word(&self, word: &str, env: &dyn Env) -> Result<Expanded, WordError> {
        let mut scan = Scan::new(self, word, env);
        let text = scan.until(None, self.keep_escapes)?.0;
        Ok(Expanded { text, used: scan.used, unset: scan.unset })
    }

    /// Expands a word and splits the result at white space that is not quoted; used for EXPOSE.
    ///
    /// As in the reference builder, what stands directly before a `${name:-word}` (any form with a nested word)
    /// in the same unquoted piece is lost: `80${x:-90}` gives `90`.
    pub fn words(&self, word: &str, env: &dyn Env) -> Result<Vec<String>, WordError> {
        Ok(self.words_at(word, env)?.into_iter().map(|(word, _)| word).collect())
    }

    /// Like [`Lexer::words`], with the range of the source each one was read from.
    pub(super) fn words_at(
        &self,
        word: &str,
        env: &dyn Env,
    ) -> Result<Vec<(String, Range<usize>)>, WordError> {
        let mut scan = Scan::new(self, word, env);
        Ok(scan.until(None, self.keep_escapes)?.1)
    }
}

/// A word in the making, for the splitting forms.
#[derive(Default)]
struct Pending {
    text: String,
    start: usize,
}

/// Whether characters may end a split word: quoted and escaped ones may not.
#[derive(Clone, Copy, PartialEq)]
enum Splits {
    Yes,
    No,
}

type Word = (String, Range<usize>);

struct Scan<'a> {
    lexer: &'a Lexer,
    source: &'a str,
    at: usize,
    env: &'a dyn Env,
    keep_escapes: bool,
    depth: usize,
    pending: Pending,
    used: BTreeSet<String>,
    unset: BTreeSet<String>,
}

impl<'a> Scan<'a> {
    fn new(lexer: &'a Lexer, source: &'a str, env: &'a dyn Env) -> Self {
        let pending = Pending::default();
        let (used, unset) = (BTreeSet::new(), BTreeSet::new());
        Scan { lexer, source, at: 0, env, keep_escapes: lexer.keep_escapes, depth: 0, pending, used, unset }
    }

    fn peek(&self) -> Option<char> {
        self.source[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn error<T>(&self, start: usize, kind: WordErrorKind) -> Result<T, WordError> {
        Err(WordError { kind, range: start..self.at })
    }

    /// Reads to the stop character (which is taken) or, without one, to the end.
    /// Gives the text and the same text split into words.
    fn until(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<(String, Vec<Word>), WordError> {
        let before = std::mem::replace(&mut self.keep_escapes, keep_escapes);
        self.depth += 1;
        let result =
            if self.depth > DEEPEST { self.error(self.at, WordErrorKind::TooDeep) } else { self.read(stop) };
        self.depth -= 1;
        self.keep_escapes = before;
        result
    }

    fn read(&mut self, stop: Option<char>) -> Result<(String, Vec<Word>), WordError> {
        let (mut text, mut words) = (String::new(), Vec::new());
        self.pending = Pending::default();
        while let Some(c) = self.peek() {
            let start = self.at;
            if Some(c) == stop {
                self.next();
                self.end_word(&mut words, start);
                return Ok((text, words));
            }
            let (piece, splits) = self.piece(c)?;
            self.add(&mut words, &piece, start, splits);
            text.push_str(&piece);
            if text.len() > LONGEST {
                return self.error(start, WordErrorKind::TooLong);
            }
        }
        if stop.is_some() {
            return self.error(self.at, WordErrorKind::MissingBrace);
        }
        self.end_word(&mut words, self.at);
        Ok((text, words))
    }

    /// Reads one construct that begins with `c`.
    fn piece(&mut self, c: char) -> Result<(String, Splits), WordError> {
        match c {
            '\'' if !self.lexer.ignore_quotes => Ok((self.single_quoted()?, Splits::No)),
            '"' if !self.lexer.ignore_quotes => Ok((self.double_quoted()?, Splits::No)),
            '$' => Ok((self.dollar()?, Splits::Yes)),
            '<' => Ok((self.angle(), Splits::No)),
            c if c == self.lexer.escape => Ok((self.escaped(), Splits::No)),
            c => {
                self.next();
                Ok((c.into(), Splits::Yes))
            }
        }
    }

    /// Adds to the split words. White space splits only what is unquoted; quoted nothing makes no word.
    fn add(&mut self, words: &mut Vec<Word>, piece: &str, start: usize, splits: Splits) {
        for c in piece.chars() {
            if splits == Splits::Yes && c.is_whitespace() {
                self.end_word(words, start);
                continue;
            }
            if self.pending.text.is_empty() {
                self.pending.start = start;
            }
            self.pending.text.push(c);
        }
    }

    fn end_word(&mut self, words: &mut Vec<Word>, end: usize) {
        if !self.pending.text.is_empty() {
            words.push((std::mem::take(&mut self.pending.text), self.pending.start..end));
        }
    }

    /// An escape character at the very end vanishes.
    fn escaped(&mut self) -> String {
        let mut out = String::new();
        let escape = self.next();
        out.extend(escape.filter(|_| self.keep_escapes));
        out.extend(self.next());
        out
    }

    /// `<<` takes the blanks behind it along, so that `<< EOF` is one word.
    fn angle(&mut self) -> String {
        let start = self.at;
        self.next();
        if self.eat('<') {
            while matches!(self.peek(), Some(' ' | '\t' | '\r')) {
                self.next();
            }
        }
        self.source[start..self.at].to_owned()
    }

    fn single_quoted(&mut self) -> Result<String, WordError> {
        let start = self.at;
        self.next();
        let Some(length) = self.source[self.at..].find('\'') else {
            self.at = self.source.len();
            return self.error(start, WordErrorKind::OpenQuote("single"));
        };
        let inner = self.at..self.at + length;
        self.at = inner.end + 1;
        let kept = if self.lexer.keep_quotes { start..self.at } else { inner };
        Ok(self.source[kept].to_owned())
    }

    fn double_quoted(&mut self) -> Result<String, WordError> {
        let start = self.at;
        let mut out = String::new();
        self.next();
        let quote = self.lexer.keep_quotes.then_some('"');
        out.extend(quote);
        loop {
            let here = self.at;
            match self.peek() {
                None => return self.error(start, WordErrorKind::OpenQuote("double")),
                Some('"') => {
                    self.next();
                    out.extend(quote);
                    return Ok(out);
                }
                Some('$') => out.push_str(&self.dollar()?),
                Some(c) if c == self.lexer.escape => self.escaped_in_quotes(&mut out),
                Some(c) => {
                    self.next();
                    out.push(c);
                }
            }
            if out.len() > LONGEST {
                return self.error(here, WordErrorKind::TooLong);
            }
        }
    }

    /// In double quotes an escape character is special only before `"`, `$` and itself.
    fn escaped_in_quotes(&mut self, out: &mut String) {
        let escape = self.lexer.escape;
        self.next();
        if self.keep_escapes {
            out.push(escape);
        }
        match self.peek() {
            None => {}
            Some(c) if c == '"' || c == '$' || c == escape => {
                self.next();
                out.push(c);
            }
            Some(_) => out.push(escape),
        }
    }

    fn lookup(&mut self, name: &str) -> Option<&'a str> {
        let value = self.env.get(name);
        let seen = if value.is_some() { &mut self.used } else { &mut self.unset };
        if !seen.contains(name) {
            seen.insert(name.to_owned());
        }
        value
    }

    fn dollar(&mut self) -> Result<String, WordError> {
        let start = self.at;
        self.next();
        if self.eat('{') {
            return self.braced(start);
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".into());
        }
        match self.lookup(name) {
            Some(value) => Ok(value.to_owned()),
            None if self.lexer.keep_unset => Ok(format!("${name}")),
            None => Ok(String::new()),
        }
    }

    /// A name: digits, or one special character, or letters, digits and underscores.
    fn name(&mut self) -> &'a str {
        let rest = &self.source[self.at..];
        let length = match rest.chars().next() {
            Some(c) if is_digit(c) => rest.find(|c| !is_digit(c)).unwrap_or(rest.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()),
        };
        self.at += length;
        &rest[..length]
    }

    /// What follows `${`.
    fn braced(&mut self, start: usize) -> Result<String, WordError> {
        match self.peek() {
            None => return self.error(start, WordErrorKind::MissingBrace),
            Some('{' | '}' | ':') => {
                self.next();
                return self.error(start, WordErrorKind::BadSubstitution);
            }
            Some(_) => {}
        }
        let name = self.name();
        let modifier = self.at;
        match self.next() {
            None => self.error(start, WordErrorKind::MissingBrace),
            Some('}') => {
                let value = self.lookup(name);
                let kept = || if self.lexer.keep_unset { format!("${{{name}}}") } else { String::new() };
                Ok(value.map_or_else(kept, str::to_owned))
            }
            Some(':') => match self.next() {
                Some(c @ ('-' | '+' | '?')) => self.conditional(start, name, c, true),
                Some(_) => self.unsupported(modifier),
                None => self.error(start, WordErrorKind::MissingBrace),
            },
            Some(c @ ('-' | '+' | '?')) => self.conditional(start, name, c, false),
            Some(c @ ('#' | '%')) => self.trimmed(start, name, c),
            Some('/') => self.replaced(start, name),
            Some(_) => self.unsupported(modifier),
        }
    }

    fn unsupported<T>(&mut self, modifier: usize) -> Result<T, WordError> {
        let sign = self.source[modifier..self.at].to_owned();
        self.error(modifier, WordErrorKind::UnsupportedModifier(sign))
    }

    /// Reads a nested word up to `stop`; a missing stop is reported for the whole variable.
    fn nested(&mut self, start: usize, stop: char, keep_escapes: bool) -> Result<String, WordError> {
        match self.until(Some(stop), keep_escapes) {
            Ok((word, _)) => Ok(word),
            Err(error) if error.kind == WordErrorKind::MissingBrace && error.range.is_empty() => {
                let kind =
                    if stop == '/' { WordErrorKind::MissingSlash } else { WordErrorKind::MissingBrace };
                self.error(start, kind)
            }
            Err(error) => Err(error),
        }
    }

    /// `${name-word}`, `${name+word}`, `${name?word}`; with a colon an empty value counts as unset.
    fn conditional(
        &mut self,
        start: usize,
        name: &str,
        sign: char,
        colon: bool,
    ) -> Result<String, WordError> {
        let word = self.nested(start, '}', false)?;
        let value = self.lookup(name);
        if value.is_none() && self.lexer.keep_unset {
            let colon = if colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{sign}{word}}}"));
        }
        let usable = value.filter(|value| !(colon && value.is_empty()));
        match (sign, usable) {
            ('-', None) => Ok(word),
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            ('-' | '?', Some(value)) => Ok(value.to_owned()),
            _ => {
                let wrong =
                    if value.is_none() { "is not allowed to be unset" } else { "is not allowed to be empty" };
                let message = if word.is_empty() { wrong.to_owned() } else { word };
                self.error(start, WordErrorKind::Required { name: name.to_owned(), message })
            }
        }
    }

    /// `${name#pattern}` and its three relatives.
    fn trimmed(&mut self, start: usize, name: &str, sign: char) -> Result<String, WordError> {
        let word = self.nested(start, '}', true)?;
        let value = self.lookup(name);
        if value.is_none() && self.lexer.keep_unset {
            return Ok(format!("${{{name}{sign}{word}}}"));
        }
        let (pattern, longest) = match word.strip_prefix(sign) {
            Some(rest) => (rest, true),
            None => (word.as_str(), false),
        };
        let value = value.unwrap_or_default();
        let parsed = Pattern::parse(pattern).and_then(|parsed| match sign {
            '#' => parsed.without_prefix(value, longest),
            _ => parsed.without_suffix(value, longest),
        });
        parsed.or_else(|reason| self.bad_pattern(start, pattern, reason))
    }

    /// `${name/pattern/replacement}`, with two slashes for all matches.
    fn replaced(&mut self, start: usize, name: &str) -> Result<String, WordError> {
        let all = self.eat('/');
        let pattern = self.nested(start, '/', true)?;
        let replacement = self.nested(start, '}', true)?;
        let value = self.lookup(name);
        if value.is_none() && self.lexer.keep_unset {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let value = value.unwrap_or_default();
        let replaced = Pattern::parse(&pattern).and_then(|parsed| match all {
            true => parsed.replace_all(value, &replacement, LONGEST),
            false => parsed.replace_first(value, &replacement),
        });
        replaced.or_else(|reason| self.bad_pattern(start, &pattern, reason))
    }

    fn bad_pattern<T>(&self, start: usize, pattern: &str, reason: PatternError) -> Result<T, WordError> {
        match reason {
            PatternError::ResultTooLong => self.error(start, WordErrorKind::TooLong),
            reason => self.error(
                start,
                WordErrorKind::InvalidPattern { pattern: shortened(pattern).into_owned(), reason },
            ),
        }
    }
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric() && !c.is_alphabetic())
}
