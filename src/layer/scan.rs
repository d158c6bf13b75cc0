//! Reads an upper directory as a diff: walk by descriptors, then hash, both on all cores.
//!
//! The root directory is not part of a diff: BuildKit's layers never have it either, so a change of the root's own
//! mode or owner does not travel.

use super::whiteout::{Sense, sense};
use super::{LayerError, hash_file};
use crate::sys::fsutil;
use crate::tree::{Diff, Entry, Meta, Node, TreePath};
use rayon::prelude::*;
use rustix::fs::{FileType, OFlags, Stat};
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// So many files are described at a time; only what is packed stays.
const PART: usize = 16 << 10;

/// How an upper directory is read.
#[derive(Debug, Clone, Copy)]
pub struct ScanOptions<'a> {
    /// Whether overlayfs keeps its marks in `user.overlay.*` (rootless) instead of `trusted.overlay.*`. Both are
    /// understood when reading; it is here for symmetry with unpacking.
    pub userxattr: bool,
    /// Mount-point stubs: empty files and directories that were made to mount over, and the directories made for
    /// them. They are left out if they are empty, or hold nothing but left out stubs.
    pub skip: &'a HashSet<TreePath>,
}

/// Reads the upper directory of an overlay as a diff; hashes in parallel. The root itself is not part of it.
///
/// Sockets are left out, as in every tar. Names of one inode become hard links of the first in path order.
///
/// # Errors
/// A file cannot be read or changes meanwhile, or overlayfs was mounted with `redirect_dir` or `metacopy`.
pub fn scan(dir: &Path, opts: &ScanOptions<'_>) -> Result<Diff, LayerError> {
    let root = fsutil::open_dir(dir).map_err(LayerError::io("open", &TreePath::root()))?;
    let mut found = walk(root.as_fd())?;
    found.par_sort_unstable_by(|a, b| a.path.cmp(&b.path));
    drop_stubs(&mut found, opts.skip);
    let first = first_names(&found);
    let mut parts = Vec::new();
    let mut begin = 0;
    let mut found = found.into_iter();
    while found.len() > 0 {
        let part: Vec<Found> = found.by_ref().take(PART).collect();
        let entry = |(at, one)| describe(root.as_fd(), begin + at, one, &first);
        let entries: Vec<Entry> = part.into_par_iter().enumerate().map(entry).collect::<Result<_, _>>()?;
        begin += entries.len();
        parts.push(Diff::new(entries));
    }
    Ok(Diff::joined(parts))
}

/// A path that was seen, before its bytes are read.
struct Found {
    path: TreePath,
    stat: Stat,
    what: What,
}

enum What {
    /// A directory with its xattrs sorted out.
    Dir {
        opaque: bool,
        xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    },
    Symlink {
        target: Vec<u8>,
    },
    Other,
}

/// Walks level by level: however deep the tree is, no directory stays open and nothing recurses.
fn walk(root: BorrowedFd<'_>) -> Result<Vec<Found>, LayerError> {
    let mut out = Vec::new();
    let mut level = vec![TreePath::root()];
    while !level.is_empty() {
        let parts: Result<Vec<_>, LayerError> =
            level.par_iter().with_min_len(4).map(|dir| list(root, dir)).collect();
        level = Vec::new();
        for (found, below) in parts? {
            out.extend(found);
            level.extend(below);
        }
    }
    Ok(out)
}

/// Looks at one directory and all names in it; gives them and the directories among them.
fn list(root: BorrowedFd<'_>, path: &TreePath) -> Result<(Vec<Found>, Vec<TreePath>), LayerError> {
    let dir = fsutil::open_beneath(root, path.as_os_str(), OFlags::RDONLY | OFlags::DIRECTORY);
    let dir: OwnedFd = dir.map_err(LayerError::io("open", path))?;
    let names = fsutil::names(dir.as_fd()).map_err(LayerError::io("list", path))?;
    let mut out = Vec::with_capacity(names.len() + 1);
    let mut below = Vec::new();
    if !path.is_root() {
        out.push(itself(dir.as_fd(), path)?);
    }
    for name in names {
        let path = path.child(name.as_bytes());
        let stat = fsutil::stat_at(dir.as_fd(), &name).map_err(LayerError::io("look at", &path))?;
        let Some(stat) = stat else { return Err(LayerError::Changed { path }) };
        match fsutil::file_type(&stat) {
            FileType::Directory => below.push(path),
            FileType::Socket => {}
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&dir, &name, Vec::new());
                let target = target.map_err(LayerError::io("read the link", &path))?.into_bytes();
                out.push(Found { path, stat, what: What::Symlink { target } });
            }
            _ => out.push(Found { path, stat, what: What::Other }),
        }
    }
    Ok((out, below))
}

fn itself(dir: BorrowedFd<'_>, path: &TreePath) -> Result<Found, LayerError> {
    let stat = rustix::fs::fstat(dir).map_err(LayerError::io("look at", path))?;
    let xattrs = fsutil::xattrs(dir).map_err(LayerError::io("read the attributes of", path))?;
    let (xattrs, marks) = sort_out(xattrs, path)?;
    let opaque = marks.contains(&Sense::Opaque);
    Ok(Found { path: path.clone(), stat, what: What::Dir { opaque, xattrs } })
}

type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Parts content from overlayfs's marks.
fn sort_out(xattrs: Xattrs, path: &TreePath) -> Result<(Xattrs, Vec<Sense>), LayerError> {
    let mut marks = Vec::new();
    let mut kept = Vec::new();
    for (name, value) in xattrs {
        match sense(&name, &value) {
            Sense::Keep => kept.push((name, value)),
            Sense::Foreign => {
                let why = "overlayfs ran with redirect_dir or metacopy, which hides where its content is";
                return Err(LayerError::Refused { name: path.as_bytes().to_vec(), why: why.to_owned() });
            }
            mark => marks.push(mark),
        }
    }
    Ok((kept, marks))
}

/// Takes out stubs that nobody filled, from the deepest up.
fn drop_stubs(found: &mut Vec<Found>, skip: &HashSet<TreePath>) {
    if skip.is_empty() {
        return;
    }
    let mut filled: HashSet<TreePath> = HashSet::new();
    let mut keep = vec![true; found.len()];
    for (at, one) in found.iter().enumerate().rev() {
        let stub = skip.contains(&one.path)
            && match one.what {
                What::Dir { .. } => !filled.contains(&one.path),
                What::Symlink { .. } => false,
                What::Other => fsutil::file_type(&one.stat) == FileType::RegularFile && one.stat.st_size == 0,
            };
        keep[at] = !stub;
        if !stub && let Some(parent) = one.path.parent() {
            filled.insert(parent);
        }
    }
    let mut keep = keep.into_iter();
    found.retain(|_| keep.next().unwrap_or(true));
}

/// Gives the index of the first name for each inode with several.
fn first_names(found: &[Found]) -> HashMap<(u64, u64), (usize, TreePath)> {
    let mut first = HashMap::new();
    for (at, one) in found.iter().enumerate() {
        if let Some(inode) = shared_inode(one) {
            first.entry(inode).or_insert_with(|| (at, one.path.clone()));
        }
    }
    first
}

/// Whiteouts share one inode on some kernels and are no hard links; links' and devices' own links are not kept apart
/// by layers, so only regular files count.
fn shared_inode(one: &Found) -> Option<(u64, u64)> {
    let regular = fsutil::file_type(&one.stat) == FileType::RegularFile;
    (regular && one.stat.st_nlink > 1).then_some((one.stat.st_dev, one.stat.st_ino))
}

fn describe(
    root: BorrowedFd<'_>,
    at: usize,
    one: Found,
    first: &HashMap<(u64, u64), (usize, TreePath)>,
) -> Result<Entry, LayerError> {
    let target = shared_inode(&one).and_then(|inode| first.get(&inode)).filter(|(index, _)| *index != at);
    let Found { path, stat, what } = one;
    let mut meta = fsutil::meta_of(&stat);
    let device = || (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let node = match (what, fsutil::file_type(&stat)) {
        (What::Dir { opaque, xattrs }, _) => {
            meta.xattrs = xattrs;
            Node::Dir { opaque }
        }
        (What::Symlink { target }, _) => Node::Symlink { target },
        (_, FileType::RegularFile) => regular(root, &path, &stat, target.map(|(_, path)| path), &mut meta)?,
        (_, FileType::CharacterDevice) if device() == (0, 0) => Node::Whiteout,
        (_, FileType::CharacterDevice) => Node::CharDevice { major: device().0, minor: device().1 },
        (_, FileType::BlockDevice) => Node::BlockDevice { major: device().0, minor: device().1 },
        _ => Node::Fifo,
    };
    if node == Node::Whiteout {
        meta = Meta::default();
    }
    Ok(Entry { path, meta, node })
}

fn regular(
    root: BorrowedFd<'_>,
    path: &TreePath,
    stat: &Stat,
    target: Option<&TreePath>,
    meta: &mut Meta,
) -> Result<Node, LayerError> {
    let file = fsutil::open_regular(root, path.as_os_str()).map_err(LayerError::io("open", path))?;
    let xattrs = fsutil::xattrs(file.as_fd()).map_err(LayerError::io("read the attributes of", path))?;
    let (xattrs, marks) = sort_out(xattrs, path)?;
    if stat.st_size == 0 && marks.contains(&Sense::Whiteout) {
        return Ok(Node::Whiteout);
    }
    meta.xattrs = xattrs;
    if let Some(target) = target {
        return Ok(Node::Hardlink { target: target.clone() });
    }
    let (content, size) = hash_file(&file).map_err(LayerError::io("read", path))?;
    if size != stat.st_size as u64 {
        return Err(LayerError::Changed { path: path.clone() });
    }
    Ok(Node::File { size, content })
}
