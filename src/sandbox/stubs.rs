//! Mount points that the image does not have: made before the step, gone after it, never in a layer.
//!
//! While the sandbox is set up, [`StubLog`] notes each file and directory that was made and each directory that was
//! changed by it. Afterwards [`remove`] takes away what is as it was made; what the process put its own files into
//! stays. On an overlay this happens in the upper directory, which is the diff.

use crate::sys::inroot::{self, Last};
use crate::tree::TreePath;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What was made as mount points.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StubLog {
    made: Vec<Stub>,
    parents: Vec<Parent>,
}

/// A file or directory that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stub {
    path: TreePath,
    dir: bool,
}

/// A directory of the image above a stub. Making the stub changed its time, and copied it to an overlay's upper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Parent {
    path: TreePath,
    before: Look,
    after: Option<Look>,
    /// Whether only the stub brought it into the upper directory.
    copied_up: bool,
}

/// What tells whether somebody touched a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Look {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, i64),
}

impl From<Stat> for Look {
    fn from(stat: Stat) -> Self {
        let mtime = (stat.st_mtime, stat.st_mtime_nsec as i64);
        Self { mode: stat.st_mode, uid: stat.st_uid, gid: stat.st_gid, mtime }
    }
}

/// A mount point as it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    Dir,
    File,
}

const DIR_MODE: Mode = Mode::from_raw_mode(0o755);
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);

impl StubLog {
    /// Finds the place of a mount inside `root`, making what is missing, and notes that. `upper` is the writable
    /// layer below `root`, if it has one.
    pub(super) fn place(
        &mut self,
        root: BorrowedFd<'_>,
        upper: Option<BorrowedFd<'_>>,
        path: &[u8],
        want: Point,
        last: Last,
    ) -> io::Result<OwnedFd> {
        use std::os::unix::ffi::OsStrExt;
        let path = std::ffi::OsStr::from_bytes(path);
        let flags = OFlags::PATH | if last == Last::Keep { OFlags::NOFOLLOW } else { OFlags::empty() };
        match inroot::open_in_root(root, path, flags, Mode::empty()) {
            Ok(place) => return check(place, want),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        // The image's directories on the way change when the stub is made; look at them before.
        if let Some(missing) = inroot::first_missing(root, path, last)? {
            self.note_parents(root, upper, &missing);
        }
        let place = inroot::resolve(root, path, last, Some(DIR_MODE))?;
        self.made.extend(place.created.iter().map(|path| Stub { path: path.clone(), dir: true }));
        if let Some(node) = place.node {
            return check(node, want);
        }
        match want {
            Point::Dir => fs::mkdirat(&place.parent, &place.name, DIR_MODE)?,
            Point::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                drop(fs::openat(&place.parent, &place.name, flags, FILE_MODE)?);
            }
        }
        self.made.push(Stub { path: place.path, dir: want == Point::Dir });
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(fs::openat(&place.parent, &place.name, flags, Mode::empty())?)
    }

    fn note_parents(&mut self, root: BorrowedFd<'_>, upper: Option<BorrowedFd<'_>>, missing: &TreePath) {
        let mut at = missing.parent();
        while let Some(path) = at {
            let known =
                self.parents.iter().any(|p| p.path == path) || self.made.iter().any(|s| s.path == path);
            if !known && let Some(before) = look(root, &path) {
                let copied_up = upper.is_some_and(|upper| look(upper, &path).is_none());
                self.parents.push(Parent { path: path.clone(), before, after: None, copied_up });
            }
            at = path.parent();
        }
    }

    /// Looks at the parents once all stubs are there. `below` shows the root without the mounts on it: the upper
    /// directory, or the plain root.
    pub(super) fn seal(&mut self, below: BorrowedFd<'_>) {
        for parent in &mut self.parents {
            parent.after = look(below, &parent.path);
        }
    }

    /// Counts what was made.
    pub(super) fn len(&self) -> usize {
        self.made.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.made.is_empty()
    }
}

fn check(place: OwnedFd, want: Point) -> io::Result<OwnedFd> {
    let kind = FileType::from_raw_mode(fs::fstat(&place)?.st_mode);
    match (kind, want) {
        (FileType::Symlink, _) => Err(io::Error::other("the image has a symbolic link there")),
        (FileType::Directory, Point::File) => Err(io::Error::from(rustix::io::Errno::ISDIR)),
        (FileType::Directory, Point::Dir) | (_, Point::File) => Ok(place),
        (_, Point::Dir) => Err(io::Error::from(rustix::io::Errno::NOTDIR)),
    }
}

fn look(root: BorrowedFd<'_>, path: &TreePath) -> Option<Look> {
    let node =
        inroot::open_in_root(root, path.as_os_str(), OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).ok()?;
    fs::fstat(node).ok().map(Look::from)
}

/// Removes the stubs that nobody touched below `dir`, where the changes of the sandbox are, and gives the paths of
/// all of these. What cannot be removed is given too: the commit leaves it out.
pub(super) fn remove(log: &StubLog, dir: &Path) -> io::Result<Vec<TreePath>> {
    if log.is_empty() {
        return Ok(Vec::new());
    }
    let root = inroot::open_root(dir)?;
    let now: Vec<_> = log.parents.iter().map(|parent| look(root.as_fd(), &parent.path)).collect();
    let mut gone = Vec::new();
    for stub in log.made.iter().rev() {
        // An error means that nothing is there any more: nothing of ours is left.
        if remove_one(root.as_fd(), stub).unwrap_or(true) {
            gone.push(stub.path.clone());
        }
    }
    for (parent, now) in log.parents.iter().zip(now) {
        if let Some(now) = now {
            tidy_parent(root.as_fd(), parent, now);
        }
    }
    gone.sort();
    Ok(gone)
}

/// Says whether the stub was untouched and is gone now.
fn remove_one(root: BorrowedFd<'_>, stub: &Stub) -> io::Result<bool> {
    let (parent, name) = inroot::parent_in_root(root, stub.path.as_os_str())?;
    let stat = fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)?;
    let (kind, mode) =
        if stub.dir { (FileType::Directory, DIR_MODE) } else { (FileType::RegularFile, FILE_MODE) };
    let as_made = FileType::from_raw_mode(stat.st_mode) == kind
        && stat.st_mode & 0o7777 == mode.bits()
        && (stat.st_uid, stat.st_gid) == (0, 0)
        && (stub.dir || stat.st_size == 0);
    if !as_made {
        return Ok(false);
    }
    let flags = if stub.dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match fs::unlinkat(&parent, &name, flags) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Gives a directory its time back, and takes it out of the upper directory when only the stub brought it there.
fn tidy_parent(root: BorrowedFd<'_>, parent: &Parent, now: Look) {
    let untouched = parent.after == Some(now) && (now.mode, now.uid, now.gid) == parent.before.identity();
    let (secs, nanos) = if untouched { parent.before.mtime } else { now.mtime };
    let Ok((dir, name)) = inroot::parent_in_root(root, parent.path.as_os_str()) else { return };
    if untouched && parent.copied_up && !parent.path.is_root() && !is_opaque(&dir, &name) {
        // Fails when the process has put something there, and then the directory belongs to the diff anyway.
        if fs::unlinkat(&dir, &name, AtFlags::REMOVEDIR).is_ok() {
            return;
        }
    }
    let time = Timespec { tv_sec: secs, tv_nsec: nanos as _ };
    let keep = Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT as _ };
    let times = Timestamps { last_access: keep, last_modification: time };
    let _ = fs::utimensat(&dir, &name, &times, AtFlags::SYMLINK_NOFOLLOW);
}

fn is_opaque(dir: &OwnedFd, name: &std::ffi::OsStr) -> bool {
    use crate::sys::xattr;
    [&b"trusted.overlay.opaque"[..], b"user.overlay.opaque"]
        .iter()
        .any(|key| matches!(xattr::get_at(dir, name, key), Ok(Some(value)) if value == b"y"))
}

impl Look {
    fn identity(&self) -> (u32, u32, u32) {
        (self.mode, self.uid, self.gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(list: &[TreePath]) -> Vec<String> {
        list.iter().map(|p| String::from_utf8_lossy(p.as_bytes()).into_owned()).collect()
    }

    fn place(log: &mut StubLog, root: &OwnedFd, path: &str, want: Point) {
        log.place(root.as_fd(), None, path.as_bytes(), want, Last::Follow).unwrap();
    }

    #[test]
    fn what_was_made_goes_and_what_was_used_stays() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: stubs belong to root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let before = std::fs::metadata(dir.path().join("etc")).unwrap().modified().unwrap();
        let root = inroot::open_root(dir.path()).unwrap();
        let mut log = StubLog::default();
        place(&mut log, &root, "/etc/hosts", Point::File);
        place(&mut log, &root, "/run/secrets/a", Point::File);
        place(&mut log, &root, "/run/other/b", Point::Dir);
        place(&mut log, &root, "/run/other", Point::Dir);
        log.seal(root.as_fd());
        std::fs::write(dir.path().join("run/secrets/mine"), "x").unwrap();

        let gone = remove(&log, dir.path()).unwrap();
        assert_eq!(paths(&gone), ["etc/hosts", "run/other", "run/other/b", "run/secrets/a"]);
        assert!(dir.path().join("run/secrets/mine").exists());
        assert!(!dir.path().join("run/other").exists());
        assert_eq!(std::fs::metadata(dir.path().join("etc")).unwrap().modified().unwrap(), before);
    }

    #[test]
    fn a_stub_that_was_changed_stays() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: stubs belong to root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = inroot::open_root(dir.path()).unwrap();
        let mut log = StubLog::default();
        place(&mut log, &root, "/a", Point::File);
        place(&mut log, &root, "/b", Point::Dir);
        place(&mut log, &root, "/c", Point::Dir);
        log.seal(root.as_fd());
        std::fs::write(dir.path().join("a"), "text").unwrap();
        let node = inroot::open_in_root(&root, "b", OFlags::PATH, Mode::empty()).unwrap();
        crate::sys::file::chmod_of(node.as_fd(), 0o700).unwrap();
        assert_eq!(paths(&remove(&log, dir.path()).unwrap()), ["c"]);
    }

    #[test]
    fn links_lead_inside_and_a_wrong_kind_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/run/real/resolv.conf", dir.path().join("resolv.conf")).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let root = inroot::open_root(dir.path()).unwrap();
        let mut log = StubLog::default();
        place(&mut log, &root, "/resolv.conf", Point::File);
        assert!(dir.path().join("run/real/resolv.conf").is_file());
        for (path, want, last) in [
            ("/file", Point::Dir, Last::Follow),
            ("/run", Point::File, Last::Follow),
            ("/resolv.conf", Point::Dir, Last::Keep),
        ] {
            assert!(log.place(root.as_fd(), None, path.as_bytes(), want, last).is_err(), "{path}");
        }
    }
}
