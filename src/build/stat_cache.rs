//! What the index remembers of a context directory, in the form that the context room asks for.

use crate::cache::Index;
use crate::context::{CachedDir, StatCache};
use crate::tree::TreePath;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// The stat cache of one context directory; what is stored reaches the index in one batch when it is dropped.
pub(super) struct IndexedStats {
    index: Arc<Index>,
    context: String,
    fresh: Mutex<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl IndexedStats {
    /// Keeps the context apart from others by its absolute path.
    pub(super) fn new(index: Arc<Index>, dir: &Path) -> Self {
        Self { index, context: dir.to_string_lossy().into_owned(), fresh: Mutex::new(Vec::new()) }
    }
}

impl StatCache for IndexedStats {
    fn load(&self, dir: &TreePath) -> Option<CachedDir> {
        postcard::from_bytes(&self.index.context_dir(&self.context, dir.as_bytes())?).ok()
    }

    fn store(&self, dir: &TreePath, entries: CachedDir) {
        if let Ok(bytes) = postcard::to_stdvec(&entries) {
            let mut fresh = self.fresh.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            fresh.push((dir.as_bytes().to_vec(), bytes));
        }
    }
}

impl Drop for IndexedStats {
    fn drop(&mut self) {
        let fresh = self.fresh.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.index.remember_context(&self.context, std::mem::take(fresh));
    }
}
