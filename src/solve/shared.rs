//! What the solver asks of caches that are shared with other machines.

use crate::digest::{CacheKey, ContentId, ResultId};
use std::io;
use std::path::Path;

/// A result that another machine made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedHit {
    /// The result; the snapshots know it by now.
    pub result: ResultId,
    /// Names the cache, for people.
    pub from: String,
    /// How long the step ran there, in milliseconds.
    pub took_ms: u64,
}

/// What a selection takes from a result that never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memo {
    /// Hash of the selection and the result.
    pub name: [u8; 32],
    /// Of the selected files.
    pub content: ContentId,
    /// What they are selected from.
    pub result: ResultId,
}

/// Results, asked for when the store knows none. Nothing here fails: what cannot be read is not there, and who reads
/// says so.
pub trait SharedResults: Send + Sync {
    /// Finds the result of a key, and tells the snapshots where its files are and which instruction made it.
    fn find(&self, key: &CacheKey, instruction: &str) -> Option<SharedHit>;

    /// Finds what a selection takes.
    fn memo(&self, name: &[u8; 32]) -> Option<Memo>;

    /// Fills the empty directory of a new cache mount; gives false when there is nothing for it.
    ///
    /// # Errors
    /// Something is there and cannot be used; the directory may be half full then.
    fn fill_mount(&self, name: &str, into: &Path) -> io::Result<bool>;
}
