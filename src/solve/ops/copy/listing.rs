//! What a selection holds, short enough to be kept beside the step's record, so that a later build can say which file
//! made the step run. It decides nothing: the key does.

use super::select::{Member, Pick, Selection};
use crate::digest::ContentId;
use crate::tree::{SourceEntry, SourceNode, TreePath};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Selections with more paths are not listed.
const MOST: usize = 50_000;
/// Names that are said; of the others only how many there are.
const SHOWN: usize = 10;

/// One path of a selection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    path: Vec<u8>,
    kind: u8,
    mode: u32,
    owner: (u32, u32),
    /// The first bytes of the hash of bytes, link text or device number.
    content: [u8; 8],
    /// The same of the extended attributes.
    attributes: [u8; 4],
}

impl Listed {
    fn new(path: TreePath, entry: &SourceEntry, content: Option<ContentId>) -> Self {
        let (kind, extra) = match &entry.node {
            SourceNode::File { .. } | SourceNode::Socket => (b'f', Vec::new()),
            SourceNode::Dir => (b'd', Vec::new()),
            SourceNode::Symlink { target } => (b'l', target.clone()),
            SourceNode::CharDevice { major, minor } => (b'c', format!("{major}:{minor}").into_bytes()),
            SourceNode::BlockDevice { major, minor } => (b'b', format!("{major}:{minor}").into_bytes()),
            SourceNode::Fifo => (b'p', Vec::new()),
        };
        let content = content.unwrap_or_else(|| blake3::hash(&extra).into());
        let mut attributes = blake3::Hasher::new();
        for (name, value) in &entry.meta.xattrs {
            attributes.update(&(name.len() as u64).to_le_bytes()).update(name);
            attributes.update(&(value.len() as u64).to_le_bytes()).update(value);
        }
        Self {
            path: path.as_bytes().to_vec(),
            kind,
            mode: entry.meta.mode & 0o7777,
            owner: (entry.meta.uid, entry.meta.gid),
            content: head(&content.0),
            attributes: head(attributes.finalize().as_bytes()),
        }
    }

    /// Says in which ways another state of the same path differs from this one.
    fn differs(&self, now: &Self) -> Option<String> {
        if self.kind != now.kind {
            return Some("other type".to_owned());
        }
        let mut ways = Vec::new();
        if self.content != now.content {
            ways.push(if self.kind == b'l' { "link target" } else { "content" }.to_owned());
        }
        if self.mode != now.mode {
            ways.push(format!("mode {:o}→{:o}", self.mode, now.mode));
        }
        if self.owner != now.owner {
            let ((a, b), (c, d)) = (self.owner, now.owner);
            ways.push(format!("owner {a}:{b}→{c}:{d}"));
        }
        if self.attributes != now.attributes {
            ways.push("extended attributes".to_owned());
        }
        (!ways.is_empty()).then(|| ways.join(", "))
    }
}

fn head<const N: usize>(hash: &[u8; 32]) -> [u8; N] {
    std::array::from_fn(|at| hash[at])
}

impl Selection {
    /// Lists all paths; `None` when they are too many to be kept.
    pub fn listing(&self) -> Option<Vec<Listed>> {
        if self.len() > MOST {
            return None;
        }
        let mut out = Vec::with_capacity(self.len());
        for Pick { name, entry, content, members, .. } in &self.picks {
            let top = TreePath::clean(name);
            // the metadata of a picked directory is not copied
            if entry.node != SourceNode::Dir {
                out.push(Listed::new(top.clone(), entry, *content));
            }
            for Member { path, entry, content, .. } in members.iter() {
                out.push(Listed::new(top.join(&path), &entry, content));
            }
        }
        Some(out)
    }
}

/// Packs a listing.
pub fn pack(listing: &[Listed]) -> Option<Vec<u8>> {
    zstd::encode_all(&postcard::to_stdvec(listing).ok()?[..], 3).ok()
}

/// Unpacks it again; what is damaged is no listing.
pub fn unpack(bytes: &[u8]) -> Option<Vec<Listed>> {
    use std::io::Read;
    let mut plain = Vec::new();
    let reader = zstd::Decoder::new(bytes).ok()?;
    reader.take(MOST as u64 * 8192).read_to_end(&mut plain).ok()?;
    postcard::from_bytes(&plain).ok()
}

/// Says what changed between two listings: `2 files changed: a.rs (content), b.sh (mode 644→755)`.
pub fn changes(before: &[Listed], now: &[Listed]) -> Option<String> {
    let by_path = |list| -> BTreeMap<&[u8], &Listed> { paths(list).collect() };
    let (old, new) = (by_path(before), by_path(now));
    let shown = |path: &[u8]| crate::progress::printable(path);
    let mut found: Vec<String> = Vec::new();
    for (path, state) in &new {
        match old.get(path) {
            None => found.push(format!("{} (new)", shown(path))),
            Some(was) => found.extend(was.differs(state).map(|how| format!("{} ({how})", shown(path)))),
        }
    }
    let gone = old.keys().filter(|path| !new.contains_key(*path));
    found.extend(gone.map(|path| format!("{} (gone)", shown(path))));
    let (count, more) = (found.len(), found.len().saturating_sub(SHOWN));
    found.truncate(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let plural = if count == 1 { "" } else { "s" };
    (count > 0).then(|| format!("{count} file{plural} changed: {}{more}", found.join(", ")))
}

fn paths(list: &[Listed]) -> impl Iterator<Item = (&[u8], &Listed)> {
    list.iter().map(|listed| (listed.path.as_slice(), listed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: u8, mode: u32) -> Listed {
        Listed {
            path: path.into(),
            kind: b'f',
            mode,
            owner: (0, 0),
            content: [content; 8],
            attributes: [0; 4],
        }
    }

    #[test]
    fn what_changed_is_named() {
        let before =
            [file("a.rs", 1, 0o644), file("b.sh", 2, 0o644), file("c", 3, 0o644), file("same", 1, 0o644)];
        let now =
            [file("a.rs", 9, 0o644), file("b.sh", 2, 0o755), file("d", 3, 0o644), file("same", 1, 0o644)];
        assert_eq!(
            changes(&before, &now).unwrap(),
            "4 files changed: a.rs (content), b.sh (mode 644→755), d (new), c (gone)"
        );
        assert_eq!(changes(&before, &before), None);
        let link = Listed { kind: b'l', ..file("c", 3, 0o644) };
        assert_eq!(changes(&[file("c", 3, 0o644)], &[link]).unwrap(), "1 file changed: c (other type)");
        let many: Vec<Listed> = (0..13).map(|n| file(&format!("f{n:02}"), 0, 0)).collect();
        assert!(changes(&[], &many).unwrap().ends_with("f09 (new) and 3 more"));
    }

    #[test]
    fn a_listing_survives_packing() {
        let list = vec![file("a", 1, 0o644), Listed { owner: (1, 2), ..file("b", 2, 0o4755) }];
        let bytes = pack(&list).unwrap();
        assert_eq!(unpack(&bytes), Some(list));
        assert_eq!(unpack(&bytes[..bytes.len() - 4]), None);
        assert_eq!(unpack(b"junk"), None);
    }
}
