//! How each kind of op is named (its cache key) and made.

pub mod copy;
