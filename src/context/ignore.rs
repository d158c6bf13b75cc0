//! The rules of an ignore file: which paths of a context do not exist for the build.
//!
//! Unlike gitignore's, the rules are anchored at the root of the context, the last matching line wins, a rule for a
//! directory counts for all below it, and a `!` line brings paths back even out of an excluded directory
//! (moby/patternmatcher, `MatchesOrParentMatches`). Because the last match wins, one number is all that has to be
//! known about the directory above: the line that decides there.

use super::glob::{Dialect, Pattern, PatternError};
use crate::tree::TreePath;

/// A line that is not a rule.
#[derive(Debug, thiserror::Error)]
pub enum IgnoreError {
    /// Wrong syntax.
    #[error("{file}:{line}: {source}")]
    Pattern {
        /// Name of the file as shown to the user.
        file: String,
        /// 1-based.
        line: usize,
        /// What is wrong.
        source: PatternError,
    },
    /// `!` with nothing after it.
    #[error("{file}:{line}: illegal exclusion pattern: \"!\" stands alone; write the path to keep after it")]
    LoneBang {
        /// Name of the file as shown to the user.
        file: String,
        /// 1-based.
        line: usize,
    },
}

/// One line.
#[derive(Debug, Clone)]
pub struct Rule {
    /// As it stands in the file, trimmed.
    pub text: String,
    /// 1-based line.
    pub line: usize,
    /// Brings back what earlier rules exclude.
    pub negated: bool,
    pattern: Pattern,
}

/// The line that decides about a path; `None` when no line speaks of it. Later lines are greater.
pub type Verdict = Option<usize>;

/// The rules in the order of the file.
#[derive(Debug, Clone, Default)]
pub struct IgnoreRules {
    file: String,
    rules: Vec<Rule>,
}

impl IgnoreRules {
    /// Excludes nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads an ignore file; `file` is its name for messages.
    pub fn parse(text: &[u8], file: &str) -> Result<Self, IgnoreError> {
        let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
        let mut rules = Vec::new();
        for (index, line) in text.split(|b| *b == b'\n').enumerate() {
            if !line.starts_with(b"#") {
                rules.extend(rule(line, index + 1, file)?);
            }
        }
        Ok(Self { file: file.to_owned(), rules })
    }

    /// Makes rules from the values of `--exclude` or from `--parents` patterns; `what` names them in messages.
    pub fn from_patterns<'a>(
        patterns: impl IntoIterator<Item = &'a [u8]>,
        what: &str,
    ) -> Result<Self, IgnoreError> {
        let mut rules = Vec::new();
        for (index, pattern) in patterns.into_iter().enumerate() {
            rules.extend(rule(pattern, index + 1, what)?);
        }
        Ok(Self { file: what.to_owned(), rules })
    }

    /// Says whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Says whether any rule takes something back (`!`).
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.negated)
    }

    /// Says whether the path is excluded.
    pub fn excludes(&self, path: &TreePath) -> bool {
        self.is_excluded(self.verdict(path))
    }

    /// Names the line that decides about the path.
    pub fn verdict(&self, path: &TreePath) -> Verdict {
        let bytes = path.as_bytes();
        let ends = bytes.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i);
        ends.chain([bytes.len()]).fold(None, |above, end| self.verdict_below(above, &bytes[..end]))
    }

    /// Names the line that decides about a path whose directory has the given verdict.
    pub fn verdict_below(&self, parent: Verdict, path: &[u8]) -> Verdict {
        if path.is_empty() {
            return None;
        }
        let first = parent.map_or(0, |index| index + 1);
        (first..self.rules.len()).rev().find(|index| self.rules[*index].pattern.matches(path)).or(parent)
    }

    /// Says whether a verdict means that the path does not exist for the build.
    pub fn is_excluded(&self, verdict: Verdict) -> bool {
        verdict.is_some_and(|index| !self.rules[index].negated)
    }

    /// Says whether nothing below an excluded directory can be brought back by a later `!` rule.
    pub fn can_prune(&self, dir: &TreePath) -> bool {
        self.prunes(self.verdict(dir), dir.as_bytes())
    }

    /// The same for a directory whose verdict is known.
    pub fn prunes(&self, verdict: Verdict, dir: &[u8]) -> bool {
        let Some(decided) = verdict else { return false };
        self.is_excluded(verdict)
            && !self.rules[decided + 1..].iter().any(|r| r.negated && r.pattern.could_match_below(dir))
    }

    /// Says whether some rule could match something below the directory.
    pub fn could_match_below(&self, dir: &[u8]) -> bool {
        dir.is_empty() || self.rules.iter().any(|r| r.pattern.could_match_below(dir))
    }

    /// Gives the rule of a verdict.
    pub fn rule(&self, verdict: Verdict) -> Option<&Rule> {
        self.rules.get(verdict?)
    }

    /// Says which rule excludes the path, for people.
    pub fn explain(&self, path: &TreePath) -> Option<String> {
        let verdict = self.verdict(path);
        let rule = self.rule(verdict).filter(|_| self.is_excluded(verdict))?;
        Some(format!("excluded by line {} of {}: {}", rule.line, self.file, rule.text))
    }
}

fn rule(line: &[u8], number: usize, file: &str) -> Result<Option<Rule>, IgnoreError> {
    let text = line.trim_ascii();
    let (negated, body) = match text.strip_prefix(b"!") {
        Some(rest) => (true, rest.trim_ascii()),
        None => (false, text),
    };
    let lone = || IgnoreError::LoneBang { file: file.to_owned(), line: number };
    if body.is_empty() {
        return if negated { Err(lone()) } else { Ok(None) };
    }
    // Moby reads the line once and its patterns once more, so `/!a` brings back and `!/` is a lone `!`.
    let again = [if negated { &b"!"[..] } else { b"" }, &clean(body)].concat();
    let again = clean(again.trim_ascii());
    let (negated, cleaned) = match again.strip_prefix(b"!") {
        Some([]) => return Err(lone()),
        Some(rest) => (true, rest.to_vec()),
        None => (false, again),
    };
    let pattern = Pattern::new(&cleaned, Dialect::Ignore).map_err(|source| IgnoreError::Pattern {
        file: file.to_owned(),
        line: number,
        source,
    })?;
    Ok(Some(Rule { text: String::from_utf8_lossy(text).into_owned(), line: number, negated, pattern }))
}

/// Cleans as Go's filepath.Clean does and takes a leading slash away; `..` at the start stays, it matches nothing.
fn clean(pattern: &[u8]) -> Vec<u8> {
    let rooted = pattern.starts_with(b"/");
    let mut out: Vec<&[u8]> = Vec::new();
    for part in pattern.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match out.last() {
                Some(&last) if last != b".." => drop(out.pop()),
                _ if rooted => {}
                _ => out.push(part),
            },
            _ => out.push(part),
        }
    }
    if out.is_empty() {
        // "/" and "." speak of the root itself, which is never excluded
        return if rooted { b"/".to_vec() } else { b".".to_vec() };
    }
    out.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(text: &str) -> IgnoreRules {
        IgnoreRules::parse(text.as_bytes(), ".dockerignore").unwrap()
    }

    fn p(path: &str) -> TreePath {
        TreePath::clean(path.as_bytes())
    }

    #[test]
    fn lines_are_read_as_moby_does() {
        for (text, path, want) in [
            ("#a\na", "a", true),
            (" #a", "#a", true),
            ("  a  ", "a", true),
            ("/a", "a", true),
            ("./a", "a", true),
            ("a/", "a", true),
            ("a//b/../c", "a/c", true),
            ("\u{feff}a", "a", true),
            ("a\r\nb", "a", true),
            ("*\n! b", "b", false),
            ("*\n!/b", "b", false),
            ("!a\na", "a", true),
            ("/", "a", false),
            (".", "a", false),
            ("../a", "a", false),
            ("node_modules", "x/node_modules", false),
            ("**/node_modules", "x/node_modules/y/z", true),
            ("foo", "foo/bar/baz", true),
            ("foo", "foobar", false),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README-x.md", false),
            ("*\n!src\nsrc/*.tmp", "src/a.tmp", true),
            ("*\n!src\nsrc/*.tmp", "src/a.c", false),
            ("dir\n!dir/keep", "dir/keep", false),
            ("dir\n!dir/keep", "dir/other", true),
            ("dir\n!dir/keep\ndir", "dir/keep", true),
            ("Dir", "dir", false),
            ("a /", "a", true),
            ("*\n/!a", "a", false),
        ] {
            assert_eq!(rules(text).excludes(&p(path)), want, "{text:?} {path}");
        }
        assert!(IgnoreRules::parse(b"!/", "f").is_err());
        assert!(IgnoreRules::parse(b"a\n!", "f").unwrap_err().to_string().starts_with("f:2:"));
        assert!(IgnoreRules::parse(b"[", "f").unwrap_err().to_string().contains("f:1:"));
    }

    #[test]
    fn a_directory_is_left_out_only_when_nothing_below_comes_back() {
        for (text, dir, want) in [
            ("dir", "dir", true),
            ("dir\n!dir/keep", "dir", false),
            ("dir\n!other/keep", "dir", true),
            ("dir\n!**/keep", "dir", false),
            ("!dir/keep\ndir", "dir", true),
            ("dir\n!dir/a/keep", "dir/b", true),
            ("dir\n!dir/*/keep", "dir/b", false),
            ("*\n!src", "node", true),
            ("*\n!src", "src", false),
            ("a", "b", false),
        ] {
            assert_eq!(rules(text).can_prune(&p(dir)), want, "{text:?} {dir}");
        }
    }

    #[test]
    fn the_rule_that_excludes_is_named() {
        let why = rules("x\n\n*.key\n").explain(&p("a.key")).unwrap();
        assert_eq!(why, "excluded by line 3 of .dockerignore: *.key");
        assert_eq!(rules("*\n!b").explain(&p("b")), None);
    }

    /// The text of moby/patternmatcher's documentation: each rule in turn, against the path and each of its parents.
    fn slow(text: &str, path: &str) -> bool {
        let mut excluded = false;
        for line in text.lines() {
            let (negated, pattern) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
            let pattern = Pattern::new(&clean(pattern.as_bytes()), Dialect::Ignore).unwrap();
            let mut parents: Vec<&str> = path.match_indices('/').map(|(i, _)| &path[..i]).collect();
            parents.push(path);
            if parents.iter().any(|p| pattern.matches(p.as_bytes())) {
                excluded = !negated;
            }
        }
        excluded
    }

    proptest! {
        #[test]
        fn same_as_the_obvious_way(
            lines in proptest::collection::vec("!?[ab*]{1,3}(/[ab*?]{1,2}){0,2}", 1..6),
            path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
        ) {
            let text = lines.join("\n");
            prop_assert_eq!(rules(&text).excludes(&p(&path)), slow(&text, &path), "{:?} {}", text, path);
        }

        #[test]
        fn nothing_wanted_is_pruned(
            lines in proptest::collection::vec("!?[ab*]{1,3}(/[ab*?]{1,2}){0,2}", 1..6),
            path in "[ab]{1,2}(/[ab]{1,2}){1,3}",
        ) {
            let rules = rules(&lines.join("\n"));
            let path = p(&path);
            if !rules.excludes(&path) {
                let mut dir = path.parent();
                while let Some(d) = dir.filter(|d| !d.is_root()) {
                    prop_assert!(!rules.can_prune(&d), "{} pruned, {} wanted", d, path);
                    dir = d.parent();
                }
            }
        }
    }
}
