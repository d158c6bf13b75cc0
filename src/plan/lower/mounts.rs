//! `RUN --mount`: from typed options to what the step sees.

use super::Lowering;
use crate::dockerfile::ast::Instruction;
use crate::dockerfile::diagnostic::Diagnostic;
use crate::dockerfile::mount::{
    self, BindMount, CacheMount, Mount, RawMount, SecretMount, SshMount, TmpfsMount,
};
use crate::dockerfile::span::{Span, Text};
use crate::plan::bases::Files;
use crate::plan::op::{From, Look, Role, RunMount, Sharing};
use crate::plan::output::OutlineNeed;
use crate::plan::paths;
use crate::plan::stages::Source;
use petgraph::graph::NodeIndex;

/// Permission bits of a secret and a socket, when the mount does not say.
const SECRET_MODE: u32 = 0o400;
const SOCKET_MODE: u32 = 0o600;

type Inputs = Vec<(Role, NodeIndex)>;

impl Lowering<'_, '_> {
    /// Turns mounts into those of the op, with edges from what they take files from. The first `own` of those that are
    /// given stand in the Dockerfile.
    pub(super) fn mounts(
        &mut self,
        instruction: &Instruction,
        given: &[RawMount],
        own: usize,
        typed: &[Mount],
    ) -> Result<(Vec<RunMount>, Inputs), Diagnostic> {
        let (mut mounts, mut inputs) = (Vec::new(), Vec::new());
        let mut sockets = 0;
        for (position, (mount, raw)) in typed.iter().zip(given).enumerate() {
            let mut taken = |lowering: &mut Self, from: &Text| {
                let files = match position < own {
                    true => lowering.planner.files_of(from, lowering.index),
                    false => lowering.files_for_all(from).map_err(|e| e.moved_to(instruction.span())),
                };
                Ok(match files? {
                    Files::Vertex(vertex) => {
                        inputs.push((Role::Mount(position), vertex));
                        From::Vertex
                    }
                    Files::Context(name) => From::Context(name),
                    Files::Empty => From::Empty,
                })
            };
            mounts.push(match mount {
                Mount::Bind(bind) => {
                    let from = match &raw.from {
                        Some(from) if !from.is_empty() => taken(self, from)?,
                        _ => From::Context(String::new()),
                    };
                    self.bind(bind, from, raw.span())?
                }
                Mount::Cache(cache) => {
                    let from = match &raw.from {
                        Some(from) if !from.is_empty() => taken(self, from)?,
                        _ => From::Empty,
                    };
                    self.cache(cache, from, raw.span())?
                }
                Mount::Tmpfs(tmpfs) => self.tmpfs(tmpfs, raw.span())?,
                Mount::Secret(secret) => self.secret(secret, instruction),
                Mount::Ssh(ssh) => {
                    sockets += 1;
                    self.ssh(ssh, sockets - 1, instruction)
                }
            });
        }
        Ok((mounts, inputs))
    }

    /// Finds what a `--mount` of the command line takes files from. A stage would have to be ready before itself.
    fn files_for_all(&mut self, from: &Text) -> Result<Files, Diagnostic> {
        if let Ok(Source::Stage(_)) = self.planner.stages.source(from) {
            let message = format!("the --mount of the command line takes files from the stage {from}");
            return Err(Diagnostic::new("rbuild::mount_from", message).at(from.span()).help(
                "it can take them from an image or a named context; write RUN --mount for those of a stage",
            ));
        }
        self.planner.files_of(from, self.index)
    }

    /// Joins a target to the working directory; the root itself cannot be covered.
    fn target(&self, target: &str, span: Span) -> Result<String, Diagnostic> {
        let joined = paths::join(&self.state.cwd(), target);
        if joined == "/" {
            let message = format!("invalid mount target {target:?}: it is the root of the file system");
            return Err(Diagnostic::new("rbuild::mount_target", message)
                .at(span)
                .help("name a directory: target=/mnt"));
        }
        Ok(joined)
    }

    fn bind(&self, bind: &BindMount, from: From, span: Span) -> Result<RunMount, Diagnostic> {
        Ok(RunMount::Bind {
            target: self.target(&bind.target, span)?,
            from,
            source: paths::clean(&bind.source),
            writable: !bind.read_only,
        })
    }

    fn cache(&self, cache: &CacheMount, from: From, span: Span) -> Result<RunMount, Diagnostic> {
        let namespace = self.planner.given.get("BUILDKIT_CACHE_MOUNT_NS").map_or("", String::as_str);
        let id = cache.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| cache_id(&cache.target));
        Ok(RunMount::Cache {
            target: self.target(&cache.target, span)?,
            id: format!("{namespace}/{id}"),
            sharing: match cache.sharing {
                mount::Sharing::Shared => Sharing::Shared,
                mount::Sharing::Private => Sharing::Private,
                mount::Sharing::Locked => Sharing::Locked,
            },
            from,
            source: paths::clean(&cache.source),
            look: look(cache),
            readonly: cache.read_only,
        })
    }

    fn tmpfs(&self, tmpfs: &TmpfsMount, span: Span) -> Result<RunMount, Diagnostic> {
        Ok(RunMount::Tmpfs {
            target: self.target(&tmpfs.target, span)?,
            size: tmpfs.size.filter(|size| *size > 0),
        })
    }

    fn secret(&mut self, secret: &SecretMount, instruction: &Instruction) -> RunMount {
        let span = self.place(instruction.span());
        note_need(&mut self.planner.outline.secrets, &secret.id, secret.required, span);
        RunMount::Secret {
            target: secret.target.as_deref().map(|target| paths::join(&self.state.cwd(), target)),
            id: secret.id.clone(),
            env: secret.env.clone(),
            required: secret.required,
            mode: secret.mode.unwrap_or(SECRET_MODE),
            uid: secret.uid.unwrap_or(0),
            gid: secret.gid.unwrap_or(0),
        }
    }

    fn ssh(&mut self, ssh: &SshMount, number: usize, instruction: &Instruction) -> RunMount {
        let span = self.place(instruction.span());
        note_need(&mut self.planner.outline.ssh, &ssh.id, ssh.required, span);
        let target = ssh.target.as_deref().filter(|target| !target.is_empty());
        RunMount::Ssh {
            target: target.map_or_else(
                || format!("/run/buildkit/ssh_agent.{number}"),
                |target| paths::join(&self.state.cwd(), target),
            ),
            id: ssh.id.clone(),
            required: ssh.required,
            mode: ssh.mode.unwrap_or(SOCKET_MODE),
            uid: ssh.uid.unwrap_or(0),
            gid: ssh.gid.unwrap_or(0),
        }
    }
}

fn look(cache: &CacheMount) -> Option<Look> {
    let usual = Look::default();
    (cache.mode.is_some() || cache.uid.is_some() || cache.gid.is_some()).then(|| Look {
        mode: cache.mode.unwrap_or(usual.mode),
        uid: cache.uid.unwrap_or(usual.uid),
        gid: cache.gid.unwrap_or(usual.gid),
    })
}

/// Gives the path of the first ssh socket.
pub(super) fn first_socket(mounts: &[RunMount]) -> Option<&str> {
    mounts.iter().find_map(|mount| match mount {
        RunMount::Ssh { target, .. } => Some(target.as_str()),
        _ => None,
    })
}

/// Names a cache by its target: cleaned, and relative when the target is.
fn cache_id(target: &str) -> String {
    let clean = paths::clean(target);
    match target.starts_with('/') {
        true => clean,
        false if clean == "/" => ".".to_owned(),
        false => clean.trim_start_matches('/').to_owned(),
    }
}

fn note_need(needs: &mut Vec<OutlineNeed>, id: &str, required: bool, span: Span) {
    if !needs.iter().any(|need| need.id == id) {
        needs.push(OutlineNeed { id: id.to_owned(), required, span });
    }
}
