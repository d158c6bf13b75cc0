//! What a walk has found: as many paths as a source has, so they are packed.

use super::packed::{Packed, RawMeta, bytes};
use super::{SourceEntry, SourceNode, TreePath};
use crate::digest::ContentId;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// One path that a walk has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked {
    /// Where, from the root of the tree.
    pub path: TreePath,
    /// What.
    pub entry: SourceEntry,
    /// Names the bytes of a regular file, if that was known without asking [`super::SourceTree::content`].
    pub content: Option<ContentId>,
}

impl Walked {
    /// Adds it to what comes before it in path order.
    pub fn put(&self, walk: &mut Walk) {
        walk.push(&self.path, &self.entry, self.content);
    }
}

/// All that a walk has found, in path order.
#[derive(Clone, Default, PartialEq)]
pub struct Walk {
    packed: Packed,
    contents: Vec<Option<ContentId>>,
}

impl std::fmt::Debug for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[derive(Serialize, Deserialize)]
struct Raw<'a> {
    #[serde(serialize_with = "bytes")]
    path: &'a [u8],
    #[serde(borrow)]
    meta: RawMeta<'a>,
    #[serde(borrow)]
    node: RawNode<'a>,
    links: Option<(u64, u64)>,
}

#[derive(Serialize, Deserialize)]
enum RawNode<'a> {
    File {
        size: u64,
    },
    Dir,
    Symlink {
        #[serde(serialize_with = "bytes")]
        target: &'a [u8],
    },
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    Socket,
}

impl<'a> RawNode<'a> {
    fn new(node: &'a SourceNode) -> Self {
        match node {
            SourceNode::File { size } => Self::File { size: *size },
            SourceNode::Dir => Self::Dir,
            SourceNode::Symlink { target } => Self::Symlink { target },
            SourceNode::CharDevice { major, minor } => Self::CharDevice { major: *major, minor: *minor },
            SourceNode::BlockDevice { major, minor } => Self::BlockDevice { major: *major, minor: *minor },
            SourceNode::Fifo => Self::Fifo,
            SourceNode::Socket => Self::Socket,
        }
    }

    fn owned(&self) -> SourceNode {
        match *self {
            Self::File { size } => SourceNode::File { size },
            Self::Dir => SourceNode::Dir,
            Self::Symlink { target } => SourceNode::Symlink { target: target.to_vec() },
            Self::CharDevice { major, minor } => SourceNode::CharDevice { major, minor },
            Self::BlockDevice { major, minor } => SourceNode::BlockDevice { major, minor },
            Self::Fifo => SourceNode::Fifo,
            Self::Socket => SourceNode::Socket,
        }
    }
}

impl Walk {
    /// Adds what comes after all others in path order.
    pub fn push(&mut self, path: &TreePath, entry: &SourceEntry, content: Option<ContentId>) {
        let (meta, node) = (RawMeta::new(&entry.meta), RawNode::new(&entry.node));
        self.packed.push(&Raw { path: path.as_bytes(), meta, node, links: entry.links });
        self.contents.push(content);
    }

    /// Adds another walk that comes after this one in path order.
    pub fn append(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        self.packed.append(&other.packed);
        self.contents.extend(other.contents);
    }

    /// Says how many paths there are.
    pub fn len(&self) -> usize {
        self.packed.len()
    }

    /// Says whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives one path by its place in the order, as bytes.
    ///
    /// # Panics
    /// There are not so many.
    pub fn path(&self, at: usize) -> &[u8] {
        self.packed.path(at)
    }

    /// Gives what stands at a path.
    pub fn entry(&self, at: usize) -> SourceEntry {
        let raw: Raw<'_> = self.packed.get(at);
        SourceEntry { meta: raw.meta.owned(), node: raw.node.owned(), links: raw.links }
    }

    /// Says whether a directory stands at a path.
    pub fn is_dir(&self, at: usize) -> bool {
        matches!(self.packed.get::<Raw<'_>>(at).node, RawNode::Dir)
    }

    /// Gives the name of the bytes at a path, if it is known.
    pub fn content(&self, at: usize) -> Option<ContentId> {
        self.contents[at]
    }

    /// Learns names of bytes, in the order of the paths.
    pub fn set_contents(&mut self, contents: Vec<Option<ContentId>>) {
        debug_assert_eq!(contents.len(), self.len());
        self.contents = contents;
    }

    /// Takes the names of the bytes out, so that they can be completed while the paths are read.
    pub fn take_contents(&mut self) -> Vec<Option<ContentId>> {
        std::mem::take(&mut self.contents)
    }

    /// Finds the path for which `order` says that it is the wanted one, not before or after it.
    pub fn find_by(&self, order: impl Fn(&[u8]) -> Ordering) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match order(self.path(middle)) {
                Ordering::Equal => return Some(middle),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// Gives what was found with only the places for which `keep` says yes.
    pub fn only(&self, keep: impl Fn(usize) -> bool) -> Self {
        let mut out = Self::default();
        for at in (0..self.len()).filter(|at| keep(*at)) {
            out.packed.push_from(&self.packed, at);
            out.contents.push(self.contents[at]);
        }
        out
    }

    /// Gives back memory that was taken in advance.
    pub fn shrink(&mut self) {
        self.packed.shrink();
        self.contents.shrink_to_fit();
    }

    /// Lists what was found, each unpacked when it is asked for.
    pub fn iter(&self) -> impl Iterator<Item = Walked> + '_ {
        (0..self.len()).map(|at| Walked {
            path: TreePath::of_clean(self.path(at)),
            entry: self.entry(at),
            content: self.content(at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Meta, Mtime, path_order};

    #[test]
    fn what_is_packed_comes_back() {
        let nodes = [
            SourceNode::File { size: 1 << 40 },
            SourceNode::Dir,
            SourceNode::Symlink { target: b"/x\xff".to_vec() },
            SourceNode::CharDevice { major: 1, minor: 2 },
            SourceNode::BlockDevice { major: 3, minor: 4 },
            SourceNode::Fifo,
            SourceNode::Socket,
        ];
        let mut all = Vec::new();
        for (at, node) in nodes.into_iter().enumerate() {
            let xattrs = vec![(b"user.n".to_vec(), vec![at as u8])];
            let meta = Meta { mode: 0o644, uid: 1, gid: 2, mtime: Mtime { secs: -1, nanos: 5 }, xattrs };
            let path = TreePath::clean(format!("p{at}").as_bytes());
            let links = (at % 2 == 0).then_some((u64::MAX, at as u64));
            let content = (at == 0).then_some(ContentId([9; 32]));
            all.push(Walked { path, entry: SourceEntry { meta, node, links }, content });
        }
        let walk = |part: &[Walked]| {
            let mut walk = Walk::default();
            part.iter().for_each(|w| walk.push(&w.path, &w.entry, w.content));
            walk
        };
        let mut both = walk(&all[..3]);
        both.append(walk(&all[3..]));
        assert_eq!(both, walk(&all));
        assert_eq!(both.iter().collect::<Vec<_>>(), all);
        for (at, one) in all.iter().enumerate() {
            assert_eq!(both.find_by(|path| path_order(path, one.path.as_bytes())), Some(at));
            assert_eq!(both.is_dir(at), one.entry.node == SourceNode::Dir);
        }
        assert_eq!(both.find_by(|path| path_order(path, b"p")), None);
        assert_eq!(
            both.only(|at| at != 1).iter().map(|w| w.path).collect::<Vec<_>>(),
            [0, 2, 3, 4, 5, 6].map(|at| all[at].path.clone())
        );
    }
}
