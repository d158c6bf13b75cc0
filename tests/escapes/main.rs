//! Attacks from outside: hostile archives, images, contexts and containers are given to the real binary, and files of
//! the host beside its store must be as they were.
//!
//! Every test plants a [`canary::Canary`] first. What an attack is answered with (a refusal that names it, or a harmless
//! result) is checked as well, so that a test cannot pass because the attack never arrived.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "../common/mod.rs"]
mod common;

mod archives;
mod bombs;
mod canary;
mod containers;
mod contexts;
mod documents;
mod hostile;
mod names;
mod secrets;
mod terminal;

use common::TestSpace;

/// A space of root's and one of an ordinary user, as far as they are to be had, each with busybox.
fn spaces() -> Vec<TestSpace> {
    let rootless = if common::is_root() { TestSpace::rootless() } else { None };
    [Some(TestSpace::new()), rootless].into_iter().flatten().map(TestSpace::with_busybox).collect()
}
