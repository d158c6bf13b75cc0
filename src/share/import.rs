//! Caches that are read: asked by the solver, each fetched once a build, when the first question comes.
//!
//! What a cache says is believed so far: a key leads to the result that it names. The result's files are another matter;
//! they are checked when they come, and a result whose files are wrong or gone is struck off, so that its step runs.

use super::ShareError;
use super::document::{Document, LayerEntry, MemoEntry, MountEntry, ResultEntry, StepEntry};
use super::inline;
use super::lasting::EMPTY;
use super::layout::Layout;
use super::mounts::unpack_mount;
use super::place::CacheSource;
use super::repository::Repository;
use super::s3::Store3;
use super::spec::{ImportSpec, Where};
use crate::digest::{CacheKey, ResultId};
use crate::oci::Descriptor;
use crate::platform::Platform;
use crate::progress::{Event, EventSink, Outcome, Stream};
use crate::registry::{Client, Flags, Settings};
use crate::snapshot::{Absent, LayerInfo, LayerProvider, Origin, Snapshots, Source, StepRecord};
use crate::solve::{Memo, SharedHit, SharedResults};
use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// All caches of one build.
pub struct Imports {
    specs: Vec<ImportSpec>,
    flags: Flags,
    platforms: Vec<Platform>,
    snapshots: Snapshots,
    sink: Arc<dyn EventSink>,
    steps: Arc<AtomicUsize>,
    loaded: OnceLock<Vec<Loaded>>,
    lost: Mutex<HashSet<ResultId>>,
}

/// One cache with what it knows.
struct Loaded {
    source: Arc<dyn CacheSource>,
    steps: HashMap<CacheKey, StepEntry>,
    results: HashMap<ResultId, ResultEntry>,
    memos: HashMap<[u8; 32], MemoEntry>,
    mounts: HashMap<String, MountEntry>,
}

/// A source as a provider of layers.
struct Provider(Arc<dyn CacheSource>);

impl LayerProvider for Provider {
    fn open(&self, place: &str, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        self.0.open(place, blob)
    }
}

impl Imports {
    /// Means to read these caches; asks none yet. `steps` numbers what is shown.
    pub fn new(
        specs: &[ImportSpec],
        flags: &Flags,
        platforms: Vec<Platform>,
        snapshots: Snapshots,
        sink: Arc<dyn EventSink>,
        steps: Arc<AtomicUsize>,
    ) -> Self {
        let (loaded, lost) = (OnceLock::new(), Mutex::default());
        Self { specs: specs.to_vec(), flags: flags.clone(), platforms, snapshots, sink, steps, loaded, lost }
    }

    /// Strikes results off: their files cannot be had.
    pub fn lose(&self, ids: &[ResultId]) {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
    }

    /// Finds the blob of a result or mount that some cache holds, as it is there.
    pub(super) fn layer_of(&self, id: &ResultId) -> Option<&LayerEntry> {
        let loaded = self.loaded.get()?;
        loaded.iter().find_map(|cache| cache.results.get(id)?.layer.as_ref())
    }

    pub(super) fn mount_of(&self, name: &str) -> Option<&MountEntry> {
        self.loaded.get()?.iter().find_map(|cache| cache.mounts.get(name))
    }

    fn loaded(&self) -> &[Loaded] {
        self.loaded.get_or_init(|| {
            std::thread::scope(|scope| {
                let threads: Vec<_> =
                    self.specs.iter().map(|spec| scope.spawn(move || self.load(spec))).collect();
                threads.into_iter().filter_map(|thread| thread.join().ok()?).collect()
            })
        })
    }

    /// Reads one cache, and shows it as a step.
    fn load(&self, spec: &ImportSpec) -> Option<Loaded> {
        let begun = Instant::now();
        let step = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        let say = |text: String| {
            let bytes = format!("{text}\n").into_bytes();
            self.sink.send(Event::Log { step, stream: Stream::Stderr, bytes });
        };
        let (name, found) = match source(spec, &self.flags, &self.platforms) {
            Ok(source) => {
                let name = source.name();
                self.sink.send(Event::Started { step, name: format!("importing cache from {name}") });
                let document = source.document();
                (name, document.map(|document| document.map(|document| (source, document))))
            }
            Err(error) => {
                self.sink.send(Event::Started { step, name: "importing cache".to_owned() });
                (String::new(), Err(error))
            }
        };
        let loaded = match found {
            Ok(Some((source, document))) => Some(Loaded::new(source, document, spec.mounts)),
            Ok(None) => {
                say("there is no cache yet".to_owned());
                None
            }
            Err(error) => {
                let text = format!("the cache {name} cannot be read, so nothing of it is used: {error}");
                self.sink.send(Event::Warning(text));
                None
            }
        };
        self.sink.send(Event::Ended { step, outcome: Outcome::Done, took: begun.elapsed() });
        loaded
    }
}

impl Loaded {
    fn new(source: Arc<dyn CacheSource>, document: Document, mounts: bool) -> Self {
        let mounts = document.mounts.into_iter().filter(|_| mounts);
        Self {
            source,
            steps: document.steps.into_iter().map(|step| (step.key, step)).collect(),
            results: document.results.into_iter().map(|result| (result.id, result)).collect(),
            memos: document.memos.into_iter().map(|memo| (memo.name.0, memo)).collect(),
            mounts: mounts.map(|mount| (mount.name.clone(), mount)).collect(),
        }
    }

    /// Lists a result and what it stands on, as far as the cache knows; the lowest first. `None` for a circle.
    fn chain(&self, id: &ResultId) -> Option<Vec<&ResultEntry>> {
        let mut chain: Vec<&ResultEntry> = Vec::new();
        let mut next = id;
        while let Some(entry) = self.results.get(next) {
            if chain.len() > self.results.len() {
                return None;
            }
            chain.push(entry);
            next = &entry.parent;
        }
        chain.reverse();
        Some(chain)
    }

    fn absent(&self, entry: &ResultEntry, instruction: &str) -> Absent {
        let info = |layer: &LayerEntry| LayerInfo {
            diff_id: Some(layer.diff_id.clone()),
            tar_size: layer.tar_size,
            ..LayerInfo::default()
        };
        let clamped = entry.clamped.iter().map(|clamped| {
            let (diff_id, tar_size) = (Some(clamped.diff_id.clone()), Some(clamped.tar_size));
            (clamped.epoch, LayerInfo { diff_id, tar_size, ..LayerInfo::default() })
        });
        Absent {
            id: entry.id,
            parent: entry.parent,
            origin: Origin::Step {
                step: StepRecord { key: None, instruction: instruction.to_owned() },
                created: entry.created,
            },
            layer: entry.layer.as_ref().map(info),
            clamped: clamped.collect(),
            sources: entry.layer.iter().map(|layer| self.source(layer)).collect(),
        }
    }

    fn source(&self, layer: &LayerEntry) -> Source {
        let blob = layer.blob.clone();
        if blob.digest == inline::empty().blob.digest {
            return Source { blob, place: EMPTY.to_owned(), provider: None };
        }
        let provider: Option<Arc<dyn LayerProvider>> =
            if self.source.lasts() { None } else { Some(Arc::new(Provider(self.source.clone()))) };
        Source { blob, place: self.source.place(), provider }
    }
}

impl SharedResults for Imports {
    fn find(&self, key: &CacheKey, instruction: &str) -> Option<SharedHit> {
        for cache in self.loaded() {
            let Some(step) = cache.steps.get(key) else { continue };
            let Some(chain) = cache.chain(&step.result).filter(|chain| !chain.is_empty()) else { continue };
            let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
            if chain.iter().any(|entry| lost.contains(&entry.id)) {
                continue;
            }
            drop(lost);
            let known = chain.into_iter().all(|entry| {
                let instruction = if entry.id == step.result { instruction } else { "" };
                self.snapshots.know(cache.absent(entry, instruction)).is_ok()
            });
            if known {
                let (result, took_ms) = (step.result, step.took_ms);
                return Some(SharedHit { result, from: cache.source.name(), took_ms });
            }
        }
        None
    }

    fn memo(&self, name: &[u8; 32]) -> Option<Memo> {
        let memo = self.loaded().iter().find_map(|cache| cache.memos.get(name))?;
        Some(Memo { name: *name, content: memo.content, result: memo.result })
    }

    fn fill_mount(&self, name: &str, into: &Path) -> io::Result<bool> {
        for cache in self.loaded() {
            if let Some(mount) = cache.mounts.get(name) {
                let store = self.snapshots.store();
                unpack_mount(&mount.layer, &cache.source.place(), &*cache.source, store, into)?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Opens what a `--cache-from` names.
fn source(
    spec: &ImportSpec,
    flags: &Flags,
    platforms: &[Platform],
) -> Result<Arc<dyn CacheSource>, ShareError> {
    Ok(match &spec.at {
        Where::Registry(name) => Arc::new(Repository {
            client: Client::new(Settings::with_flags(flags)?),
            name: name.clone(),
            platforms: platforms.to_vec(),
        }),
        Where::Local { dir, tag, digest } => Arc::new(Layout::source(dir, tag, digest.clone())),
        Where::S3(bucket) => Arc::new(Store3::new(bucket)?),
        Where::Inline => return Err(ShareError::Wrong("an image is named by type=registry".to_owned())),
    })
}
