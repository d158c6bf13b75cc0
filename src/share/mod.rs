//! Caches that are shared with other machines.

mod lasting;

pub use lasting::{Lasting, place_of};
