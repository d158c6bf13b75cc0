//! Images between the store and registries: pull and push.
//!
//! The joint of two rooms that know nothing of each other: `registry` brings and takes checked bytes, `image` knows
//! what an image is made of and keeps it. What is decided here is which bytes travel, how many at a time, and in which order.
//! It knows neither Dockerfiles nor command lines; builds and commands call it.

mod bundle;
mod choose;
mod error;
mod pull;
mod push;
mod spool;

pub use bundle::{Bundle, Member};
pub use choose::{Chosen, choose, list};
pub use error::TransferError;
pub use pull::{Pull, Pulled};
pub use push::{Push, Pushed};
