//! What can be wrong with a word, and what to do about it.

use super::diagnostic::Diagnostic;
use super::pattern::PatternError;
use super::span::Text;
use super::word::{DEEPEST, LONGEST};
use std::ops::Range;

/// Why a word cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct WordError {
    /// What is wrong.
    pub kind: WordErrorKind,
    /// The bytes of the word it concerns.
    pub range: Range<usize>,
}

/// What can be wrong with a word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum WordErrorKind {
    #[error("unexpected end of statement while looking for matching {0}-quote")]
    OpenQuote(&'static str),
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    #[error("unsupported modifier ({0}) in substitution")]
    UnsupportedModifier(String),
    /// `${name:?message}` of an unset or empty variable.
    #[error("{name}: {message}")]
    Required { name: String, message: String },
    #[error("invalid pattern ({pattern}) in substitution: {reason}")]
    InvalidPattern { pattern: String, reason: PatternError },
    #[error("the expanded word is longer than {LONGEST} bytes")]
    TooLong,
    #[error("variables are nested deeper than {DEEPEST} levels")]
    TooDeep,
}

impl WordError {
    /// Points at the word in the file.
    pub fn at(&self, text: &Text) -> Diagnostic {
        let (start, end) =
            (self.range.start.min(text.as_str().len()), self.range.end.min(text.as_str().len()));
        let message = format!("failed to process {:?}: {self}", shortened(text.as_str()));
        let span = if start < end { text.span_of(start..end) } else { text.span() };
        let error = Diagnostic::new("rbuild::word", message).at(span);
        match &self.kind {
            WordErrorKind::OpenQuote(_) => {
                error.help("close the quote, or put an escape character before it")
            }
            WordErrorKind::MissingBrace => error.help("close the variable with `}`"),
            WordErrorKind::MissingSlash => error.help("write ${name/pattern/replacement}"),
            WordErrorKind::BadSubstitution => error.help("write ${name}; to get a dollar sign, escape it"),
            WordErrorKind::UnsupportedModifier(_) => {
                error.help("after the name may stand :- - :+ + :? ? # ## % %% / and //")
            }
            WordErrorKind::Required { name, .. } => {
                error.help(format!("set it with ARG, ENV or --build-arg {name}=..."))
            }
            WordErrorKind::InvalidPattern { .. } => {
                error.help("in patterns `*` and `?` are special; only they and `\\` may be escaped")
            }
            WordErrorKind::TooLong | WordErrorKind::TooDeep => error,
        }
    }
}

/// Cuts what is too long for a message.
pub(super) fn shortened(text: &str) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}
