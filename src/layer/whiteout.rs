//! The two spellings of "what is below is gone": overlayfs's on disk, the OCI image-spec's in a tar.

use crate::sys::{file, fsutil};
use rustix::fs::FileType;
use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;

/// Prefix of a deleted name in a layer (layer.md, "Whiteouts").
pub(super) const PREFIX: &[u8] = b".wh.";
/// Marks a directory that hides what lower layers hold in it (layer.md, "Opaque Whiteout").
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names that aufs used for itself; never content.
pub(super) const AUFS: &[u8] = b".wh..wh.";

/// What an xattr means to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sense {
    /// Content of the image.
    Keep,
    /// overlayfs: the directory is opaque.
    Opaque,
    /// overlayfs: the file is a whiteout.
    Whiteout,
    /// overlayfs, with features on that we never mount with: what is here is not the whole truth.
    Foreign,
    /// The host's own business.
    Drop,
}

/// Tells what an xattr of a file in an upper directory means.
///
/// Kept are capabilities, users' own attributes and ACLs: what a process in the container can set and another host
/// can use. SELinux labels, IMA hashes and `trusted.*` belong to the host.
pub(super) fn sense(name: &[u8], value: &[u8]) -> Sense {
    let overlay = name.strip_prefix(b"trusted.overlay.").or_else(|| name.strip_prefix(b"user.overlay."));
    match (overlay, name) {
        // "x" says that the directory holds whiteouts in the form of xattrs
        (Some(b"opaque"), _) if value == b"x" => Sense::Drop,
        (Some(b"opaque"), _) => Sense::Opaque,
        (Some(b"whiteout"), _) => Sense::Whiteout,
        (Some(b"redirect" | b"metacopy"), _) => Sense::Foreign,
        (Some(_), _) => Sense::Drop,
        (None, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default") => {
            Sense::Keep
        }
        (None, name) if name.starts_with(b"user.") => Sense::Keep,
        _ => Sense::Drop,
    }
}

/// Makes a whiteout in overlayfs's form. Unprivileged users may make this one device too.
pub fn make_whiteout(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    file::mknod_at(dir, name, FileType::CharacterDevice, 0, 0, 0)
}

/// Marks an open directory as opaque for overlayfs.
pub fn mark_opaque(dir: BorrowedFd<'_>, userxattr: bool) -> io::Result<()> {
    let name = if userxattr { "user.overlay.opaque" } else { "trusted.overlay.opaque" };
    fsutil::set_xattr(dir, OsStr::new(name), b"y")
}
