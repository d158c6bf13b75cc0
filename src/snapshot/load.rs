//! Finds snapshots and reads what is kept of them; decides what is whole.

use super::record::{LayerInfo, Record, seal, unseal};
use super::stack::Layer;
use super::{Snapshot, SnapshotError, SnapshotMode, Snapshots};
use crate::digest::ResultId;
use crate::layer::{self, ScanOptions};
use crate::store::{Lock, LockKind, StoreError};
use crate::tree::{Diff, Node, TreePath};
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, OnceLock, PoisonError};

/// No honest record is longer, in bytes.
const MAX_RECORD: u64 = 1 << 20;
/// No honest diff is longer, in bytes: two million entries of some hundred bytes.
const MAX_TREE: u64 = 1 << 30;
/// Aliases of aliases that are followed.
const MAX_ALIASES: usize = 4;

/// What a snapshot stands on and what shows through it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Below {
    pub(super) parent: ResultId,
    pub(super) rest: Option<ResultId>,
}

/// A snapshot's record, and its diff once somebody has asked.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) record: Record,
    layer: OnceLock<Arc<Layer>>,
}

impl Loaded {
    pub(super) fn new(record: Record, diff: Option<Arc<Diff>>) -> Self {
        Self {
            record,
            layer: diff.map(|diff| Arc::new(Layer::new(diff))).map_or_else(OnceLock::new, OnceLock::from),
        }
    }
}

impl Snapshots {
    /// Says whether a snapshot is there or can be brought, itself or as an alias; the empty one always is. What has
    /// been found stays: it is held against removal as long as these `Snapshots` live.
    ///
    /// Whether all below it is there too is only known by [`Snapshots::get`].
    pub fn has(&self, id: &ResultId) -> bool {
        self.is_present(id) || self.real(id).is_some_and(|id| self.absent(&id).is_some())
    }

    /// As [`Snapshots::has`], for one whose files are here.
    pub fn is_present(&self, id: &ResultId) -> bool {
        *id == ResultId::scratch() || self.real(id).is_some_and(|id| self.pin(&id).is_ok())
    }

    /// Holds a snapshot for this process. Its parent needs no hold of its own then, so a chain costs one descriptor.
    pub(super) fn pin(&self, id: &ResultId) -> Result<(), SnapshotError> {
        let lock = self.hold(id)?;
        let parent = self.load(id)?.record.parent;
        let mut pins = self.inner.pins.lock().unwrap_or_else(PoisonError::into_inner);
        pins.remove(&parent);
        pins.insert(*id, lock);
        Ok(())
    }

    /// Gives the id that an alias stands for, or the id itself; `None` when neither is there.
    pub(super) fn real(&self, id: &ResultId) -> Option<ResultId> {
        let mut id = *id;
        for _ in 0..MAX_ALIASES {
            match std::fs::read_link(self.dir(&id)) {
                Ok(target) => id = target.to_str()?.parse().ok()?,
                // not a link: the directory itself
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => return Some(id),
                Err(_) => return self.absent(&id).map(|_| id),
            }
        }
        None
    }

    /// Gives a snapshot with its whole chain, held against removal. What is known and elsewhere is brought.
    ///
    /// # Errors
    /// It or one below it is missing, damaged or just being removed, or cannot be brought.
    pub fn get(&self, id: &ResultId) -> Result<Snapshot, SnapshotError> {
        match self.find(id) {
            Err(SnapshotError::Missing(lost)) if self.absent(&lost).is_some() => {
                self.bring(id)?;
                self.find(id)
            }
            found => found,
        }
    }

    fn find(&self, id: &ResultId) -> Result<Snapshot, SnapshotError> {
        let scratch = ResultId::scratch();
        if *id == scratch {
            let (lowers, chain) = (Vec::new(), Vec::new());
            return Ok(Snapshot { id: *id, lowers, chain, layers: self.clone(), _held: None });
        }
        let top = self.real(id).ok_or(SnapshotError::Missing(*id))?;
        let held = self.hold(&top)?;
        let (mut chain, mut lowers) = (Vec::new(), Vec::new());
        let mut next = top;
        while next != scratch {
            chain.push(next);
            lowers.push(self.dir(&next).join("fs"));
            let below = self.below(&next)?;
            lowers.extend(below.rest.map(|rest| self.dir(&rest).join("fs")));
            next = below.parent;
        }
        Ok(Snapshot { id: top, lowers, chain, layers: self.clone(), _held: Some(held) })
    }

    /// Gives what a snapshot stands on. It is looked up once: what is below a held snapshot is not removed, and a build
    /// of many steps asks for the whole chain at every step.
    pub(super) fn below(&self, id: &ResultId) -> Result<Below, SnapshotError> {
        let known = self.inner.below.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied();
        if let Some(below) = known {
            return Ok(below);
        }
        let loaded = self.load(id)?;
        let parent = loaded.record.parent;
        let below = Below { parent: self.real(&parent).unwrap_or(parent), rest: loaded.record.rest };
        self.inner.below.lock().unwrap_or_else(PoisonError::into_inner).insert(*id, below);
        Ok(below)
    }

    /// Takes the shared lock on a snapshot's directory; one for all users in this process.
    pub(super) fn hold(&self, id: &ResultId) -> Result<Arc<Lock>, SnapshotError> {
        let mut all = self.inner.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = all.get(id).and_then(std::sync::Weak::upgrade) {
            return Ok(lock);
        }
        let path = self.dir(id);
        let missing = |_| SnapshotError::Missing(*id);
        let dir = File::open(&path).map_err(missing)?;
        let inode = dir.metadata().map_err(missing)?.ino();
        // waits only for a collector, which moves it away or lets it go at once
        let lock = Lock::on_waiting(dir, LockKind::Shared).map_err(StoreError::io("lock", &path))?;
        // a collector may have taken it away between the two
        let still = path.metadata().is_ok_and(|meta| meta.ino() == inode);
        let lock = Arc::new(Some(lock).filter(|_| still).ok_or(SnapshotError::Missing(*id))?);
        all.retain(|_, lock| lock.strong_count() > 0);
        all.insert(*id, Arc::downgrade(&lock));
        Ok(lock)
    }

    /// Reads a record, or takes the one that was read before; the directory must still be there.
    pub(super) fn load(&self, id: &ResultId) -> Result<Arc<Loaded>, SnapshotError> {
        let known = self.inner.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if let Some(loaded) = known {
            if self.dir(id).join("record.json").exists() {
                return Ok(loaded);
            }
            self.forget(id);
            return Err(SnapshotError::Missing(*id));
        }
        let record = self.read_record(id)?.ok_or(SnapshotError::Missing(*id))?;
        let loaded = Arc::new(Loaded::new(record, None));
        self.remember(*id, loaded.clone());
        Ok(loaded)
    }

    pub(super) fn remember(&self, id: ResultId, loaded: Arc<Loaded>) {
        self.inner.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(id, loaded);
    }

    pub(super) fn forget(&self, id: &ResultId) {
        self.inner.pins.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.inner.below.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.inner.loaded.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Reads a record and checks that it is whole and that of this snapshot.
    fn own_record(&self, id: &ResultId) -> Result<Option<Record>, SnapshotError> {
        let Some(bytes) = self.inner.store.read(&format!("snapshots/{id}/record.json"), MAX_RECORD)? else {
            return Ok(None);
        };
        let Some(record) = unseal::<Record>(&bytes).filter(|record| record.id == *id) else {
            return Ok(None);
        };
        let tree = self.dir(id).join("tree").metadata();
        if tree.is_ok_and(|tree| tree.len() != record.tree_bytes) || !self.dir(id).join("fs").is_dir() {
            return Ok(None);
        }
        Ok(Some(record))
    }

    /// Says whether a directory among the snapshots is none, in any mode.
    pub(super) fn is_garbage(&self, id: &ResultId) -> bool {
        match self.own_record(id) {
            Ok(Some(record)) => record.boot != self.inner.boot && !self.survived(&record),
            Ok(None) => true,
            // perhaps only we cannot read it
            Err(_) => false,
        }
    }

    /// Reads a record and checks that it and what it describes are whole and of use in our mode.
    pub(super) fn read_record(&self, id: &ResultId) -> Result<Option<Record>, SnapshotError> {
        let Some(mut record) = self.own_record(id)? else { return Ok(None) };
        let marks_fit = match (self.inner.mode, record.user_marks) {
            (SnapshotMode::Overlay { userxattr }, Some(user_marks)) => userxattr == user_marks,
            _ => true,
        };
        if !marks_fit {
            return Ok(None);
        }
        // one that shows through has to be there, in its own right
        if let Some(rest) = &record.rest
            && self.read_record(rest)?.is_none_or(|rest| rest.rest.is_some())
        {
            return Ok(None);
        }
        if record.boot != self.inner.boot {
            if !self.survived(&record) {
                return Ok(None);
            }
            record.boot.clone_from(&self.inner.boot);
            // only saves the next process the look; a store that cannot be written is used as it is
            let rel = format!("snapshots/{id}/record.json");
            let _ = self.inner.store.write_atomic(&rel, &seal(&record), false);
        }
        Ok(Some(record))
    }

    /// After another boot: compares each file's size with the diff. A file system that lost bytes has lost the end.
    fn survived(&self, record: &Record) -> bool {
        let Ok(diff) = self.read_diff(&record.id) else { return false };
        let Ok(dirs) = self.open_dirs(&record.id, record.rest.as_ref()) else { return false };
        diff.entries().all(|entry| match entry.node {
            Node::File { size, .. } => dirs.stat(&entry.path).is_ok_and(|stat| stat.st_size as u64 == size),
            _ => true,
        })
    }

    pub(super) fn read_diff(&self, id: &ResultId) -> Result<Diff, SnapshotError> {
        let bytes = self.inner.store.read(&format!("snapshots/{id}/tree"), MAX_TREE)?;
        let diff = bytes.and_then(|bytes| Diff::decode(bytes).ok());
        diff.ok_or(SnapshotError::Missing(*id))
    }

    /// Gives a layer for lookups; a damaged diff is made anew from the files if they still give the same content.
    pub(super) fn loaded_layer(&self, id: &ResultId) -> Result<Arc<Layer>, SnapshotError> {
        // whoever asks for it holds it, so one that is known need not be looked for: a stack may have hundreds
        let known = self.inner.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if let Some(layer) = known.as_ref().and_then(|loaded| loaded.layer.get()) {
            return Ok(layer.clone());
        }
        let loaded = self.load(id)?;
        let right = |diff: &Diff| diff.content_id() == loaded.record.content;
        let diff = match self.read_diff(id) {
            Ok(diff) => diff,
            Err(_) => self.heal(id, &right)?,
        };
        Ok(loaded.layer.get_or_init(|| Arc::new(Layer::new(Arc::new(diff)))).clone())
    }

    fn heal(&self, id: &ResultId, right: &dyn Fn(&Diff) -> bool) -> Result<Diff, SnapshotError> {
        let opts = ScanOptions { userxattr: self.inner.mode.userxattr(), skip: &HashSet::new() };
        let whole = self.below(id)?.rest.is_none();
        let scanned =
            whole.then(|| layer::scan(&self.dir(id).join("fs"), &opts).ok()).flatten().filter(right);
        let Some(diff) = scanned else {
            self.discard(id);
            return Err(SnapshotError::Missing(*id));
        };
        let bytes = diff.encode();
        if bytes.len() as u64 == self.load(id)?.record.tree_bytes {
            self.inner.store.write_atomic(&format!("snapshots/{id}/tree"), &bytes, false)?;
        }
        Ok(diff)
    }

    /// Makes a damaged snapshot invisible, so that it is made again.
    fn discard(&self, id: &ResultId) {
        let _ = std::fs::remove_file(self.dir(id).join("record.json"));
        self.forget(id);
    }

    /// Gives what the top layer alone changed.
    pub fn diff(&self, id: &ResultId) -> Result<Arc<Diff>, SnapshotError> {
        if *id == ResultId::scratch() {
            return Ok(Arc::default());
        }
        let _held = self.get(id)?;
        let id = self.real(id).ok_or(SnapshotError::Missing(*id))?;
        Ok(self.loaded_layer(&id)?.diff.clone())
    }

    /// Opens a regular file of the top layer, for writing its tar.
    pub fn open_file(&self, id: &ResultId, path: &TreePath) -> io::Result<File> {
        self.layer_dirs(id).map_err(io::Error::other)?.open(path)
    }

    /// Gives what is known of the top layer's tar without clamped times.
    pub fn layer(&self, id: &ResultId) -> Result<LayerInfo, SnapshotError> {
        self.layer_at(id, None)
    }

    /// Gives what is known of the top layer's tar with times clamped to `epoch`; nothing known is no error.
    pub fn layer_at(&self, id: &ResultId, epoch: Option<i64>) -> Result<LayerInfo, SnapshotError> {
        let id = self.real(id).ok_or(SnapshotError::Missing(*id))?;
        let bytes = self.inner.store.read(&layer_file(&id, epoch), MAX_RECORD)?;
        let known = bytes.and_then(|bytes| unseal(&bytes));
        Ok(known.or_else(|| Some(self.absent(&id)?.layer_at(epoch))).unwrap_or_default())
    }

    /// Remembers what was found out about the top layer's tar.
    pub fn set_layer(
        &self,
        id: &ResultId,
        epoch: Option<i64>,
        info: &LayerInfo,
    ) -> Result<(), SnapshotError> {
        let id = self.real(id).ok_or(SnapshotError::Missing(*id))?;
        self.load(&id)?;
        Ok(self.inner.store.write_atomic(&layer_file(&id, epoch), &seal(info), false)?)
    }

    /// Gives digest and length of the top layer's tar, computed once ever for each `epoch`.
    pub fn layer_digest(&self, id: &ResultId, epoch: Option<i64>) -> Result<LayerInfo, SnapshotError> {
        let mut info = self.layer_at(id, epoch)?;
        if info.diff_id.is_none() || info.tar_size.is_none() {
            let diff = self.diff(id)?;
            let id = self.real(id).ok_or(SnapshotError::Missing(*id))?;
            let dirs = self.layer_dirs(&id)?;
            let (diff_id, tar_size) = layer::diff_id(&diff, &|path| dirs.open(path), epoch)?;
            (info.diff_id, info.tar_size) = (Some(diff_id), Some(tar_size));
            self.set_layer(&id, epoch, &info)?;
        }
        Ok(info)
    }
}

pub(super) fn layer_file(id: &ResultId, epoch: Option<i64>) -> String {
    match epoch {
        None => format!("snapshots/{id}/layer.json"),
        Some(epoch) => format!("snapshots/{id}/layer.{epoch}.json"),
    }
}
