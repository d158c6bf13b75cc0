//! A writable tree on its way to a snapshot.

use super::copying::Merged;
use super::{Snapshot, SnapshotError, SnapshotMode, changes};
use crate::digest::ResultId;
use crate::layer::{self, LayerError, ScanOptions};
use crate::sandbox::Rootfs;
use crate::store::TempDir;
use crate::sys::fsutil;
use crate::tree::{Diff, TreePath};
use rustix::fs::{AtFlags, FileType, OFlags};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::OnceLock;

/// A writable tree on top of a snapshot; dropped uncommitted it leaves nothing.
///
/// Whoever changes files itself writes to `upper` in overlayfs's form and tells the diff; for a process, mount
/// [`Prepared::rootfs`] and call [`Prepared::scan`] when it is gone.
#[derive(Debug)]
pub struct Prepared {
    /// Holds all of it.
    pub dir: TempDir,
    /// Takes the changes, in overlayfs's form; empty at first, mode 0755.
    pub upper: PathBuf,
    /// overlayfs's work directory, empty.
    pub work: PathBuf,
    /// What it stands on.
    pub parent: Snapshot,
    /// What shows through where `upper` has nothing, if `upper` has only what differs from it.
    pub(super) rest: Option<Snapshot>,
    named: ResultId,
    mode: SnapshotMode,
    merged: OnceLock<Merged>,
}

impl Prepared {
    pub(super) fn new(
        dir: TempDir,
        upper: PathBuf,
        work: PathBuf,
        (named, parent): (ResultId, Snapshot),
        mode: SnapshotMode,
    ) -> Self {
        Self { dir, upper, work, parent, rest: None, named, mode, merged: OnceLock::new() }
    }

    /// Gives the name by which the parent was asked for. The result's own name follows from it and not from the parent's
    /// real one: whether a base was built or pulled here must make no difference.
    pub(super) fn named(&self) -> &ResultId {
        &self.named
    }

    /// Gives what the sandbox mounts as its root. Without overlayfs this is where the parent's tree is copied.
    ///
    /// # Errors
    /// The copy fails.
    pub fn rootfs(&self) -> Result<Rootfs, SnapshotError> {
        match self.mode {
            SnapshotMode::Overlay { .. } => Ok(Rootfs::Overlay {
                lowers: self.parent.lowers.clone(),
                upper: self.upper.clone(),
                work: self.work.clone(),
                volatile: true,
            }),
            // nothing to merge with
            SnapshotMode::Copy if self.parent.chain.is_empty() => Ok(Rootfs::Dir(self.upper.clone())),
            SnapshotMode::Copy => {
                if self.merged.get().is_none() {
                    let merged = Merged::make(&self.parent.view(), self.dir.path().join("merged"))?;
                    // a second caller at the same moment would have failed in `make`
                    let _ = self.merged.set(merged);
                }
                Ok(Rootfs::Dir(self.dir.path().join("merged")))
            }
        }
    }

    /// Says that `upper` holds only what differs from the top layer of another snapshot, which shows through. That one's
    /// layer must not be a difference itself.
    pub fn show_through(&mut self, rest: Snapshot) {
        self.rest = Some(rest);
    }

    /// Reads what a process left behind; `skip` are mount-point stubs, which are removed if they are still empty.
    ///
    /// # Errors
    /// A file cannot be read, or something still writes.
    pub fn scan(&self, skip: &HashSet<TreePath>) -> Result<Diff, SnapshotError> {
        let parent = self.parent.view();
        let written = self.merged.get().map_or(&self.upper, |merged| &merged.dir);
        remove_stubs(written, skip)?;
        if let Some(merged) = self.merged.get() {
            merged.move_changes(&parent, &self.upper)?;
        }
        let opts = ScanOptions { userxattr: self.mode.userxattr(), skip: &HashSet::new() };
        let raw = layer::scan(&self.upper, &opts)?;
        changes::against(&raw, &parent).map_err(SnapshotError::tree("compare", &TreePath::root()))
    }
}

/// Removes empty files and directories that were made to mount over. What the process has filled stays.
fn remove_stubs(root: &std::path::Path, skip: &HashSet<TreePath>) -> Result<(), SnapshotError> {
    if skip.is_empty() {
        return Ok(());
    }
    let top = TreePath::root();
    let root = fsutil::open_dir(root).map_err(LayerError::io("open", &top))?;
    let mut stubs: Vec<&TreePath> = skip.iter().collect();
    stubs.sort();
    // what is below comes first
    for path in stubs.into_iter().rev() {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        // the directory may be gone, or something else by now
        let Ok(dir) = fsutil::open_beneath(root.as_fd(), parent.as_os_str(), flags) else { continue };
        let name = OsStr::from_bytes(name);
        let stat = fsutil::stat_at(dir.as_fd(), name).map_err(LayerError::io("look at", path))?;
        let flags = match stat {
            Some(stat) if fsutil::file_type(&stat) == FileType::Directory => AtFlags::REMOVEDIR,
            Some(stat) if fsutil::file_type(&stat) == FileType::RegularFile && stat.st_size == 0 => {
                AtFlags::empty()
            }
            _ => continue,
        };
        match rustix::fs::unlinkat(&dir, name, flags) {
            Ok(())
            | Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST | rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(LayerError::io("remove the mount point", path)(e).into()),
        }
    }
    Ok(())
}
