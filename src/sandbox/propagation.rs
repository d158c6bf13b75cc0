//! Binds that share later mounts with the machine: whether the source allows it, and how such a mount is taken.
//!
//! A sandbox is set up in a copy of the machine's mounts that hears of theirs and tells nothing. What shall tell is
//! therefore taken from the machine's mounts themselves, where its copy stays in one group with the original.

use super::error::{Doing, Setup, SetupError, show};
use super::host::Host;
use super::spec::Propagation;
use crate::sys::mount;
use nix::sched::{CloneFlags, setns};
use rustix::fs::{Mode, OFlags};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Refuses a source whose mount does not do what is asked, in docker's words.
pub(super) fn check(path: &Path, propagation: Propagation) -> Setup<()> {
    let doing = || format!("bind {}", shown(path));
    let mounts = std::fs::read("/proc/self/mountinfo").doing(doing)?;
    let real = path.canonicalize().doing(doing)?;
    let Some((point, marks)) = mount_of(&mounts, &real) else {
        return Err(SetupError::new(doing(), format!("Can't find mount point of {}", shown(path))));
    };
    let has = |mark: &str| marks.iter().any(|found| found.starts_with(mark));
    let (fits, kind) = match propagation.shares() {
        true => (has("shared:"), "a shared mount"),
        false => (has("shared:") || has("master:"), "a shared or slave mount"),
    };
    if fits {
        return Ok(());
    }
    let why = format!("path {} is mounted on {} but it is not {kind}", shown(path), shown(&point));
    Err(SetupError::new(doing(), why))
}

/// Takes a directory of the machine so that mounts made below the copy are made below the original, too.
pub(super) fn shared(path: &Path, deep: bool, host: &Host) -> Setup<OwnedFd> {
    let doing = || format!("take {} as a shared mount source", shown(path));
    let Some(theirs) = &host.mounts else {
        const HINT: &str = "mounts of an ordinary user's container never reach the machine; rslave, the other way round, is available";
        check(path, Propagation::RShared).map_err(|e| e.hint(HINT))?;
        return Err(
            SetupError::new(doing(), "this process tells the machine nothing of its mounts").hint(HINT)
        );
    };
    let own = File::open("/proc/self/ns/mnt").doing(doing)?;
    setns(theirs, CloneFlags::CLONE_NEWNS).doing(doing)?;
    let taken = check(path, Propagation::RShared).and_then(|()| take(path, deep).doing(doing));
    setns(own, CloneFlags::CLONE_NEWNS).doing(doing)?;
    taken
}

fn take(path: &Path, deep: bool) -> io::Result<OwnedFd> {
    let node = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    mount::clone_tree(&node, deep)
}

fn shown(path: &Path) -> String {
    show(path.as_os_str().as_bytes())
}

/// Finds the mount that a path without links lies on, the uppermost of several, and its marks (proc_pid_mountinfo(5),
/// field 7).
fn mount_of(mounts: &[u8], path: &Path) -> Option<(PathBuf, Vec<String>)> {
    let mut found: Option<(PathBuf, Vec<String>)> = None;
    for line in mounts.split(|b| *b == b'\n') {
        let mut fields = line.split(|b| *b == b' ');
        let Some(point) = fields.nth(4).map(|field| PathBuf::from(unescape(field))) else { continue };
        if !path.starts_with(&point) {
            continue;
        }
        let longer = found.as_ref().is_none_or(|(best, _)| point.as_os_str().len() >= best.as_os_str().len());
        if longer {
            let marks = fields.skip(1).take_while(|field| *field != b"-");
            found = Some((point, marks.map(|mark| String::from_utf8_lossy(mark).into_owned()).collect()));
        }
    }
    found
}

/// Takes back the kernel's `\040` for a blank and the like.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, more)) = rest.split_first() {
        let octal = more
            .get(..3)
            .filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(digits) => {
                out.push(digits.iter().fold(0u8, |sum, digit| (sum << 3) | (digit - b'0')));
                rest = &more[3..];
            }
            None => {
                out.push(*first);
                rest = more;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        30 22 0:5 / /srv rw - tmpfs none rw\n\
        31 22 0:6 / /srv/a\\040b rw shared:7 master:3 - tmpfs none rw\n\
        32 31 0:7 / /srv/a\\040b rw master:3 - tmpfs none rw\n\
        33 22 0:8 / /srv2 rw unbindable - tmpfs none rw\n";

    #[test]
    fn the_mount_of_a_path_is_the_nearest_and_the_uppermost() {
        for (path, point, marks) in [
            ("/", "/", &["shared:1"][..]),
            ("/home/x", "/", &["shared:1"]),
            ("/srv/x", "/srv", &[]),
            ("/srv/a b/c", "/srv/a b", &["master:3"]),
            ("/srv2/x", "/srv2", &["unbindable"]),
            ("/srv3", "/", &["shared:1"]),
        ] {
            let (found, its) = mount_of(MOUNTS, Path::new(path)).unwrap();
            let its: Vec<&str> = its.iter().map(String::as_str).collect();
            assert_eq!((found.as_path(), its.as_slice()), (Path::new(point), marks), "{path}");
        }
        assert!(mount_of(b"", Path::new("/")).is_none());
        assert!(mount_of(b"\n \nx - y", Path::new("/")).is_none());
    }
}
