//! Where what is known of a context directory is kept: one file of the store for each.

use crate::context::StatCache;
use crate::store::Store;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// No honest file is longer, in bytes: ten million files with long names.
const LIMIT: u64 = 2 << 30;

/// The stat cache of one context directory.
pub(super) struct StoredStats {
    store: Store,
    name: String,
}

impl StoredStats {
    /// Keeps the context apart from others by its absolute path.
    pub(super) fn new(store: Store, dir: &Path) -> Self {
        let name = blake3::derive_key("rbuild context stats v1", dir.as_os_str().as_bytes());
        Self { store, name: format!("contexts/{}", crate::digest::hex(&name)) }
    }
}

impl StatCache for StoredStats {
    fn load(&self) -> Option<Vec<u8>> {
        self.store.read(&self.name, LIMIT).ok().flatten()
    }

    fn store(&self, parts: &[&[u8]]) {
        // it saves time next time, and nothing else depends on it
        let _ = self.store.write_atomic_parts(&self.name, parts, false);
    }
}
