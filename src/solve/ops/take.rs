//! What a COPY or a mount takes: the selected files of a context or of another step's result.

use super::copy::{self, Selection, Sources};
use super::remotes::Remotes;
use crate::context::BuildContext;
use crate::digest::{ContentId, ResultId};
use crate::plan::{CopyOp, CopySource, From, Role};
use crate::snapshot::Snapshot;
use crate::solve::schedule::Inputs;
use crate::solve::{BuildEnv, Memo, OpError};
use crate::tree::{EmptyTree, Meta, SourceNode, SourceTree, TreePath};
use std::path::Path;
use std::sync::Arc;

/// The selected files of one COPY or mount, named.
pub(in crate::solve) struct Taken {
    /// Of the selected files, without timestamps.
    pub(in crate::solve) content: ContentId,
    /// The result that they come from, if they come from a step or image.
    result: Option<ResultId>,
    selection: Option<Selection>,
    remotes: Option<Remotes>,
}

impl Taken {
    /// Selects what an op takes. From a result it is remembered which files that were, so that a cached build looks
    /// into no layer: a result never changes, so neither does what a given selection takes from it.
    pub(in crate::solve) fn select(op: &CopyOp, inputs: &Inputs, env: &BuildEnv) -> Result<Self, OpError> {
        if op.sources.iter().any(|s| matches!(s, CopySource::Url(_) | CopySource::Git(_))) {
            let remotes = Remotes::identify(op, env)?;
            let content = remotes.key(&*main_source(op, env)?, op)?;
            return Ok(Self { content, result: None, selection: None, remotes: Some(remotes) });
        }
        match &op.from {
            From::Vertex => {
                let role = |role: &Role| matches!(role, Role::Source);
                let result =
                    inputs.iter().find(|(r, _)| role(r)).map(|(_, id)| *id).ok_or(OpError::Cancelled)?;
                Self::from_result(op, result, env)
            }
            From::Context(_) | From::Empty => {
                let source = main_source(op, env)?;
                let selection = copy::select(&Sources::paths(&*source), op)?;
                let content = selection.key_id();
                Ok(Self { content, result: None, selection: Some(selection), remotes: None })
            }
        }
    }

    /// Selects from the result of another step.
    pub(super) fn from_result(op: &CopyOp, result: ResultId, env: &BuildEnv) -> Result<Self, OpError> {
        let memo = memo(op, &result);
        if let Some(content) = env.records.memo(&memo).or_else(|| shared_memo(&memo, &result, env)) {
            keep_memo(memo, content, result, env);
            return Ok(Self { content, result: Some(result), selection: None, remotes: None });
        }
        let selection = copy::select(&Sources::paths(&env.snapshots.get(&result)?.view()), op)?;
        let content = selection.key_id();
        // losing it costs time only
        let _ = env.records.put_memo(&memo, &content, &result);
        keep_memo(memo, content, result, env);
        Ok(Self { content, result: Some(result), selection: Some(selection), remotes: None })
    }

    /// Lists the selected files; `None` when they are many, or were not looked at.
    pub(in crate::solve) fn listing(&self) -> Option<Vec<copy::listing::Listed>> {
        self.selection.as_ref()?.listing()
    }

    /// Hands the selection and its source to `work`, looking into the source now if that was not needed before.
    pub(super) fn with<T>(
        &self,
        op: &CopyOp,
        env: &BuildEnv,
        work: impl FnOnce(&Selection, &Sources<'_>) -> Result<T, OpError>,
    ) -> Result<T, OpError> {
        let main: Box<dyn SourceTree> = match self.result {
            Some(result) => Box::new(env.snapshots.get(&result)?.view()),
            None => main_source(op, env)?,
        };
        let fetched = self.remotes.as_ref().map(|r| r.fetch(op, env)).transpose()?.unwrap_or_default();
        let sources = Sources { main: &*main, remotes: &fetched };
        match &self.selection {
            Some(selection) => work(selection, &sources),
            None => work(&copy::select(&sources, op)?, &sources),
        }
    }
}

/// Asks other machines, so that a result need not be fetched only to see that nothing in it has changed.
fn shared_memo(name: &[u8; 32], result: &ResultId, env: &BuildEnv) -> Option<ContentId> {
    let memo = env.shared.as_ref()?.memo(name).filter(|memo| memo.result == *result)?;
    let _ = env.records.put_memo(name, &memo.content, result);
    Some(memo.content)
}

fn keep_memo(name: [u8; 32], content: ContentId, result: ResultId, env: &BuildEnv) {
    let memo = Memo { name, content, result };
    env.memos.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(memo);
}

/// What path sources of an op that takes from no other step are looked up in.
fn main_source(op: &CopyOp, env: &BuildEnv) -> Result<Box<dyn SourceTree>, OpError> {
    match &op.from {
        From::Context(name) if op.sources.iter().any(|s| matches!(s, CopySource::Path(_))) => {
            Ok(Box::new(context(name, env)?))
        }
        _ => Ok(Box::new(EmptyTree)),
    }
}

fn context(name: &str, env: &BuildEnv) -> Result<Arc<BuildContext>, OpError> {
    env.contexts.get(name).cloned().ok_or_else(|| OpError::NoContext(name.to_owned()))
}

fn memo(op: &CopyOp, result: &ResultId) -> [u8; 32] {
    let mut h = blake3::Hasher::new_derive_key("rbuild selection memo v1");
    h.update(&result.0);
    let mut field = |bytes: &[u8]| {
        h.update(&(bytes.len() as u64).to_le_bytes());
        h.update(bytes);
    };
    for source in &op.sources {
        field(format!("{source:?}").as_bytes());
    }
    for pattern in &op.exclude {
        field(pattern.as_bytes());
    }
    field(format!("{} {} {:?} {}", op.parents, op.is_add, op.unpack, op.dest).as_bytes());
    *h.finalize().as_bytes()
}

/// A COPY of one path onto nothing, which is how a mount takes files.
fn whole(from: From, path: &str) -> CopyOp {
    CopyOp::plain(vec![CopySource::Path(path.to_owned())], from, "/")
}

/// Names what a bind mount or the seed of a cache shows.
pub(super) fn content(
    from: &From,
    path: &str,
    result: Option<ResultId>,
    env: &BuildEnv,
) -> Result<Option<ContentId>, OpError> {
    match (from, result) {
        (From::Empty, _) => Ok(None),
        (From::Vertex, Some(result)) => {
            Ok(Some(Taken::from_result(&whole(From::Vertex, path), result, env)?.content))
        }
        (from, _) => Ok(Some(Taken::select(&whole(from.clone(), path), &Vec::new(), env)?.content)),
    }
}

/// Makes a snapshot of the files that a bind mount shows; gives it and the path of what is shown in it. Only made
/// once for the same files.
pub(super) fn materialise(name: &str, path: &str, env: &BuildEnv) -> Result<(Snapshot, Vec<u8>), OpError> {
    let op = whole(From::Context(name.to_owned()), path);
    let taken = Taken::select(&op, &Vec::new(), env)?;
    let tree = context(name, env)?;
    let at = copy::resolve(&|at| tree.stat(at), path.as_bytes(), true)
        .map_err(|source| OpError::Io { action: format!("look at {path} in the context"), source })?;
    let is_dir = at.entry.is_none_or(|e| e.node == SourceNode::Dir);
    let inside = if is_dir {
        Vec::new()
    } else {
        TreePath::clean(path.as_bytes()).file_name().unwrap_or_default().to_vec()
    };
    let mut h = blake3::Hasher::new_derive_key("rbuild mount tree v1");
    h.update(&taken.content.0);
    let alias: ResultId = h.finalize().into();
    if !env.snapshots.has(&alias) {
        let mut prepared = env.snapshots.prepare(&ResultId::scratch())?;
        let diff = super::copying::run(&op, &taken, &mut prepared, env, None)?;
        let made = env.snapshots.commit(prepared, diff, crate::snapshot::StepRecord::default())?;
        env.snapshots.alias(&alias, &made.id)?;
    }
    Ok((env.snapshots.get(&alias)?, inside))
}

/// Copies the seed of a new cache mount into its directory, and gives the look of the seed's own.
pub(super) fn seed(
    from: &From,
    path: &str,
    result: Option<ResultId>,
    into: &Path,
    env: &BuildEnv,
) -> Result<Option<Meta>, OpError> {
    let op = whole(from.clone(), path);
    let taken = match result {
        Some(result) => Taken::from_result(&op, result, env)?,
        None => Taken::select(&op, &Vec::new(), env)?,
    };
    let nothing = env.snapshots.get(&ResultId::scratch())?.view();
    // a cache is written to, so its files must not share their bytes with the store
    taken.with(&op, env, |selection, sources| {
        super::copying::apply_env(env, |apply| {
            copy::apply(selection, sources, &nothing, &op, into, apply)?;
            Ok(selection.directory().cloned())
        })
    })
}
