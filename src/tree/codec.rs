//! The two byte forms of a diff: the canonical one that is hashed and the one that is kept on disk.
//!
//! The canonical form is written by hand, length-prefixed, so that it can never change behind our back with a
//! serialisation library; the kept form may change with its version number, since a snapshot can be read anew.

use super::{Diff, Entry, Node, TreePath};

const MAGIC: &[u8; 8] = b"rbtree01";

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

pub(super) fn encode(diff: &Diff) -> Vec<u8> {
    let body = postcard::to_stdvec(diff).expect("plain data always packs");
    let mut out = Vec::with_capacity(body.len() + 40);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(blake3::hash(&body).as_bytes());
    out.extend_from_slice(&body);
    out
}

pub(super) fn decode(bytes: &[u8]) -> Result<Diff, DecodeError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(DecodeError::Version)?;
    let (sum, body) = rest.split_at_checked(32).ok_or(DecodeError::Checksum)?;
    if blake3::hash(body).as_bytes() != sum {
        return Err(DecodeError::Checksum);
    }
    let diff: Diff = postcard::from_bytes(body).map_err(|_| DecodeError::Malformed)?;
    let clean = |p: &TreePath| TreePath::clean(p.as_bytes()) == *p;
    let sorted = diff.entries.windows(2).all(|w| w[0].path < w[1].path);
    if sorted && diff.entries.iter().all(|e| clean(&e.path)) { Ok(diff) } else { Err(DecodeError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Meta;

    #[test]
    fn a_kept_diff_comes_back_or_is_refused() {
        let path = TreePath::clean(b"a/b\xff\n");
        let diff = Diff::new(vec![Entry { path, meta: Meta::default(), node: Node::Dir { opaque: true } }]);
        let kept = diff.encode();
        assert_eq!(Diff::decode(&kept).unwrap(), diff);
        for cut in 0..kept.len() {
            assert!(Diff::decode(&kept[..cut]).is_err());
        }
        for at in 0..kept.len() {
            let mut bad = kept.clone();
            bad[at] ^= 1;
            assert!(Diff::decode(&bad).is_err(), "byte {at}");
        }
    }
}
