//! What every command starts from: where the store is, and the store itself once a command needs it.

use super::{CliError, Output};
use crate::image::Images;
use crate::registry::Flags;
use crate::sandbox::{self, rootless};
use crate::snapshot::{SnapshotMode, Snapshots};
use crate::store::Store;
use std::path::PathBuf;

/// Remembers in the store which way to make writable trees works here, so that not every command has to try.
const MODE_FILE: &str = "snapshotter";

/// What every command may need.
#[derive(Debug)]
pub struct Ctx {
    /// Where the store is.
    pub root: PathBuf,
    /// How registries are reached.
    pub registry: Flags,
    /// Writes data to standard output.
    pub out: Output,
}

impl Ctx {
    /// Decides where the store is: the flag or `RBUILD_ROOT`, else the system's place for root, else the user's own.
    pub(super) fn new(root: Option<PathBuf>, registry: Flags) -> Result<Self, CliError> {
        let root = match root {
            Some(root) => std::path::absolute(&root)
                .map_err(|e| CliError::new(format!("--root {}: {e}", root.display())))?,
            None if rootless::state().is_none() => PathBuf::from("/var/lib/rbuild"),
            None => data_home()?.join("rbuild"),
        };
        Ok(Self { root, registry, out: Output })
    }

    /// Opens the store with its snapshots and images.
    pub fn open(&self) -> Result<(Store, Snapshots, Images), CliError> {
        crate::store::tell_waits(|line| super::talk(&format!("{line}\n")));
        let store = Store::open(&self.root)?;
        let mode = self.mode(&store)?;
        let snapshots = Snapshots::new_with_mode(store.clone(), mode);
        snapshots.set_provider(std::sync::Arc::new(crate::share::Lasting::new(self.registry.clone())));
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
        Ok(if self.overlay_works(store)? { overlay } else { SnapshotMode::Copy })
    }

    /// Asks what an earlier command found on this kernel, or tries it.
    fn overlay_works(&self, store: &Store) -> Result<bool, CliError> {
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let found = store.read(MODE_FILE, 4096)?.and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some((word, on)) = found.as_deref().and_then(|text| text.split_once(' '))
            && on == kernel
        {
            match word {
                "overlay" => return Ok(true),
                "copies" => return Ok(false),
                // another version's word: it may have found less
                _ => {}
            }
        }
        let tried = sandbox::try_overlay(store.temp_dir("overlay")?.path());
        if let Err(why) = &tried {
            super::talk(&format!(
                "warning: overlayfs does not work in {} ({why}); files are copied instead, which is slower\n",
                self.root.display()
            ));
        }
        let word = if tried.is_ok() { "overlay" } else { "copies" };
        store.write_atomic(MODE_FILE, format!("{word} {kernel}").as_bytes(), false)?;
        Ok(tried.is_ok())
    }
}

fn data_home() -> Result<PathBuf, CliError> {
    let var = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    var("XDG_DATA_HOME").or_else(|| var("HOME").map(|home| home.join(".local/share"))).ok_or_else(|| {
        CliError::new("neither XDG_DATA_HOME nor HOME is set").hint("give the store's place with --root DIR")
    })
}
