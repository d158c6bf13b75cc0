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
use crate::image::{AssembleRequest, Images, Member};
use crate::oci::History;
use crate::plan::{self, BuildGraph, CopySource, From, Joint, Op, Plan, RunMount, Warning};
use crate::platform::Platform;
use crate::progress::{Event, EventSink};
use crate::sandbox::Launcher;
use crate::share::{INLINE, Imports};
use crate::snapshot::Snapshots;
use crate::solve::{BuildEnv, BuildFolder, Processes, SharedResults, Solved};
use crate::store::Store;
use petgraph::graph::NodeIndex;
use shared::Whole;
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
    let plans = check_all(request, &tools.images)?;
    let warnings = all_warnings(&plans);
    if plans.iter().any(|plan| plan.warnings_are_errors) && !warnings.is_empty() {
        return Err(BuildError::checks(&name, source, warnings));
    }
    let joint = (plans.len() > 1).then(|| plan::join(&plans));
    let whole = whole(&plans, joint.as_ref());
    let store = tools.store.clone();
    let records = records(&store);
    let index = Arc::new(Index::new(store.root().join("index"), records.clone()));
    let contexts = contexts(request, asked(whole.graph), &store)?;
    let images = tools.images.clone();
    let sink = tools.sink.clone();
    let steps = Arc::new(AtomicUsize::new(0));
    tools.snapshots.show_fetches(sink.clone(), steps.clone());
    let imports = (!request.cache_from.is_empty()).then(|| {
        let platforms = match &request.plan.platform {
            _ if !request.platforms.is_empty() => request.platforms.clone(),
            one => vec![one.clone().unwrap_or_else(Platform::host)],
        };
        let (snapshots, sink) = (tools.snapshots.clone(), tools.sink.clone());
        Arc::new(Imports::new(
            &request.cache_from,
            &request.registry,
            platforms,
            snapshots,
            sink,
            steps.clone(),
        ))
    });
    let mut env = BuildEnv {
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
    let solve = || shared::solve_with(request, &whole, &env, imports, processes);
    // a layer of a base that is damaged here may be unpacked again from its blob
    let solved = solve().or_else(|e| if images.mend_all() { solve() } else { Err(e) });
    let solved = solved.map_err(|e| BuildError::step(&name, source, e))?;
    // what has been learnt of the contexts is written down as they go; an image is made without them
    env.contexts.clear();
    for unused in &plans[0].unused_build_args {
        sink.send(Event::Warning(format!("--build-arg {unused} is not used by any ARG of the Dockerfile")));
    }
    let of_each = |n: usize| match &joint {
        Some(joint) => part(&solved, &joint.places[n]),
        None => solved.clone(),
    };
    let mut assemblies = Vec::with_capacity(plans.len());
    for (n, plan) in plans.iter().enumerate() {
        let solved = of_each(n);
        let mut assembly = assembly(request, plan, &solved.results);
        if let Some(record) = shared::inline(request, plan, &solved, &env) {
            assembly.config.other.insert(INLINE.to_owned(), record);
        }
        assemblies.push(assembly);
    }
    let (mut image, mut index) = (None, None);
    if request.platforms.is_empty() {
        for assembly in assemblies {
            let deferred = !request.wants_image && images.defer(&assembly)?;
            image = if deferred { None } else { Some(images.assemble(assembly)?) };
        }
    } else {
        let members: Vec<Member> = request.platforms.iter().zip(assemblies).map(member(request)).collect();
        let made = images.assemble_several(&members, &request.notes.index(), &request.names)?;
        (image, index) = (Some(made.id.clone()), Some(made.target().digest.clone()));
    }
    shared::export(request, &whole, &solved, &env, imports)?;
    Ok(Built { image, index, warnings, epoch: plans[0].epoch })
}

fn whole<'a>(plans: &'a [Plan], joint: Option<&'a Joint>) -> Whole<'a> {
    let epoch = plans[0].epoch;
    match joint {
        None => Whole { graph: &plans[0].graph, layers: vec![plans[0].layers.clone()], epoch },
        Some(joint) => {
            let places = plans.iter().zip(&joint.places);
            let layers = places.map(|(plan, at)| plan.layers.iter().map(|l| at[l.index()]).collect());
            Whole { graph: &joint.graph, layers: layers.collect(), epoch }
        }
    }
}

/// Gives what became of the vertices of one plan, by its own node indexes.
fn part(solved: &Solved, places: &[NodeIndex]) -> Solved {
    Solved {
        results: places.iter().map(|at| solved.results[at.index()]).collect(),
        keys: places.iter().map(|at| solved.keys[at.index()]).collect(),
    }
}

fn member(request: &BuildRequest) -> impl Fn((&Platform, AssembleRequest)) -> Member {
    |(platform, mut assembly)| {
        assembly.names.clear();
        Member {
            platform: platform.clone(),
            request: assembly,
            annotations: request.notes.descriptor(platform),
        }
    }
}

/// Joins what was found for several platforms; what is the same is said once.
pub fn all_warnings(plans: &[Plan]) -> Vec<Warning> {
    let mut all: Vec<Warning> = Vec::new();
    for warning in plans.iter().flat_map(|plan| &plan.warnings) {
        if !all.contains(warning) {
            all.push(warning.clone());
        }
    }
    all
}

/// Gives the step records of a store.
pub fn records(store: &Store) -> Records {
    Records::new(Arc::new(shelf::StoreShelf::new(store.clone())))
}

/// What a build takes from each context, as paths and patterns.
type Asked = BTreeMap<String, Vec<Vec<u8>>>;

fn asked(graph: &BuildGraph) -> Asked {
    let mut asked = Asked::new();
    let mut ask = |from: &From, path: &str| {
        if let From::Context(name) = from {
            asked.entry(name.clone()).or_default().push(path.as_bytes().to_vec());
        }
    };
    for vertex in graph.node_weights() {
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

/// Plans without building, with all checks, for the only or the first platform: what `--check` and its relatives need.
///
/// # Errors
/// A wrong Dockerfile, or a base image that cannot be found.
pub fn check(request: &BuildRequest, images: &Images) -> Result<Plan, BuildError> {
    let mut request = request.clone();
    request.platforms.truncate(1);
    Ok(check_all(&request, images)?.remove(0))
}

/// Plans without building, with all checks, for each platform in order; one plan at least.
///
/// # Errors
/// A wrong Dockerfile, or a base image that cannot be found.
pub fn check_all(request: &BuildRequest, images: &Images) -> Result<Vec<Plan>, BuildError> {
    let source = request.dockerfile.text.as_slice();
    let name = request.dockerfile.path.display().to_string();
    let wrong = |d| BuildError::dockerfile(&name, source, d);
    let file = dockerfile::parse(source).map_err(wrong)?;
    let bases = bases::Bases::new(images, request.pull, &request.registry);
    let mut plans = Vec::new();
    for options in request.variants() {
        let mut plan = plan::plan(source, &file, &options, &bases).map_err(wrong)?;
        if let ContextSource::Dir(dir) = &request.context {
            let config = Config::of_file(&file).map_err(wrong)?;
            let found = ignored::ignored_sources(&file, &ignore_of(request, dir)?);
            plan.warnings.extend(found.into_iter().filter(|warning| warning.is_wanted(&config)));
        }
        plans.push(plan);
    }
    Ok(plans)
}

fn assembly(request: &BuildRequest, plan: &Plan, results: &[crate::digest::ResultId]) -> AssembleRequest {
    let line = |h: &plan::PlannedHistory| History {
        created_by: Some(h.created_by.clone()),
        comment: Some(h.comment.clone()).filter(|c| !c.is_empty()),
        empty_layer: h.empty_layer,
        ..History::default()
    };
    let (os, architecture) = (plan.config.os.clone(), plan.config.architecture.clone());
    let platform = Platform { os, architecture, variant: plan.config.variant.clone() };
    AssembleRequest {
        config: plan.config.clone(),
        history: plan.history.iter().map(line).collect(),
        layers: plan.layers.iter().map(|v| results[v.index()]).collect(),
        base: plan.base.clone(),
        epoch: plan.epoch,
        squash: request.squash,
        annotations: request.notes.manifest(&platform),
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
