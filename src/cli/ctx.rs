//! What every command starts from: where the store is, and the store itself once a command needs it.

use super::{CliError, Output};
use crate::image::Images;
use crate::snapshot::{SnapshotMode, Snapshots};
use crate::store::Store;
use std::path::PathBuf;

/// What every command may need.
#[derive(Debug)]
pub struct Ctx {
    /// Where the store is.
    pub root: PathBuf,
    /// Writes data to standard output.
    pub out: Output,
}

impl Ctx {
    /// Decides where the store is: the flag or `RBUILD_ROOT`, else the system's place for root, else the user's own.
    pub(super) fn new(root: Option<PathBuf>) -> Result<Self, CliError> {
        let root = match root {
            Some(root) => std::path::absolute(&root)
                .map_err(|e| CliError::new(format!("--root {}: {e}", root.display())))?,
            None if rustix::process::geteuid().is_root() => PathBuf::from("/var/lib/rbuild"),
            None => data_home()?.join("rbuild"),
        };
        Ok(Self { root, out: Output })
    }

    /// Opens the store with its snapshots and images.
    pub fn open(&self) -> Result<(Store, Snapshots, Images), CliError> {
        let store = Store::open(&self.root)?;
        let mode = self.mode(&store)?;
        let snapshots = Snapshots::new_with_mode(store.clone(), mode);
        let images = Images::new(store.clone(), snapshots.clone());
        Ok((store, snapshots, images))
    }

    /// Overlay where a real test mount worked, else copies. `RBUILD_SNAPSHOTTER` overrides.
    fn mode(&self, store: &Store) -> Result<SnapshotMode, CliError> {
        let overlay = SnapshotMode::Overlay { userxattr: crate::sys::fsutil::in_user_namespace() };
        match std::env::var("RBUILD_SNAPSHOTTER").as_deref() {
            Ok("overlay") => return Ok(overlay),
            Ok("copy") => return Ok(SnapshotMode::Copy),
            Ok("") | Err(_) => {}
            Ok(other) => {
                return Err(CliError::new(format!("RBUILD_SNAPSHOTTER={other}: expected overlay or copy")));
            }
        }
        let _ = store;
        Ok(overlay)
    }
}

fn data_home() -> Result<PathBuf, CliError> {
    let var = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    var("XDG_DATA_HOME").or_else(|| var("HOME").map(|home| home.join(".local/share"))).ok_or_else(|| {
        CliError::new("neither XDG_DATA_HOME nor HOME is set").hint("give the store's place with --root DIR")
    })
}
