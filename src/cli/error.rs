//! Every error that reaches the user becomes text, hint and exit code here, and nowhere else.

use super::output::calm;
use crate::progress::printable;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// What a command ends with when it fails: what and where, why, and what to do.
#[derive(Debug)]
pub struct CliError {
    /// What failed and why; may have several lines (a Dockerfile excerpt, a step's log).
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Exit code of the process: 1, 125 for `run`, 130 after Ctrl-C.
    pub code: u8,
}

impl CliError {
    /// Makes a plain failure with exit code 1.
    pub fn new(message: impl Display) -> Self {
        Self { message: message.to_string(), hint: None, code: 1 }
    }

    /// Makes a failure from an error and all its causes.
    pub fn from_error(error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let text = inner.to_string();
            // wrappers often repeat their cause; saying it once is enough
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = inner.source();
        }
        Self::new(message)
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Adds what to do, where there is something to do.
    #[must_use]
    pub fn with_hint(self, hint: Option<impl Display>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// Sets the exit code.
    #[must_use]
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Says it on standard error and gives the exit code.
    pub fn report(&self) -> ExitCode {
        let mut text = String::from("error: ");
        for line in self.message.lines() {
            // the log of a step may have colours
            match line.starts_with(" > ") {
                true => text.push_str(&printable(line.as_bytes())),
                false => text.push_str(&calm(line)),
            }
            text.push('\n');
        }
        if let Some(hint) = &self.hint {
            text.push_str(&calm(&format!("help: {hint}\n")));
        }
        // standard error may be gone; the exit code still tells
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
        ExitCode::from(self.code)
    }
}

impl<E: std::error::Error> From<E> for CliError {
    fn from(error: E) -> Self {
        Self::from_error(&error)
    }
}
