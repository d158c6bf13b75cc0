//! Standard output that never panics: a closed pipe or a full device is an error with an exit code.

use super::CliError;
use crate::dockerfile::visible;
use std::io::{self, IsTerminal, Write};

/// Writes data for other programs.
#[derive(Debug, Default, Clone, Copy)]
pub struct Output;

impl Output {
    /// Writes a text; as it is for a program, with control characters made visible for a terminal.
    pub fn text(self, text: &str) -> Result<(), CliError> {
        match io::stdout().is_terminal() {
            true => self.bytes(calm(text).as_bytes()),
            false => self.bytes(text.as_bytes()),
        }
    }

    /// Writes a text and a line end.
    pub fn line(self, text: &str) -> Result<(), CliError> {
        self.text(&format!("{text}\n"))
    }

    /// Writes bytes as they are.
    pub fn bytes(self, bytes: &[u8]) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(|e| CliError::new(format!("cannot write to standard output: {e}")))
    }
}

/// Makes text safe to show: names of files, images and labels may be anybody's, and a terminal obeys what is in them. Line
/// ends and tabs stay.
pub(super) fn calm(text: &str) -> String {
    let keep = |c: char| matches!(c, '\n' | '\t');
    text.split_inclusive(keep)
        .map(|part| match part.strip_suffix(keep) {
            Some(rest) => format!("{}{}", visible(rest), &part[rest.len()..]),
            None => visible(part).into_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        for (raw, want) in [
            ("plain\ttext\n\n", "plain\ttext\n\n"),
            ("\x1b[2Jx\r\n", "\\u{1b}[2Jx\\r\n"),
            ("\u{9b}8m\u{7f}", "\\u{9b}8m\\u{7f}"),
            ("\u{202e}txt.exe", "\\u{202e}txt.exe"),
        ] {
            assert_eq!(calm(raw), want);
        }
    }
}
