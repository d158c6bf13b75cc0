//! How much build cache is kept when nobody asks, and the collection after a build.
//!
//! The numbers are BuildKit's: at most 80 % of the disk and at most 100 GB, less when that leaves under 20 % of the disk
//! free, but never less than 10 % of the disk or 10 GB, whichever is smaller. A build that ran nothing costs
//! nothing; one that did adds what it made to an estimate in the store's file `usage`, and only when that is over the
//! limit the store is really measured. Collecting goes on to nine tenths of the limit, so that not every build
//! after that collects again.

use super::prune::{PruneRequest, Pruned};
use super::{Collector, GcError, LOCK};
use crate::store::LockKind;
use crate::sys::usage;

/// The estimate's file and the first word in it.
const FILE: &str = "usage";
const MAGIC: &str = "rbuild-usage-1";

const GB: u64 = 1_000_000_000;

/// How much build cache is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// As much as the disk suggests.
    #[default]
    ByDisk,
    /// So many bytes.
    Bytes(u64),
    /// Everything.
    All,
}

impl Keep {
    /// Gives the limit for a disk of `size` bytes with `free` bytes left, `used` of the rest being build cache; `None`
    /// is no limit.
    fn limit(self, used: u64, size: u64, free: u64) -> Option<u64> {
        match self {
            Self::All => None,
            Self::Bytes(bytes) => Some(bytes),
            Self::ByDisk => {
                let part = |percent: u64| size / 100 * percent;
                let most = part(80).min(100 * GB);
                let missing = part(20).saturating_sub(free);
                let least = part(10).min(10 * GB);
                Some(most.min(used.saturating_sub(missing)).max(least))
            }
        }
    }
}

impl Collector {
    /// Removes what is over the limit after a build that has added snapshots; `None` when nothing had to be done or
    /// somebody else does it.
    pub fn after_build(&self, keep: Keep) -> Result<Option<Pruned>, GcError> {
        let grown = self.snapshots.grown();
        let (size, free) = usage::disk(self.store.root()).unwrap_or((0, 0));
        // an unknown disk sets no limit
        if grown == 0 || keep == Keep::All || (size == 0 && keep == Keep::ByDisk) {
            return Ok(None);
        }
        let before = match self.estimate() {
            Some(before) => before.saturating_add(grown),
            None => self.snapshots.list()?.iter().fold(0, |sum, info| info.bytes.saturating_add(sum)),
        };
        if keep.limit(before, size, free).is_none_or(|limit| before <= limit) {
            self.remember(before);
            return Ok(None);
        }
        let Some(_alone) = self.store.try_lock(LOCK, LockKind::Exclusive)? else { return Ok(None) };
        let mut stock = self.stock()?;
        let mounts = self.mounts()?;
        let used = self.unneeded(&stock, &mounts);
        let Some(limit) = keep.limit(used, size, free).filter(|limit| used > *limit) else {
            self.remember(used);
            return Ok(None);
        };
        let request = PruneRequest { keep_bytes: Some(limit / 10 * 9), ..PruneRequest::default() };
        let pruned = self.shrink(&mut stock, mounts, &request)?;
        self.remember(used.saturating_sub(pruned.bytes));
        Ok(Some(pruned))
    }

    fn estimate(&self) -> Option<u64> {
        let bytes = self.store.read(FILE, 100).ok()??;
        let (magic, number) = std::str::from_utf8(&bytes).ok()?.trim_end().split_once(' ')?;
        if magic == MAGIC { number.parse().ok() } else { None }
    }

    /// Two builds that end at once may lose one's growth; the next measurement finds it.
    pub(super) fn remember(&self, bytes: u64) {
        let _ = self.store.write_atomic(FILE, format!("{MAGIC} {bytes}\n").as_bytes(), false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_follows_the_disk() {
        for (used, size, free, limit) in [
            // a large disk with much room
            (50 * GB, 1000 * GB, 500 * GB, 50 * GB),
            (150 * GB, 1000 * GB, 500 * GB, 100 * GB),
            // 50 GB too few are free
            (90 * GB, 1000 * GB, 150 * GB, 40 * GB),
            // so full that even the least is more than is wanted
            (90 * GB, 1000 * GB, 0, 10 * GB),
            // a small disk
            (70 * GB, 80 * GB, 16 * GB, 64 * GB),
            (5 * GB, 80 * GB, 0, 8 * GB),
            (0, 0, 0, 0),
        ] {
            assert_eq!(Keep::ByDisk.limit(used, size, free), Some(limit), "{used} {size} {free}");
        }
        assert_eq!(Keep::Bytes(5).limit(9, 1, 1), Some(5));
        assert_eq!(Keep::All.limit(9, 1, 1), None);
    }
}
