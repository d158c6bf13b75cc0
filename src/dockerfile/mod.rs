//! The Dockerfile language: text in, tree out, no I/O.
//!
//! Owns the grammar, the typed instructions, the variable expander, the checks that need nothing but the text, and
//! the errors that point into the file. Knows nothing about values of build arguments, images, stages' results or
//! files; `plan` gives the tree its meaning.
//!
//! The way of a file: [`parse`] cuts it into logical lines and gives each to pest; [`ast`] holds the outcome;
//! [`word`] expands words when `plan` knows the environment; [`lint`] looks for bad habits; [`diagnostic`] says
//! what is wrong.

mod args;
pub mod ast;
mod csv;
pub mod diagnostic;
mod duration;
mod flags;
mod grammar;
mod heredoc;
mod instruction;
mod lines;
pub mod lint;
pub mod mount;
mod mount_options;
pub mod parse;
mod pattern;
mod print;
pub mod span;
pub mod word;
mod word_error;

pub use ast::Dockerfile;
pub use diagnostic::Diagnostic;
pub(crate) use diagnostic::{visible, without_passwords};
pub use duration::parse_duration;
pub use parse::{detect_syntax, parse, parse_trigger};
pub use span::{LineIndex, Position, Span, Text};

#[cfg(test)]
mod roundtrip_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod word_tests;
