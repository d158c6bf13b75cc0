//! A build beside caches that are shared with other machines: what goes on when a layer turns out not to be there, and
//! what is written at the end.

use super::{BuildError, BuildRequest};
use crate::digest::ResultId;
use crate::plan::{BuildGraph, Plan};
use crate::progress::{Event, Outcome, Stream};
use crate::share::{self, ExportSpec, Imports, Made};
use crate::solve::{self, BuildEnv, Processes, SolveError, Solved};
use petgraph::graph::NodeIndex;
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Which files of the image a build must have when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FilesWanted {
    /// None: nobody keeps the image.
    No,
    /// Those that could not be fetched later.
    #[default]
    Kept,
    /// All of them, since they are written out.
    All,
}

/// What is solved: one plan, or several joined.
pub(super) struct Whole<'a> {
    pub(super) graph: &'a BuildGraph,
    /// The vertices that make the layers of each image, the lowest first.
    pub(super) layers: Vec<Vec<NodeIndex>>,
    /// `SOURCE_DATE_EPOCH`.
    pub(super) epoch: Option<i64>,
}

/// Solves what is planned. A result that a cache knows and whose files cannot be had is struck off, and the rest of the build
/// goes on with what there is; each result is lost once at most, so that comes to an end.
pub(super) fn solve_with(
    request: &BuildRequest,
    whole: &Whole<'_>,
    env: &BuildEnv,
    imports: Option<&Imports>,
    processes: &Processes,
) -> Result<Solved, Box<SolveError>> {
    let mut lost: HashSet<ResultId> = HashSet::new();
    loop {
        let error = match solve::solve(whole.graph, env, processes) {
            Ok(solved) => {
                let Err(error) = bring(request, whole, &solved, env) else { return Ok(solved) };
                error
            }
            Err(error) => error,
        };
        let (ids, why) = match error.lost() {
            Some((ids, why)) if ids.iter().any(|id| lost.insert(*id)) => (ids.to_vec(), why.to_owned()),
            _ => return Err(error),
        };
        env.sink.send(Event::Warning(format!("what is missing is built again: {why}")));
        for id in &ids {
            env.snapshots.forget_absent(id);
        }
        if let Some(imports) = imports {
            imports.lose(&ids);
        }
        env.memos.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    }
}

/// Brings the files of the images, as far as they are wanted.
fn bring(
    request: &BuildRequest,
    whole: &Whole<'_>,
    solved: &Solved,
    env: &BuildEnv,
) -> Result<(), Box<SolveError>> {
    for top in whole.layers.iter().filter_map(|layers| layers.last()) {
        let id = &solved.results[top.index()];
        let wanted = match request.files {
            FilesWanted::No => false,
            FilesWanted::Kept => !env.snapshots.lasts(id),
            FilesWanted::All => true,
        };
        if !wanted {
            continue;
        }
        if let Err(cause) = env.snapshots.get(id) {
            let vertex = &whole.graph[*top];
            return Err(Box::new(SolveError {
                label: vertex.label.clone(),
                lines: vertex.lines.clone(),
                cause: cause.into(),
                log: None,
            }));
        }
    }
    Ok(())
}

/// Writes the caches that were asked for; each is shown as a step.
///
/// # Errors
/// One could not be written, and its failure is not to be ignored.
pub(super) fn export(
    request: &BuildRequest,
    whole: &Whole<'_>,
    solved: &Solved,
    env: &BuildEnv,
    imports: Option<&Imports>,
) -> Result<(), BuildError> {
    for spec in request.cache_to.iter().filter(|spec| !spec.is_inline()) {
        let begun = Instant::now();
        let step = env.steps.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("exporting cache to {}", spec.name());
        env.sink.send(Event::Started { step, name: name.clone() });
        let exported = with_made(request, whole, solved, env, |made| share::export(made, spec, imports));
        let ended = |outcome| env.sink.send(Event::Ended { step, outcome, took: begun.elapsed() });
        match exported {
            Ok(exported) => {
                let busy = match exported.busy {
                    0 => String::new(),
                    n => format!("; {n} cache mount(s) left out, other builds use them"),
                };
                let text = format!(
                    "{} steps, {} layers; sent {} blobs of {} bytes{busy}\n",
                    exported.steps, exported.layers, exported.sent, exported.bytes
                );
                env.sink.send(Event::Log { step, stream: Stream::Stderr, bytes: text.into_bytes() });
                ended(Outcome::Done);
            }
            Err(error) if spec.ignores_errors() => {
                let text = format!("{name} failed, which does not fail the build: {error}");
                env.sink.send(Event::Warning(text));
                ended(Outcome::Failed(error.to_string()));
            }
            Err(error) => {
                ended(Outcome::Failed(error.to_string()));
                return Err(BuildError::Cache { name: spec.name(), source: error });
            }
        }
    }
    Ok(())
}

/// Makes the record that an image carries, if one is asked for.
pub(super) fn inline(
    request: &BuildRequest,
    plan: &Plan,
    solved: &Solved,
    env: &BuildEnv,
) -> Option<serde_json::Value> {
    request.cache_to.iter().find(|spec| ExportSpec::is_inline(spec))?;
    if request.squash {
        let text = "an image that is squashed carries no cache: its layers are no results of steps";
        env.sink.send(Event::Warning(text.to_owned()));
        return None;
    }
    let lines: Vec<bool> = plan.history.iter().map(|line| !line.empty_layer).collect();
    let own = Whole { graph: &plan.graph, layers: vec![plan.layers.clone()], epoch: plan.epoch };
    Some(with_made(request, &own, solved, env, |made| share::inline_record(made, &lines, plan.epoch)))
}

fn with_made<T>(
    request: &BuildRequest,
    whole: &Whole<'_>,
    solved: &Solved,
    env: &BuildEnv,
    work: impl FnOnce(&Made<'_>) -> T,
) -> T {
    let layers: Vec<ResultId> = whole.layers.iter().flatten().map(|at| solved.results[at.index()]).collect();
    let memos = env.memos.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let mounts = env.mounts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    work(&Made {
        graph: whole.graph,
        results: &solved.results,
        keys: &solved.keys,
        layers: &layers,
        memos: &memos,
        mounts: &mounts,
        snapshots: &env.snapshots,
        records: &env.records,
        flags: &request.registry,
        epoch: whole.epoch,
    })
}
