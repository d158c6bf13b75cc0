//! How much disk a snapshot takes: measured when first asked, then remembered beside it, since it never changes.
//!
//! Files that are links of shared bodies (`files/`) are listed by inode, so that many snapshots with the same file can
//! be added up without counting it twice and without looking at any of them again.

use super::{SnapshotError, Snapshots};
use crate::digest::ResultId;
use crate::store::StoreError;
use crate::sys::{fsutil, usage};
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;

/// No honest file is longer, in bytes: two million shared inodes.
const MAX_USAGE: u64 = 64 << 20;

/// How much disk a snapshot takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that nothing else shares, records and directories included.
    pub own: u64,
    /// Bodies that other snapshots may link too: inode and bytes.
    pub shared: Vec<(u64, u64)>,
}

impl Usage {
    /// Gives all bytes, shared or not.
    pub fn total(&self) -> u64 {
        self.shared.iter().fold(self.own, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}

/// What is remembered of `fs/`.
#[derive(Serialize, Deserialize)]
struct Measured {
    /// Inode of `fs/`: a store that was copied elsewhere has others, and must be measured again.
    root: u64,
    own: u64,
    shared: Vec<(u64, u64)>,
}

impl Snapshots {
    /// Says how much disk the top layer of a snapshot takes.
    ///
    /// # Errors
    /// There is no such snapshot, or it cannot be read.
    pub fn usage(&self, id: &ResultId) -> Result<Usage, SnapshotError> {
        let id = self.real(id).ok_or(SnapshotError::Missing(*id))?;
        let dir = self.dir(&id);
        let fs = dir.join("fs");
        let root = fs.symlink_metadata().map_err(|_| SnapshotError::Missing(id))?.ino();
        let rel = format!("snapshots/{id}/usage");
        let known = self.inner.store.read(&rel, MAX_USAGE).ok().flatten();
        let known = known.and_then(|bytes| decode(&bytes)).filter(|known| known.root == root);
        let measured = match known {
            Some(known) => known,
            None => {
                let measured = measure(&fs, root)?;
                // only saves the next one the walk
                if let Some(bytes) = encode(&measured)
                    && dir.join("record.json").exists()
                {
                    let _ = self.inner.store.write_atomic(&rel, &bytes, false);
                }
                measured
            }
        };
        let mut own = measured.own.saturating_add(dir.symlink_metadata().map_or(0, |m| m.blocks() * 512));
        for file in std::fs::read_dir(&dir).map_err(StoreError::io("list", &dir))?.flatten() {
            if file.file_name() != "fs" {
                own = own.saturating_add(file.metadata().map_or(0, |m| m.blocks() * 512));
            }
        }
        Ok(Usage { own, shared: measured.shared })
    }
}

fn measure(fs: &std::path::Path, root: u64) -> Result<Measured, SnapshotError> {
    let mut own = 0u64;
    let mut linked: HashMap<u64, (u128, u128, u64)> = HashMap::new();
    usage::walk(fs, &mut |stat| {
        let bytes = usage::allocated(stat);
        if fsutil::file_type(stat) == FileType::Directory || stat.st_nlink == 1 {
            own = own.saturating_add(bytes);
        } else {
            linked.entry(stat.st_ino).or_insert((0, u128::from(stat.st_nlink), bytes)).0 += 1;
        }
    })
    .map_err(StoreError::io("measure", fs))?;
    let mut shared = Vec::new();
    for (inode, (names, links, bytes)) in linked {
        // links that are all in here share with nobody
        if names == links {
            own = own.saturating_add(bytes);
        } else {
            shared.push((inode, bytes));
        }
    }
    shared.sort_unstable();
    Ok(Measured { root, own, shared })
}

fn encode(measured: &Measured) -> Option<Vec<u8>> {
    let body = postcard::to_stdvec(measured).ok()?;
    Some([&blake3::hash(&body).as_bytes()[..8], &body].concat())
}

fn decode(bytes: &[u8]) -> Option<Measured> {
    let (sum, body) = bytes.split_at_checked(8)?;
    if blake3::hash(body).as_bytes()[..8] != *sum {
        return None;
    }
    postcard::from_bytes(body).ok()
}
