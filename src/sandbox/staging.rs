//! A memory file system, visible only in the sandbox's own mount namespace and gone with the old root, on which trees
//! are attached before they get to their place: many operations want an attached mount.
//!
//! It also holds the files that the engine supplies (secrets, `resolv.conf`), each of which is then mounted on its own.

use crate::sys::mount::{self, NewFs};
use rustix::fs::{self, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::MountAttrFlags;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Every Linux root has one of these. All paths of the host have been opened before the chosen one is covered.
const PLACES: [&str; 4] = ["/sys", "/tmp", "/mnt", "/dev"];

/// Opens a directory of the host that may be covered.
pub(super) fn find_place() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut last = rustix::io::Errno::NOENT;
    for place in PLACES {
        match fs::open(place, flags, Mode::empty()) {
            Ok(fd) => return Ok(fd),
            Err(e) => last = e,
        }
    }
    Err(last.into())
}

/// The file system and the number of names given out.
#[derive(Debug)]
pub(super) struct Staging {
    mount: OwnedFd,
    names: u32,
}

impl Staging {
    /// Covers a directory of the host; from now on no path of the host may be opened.
    pub(super) fn cover_host() -> io::Result<Self> {
        // The files may be scripts to run, and the sandbox's own device nodes lie here; the mode keeps everybody but root
        // from the directory itself, which is out of reach once the root has changed.
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID;
        let fs = NewFs::open("tmpfs")?;
        fs.set("mode", "0700")?;
        let mount = fs.mount(attributes)?;
        mount::attach(&mount, find_place()?)?;
        Ok(Self { mount, names: 0 })
    }

    fn name(&mut self) -> String {
        self.names += 1;
        self.names.to_string()
    }

    /// Attaches a detached mount somewhere.
    pub(super) fn attach(&mut self, tree: impl AsFd) -> io::Result<()> {
        let name = self.name();
        if FileType::from_raw_mode(fs::fstat(&tree)?.st_mode) == FileType::Directory {
            fs::mkdirat(&self.mount, &name, Mode::RWXU)?;
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            drop(fs::openat(&self.mount, &name, flags, Mode::RUSR)?);
        }
        let place = fs::openat(&self.mount, &name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        mount::attach(tree, place)
    }

    /// Makes a character device that everybody may use.
    pub(super) fn node(&mut self, major: u32, minor: u32) -> io::Result<OwnedFd> {
        let (name, mode) = (self.name(), Mode::from_raw_mode(0o666));
        fs::mknodat(&self.mount, &name, FileType::CharacterDevice, mode, fs::makedev(major, minor))?;
        // the umask had its say
        fs::chmodat(&self.mount, &name, mode, fs::AtFlags::empty())?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(fs::openat(&self.mount, &name, flags, Mode::empty())?)
    }

    /// Tries to open a device that is not there, by a node of its own, and gives what the kernel says.
    pub(super) fn try_device(
        &mut self,
        kind: FileType,
        major: u32,
        minor: u32,
    ) -> Result<(), rustix::io::Errno> {
        let (name, mode) = (self.name(), Mode::RUSR | Mode::WUSR);
        fs::mknodat(&self.mount, &name, kind, mode, fs::makedev(major, minor))?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let said = fs::openat(&self.mount, &name, flags, Mode::empty()).map(drop);
        fs::unlinkat(&self.mount, &name, fs::AtFlags::empty())?;
        said
    }

    /// Makes a file and gives a detached mount of it.
    pub(super) fn file(&mut self, content: &[u8], mode: u32, uid: u32, gid: u32) -> io::Result<OwnedFd> {
        let name = self.name();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(&self.mount, &name, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(content)?;
        if (uid, gid) != (0, 0) {
            fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
        let node = fs::openat(&self.mount, &name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let tree = mount::clone_tree(node, false)?;
        mount::add_attributes(&tree, MountAttrFlags::MOUNT_ATTR_NODEV, false)?;
        Ok(tree)
    }
}
