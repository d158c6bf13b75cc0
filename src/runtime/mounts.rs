//! From the mounts that are asked for, and those of the image, to what the sandbox mounts: directories are made, volumes
//! found and filled.
//!
//! A volume is `volumes/<name>/_data` of the store; an anonymous one has 64 hexadecimal digits for a name. A new one is filled aside and gets its place by rename, so that
//! a kill leaves it whole or not there.

use super::record::{MountPoint, MountSource, image_tops};
use super::seed::seed;
use super::volume::{VolumeExtra, VolumeName, VolumeRequest, VolumeSource};
use super::volumes::Volumes;
use super::{ContainerId, RunError};
use crate::fault;
use crate::sandbox::{MountKind, MountSpec, Source};
use crate::snapshot::{Snapshot, Snapshots};
use crate::store::{LockKind, Store};
use crate::sys::fsutil;
use crate::tree::TreePath;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Where volumes come from and what they start with.
struct Maker<'a> {
    store: &'a Store,
    image: &'a Snapshot,
    made: Vec<MountPoint>,
}

/// Finds and makes what the command line asks for, and an anonymous volume for each of the image's own that it does not
/// cover. What was made for a container that then does not come to be is removed again.
pub(super) fn prepare(
    requests: &[VolumeRequest],
    inherited: Vec<MountPoint>,
    of_image: &[Vec<u8>],
    image: &Snapshot,
    store: &Store,
) -> Result<Vec<MountPoint>, RunError> {
    let mut all = requests.to_vec();
    for path in of_image {
        let clean = TreePath::clean(path);
        let target = [b"/", clean.as_bytes()].concat();
        // an image may hold anything; its root is a volume to nobody
        let covered = all.iter().any(|r| r.target == target) || inherited.iter().any(|m| m.target == target);
        if !clean.is_root() && !path.contains(&0) && !covered {
            all.push(VolumeRequest {
                target,
                source: VolumeSource::Anonymous { seed: true, extra: VolumeExtra::default() },
                readonly: false,
            });
        }
    }
    for (n, request) in all.iter().enumerate() {
        if all[..n].iter().any(|before| before.target == request.target) {
            return Err(RunError::mount(&request.target, "duplicate mount point"));
        }
    }
    let mut maker = Maker { store, image, made: Vec::new() };
    for request in &all {
        match maker.source(request) {
            Ok(source) => {
                let (target, readonly) = (request.target.clone(), request.readonly);
                maker.made.push(MountPoint { target, source, readonly });
            }
            Err(error) => {
                remove_anonymous(store, &maker.made);
                return Err(error);
            }
        }
    }
    let mut made = maker.made;
    made.extend(inherited.into_iter().filter(|mount| requests.iter().all(|r| r.target != mount.target)));
    Ok(made)
}

/// Turns the mounts of a container into what the sandbox mounts.
///
/// # Errors
/// A directory of the host or a volume is missing.
pub(super) fn specs(
    mounts: &[MountPoint],
    store: &Store,
    snapshots: &Snapshots,
) -> Result<Vec<MountSpec>, RunError> {
    let spec = |mount: &MountPoint| {
        let kind = match &mount.source {
            MountSource::Bind { path, create, options } => {
                host_dir(path, *create).map_err(|why| RunError::mount(&mount.target, why))?;
                MountKind::Bind(Source::HostWith(path.clone(), *options))
            }
            MountSource::Volume { name, subpath, .. } => Volumes::new(store).mount(name, subpath)?,
            MountSource::Tmpfs(options) => MountKind::TmpfsWith(*options),
            MountSource::Image { image, subpath, .. } => {
                let lowers = snapshots.get(&image.top)?.lowers.clone();
                MountKind::Bind(Source::InLayers { lowers, path: subpath.clone() })
            }
        };
        Ok(MountSpec { target: mount.target.clone(), kind, readonly: mount.readonly })
    };
    mounts.iter().map(spec).collect()
}

/// Keeps the layers of the images that are mounted from being removed.
///
/// # Errors
/// One is missing.
pub(super) fn hold_images(mounts: &[MountPoint], snapshots: &Snapshots) -> Result<Vec<Snapshot>, RunError> {
    image_tops(mounts).map(|top| Ok(snapshots.get(&top)?)).collect()
}

/// Removes the volumes that were made for one container alone.
pub(super) fn remove_anonymous(store: &Store, mounts: &[MountPoint]) {
    for mount in mounts {
        if let MountSource::Volume { name, anonymous: true, .. } = &mount.source {
            // it may have been removed by hand; another container that took it over by --volumes-from keeps it
            let volumes = Volumes::new(store);
            let others = volumes.users().ok().and_then(|mut users| users.remove(name)).unwrap_or_default();
            if others.len() <= 1 {
                let _ = volumes.destroy(name);
            }
        }
    }
}

impl Maker<'_> {
    fn source(&mut self, request: &VolumeRequest) -> Result<MountSource, RunError> {
        let target = &request.target;
        Ok(match &request.source {
            VolumeSource::Host { path, create, options } => {
                host_dir(path, *create).map_err(|why| RunError::mount(target, why))?;
                MountSource::Bind { path: path.clone(), create: *create, options: *options }
            }
            VolumeSource::Named { name, seed, extra } => {
                self.named(name, *seed && extra.subpath.is_empty(), target, extra, false)?;
                let subpath = extra.subpath.clone();
                MountSource::Volume { name: name.as_str().to_owned(), anonymous: false, subpath }
            }
            VolumeSource::Anonymous { seed, extra } => {
                let id = ContainerId::random()?.to_string();
                let name =
                    VolumeName::parse(id.as_bytes()).ok_or_else(|| RunError::mount(target, "no name"))?;
                self.named(&name, *seed, target, extra, true)?;
                MountSource::Volume { name: id, anonymous: true, subpath: Vec::new() }
            }
            VolumeSource::Tmpfs(options) => MountSource::Tmpfs(*options),
            VolumeSource::Image { name, subpath, image } => {
                let missing = || RunError::mount(target, format!("No such image: {name}"));
                let image = image.clone().ok_or_else(missing)?;
                MountSource::Image { name: name.clone(), image, subpath: subpath.clone() }
            }
        })
    }

    /// Makes a directory for a volume and fills it.
    fn new_dir(&self, dir: &Path, fill: bool, target: &[u8]) -> Result<(), RunError> {
        let work = || {
            std::fs::DirBuilder::new().mode(0o755).create(dir)?;
            if fill { seed(&self.image.view(), target, dir) } else { Ok(()) }
        };
        work().map_err(|e: io::Error| {
            RunError::mount(target, format!("cannot fill the volume from the image: {e}"))
        })
    }

    /// Finds a volume or makes it, and fills an empty one.
    fn named(
        &self,
        name: &VolumeName,
        fill: bool,
        target: &[u8],
        extra: &VolumeExtra,
        anonymous: bool,
    ) -> Result<(), RunError> {
        let volumes = Volumes::new(self.store);
        let known = volumes.get(name.as_str())?;
        if known.is_none() && !extra.options.is_empty() {
            volumes.create(Some(name.clone()), extra.labels.clone(), extra.options.clone())?;
            return Ok(());
        }
        // files of another place are not the image's to fill
        if known.as_ref().is_some_and(|info| !info.options.is_empty()) {
            return Ok(());
        }
        let dir = self.store.root().join("volumes").join(name.as_str());
        let data = dir.join("_data");
        // two containers that start at once fill a volume once
        let _lock = self.store.lock(&format!("volume-{}", name.as_str()), LockKind::Exclusive)?;
        let fail = |e: io::Error| RunError::mount(target, format!("volume {}: {e}", name.as_str()));
        let present = match fsutil::open_dir(&data) {
            Ok(open) => Some(open),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(fail(e)),
        };
        if let Some(open) = &present
            && (!fill || !fsutil::names(open.as_fd()).map_err(fail)?.is_empty())
        {
            return Ok(());
        }
        // aside, so that a full disk or a kill leaves no half of it
        let staged = self.store.temp_dir("volume")?;
        let filled = staged.path().join("_data");
        self.new_dir(&filled, fill, target)?;
        fault::point("volume.filled");
        match present {
            // perhaps another container has it mounted, so the directory itself must stay
            Some(open) => move_into(&filled, &open).map_err(fail)?,
            None => match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(fail(e)),
                _ => std::fs::rename(&filled, &data).map_err(fail)?,
            },
        }
        fault::point("volume.filled_renamed");
        if known.is_none() {
            volumes.describe_new(name.as_str(), &extra.labels, anonymous)?;
            self.store.sync_dir("volumes")?;
        }
        Ok(())
    }
}

/// Moves what is in a directory into an empty one of the same file system, and gives that the look of the first.
fn move_into(from: &Path, to: &OwnedFd) -> io::Result<()> {
    let from = fsutil::open_dir(from)?;
    for name in fsutil::names(from.as_fd())? {
        rustix::fs::renameat(&from, &name, to, &name)?;
    }
    let mut look = fsutil::meta_of(&rustix::fs::fstat(&from)?);
    look.xattrs = fsutil::xattrs(from.as_fd())?;
    fsutil::apply_meta(to.as_fd(), &look, fsutil::can_chown())
}

/// Makes a missing directory of the host, as docker does for `-v`.
fn host_dir(path: &Path, create: bool) -> Result<(), String> {
    let shown = path.display();
    match path.metadata() {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound && create => std::fs::create_dir_all(path)
            .map_err(|e| format!("cannot make the directory {shown} of the host: {e}")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(format!("bind source path does not exist: {shown}"))
        }
        Err(e) => Err(format!("cannot look at {shown}: {e}")),
    }
}
