//! The executor: walks the graph, looks results up, runs what is missing.
//!
//! `schedule` knows the order and nothing else; `ops` know how each kind of step is named and made; `solver` joins
//! them with the cache. Nothing here knows Dockerfiles, images or the command line.

mod env;
mod error;
mod folder;
mod network;
pub mod ops;
mod processes;
mod schedule;
mod shared;
mod solver;
mod why;

pub use env::{BuildEnv, RunSettings, SecretSource, Secrets};
pub use error::{OpError, SolveError};
pub use folder::BuildFolder;
pub use processes::Processes;
pub use shared::{Memo, SharedHit, SharedResults};

use crate::digest::{CacheKey, ResultId};
use crate::plan::BuildGraph;
use crate::progress::Event;
use std::sync::Mutex;

/// What became of the vertices, by node index.
#[derive(Debug, Clone)]
pub struct Solved {
    /// What each gave.
    pub results: Vec<ResultId>,
    /// The key that it was found or kept under; `None` where no key was needed.
    pub keys: Vec<Option<CacheKey>>,
}

/// Settles every vertex.
///
/// What ran before a failure stays in the cache. After the first failure running steps are ended and it is returned.
pub fn solve(graph: &BuildGraph, env: &BuildEnv, processes: &Processes) -> Result<Solved, Box<SolveError>> {
    env.sink.send(Event::Planned { steps: graph.node_count() });
    let solver = solver::Solver {
        graph,
        env,
        network: network::StepNetwork::new(env.sink.clone()),
        processes,
        learnt: Mutex::new(Vec::new()),
        keys: Mutex::new(vec![None; graph.node_count()]),
    };
    let results = schedule::run(graph, env.jobs, &solver);
    let learnt = solver.learnt.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    env.index.learn_beside(learnt);
    // the folder is for people; a build does not fail for it
    let _ = env.folder.finish();
    let keys = solver.keys.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.map(|results| Solved { results, keys })
}
