//! What was done before: cache keys, step records and the index over them.
//!
//! A key maps to the result of a step; that is all that decides a hit. The truth is one small record file a key
//! ([`Records`]), so that any number of processes can read and add at the same time and a lookup costs one `open`.
//! The [`index`] (sled) is a view that makes other questions cheap: which digest had this context file, when was this key last
//! used, which key came before this one at the same place. It can be thrown away at any time. This room knows nothing
//! of ops: it is fed named fields and hands back keys.

mod explain;
pub mod index;
mod key;
mod record;

pub use explain::explain;
pub use index::Index;
pub use key::{KeyBuilder, KeyPart};
pub use record::{Records, Shelf, StepRecord};
