//! What a file tree or the change of one looks like, as plain data: no I/O, no idea where the bytes are.
//!
//! A [`Diff`] is what one step changed, in the terms of an OCI layer (image-spec layer.md): entries in path order,
//! deletions as whiteouts, replaced directories as opaque. It is kept beside each snapshot, so that result ids,
//! layer tars and COPY's cache keys come from it without walking or reading the files again.

mod codec;
mod diff;
mod packed;
mod source;
mod walk;

pub use codec::DecodeError;
pub use diff::{Diff, Entries};
pub use source::{EmptyTree, Enter, SourceEntry, SourceNode, SourceTree};
pub use walk::{Walk, Walked};

use crate::digest::ContentId;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// A modification time: seconds since the epoch and nanoseconds after that second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Mtime {
    /// Whole seconds; negative before 1970.
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// What every kind of entry carries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Meta {
    /// Permission, setuid, setgid and sticky bits: `mode & 0o7777`.
    pub mode: u32,
    /// Owner as the image sees it.
    pub uid: u32,
    /// Group as the image sees it.
    pub gid: u32,
    /// Never part of a cache key or result id.
    pub mtime: Mtime,
    /// Full name and value, sorted by name; overlayfs's own are translated before they get here.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Node {
    /// A regular file of `size` bytes.
    File {
        /// Length in bytes.
        size: u64,
        /// blake3 of the bytes.
        content: ContentId,
    },
    /// A further name of the file at `target`, which is a `File` entry earlier in the same diff.
    Hardlink {
        /// Path of the first name.
        target: TreePath,
    },
    /// A directory; an opaque one hides what lower layers hold below it.
    Dir {
        /// Whether lower layers' entries below are hidden.
        opaque: bool,
    },
    /// A symbolic link with its uninterpreted target.
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
    /// The path is deleted from the lower layers; its `Meta` is meaningless.
    Whiteout,
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where.
    pub path: TreePath,
    /// Mode, owner, time, xattrs.
    pub meta: Meta,
    /// What.
    pub node: Node,
}

/// A path inside a tree: bytes, components joined by one `/`, without leading or trailing slash, without `.`, `..`
/// and empty components; the root is the empty path. It is a name, not a promise that it is safe to open.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// Names the root of a tree.
    pub fn root() -> Self {
        Self(Vec::new())
    }

    /// Takes bytes that are a clean path already.
    pub(crate) fn of_clean(path: &[u8]) -> Self {
        debug_assert!(Self::is_clean(path));
        Self(path.to_vec())
    }

    /// Cleans any path text: `.` and empty components vanish, `..` takes one component away and stops at the root.
    pub fn clean(path: &[u8]) -> Self {
        let mut out: Vec<&[u8]> = Vec::new();
        for part in path.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(out.pop()),
                _ => out.push(part),
            }
        }
        Self(out.join(&b'/'))
    }

    /// Says whether a text is a path as [`TreePath::clean`] would leave it.
    pub(crate) fn is_clean(path: &[u8]) -> bool {
        path.is_empty() || path.split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
    }

    /// Appends one component; the caller knows that it is one.
    pub fn child(&self, name: &[u8]) -> Self {
        debug_assert!(!name.is_empty() && !name.contains(&b'/') && name != b"." && name != b"..");
        let mut out = Vec::with_capacity(self.0.len() + 1 + name.len());
        out.extend_from_slice(&self.0);
        if !out.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(name);
        Self(out)
    }

    /// Appends another path below this one.
    pub fn join(&self, rest: &TreePath) -> Self {
        match (self.is_root(), rest.is_root()) {
            (true, _) => rest.clone(),
            (_, true) => self.clone(),
            _ => Self([&self.0[..], &rest.0[..]].join(&b'/')),
        }
    }

    /// Gives the path as bytes, empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Gives the path for system calls relative to a descriptor; the root is `.`.
    pub fn as_os_str(&self) -> &std::ffi::OsStr {
        use std::os::unix::ffi::OsStrExt;
        std::ffi::OsStr::from_bytes(if self.0.is_empty() { b"." } else { &self.0 })
    }

    /// Says whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives the last component; `None` for the root.
    pub fn file_name(&self) -> Option<&[u8]> {
        self.components().last()
    }

    /// Gives the path above; `None` for the root.
    pub fn parent(&self) -> Option<TreePath> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].to_vec()))
    }

    /// Lists the components.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|c| !c.is_empty())
    }

    /// Gives the part below `dir`; `None` when this path is not at or below it.
    pub fn strip_prefix(&self, dir: &TreePath) -> Option<TreePath> {
        if dir.is_root() {
            return Some(self.clone());
        }
        let rest = self.0.strip_prefix(&dir.0[..])?;
        match rest {
            [] => Some(Self::root()),
            [b'/', below @ ..] => Some(Self(below.to_vec())),
            _ => None,
        }
    }
}

/// Component by component, so that a directory stands right before what is below it.
impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        path_order(&self.0, &other.0)
    }
}

/// Compares two clean paths as [`TreePath`] does.
pub(crate) fn path_order(a: &[u8], b: &[u8]) -> Ordering {
    // '/' sorts before every byte that a name can hold; most of two paths is the same, and that is passed over fast
    let rank = |b: Option<&u8>| match b {
        None => 0u16,
        Some(b'/') => 1,
        Some(b) => u16::from(*b) + 2,
    };
    let same = shared_prefix(a, b);
    rank(a.get(same)).cmp(&rank(b.get(same)))
}

/// Says whether a clean path is below a directory.
pub(crate) fn is_below(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() && !path.is_empty()
        || path.len() > dir.len() && path.starts_with(dir) && path[dir.len()] == b'/'
}

/// Gives how many bytes two texts have in common from the beginning.
fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    const WORD: usize = 8;
    let words = a.chunks_exact(WORD).zip(b.chunks_exact(WORD)).take_while(|(a, b)| a == b).count() * WORD;
    words + a[words..].iter().zip(&b[words..]).take_while(|(a, b)| a == b).count()
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Display for TreePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0).escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> TreePath {
        TreePath::clean(text.as_bytes())
    }

    #[test]
    fn paths_are_cleaned_and_stay_inside() {
        for (from, to) in
            [("/", ""), ("a//b/", "a/b"), ("./a/../..", ""), ("../../etc", "etc"), ("a/./b/../c", "a/c")]
        {
            assert_eq!(p(from).as_bytes(), to.as_bytes(), "{from}");
            assert_eq!(TreePath::is_clean(from.as_bytes()), from == to, "{from}");
            assert!(TreePath::is_clean(to.as_bytes()), "{to}");
        }
    }

    #[test]
    fn a_directory_stands_right_before_its_content() {
        let mut paths = [p("a-b"), p("a/b"), p("a"), p("a/b/c"), p("a.c"), p("")];
        paths.sort();
        let text: Vec<_> = paths.iter().map(|p| String::from_utf8_lossy(p.as_bytes()).into_owned()).collect();
        assert_eq!(text, ["", "a", "a/b", "a/b/c", "a-b", "a.c"]);
    }

    #[test]
    fn paths_are_compared_component_by_component() {
        let mut texts: Vec<String> = vec![String::new()];
        for a in ["a", "ab", "a-", "a.b", "longer-than-a-word", "longer-than-a-word!", "\u{1}", "\u{7f}é"] {
            texts.push(a.to_owned());
            texts.extend(["a", "b-", "a/b", "second-long-component/x"].map(|b| format!("{a}/{b}")));
        }
        for a in &texts {
            for b in &texts {
                let components = |text: &str| p(text).components().map(<[u8]>::to_vec).collect::<Vec<_>>();
                assert_eq!(p(a).cmp(&p(b)), components(a).cmp(&components(b)), "{a} {b}");
            }
        }
    }

    #[test]
    fn time_does_not_count_and_all_else_does() {
        let base = Entry {
            path: p("f"),
            meta: Meta { mode: 0o644, ..Meta::default() },
            node: Node::File { size: 1, content: ContentId([1; 32]) },
        };
        let id = |e: Entry| Diff::new(vec![e]).content_id();
        let mut touched = base.clone();
        touched.meta.mtime.secs = 99;
        assert_eq!(id(base.clone()), id(touched));
        let edits: [fn(&mut Entry); 6] = [
            |e| e.path = p("g"),
            |e| e.meta.mode = 0o600,
            |e| e.meta.uid = 1,
            |e| e.meta.gid = 1,
            |e| e.meta.xattrs.push((b"user.a".to_vec(), b"".to_vec())),
            |e| e.node = Node::Symlink { target: b"x".to_vec() },
        ];
        for edit in edits {
            let mut changed = base.clone();
            edit(&mut changed);
            assert_ne!(id(base.clone()), id(changed));
        }
    }

    #[test]
    fn the_last_of_equal_paths_wins() {
        let at = |uid| Entry { path: p("f"), meta: Meta { uid, ..Meta::default() }, node: Node::Fifo };
        let diff = Diff::new(vec![at(1), at(2)]);
        assert_eq!(diff.len(), 1);
        assert_eq!(diff.entry(0).meta.uid, 2);
    }
}
