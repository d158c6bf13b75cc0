//! The files of a container from outside: its root directory, what has changed in it, and the image that it would make.

use super::RunError;
use super::client::Client;
use super::containers::{Container, Containers};
use super::record::MountSource;
use crate::layer::{self, UnpackOptions};
use crate::sandbox::{self, Rootfs};
use crate::snapshot::{Snapshots, StepRecord};
use crate::store::Lock;
use crate::sys::fsutil;
use crate::tree::{Diff, Node, SourceTree, TreePath};
use std::collections::HashSet;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Places that the engine makes in every container.
const OURS: [&str; 6] = ["dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf"];

/// The root directory of a container, or a volume of it, to look into or to change.
#[derive(Debug)]
pub struct Root {
    /// The directory.
    pub dir: OwnedFd,
    /// The path in it that was asked for.
    pub path: TreePath,
    /// Keeps a container that does not run from being started meanwhile.
    _lock: Option<Lock>,
}

impl Root {
    /// Takes a path in an open directory.
    pub fn of(dir: OwnedFd, path: TreePath) -> Self {
        Self { dir, path, _lock: None }
    }
}

/// How a path differs from the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is another.
    Changed,
    /// It is gone.
    Deleted,
}

/// Opens what a path of a container leads to: the root as its processes see it, or put together anew.
pub fn open_root(
    container: &Container,
    containers: &Containers,
    snapshots: &Snapshots,
    path: &[u8],
) -> Result<Root, RunError> {
    let clean = TreePath::clean(path);
    if container.state.status.has_process() {
        let dir = Client::connect(container)?.root()?;
        return Ok(Root { dir, path: clean, _lock: None });
    }
    let lock = containers.try_lock(&container.record.id)?;
    let lock = lock.ok_or_else(|| RunError::Running(container.record.name.to_string()))?;
    let target = [b"/", clean.as_bytes()].concat();
    let mut at: Vec<_> = container.record.mounts.iter().collect();
    at.sort_by_key(|mount| std::cmp::Reverse(mount.target.len()));
    for mount in at {
        let Some(rest) = target.strip_prefix(&mount.target[..]).filter(|r| r.is_empty() || r[0] == b'/')
        else {
            continue;
        };
        let (dir, rest) = match &mount.source {
            // a file can be mounted, too: then it is looked at from its directory
            MountSource::Bind { path, .. } if !path.is_dir() => {
                let name = path.file_name().map(|name| name.as_bytes().to_vec()).unwrap_or_default();
                (path.parent().unwrap_or(path).to_path_buf(), name)
            }
            MountSource::Bind { path, .. } => (path.clone(), rest.to_vec()),
            MountSource::Volume { name, subpath, .. } => {
                let data = containers.store().root().join("volumes").join(name).join("_data");
                (data, [&subpath[..], b"/", rest].concat())
            }
            MountSource::Image { image, subpath, .. } => {
                let lowers = snapshots.get(&image.top)?.lowers.clone();
                let dir = sandbox::open_rootfs(&Rootfs::ReadOnlyOverlay { lowers })?;
                let path = TreePath::clean(&[&subpath[..], b"/", rest].concat());
                return Ok(Root { dir, path, _lock: Some(lock) });
            }
            MountSource::Tmpfs(_) => continue,
        };
        let dir = fsutil::open_dir(&dir).map_err(RunError::io(format!("open {}", dir.display())))?;
        return Ok(Root { dir, path: TreePath::clean(&rest), _lock: Some(lock) });
    }
    let tree = snapshots.writable(&container.dir, &container.record.top)?;
    let dir = sandbox::open_rootfs(&tree.rootfs(false))?;
    Ok(Root { dir, path: clean, _lock: Some(lock) })
}

fn differences(
    container: &Container,
    snapshots: &Snapshots,
) -> Result<(crate::snapshot::Writable, Diff), RunError> {
    let tree = snapshots.writable(&container.dir, &container.record.top)?;
    let mut skip: HashSet<TreePath> = OURS.iter().map(|path| TreePath::clean(path.as_bytes())).collect();
    skip.extend(container.record.mounts.iter().map(|mount| TreePath::clean(&mount.target)));
    let diff = tree.changes(&skip)?.ok_or_else(|| {
        RunError::Refused(
            "without overlayfs the changes of a container are not kept apart from its image".into(),
        )
    })?;
    Ok((tree, diff))
}

/// Lists what a container has changed, in order of paths.
pub fn changes(container: &Container, snapshots: &Snapshots) -> Result<Vec<(Change, TreePath)>, RunError> {
    let (tree, diff) = differences(container, snapshots)?;
    let before = tree.parent().view();
    let mut out = Vec::new();
    for entry in diff.entries() {
        let was = before.stat(&entry.path).map_err(RunError::io("look into the image"))?;
        let change = match (&entry.node, was) {
            (Node::Whiteout, _) => Change::Deleted,
            (_, Some(_)) => Change::Changed,
            (_, None) => Change::Added,
        };
        out.push((change, entry.path));
    }
    Ok(out)
}

/// Keeps what a container has changed as a layer on top of its image's; `None` when there is nothing.
pub fn keep_changes(
    container: &Container,
    snapshots: &Snapshots,
) -> Result<Option<crate::digest::ResultId>, RunError> {
    let (tree, diff) = differences(container, snapshots)?;
    if diff.is_empty() {
        return Ok(None);
    }
    let staged = snapshots.store().temp_dir("commit")?;
    let path = staged.path().join("layer.tar");
    let fail = || RunError::io::<std::io::Error>("write the layer");
    let mut tar =
        std::fs::File::options().read(true).write(true).create_new(true).open(path).map_err(fail())?;
    let upper = fsutil::open_dir(&tree.upper()).map_err(fail())?;
    let open = |path: &TreePath| fsutil::open_regular(upper.as_fd(), path.as_os_str());
    let broken = |e: layer::LayerError| RunError::Snapshot(e.into());
    layer::write_tar(&diff, &open, None, &mut tar).map_err(broken)?;
    tar.flush().and_then(|()| tar.rewind()).map_err(fail())?;
    let prepared = snapshots.prepare(&container.record.top)?;
    let view = prepared.parent.view();
    let opts = UnpackOptions {
        userxattr: snapshots.mode().userxattr(),
        chown_ok: fsutil::can_chown(),
        parent: (!prepared.parent.chain.is_empty()).then_some(&view),
        ..UnpackOptions::default()
    };
    let kept = layer::unpack(&mut tar, &prepared.upper, &opts).map_err(broken)?;
    drop(view);
    let id = snapshots.commit(prepared, kept, StepRecord::default())?.id;
    // nothing could make this layer again
    snapshots.store().sync_everything()?;
    Ok(Some(id))
}
