use super::Snapshot;
use crate::digest::ContentId;
use crate::tree::{SourceEntry, SourceTree, TreePath};
use std::fs::File;
use std::io;

/// The merged tree of a snapshot, looked into without a mount.
#[derive(Debug, Clone)]
pub struct View {
    pub(super) snapshot: Snapshot,
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The path without links, as far as it exists; the missing rest is appended as written.
    pub path: TreePath,
    /// What stands there; `None` when it is missing.
    pub entry: Option<SourceEntry>,
}

impl View {
    /// Follows a path inside the root, as `openat2` with `RESOLVE_IN_ROOT` would; a missing tail is allowed.
    pub fn resolve(&self, path: &[u8], follow_last: bool) -> io::Result<Resolved> {
        let _ = (path, follow_last);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Reads a regular file of at most `limit` bytes; links are followed inside the root.
    pub fn read(&self, path: &TreePath, limit: u64) -> io::Result<Vec<u8>> {
        let _ = (path, limit);
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl SourceTree for View {
    fn stat(&self, path: &TreePath) -> io::Result<Option<SourceEntry>> {
        let _ = (path, &self.snapshot);
        Err(io::ErrorKind::Unsupported.into())
    }

    fn list(&self, dir: &TreePath) -> io::Result<Vec<(Vec<u8>, SourceEntry)>> {
        let _ = dir;
        Err(io::ErrorKind::Unsupported.into())
    }

    fn content(&self, path: &TreePath, entry: &SourceEntry) -> io::Result<ContentId> {
        let _ = (path, entry);
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open(&self, path: &TreePath) -> io::Result<File> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }

    fn immutable(&self) -> bool {
        true
    }
}
