//! Cache mounts (`RUN --mount=type=cache`) and logs of old builds, as far as disk use is concerned.

use super::{Collector, GcError};
use crate::store::{LockKind, StoreError};
use crate::sys::usage;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A cache mount.
#[derive(Debug, Clone)]
pub(super) struct Mount {
    /// The name of its directory.
    pub(super) name: String,
    /// The id that the Dockerfile gives it.
    pub(super) id: String,
    pub(super) last_used: i64,
    pub(super) bytes: u64,
}

impl Collector {
    /// Lists the cache mounts; measures them, which means looking at each of their files.
    pub(super) fn mounts(&self) -> Result<Vec<Mount>, GcError> {
        let top = self.store.root().join("mounts");
        let mut out = Vec::new();
        for name in names(&top)? {
            let dir = top.join(&name);
            let id = std::fs::read(dir.join("name")).unwrap_or_default();
            let last_used = dir.join("name").symlink_metadata().map_or(0, |meta| meta.mtime());
            let bytes = usage::measure(&dir).map_err(StoreError::io("measure", &dir))?;
            out.push(Mount { name, id: String::from_utf8_lossy(&id).into_owned(), last_used, bytes });
        }
        Ok(out)
    }

    /// Says whether a step uses a cache mount now.
    pub(super) fn mount_is_held(&self, name: &str) -> bool {
        matches!(self.store.try_lock(&format!("mount-{name}"), LockKind::Exclusive), Ok(None))
    }

    /// Removes a cache mount that no step uses; false when one does.
    pub(super) fn remove_mount(&self, name: &str) -> Result<bool, GcError> {
        // dropped last: deleting takes its time, and the next step may have a new one meanwhile
        let grave = self.store.temp_dir("removed")?;
        let Some(_alone) = self.store.try_lock(&format!("mount-{name}"), LockKind::Exclusive)? else {
            return Ok(false);
        };
        let dir = self.store.root().join("mounts").join(name);
        match std::fs::rename(&dir, grave.path().join("mount")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", &dir)(e).into()),
            _ => Ok(true),
        }
    }

    /// Removes the logs of builds that have ended, or ended before `until`. Gives how many bytes that freed.
    pub(super) fn remove_logs(&self, until: Option<i64>) -> Result<u64, GcError> {
        let top = self.store.root().join("builds");
        let mut freed = 0u64;
        for name in names(&top)? {
            let dir = top.join(&name);
            // the notes are what a build writes last
            let Ok(notes) = dir.join("steps.json").symlink_metadata() else { continue };
            if until.is_some_and(|until| notes.mtime() >= until) {
                continue;
            }
            let bytes = usage::measure(&dir).unwrap_or(0);
            if crate::sys::fsutil::remove_tree(&dir).is_ok() {
                freed = freed.saturating_add(bytes);
            }
        }
        Ok(freed)
    }

    /// Removes what is known of the files of contexts, or what was written before `until`: the next build reads the files
    /// of such a context again. Gives the bytes of disk that this frees.
    pub(super) fn remove_context_stats(&self, until: Option<i64>) -> Result<u64, GcError> {
        let top = self.store.root().join("contexts");
        let mut freed = 0u64;
        for name in names(&top)? {
            let path = top.join(name);
            let Ok(meta) = path.symlink_metadata() else { continue };
            if until.is_none_or(|until| meta.mtime() < until) && std::fs::remove_file(&path).is_ok() {
                freed = freed.saturating_add(meta.blocks() * 512);
            }
        }
        Ok(freed)
    }
}

/// Lists a directory of the store that may not be there; names that rbuild did not make are left out.
pub(super) fn names(dir: &PathBuf) -> Result<Vec<String>, GcError> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(StoreError::io("list", dir))?,
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}
