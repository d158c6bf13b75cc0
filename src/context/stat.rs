//! What is remembered of a context's files between builds, so that unchanged ones are not read again.
//!
//! The idea is git's index: a file whose stat is the same has the same bytes. The trap is git's too ("racily clean"):
//! a file that changes within the clock tick of its last change keeps its times. So an entry is remembered only when
//! the file was at rest: changed longer ago than the coarsest clock tick before we began to read it.

use crate::tree::Mtime;

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Length in bytes.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Mtime,
    /// Last change of content or metadata; nobody can set it.
    pub ctime: Mtime,
    /// Device and inode number.
    pub inode: (u64, u64),
    /// File type and permission bits as stat gives them.
    pub mode: u32,
}

/// How long a file must have been at rest: file systems take the time of a change from the kernel's tick (4 or 10 ms).
const TICK_NANOS: i128 = 20_000_000;
/// The same where times come in whole seconds (FAT: two).
const COARSE_NANOS: i128 = 2_000_000_000;

impl Stamp {
    /// Says whether the file was at rest at `now`, so that a later change must show in the stamp.
    pub fn at_rest(&self, now: Mtime) -> bool {
        let nanos = |t: Mtime| i128::from(t.secs) * 1_000_000_000 + i128::from(t.nanos);
        let coarse = self.mtime.nanos == 0 && self.ctime.nanos == 0;
        let age = nanos(now) - nanos(self.mtime).max(nanos(self.ctime));
        age > if coarse { COARSE_NANOS } else { TICK_NANOS }
    }
}

/// Keeps what is known of one context directory between builds, as bytes that this room makes. Losing them costs time,
/// never correctness: they carry a checksum, and each entry names the state of its file.
pub trait StatCache: Send + Sync {
    /// Gives what was stored last; `None` when nothing was or it cannot be read.
    fn load(&self) -> Option<Vec<u8>>;

    /// Replaces what is stored by these parts, one after another; failures are the implementation's to swallow.
    fn store(&self, parts: &[&[u8]]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_at_rest_is_trusted() {
        let time = |secs, nanos| Mtime { secs, nanos };
        let stamp = |mtime, ctime| Stamp { size: 0, mtime, ctime, inode: (0, 0), mode: 0 };
        let now = time(1000, 500_000_000);
        for (mtime, ctime, want) in [
            (time(900, 1), time(900, 1), true),
            (time(1000, 499_000_000), time(1000, 499_000_000), false),
            (time(900, 1), time(1000, 499_000_000), false),
            (time(1000, 400_000_000), time(1000, 400_000_000), true),
            (time(999, 0), time(999, 0), false),
            (time(998, 0), time(998, 0), true),
            (time(5000, 1), time(900, 1), false),
        ] {
            assert_eq!(stamp(mtime, ctime).at_rest(now), want, "{mtime:?} {ctime:?}");
        }
    }
}
