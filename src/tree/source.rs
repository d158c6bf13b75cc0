//! A tree that files are taken from: the build context, a stage's result, an image.

use super::{Meta, TreePath};
use crate::digest::ContentId;
use std::fs::File;
use std::io;

/// What stands at a path of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceNode {
    /// A regular file of `size` bytes.
    File {
        /// Length in bytes.
        size: u64,
    },
    /// A directory.
    Dir,
    /// A symbolic link, never followed by the source itself.
    Symlink {
        /// Link text.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Device number.
        major: u32,
        /// Device number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Device number.
        major: u32,
        /// Device number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket; it is copied as an empty file.
    Socket,
}

/// One path of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceEntry {
    /// Mode, owner, time, xattrs as the source has them.
    pub meta: Meta,
    /// What.
    pub node: SourceNode,
    /// Equal for the names of one file; `None` when there is one name only.
    pub links: Option<(u64, u64)>,
}

/// A read-only tree. Paths are names inside it: no implementation follows a link or leaves its root.
pub trait SourceTree: Send + Sync {
    /// Looks at one path without following it; `None` when nothing is there.
    fn stat(&self, path: &TreePath) -> io::Result<Option<SourceEntry>>;

    /// Lists a directory, sorted by name.
    fn list(&self, dir: &TreePath) -> io::Result<Vec<(Vec<u8>, SourceEntry)>>;

    /// Names the bytes of a regular file; cheap when they are known from before.
    fn content(&self, path: &TreePath, entry: &SourceEntry) -> io::Result<ContentId>;

    /// Opens a regular file for reading.
    fn open(&self, path: &TreePath) -> io::Result<File>;

    /// Whether the inodes are in the store and never change, so that a snapshot may hard link them.
    fn immutable(&self) -> bool {
        false
    }
}
