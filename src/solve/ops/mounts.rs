//! `RUN --mount`: from what the op says to what the sandbox mounts.
//!
//! A bind from a build context shows a copy of just the files that it selects, made like a COPY onto nothing, so
//! that ignored files stay out, owners are root's and the user's own tree is never written to.

use super::{agent, cache_mount, take};
use crate::cache::KeyBuilder;
use crate::digest::{ContentId, ResultId};
use crate::plan::{From, Role, RunMount, RunOp, Sharing};
use crate::sandbox::{MountKind, MountSpec, Source};
use crate::solve::schedule::Inputs;
use crate::solve::{BuildEnv, OpError, Processes};
use crate::store::{Lock, TempDir};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where the files of a mount come from, as far as the cache key must know.
#[derive(Debug, Clone)]
pub(in crate::solve) struct MountSource {
    /// Of the selected files; `None` for mounts that take no files.
    pub(in crate::solve) content: Option<ContentId>,
    /// The result that the mount's edge brought.
    pub(in crate::solve) result: Option<ResultId>,
}

/// Finds what the mounts of a RUN show. A bind of files that are not there fails here.
pub(in crate::solve) fn mount_sources(
    op: &RunOp,
    inputs: &Inputs,
    env: &BuildEnv,
) -> Result<Vec<MountSource>, OpError> {
    let one = |(n, mount): (usize, &RunMount)| {
        let result = inputs.iter().find(|(role, _)| *role == Role::Mount(n)).map(|(_, id)| *id);
        let content = match mount {
            RunMount::Bind { from, source, .. } | RunMount::Cache { from, source, .. } => {
                take::content(from, source, result, env)?
            }
            _ => None,
        };
        let source = MountSource { content, result };
        if matches!(mount, RunMount::Cache { .. }) {
            let name = cache_mount::identity(mount, &source);
            env.mounts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(name);
        }
        Ok(source)
    };
    op.mounts.iter().enumerate().map(one).collect()
}

/// Feeds the definitions of the mounts and the content of binds; the files of a cache, secrets and agents do not count.
/// Of the mounts that the command line gives to all steps only the binds count.
pub(super) fn feed(op: &RunOp, sources: &[MountSource], key: &mut KeyBuilder) {
    for (n, (mount, source)) in op.mounts.iter().zip(sources).enumerate() {
        match mount {
            RunMount::Bind { .. } => {}
            _ if n >= op.own_mounts => continue,
            _ => {}
        }
        match mount {
            RunMount::Bind { target, source: path, writable, .. } => {
                key.text(
                    "mount bind",
                    &format!("{target} from {path}{}", if *writable { " rw" } else { "" }),
                );
                if let Some(content) = &source.content {
                    key.id(&format!("content of {target}"), &content.0);
                }
            }
            RunMount::Cache { target, id, .. } => drop(key.text("mount cache", &format!("{target} id {id}"))),
            RunMount::Tmpfs { target, .. } => drop(key.text("mount tmpfs", target)),
            RunMount::Secret { target, id, env, .. } => {
                let (file, var) = (target.as_deref().unwrap_or(""), env.as_deref().unwrap_or(""));
                drop(key.text("mount secret", &format!("{id} {file} {var}")));
            }
            RunMount::Ssh { target, id, .. } => drop(key.text("mount ssh", &format!("{id} {target}"))),
        }
    }

    fn drop(_: &mut KeyBuilder) {}
}

/// The mounts of a step that is about to run; held until it has ended.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// For the sandbox.
    pub(super) specs: Vec<MountSpec>,
    /// `NAME=value` entries that mounts add to the environment.
    pub(super) env: Vec<Vec<u8>>,
    held: Vec<Held>,
    /// The caches that the step holds; a second mount of one shows the same directory.
    caches: BTreeMap<String, PathBuf>,
}

/// What must outlive the step.
#[derive(Debug)]
#[expect(dead_code, reason = "held for their Drop")]
enum Held {
    Lock(Lock),
    Dir(TempDir),
    Agent(agent::Forwarder),
    Tree(crate::snapshot::Snapshot),
}

impl Mounts {
    /// Makes everything ready: waits for locked caches, reads secrets, copies context files. `fresh` is for a step that
    /// must not know what was before.
    pub(super) fn make(
        op: &RunOp,
        sources: &[MountSource],
        fresh: bool,
        env: &BuildEnv,
        processes: &Processes,
    ) -> Result<Self, OpError> {
        let mut made = Self::default();
        // always in one order, so that two steps that lock the same caches cannot wait for each other
        let mut order: Vec<usize> = (0..op.mounts.len()).collect();
        // of one cache what waits longest first, so that the step does not wait for itself
        order.sort_by_key(|n| match &op.mounts[*n] {
            RunMount::Cache { id, sharing, .. } => (
                id.clone(),
                match sharing {
                    Sharing::Locked => 0,
                    Sharing::Shared => 1,
                    Sharing::Private => 2,
                },
            ),
            _ => (String::new(), 0),
        });
        let mut specs = vec![None; op.mounts.len()];
        for n in order {
            specs[n] = made.one(&op.mounts[n], &sources[n], fresh, env, processes)?;
        }
        made.specs = specs.into_iter().flatten().collect();
        Ok(made)
    }

    fn one(
        &mut self,
        mount: &RunMount,
        from: &MountSource,
        fresh: bool,
        env: &BuildEnv,
        processes: &Processes,
    ) -> Result<Option<MountSpec>, OpError> {
        match mount {
            RunMount::Bind { target, from: place, source, writable } => {
                let source = self.bind_source(place, source, from, env)?;
                let kind = if *writable {
                    let scratch = self.scratch(env)?;
                    MountKind::Discard { source, scratch: Some(scratch) }
                } else {
                    MountKind::Bind(source)
                };
                Ok(Some(spec(target, kind, !*writable)))
            }
            RunMount::Cache { target, readonly, sharing, .. } => {
                let name = cache_mount::identity(mount, from);
                let held = self.caches.get(&name).filter(|_| *sharing != Sharing::Private).cloned();
                let dir = match held {
                    Some(dir) => dir,
                    None => {
                        let (dir, lock) = cache_mount::open(mount, from, fresh, env, processes)?;
                        self.held.push(Held::Lock(lock));
                        self.caches.insert(name, dir.clone());
                        dir
                    }
                };
                let source = Source::InDir { root: dir, path: Vec::new() };
                Ok(Some(spec(target, MountKind::Bind(source), *readonly)))
            }
            RunMount::Tmpfs { target, size } => {
                Ok(Some(spec(target, MountKind::Tmpfs { size: *size, mode: None }, false)))
            }
            RunMount::Secret { .. } => self.secret(mount, env),
            RunMount::Ssh { .. } => self.agent(mount, env),
        }
    }

    fn bind_source(
        &mut self,
        place: &From,
        path: &str,
        from: &MountSource,
        env: &BuildEnv,
    ) -> Result<Source, OpError> {
        match place {
            From::Vertex => {
                let result = from.result.ok_or(OpError::Cancelled)?;
                let tree = env.snapshots.get(&result)?;
                let lowers = tree.lowers.clone();
                self.held.push(Held::Tree(tree));
                Ok(Source::InLayers { lowers, path: path.as_bytes().to_vec() })
            }
            From::Context(name) => {
                let (tree, path) = take::materialise(name, path, env)?;
                let lowers = tree.lowers.clone();
                self.held.push(Held::Tree(tree));
                Ok(Source::InLayers { lowers, path })
            }
            From::Empty => Ok(Source::InDir { root: self.scratch(env)?, path: Vec::new() }),
        }
    }

    fn scratch(&mut self, env: &BuildEnv) -> Result<PathBuf, OpError> {
        let dir = env.store.temp_dir("mount")?;
        let path = dir.path().to_owned();
        self.held.push(Held::Dir(dir));
        Ok(path)
    }

    fn secret(&mut self, mount: &RunMount, env: &BuildEnv) -> Result<Option<MountSpec>, OpError> {
        let RunMount::Secret { target, id, env: variable, required, mode, uid, gid } = mount else {
            return Ok(None);
        };
        let place = match (target, variable) {
            (Some(target), _) => format!("target={target}"),
            (None, Some(variable)) => format!("env={variable}"),
            (None, None) => format!("id={id}"),
        };
        let fail = |why: String| OpError::Mount { kind: "secret", place: place.clone(), why };
        let value = match env.secrets.secrets.get(id) {
            Some(source) => source.read().map_err(|e| fail(format!("secret {id:?} cannot be read: {e}")))?,
            None => None,
        };
        let Some(value) = value else {
            if *required {
                return Err(fail(format!(
                    "secret {id:?} is required; give it with --secret id={id},src=FILE"
                )));
            }
            // the variable is there in any case, as it is for BuildKit; the file is not
            self.env.extend(variable.as_ref().map(|name| format!("{name}=").into_bytes()));
            return Ok(None);
        };
        if let Some(name) = variable {
            self.env.push([name.as_bytes(), b"=", &value].concat());
        }
        let kind = MountKind::File { content: value, mode: *mode, uid: *uid, gid: *gid };
        Ok(target.as_ref().map(|target| spec(target, kind, true)))
    }

    fn agent(&mut self, mount: &RunMount, env: &BuildEnv) -> Result<Option<MountSpec>, OpError> {
        let RunMount::Ssh { target, id, required, mode, uid, gid } = mount else { return Ok(None) };
        let fail = |why: String| OpError::Mount { kind: "ssh", place: format!("target={target}"), why };
        let Some(socket) = env.secrets.agents.get(id) else {
            if *required {
                return Err(fail(format!("agent {id:?} is required; give it with --ssh {id}=SOCKET")));
            }
            return Ok(None);
        };
        let dir = self.scratch(env)?;
        let forwarder = agent::Forwarder::start(socket, &dir, *mode, *uid, *gid)
            .map_err(|e| fail(format!("agent {id:?} cannot be forwarded: {e}")))?;
        self.held.push(Held::Agent(forwarder));
        if !self.env.iter().any(|e| e.starts_with(b"SSH_AUTH_SOCK=")) {
            self.env.push(format!("SSH_AUTH_SOCK={target}").into_bytes());
        }
        let source = Source::InDir { root: dir, path: agent::NAME.into() };
        Ok(Some(spec(target, MountKind::Bind(source), false)))
    }
}

fn spec(target: &str, kind: MountKind, readonly: bool) -> MountSpec {
    MountSpec { target: target.into(), kind, readonly }
}
