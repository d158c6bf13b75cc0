//! The Dockerfile language: text in, tree out, no I/O.
//!
//! Owns the grammar, the typed instructions, the variable expander, the checks that need nothing but the text, and
//! the errors that point into the file. Knows nothing about values of build arguments, images, stages' results or
//! files; `plan` gives the tree its meaning.
//!
//! The way of a file: [`parse`] cuts it into logical lines and gives each to pest; [`ast`] holds the outcome;
//! [`word`] expands words when `plan` knows the environment; [`lint`] looks for bad habits; [`diagnostic`] says
//! what is wrong.

pub mod ast;
pub mod diagnostic;
pub mod mount;
pub mod span;
pub mod suggest;
