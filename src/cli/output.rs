//! Standard output that never panics: a closed pipe or a full device is an error with an exit code.

use super::CliError;
use std::io::{self, Write};

/// Writes data for other programs.
#[derive(Debug, Default, Clone, Copy)]
pub struct Output;

impl Output {
    /// Writes a text as it is.
    pub fn text(self, text: &str) -> Result<(), CliError> {
        self.bytes(text.as_bytes())
    }

    /// Writes a text and a line end.
    pub fn line(self, text: &str) -> Result<(), CliError> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Writes bytes as they are.
    pub fn bytes(self, bytes: &[u8]) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(|e| CliError::new(format!("cannot write to standard output: {e}")))
    }
}
