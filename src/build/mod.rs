//! From a request to an image: the one place that joins parse, plan, solve, assemble and export.

mod bases;
mod error;
mod gather;
mod ignored;
mod origin;
mod request;
mod shared;
mod shelf;
mod stat_cache;

pub use bases::{PullPolicy, fetch_documents};
pub use error::BuildError;
pub use gather::{GatherError, Gathered, Gatherer};
pub use origin::{DockerfileOrigin, NamedOrigin, Origin, OriginError};
pub use request::{BuildRequest, Built, ContextSource, Fetched, IgnoreFrom};
pub use shared::FilesWanted;

use crate::cache::{Index, Records};
use crate::context::{BuildContext, IgnoreRules, load_ignore};
use crate::dockerfile::{self, lint::Config};
use crate::image::{AssembleRequest, Images};
use crate::oci::History;
use crate::plan::{self, CopySource, From, Op, Plan, RunMount};
use crate::platform::Platform;
use crate::progress::{Event, EventSink};
use crate::sandbox::Launcher;
use crate::share::{INLINE, Imports};
use crate::snapshot::Snapshots;
use crate::solve::{BuildEnv, BuildFolder, Processes, SharedResults};
use crate::store::Store;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Why there is no file in the context of a Dockerfile that came alone.
const ALONE: &str = "this build has no context, since the Dockerfile came alone (from standard input or an URL): give a \
                     directory as the last argument, and such a Dockerfile by -f";

/// What a build works with; made once by the command line.
pub struct Tools {
    /// Where everything is kept.
    pub store: Store,
    /// Its snapshots.
    pub snapshots: Snapshots,
    /// Its images.
    pub images: Images,
    /// Starts processes; made before any thread.
    pub launcher: Launcher,
    /// Hears what happens.
    pub sink: Arc<dyn EventSink>,
}

/// Builds an image and gives it its names.
///
/// # Errors
/// [`BuildError`]. What ran before the failure stays in the cache; no image and no name is changed.
pub fn build(request: &BuildRequest, tools: Tools, processes: &Processes) -> Result<Built, BuildError> {
    let source = request.dockerfile.text.as_slice();
    let name = request.dockerfile.path.display().to_string();
    let plan = check(request, &tools.images)?;
    if plan.warnings_are_errors && !plan.warnings.is_empty() {
        return Err(BuildError::checks(&name, source, plan.warnings));
    }
    let store = tools.store.clone();
    let records = records(&store);
    let index = Arc::new(Index::new(store.root().join("index"), records.clone()));
    let contexts = contexts(request, asked(&plan), &store)?;
    let images = tools.images.clone();
    let sink = tools.sink.clone();
    let steps = Arc::new(AtomicUsize::new(0));
    let imports = (!request.cache_from.is_empty()).then(|| {
        let platform = request.plan.platform.clone().unwrap_or_else(Platform::host);
        let (snapshots, sink) = (tools.snapshots.clone(), tools.sink.clone());
        Arc::new(Imports::new(
            &request.cache_from,
            &request.registry,
            platform,
            snapshots,
            sink,
            steps.clone(),
        ))
    });
    let env = BuildEnv {
        folder: BuildFolder::new(&store.root().join("builds")),
        store,
        snapshots: tools.snapshots,
        records,
        index,
        launcher: tools.launcher,
        contexts,
        secrets: request.secrets.clone(),
        run: request.run.clone(),
        sink: tools.sink,
        jobs: request.jobs,
        explain: request.explain,
        place: format!("{name}\0{}", request.context.place()),
        renewed: Default::default(),
        shared: imports.clone().map(|imports| imports as Arc<dyn SharedResults>),
        memos: Default::default(),
        mounts: Default::default(),
        steps,
    };
    let imports = imports.as_deref();
    let solved = shared::solve_with(request, &plan, &env, imports, processes)
        .map_err(|e| BuildError::step(&name, source, e))?;
    for context in env.contexts.values() {
        context.remember();
    }
    for unused in &plan.unused_build_args {
        sink.send(Event::Warning(format!("--build-arg {unused} is not used by any ARG of the Dockerfile")));
    }
    let mut assembly = assembly(request, &plan, &solved.results);
    if let Some(record) = shared::inline(request, &plan, &solved, &env) {
        assembly.config.other.insert(INLINE.to_owned(), record);
    }
    let deferred = !request.wants_image && images.defer(&assembly)?;
    let image = if deferred { None } else { Some(images.assemble(assembly)?) };
    shared::export(request, &plan, &solved, &env, imports)?;
    Ok(Built { image, warnings: plan.warnings, epoch: plan.epoch })
}

/// Gives the step records of a store.
pub fn records(store: &Store) -> Records {
    Records::new(Arc::new(shelf::StoreShelf::new(store.clone())))
}

/// What a build takes from each context, as paths and patterns.
type Asked = BTreeMap<String, Vec<Vec<u8>>>;

fn asked(plan: &Plan) -> Asked {
    let mut asked = Asked::new();
    let mut ask = |from: &From, path: &str| {
        if let From::Context(name) = from {
            asked.entry(name.clone()).or_default().push(path.as_bytes().to_vec());
        }
    };
    for vertex in plan.graph.node_weights() {
        match &vertex.op {
            Op::Copy(copy) => {
                for source in &copy.sources {
                    if let CopySource::Path(path) = source {
                        ask(&copy.from, path);
                    }
                }
            }
            Op::Run(run) => {
                for mount in &run.mounts {
                    if let RunMount::Bind { from, source, .. } | RunMount::Cache { from, source, .. } = mount
                    {
                        ask(from, source);
                    }
                }
            }
            _ => {}
        }
    }
    asked
}

/// Plans without building, with all checks: what `--check` and its relatives need.
///
/// # Errors
/// A wrong Dockerfile, or a base image that cannot be found.
pub fn check(request: &BuildRequest, images: &Images) -> Result<Plan, BuildError> {
    let source = request.dockerfile.text.as_slice();
    let name = request.dockerfile.path.display().to_string();
    let wrong = |d| BuildError::dockerfile(&name, source, d);
    let file = dockerfile::parse(source).map_err(wrong)?;
    let bases = bases::Bases::new(images, request.pull, &request.registry);
    let mut plan = plan::plan(source, &file, &request.plan, &bases).map_err(wrong)?;
    if let ContextSource::Dir(dir) = &request.context {
        let config = Config::of_file(&file).map_err(wrong)?;
        let found = ignored::ignored_sources(&file, &ignore_of(request, dir)?);
        plan.warnings.extend(found.into_iter().filter(|warning| warning.is_wanted(&config)));
    }
    Ok(plan)
}

fn assembly(request: &BuildRequest, plan: &Plan, results: &[crate::digest::ResultId]) -> AssembleRequest {
    let line = |h: &plan::PlannedHistory| History {
        created_by: Some(h.created_by.clone()),
        comment: Some(h.comment.clone()).filter(|c| !c.is_empty()),
        empty_layer: h.empty_layer,
        ..History::default()
    };
    AssembleRequest {
        config: plan.config.clone(),
        history: plan.history.iter().map(line).collect(),
        layers: plan.layers.iter().map(|v| results[v.index()]).collect(),
        base: plan.base.clone(),
        epoch: plan.epoch,
        squash: request.squash,
        annotations: request.annotations.clone(),
        names: request.names.clone(),
    }
}

/// Opens the contexts; nothing in them is read before a step asks.
fn contexts(
    request: &BuildRequest,
    mut asked: Asked,
    store: &Store,
) -> Result<BTreeMap<String, Arc<BuildContext>>, BuildError> {
    let mut out = BTreeMap::new();
    let mut put = |name: &str, context: BuildContext| {
        let asked = asked.remove(name).unwrap_or_default();
        out.insert(name.to_owned(), Arc::new(context.asked_for(asked)));
    };
    put("", open(&request.context, store, |dir| ignore_of(request, dir))?);
    for (name, source) in &request.named {
        let ignore = |dir: &Path| match source {
            ContextSource::Dir(_) => Ok(load_ignore(dir, None)?),
            _ => Ok(IgnoreRules::none()),
        };
        put(name, open(source, store, ignore)?);
    }
    Ok(out)
}

fn ignore_of(request: &BuildRequest, dir: &Path) -> Result<IgnoreRules, BuildError> {
    match &request.ignore {
        IgnoreFrom::File(path) => {
            let text = std::fs::read(path).map_err(|e| BuildError::read(path, e))?;
            Ok(IgnoreRules::parse(&text, &path.display().to_string())?)
        }
        IgnoreFrom::Context { beside } => Ok(load_ignore(dir, beside.as_deref())?),
        IgnoreFrom::Nowhere => Ok(IgnoreRules::none()),
    }
}

/// Opens a context. What is known of the files of an earlier build counts for the user's directories only: what is
/// fetched stands elsewhere each time.
fn open(
    source: &ContextSource,
    store: &Store,
    ignore: impl FnOnce(&Path) -> Result<IgnoreRules, BuildError>,
) -> Result<BuildContext, BuildError> {
    Ok(match source {
        ContextSource::Empty => {
            // the open directory stays what it is when its name goes at the end of this block
            let dir = store.temp_dir("context")?;
            BuildContext::dir(dir.path(), IgnoreRules::none(), None)?.empty_since(ALONE)
        }
        ContextSource::Fetched(fetched) => {
            let context = BuildContext::dir(&fetched.path, ignore(&fetched.path)?, None)?;
            if fetched.owners { context.with_owners() } else { context }
        }
        ContextSource::Dir(dir) => {
            let path = dir.canonicalize().map_err(|e| BuildError::read(dir, e))?;
            let stats = stat_cache::StoredStats::new(store.clone(), &path);
            BuildContext::dir(&path, ignore(dir)?, Some(Box::new(stats)))?
        }
    })
}
