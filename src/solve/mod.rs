//! The executor: walks the graph, looks results up, runs what is missing.
//!
//! `schedule` knows the order and nothing else; `ops` know how each kind of step is named and made.

pub mod ops;
mod schedule;
