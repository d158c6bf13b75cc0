//! Many small values in two pieces of memory, where a struct for each would take three times as much.
//!
//! A list of a million files has to fit beside others like it. So entries are kept in the form in which they are written to
//! disk (postcard: short numbers, paths right beside them) and are read one at a time, mostly without allocating.

use serde::{Deserialize, Serialize, Serializer};

/// Packed values, one after another, each beginning with a path.
#[derive(Clone, Default)]
pub(super) struct Packed {
    bytes: Vec<u8>,
    /// Where each begins; they are contiguous, and the last ends with the bytes.
    starts: Vec<usize>,
}

impl Packed {
    /// Takes over bytes that hold `count` values from `at` to their end; `None` unless they do.
    pub(super) fn from_bytes<'a, T: Deserialize<'a>>(
        bytes: &'a [u8],
        at: usize,
        count: usize,
        mut check: impl FnMut(T) -> bool,
    ) -> Option<Vec<usize>> {
        let mut rest = bytes.get(at..)?;
        // no value is shorter than a byte, so a wrong count does not make room for more than there are
        let mut starts = Vec::with_capacity(count.min(rest.len()));
        for _ in 0..count {
            starts.push(bytes.len() - rest.len());
            let (value, left) = postcard::take_from_bytes(rest).ok()?;
            rest = left;
            if !check(value) {
                return None;
            }
        }
        rest.is_empty().then_some(starts)
    }

    /// Puts together what [`Packed::from_bytes`] has checked.
    pub(super) fn checked(bytes: Vec<u8>, starts: Vec<usize>) -> Self {
        Self { bytes, starts }
    }

    pub(super) fn push<T: Serialize>(&mut self, value: &T) {
        self.starts.push(self.bytes.len());
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(value, bytes).expect("plain data always packs");
    }

    /// Appends the values of another list.
    pub(super) fn append(&mut self, other: &Self) {
        let (from, to) = (other.starts.first().copied().unwrap_or(0), self.bytes.len());
        self.starts.extend(other.starts.iter().map(|start| start - from + to));
        self.bytes.extend_from_slice(other.all());
    }

    /// Appends one value of another list.
    pub(super) fn push_from(&mut self, other: &Self, at: usize) {
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(other.raw(at));
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Gives the bytes of one value; equal bytes are equal values.
    pub(super) fn raw(&self, at: usize) -> &[u8] {
        let end = self.starts.get(at + 1).copied().unwrap_or(self.bytes.len());
        &self.bytes[self.starts[at]..end]
    }

    /// Gives the bytes of all values.
    pub(super) fn all(&self) -> &[u8] {
        self.starts.first().map_or(&[], |first| &self.bytes[*first..])
    }

    pub(super) fn get<'a, T: Deserialize<'a>>(&'a self, at: usize) -> T {
        postcard::from_bytes(self.raw(at)).expect("it was packed here or checked before")
    }

    /// Gives the path that a value begins with.
    pub(super) fn path(&self, at: usize) -> &[u8] {
        self.get(at)
    }

    /// Gives back memory that was taken in advance.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.starts.shrink_to_fit();
    }
}

impl PartialEq for Packed {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.all() == other.all()
    }
}

/// Writes bytes at once; as a sequence of numbers, which is the same to the reader, they take longer.
pub(super) fn bytes<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(bytes)
}

/// Attributes as they are packed.
pub(super) type RawXattrs<'a> = Vec<(&'a [u8], &'a [u8])>;

/// Metadata as it is packed.
#[derive(Serialize, Deserialize)]
pub(super) struct RawMeta<'a> {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: super::Mtime,
    #[serde(borrow)]
    pub(super) xattrs: RawXattrs<'a>,
}

impl<'a> RawMeta<'a> {
    pub(super) fn new(meta: &'a super::Meta) -> Self {
        let xattrs = meta.xattrs.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        Self { mode: meta.mode, uid: meta.uid, gid: meta.gid, mtime: meta.mtime, xattrs }
    }

    pub(super) fn owned(&self) -> super::Meta {
        let xattrs = self.xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        super::Meta { mode: self.mode, uid: self.uid, gid: self.gid, mtime: self.mtime, xattrs }
    }
}
