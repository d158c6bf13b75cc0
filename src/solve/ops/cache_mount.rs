//! `RUN --mount=type=cache`: directories that outlive builds, never part of a layer.
//!
//! A cache is one directory `mounts/<id>/data` of the store. Its identity is its name and what a new one starts
//! with; so another mode, owner or seed is another cache. Who may use it at one time is a lock beside it.

use super::mounts::MountSource;
use crate::plan::{From, RunMount, Sharing};
use crate::solve::{BuildEnv, OpError, Processes};
use crate::store::{Lock, LockKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Mode of a new cache's directory when the mount does not say, octal.
const DEFAULT_MODE: u32 = 0o755;

/// Gives the cache's directory, made and seeded if it is new, and the lock that says it is in use.
pub(super) fn open(
    mount: &RunMount,
    seed: &MountSource,
    env: &BuildEnv,
    processes: &Processes,
) -> Result<(PathBuf, Lock), OpError> {
    let RunMount::Cache { target, sharing, .. } = mount else { return Err(OpError::Cancelled) };
    let id = identity(mount, seed);
    let (id, lock) = match sharing {
        Sharing::Shared => (id.clone(), env.store.lock(&lock_name(&id), LockKind::Shared)?),
        Sharing::Locked => {
            (id.clone(), processes.wait_for(|| env.store.try_lock(&lock_name(&id), LockKind::Exclusive))?)
        }
        Sharing::Private => private(&id, env)?,
    };
    let dir = env.store.root().join("mounts").join(&id);
    make(&dir, mount, seed, env).map_err(|e| match e {
        Failure::Op(error) => error,
        Failure::Io(error) => {
            OpError::Mount { kind: "cache", place: format!("target={target}"), why: error.to_string() }
        }
    })?;
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

fn identity(mount: &RunMount, seed: &MountSource) -> String {
    let RunMount::Cache { id, mode, uid, gid, from, source, .. } = mount else { return String::new() };
    let mut h = blake3::Hasher::new_derive_key("rbuild cache mount v1");
    h.update(id.as_bytes());
    if (*mode, *uid, *gid) != (DEFAULT_MODE, 0, 0) || *from != From::Empty {
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
    let RunMount::Cache { mode, uid, gid, from, source, .. } = mount else { return false };
    let whole = source.trim_matches('/').is_empty();
    *from != From::Empty && (!whole || (*mode, *uid, *gid) == (DEFAULT_MODE, 0, 0))
}

/// Makes a new cache whole or not at all: it gets its place by rename.
fn make(dir: &Path, mount: &RunMount, seed: &MountSource, env: &BuildEnv) -> Result<(), Failure> {
    let RunMount::Cache { id, mode, uid, gid, from, source, .. } = mount else { return Ok(()) };
    if dir.join("data").is_dir() {
        return Ok(());
    }
    let fail = |e: crate::store::StoreError| Failure::Op(e.into());
    let staged = env.store.temp_dir("cache").map_err(fail)?;
    let data = staged.path().join("new/data");
    std::fs::create_dir_all(staged.path().join("new"))?;
    std::fs::DirBuilder::new().mode(0o700).create(&data)?;
    let asked = (*mode, *uid, *gid);
    let (mode, uid, gid) = match seeded(mount) {
        true => super::take::seed(from, source, seed.result, &data, env)
            .map_err(Failure::Op)?
            .map_or(asked, |look| (look.mode & 0o7777, look.uid, look.gid)),
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
