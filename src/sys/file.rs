//! Small file operations that have a trap in them: copying bytes the cheapest way, changing what a link is rather
//! than what it points to.

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, RenameFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

/// How the bytes of a copy got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// The blocks are shared (reflink).
    Shared,
    /// The kernel moved the bytes.
    InKernel,
    /// They went through this process.
    Buffered,
}

/// Copies the whole of `from` into the empty file `to`: shared blocks, else in the kernel, else by hand.
/// Both stand at offset 0. Fails when the file shrinks below `size` meanwhile; bytes beyond `size` are not copied.
pub fn copy_contents(from: &File, to: &File, size: u64) -> io::Result<Copied> {
    if size > 0 && fs::ioctl_ficlone(to, from).is_ok() {
        // The clone took the file as it is now, which need not be the size that was looked at.
        return match to.metadata()?.len() {
            len if len == size => Ok(Copied::Shared),
            _ => Err(io::Error::other("the file changed its size while it was copied")),
        };
    }
    let mut left = size;
    while left > 0 {
        let step = usize::try_from(left.min(1 << 30)).unwrap_or(1 << 30);
        match fs::copy_file_range(from, None, to, None, step) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => left -= n as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM)
                if left == size =>
            {
                return copy_by_hand(from, to, size);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Copied::InKernel)
}

fn copy_by_hand(mut from: &File, mut to: &File, mut left: u64) -> io::Result<Copied> {
    let mut buffer = vec![0; 128 << 10];
    while left > 0 {
        let step = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = from.read(&mut buffer[..step])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&buffer[..n])?;
        left -= n as u64;
    }
    Ok(Copied::Buffered)
}

/// Renames, and fails with EEXIST when the new name is taken. File systems without that flag get a link-free check
/// first, which is the best they offer.
pub fn rename_noreplace(from: impl AsFd, old: &OsStr, to: impl AsFd, new: &OsStr) -> io::Result<()> {
    match fs::renameat_with(&from, old, &to, new, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => {}
        other => return Ok(other?),
    }
    match fs::statat(&to, new, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(fs::renameat(&from, old, &to, new)?),
        Ok(_) => Err(Errno::EXIST.into()),
        Err(e) => Err(e.into()),
    }
}

/// Sets owner and group of a name without following it.
pub fn chown_at(dir: impl AsFd, name: &OsStr, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    Ok(fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Sets the permission bits of an open node, `O_PATH` included. A link has none: the caller leaves links out.
pub fn chmod_of(node: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", node.as_raw_fd());
    Ok(fs::chmod(path, Mode::from_raw_mode(mode))?)
}

/// Sets the modification time of a name without following it; the access time becomes the same.
pub fn set_mtime_at(dir: impl AsFd, name: &OsStr, secs: i64, nanos: u32) -> io::Result<()> {
    let time = Timespec { tv_sec: secs, tv_nsec: nanos.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Makes a device, pipe or socket node. `mode` holds permission bits only and is applied whatever the umask.
pub fn mknod_at(
    dir: impl AsFd,
    name: &OsStr,
    kind: FileType,
    mode: u32,
    major: u32,
    minor: u32,
) -> io::Result<()> {
    debug_assert!(!name.as_bytes().contains(&b'/'), "one component");
    let dir = dir.as_fd();
    fs::mknodat(dir, name, kind, Mode::from_raw_mode(mode), fs::makedev(major, minor))?;
    Ok(fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::inroot::open_root;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn a_copy_has_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        std::fs::write(dir.path().join("a"), &bytes).unwrap();
        let open = || File::open(dir.path().join("a")).unwrap();
        let copy = |name: &str, how: &dyn Fn(&File, &File) -> io::Result<Copied>| {
            let to = File::create(dir.path().join(name)).unwrap();
            how(&open(), &to).map(|_| std::fs::read(dir.path().join(name)).unwrap())
        };
        let size = bytes.len() as u64;
        assert_eq!(copy("b", &|f, t| copy_contents(f, t, size)).unwrap(), bytes);
        assert_eq!(copy("c", &|f, t| copy_by_hand(f, t, size)).unwrap(), bytes);
        assert!(copy("d", &|f, t| copy_contents(f, t, size + 1)).is_err());
        assert_eq!(copy("e", &|f, t| copy_contents(f, t, 0)).unwrap(), b"");
    }

    #[test]
    fn rename_does_not_overwrite() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "a").unwrap();
        std::fs::write(dir.path().join("b"), "b").unwrap();
        let root = open_root(dir.path()).unwrap();
        let err = rename_noreplace(&root, OsStr::new("a"), &root, OsStr::new("b")).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::AlreadyExists);
        rename_noreplace(&root, OsStr::new("a"), &root, OsStr::new("c")).unwrap();
        assert!(dir.path().join("c").exists());
    }

    #[test]
    fn times_and_modes_go_to_the_node_itself() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "").unwrap();
        std::os::unix::fs::symlink("f", dir.path().join("l")).unwrap();
        let root = open_root(dir.path()).unwrap();
        set_mtime_at(&root, OsStr::new("l"), -5, 7).unwrap();
        let (link, file) = (dir.path().join("l"), dir.path().join("f"));
        assert_eq!(link.symlink_metadata().unwrap().mtime(), -5);
        assert_ne!(file.metadata().unwrap().mtime(), -5);
        let node = crate::sys::inroot::open_in_root(&root, "f", fs::OFlags::PATH, Mode::empty()).unwrap();
        chmod_of(node.as_fd(), 0o4711).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o4711);
    }
}
