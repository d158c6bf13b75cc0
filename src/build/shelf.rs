//! The store as the cache room wants to see it: small files by name.

use crate::cache::Shelf;
use crate::store::Store;
use crate::sys::fsutil::touch;
use std::io;
use std::os::unix::fs::MetadataExt;

/// Keeps step records in the store, without fsync: a lost record only means that a step runs again.
pub(super) struct StoreShelf {
    store: Store,
}

impl StoreShelf {
    /// Keeps them in the given store.
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }
}

impl Shelf for StoreShelf {
    fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        self.store.read(name, limit).map_err(io::Error::other)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.store.write_atomic(name, bytes, false).map_err(io::Error::other)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.store.root().join(dir)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn touched(&self, name: &str) -> io::Result<Option<i64>> {
        match self.store.root().join(name).symlink_metadata() {
            Ok(meta) => Ok(Some(meta.mtime())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn touch(&self, name: &str) -> io::Result<()> {
        touch(&self.store.root().join(name))
    }

    fn remove(&self, name: &str) -> io::Result<u64> {
        let path = self.store.root().join(name);
        let bytes = path.symlink_metadata().map_or(0, |meta| meta.blocks() * 512);
        match std::fs::remove_file(path) {
            Ok(()) => Ok(bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(e),
        }
    }
}
