//! Brings snapshots that are elsewhere: downloads several at once, unpacks from the bottom up, checks everything.
//!
//! ```text
//! blob 1 ──download──► file ─┐
//! blob 2 ──download──► file ─┼─► unpack 1, check, commit ─► unpack 2, check, commit ─► ...
//! blob 3 ──download──► file ─┘    (a layer is unpacked while it still arrives)
//! ```
//!
//! A layer is believed when blob length and digest, the digest of its tar, and the result id that its content leads
//! to are as announced. It becomes visible by the rename of a commit; a kill leaves files in `tmp/`, which the next
//! process sweeps. Processes that want the same layer wait for the first on the lock that a pull takes, too; locks are
//! taken from the bottom up, so they cannot wait for each other in a circle.

use super::absent::{Absent, Origin, Source};
use super::{SnapshotError, Snapshots};
use crate::digest::{Digest, ResultId};
use crate::interrupt::Pump;
use crate::layer::{LayerError, UnpackOptions, Unpacked, unpack_blob};
use crate::oci::Descriptor;
use crate::progress::{Moving, Outcome};
use crate::store::{LockKind, StoreError, TempDir};
use crate::sys::fsutil;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Downloads at the same time, as docker has it by default plus one.
const DOWNLOADS: usize = 4;
/// Bytes that are read at once.
const CHUNK: usize = 128 << 10;
/// Blobs up to this length in bytes are not shown: the empty layer has it.
const SMALL: u64 = 1024;
/// Of a result without sources: nothing is wrong, the cache was made so.
const NOWHERE: &str = "a result is known whose files are not here and in no cache that was asked";

impl Snapshots {
    /// Brings a snapshot and all that it stands on, unless they are here.
    ///
    /// # Errors
    /// [`SnapshotError::Missing`] when nothing is known of one of them, [`SnapshotError::Unavailable`] when its bytes
    /// cannot be had or are wrong; what had arrived below it stays.
    pub(super) fn bring(&self, id: &ResultId) -> Result<(), SnapshotError> {
        let todo = self.lacking(id)?;
        if let Some(n) = todo.iter().position(|layer| layer.sources.is_empty()) {
            return Err(SnapshotError::Unavailable { ids: lost(&todo[n..]), why: NOWHERE.to_owned() });
        }
        let mut locks = Vec::with_capacity(todo.len());
        for layer in &todo {
            locks.push(self.inner.store.lock(&format!("layer-{}", layer.id), LockKind::Exclusive)?);
        }
        // another process may have brought some until we had the locks
        let todo: Vec<Absent> = todo.into_iter().filter(|layer| !self.is_present(&layer.id)).collect();
        self.bring_all(&todo)
    }

    /// Lists what is not here, the lowest first.
    fn lacking(&self, id: &ResultId) -> Result<Vec<Absent>, SnapshotError> {
        let scratch = ResultId::scratch();
        let mut next = self.real(id).ok_or(SnapshotError::Missing(*id))?;
        let mut todo: Vec<Absent> = Vec::new();
        while next != scratch && !self.is_present(&next) {
            if todo.iter().any(|layer| layer.id == next) {
                return Err(SnapshotError::Missing(next));
            }
            let Some(absent) = self.absent(&next) else {
                let why = format!("what it stands on, {next}, is not in the store");
                todo.reverse();
                return Err(match todo[..] {
                    [] => SnapshotError::Missing(next),
                    _ => SnapshotError::Unavailable { ids: lost(&todo), why },
                });
            };
            next = self.real(&absent.parent).unwrap_or(absent.parent);
            todo.push(absent);
        }
        todo.reverse();
        Ok(todo)
    }

    fn bring_all(&self, todo: &[Absent]) -> Result<(), SnapshotError> {
        if todo.is_empty() {
            return Ok(());
        }
        let dir = self.inner.store.temp_dir("fetch")?;
        let landings: Result<Vec<Landing>, StoreError> =
            (0..todo.len()).map(|n| Landing::new(dir.path().join(format!("{n}")))).collect();
        let landings = landings?;
        let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..DOWNLOADS.min(todo.len()) {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        let (Some(layer), Some(landing)) = (todo.get(n), landings.get(n)) else { break };
                        self.download(&layer.sources[0], landing, &over);
                    }
                });
            }
            let done = todo.iter().zip(&landings).enumerate().try_for_each(|(n, (layer, landing))| {
                self.bring_one(layer, landing, &dir, &over).map_err(|error| match error {
                    SnapshotError::Unavailable { why, .. } => {
                        SnapshotError::Unavailable { ids: lost(&todo[n..]), why }
                    }
                    other => other,
                })?;
                // its blob is not needed any more
                let _ = std::fs::remove_file(&landing.path);
                Ok(())
            });
            over.store(true, Ordering::Relaxed);
            done
        })
    }

    /// Unpacks what arrives; when that is wrong the other sources are tried one after the other.
    fn bring_one(
        &self,
        layer: &Absent,
        landing: &Landing,
        dir: &TempDir,
        over: &AtomicBool,
    ) -> Result<(), SnapshotError> {
        let mut outcome = self.unpack_one(layer, &layer.sources[0], landing);
        for (n, source) in layer.sources.iter().enumerate().skip(1) {
            if !matches!(outcome, Err(SnapshotError::Unavailable { .. })) {
                break;
            }
            let again = Landing::new(dir.path().join(format!("again-{n}-{}", layer.id)))?;
            outcome = std::thread::scope(|scope| {
                scope.spawn(|| self.download(source, &again, over));
                self.unpack_one(layer, source, &again)
            });
            let _ = std::fs::remove_file(&again.path);
        }
        outcome
    }

    fn download(&self, source: &Source, landing: &Landing, over: &AtomicBool) {
        let provider = source.provider.as_ref().or_else(|| self.inner.provider.get());
        let Some(provider) = provider.cloned() else {
            let why = format!("nothing here can fetch from {}", source.place);
            return landing.finish(Err(io::Error::other(why)));
        };
        let step = self.shown(&source.blob);
        let stop = self.inner.stop.get().cloned().unwrap_or_default();
        let (place, blob) = (source.place.clone(), source.blob.clone());
        let bytes = Pump::start(&stop, move || provider.open(&place, &blob));
        let moved = |done| step.iter().for_each(|step| step.moved(done));
        let done = landing.fill(Box::new(bytes), &source.blob, over, &moved);
        if let Some(step) = step {
            step.end(match &done {
                Ok(()) => Outcome::Done,
                Err(_) if over.load(Ordering::Relaxed) || stop.is_asked() => Outcome::Cancelled,
                Err(error) => Outcome::Failed(error.to_string()),
            });
        }
        landing.finish(done);
    }

    /// Begins a step for a blob that is worth to be watched.
    fn shown(&self, blob: &Descriptor) -> Option<Moving> {
        let (sink, steps) = self.inner.shown.get().filter(|_| blob.size > SMALL)?;
        let step = steps.fetch_add(1, Ordering::Relaxed) + 1;
        Some(Moving::begin(sink, step, "pull", &blob.digest, blob.size))
    }

    fn unpack_one(&self, layer: &Absent, source: &Source, landing: &Landing) -> Result<(), SnapshotError> {
        let unavailable = |why: String| {
            let why = format!("{} at {}: {why}", source.blob.digest, source.place);
            SnapshotError::Unavailable { ids: Vec::new(), why }
        };
        let prepared = self.prepare_for("fetch", &layer.parent)?;
        let view = prepared.parent.view();
        let opts = UnpackOptions {
            userxattr: self.inner.mode.userxattr(),
            chown_ok: fsutil::can_chown(),
            parent: (layer.parent != ResultId::scratch()).then_some(&view),
            ..UnpackOptions::default()
        };
        let unpacked = match unpack_blob(Box::new(landing.reader()?), &prepared.upper, &opts) {
            Ok(unpacked) => unpacked,
            // our own disk is to blame
            Err(error @ (LayerError::Io { .. } | LayerError::Write(_) | LayerError::Changed { .. })) => {
                return Err(error.into());
            }
            Err(error) => return Err(unavailable(landing.failure().unwrap_or_else(|| error.to_string()))),
        };
        drop(view);
        // the archive may end before the blob does
        landing.wait().map_err(&unavailable)?;
        check(layer, &unpacked).map_err(unavailable)?;
        match &layer.origin {
            Origin::Image { chain } => {
                let blobs = self.inner.store.blobs();
                if !blobs.has(&source.blob.digest) && source.blob.digest.algorithm() == "sha256" {
                    blobs.adopt(&landing.path, &source.blob.digest)?;
                }
                let blob = Some(source.blob.clone());
                let size = Some(unpacked.tar_size);
                self.commit_base(prepared, chain, &unpacked.diff_id, unpacked.diff, size, blob)?;
            }
            Origin::Step { step, created, .. } => {
                let blob = layer.layer.as_ref().and_then(|info| info.blob.clone());
                let info = super::LayerInfo {
                    diff_id: Some(unpacked.diff_id),
                    tar_size: Some(unpacked.tar_size),
                    blob,
                    ..Default::default()
                };
                self.commit_fetched(prepared, &layer.id, unpacked.diff, &info, step.clone(), *created)?;
                for (epoch, info) in &layer.clamped {
                    self.set_layer(&layer.id, Some(*epoch), info)?;
                }
            }
        }
        self.forget_absent(&layer.id);
        Ok(())
    }
}

/// Lists what cannot be had when the lowest of these cannot: it, and what stands on it. Nothing can be done about the
/// layers of an image, so then the list is empty.
fn lost(layers: &[Absent]) -> Vec<ResultId> {
    match layers.first().map(|layer| &layer.origin) {
        Some(Origin::Step { .. }) => layers.iter().map(|layer| layer.id).collect(),
        _ => Vec::new(),
    }
}

/// Compares what arrived with what was announced.
fn check(layer: &Absent, found: &Unpacked) -> Result<(), String> {
    if let Some(expected) = layer.diff_id()
        && *expected != found.diff_id
    {
        return Err(format!(
            "its content is wrong: its diff ID is {}, announced was {expected}",
            found.diff_id
        ));
    }
    if let Some(expected) = layer.layer.as_ref().and_then(|info| info.tar_size)
        && expected != found.tar_size
    {
        return Err(format!("its tar has {} bytes, announced were {expected}", found.tar_size));
    }
    let id = match &layer.origin {
        Origin::Step { .. } => ResultId::step(&layer.parent, &found.diff.content_id()),
        Origin::Image { chain } => {
            if layer.diff_id().is_none() {
                return Err("the diff ID of an image's layer must be known".to_owned());
            }
            ResultId::chain(chain)
        }
    };
    if id != layer.id {
        return Err(format!("its files lead to the result {id}, announced was {}", layer.id));
    }
    Ok(())
}

/// A blob on its way: a file that grows, and how far it has got.
struct Landing {
    path: PathBuf,
    file: File,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bytes: u64,
    /// Set at the end: whether all arrived and was right.
    end: Option<Result<(), String>>,
}

impl Landing {
    fn new(path: PathBuf) -> Result<Self, StoreError> {
        let file = open_new(&path).map_err(StoreError::io("make", &path))?;
        Ok(Self { path, file, progress: Arc::default() })
    }

    /// Takes the bytes in, no more than announced, and checks them.
    fn fill(
        &self,
        mut bytes: Box<dyn Read + Send>,
        blob: &Descriptor,
        over: &AtomicBool,
        moved: &dyn Fn(u64),
    ) -> io::Result<()> {
        let (digest, size) = (&blob.digest, blob.size);
        let mut file = &self.file;
        let (mut sum, mut done, mut buffer) = (Sha256::new(), 0u64, vec![0; CHUNK]);
        loop {
            if over.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let n = match bytes.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            done += n as u64;
            if done > size {
                return Err(io::Error::other(format!(
                    "it is longer than the {size} bytes that were announced"
                )));
            }
            sum.update(&buffer[..n]);
            file.write_all(&buffer[..n])?;
            self.progress.state.lock().unwrap_or_else(PoisonError::into_inner).bytes = done;
            self.progress.changed.notify_all();
            moved(done);
        }
        if done != size {
            return Err(io::Error::other(format!("it has {done} bytes, {size} were announced")));
        }
        let found = Digest::from_sha256(sum.finalize().into());
        if digest.algorithm() == "sha256" && found != *digest {
            return Err(io::Error::other(format!("its digest is {found}")));
        }
        Ok(())
    }

    fn finish(&self, end: io::Result<()>) {
        self.progress.state.lock().unwrap_or_else(PoisonError::into_inner).end =
            Some(end.map_err(|e| e.to_string()));
        self.progress.changed.notify_all();
    }

    /// Waits for the end.
    fn wait(&self) -> Result<(), String> {
        let mut state = self.progress.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(end) = &state.end {
                return end.clone();
            }
            state = self.progress.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn failure(&self) -> Option<String> {
        self.progress.state.lock().unwrap_or_else(PoisonError::into_inner).end.clone()?.err()
    }

    fn reader(&self) -> Result<Follower, StoreError> {
        let file = File::open(&self.path).map_err(StoreError::io("open", &self.path))?;
        Ok(Follower { file, at: 0, progress: self.progress.clone() })
    }
}

/// Reads a file that still grows.
struct Follower {
    file: File,
    at: u64,
    progress: Arc<Progress>,
}

impl Read for Follower {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.progress.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.bytes <= self.at {
            match &state.end {
                Some(Ok(())) => return Ok(0),
                Some(Err(why)) => return Err(io::Error::other(why.clone())),
                None => state = self.progress.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        let ready = state.bytes - self.at;
        drop(state);
        let most = buf.len().min(usize::try_from(ready).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buf[..most], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

fn open_new(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
