//! Expansion of the words of a Dockerfile, with the place of each fault and the variables that were missing.

use super::env::Env;
use crate::dockerfile::ast::Heredoc;
use crate::dockerfile::diagnostic::Diagnostic;
use crate::dockerfile::span::Text;
use crate::dockerfile::word::{self, Expanded, Lexer};

impl word::Env for Env {
    fn get(&self, name: &str) -> Option<&str> {
        Env::get(self, name)
    }
}

/// Reads words with the escape character of one file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    lexer: Lexer,
    label: Lexer,
}

impl Words {
    /// Reads as the `escape` directive of the file says.
    pub(super) fn new(escape: char) -> Self {
        Self { lexer: Lexer::new(escape), label: Lexer::for_label(escape) }
    }

    /// Gives the lexer for words.
    pub(super) fn lexer(&self) -> &Lexer {
        &self.lexer
    }

    /// Expands one word.
    pub(super) fn word(&self, text: &Text, env: &Env) -> Result<Expanded, Diagnostic> {
        self.lexer.word(text.as_str(), env).map_err(|error| error.at(text))
    }

    /// Expands a word into several, at blanks that are not quoted.
    pub(super) fn split(&self, text: &Text, env: &Env) -> Result<Vec<String>, Diagnostic> {
        self.lexer.words(text.as_str(), env).map_err(|error| error.at(text))
    }

    /// Expands the body of a COPY or ADD heredoc.
    pub(super) fn body(&self, heredoc: &Heredoc, env: &Env) -> Result<Expanded, Diagnostic> {
        let body = heredoc.body();
        if !heredoc.expand {
            return Ok(Expanded { text: body.into_owned(), ..Expanded::default() });
        }
        Lexer::for_heredoc().word(&body, env).map_err(|error| match heredoc.chomp {
            // without its tabs the body does not lie as the file does
            true => error.at(&Text::detached(body.as_ref())).moved_to(heredoc.content.span()),
            false => error.at(&heredoc.content),
        })
    }

    /// Expands an instruction to show it; one that cannot be expanded is shown as it is.
    pub(super) fn shown(&self, text: &str, env: &Env, keep_quotes: bool) -> String {
        let lexer = if keep_quotes { &self.label } else { &self.lexer };
        lexer.word(text, env).map_or_else(|_| text.to_owned(), |expanded| expanded.text)
    }
}
