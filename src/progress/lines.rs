//! From the bytes that a command writes to lines that are safe to show.

/// A line longer than this many bytes is cut into several.
const LONGEST: usize = 64 * 1024;

/// Collects bytes and gives whole lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Adds bytes; gives each line that they end to `each`, without its line end.
    pub(super) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            self.partial.extend_from_slice(&rest[..end]);
            each(trim_cr(&self.partial));
            self.partial.clear();
            rest = &rest[end + 1..];
        }
        self.partial.extend_from_slice(rest);
        while self.partial.len() > LONGEST {
            each(&self.partial[..LONGEST]);
            self.partial.drain(..LONGEST);
        }
    }

    /// Gives what is left when the stream ends.
    pub(super) fn finish(&mut self, each: impl FnOnce(&[u8])) {
        if !self.partial.is_empty() {
            each(trim_cr(&self.partial));
            self.partial.clear();
        }
    }
}

fn trim_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Makes text of a line: of control sequences only colours (SGR) and tabs stay, of a line that was redrawn with
/// carriage returns the last form, other control bytes are shown escaped.
pub fn printable(line: &[u8]) -> String {
    let line = line.rsplit(|b| *b == b'\r').find(|part| !part.is_empty()).unwrap_or(&[]);
    let text = String::from_utf8_lossy(line);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(c) = rest.chars().next() {
        if c == '\u{1b}' {
            let (keep, len) = escape_sequence(rest);
            if keep {
                out.push_str(&rest[..len]);
            }
            rest = &rest[len..];
            continue;
        }
        match c {
            '\t' => out.push('\t'),
            c if c.is_control() || turns(c) => out.extend(c.escape_default()),
            c => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// Writes JSON that holds no control character: the standard lets some stay as they are, and terminals obey these.
pub fn plain_json(json: &str) -> String {
    let raw = |c: char| c == '\u{7f}' || (c.is_control() && !c.is_ascii()) || turns(c);
    if !json.contains(raw) {
        return json.to_owned();
    }
    let escaped = |c: char| if raw(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    json.chars().map(escaped).collect()
}

/// Says whether a character changes the direction in which others are shown, as no output needs but a disguise.
fn turns(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Measures the escape sequence at the start and says whether it only sets colours (ECMA-48, SGR).
fn escape_sequence(text: &str) -> (bool, usize) {
    let bytes = text.as_bytes();
    if bytes.get(1) != Some(&b'[') {
        return (false, 1);
    }
    match bytes[2..].iter().position(|b| !matches!(b, b'0'..=b'?' | b' '..=b'/')) {
        Some(end) if bytes[2 + end].is_ascii() => {
            let params = &bytes[2..2 + end];
            (bytes[2 + end] == b'm' && params.iter().all(|b| b.is_ascii_digit() || *b == b';'), end + 3)
        }
        _ => (false, 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_the_bytes_are_cut() {
        let text = b"one\r\ntwo\n\nlast";
        for cut in 0..text.len() {
            let (mut lines, mut out) = (Lines::default(), Vec::new());
            lines.push(&text[..cut], |l| out.push(l.to_vec()));
            lines.push(&text[cut..], |l| out.push(l.to_vec()));
            lines.finish(|l| out.push(l.to_vec()));
            assert_eq!(out, [&b"one"[..], b"two", b"", b"last"], "cut at {cut}");
        }
    }

    #[test]
    fn nothing_but_colour_reaches_the_terminal() {
        for (raw, want) in [
            ("plain\ttab", "plain\ttab"),
            ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
            ("\x1b[2Jgone", "gone"),
            ("\x1b]0;title\x07x", "]0;title\\u{7}x"),
            ("10%\r50%\r100%", "100%"),
            ("\x1b[999", "999"),
            ("a\x08b", "a\\u{8}b"),
            ("\u{9b}2J\u{202e}x", "\\u{9b}2J\\u{202e}x"),
        ] {
            assert_eq!(printable(raw.as_bytes()), want, "{raw:?}");
        }
    }

    #[test]
    fn json_says_the_same_without_control_characters() {
        let text = "a\u{9b}b\u{7f}c\u{202e}d\u{1b}ü\n";
        let json = serde_json::to_string_pretty(&[text]).unwrap();
        let plain = plain_json(&json);
        assert!(plain.chars().all(|c| c == '\n' || !c.is_control()), "{plain:?}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&plain).unwrap(), [text]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let (mut lines, mut n) = (Lines::default(), 0);
        for _ in 0..10 {
            lines.push(&[b'x'; 65_536], |l| n += l.len());
        }
        assert!(n >= 9 * LONGEST && lines.partial.len() <= LONGEST);
    }
}
