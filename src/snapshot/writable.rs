//! The writable tree of a container: like that of a step, but in a directory of its owner that outlives processes.

use super::copying::Merged;
use super::{Snapshot, SnapshotError, SnapshotMode, Snapshots, changes};
use crate::digest::ResultId;
use crate::layer::{self, ScanOptions};
use crate::sandbox::Rootfs;
use crate::store::StoreError;
use crate::sys::fsutil;
use crate::tree::{Diff, TreePath};
use std::collections::HashSet;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A directory in it takes the changes, another is the whole tree where overlayfs does not work.
const UPPER: &str = "fs";
const WORK: &str = "work";
const MERGED: &str = "merged";
/// Names the snapshot that the tree stands on, for the garbage collector.
const TOP: &str = "top";
/// Names further snapshots that its owner needs, one a line.
const PINS: &str = "pins";

/// A writable tree on top of a snapshot, which it holds.
#[derive(Debug)]
pub struct Writable {
    dir: PathBuf,
    parent: Snapshot,
    copied: bool,
    userxattr: bool,
}

impl Snapshots {
    /// Makes a writable tree on top of a snapshot in the directory `dir`, which belongs to the caller and is on the
    /// store's file system.
    pub fn make_writable(&self, dir: &Path, parent: &Snapshot) -> Result<(), SnapshotError> {
        let make = |name: &str, mode: u32| {
            let path = dir.join(name);
            let made = std::fs::DirBuilder::new().mode(mode).create(&path);
            made.map_err(StoreError::io("make the directory", &path))
        };
        make(UPPER, 0o755)?;
        make(WORK, 0o700)?;
        let upper = dir.join(UPPER);
        // the root directory of every image, whatever the umask
        fsutil::chmod_dir(&upper, 0o755).map_err(StoreError::io("set the mode of", &upper))?;
        if self.mode() == SnapshotMode::Copy && !parent.chain.is_empty() {
            Merged::make(&parent.view(), dir.join(MERGED))?;
        }
        let top = dir.join(TOP);
        Ok(std::fs::write(&top, parent.id.to_string()).map_err(StoreError::io("write", &top))?)
    }

    /// Opens what [`Snapshots::make_writable`] has made.
    ///
    /// # Errors
    /// The snapshot below is missing.
    pub fn writable(&self, dir: &Path, parent: &ResultId) -> Result<Writable, SnapshotError> {
        let parent = self.get(parent)?;
        let copied = dir.join(MERGED).is_dir();
        Ok(Writable { dir: dir.to_owned(), parent, copied, userxattr: self.mode().userxattr() })
    }

    /// Notes snapshots that the owner of `dir` needs beside the one below its tree, for the garbage collector.
    pub fn pin_for(&self, dir: &Path, ids: impl Iterator<Item = ResultId>) -> Result<(), SnapshotError> {
        let lines: String = ids.map(|id| format!("{id}\n")).collect();
        if lines.is_empty() {
            return Ok(());
        }
        let pins = dir.join(PINS);
        Ok(std::fs::write(&pins, lines).map_err(StoreError::io("write", &pins))?)
    }

    /// Gives the snapshots that containers stand on or have mounted.
    pub fn pinned(&self) -> Vec<ResultId> {
        let containers = self.store().path("containers");
        let entries = std::fs::read_dir(containers).into_iter().flatten().flatten();
        let mut out = Vec::new();
        for entry in entries {
            for file in [TOP, PINS] {
                let text = std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
                out.extend(text.lines().filter_map(|line| line.trim().parse::<ResultId>().ok()));
            }
        }
        out
    }
}

impl Writable {
    /// Gives what it stands on.
    pub fn parent(&self) -> &Snapshot {
        &self.parent
    }

    /// Gives the directory that takes the changes.
    pub fn upper(&self) -> PathBuf {
        self.dir.join(if self.copied { MERGED } else { UPPER })
    }

    /// Gives what the sandbox mounts as its root; `volatile` when nothing of it outlives a power cut.
    pub fn rootfs(&self, volatile: bool) -> Rootfs {
        if self.copied || self.parent.chain.is_empty() {
            return Rootfs::Dir(self.upper());
        }
        Rootfs::Overlay {
            lowers: self.parent.lowers.clone(),
            upper: self.dir.join(UPPER),
            work: self.dir.join(WORK),
            volatile,
        }
    }

    /// Reads what has changed against the snapshot below; of `skip`, mount points, only what is empty is left out.
    /// `None` where the whole tree was copied, since there the changes are not kept apart.
    ///
    /// # Errors
    /// A file cannot be read, or something writes at this moment.
    pub fn changes(&self, skip: &HashSet<TreePath>) -> Result<Option<Diff>, SnapshotError> {
        if self.copied {
            return Ok(None);
        }
        let opts = ScanOptions { userxattr: self.userxattr, skip };
        let raw = layer::scan(&self.dir.join(UPPER), &opts)?;
        let parent = self.parent.view();
        changes::against(&raw, &parent).map(Some).map_err(SnapshotError::tree("compare", &TreePath::root()))
    }
}
