//! How much disk a tree takes, as `du` counts: allocated blocks, directories too, without following any link.

use super::fsutil;
use rustix::fs::{FileType, OFlags, Stat};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Gives the bytes that an inode has allocated.
pub fn allocated(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512)
}

/// Looks at everything in the tree at `path`, itself first, in no further order. What vanishes meanwhile or cannot be
/// opened is passed over; a tree that is not there is empty.
///
/// Crate `ignore` finds the directories, several at the same time and with its filters off; what is in them is listed and
/// looked at through descriptors below the root's, so that no link leads elsewhere.
pub fn walk(path: &Path, each: &mut (dyn FnMut(&Stat) + Send)) -> io::Result<()> {
    let root = match fsutil::open_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    each(&rustix::fs::fstat(&root)?);
    let each = Mutex::new(each);
    let mut walker = ignore::WalkBuilder::new(path);
    walker.standard_filters(false).hidden(false).follow_links(false);
    walker.filter_entry(|entry| entry.file_type().is_some_and(|kind| kind.is_dir()));
    walker.build_parallel().run(|| {
        Box::new(|item| {
            let here = item.ok().and_then(|item| Some(item.path().strip_prefix(path).ok()?.to_owned()));
            if let Some(stats) = here.and_then(|here| inside(&root, here.as_os_str()).ok()) {
                let mut each = each.lock().unwrap_or_else(PoisonError::into_inner);
                stats.iter().for_each(&mut **each);
            }
            ignore::WalkState::Continue
        })
    });
    Ok(())
}

/// Looks at what is in one directory.
fn inside(root: &OwnedFd, here: &OsStr) -> io::Result<Vec<Stat>> {
    let name = if here.is_empty() { OsStr::new(".") } else { here };
    let dir = fsutil::open_beneath(root.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let names = fsutil::names(dir.as_fd())?;
    Ok(names.iter().filter_map(|name| fsutil::stat_at(dir.as_fd(), name).ok().flatten()).collect())
}

/// Gives the bytes that a tree takes; a file with several names in it counts once.
pub fn measure(path: &Path) -> io::Result<u64> {
    let (mut sum, mut seen) = (0u64, HashSet::new());
    walk(path, &mut |stat| {
        if fsutil::file_type(stat) == FileType::Directory || stat.st_nlink == 1 || seen.insert(stat.st_ino) {
            sum = sum.saturating_add(allocated(stat));
        }
    })?;
    Ok(sum)
}

/// Gives size and free space, in bytes, of the disk that `path` is on; free is what an ordinary user gets.
pub fn disk(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    Ok((stat.f_blocks.saturating_mul(stat.f_frsize), stat.f_bavail.saturating_mul(stat.f_frsize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_takes_what_du_says() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("big"), vec![1u8; 100_000]).unwrap();
        std::fs::hard_link(deep.join("big"), dir.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        std::fs::File::create(dir.path().join("hole")).unwrap().set_len(1 << 30).unwrap();
        let du = std::process::Command::new("du").args(["-s", "-B1"]).arg(dir.path()).output().unwrap();
        let du: u64 =
            String::from_utf8(du.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        assert_eq!(measure(dir.path()).unwrap(), du);
        assert_eq!(measure(&dir.path().join("absent")).unwrap(), 0);
        let (size, free) = disk(dir.path()).unwrap();
        assert!(size > free && free > 0);
    }
}
