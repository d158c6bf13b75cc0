//! What a step changed: entries sorted by path, each path once, packed.

use super::packed::{Packed, RawMeta, bytes};
use super::{DecodeError, Entry, Node, TreePath, codec, path_order};
use crate::digest::ContentId;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::ops::Range;

/// What a step changed: entries sorted by path, each path once.
#[derive(Clone, Default, PartialEq)]
pub struct Diff {
    packed: Packed,
}

impl Eq for Diff {}

impl std::fmt::Debug for Diff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries()).finish()
    }
}

/// An entry as it is packed: the form that [`Entry`] itself has in postcard.
#[derive(Serialize, Deserialize)]
struct Raw<'a> {
    #[serde(serialize_with = "bytes")]
    path: &'a [u8],
    #[serde(borrow)]
    meta: RawMeta<'a>,
    #[serde(borrow)]
    node: RawNode<'a>,
}

/// In the order of [`Node`].
#[derive(Serialize, Deserialize)]
enum RawNode<'a> {
    File {
        size: u64,
        content: ContentId,
    },
    Hardlink {
        #[serde(serialize_with = "bytes")]
        target: &'a [u8],
    },
    Dir {
        opaque: bool,
    },
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
    Whiteout,
}

impl<'a> Raw<'a> {
    fn new(entry: &'a Entry) -> Self {
        let node = match &entry.node {
            Node::File { size, content } => RawNode::File { size: *size, content: *content },
            Node::Hardlink { target } => RawNode::Hardlink { target: target.as_bytes() },
            Node::Dir { opaque } => RawNode::Dir { opaque: *opaque },
            Node::Symlink { target } => RawNode::Symlink { target },
            Node::CharDevice { major, minor } => RawNode::CharDevice { major: *major, minor: *minor },
            Node::BlockDevice { major, minor } => RawNode::BlockDevice { major: *major, minor: *minor },
            Node::Fifo => RawNode::Fifo,
            Node::Whiteout => RawNode::Whiteout,
        };
        Self { path: entry.path.as_bytes(), meta: RawMeta::new(&entry.meta), node }
    }

    fn owned(&self) -> Entry {
        Entry { path: TreePath(self.path.to_vec()), meta: self.meta.owned(), node: self.node() }
    }

    fn node(&self) -> Node {
        match self.node {
            RawNode::File { size, content } => Node::File { size, content },
            RawNode::Hardlink { target } => Node::Hardlink { target: TreePath(target.to_vec()) },
            RawNode::Dir { opaque } => Node::Dir { opaque },
            RawNode::Symlink { target } => Node::Symlink { target: target.to_vec() },
            RawNode::CharDevice { major, minor } => Node::CharDevice { major, minor },
            RawNode::BlockDevice { major, minor } => Node::BlockDevice { major, minor },
            RawNode::Fifo => Node::Fifo,
            RawNode::Whiteout => Node::Whiteout,
        }
    }
}

impl Diff {
    /// Sorts the entries; of several with one path the last given stays.
    pub fn new(entries: Vec<Entry>) -> Self {
        entries.into_iter().collect()
    }

    /// Puts diffs together, each of which comes after the one before it in path order.
    pub fn joined(parts: Vec<Self>) -> Self {
        let mut parts = parts.into_iter();
        let mut out = parts.next().unwrap_or_default();
        for part in parts {
            debug_assert!(
                out.is_empty()
                    || part.is_empty()
                    || path_order(out.path(out.len() - 1), part.path(0)).is_lt()
            );
            out.packed.append(&part.packed);
        }
        out
    }

    /// Says how many entries there are.
    pub fn len(&self) -> usize {
        self.packed.len()
    }

    /// Says whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lists the entries in path order; each is unpacked when it is asked for.
    pub fn entries(&self) -> Entries<'_> {
        Entries { diff: self, range: 0..self.len() }
    }

    /// Gives one entry by its place in the order.
    ///
    /// # Panics
    /// There are not so many.
    pub fn entry(&self, at: usize) -> Entry {
        self.packed.get::<Raw<'_>>(at).owned()
    }

    /// Gives the path of an entry as bytes.
    pub fn path(&self, at: usize) -> &[u8] {
        self.packed.path(at)
    }

    /// Gives what an entry is.
    pub fn node(&self, at: usize) -> Node {
        self.packed.get::<Raw<'_>>(at).node()
    }

    /// Says whether an entry and one of another diff are alike in all, times included.
    pub fn same(&self, at: usize, other: &Self, there: usize) -> bool {
        self.packed.raw(at) == other.packed.raw(there)
    }

    /// Gives the first place in a range of the order whose path `before` says no to.
    pub fn partition(&self, range: Range<usize>, before: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (range.start, range.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.path(middle)) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Gives the place of a path in the order.
    pub fn find(&self, path: &TreePath) -> Option<usize> {
        let path = path.as_bytes();
        let at = self.partition(0..self.len(), |here| path_order(here, path).is_lt());
        (at < self.len() && self.path(at) == path).then_some(at)
    }

    /// Finds the entry of a path.
    pub fn get(&self, path: &TreePath) -> Option<Entry> {
        self.find(path).map(|at| self.entry(at))
    }

    /// Names what changed: everything but the timestamps.
    pub fn content_id(&self) -> ContentId {
        let mut h = blake3::Hasher::new_derive_key("rbuild diff v1");
        let mut buf = Vec::with_capacity(256);
        for entry in self.entries() {
            buf.clear();
            codec::canonical(&entry, &mut buf);
            h.update(&buf);
        }
        h.finalize().into()
    }

    /// Sums the sizes of the regular files in bytes, hard links once.
    pub fn content_bytes(&self) -> u64 {
        let size =
            |at| if let RawNode::File { size, .. } = self.packed.get::<Raw<'_>>(at).node { size } else { 0 };
        (0..self.len()).map(size).sum()
    }

    /// Packs the diff for keeping: version, checksum, entries.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out).expect("memory takes all that is written");
        out
    }

    /// Writes what [`Diff::encode`] gives and says how many bytes that are.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<u64> {
        codec::write(self.len(), self.packed.all(), out)
    }

    /// Unpacks what [`Diff::encode`] wrote and checks version, checksum, order and paths.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, DecodeError> {
        let (at, count) = codec::open(&bytes)?;
        let mut before: Option<&[u8]> = None;
        let starts = Packed::from_bytes(&bytes, at, count, |raw: Raw<'_>| {
            let sorted = before.is_none_or(|before| path_order(before, raw.path).is_lt());
            before = Some(raw.path);
            sorted && TreePath::is_clean(raw.path)
        });
        let starts = starts.ok_or(DecodeError::Malformed)?;
        Ok(Self { packed: Packed::checked(bytes, starts) })
    }
}

impl FromIterator<Entry> for Diff {
    /// Packs entries as they come, and sorts them only if that is needed.
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut diff = Self::default();
        let mut last = TreePath::root();
        let mut sorted = true;
        for entry in entries {
            sorted &= diff.is_empty() || last < entry.path;
            diff.packed.push(&Raw::new(&entry));
            last = entry.path;
        }
        if !sorted {
            return diff.sorted();
        }
        diff.packed.shrink();
        diff
    }
}

impl Diff {
    /// Puts entries that did not come in order; of several with one path the last stays.
    fn sorted(&self) -> Self {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by(|a, b| path_order(self.path(*a), self.path(*b)));
        let mut packed = Packed::default();
        for (number, at) in order.iter().enumerate() {
            let next = order.get(number + 1);
            if next.is_none_or(|next| self.path(*next) != self.path(*at)) {
                packed.push_from(&self.packed, *at);
            }
        }
        packed.shrink();
        Self { packed }
    }
}

/// The entries of a diff in path order.
#[derive(Clone)]
pub struct Entries<'d> {
    diff: &'d Diff,
    range: Range<usize>,
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        self.range.next().map(|at| self.diff.entry(at))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.range.size_hint()
    }
}

impl DoubleEndedIterator for Entries<'_> {
    fn next_back(&mut self) -> Option<Entry> {
        self.range.next_back().map(|at| self.diff.entry(at))
    }
}

impl ExactSizeIterator for Entries<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Meta, Mtime};

    #[test]
    fn entries_are_packed_as_postcard_packs_them() {
        let meta = Meta {
            mode: 0o4755,
            uid: 70_000,
            gid: 7,
            mtime: Mtime { secs: -5, nanos: 999_999_999 },
            xattrs: vec![(b"user.a".to_vec(), b"\0\xff".to_vec()), (b"user.b".to_vec(), Vec::new())],
        };
        let target = TreePath::clean(b"0");
        let nodes = [
            Node::File { size: u64::MAX, content: ContentId([7; 32]) },
            Node::Hardlink { target },
            Node::Dir { opaque: true },
            Node::Dir { opaque: false },
            Node::Symlink { target: b"../x\n".to_vec() },
            Node::CharDevice { major: 1, minor: 300 },
            Node::BlockDevice { major: u32::MAX, minor: 0 },
            Node::Fifo,
            Node::Whiteout,
        ];
        let entry = |(at, node): (usize, Node)| Entry {
            path: TreePath::clean(format!("{at}\u{e9}").as_bytes()),
            meta: meta.clone(),
            node,
        };
        let entries: Vec<Entry> = nodes.into_iter().enumerate().map(entry).collect();
        let diff = Diff::new(entries.clone());
        assert_eq!(diff.entries().collect::<Vec<_>>(), entries);
        let mut wanted = postcard::to_stdvec(&(entries.len() as u64)).unwrap();
        for (at, entry) in entries.iter().enumerate() {
            wanted.extend(postcard::to_stdvec(entry).unwrap());
            assert_eq!((&diff.node(at), diff.path(at)), (&entry.node, entry.path.as_bytes()));
        }
        assert_eq!(diff.encode()[40..], wanted);
        assert_eq!(postcard::to_stdvec(&entries).unwrap(), wanted, "the form of earlier versions");
    }

    #[test]
    fn unsorted_entries_are_sorted_and_the_last_of_a_path_stays() {
        let entry = |path: &str, uid| Entry {
            path: TreePath::clean(path.as_bytes()),
            meta: Meta { uid, ..Meta::default() },
            node: Node::Fifo,
        };
        let diff =
            Diff::new(vec![entry("b", 1), entry("a-b", 2), entry("a/x", 3), entry("b", 4), entry("a", 5)]);
        let got: Vec<_> = diff.entries().map(|e| (e.path.to_string(), e.meta.uid)).collect();
        assert_eq!(got, [("/a", 5), ("/a/x", 3), ("/a-b", 2), ("/b", 4)].map(|(p, u)| (p.to_owned(), u)));
        assert_eq!(diff.find(&TreePath::clean(b"a-b")), Some(2));
        assert_eq!(diff.find(&TreePath::clean(b"a-c")), None);
    }
}
