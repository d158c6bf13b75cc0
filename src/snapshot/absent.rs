//! Snapshots that are known and not here: what a build must know of a result to go on without its bytes.
//!
//! ```text
//! absent/<result id>     what is known, sealed JSON; goes when the snapshot comes
//! ```
//!
//! A base image of a registry and a step that another machine ran are known by their ids and by the blobs that hold
//! their layers. [`Snapshots::has`] says yes to them, [`Snapshots::get`] brings them first (see `fetch`). Where the
//! bytes come from is the business of a [`LayerProvider`]: one that can be found again by everybody (a registry) is
//! named in the file, so that later commands can fetch, too; any other lives in memory as long as the process, and what
//! is known afterwards is the result and not its files. A step that needs those makes the solver run what made them.

use super::record::{SnapshotInfo, StepRecord, seal, unseal};
use super::{LayerInfo, SnapshotError, Snapshots};
use crate::digest::{ChainId, DiffId, ResultId};
use crate::interrupt::Stop;
use crate::oci::Descriptor;
use crate::progress::EventSink;
use crate::store::StoreError;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

/// No honest record is longer, in bytes.
const MAX_ABSENT: u64 = 1 << 20;
/// More layers than any stack has.
const MAX_DEPTH: usize = 10_000;
/// What was noted within this time stays, whoever needs it: its build may not have ended yet.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// Hands out the bytes of layers that are elsewhere.
pub trait LayerProvider: Send + Sync {
    /// Opens a blob at a place, which only the provider understands. The reader may fail in the middle and may give
    /// wrong bytes: whoever reads checks length and digest.
    ///
    /// # Errors
    /// There is no such blob, or the place cannot be reached.
    fn open(&self, place: &str, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>>;
}

/// A place that has a layer's bytes.
#[derive(Clone)]
pub struct Source {
    /// The blob there.
    pub blob: Descriptor,
    /// Where it is, in the words of the provider.
    pub place: String,
    /// Who fetches it; `None` for the provider that every process has, see [`Snapshots::set_provider`].
    pub provider: Option<Arc<dyn LayerProvider>>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.blob.digest, self.place)
    }
}

/// What kind of result it is, and what proves that fetched bytes are it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// What a step made: its id follows from the parent's and the content.
    Step {
        /// What made it.
        step: StepRecord,
        /// When, in seconds since the epoch.
        created: i64,
    },
    /// A layer of an image: its id follows from the chain.
    Image {
        /// The stack up to it.
        chain: ChainId,
    },
}

/// A snapshot that is known and perhaps not here.
#[derive(Debug, Clone)]
pub struct Absent {
    /// Names it.
    pub id: ResultId,
    /// What it stands on.
    pub parent: ResultId,
    /// What it is.
    pub origin: Origin,
    /// Its tar, if that is known.
    pub layer: Option<LayerInfo>,
    /// The same for tars with times clamped to an epoch.
    pub clamped: Vec<(i64, LayerInfo)>,
    /// Where its bytes are; with none of them it can only be made again.
    pub sources: Vec<Source>,
}

/// The part of [`Absent`] that is written.
#[derive(Serialize, Deserialize)]
struct Written {
    id: ResultId,
    parent: ResultId,
    origin: Origin,
    layer: Option<LayerInfo>,
    clamped: Vec<(i64, LayerInfo)>,
    places: Vec<(String, Descriptor)>,
}

impl Absent {
    /// Gives the digest that its tar must have, when it is known.
    pub(super) fn diff_id(&self) -> Option<&DiffId> {
        self.layer.as_ref()?.diff_id.as_ref()
    }

    fn written(&self) -> Written {
        let lasting = self.sources.iter().filter(|source| source.provider.is_none());
        Written {
            id: self.id,
            parent: self.parent,
            origin: self.origin.clone(),
            layer: self.layer.clone(),
            clamped: self.clamped.clone(),
            places: lasting.map(|source| (source.place.clone(), source.blob.clone())).collect(),
        }
    }

    pub(super) fn info(&self) -> SnapshotInfo {
        let (chain, step, created) = match &self.origin {
            Origin::Step { step, created, .. } => (None, step.clone(), *created),
            Origin::Image { chain } => (Some(chain.clone()), StepRecord::default(), 0),
        };
        SnapshotInfo {
            id: self.id,
            parent: self.parent,
            rest: None,
            bytes: 0,
            chain,
            step,
            aliases: Vec::new(),
            created,
        }
    }

    pub(super) fn layer_at(&self, epoch: Option<i64>) -> LayerInfo {
        let known = match epoch {
            None => self.layer.clone(),
            Some(epoch) => self.clamped.iter().find(|(at, _)| *at == epoch).map(|(_, info)| info.clone()),
        };
        known.unwrap_or_default()
    }
}

impl From<Written> for Absent {
    fn from(written: Written) -> Self {
        let source = |(place, blob)| Source { blob, place, provider: None };
        Self {
            id: written.id,
            parent: written.parent,
            origin: written.origin,
            layer: written.layer,
            clamped: written.clamped,
            sources: written.places.into_iter().map(source).collect(),
        }
    }
}

impl Snapshots {
    /// Sets the provider of places that are found in files. The first one stays.
    pub fn set_provider(&self, provider: Arc<dyn LayerProvider>) {
        let _ = self.inner.provider.set(provider);
    }

    /// Has each layer that is fetched shown as a step; `steps` numbers them. The first sink stays.
    pub fn show_fetches(&self, sink: Arc<dyn EventSink>, steps: Arc<AtomicUsize>) {
        let _ = self.inner.shown.set((sink, steps));
    }

    /// Ends fetches when somebody asks to stop. The first one stays.
    pub fn set_stop(&self, stop: &Stop) {
        let _ = self.inner.stop.set(stop.clone());
    }

    /// Notes a snapshot that is elsewhere; does nothing when it is here. What is known already gets the new sources.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn know(&self, absent: Absent) -> Result<(), SnapshotError> {
        let id = absent.id;
        if self.is_present(&id) {
            return Ok(());
        }
        let mut absent = absent;
        if let Some(known) = self.absent(&id) {
            if let (Origin::Step { step: new, .. }, Origin::Step { step: old, .. }) =
                (&mut absent.origin, &known.origin)
                && new.instruction.is_empty()
            {
                new.clone_from(old);
            }
            for source in known.sources {
                if !absent.sources.iter().any(|s| (&s.place, &s.blob) == (&source.place, &source.blob)) {
                    absent.sources.push(source);
                }
            }
        }
        let dir = self.inner.store.path("absent");
        std::fs::create_dir_all(&dir).map_err(StoreError::io("make the directory", &dir))?;
        self.inner.store.write_atomic(&file(&id), &seal(&absent.written()), false)?;
        self.inner.absent.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::new(absent));
        Ok(())
    }

    /// Gives what is known of a snapshot that is not here.
    pub fn absent(&self, id: &ResultId) -> Option<Absent> {
        let mut known = self.inner.absent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(absent) = known.get(id) {
            return Some(Absent::clone(absent));
        }
        let bytes = self.inner.store.read(&file(id), MAX_ABSENT).ok()??;
        let absent = unseal::<Written>(&bytes).filter(|written| written.id == *id).map(Absent::from)?;
        known.insert(*id, Arc::new(absent.clone()));
        Some(absent)
    }

    /// Says whether a later process could still have the files of a snapshot and of all that it stands on.
    pub fn lasts(&self, id: &ResultId) -> bool {
        let mut next = self.real(id);
        // a circle among what others say of parents ends where the last step would
        for _ in 0..MAX_DEPTH {
            let Some(id) = next else { return *id == ResultId::scratch() };
            if self.is_present(&id) {
                return true;
            }
            let Some(absent) = self.absent(&id) else { return false };
            if !absent.sources.iter().any(|source| source.provider.is_none()) {
                return false;
            }
            if absent.parent == ResultId::scratch() {
                return true;
            }
            next = self.real(&absent.parent);
        }
        false
    }

    /// Forgets what is known of a snapshot that is not here: its bytes cannot be had, say.
    pub fn forget_absent(&self, id: &ResultId) {
        self.inner.absent.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        let _ = std::fs::remove_file(self.absent_path(id));
    }

    /// Forgets what is known of snapshots that are here by now: a kill comes between their arrival and this.
    pub fn forget_arrived(&self) {
        for entry in std::fs::read_dir(self.inner.store.path("absent")).into_iter().flatten().flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse::<ResultId>().ok());
            if let Some(id) = id
                && matches!(self.read_record(&id), Ok(Some(_)))
            {
                self.forget_absent(&id);
            }
        }
    }

    /// Forgets all snapshots that are elsewhere and that neither one of `roots` is or stands on. What was noted within
    /// the last day stays.
    pub fn forget_unneeded(&self, roots: &[ResultId]) {
        let mut needed = HashSet::new();
        for root in roots {
            let mut next = self.real(root);
            while let Some(id) = next.filter(|id| needed.insert(*id)) {
                next = self.absent(&id).and_then(|absent| self.real(&absent.parent));
            }
        }
        let Ok(entries) = std::fs::read_dir(self.inner.store.path("absent")) else { return };
        for entry in entries.flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse::<ResultId>().ok());
            let written = entry.metadata().and_then(|meta| meta.modified()).ok();
            let young =
                written.is_some_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < GRACE));
            let Some(id) = id else { continue };
            if self.is_present(&id) || !(young || needed.contains(&id)) {
                self.forget_absent(&id);
            }
        }
    }

    fn absent_path(&self, id: &ResultId) -> PathBuf {
        self.inner.store.path(&file(id))
    }
}

fn file(id: &ResultId) -> String {
    format!("absent/{id}")
}
