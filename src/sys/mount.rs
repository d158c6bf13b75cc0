//! Mounts by descriptor (fsopen, open_tree, move_mount; Linux 5.12 for mount_setattr).
//!
//! A mount is made detached, gets its attributes, and is then attached to a descriptor of its place: no path is
//! resolved twice, and no option can hide in a path since each is passed on its own.

use nix::libc;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use rustix::mount::{
    self, FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string,
};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The attributes of a mount that holds nothing to run, no devices, no privileges.
pub const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A file system being configured.
#[derive(Debug)]
pub struct NewFs(OwnedFd);

impl NewFs {
    /// Begins a file system of a type (`tmpfs`, `overlay`, `proc`).
    pub fn open(kind: &str) -> io::Result<Self> {
        let fs = Self(mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?);
        // what `df` and /proc/mounts show in their first column; a kernel that minds shows "none"
        let _ = fs.set("source", kind);
        Ok(fs)
    }

    /// Sets an option with a value; at most 255 bytes of value.
    pub fn set(&self, key: &str, value: impl rustix::path::Arg) -> io::Result<&Self> {
        fsconfig_set_string(&self.0, key, value)?;
        Ok(self)
    }

    /// Sets an option without value.
    pub fn flag(&self, key: &str) -> io::Result<&Self> {
        fsconfig_set_flag(&self.0, key)?;
        Ok(self)
    }

    /// Sets an option to an open file.
    pub fn set_fd(&self, key: &str, value: impl AsFd) -> io::Result<&Self> {
        fsconfig_set_fd(&self.0, key, value)?;
        Ok(self)
    }

    /// Makes the file system and a detached mount of it.
    pub fn mount(self, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
        fsconfig_create(&self.0).map_err(|e| self.explain(e))?;
        Ok(mount::fsmount(&self.0, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
    }

    /// Adds what the kernel has noted about the failure (`e overlay: ...`).
    fn explain(&self, errno: Errno) -> io::Error {
        let mut note = [0u8; 512];
        match rustix::io::read(&self.0, &mut note) {
            Ok(n) if n > 2 => {
                let text = String::from_utf8_lossy(&note[..n]);
                let text = text.trim_end().trim_start_matches("e ").to_owned();
                io::Error::new(io::Error::from(errno).kind(), Explained { errno, text })
            }
            _ => errno.into(),
        }
    }
}

/// An error number with the kernel's own words.
#[derive(Debug, thiserror::Error)]
#[error("{} ({text})", io::Error::from(*errno))]
pub struct Explained {
    /// The number.
    pub errno: Errno,
    /// What the file system said.
    pub text: String,
}

/// Copies the mount that `node` stands on, with `node` as its root, detached; `recursive` takes the mounts below too.
pub fn clone_tree(node: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(mount::open_tree(node, "", flags)?)
}

/// Attaches a detached mount at `place`. A mount on a link lands on the link: callers resolve first.
pub fn attach(mount: impl AsFd, place: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(mount::move_mount(mount, "", place, "", flags)?)
}

/// Adds attributes to a mount, attached or not; `recursive` does so to all mounts below too.
pub fn add_attributes(mount: impl AsFd, add: MountAttrFlags, recursive: bool) -> io::Result<()> {
    set_attr(mount.as_fd(), MountAttr { set: u64::from(add.bits()), ..MountAttr::default() }, recursive)
}

/// Takes attributes away from a mount, not from those below it.
pub fn clear_attributes(mount: impl AsFd, clear: MountAttrFlags) -> io::Result<()> {
    set_attr(mount.as_fd(), MountAttr { clear: u64::from(clear.bits()), ..MountAttr::default() }, false)
}

/// Cuts a mount and all below it off from events of its origin.
pub fn make_private(mount: impl AsFd, recursive: bool) -> io::Result<()> {
    set_attr(mount.as_fd(), MountAttr { propagation: libc::MS_PRIVATE, ..MountAttr::default() }, recursive)
}

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

fn set_attr(mount: BorrowedFd<'_>, attr: MountAttr, recursive: bool) -> io::Result<()> {
    const AT_RECURSIVE: libc::c_uint = 0x8000;
    let flags = AtFlags::EMPTY_PATH.bits() | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated empty string, `attr` lives through the call and has the size given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One `mount(2)` call for what the newer calls cannot do on an older kernel. `target` is trusted.
pub fn mount_old(kind: &str, target: &str, options: &str) -> io::Result<()> {
    let options = CString::new(options).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(mount::mount(kind, target, kind, mount::MountFlags::empty(), Some(options.as_c_str()))?)
}
