//! The root file system as a detached mount: overlay, read-only overlay or a plain directory.
//!
//! Nothing on a device node in there can be opened (nodev): the sandbox has its own `/dev`, and root inside may make
//! nodes but must not reach the machine's disks through them. Only where a [gate](super::devices) guards the devices is
//! that taken back.

use super::error::{Doing, Setup, SetupError, show};
use super::host::Host;
use super::spec::Rootfs;
use crate::sys::mount::{self, NewFs};
use nix::libc;
use rustix::fs::{self, Mode, OFlags};
use rustix::mount::MountAttrFlags;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The kernel's limit of lower layers (OVL_MAX_STACK).
const MAX_LAYERS: usize = 500;

/// Longest value of one mount option is 255 bytes.
const MAX_OPTION: usize = 250;

const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;

/// Where an overlay's changes go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writable<'a> {
    pub upper: &'a Path,
    pub work: &'a Path,
    pub volatile: bool,
}

/// A root that is ready to be attached.
#[derive(Debug)]
pub(super) struct Root {
    pub mount: OwnedFd,
    /// The directory that takes the changes, when it is another one than the root.
    pub upper: Option<OwnedFd>,
}

/// Mounts a root, detached.
pub(super) fn open(rootfs: &Rootfs, devices: bool, host: &Host) -> Setup<Root> {
    let attributes = if devices { MountAttrFlags::empty() } else { NODEV };
    match rootfs {
        // Without layers below, the diff is the whole tree.
        Rootfs::Overlay { lowers, upper, .. } if lowers.is_empty() => {
            Ok(Root { mount: bind(upper, attributes)?, upper: None })
        }
        Rootfs::Overlay { lowers, upper, work, volatile } => {
            let to = Writable { upper, work, volatile: *volatile };
            let dir = open_dir(upper)?;
            Ok(Root { mount: overlay(lowers, Some(to), attributes, host)?, upper: Some(dir) })
        }
        Rootfs::ReadOnlyOverlay { lowers } => Ok(Root { mount: layers(lowers, host)?, upper: None }),
        Rootfs::Dir(dir) => Ok(Root { mount: bind(dir, attributes)?, upper: None }),
    }
}

/// Mounts a root file system for this process alone, attached nowhere: it goes with the descriptor.
pub fn open_rootfs(rootfs: &Rootfs) -> Result<OwnedFd, super::SandboxError> {
    let mount = || open(rootfs, false, &Host::look()).map(|root| root.mount);
    let mounted = if knows_single_layers() { mount() } else { apart(mount) };
    mounted.map_err(super::SandboxError::Setup)
}

/// Calls `mount` in a mount namespace of its own, so that a place it covers for a moment is covered for nobody else.
fn apart(mount: impl FnOnce() -> Setup<OwnedFd> + Send) -> Setup<OwnedFd> {
    let leave = || -> io::Result<()> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
        let downstream =
            rustix::mount::MountPropagationFlags::DOWNSTREAM | rustix::mount::MountPropagationFlags::REC;
        Ok(rustix::mount::mount_change("/", downstream)?)
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            leave().doing(|| "make a mount namespace".into())?;
            mount()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes an overlay the way that this kernel wants it, and lets go of it.
pub(super) fn try_overlay(lower: &Path, upper: &Path, work: &Path) -> io::Result<()> {
    let (lowers, to) = ([lower.to_owned()], Writable { upper, work, volatile: false });
    by_any_way(&lowers, Some(to), mount::INERT, &Host::look()).map(drop)
}

/// Mounts a stack of layers read-only, detached.
pub(super) fn layers(lowers: &[PathBuf], host: &Host) -> Setup<OwnedFd> {
    let attributes = NODEV | MountAttrFlags::MOUNT_ATTR_RDONLY;
    match lowers {
        [] => NewFs::open("tmpfs").and_then(|fs| fs.mount(attributes)).doing(|| "mount an empty root".into()),
        // An overlay has at least two layers.
        [only] => bind(only, attributes),
        _ => overlay(lowers, None, attributes, host),
    }
}

fn bind(dir: &Path, attributes: MountAttrFlags) -> Setup<OwnedFd> {
    let doing = || format!("mount the directory {}", show(dir.as_os_str().as_bytes()));
    let mount = mount::clone_tree(open_dir(dir)?, true).doing(doing)?;
    if !attributes.is_empty() {
        mount::add_attributes(&mount, attributes, true).doing(doing)?;
    }
    Ok(mount)
}

fn open_dir(dir: &Path) -> Setup<OwnedFd> {
    fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open the directory {}", show(dir.as_os_str().as_bytes())))
}

/// Mounts an overlay, detached.
pub(super) fn overlay(
    lowers: &[PathBuf],
    to: Option<Writable<'_>>,
    attributes: MountAttrFlags,
    host: &Host,
) -> Setup<OwnedFd> {
    if lowers.len() > MAX_LAYERS {
        let why = format!("{} layers are more than the {MAX_LAYERS} that overlayfs can stack", lowers.len());
        return Err(SetupError::new("mount the layers", why).hint("squash the image or join RUN lines"));
    }
    if let Some(to) = to.filter(|to| to.volatile) {
        // What an earlier volatile mount leaves to stop the next one: its upper directory may have lost files in a
        // power cut. Who asks for a volatile mount again has accepted that.
        let mark = to.work.join("work/incompat/volatile");
        let _ = fs::unlink(mark.join("dirty"));
        let _ = fs::rmdir(mark);
    }
    by_any_way(lowers, to, attributes, host)
        .doing(|| match to {
            Some(to) => {
                format!("mount {} layers below {}", lowers.len(), show(to.upper.as_os_str().as_bytes()))
            }
            None => format!("mount {} layers", lowers.len()),
        })
        .map_err(overlay_hint)
}

fn by_any_way(
    lowers: &[PathBuf],
    to: Option<Writable<'_>>,
    attributes: MountAttrFlags,
    host: &Host,
) -> io::Result<OwnedFd> {
    // asked before, since Linux before 6.5 writes what it does not understand into its log
    if knows_single_layers() {
        by_options(lowers, to, attributes, host)
    } else {
        by_short_names(lowers, to, attributes, host)
    }
}

fn overlay_hint(error: SetupError) -> SetupError {
    match error.errno {
        Some(libc::EINVAL) => error.hint(
            "overlayfs cannot stand on another overlayfs or on a network file system: put the store on a local disk \
             or a volume with --root",
        ),
        Some(libc::EPERM) => error.hint("overlayfs in a user namespace needs Linux 5.11 or newer"),
        Some(libc::ENODEV) => error.hint("this kernel has no overlayfs: `modprobe overlay`"),
        Some(libc::EBUSY) => error.hint("another sandbox uses the same upper or work directory"),
        _ => error,
    }
}

/// One option a layer: nothing to escape, no limit of 4 KiB.
fn by_options(
    lowers: &[PathBuf],
    to: Option<Writable<'_>>,
    attributes: MountAttrFlags,
    host: &Host,
) -> io::Result<OwnedFd> {
    let fs = NewFs::open("overlay")?;
    let mut held = Vec::new();
    for lower in lowers {
        fs.set("lowerdir+", option_path(lower, &mut held)?)?;
    }
    if let Some(to) = to {
        fs.set("upperdir", option_path(to.upper, &mut held)?)?;
        fs.set("workdir", option_path(to.work, &mut held)?)?;
    }
    for (key, value) in OFF {
        // A kernel that lacks the feature refuses to switch it off.
        let _ = fs.set(key, *value);
    }
    if host.in_userns {
        fs.flag("userxattr")?;
    }
    if to.is_some_and(|to| to.volatile) {
        let _ = fs.flag("volatile");
    }
    fs.mount(attributes)
}

/// Features that would make the upper directory more than a plain diff. `redirect_dir=off` would still follow redirects
/// that a layer brings along, which user namespaces refuse.
const OFF: &[(&str, &str)] =
    &[("index", "off"), ("metacopy", "off"), ("redirect_dir", "nofollow"), ("xino", "off")];

/// Gives a path that the option parser takes as it is: long ones and those with special characters go by descriptor.
fn option_path(path: &Path, held: &mut Vec<OwnedFd>) -> io::Result<Vec<u8>> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() <= MAX_OPTION && path.is_absolute() && !bytes.iter().any(|b| b"\\,:".contains(b)) {
        return Ok(bytes.to_vec());
    }
    let dir = fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let name = format!("/proc/self/fd/{}", dir.as_raw_fd()).into_bytes();
    held.push(dir);
    Ok(name)
}

/// Before Linux 6.5 options are only collected, so every word is accepted until the mount is made; from then on unknown
/// ones are refused, and from 6.7 on this one is known.
fn knows_single_layers() -> bool {
    static KNOWS: OnceLock<bool> = OnceLock::new();
    *KNOWS.get_or_init(|| {
        NewFs::open("overlay")
            .is_ok_and(|fs| fs.set("lowerdir+", "/").is_ok() && fs.set("rbuild-knows", "/").is_err())
    })
}

/// All layers in one option, each by the number of its descriptor, so that hundreds fit into 4 KiB.
fn by_short_names(
    lowers: &[PathBuf],
    to: Option<Writable<'_>>,
    attributes: MountAttrFlags,
    host: &Host,
) -> io::Result<OwnedFd> {
    let open =
        |path: &Path| fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let held = lowers.iter().map(|lower| open(lower)).collect::<rustix::io::Result<Vec<_>>>()?;
    let mut options = String::from("lowerdir=");
    for (at, dir) in held.iter().enumerate() {
        let _ = write!(options, "{}{}", if at == 0 { "" } else { ":" }, dir.as_raw_fd());
    }
    let mut writable = Vec::new();
    if let Some(to) = to {
        writable = vec![open(to.upper)?, open(to.work)?];
        let _ = write!(options, ",upperdir={},workdir={}", writable[0].as_raw_fd(), writable[1].as_raw_fd());
        if to.volatile {
            options.push_str(",volatile");
        }
    }
    options.push_str(",index=off,redirect_dir=nofollow");
    if host.in_userns {
        options.push_str(",userxattr");
    }
    let result = mount_over_scratch(&options, attributes);
    drop((held, writable));
    result
}

/// mount(2) needs a place: a memory file system of our own, gone again when its last descriptor is closed.
fn mount_over_scratch(options: &str, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let back = fs::open(".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let place = super::staging::find_place()?;
    let scratch = NewFs::open("tmpfs")?.mount(mount::INERT)?;
    mount::attach(&scratch, &place)?;
    let result = (|| {
        fs::mkdirat(&scratch, "m", Mode::RWXU)?;
        rustix::process::chdir("/proc/self/fd")?;
        mount::mount_old("overlay", &format!("{}/m", scratch.as_raw_fd()), options)?;
        let top = fs::openat(&scratch, "m", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let mount = mount::clone_tree(&top, false)?;
        mount::add_attributes(&mount, attributes, false)?;
        Ok(mount)
    })();
    rustix::process::fchdir(&back)?;
    detach(scratch.as_fd())?;
    result
}

fn detach(mount: BorrowedFd<'_>) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    Ok(rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs in a mount namespace of a thread of its own.
    fn apart(work: impl FnOnce() + Send + 'static) {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return;
        }
        let thread = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let private =
                rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            work();
        });
        thread.join().unwrap();
    }

    fn stack(dir: &Path, count: usize) -> Vec<PathBuf> {
        let long = "a,b:c\\".repeat(40);
        (0..count)
            .map(|n| {
                let layer = dir.join(format!("{long}{n}"));
                std::fs::create_dir(&layer).unwrap();
                std::fs::write(layer.join(format!("file{n}")), "").unwrap();
                layer
            })
            .collect()
    }

    type Way = fn(&[PathBuf], Option<Writable<'_>>, MountAttrFlags, &Host) -> io::Result<OwnedFd>;

    #[test]
    fn both_ways_stack_hundreds_of_layers_with_odd_names() {
        apart(|| {
            let mut ways = vec![by_short_names as Way];
            // before Linux 6.7 there is only one
            ways.extend(knows_single_layers().then_some(by_options as Way));
            for way in ways {
                let dir = tempfile::tempdir().unwrap();
                let lowers = stack(dir.path(), 300);
                let (upper, work) = (dir.path().join("up"), dir.path().join("wo"));
                std::fs::create_dir(&upper).unwrap();
                std::fs::create_dir(&work).unwrap();
                let to = Writable { upper: &upper, work: &work, volatile: true };
                let mount = way(&lowers, Some(to), NODEV, &Host::look()).unwrap();
                for n in [0, 150, 299] {
                    assert!(fs::openat(&mount, format!("file{n}"), OFlags::PATH, Mode::empty()).is_ok());
                }
                fs::mkdirat(&mount, "new", Mode::RWXU).unwrap();
                assert!(upper.join("new").is_dir());
            }
        });
    }

    #[test]
    fn a_mount_that_fails_says_why() {
        apart(|| {
            let missing = [PathBuf::from("/nonexistent/a"), PathBuf::from("/nonexistent/b")];
            let error = overlay(&missing, None, NODEV, &Host::look()).unwrap_err();
            assert_eq!(error.errno, Some(libc::ENOENT), "{error}");
            assert!(error.to_string().contains("2 layers"), "{error}");
        });
    }
}
