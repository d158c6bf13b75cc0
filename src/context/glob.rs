//! Patterns over path bytes, matched in linear time.
//!
//! Two dialects share one machine: the ignore file's (moby/patternmatcher, with `**`) and the one of COPY's wildcards
//! (Go's `filepath.Match`). The machine is a set of states that moves through the path once (Thompson), so no pattern
//! can make it backtrack. Characters are UTF-8 where the bytes are, and single bytes where they are not.

use std::cell::RefCell;

/// A pattern that does not follow the syntax.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern {pattern:?}: {why}")]
pub struct PatternError {
    /// As written.
    pub pattern: String,
    /// What is wrong.
    pub why: &'static str,
}

/// What `**` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Any depth, as in ignore files.
    Ignore,
    /// The same as `*`, as in COPY's sources.
    Component,
}

/// One character of a path: a code point, or a byte that is not UTF-8 (above all code points).
type Rune = u32;

const SLASH: Rune = b'/' as Rune;
const NOT_UTF8: Rune = 0x11_0000;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    One(Rune),
    /// `?`: one character that is not a slash.
    NotSlash,
    Class {
        negated: bool,
        ranges: Vec<(Rune, Rune)>,
    },
    /// `*`: stays while no slash comes.
    Star,
    /// `**` before something: nothing, or any text that ends in a slash; the next step is its inside.
    Dirs,
    InDirs,
    /// `**` at the end, and at the start of what is otherwise plain text.
    Anything,
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// Set when the pattern is plain text.
    exact: Option<Vec<u8>>,
    steps: Vec<Step>,
}

#[derive(Default)]
struct States {
    now: Vec<usize>,
    next: Vec<usize>,
    seen: Vec<u32>,
    round: u32,
}

thread_local! {
    static STATES: RefCell<States> = RefCell::default();
}

impl Pattern {
    /// Compiles a cleaned pattern.
    pub fn new(pattern: &[u8], dialect: Dialect) -> Result<Self, PatternError> {
        let runes: Vec<Rune> = Runes(pattern).collect();
        let fail = |why| PatternError { pattern: String::from_utf8_lossy(pattern).into_owned(), why };
        let mut steps = Vec::with_capacity(runes.len() + 1);
        let mut at = 0;
        while let Some(&rune) = runes.get(at) {
            at += 1;
            match char::from_u32(rune) {
                Some('*') if dialect == Dialect::Ignore && runes.get(at) == Some(&('*' as Rune)) => {
                    at += 1;
                    let slash = runes.get(at) == Some(&SLASH);
                    at += usize::from(slash);
                    match runes.get(at) {
                        None => steps.push(Step::Anything),
                        // "**x" with nothing special after it takes any name that ends in x, not only whole ones
                        Some(_) if at == 2 && !slash && is_plain(&runes[at..]) => steps.push(Step::Anything),
                        Some(_) => steps.extend([Step::Dirs, Step::InDirs]),
                    }
                }
                Some('*') => steps.push(Step::Star),
                Some('?') => steps.push(Step::NotSlash),
                Some('\\') => {
                    steps.push(Step::One(*runes.get(at).ok_or_else(|| fail("it ends in a backslash"))?));
                    at += 1;
                }
                Some('[') => {
                    let (class, used) = class(&runes[at..]).map_err(fail)?;
                    steps.push(class);
                    at += used;
                }
                _ => steps.push(Step::One(rune)),
            }
        }
        let exact = is_plain(&runes).then(|| pattern.to_vec());
        Ok(Self { exact, steps })
    }

    /// Says whether the whole path matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        match &self.exact {
            Some(text) => text == path,
            None => self.run(path, |steps, states| states.contains(&steps.len())),
        }
    }

    /// Says whether something below the directory could match; only ever wrong towards yes.
    pub fn could_match_below(&self, dir: &[u8]) -> bool {
        if let Some(text) = &self.exact {
            return text.len() > dir.len() + 1 && text.starts_with(dir) && text[dir.len()] == b'/';
        }
        let mut prefix = dir.to_vec();
        prefix.push(b'/');
        self.run(&prefix, |_, states| !states.is_empty())
    }

    fn run(&self, path: &[u8], done: impl Fn(&[Step], &[usize]) -> bool) -> bool {
        STATES.with_borrow_mut(|s| {
            s.seen.clear();
            s.seen.resize(self.steps.len() + 1, 0);
            s.now.clear();
            s.round = 1;
            let States { now, next, seen, round } = s;
            self.enter(0, now, seen, *round);
            for rune in Runes(path) {
                if now.is_empty() {
                    break;
                }
                *round += 1;
                next.clear();
                for &at in now.iter() {
                    self.step(at, rune, next, seen, *round);
                }
                std::mem::swap(now, next);
            }
            done(&self.steps, now)
        })
    }

    /// Adds a state and all that it reaches without a character.
    fn enter(&self, at: usize, states: &mut Vec<usize>, seen: &mut [u32], round: u32) {
        if std::mem::replace(&mut seen[at], round) == round {
            return;
        }
        states.push(at);
        match self.steps.get(at) {
            Some(Step::Star | Step::Anything) => self.enter(at + 1, states, seen, round),
            Some(Step::Dirs) => {
                self.enter(at + 1, states, seen, round);
                self.enter(at + 2, states, seen, round);
            }
            _ => {}
        }
    }

    fn step(&self, at: usize, rune: Rune, next: &mut Vec<usize>, seen: &mut [u32], round: u32) {
        let mut go = |to| self.enter(to, next, seen, round);
        match self.steps.get(at) {
            Some(Step::One(want)) if *want == rune => go(at + 1),
            Some(Step::NotSlash) if rune != SLASH => go(at + 1),
            Some(Step::Class { negated, ranges })
                if ranges.iter().any(|(lo, hi)| (*lo..=*hi).contains(&rune)) != *negated =>
            {
                go(at + 1);
            }
            Some(Step::Star) if rune != SLASH => go(at),
            Some(Step::Anything) => go(at),
            Some(Step::InDirs) => {
                go(at);
                if rune == SLASH {
                    go(at + 1);
                }
            }
            _ => {}
        }
    }
}

/// Says whether a text holds a character that COPY takes as a wildcard; an escaped one is none.
pub fn has_wildcard(text: &[u8]) -> bool {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    false
}

fn is_plain(runes: &[Rune]) -> bool {
    !runes.iter().any(|r| matches!(char::from_u32(*r), Some('*' | '?' | '[' | '\\')))
}

/// Reads what follows a `[`, up to and with its `]`, as Go's filepath.Match does.
fn class(runes: &[Rune]) -> Result<(Step, usize), &'static str> {
    const OPEN: &str = "a [ without its ]";
    let is = |at: usize, c: char| runes.get(at) == Some(&(c as Rune));
    let mut at = 0;
    let negated = is(0, '^');
    at += usize::from(negated);
    let mut ranges = Vec::new();
    loop {
        if is(at, ']') && !ranges.is_empty() {
            return Ok((Step::Class { negated, ranges }, at + 1));
        }
        let lo = class_end(runes, &mut at).ok_or(OPEN)?;
        let mut hi = lo;
        if is(at, '-') {
            at += 1;
            hi = class_end(runes, &mut at).ok_or(OPEN)?;
        }
        ranges.push((lo, hi));
    }
}

fn class_end(runes: &[Rune], at: &mut usize) -> Option<Rune> {
    let mut rune = *runes.get(*at)?;
    if rune == '-' as Rune || rune == ']' as Rune {
        return None;
    }
    if rune == '\\' as Rune {
        *at += 1;
        rune = *runes.get(*at)?;
    }
    *at += 1;
    // the class is not closed when the text ends here
    (*at < runes.len()).then_some(rune)
}

/// Splits bytes into characters.
struct Runes<'a>(&'a [u8]);

impl Iterator for Runes<'_> {
    type Item = Rune;

    fn next(&mut self) -> Option<Rune> {
        let (&first, rest) = self.0.split_first()?;
        if first < 0x80 {
            self.0 = rest;
            return Some(Rune::from(first));
        }
        let len = match first {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        let head = self.0.get(..len).and_then(|b| std::str::from_utf8(b).ok()).and_then(|s| s.chars().next());
        let (rune, used) = head.map_or((NOT_UTF8 + Rune::from(first), 1), |c| (c as Rune, len));
        self.0 = &self.0[used..];
        Some(rune)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(dialect: Dialect, pattern: &str, path: &[u8]) -> bool {
        Pattern::new(pattern.as_bytes(), dialect).unwrap().matches(path)
    }

    #[test]
    fn wildcards_follow_filepath_match() {
        // from the documentation of path/filepath and its corner cases
        for (pattern, path, want) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "-", true),
            ("[[]z].txt", "[z].txt", true),
            ("**", "a", true),
            ("**", "a/b", false),
        ] {
            assert_eq!(check(Dialect::Component, pattern, path.as_bytes()), want, "{pattern} {path}");
        }
        for bad in ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "a\\", "[a"] {
            assert!(Pattern::new(bad.as_bytes(), Dialect::Component).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_characters() {
        assert!(check(Dialect::Component, "a?b", b"a\xffb"));
        assert!(Pattern::new(b"\xff*", Dialect::Component).unwrap().matches(b"\xffx"));
        assert!(!Pattern::new(b"\xff*", Dialect::Component).unwrap().matches(b"\xfex"));
    }

    #[test]
    fn two_stars_follow_patternmatcher() {
        for (pattern, path, want) in [
            ("**", "a/b", true),
            ("**/x", "x", true),
            ("**/x", "a/b/x", true),
            ("**/x", "ax", false),
            ("**x", "a/bx", true),
            ("**x*", "a/bxy", false),
            ("**x*", "a/xy", true),
            ("a/**", "a", false),
            ("a/**", "a/b/c", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "ab", false),
            ("a**/b", "ab", true),
            ("a**/b", "ax/b", true),
            ("a/*/**", "a/b", false),
            ("a/*/**", "a/b/c", true),
            ("**/*.go", "x.go", true),
            ("**/*.go", "a/b/x.go", true),
            ("**/*.go", "a/b/x.gox", false),
            ("**/foo/**/bar", "foo/bar", true),
            ("**/foo/**/bar", "a/foo/b/c/bar", true),
            ("a[^x]c", "a/c", true),
        ] {
            assert_eq!(check(Dialect::Ignore, pattern, path.as_bytes()), want, "{pattern} {path}");
        }
    }

    #[test]
    fn no_pattern_makes_it_slow() {
        let pattern =
            Pattern::new("**/a*a*a*a*a*a*a*a*a*a*a*b/**/c*c*c*d".as_bytes(), Dialect::Ignore).unwrap();
        let path = "a".repeat(4000);
        let start = std::time::Instant::now();
        assert!(!pattern.matches(path.as_bytes()));
        assert!(start.elapsed().as_secs() < 2);
    }

    /// The obvious way: try everything.
    fn slow(pattern: &[u8], path: &[u8]) -> bool {
        match pattern {
            [] => path.is_empty(),
            [b'*', b'*'] => true,
            [b'*', b'*', rest @ ..] => {
                let rest = rest.strip_prefix(b"/").unwrap_or(rest);
                if rest.is_empty() {
                    return true;
                }
                slow(rest, path)
                    || path.iter().enumerate().any(|(i, b)| *b == b'/' && slow(rest, &path[i + 1..]))
            }
            [b'*', rest @ ..] => {
                let end = path.iter().position(|b| *b == b'/').unwrap_or(path.len());
                (0..=end).any(|i| slow(rest, &path[i..]))
            }
            [b'?', rest @ ..] => matches!(path, [c, more @ ..] if *c != b'/' && slow(rest, more)),
            [c, rest @ ..] => matches!(path, [d, more @ ..] if c == d && slow(rest, more)),
        }
    }

    proptest! {
        #[test]
        fn same_as_the_obvious_way(pattern in "[ab/*?]{0,9}", path in "[ab/]{0,10}") {
            // the special case of a leading "**" before plain text is in the table above
            prop_assume!(!pattern.starts_with("**") || pattern.starts_with("**/"));
            let fast = Pattern::new(pattern.as_bytes(), Dialect::Ignore).unwrap();
            prop_assert_eq!(fast.matches(path.as_bytes()), slow(pattern.as_bytes(), path.as_bytes()));
        }

        #[test]
        fn a_match_below_is_foreseen(pattern in "[ab/*?]{1,9}", dir in "[ab]{1,3}(/[ab]{1,2}){0,2}", rest in "[ab]{1,2}") {
            let p = Pattern::new(pattern.as_bytes(), Dialect::Ignore).unwrap();
            if p.matches(format!("{dir}/{rest}").as_bytes()) {
                prop_assert!(p.could_match_below(dir.as_bytes()));
            }
        }

        #[test]
        fn any_bytes_compile_or_are_refused(pattern in proptest::collection::vec(any::<u8>(), 0..20), path in proptest::collection::vec(any::<u8>(), 0..20)) {
            for dialect in [Dialect::Ignore, Dialect::Component] {
                if let Ok(p) = Pattern::new(&pattern, dialect) {
                    p.matches(&path);
                }
            }
        }
    }
}
