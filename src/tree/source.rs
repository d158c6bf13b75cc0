//! A tree that files are taken from: the build context, a stage's result, an image.

use super::{Meta, TreePath, Walk};
use crate::digest::ContentId;
use rayon::prelude::*;
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

/// Decides whether a walk goes into a directory.
pub type Enter<'a> = dyn Fn(&TreePath) -> bool + Sync + 'a;

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

    /// Lists everything below a directory in path order, without the directory itself; directories for which `enter`
    /// says no are listed but not entered. A tree that can walk faster than one directory at a time overrides this.
    fn walk(&self, dir: &TreePath, enter: &Enter<'_>) -> io::Result<Walk> {
        let children: Vec<(TreePath, SourceEntry)> =
            self.list(dir)?.into_iter().map(|(name, entry)| (dir.child(&name), entry)).collect();
        let below: Vec<Option<Walk>> = children
            .par_iter()
            .map(|(path, entry)| {
                let go = entry.node == SourceNode::Dir && enter(path);
                go.then(|| self.walk(path, enter)).transpose()
            })
            .collect::<io::Result<_>>()?;
        let mut out = Walk::default();
        for ((path, entry), below) in children.iter().zip(below) {
            out.push(path, entry, None);
            if let Some(below) = below {
                out.append(below);
            }
        }
        Ok(out)
    }

    /// Says why a path that its owner expects is not part of the tree, for example the ignore rule that keeps it out.
    fn why_absent(&self, _path: &TreePath) -> Option<String> {
        None
    }

    /// Gives the paths and patterns that a build takes from the tree, when nothing but these is sent to it; `None` when it
    /// has the whole tree.
    fn asked(&self) -> Option<&[Vec<u8>]> {
        None
    }

    /// Says whether an opened file surely still has the bytes that [`SourceTree::content`] named, without reading it;
    /// on no, the caller has to hash what it has read.
    fn still(&self, _path: &TreePath, _file: &File) -> io::Result<bool> {
        Ok(self.immutable())
    }

    /// Whether the inodes are in the store and never change, so that a snapshot may hard link them.
    fn immutable(&self) -> bool {
        false
    }
}

/// A shared tree is a tree.
impl<T: SourceTree + ?Sized> SourceTree for std::sync::Arc<T> {
    fn stat(&self, path: &TreePath) -> io::Result<Option<SourceEntry>> {
        (**self).stat(path)
    }

    fn list(&self, dir: &TreePath) -> io::Result<Vec<(Vec<u8>, SourceEntry)>> {
        (**self).list(dir)
    }

    fn content(&self, path: &TreePath, entry: &SourceEntry) -> io::Result<ContentId> {
        (**self).content(path, entry)
    }

    fn open(&self, path: &TreePath) -> io::Result<File> {
        (**self).open(path)
    }

    fn walk(&self, dir: &TreePath, enter: &Enter<'_>) -> io::Result<Walk> {
        (**self).walk(dir, enter)
    }

    fn why_absent(&self, path: &TreePath) -> Option<String> {
        (**self).why_absent(path)
    }

    fn asked(&self) -> Option<&[Vec<u8>]> {
        (**self).asked()
    }

    fn still(&self, path: &TreePath, file: &File) -> io::Result<bool> {
        (**self).still(path, file)
    }

    fn immutable(&self) -> bool {
        (**self).immutable()
    }
}

/// A tree with nothing in it.
#[derive(Debug, Clone, Copy)]
pub struct EmptyTree;

impl SourceTree for EmptyTree {
    fn stat(&self, _path: &TreePath) -> io::Result<Option<SourceEntry>> {
        Ok(None)
    }

    fn list(&self, _dir: &TreePath) -> io::Result<Vec<(Vec<u8>, SourceEntry)>> {
        Ok(Vec::new())
    }

    fn content(&self, _path: &TreePath, _entry: &SourceEntry) -> io::Result<ContentId> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn open(&self, _path: &TreePath) -> io::Result<File> {
        Err(io::ErrorKind::NotFound.into())
    }
}
