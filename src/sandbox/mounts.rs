//! The mounts that a spec asks for: sources are opened while the host's paths can be reached, then each gets to its
//! place inside the new root.

use super::error::{Doing, Setup, SetupError, show};
use super::host::Host;
use super::propagation;
use super::rootfs::{self, Writable};
use super::spec::{BindOptions, MountKind, MountSpec, Source, TmpfsOptions};
use super::staging::Staging;
use super::stubs::Point;
use crate::sys::file::copy_contents;
use crate::sys::inroot::open_in_root;
use crate::sys::mount::{self, NewFs};
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::mount::MountAttrFlags;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A mount whose source is open.
#[derive(Debug)]
pub(super) struct Opened<'a> {
    spec: &'a MountSpec,
    source: Option<Tree>,
}

#[derive(Debug)]
enum Tree {
    /// A detached copy of the source's mount, rooted at the source.
    Ready(OwnedFd),
    /// A detached mount of layers; the source is the path in it.
    Layers(OwnedFd),
}

/// Opens what a mount shows. No path of the host is needed afterwards.
pub(super) fn open<'a>(spec: &'a MountSpec, host: &Host) -> Setup<Opened<'a>> {
    let source = match &spec.kind {
        MountKind::Bind(source) | MountKind::Discard { source, .. } => Some(open_source(source, host)?),
        MountKind::Tmpfs { .. } | MountKind::TmpfsWith(_) | MountKind::File { .. } => None,
    };
    Ok(Opened { spec, source })
}

fn open_source(source: &Source, host: &Host) -> Setup<Tree> {
    let tree = |node: OwnedFd, what: &Path| {
        mount::clone_tree(&node, true)
            .map(Tree::Ready)
            .doing(|| format!("take {} as a mount source", show(what.as_os_str().as_bytes())))
    };
    match source {
        Source::InDir { root, path } => {
            let dir = fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .doing(|| format!("open the mount source {}", show(root.as_os_str().as_bytes())))?;
            let node = open_inside(&dir, path)?;
            tree(node, root)
        }
        Source::InLayers { lowers, .. } => rootfs::layers(lowers, host).map(Tree::Layers),
        Source::Host(path) => of_host(path, BindOptions::default(), host),
        Source::HostWith(path, options) => of_host(path, *options, host),
        Source::Fd(fd) => {
            let node =
                fd.as_fd().try_clone_to_owned().doing(|| "take a descriptor as a mount source".into())?;
            tree(node, Path::new("a descriptor"))
        }
    }
}

fn of_host(path: &Path, options: BindOptions, host: &Host) -> Setup<Tree> {
    let shown = || show(path.as_os_str().as_bytes());
    if options.propagation.shares() {
        return propagation::shared(path, !options.alone, host).map(Tree::Ready);
    }
    if options.propagation.follows() {
        propagation::check(path, options.propagation)?;
    }
    let node = fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open the bind source path {}", shown()))?;
    let taken = mount::clone_tree(&node, !options.alone).and_then(|tree| {
        // it hears of the host's mounts until it is told not to; it never tells the host of its own
        if !options.propagation.follows() {
            mount::make_private(&tree, true)?;
        }
        Ok(Tree::Ready(tree))
    });
    taken.doing(|| format!("take {} as a mount source", shown()))
}

fn open_inside(root: &OwnedFd, path: &[u8]) -> Setup<OwnedFd> {
    open_in_root(root, std::ffi::OsStr::from_bytes(path), OFlags::PATH, Mode::empty())
        .doing(|| format!("open the mount source {:?}", show(path)))
}

impl Opened<'_> {
    /// Sorts parents before what lies below them; equal targets keep their order.
    pub(super) fn depth(&self) -> usize {
        self.spec.target.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").count()
    }

    pub(super) fn target(&self) -> &[u8] {
        &self.spec.target
    }

    /// Whether the root of the mount gets the mode of the directory that it covers, if the image has one there.
    pub(super) fn takes_the_look_of_its_place(&self) -> bool {
        matches!(self.spec.kind, MountKind::Tmpfs { mode: None, .. })
    }

    /// Makes the detached mount with its attributes and says what kind of mount point it needs.
    pub(super) fn build(self, staging: &mut Staging, host: &Host, devices: bool) -> Setup<(OwnedFd, Point)> {
        let target = show(&self.spec.target);
        let (tree, mut attributes) = match (&self.spec.kind, self.source) {
            (MountKind::Bind(source), Some(tree)) => {
                let tree = resolve(tree, source, staging)?;
                // A device node that the user named is wanted as such.
                let named = matches!(source, Source::Host(_) | Source::HostWith(..) | Source::Fd(_))
                    && is_device(&tree);
                (
                    tree,
                    if devices || named { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_NODEV },
                )
            }
            (MountKind::Discard { source, scratch }, Some(tree)) => {
                let tree = resolve(tree, source, staging)?;
                let tree = if self.spec.readonly {
                    tree
                } else {
                    discarding(tree, scratch.as_deref(), staging, host)?
                };
                (tree, if devices { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_NODEV })
            }
            (MountKind::Tmpfs { size, mode }, _) => (tmpfs(*size, *mode)?, MountAttrFlags::empty()),
            (MountKind::TmpfsWith(options), _) => (tmpfs_with(options)?, MountAttrFlags::empty()),
            (MountKind::File { content, mode, uid, gid }, _) => {
                let file =
                    staging.file(content, *mode, *uid, *gid).doing(|| format!("make the file for {target}"));
                let file = file.map_err(|e| match e.errno {
                    Some(nix::libc::EINVAL) => {
                        e.hint(format!("owner {uid}:{gid} is outside the ids of this user"))
                    }
                    _ => e,
                })?;
                (file, MountAttrFlags::empty())
            }
            (MountKind::Bind(_) | MountKind::Discard { .. }, None) => {
                return Err(SetupError::new(format!("mount {target}"), "its source was not opened"));
            }
        };
        let shallow = matches!(&self.spec.kind,
            MountKind::Bind(Source::HostWith(_, options)) if options.shallow && self.spec.readonly);
        if shallow {
            mount::add_attributes(&tree, MountAttrFlags::MOUNT_ATTR_RDONLY, false)
                .doing(|| format!("make {target} read-only"))?;
        }
        attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, self.spec.readonly && !shallow);
        if !attributes.is_empty() {
            mount::add_attributes(&tree, attributes, true)
                .doing(|| format!("set the mount options of {target}"))?;
        }
        let point = if kind(&tree) == FileType::Directory { Point::Dir } else { Point::File };
        Ok((tree, point))
    }
}

/// Gives the root of a detached mount the mode of the directory that it is about to cover.
pub(super) fn look_like(tree: &OwnedFd, place: &OwnedFd) -> std::io::Result<()> {
    let mode = fs::fstat(place)?.st_mode & 0o7777;
    Ok(fs::chmod(by_fd(tree), Mode::from_raw_mode(mode))?)
}

fn kind(node: &OwnedFd) -> FileType {
    fs::fstat(node).map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
}

fn is_device(node: &OwnedFd) -> bool {
    matches!(kind(node), FileType::CharacterDevice | FileType::BlockDevice)
}

fn resolve(tree: Tree, source: &Source, staging: &mut Staging) -> Setup<OwnedFd> {
    match (tree, source) {
        (Tree::Ready(tree), _) => Ok(tree),
        (Tree::Layers(mount), Source::InLayers { path, .. }) => {
            staging.attach(&mount).doing(|| "attach the layers of a mount source".into())?;
            let node = open_inside(&mount, path)?;
            mount::clone_tree(node, false).doing(|| format!("take {:?} as a mount source", show(path)))
        }
        (Tree::Layers(mount), _) => Ok(mount),
    }
}

/// Lets writes go to a throw-away place.
fn discarding(tree: OwnedFd, scratch: Option<&Path>, staging: &mut Staging, host: &Host) -> Setup<OwnedFd> {
    let doing = || "make a throw-away copy for a writable bind mount".to_owned();
    staging.attach(&tree).doing(doing)?;
    if kind(&tree) != FileType::Directory {
        return copied(&tree, staging);
    }
    let memory;
    let base = match scratch {
        Some(dir) => dir.to_owned(),
        None => {
            memory = tmpfs(None, Some(0o700))?;
            staging.attach(&memory).doing(doing)?;
            by_fd(&memory)
        }
    };
    let (upper, work) = (base.join("upper"), base.join("work"));
    for dir in [&upper, &work] {
        match fs::mkdir(dir, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e).doing(doing),
        }
    }
    // The root of what is seen keeps the look of the source.
    let look = fs::fstat(&tree).doing(doing)?;
    let _ = fs::chown(&upper, Some(fs::Uid::from_raw(look.st_uid)), Some(fs::Gid::from_raw(look.st_gid)));
    fs::chmod(&upper, Mode::from_raw_mode(look.st_mode & 0o7777)).doing(doing)?;
    let to = Writable { upper: &upper, work: &work, volatile: true };
    rootfs::overlay(&[by_fd(&tree)], Some(to), MountAttrFlags::empty(), host).map_err(|e| {
        if scratch.is_none() { e.hint("memory may lack attributes here (Linux before 6.6)") } else { e }
    })
}

fn by_fd(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn copied(file: &OwnedFd, staging: &mut Staging) -> Setup<OwnedFd> {
    let doing = || "copy a file for a writable bind mount".to_owned();
    if kind(file) != FileType::RegularFile {
        return Err(SetupError::new(doing(), "only files and directories can be mounted writable"));
    }
    let look = fs::fstat(file).doing(doing)?;
    let mut content = Vec::new();
    // Reopened by descriptor: it was opened as a mere place.
    let source = File::open(by_fd(file)).doing(doing)?;
    if look.st_size < 1 << 20 {
        (&source).read_to_end(&mut content).doing(doing)?;
        return staging.file(&content, look.st_mode, look.st_uid, look.st_gid).doing(doing);
    }
    let copy = staging.file(&[], look.st_mode, look.st_uid, look.st_gid).doing(doing)?;
    let to = fs::open(by_fd(&copy), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).doing(doing)?;
    copy_contents(&source, &File::from(to), look.st_size as u64).doing(doing)?;
    Ok(copy)
}

fn tmpfs(size: Option<u64>, mode: Option<u32>) -> Setup<OwnedFd> {
    tmpfs_with(&TmpfsOptions { size, mode, exec: true, ..TmpfsOptions::default() })
}

fn tmpfs_with(options: &TmpfsOptions) -> Setup<OwnedFd> {
    let make = || {
        let fs = NewFs::open("tmpfs")?;
        fs.set("mode", format!("{:o}", options.mode.unwrap_or(0o1777)))?;
        if let Some(size) = options.size {
            fs.set("size", size.to_string())?;
        }
        if (options.uid, options.gid) != (0, 0) {
            fs.set("uid", options.uid.to_string())?;
            fs.set("gid", options.gid.to_string())?;
        }
        let mut attributes = MountAttrFlags::empty();
        attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, !options.exec);
        attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, !options.suid);
        attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, !options.dev);
        fs.mount(attributes)
    };
    make().doing(|| "mount a memory file system".into())
}
