//! The two byte forms of a diff: the canonical one that is hashed and the one that is kept on disk.
//!
//! The canonical form is written by hand, length-prefixed, so that it can never change behind our back with a
//! serialisation library; the kept form may change with its version number, since a snapshot can be read anew.

use super::{Entry, Node};
use std::io::{self, Write};

const MAGIC: &[u8] = b"rbtree01";

/// A kept diff that cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not our format or another version of it.
    #[error("not a tree record of this version")]
    Version,
    /// The checksum does not fit: cut off or damaged.
    #[error("the tree record is damaged (checksum)")]
    Checksum,
    /// The checksum fits but the content breaks the rules of a diff.
    #[error("the tree record is malformed")]
    Malformed,
}

/// Appends the canonical form of an entry: everything but the modification time.
pub(super) fn canonical(entry: &Entry, out: &mut Vec<u8>) {
    fn bytes(out: &mut Vec<u8>, b: &[u8]) {
        out.extend_from_slice(&(b.len() as u64).to_le_bytes());
        out.extend_from_slice(b);
    }
    bytes(out, entry.path.as_bytes());
    if matches!(entry.node, Node::Whiteout) {
        out.push(b'w');
        return;
    }
    let meta = &entry.meta;
    for number in [meta.mode, meta.uid, meta.gid, meta.xattrs.len() as u32] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for (name, value) in &meta.xattrs {
        bytes(out, name);
        bytes(out, value);
    }
    match &entry.node {
        Node::File { size, content } => {
            out.push(b'f');
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(&content.0);
        }
        Node::Hardlink { target } => {
            out.push(b'h');
            bytes(out, target.as_bytes());
        }
        Node::Dir { opaque } => out.extend_from_slice(if *opaque { b"do" } else { b"d-" }),
        Node::Symlink { target } => {
            out.push(b'l');
            bytes(out, target);
        }
        Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
            out.push(if matches!(entry.node, Node::CharDevice { .. }) { b'c' } else { b'b' });
            out.extend_from_slice(&major.to_le_bytes());
            out.extend_from_slice(&minor.to_le_bytes());
        }
        Node::Fifo => out.push(b'p'),
        Node::Whiteout => {}
    }
}

/// Writes the kept form: version, checksum, and packed entries with their number before them.
pub(super) fn write(count: usize, entries: &[u8], out: &mut dyn Write) -> io::Result<u64> {
    let count = postcard::to_stdvec(&(count as u64)).expect("plain data always packs");
    let mut sum = blake3::Hasher::new();
    sum.update(&count).update(entries);
    for part in [MAGIC, &sum.finalize().as_bytes()[..], &count, entries] {
        out.write_all(part)?;
    }
    Ok((MAGIC.len() + blake3::OUT_LEN + count.len() + entries.len()) as u64)
}

/// Checks version and checksum of the kept form; gives where the entries begin and how many there are.
pub(super) fn open(bytes: &[u8]) -> Result<(usize, usize), DecodeError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(DecodeError::Version)?;
    let (sum, body) = rest.split_at_checked(blake3::OUT_LEN).ok_or(DecodeError::Checksum)?;
    if blake3::hash(body).as_bytes() != sum {
        return Err(DecodeError::Checksum);
    }
    let (count, entries) = postcard::take_from_bytes::<u64>(body).map_err(|_| DecodeError::Malformed)?;
    let count = usize::try_from(count).map_err(|_| DecodeError::Malformed)?;
    Ok((bytes.len() - entries.len(), count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Diff, Meta, TreePath};

    #[test]
    fn a_kept_diff_comes_back_or_is_refused() {
        let path = TreePath::clean(b"a/b\xff\n");
        let diff = Diff::new(vec![Entry { path, meta: Meta::default(), node: Node::Dir { opaque: true } }]);
        let kept = diff.encode();
        assert_eq!(Diff::decode(kept.clone()).unwrap(), diff);
        for cut in 0..kept.len() {
            assert!(Diff::decode(kept[..cut].to_vec()).is_err());
        }
        for at in 0..kept.len() {
            let mut bad = kept.clone();
            bad[at] ^= 1;
            assert!(Diff::decode(bad).is_err(), "byte {at}");
        }
        // with a right checksum, too, it is read without trust
        for at in 40..kept.len() {
            for flip in [1, 0x80] {
                let mut bad = kept.clone();
                bad[at] ^= flip;
                let sum = blake3::hash(&bad[40..]);
                bad[8..40].copy_from_slice(sum.as_bytes());
                if let Ok(diff) = Diff::decode(bad) {
                    assert!(diff.entries().all(|e| TreePath::clean(e.path.as_bytes()) == e.path));
                }
            }
        }
    }
}
