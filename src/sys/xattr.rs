//! Extended attributes without following links.
//!
//! There is no `*at` call for them on most kernels, so names go through `/proc/self/fd`: the descriptor is the
//! directory and the last name is not followed.

use rustix::fs::{self, XattrFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The kernel's own limit of one value and of a list of names.
const LIMIT: usize = 64 << 10;

/// Lists the attributes of `name` in `dir`, with values, sorted by name. A file system without attributes has none.
/// An attribute that vanishes in between is left out.
pub fn all_at(dir: impl AsFd, name: &OsStr) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = at(dir, name);
    all(list_with(|buf| fs::llistxattr(&path, buf))?, |key| get_with(|buf| fs::lgetxattr(&path, key, buf)))
}

/// Lists the attributes of an open file or directory, `O_PATH` included, with values, sorted by name.
pub fn all_of(node: impl AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = itself(node);
    all(list_with(|buf| fs::listxattr(&path, buf))?, |key| get_with(|buf| fs::getxattr(&path, key, buf)))
}

/// Reads one attribute of `name` in `dir`; `None` when it is not there.
pub fn get_at(dir: impl AsFd, name: &OsStr, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let path = at(dir, name);
    get_with(|buf| fs::lgetxattr(&path, key, buf))
}

/// Reads one attribute of an open node; `None` when it is not there.
pub fn get_of(node: impl AsFd, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let path = itself(node);
    get_with(|buf| fs::getxattr(&path, key, buf))
}

/// Sets one attribute of `name` in `dir`.
pub fn set_at(dir: impl AsFd, name: &OsStr, key: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(fs::lsetxattr(at(dir, name), key, value, XattrFlags::empty())?)
}

/// Sets one attribute of an open node.
pub fn set_of(node: impl AsFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(fs::setxattr(itself(node), key, value, XattrFlags::empty())?)
}

/// Removes one attribute of `name` in `dir`; one that is not there is no error.
pub fn remove_at(dir: impl AsFd, name: &OsStr, key: &[u8]) -> io::Result<()> {
    match fs::lremovexattr(at(dir, name), key) {
        Err(Errno::NODATA) => Ok(()),
        other => Ok(other?),
    }
}

fn at(dir: impl AsFd, name: &OsStr) -> PathBuf {
    debug_assert!(!name.as_bytes().contains(&b'/'), "one component");
    let mut path = itself(dir);
    path.push(name);
    path
}

fn itself(node: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", node.as_fd().as_raw_fd()))
}

fn all(
    mut names: Vec<Vec<u8>>,
    get: impl Fn(&[u8]) -> io::Result<Option<Vec<u8>>>,
) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    names.sort();
    let mut out = Vec::with_capacity(names.len());
    for name in names {
        if let Some(value) = get(&name)? {
            out.push((name, value));
        }
    }
    Ok(out)
}

fn list_with(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Vec<Vec<u8>>> {
    let mut small = [0; 512];
    let bytes = match call(&mut small) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Ok(len) => small[..len].to_vec(),
        Err(Errno::RANGE) => {
            let mut large = vec![0; LIMIT];
            let len = call(&mut large)?;
            large.truncate(len);
            large
        }
        Err(e) => return Err(e.into()),
    };
    Ok(bytes.split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect())
}

fn get_with(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
    let mut small = [0; 512];
    match call(&mut small) {
        Ok(len) => Ok(Some(small[..len].to_vec())),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(Errno::RANGE) => {
            let mut large = vec![0; LIMIT];
            let len = call(&mut large)?;
            large.truncate(len);
            Ok(Some(large))
        }
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::inroot;
    use rustix::fs::{Mode, OFlags};

    #[test]
    fn values_come_back_whole_and_sorted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "").unwrap();
        let root = inroot::open_root(dir.path()).unwrap();
        let name = OsStr::new("f");
        let long = vec![7; 2000];
        if set_at(&root, name, b"user.b", &long).is_err() {
            eprintln!("skipped: the temporary directory keeps no user attributes");
            return;
        }
        set_at(&root, name, b"user.a", b"").unwrap();
        let want = vec![(b"user.a".to_vec(), Vec::new()), (b"user.b".to_vec(), long.clone())];
        assert_eq!(all_at(&root, name).unwrap(), want);
        let node = inroot::open_in_root(&root, "f", OFlags::PATH, Mode::empty()).unwrap();
        assert_eq!(all_of(&node).unwrap(), want);
        assert_eq!(get_of(&node, b"user.b").unwrap(), Some(long));
        set_of(&node, b"user.c", b"x").unwrap();
        assert_eq!(get_at(&root, name, b"user.c").unwrap(), Some(b"x".to_vec()));
        remove_at(&root, name, b"user.c").unwrap();
        remove_at(&root, name, b"user.c").unwrap();
        assert_eq!(get_at(&root, name, b"user.c").unwrap(), None);
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "").unwrap();
        std::os::unix::fs::symlink("f", dir.path().join("l")).unwrap();
        let root = inroot::open_root(dir.path()).unwrap();
        if set_at(&root, OsStr::new("f"), b"user.a", b"1").is_err() {
            eprintln!("skipped: the temporary directory keeps no user attributes");
            return;
        }
        assert_eq!(all_at(&root, OsStr::new("l")).unwrap(), Vec::new());
        let link = inroot::open_in_root(&root, "l", OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).unwrap();
        assert_eq!(all_of(&link).unwrap(), Vec::new());
        assert!(set_at(&root, OsStr::new("l"), b"user.a", b"1").is_err());
    }
}
