//! `RUN --mount=type=cache`: directories that outlive builds, never part of a layer.
//!
//! A cache is one directory `mounts/<id>/data` of the store. Its identity is its name and what a new one starts
//! with; so another mode, owner or seed is another cache. Who may use it at one time is a lock beside it.
//!
//! For BuildKit a mode, owner or seed is a step of its own, which `--no-cache` makes again: so such a cache starts anew
//! then, once in a build, and one that is only a name lives on.

use super::mounts::MountSource;
use crate::plan::{From, Look, RunMount, Sharing};
use crate::solve::{BuildEnv, OpError, Processes};
use crate::store::{Lock, LockKind};
use std::collections::BTreeSet;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The caches that a build has started anew. Held locked while that is done, so that nobody uses the old one meanwhile.
#[derive(Debug, Default)]
pub struct Renewed(Mutex<BTreeSet<String>>);

/// Gives the cache's directory, made and seeded if it is new, and the lock that says it is in use. `fresh` is for a step
/// that must not use what it left earlier.
pub(super) fn open(
    mount: &RunMount,
    seed: &MountSource,
    fresh: bool,
    env: &BuildEnv,
    processes: &Processes,
) -> Result<(PathBuf, Lock), OpError> {
    let RunMount::Cache { target, sharing, .. } = mount else { return Err(OpError::Cancelled) };
    let id = identity(mount, seed);
    let renewing =
        (fresh && !is_plain(mount)).then(|| env.renewed.0.lock().unwrap_or_else(PoisonError::into_inner));
    let alone = || processes.wait_for(|| env.store.try_lock(&lock_name(&id), LockKind::Exclusive));
    let (id, mut lock) = match sharing {
        Sharing::Shared if renewing.as_ref().is_some_and(|done| !done.contains(&id)) => {
            (id.clone(), alone()?)
        }
        Sharing::Shared => {
            let lock = processes.wait_for(|| env.store.try_lock(&lock_name(&id), LockKind::Shared))?;
            (id.clone(), lock)
        }
        Sharing::Locked => (id.clone(), alone()?),
        Sharing::Private => private(&id, env)?,
    };
    let dir = env.store.root().join("mounts").join(&id);
    let fail = |e| match e {
        Failure::Op(error) => error,
        Failure::Io(error) => {
            OpError::Mount { kind: "cache", place: format!("target={target}"), why: error.to_string() }
        }
    };
    let renew = renewing.is_some_and(|mut done| done.insert(id.clone()));
    if renew && dir.exists() {
        put_away(&dir, env).map_err(fail)?;
    }
    make(&dir, mount, seed, renew, env).map_err(fail)?;
    if renew && *sharing == Sharing::Shared {
        drop(lock);
        lock = processes.wait_for(|| env.store.try_lock(&lock_name(&id), LockKind::Shared))?;
    }
    // the time of its last use, for the garbage collector; a failure does no harm
    let _ = crate::sys::fsutil::touch(&dir.join("name"));
    Ok((dir.join("data"), lock))
}

fn lock_name(id: &str) -> String {
    format!("mount-{id}")
}

/// The first of the numbered copies that nobody uses.
fn private(id: &str, env: &BuildEnv) -> Result<(String, Lock), OpError> {
    for n in 0.. {
        let name = if n == 0 { id.to_owned() } else { format!("{id}-{n}") };
        if let Some(lock) = env.store.try_lock(&lock_name(&name), LockKind::Exclusive)? {
            return Ok((name, lock));
        }
    }
    unreachable!("one of endlessly many names is free")
}

/// Takes a cache out of its place and removes it.
fn put_away(dir: &Path, env: &BuildEnv) -> Result<(), Failure> {
    let staged = env.store.temp_dir("cache").map_err(|e| Failure::Op(e.into()))?;
    Ok(std::fs::rename(dir, staged.path().join("old"))?)
}

/// Whether a cache is nothing but a name.
fn is_plain(mount: &RunMount) -> bool {
    matches!(mount, RunMount::Cache { look: None, from: From::Empty, .. })
}

/// Names the directory of a cache in `mounts/`.
pub(super) fn identity(mount: &RunMount, seed: &MountSource) -> String {
    let RunMount::Cache { id, look, source, .. } = mount else { return String::new() };
    let mut h = blake3::Hasher::new_derive_key("rbuild cache mount v1");
    h.update(id.as_bytes());
    if !is_plain(mount) {
        let Look { mode, uid, gid } = look.unwrap_or_default();
        h.update(format!("\0{mode:o} {uid} {gid} {source}\0").as_bytes());
        h.update(&seed.content.map_or([0; 32], |c| c.0));
    }
    h.finalize().to_hex()[..32].to_owned()
}

/// Fills a new cache with what another machine left of it. Caches are no inputs: without, the step takes longer.
fn fill(dir: &Path, data: &Path, env: &BuildEnv) -> std::io::Result<()> {
    let (Some(shared), Some(name)) = (&env.shared, dir.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    if let Err(error) = shared.fill_mount(name, data) {
        let text = format!("a cache mount of the shared cache cannot be used and starts empty: {error}");
        env.sink.send(crate::progress::Event::Warning(text));
        crate::sys::fsutil::remove_tree(data)?;
        std::fs::DirBuilder::new().mode(0o700).create(data)?;
    }
    Ok(())
}

enum Failure {
    Op(OpError),
    Io(std::io::Error),
}

impl std::convert::From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Whether a new cache starts with a seed, which brings its own mode and owner. A mode or owner of the mount counts
/// only where no `source` is named, and then the cache starts empty, as for BuildKit.
fn seeded(mount: &RunMount) -> bool {
    let RunMount::Cache { look, from, source, .. } = mount else { return false };
    let whole = source.trim_matches('/').is_empty();
    *from != From::Empty && (!whole || look.is_none())
}

/// Makes a new cache whole or not at all: it gets its place by rename.
fn make(
    dir: &Path,
    mount: &RunMount,
    seed: &MountSource,
    renewed: bool,
    env: &BuildEnv,
) -> Result<(), Failure> {
    let RunMount::Cache { id, look, from, source, .. } = mount else { return Ok(()) };
    if dir.join("data").is_dir() {
        return Ok(());
    }
    let fail = |e: crate::store::StoreError| Failure::Op(e.into());
    let staged = env.store.temp_dir("cache").map_err(fail)?;
    let data = staged.path().join("new/data");
    std::fs::create_dir_all(staged.path().join("new"))?;
    std::fs::DirBuilder::new().mode(0o700).create(&data)?;
    let asked = look.unwrap_or_default();
    let Look { mode, uid, gid } = match seeded(mount) {
        true => super::take::seed(from, source, seed.result, &data, env)
            .map_err(Failure::Op)?
            .map_or(asked, |of| Look { mode: of.mode & 0o7777, uid: of.uid, gid: of.gid }),
        false if renewed => asked,
        false => {
            fill(dir, &data, env)?;
            asked
        }
    };
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(mode))?;
    chown(&data, Some(uid), Some(gid))?;
    std::fs::write(staged.path().join("new/name"), id)?;
    std::fs::create_dir_all(dir.parent().unwrap_or(dir))?;
    match std::fs::rename(staged.path().join("new"), dir) {
        // another step made it in the meantime
        Err(e) if matches!(e.raw_os_error(), Some(libc_enotempty) if libc_enotempty == rustix::io::Errno::NOTEMPTY.raw_os_error()) => {
            Ok(())
        }
        other => Ok(other?),
    }
}
