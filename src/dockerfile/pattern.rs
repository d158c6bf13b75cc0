//! The patterns of `${name#pattern}` and `${name/pattern/replacement}`.
//!
//! Only `*` and `?` are special, neither matches a line end, and the escape is always `\`. A pattern becomes a
//! regular expression of an engine without backtracking, so matching cannot blow up; suffixes are found by turning
//! pattern and value round.

use regex::{Regex, RegexBuilder};

/// The longest pattern in characters; matching costs pattern times value.
const LONGEST_PATTERN: usize = 4096;

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PatternError {
    #[error("invalid escape '\\{0}'")]
    InvalidEscape(char),
    #[error("it ends with an escape character")]
    OpenEscape,
    #[error("it is longer than {LONGEST_PATTERN} characters")]
    TooLong,
    #[error("the result is too long")]
    ResultTooLong,
}

#[derive(Clone, Copy)]
enum Part {
    Char(char),
    One,
    Many,
}

/// A parsed pattern.
pub(super) struct Pattern(Vec<Part>);

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let mut parts = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if parts.len() == LONGEST_PATTERN {
                return Err(PatternError::TooLong);
            }
            parts.push(match c {
                '*' => Part::Many,
                '?' => Part::One,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Part::Char(c),
                    Some(c) => return Err(PatternError::InvalidEscape(c)),
                    None => return Err(PatternError::OpenEscape),
                },
                c => Part::Char(c),
            });
        }
        Ok(Pattern(parts))
    }

    /// Removes the shortest or longest beginning of `value` that matches.
    pub(super) fn without_prefix(&self, value: &str, longest: bool) -> Result<String, PatternError> {
        let end = self.regex(longest, true)?.find(value).map_or(0, |found| found.end());
        Ok(value[end..].to_owned())
    }

    /// Removes the shortest or longest end of `value` that matches.
    pub(super) fn without_suffix(&self, value: &str, longest: bool) -> Result<String, PatternError> {
        let turned = Pattern(self.0.iter().rev().copied().collect());
        let value: String = value.chars().rev().collect();
        Ok(turned.without_prefix(&value, longest)?.chars().rev().collect())
    }

    /// Replaces the first match, as long as possible, by the replacement as it is.
    pub(super) fn replace_first(&self, value: &str, replacement: &str) -> Result<String, PatternError> {
        Ok(match self.regex(true, false)?.find(value) {
            Some(found) => [&value[..found.start()], replacement, &value[found.end()..]].concat(),
            None => value.to_owned(),
        })
    }

    /// Replaces all matches. Here, and only here, the reference builder reads `$` in the replacement as the
    /// template of a regular expression: `$0` is the match, other names are empty, `$$` is a dollar.
    pub(super) fn replace_all(
        &self,
        value: &str,
        replacement: &str,
        limit: usize,
    ) -> Result<String, PatternError> {
        let regex = self.regex(true, false)?;
        let (mut out, mut done) = (String::new(), 0);
        for found in regex.captures_iter(value) {
            let whole = found.get_match();
            out.push_str(&value[done..whole.start()]);
            found.expand(replacement, &mut out);
            done = whole.end();
            if out.len() > limit {
                return Err(PatternError::ResultTooLong);
            }
        }
        out.push_str(&value[done..]);
        Ok(out)
    }

    fn regex(&self, longest: bool, anchored: bool) -> Result<Regex, PatternError> {
        let mut text = String::from(if anchored { "^" } else { "" });
        for part in &self.0 {
            match part {
                Part::Char(c) => text.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
                Part::One => text.push('.'),
                Part::Many => text.push_str(if longest { ".*" } else { ".*?" }),
            }
        }
        RegexBuilder::new(&text).size_limit(64 << 20).build().map_err(|_| PatternError::TooLong)
    }
}
