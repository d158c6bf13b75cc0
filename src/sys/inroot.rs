//! Paths inside a tree that is not trusted: a root file system, a build context, a cache directory.
//!
//! Every link in such a path is followed as if the tree were `/`, so that no link, `..` or rename leads out of it; the
//! result is a descriptor or a (directory descriptor, one name) pair, never a path to be walked a second time. The
//! kernel does the walk (`openat2` with RESOLVE_IN_ROOT) where it can. Where it cannot (kernels before 5.6, filters
//! that refuse the call) and where missing directories are to be made on the way, [`resolve`] walks name by name with
//! O_NOFOLLOW.

use crate::tree::TreePath;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::OnceLock;

/// As many links as the kernel follows in one path.
const MAX_LINKS: u32 = 40;

/// What to do with a link at the very end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// Go where it leads, inside the root.
    Follow,
    /// Stop at the link itself.
    Keep,
}

/// A path after its walk: a directory and one name in it, which may be missing.
#[derive(Debug)]
pub struct Place {
    /// The directory that holds `name`.
    pub parent: OwnedFd,
    /// One component, `.` when the path is the root itself.
    pub name: OsString,
    /// The walked path without links.
    pub path: TreePath,
    /// The node itself (`O_PATH`), when there is one.
    pub node: Option<OwnedFd>,
    /// Directories that the walk has made, outermost first.
    pub created: Vec<TreePath>,
}

/// Opens the directory that later calls take as their root. `dir` itself is trusted and followed.
pub fn open_root(dir: &Path) -> io::Result<OwnedFd> {
    Ok(fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens `path` inside `root`, following links inside it; `OFlags::NOFOLLOW` keeps a link at the end. Absolute paths
/// start at `root`. O_CLOEXEC is always set; `mode` counts when the flags create.
pub fn open_in_root(
    root: impl AsFd,
    path: impl AsRef<OsStr>,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let root = root.as_fd();
    let path = path.as_ref();
    let path = if path.is_empty() { OsStr::new(".") } else { path };
    let flags = flags | OFlags::CLOEXEC;
    if !openat2_works() {
        return open_by_walk(root, path, flags, mode);
    }
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN: something was renamed during a walk with `..`; the kernel could not prove that it stayed inside.
    for _ in 0..64 {
        match fs::openat2(root, path, flags, mode, how) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    open_by_walk(root, path, flags, mode)
}

/// Opens `path` below `root` when no link is on the way or at its end (ELOOP or ENOTDIR otherwise); for names that
/// are known to be without links. O_CLOEXEC is always set.
pub fn open_without_links(root: impl AsFd, path: impl AsRef<OsStr>, flags: OFlags) -> io::Result<OwnedFd> {
    let root = root.as_fd();
    let path = path.as_ref();
    let path = if path.is_empty() { OsStr::new(".") } else { path };
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    if openat2_works() {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..64 {
            match fs::openat2(root, path, flags, Mode::empty(), how) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }
    let mut here = root.try_clone_to_owned()?;
    let mut parts = path.as_bytes().split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").peekable();
    while let Some(part) = parts.next() {
        if part == b".." {
            return Err(Errno::XDEV.into());
        }
        let way = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let flags = if parts.peek().is_some() { way } else { flags };
        here = fs::openat(&here, OsStr::from_bytes(part), flags, Mode::empty())?;
        if parts.peek().is_none() {
            return Ok(here);
        }
    }
    Ok(fs::openat(&here, ".", flags, Mode::empty())?)
}

/// Opens a directory inside `root` for `*at` calls.
pub fn open_dir_in_root(root: impl AsFd, path: impl AsRef<OsStr>) -> io::Result<OwnedFd> {
    open_in_root(root, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
}

/// Makes `path` and what is missing above it as directories and opens it (`O_PATH`). Gives also the paths that were
/// made, outermost first. A link on the way is followed inside the root; one that dangles has its target made.
pub fn mkdir_all_in_root(
    root: impl AsFd,
    path: impl AsRef<OsStr>,
    mode: Mode,
) -> io::Result<(OwnedFd, Vec<TreePath>)> {
    let mut place = resolve(root, path, Last::Follow, Some(mode))?;
    let node = match place.node.take() {
        Some(node) => node,
        None => {
            if make_dir(place.parent.as_fd(), &place.name, mode)? {
                place.created.push(place.path.clone());
            }
            open_name(place.parent.as_fd(), &place.name)?
        }
    };
    if kind_of(node.as_fd())? != FileType::Directory {
        return Err(Errno::NOTDIR.into());
    }
    Ok((node, place.created))
}

/// Walks to the directory that holds the last component of `path`, without following that component.
pub fn parent_in_root(root: impl AsFd, path: impl AsRef<OsStr>) -> io::Result<(OwnedFd, OsString)> {
    let place = resolve(root, path, Last::Keep, None)?;
    Ok((place.parent, place.name))
}

/// Walks `path` inside `root` name by name. A missing last component is no error; missing directories above it are
/// made with mode `make`, or are ENOENT when that is `None`.
pub fn resolve(
    root: impl AsFd,
    path: impl AsRef<OsStr>,
    last: Last,
    make: Option<Mode>,
) -> io::Result<Place> {
    walk(root.as_fd(), path.as_ref(), last, make.map_or(Missing::Fail, Missing::Make))
}

/// Finds the first component that a walk of `path` would have to make; `None` when everything is there.
pub fn first_missing(root: impl AsFd, path: impl AsRef<OsStr>, last: Last) -> io::Result<Option<TreePath>> {
    let place = walk(root.as_fd(), path.as_ref(), last, Missing::Stop)?;
    Ok(place.node.is_none().then_some(place.path))
}

/// What to do about a missing directory on the way.
#[derive(Debug, Clone, Copy)]
enum Missing {
    Fail,
    Make(Mode),
    /// End the walk there.
    Stop,
}

fn walk(root: BorrowedFd<'_>, path: &OsStr, last: Last, missing: Missing) -> io::Result<Place> {
    let mut walk = Walk { root, dirs: Vec::new(), ahead: Vec::new(), links: 0, created: Vec::new() };
    walk.push(path.as_bytes());
    while let Some(name) = walk.ahead.pop() {
        if name == b".." {
            walk.dirs.pop();
            continue;
        }
        let here = walk.here()?;
        let at_end = walk.ahead.is_empty();
        let node = match open_name(here.as_fd(), OsStr::from_bytes(&name)) {
            Ok(node) => node,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mode = match missing {
                    _ if at_end => return Ok(walk.end(here, name, None)),
                    Missing::Stop => return Ok(walk.end(here, name, None)),
                    Missing::Fail => return Err(e),
                    Missing::Make(mode) => mode,
                };
                if make_dir(here.as_fd(), OsStr::from_bytes(&name), mode)? {
                    walk.created.push(walk.path(&name));
                }
                open_name(here.as_fd(), OsStr::from_bytes(&name))?
            }
            Err(e) => return Err(e),
        };
        match kind_of(node.as_fd())? {
            FileType::Symlink if !at_end || last == Last::Follow => {
                walk.links += 1;
                if walk.links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = fs::readlinkat(&node, "", Vec::new())?;
                if target.as_bytes().starts_with(b"/") {
                    walk.dirs.clear();
                }
                walk.push(target.as_bytes());
            }
            _ if at_end => return Ok(walk.end(here, name, Some(node))),
            FileType::Directory => walk.dirs.push((node, name)),
            _ => return Err(Errno::NOTDIR.into()),
        }
    }
    walk.end_at_dir()
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    /// Directories below the root on the way to here, with their names.
    dirs: Vec<(OwnedFd, Vec<u8>)>,
    /// Components still to go, next one last; no empty ones, no `.`.
    ahead: Vec<Vec<u8>>,
    links: u32,
    created: Vec<TreePath>,
}

impl Walk<'_> {
    fn push(&mut self, path: &[u8]) {
        let parts = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".");
        self.ahead.extend(parts.rev().map(<[u8]>::to_vec));
    }

    fn here(&self) -> io::Result<OwnedFd> {
        self.dirs.last().map_or(self.root, |(fd, _)| fd.as_fd()).try_clone_to_owned()
    }

    fn path(&self, name: &[u8]) -> TreePath {
        self.dirs.iter().fold(TreePath::root(), |path, (_, dir)| path.child(dir)).child(name)
    }

    fn end(self, parent: OwnedFd, name: Vec<u8>, node: Option<OwnedFd>) -> Place {
        let path = self.path(&name);
        Place { parent, name: OsString::from_vec(name), path, node, created: self.created }
    }

    /// The path ended with `..`, with a link to a directory above, or was the root.
    fn end_at_dir(mut self) -> io::Result<Place> {
        match self.dirs.pop() {
            Some((node, name)) => {
                let parent = self.here()?;
                Ok(self.end(parent, name, Some(node)))
            }
            None => Ok(Place {
                parent: self.root.try_clone_to_owned()?,
                name: OsString::from("."),
                path: TreePath::root(),
                node: Some(open_name(self.root, OsStr::new("."))?),
                created: self.created,
            }),
        }
    }
}

fn open_by_walk(root: BorrowedFd<'_>, path: &OsStr, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let last = if flags.contains(OFlags::NOFOLLOW) { Last::Keep } else { Last::Follow };
    let place = resolve(root, path, last, None)?;
    Ok(fs::openat(&place.parent, &place.name, flags | OFlags::NOFOLLOW, mode)?)
}

fn open_name(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// Says whether the directory is new; one that somebody else has just made is as good.
fn make_dir(dir: BorrowedFd<'_>, name: &OsStr, mode: Mode) -> io::Result<bool> {
    match fs::mkdirat(dir, name, mode) {
        Ok(()) => {
            // The mode that was asked for, whatever the umask.
            fs::chmodat(dir, name, mode, AtFlags::empty())?;
            Ok(true)
        }
        Err(Errno::EXIST) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn kind_of(node: BorrowedFd<'_>) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fs::fstat(node)?.st_mode))
}

/// Asks once a process. A filter that does not know the call answers ENOSYS or EPERM.
fn openat2_works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        fs::openat2(fs::CWD, "/", flags, Mode::empty(), ResolveFlags::IN_ROOT).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("root/a/b")).unwrap();
        std::fs::write(at("root/a/b/file"), "inside").unwrap();
        std::fs::write(at("secret"), "outside").unwrap();
        symlink("/a/b", at("root/abs")).unwrap();
        symlink("../../../../secret", at("root/a/up")).unwrap();
        symlink("/secret", at("root/out")).unwrap();
        symlink("loop", at("root/loop")).unwrap();
        symlink("/made/later", at("root/dangling")).unwrap();
        let root = open_root(&at("root")).unwrap();
        (dir, root)
    }

    fn read(fd: OwnedFd) -> String {
        std::io::read_to_string(std::fs::File::from(fd)).unwrap()
    }

    #[test]
    fn both_walks_agree_and_stay_inside() {
        let (_dir, root) = tree();
        let by_kernel = |p: &str| open_in_root(&root, p, OFlags::RDONLY, Mode::empty()).map(read);
        let by_hand = |p: &str| {
            open_by_walk(root.as_fd(), OsStr::new(p), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map(read)
        };
        for (path, want) in [
            ("a/b/file", Some("inside")),
            ("/a/./b//file", Some("inside")),
            ("abs/file", Some("inside")),
            ("abs/../../../a/b/file", Some("inside")),
            ("../../a/b/file", Some("inside")),
            ("a/up", None),
            ("out", None),
            ("../secret", None),
            ("loop", None),
            ("a/b/file/x", None),
            ("missing/x", None),
        ] {
            let (kernel, hand) = (by_kernel(path), by_hand(path));
            assert_eq!(kernel.as_deref().ok(), want, "{path}: {kernel:?}");
            assert_eq!(hand.as_deref().ok(), want, "{path}: {hand:?}");
            if let (Err(k), Err(h)) = (kernel, hand) {
                assert_eq!(k.raw_os_error(), h.raw_os_error(), "{path}");
            }
        }
    }

    #[test]
    fn a_link_at_the_end_can_be_kept() {
        let (_dir, root) = tree();
        let place = resolve(&root, "/a/up", Last::Keep, None).unwrap();
        assert_eq!(place.path.as_bytes(), b"a/up");
        assert!(fs::readlinkat(&place.parent, &place.name, Vec::new()).is_ok());
        let (_, name) = parent_in_root(&root, "abs/new").unwrap();
        assert_eq!(name, "new");
    }

    #[test]
    fn directories_are_made_where_links_lead_and_reported() {
        let (dir, root) = tree();
        let (_, made) = mkdir_all_in_root(&root, "dangling/x", Mode::from_raw_mode(0o751)).unwrap();
        let made: Vec<_> = made.iter().map(TreePath::as_bytes).collect();
        assert_eq!(made, [&b"made"[..], b"made/later", b"made/later/x"]);
        assert!(dir.path().join("root/made/later/x").is_dir());
        let (_, again) = mkdir_all_in_root(&root, "dangling/x", Mode::from_raw_mode(0o755)).unwrap();
        assert!(again.is_empty());
        assert!(mkdir_all_in_root(&root, "a/b/file", Mode::from_raw_mode(0o755)).is_err());
        let (_, none) = mkdir_all_in_root(&root, "/", Mode::from_raw_mode(0o755)).unwrap();
        assert!(none.is_empty());
    }

    #[test]
    fn the_root_is_its_own_parent() {
        let (_dir, root) = tree();
        for path in ["", "/", ".", "..", "a/..", "a/../.."] {
            let place = resolve(&root, path, Last::Follow, None).unwrap();
            assert!(place.path.is_root(), "{path}");
            assert_eq!(place.name, ".");
        }
    }

    #[test]
    fn a_path_without_links_stops_at_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/f"), "f").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("l")).unwrap();
        std::os::unix::fs::symlink("b/f", dir.path().join("a/g")).unwrap();
        let root = open_root(dir.path()).unwrap();
        let open = |path: &str| open_without_links(&root, path, OFlags::RDONLY);
        for path in ["", "a", "a/b/f", "a/./b"] {
            assert!(open(path).is_ok(), "{path}");
        }
        for path in ["l/b/f", "a/g", "..", "a/../../x", "a/b/f/x", "none"] {
            assert!(open(path).is_err(), "{path}");
        }
    }
}
