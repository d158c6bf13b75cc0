//! Where the files of one layer are: in its own directory, and for a layer that was written as a difference, where that
//! has nothing, in the directory of the snapshot that shows through.
//!
//! A COPY that takes 20,000 files of which one has changed would make 20,000 links. Instead its snapshot gets only what differs
//! from an earlier result of the same instruction, with whiteouts for what is gone, and names that one as its *rest*.
//! Both directories are overlay lowers, one right above the other. The diff is kept whole, so that only whoever opens a
//! file or mounts a stack has to know. A rest has no rest itself, so there are never more than two.

use super::{SnapshotError, Snapshots};
use crate::digest::ResultId;
use crate::layer::LayerError;
use crate::sys::fsutil;
use crate::tree::TreePath;
use rustix::fs::Stat;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The open directories of one layer.
#[derive(Debug)]
pub struct LayerDirs {
    own: OwnedFd,
    rest: Option<OwnedFd>,
}

impl LayerDirs {
    /// Opens a regular file that the layer's diff has.
    pub fn open(&self, path: &TreePath) -> io::Result<File> {
        self.either(|dir| fsutil::open_regular(dir.as_fd(), path.as_os_str()))
    }

    /// Looks at a path that the layer's diff has.
    pub(super) fn stat(&self, path: &TreePath) -> io::Result<Stat> {
        self.either(|dir| fsutil::stat_beneath(dir.as_fd(), path.as_os_str()))
    }

    fn either<T>(&self, ask: impl Fn(&OwnedFd) -> io::Result<T>) -> io::Result<T> {
        match (ask(&self.own), &self.rest) {
            (Err(e), Some(rest)) if e.kind() == io::ErrorKind::NotFound => ask(rest),
            (found, _) => found,
        }
    }
}

impl Snapshots {
    /// Opens the directories of the top layer of a snapshot.
    ///
    /// # Errors
    /// There is no such snapshot, or its directories cannot be opened.
    pub fn layer_dirs(&self, id: &ResultId) -> Result<LayerDirs, SnapshotError> {
        let id = self.real(id).ok_or(SnapshotError::Missing(*id))?;
        let rest = self.below(&id)?.rest;
        self.open_dirs(&id, rest.as_ref())
    }

    pub(super) fn open_dirs(
        &self,
        id: &ResultId,
        rest: Option<&ResultId>,
    ) -> Result<LayerDirs, SnapshotError> {
        let open = |id: &ResultId| {
            let opened = fsutil::open_dir(&self.dir(id).join("fs"));
            opened.map_err(LayerError::io("open", &TreePath::root()))
        };
        Ok(LayerDirs { own: open(id)?, rest: rest.map(open).transpose()? })
    }
}
