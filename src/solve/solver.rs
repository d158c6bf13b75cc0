//! One build's work: for each vertex its key, the look-up, and on a miss the run, the commit and the record.

use super::env::BuildEnv;
use super::folder::StepNote;
use super::network::StepNetwork;
use super::ops::{self, MountSource, Taken};
use super::schedule::{Inputs, Work};
use super::{OpError, Processes, SolveError, why};
use crate::cache::{KeyBuilder, KeyPart, StepRecord};
use crate::digest::{CacheKey, ChainId, ResultId};
use crate::plan::{BuildGraph, Op, Role, Vertex};
use crate::progress::{Event, Outcome};
use crate::snapshot::Prepared;
use crate::store::LockKind;
use crate::tree::Diff;
use petgraph::graph::NodeIndex;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(super) struct Solver<'a> {
    pub(super) graph: &'a BuildGraph,
    pub(super) env: &'a BuildEnv,
    pub(super) network: StepNetwork,
    pub(super) processes: &'a Processes,
    pub(super) learnt: Mutex<Vec<StepRecord>>,
    pub(super) keys: Mutex<Vec<Option<CacheKey>>>,
}

/// A step that was announced and has not ended.
struct Announced {
    step: usize,
    since: Instant,
}

/// A result that is known.
struct Hit {
    result: ResultId,
    /// The shared cache that knew it; `None` for the store.
    from: Option<String>,
}

/// All that is known of a step before it runs.
struct Named {
    key: CacheKey,
    parts: Vec<KeyPart>,
    taken: Option<Taken>,
    mounts: Vec<MountSource>,
}

impl Work for Solver<'_> {
    type Error = Box<SolveError>;

    fn known(&self, at: NodeIndex, inputs: &Inputs) -> Result<Option<ResultId>, Box<SolveError>> {
        let vertex = &self.graph[at];
        match &vertex.op {
            Op::Scratch => Ok(Some(ResultId::scratch())),
            Op::Image(image) => self.base(vertex, &image.diff_ids).map(Some),
            // looking at files may take long; these are named on their own thread
            Op::Copy(_) => Ok(None),
            Op::Run(op)
                if op.mounts.iter().any(|m| {
                    matches!(m, crate::plan::RunMount::Bind { .. } | crate::plan::RunMount::Cache { .. })
                }) =>
            {
                Ok(None)
            }
            Op::Run(_) | Op::Workdir(_) => {
                let named = self.name(vertex, inputs).map_err(|e| fail(vertex, e, None))?;
                let Some(hit) = self.look_up(vertex, &named) else { return Ok(None) };
                self.cached(vertex, &named.key, &hit);
                self.keep_key(at, named.key);
                Ok(Some(hit.result))
            }
        }
    }

    fn make(&self, at: NodeIndex, inputs: &Inputs) -> Result<ResultId, Box<SolveError>> {
        let vertex = &self.graph[at];
        let announced = self.announce(vertex);
        let done = self.name(vertex, inputs).and_then(|named| {
            let (result, outcome) = self.find_or_run(vertex, inputs, &named, &announced)?;
            Ok((named.key, result, outcome))
        });
        match done {
            Ok((key, result, outcome)) => {
                self.end(vertex, &announced, outcome, Some(&key), Some(&result));
                self.keep_key(at, key);
                Ok(result)
            }
            Err(cause) => {
                let outcome = match &cause {
                    OpError::Cancelled => Outcome::Cancelled,
                    other => Outcome::Failed(other.to_string()),
                };
                self.end(vertex, &announced, outcome, None, None);
                let log = Some(self.env.folder.log_path(announced.step)).filter(|p| p.exists());
                Err(fail(vertex, cause, log))
            }
        }
    }

    fn stop(&self) {
        self.processes.stop();
    }

    fn ends_others(&self, error: &Self::Error) -> bool {
        error.lost().is_none()
    }
}

fn fail(vertex: &Vertex, cause: OpError, log: Option<std::path::PathBuf>) -> Box<SolveError> {
    Box::new(SolveError { label: vertex.label.clone(), lines: vertex.lines.clone(), cause, log })
}

fn base_of(inputs: &Inputs) -> ResultId {
    inputs.iter().find(|(role, _)| *role == Role::Base).map_or(ResultId::scratch(), |(_, id)| *id)
}

impl Solver<'_> {
    fn announce(&self, vertex: &Vertex) -> Announced {
        let step = self.env.steps.fetch_add(1, Ordering::Relaxed) + 1;
        self.env.sink.send(Event::Started { step, name: vertex.label.clone() });
        Announced { step, since: Instant::now() }
    }

    fn end(
        &self,
        vertex: &Vertex,
        announced: &Announced,
        outcome: Outcome,
        key: Option<&CacheKey>,
        result: Option<&ResultId>,
    ) {
        let took = announced.since.elapsed();
        self.env.folder.note(StepNote {
            step: announced.step,
            label: vertex.label.clone(),
            outcome: word(&outcome),
            key: key.map(ToString::to_string),
            result: result.map(ToString::to_string),
            took_ms: millis(took),
        });
        self.env.sink.send(Event::Ended { step: announced.step, outcome, took });
    }

    fn cached(&self, vertex: &Vertex, key: &CacheKey, hit: &Hit) {
        let announced = self.announce(vertex);
        self.say_from(hit, &announced);
        self.end(vertex, &announced, Outcome::Cached, Some(key), Some(&hit.result));
    }

    fn say_from(&self, hit: &Hit, announced: &Announced) {
        if let (true, Some(from)) = (self.env.explain, &hit.from) {
            self.say(announced, &format!("why: found in the cache {from}"));
        }
    }

    fn keep_key(&self, at: NodeIndex, key: CacheKey) {
        self.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[at.index()] = Some(key);
    }

    /// An image's layers are known by its config; whether they are here is asked when a step needs them.
    fn base(&self, vertex: &Vertex, diff_ids: &[crate::digest::DiffId]) -> Result<ResultId, Box<SolveError>> {
        let chain = diff_ids.iter().fold(None, |below, diff| Some(ChainId::push(below.as_ref(), diff)));
        let result = chain.map_or(ResultId::scratch(), |chain| ResultId::chain(&chain));
        // if they are here they stay until the build ends, whatever becomes of the image
        self.env.snapshots.has(&result);
        let announced = self.announce(vertex);
        self.end(vertex, &announced, Outcome::Cached, None, Some(&result));
        Ok(result)
    }

    /// Makes the key of a vertex; reads what it must of files, runs nothing.
    fn name(&self, vertex: &Vertex, inputs: &Inputs) -> Result<Named, OpError> {
        let base = base_of(inputs);
        match &vertex.op {
            Op::Run(op) => {
                let mounts = ops::mount_sources(op, inputs, self.env)?;
                let mut key = KeyBuilder::new("RUN");
                ops::run::feed(op, &base, &mounts, self.env, &mut key);
                let (key, parts) = key.finish();
                Ok(Named { key, parts, taken: None, mounts })
            }
            Op::Copy(op) => {
                let taken = Taken::select(op, inputs, self.env)?;
                let mut key = KeyBuilder::new(if op.is_add { "ADD" } else { "COPY" });
                ops::copying::feed(op, &base, &taken, &mut key);
                let (key, parts) = key.finish();
                Ok(Named { key, parts, taken: Some(taken), mounts: Vec::new() })
            }
            Op::Workdir(op) => {
                let mut key = KeyBuilder::new("WORKDIR");
                key.id("base", &base.0).text("path", &op.path).text("user", &op.user);
                let (key, parts) = key.finish();
                Ok(Named { key, parts, taken: None, mounts: Vec::new() })
            }
            Op::Scratch | Op::Image(_) => unreachable!("settled without a key"),
        }
    }

    fn look_up(&self, vertex: &Vertex, named: &Named) -> Option<Hit> {
        if vertex.no_cache {
            return None;
        }
        // from here on it is ours: nobody removes it while this build runs
        if let Some(record) = self.env.records.get(&named.key)
            && self.env.snapshots.has(&record.result)
        {
            self.env.records.touch(&named.key, seconds_now());
            return Some(Hit { result: record.result, from: None });
        }
        self.look_elsewhere(vertex, named)
    }

    /// Asks the shared caches; what they know is kept as if the step had run here.
    fn look_elsewhere(&self, vertex: &Vertex, named: &Named) -> Option<Hit> {
        let hit = self.env.shared.as_ref()?.find(&named.key, &vertex.label)?;
        if !self.env.snapshots.has(&hit.result) {
            return None;
        }
        let record = self.record(vertex, named, hit.result, hit.took_ms);
        // losing it means asking again
        let _ = self.env.records.put(&record);
        self.learnt.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(record);
        Some(Hit { result: hit.result, from: Some(hit.from) })
    }

    fn record(&self, vertex: &Vertex, named: &Named, result: ResultId, took_ms: u64) -> StepRecord {
        StepRecord {
            key: named.key,
            result,
            label: vertex.label.clone(),
            place: self.place(vertex),
            parts: named.parts.clone(),
            ended: u64::try_from(seconds_now()).unwrap_or(0),
            took_ms,
        }
    }

    /// Takes the key's lock, so that of several builds that want the step one runs it, and looks once more.
    fn find_or_run(
        &self,
        vertex: &Vertex,
        inputs: &Inputs,
        named: &Named,
        announced: &Announced,
    ) -> Result<(ResultId, Outcome), OpError> {
        if let Some(hit) = self.look_up(vertex, named) {
            self.say_from(&hit, announced);
            return Ok((hit.result, Outcome::Cached));
        }
        // three hex digits: few files that need no cleaning up, and two steps at once almost never meet
        let name = format!("step-{:.3}", named.key.to_string());
        let _lock = self.processes.wait_for(|| self.env.store.try_lock(&name, LockKind::Exclusive))?;
        if let Some(hit) = self.look_up(vertex, named) {
            return Ok((hit.result, Outcome::Cached));
        }
        self.explain(vertex, named, announced);
        // other processes may use the index while this step runs
        self.env.index.close();
        let begun = Instant::now();
        let committed = self.run(vertex, inputs, named, announced)?;
        let record = self.record(vertex, named, committed.id, millis(begun.elapsed()));
        let io = |source| OpError::Io { action: "keep the step's record".into(), source };
        self.env.records.put(&record).map_err(io)?;
        why::keep(&named.key, named.taken.as_ref(), self.env);
        self.learnt.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(record);
        Ok((committed.id, if committed.existed { Outcome::Unchanged } else { Outcome::Done }))
    }

    fn run(
        &self,
        vertex: &Vertex,
        inputs: &Inputs,
        named: &Named,
        announced: &Announced,
    ) -> Result<crate::snapshot::Committed, OpError> {
        let base = base_of(inputs);
        let mut prepared = self.env.snapshots.prepare(&base)?;
        let diff = match &vertex.op {
            Op::Run(op) => ops::run::run(
                op,
                &prepared,
                &named.mounts,
                vertex.no_cache,
                self.env,
                &self.network,
                announced.step,
                self.processes,
            )?,
            Op::Copy(op) => {
                let taken = named.taken.as_ref().expect("a copy is named by what it takes");
                let (place, parent) = (self.place(vertex), prepared.parent.clone());
                let rest = ops::copying::Rest::find(&place, &parent, self.env);
                let diff = ops::copying::run(op, taken, &mut prepared, self.env, rest.as_ref())?;
                return self.commit_copy(vertex, named, prepared, diff, &place);
            }
            Op::Workdir(op) => ops::workdir::run(op, &prepared, self.env)?,
            Op::Scratch | Op::Image(_) => unreachable!("settled without a run"),
        };
        let record = crate::snapshot::StepRecord { key: Some(named.key), instruction: vertex.label.clone() };
        Ok(self.env.snapshots.commit(prepared, diff, record)?)
    }

    /// Keeps what a copy has made, and what the next one at its place may be a difference to.
    fn commit_copy(
        &self,
        vertex: &Vertex,
        named: &Named,
        prepared: Prepared,
        diff: Diff,
        place: &str,
    ) -> Result<crate::snapshot::Committed, OpError> {
        let (parent, entries) = (prepared.parent.clone(), diff.len());
        let record = crate::snapshot::StepRecord { key: Some(named.key), instruction: vertex.label.clone() };
        let committed = self.env.snapshots.commit(prepared, diff, record)?;
        if self.env.snapshots.info(&committed.id).is_ok_and(|info| info.rest.is_none()) {
            ops::copying::Rest::remember(&committed.id, entries, place, &parent, self.env);
        }
        Ok(committed)
    }

    /// Names the instruction across builds: its place in its stage, without its words.
    fn place(&self, vertex: &Vertex) -> String {
        let label = vertex.label.split_once(']').map_or("", |(place, rest)| {
            let word = rest.trim_start().split(' ').next().unwrap_or("");
            &vertex.label[..place.len() + 2 + word.len()]
        });
        format!("{}\0{label}", self.env.place)
    }

    fn explain(&self, vertex: &Vertex, named: &Named, announced: &Announced) {
        if !self.env.explain {
            return;
        }
        let nearest = self.env.index.nearest(&self.place(vertex)).and_then(|key| self.env.records.get(&key));
        let (key, parts, taken) = (&named.key, &named.parts, named.taken.as_ref());
        let lines = why::why(vertex, key, parts, taken, nearest.as_ref(), self.env);
        for line in lines {
            self.say(announced, &format!("why: {line}"));
        }
    }

    fn say(&self, announced: &Announced, line: &str) {
        let bytes = format!("{line}\n").into_bytes();
        let stream = crate::progress::Stream::Stderr;
        self.env.sink.send(Event::Log { step: announced.step, stream, bytes });
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Cached => "cached",
        Outcome::Done => "done",
        Outcome::Unchanged => "unchanged",
        Outcome::Failed(_) => "failed",
        Outcome::Cancelled => "canceled",
    }
}

/// Seconds since the epoch; 0 before it.
fn seconds_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
