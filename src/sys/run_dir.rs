//! A user's directory for what lasts until the next reboot at most: locks, and marks of processes.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::libc;

/// Gives its path: in `$XDG_RUNTIME_DIR`, else in `/run/user/ID`, else in `/tmp`. The same inside the user's own user
/// namespace and outside of it.
pub fn path() -> PathBuf {
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let id = outer_id();
    let usual = || Some(PathBuf::from(format!("/run/user/{id}"))).filter(|dir| dir.is_dir());
    match given.or_else(usual) {
        Some(dir) => dir.join("rbuild"),
        None => PathBuf::from(format!("/tmp/rbuild-{id}")),
    }
}

/// Gives its path too, and makes it.
///
/// # Errors
/// It cannot be made, or belongs to somebody else or is open to others.
pub fn make() -> io::Result<PathBuf> {
    let path = path();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
    let found = std::fs::symlink_metadata(&path)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o022 != 0 {
        let why = format!("{} is not a directory of this user's alone", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(path)
}

/// Takes a lock on a file in it, which is made when it is not there; waits for those who hold it otherwise.
pub fn lock(path: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.custom_flags(libc::O_NOFOLLOW).open(path)?;
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(lock),
            Err((same, nix::Error::EINTR)) => file = same,
            Err((_, errno)) => return Err(errno.into()),
        }
    }
}

/// Finds the processes that have a file open, as their directories in `/proc`; those that may not be looked into are left
/// out.
pub fn holders(path: &Path) -> impl Iterator<Item = PathBuf> {
    let wanted = std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    processes.filter(move |process| {
        let files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let mut files = files.filter_map(|entry| std::fs::metadata(entry.path()).ok());
        wanted.is_some() && files.any(|file| Some((file.dev(), file.ino())) == wanted)
    })
}

/// The user's id as it is outside of the user namespace that this program enters: there the user is root.
fn outer_id() -> u32 {
    let own = rustix::process::geteuid();
    let outer = || {
        let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
        let mut first = map.split_whitespace();
        (first.next()? == "0").then(|| first.next()?.parse().ok())?
    };
    if own.is_root() { outer().unwrap_or(0) } else { own.as_raw() }
}
