//! Taking away what nobody needs.

use super::mounts::Mount;
use super::plan::{self, Piece, Thing};
use super::stock::Stock;
use super::{Collector, GcError, LOCK};
use crate::digest::ResultId;
use crate::fault;
use crate::image::{Image, Removed};
use crate::store::{LockKind, StoreError};
use std::collections::{HashMap, HashSet};

/// What to remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PruneRequest {
    /// Also cache mounts, and what is known of the steps that images are made of: the next build runs everything.
    pub all: bool,
    /// Only what was last used before, in seconds since the epoch; cache mounts too.
    pub older_than: Option<i64>,
    /// Only as much that so many bytes are left, the longest unused first.
    pub keep_bytes: Option<u64>,
}

/// Something that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrunedItem {
    /// Result id of a snapshot, or the name of a cache mount's directory.
    pub id: String,
    /// The instruction that made it, or the id of a cache mount.
    pub label: String,
    /// Bytes of disk, those shared with others included.
    pub bytes: u64,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// In the order in which it went.
    pub items: Vec<PrunedItem>,
    /// How many step records.
    pub records: usize,
    /// Bytes of disk that are free now.
    pub bytes: u64,
}

impl Pruned {
    fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl Collector {
    /// Removes build cache: what no image, running container or running build uses.
    ///
    /// Builds may run meanwhile. Killed halfway it leaves a store in which everything is whole or gone.
    ///
    /// # Errors
    /// The store cannot be read or written. What was removed by then stays removed.
    pub fn prune(&self, request: &PruneRequest) -> Result<Pruned, GcError> {
        let _alone = self.store.lock(LOCK, LockKind::Exclusive)?;
        let mut stock = self.stock()?;
        let with_mounts = request.all || request.older_than.is_some();
        let mounts = if with_mounts { self.mounts()? } else { Vec::new() };
        let mut pruned = self.shrink(&mut stock, mounts, request)?;
        pruned.add(self.images.prune_blobs()?);
        fault::point("gc.blobs_gone");
        if request.keep_bytes.is_none() {
            pruned.add(self.remove_logs(request.older_than)?);
            pruned.add(self.remove_context_stats(request.older_than)?);
        }
        self.remove_damaged_indexes()?;
        Ok(pruned)
    }

    /// Removes the images that `unused` agrees to, and the layers that came with them or went into them and lead to no
    /// step: those of base images, say. What steps made is build cache and stays for [`Collector::prune`].
    pub fn prune_images(&self, unused: &dyn Fn(&Image) -> bool) -> Result<(Vec<Removed>, u64), GcError> {
        let _alone = self.store.lock(LOCK, LockKind::Exclusive)?;
        let before = self.documents();
        let removed = self.images.prune(unused)?;
        if removed.is_empty() {
            return Ok((removed, 0));
        }
        self.images.prune_blobs()?;
        let documents = before.saturating_sub(self.documents());
        let mut stock = self.stock()?;
        let recorded: HashSet<ResultId> =
            stock.items.iter().filter(|item| item.recorded).map(|item| item.info.id).collect();
        let of_no_step = |piece: &Piece| match &piece.thing {
            Thing::Snapshot(id) => !recorded.contains(id),
            Thing::Mount(_) => false,
        };
        let mut pruned = Pruned::default();
        let victims = plan::victims(&stock.pieces(), &of_no_step, None);
        self.remove_snapshots(&mut stock, &victims, &mut pruned)?;
        pruned.add(self.store.bodies().prune()?);
        self.remove_records(&stock, &|_, _| false, &mut pruned)?;
        Ok((removed, pruned.bytes.saturating_add(documents)))
    }

    /// Bytes of all blobs.
    fn documents(&self) -> u64 {
        let blobs = self.store.blobs();
        let sizes = blobs.list().unwrap_or_default();
        sizes.iter().fold(0, |sum, digest| blobs.disk_size(digest).saturating_add(sum))
    }

    /// Removes snapshots and those of the given mounts that the request is about, and what hangs on them.
    pub(super) fn shrink(
        &self,
        stock: &mut Stock,
        mut mounts: Vec<Mount>,
        request: &PruneRequest,
    ) -> Result<Pruned, GcError> {
        let mut pruned = Pruned::default();
        let old_enough = |last: i64| request.older_than.is_none_or(|until| last < until);
        // what turned out to be in use is not tried again
        let mut tried: HashSet<Thing> = HashSet::new();
        loop {
            let pieces = pieces(stock, &mounts);
            let excess = request.keep_bytes.map(|keep| plan::unneeded(&pieces).saturating_sub(keep));
            let allowed = |piece: &Piece| old_enough(piece.last_used) && !tried.contains(&piece.thing);
            let victims = plan::victims(&pieces, &allowed, excess);
            if victims.is_empty() {
                break;
            }
            self.remove_snapshots(stock, &victims, &mut pruned)?;
            self.remove_mounts(&mut mounts, &victims, &mut pruned)?;
            tried.extend(victims);
        }
        self.snapshots.remove_garbage()?;
        fault::point("gc.snapshots_gone");
        pruned.add(self.store.bodies().prune()?);
        fault::point("gc.bodies_gone");
        let forget = |result: &ResultId, last: i64| {
            request.all && request.keep_bytes.is_none() && old_enough(last) && !self.snapshots.is_held(result)
        };
        self.remove_records(stock, &forget, &mut pruned)?;
        fault::point("gc.records_gone");
        Ok(pruned)
    }

    /// Removes those of the victims that are snapshots and in fact unused, and takes them out of the stock.
    fn remove_snapshots(
        &self,
        stock: &mut Stock,
        victims: &[Thing],
        pruned: &mut Pruned,
    ) -> Result<(), GcError> {
        let ids = |thing: &Thing| match thing {
            Thing::Snapshot(id) => Some(*id),
            Thing::Mount(_) => None,
        };
        let ids: Vec<ResultId> = victims.iter().filter_map(ids).collect();
        let gone = self.snapshots.evict(&ids, &mut self.watch_roots())?;
        let gone: HashSet<ResultId> = gone.into_iter().map(|info| info.id).collect();
        let (out, left) =
            std::mem::take(&mut stock.items).into_iter().partition(|i| gone.contains(&i.info.id));
        stock.items = left;
        let mut out: HashMap<ResultId, _> = Vec::into_iter(out).map(|item| (item.info.id, item)).collect();
        for item in ids.iter().filter_map(|id| out.remove(id)) {
            // shared bodies count when they go
            pruned.add(item.usage.own);
            let (id, bytes) = (item.info.id.to_string(), item.usage.total());
            pruned.items.push(PrunedItem { id, label: item.info.step.instruction, bytes });
        }
        Ok(())
    }

    fn remove_mounts(
        &self,
        mounts: &mut Vec<Mount>,
        victims: &[Thing],
        pruned: &mut Pruned,
    ) -> Result<(), GcError> {
        for victim in victims {
            let Thing::Mount(name) = victim else { continue };
            if self.remove_mount(name)?
                && let Some(at) = mounts.iter().position(|mount| mount.name == *name)
            {
                let mount = mounts.remove(at);
                pruned.add(mount.bytes);
                pruned.items.push(PrunedItem { id: mount.name, label: mount.id, bytes: mount.bytes });
            }
        }
        Ok(())
    }

    /// Removes the records of steps whose result is gone, those that `forget` agrees to, and the memos about results that
    /// are gone. A step that runs now keeps its record: it may be about to write a new one.
    fn remove_records(
        &self,
        stock: &Stock,
        forget: &dyn Fn(&ResultId, i64) -> bool,
        pruned: &mut Pruned,
    ) -> Result<(), GcError> {
        let scratch = ResultId::scratch();
        let gone = |result: &ResultId| *result != scratch && self.snapshots.info(result).is_err();
        for (record, last) in &stock.uses {
            if !gone(&record.result) && !forget(&record.result, *last) {
                continue;
            }
            let lock = format!("step-{:.3}", record.key.to_string());
            let Some(_alone) = self.store.try_lock(&lock, LockKind::Exclusive)? else { continue };
            // it may have run again until we had the lock
            let same = self.records.get(&record.key).is_some_and(|now| now == *record);
            if same && (gone(&record.result) || forget(&record.result, *last)) {
                let name = self.store.root().join("steps");
                let freed = self.records.remove(&record.key);
                pruned.add(freed.map_err(StoreError::io("remove a record in", &name))?);
                pruned.records += 1;
            }
        }
        for name in &stock.damaged_records {
            self.records.remove_damaged(name);
        }
        pruned.add(self.records.prune_memos(&gone));
        self.forget_absent()?;
        Ok(())
    }

    /// Forgets snapshots that are elsewhere and that neither an image nor a step's record needs.
    fn forget_absent(&self) -> Result<(), GcError> {
        if !self.store.root().join("absent").is_dir() {
            return Ok(());
        }
        let mut roots = self.images.roots()?.0;
        roots.extend(self.records.uses().0.iter().map(|(record, _)| record.result));
        self.snapshots.forget_unneeded(&roots);
        Ok(())
    }

    /// Removes indexes that were damaged and set aside by a process that did not get to remove them.
    fn remove_damaged_indexes(&self) -> Result<(), GcError> {
        for name in super::mounts::names(&self.store.root().to_owned())? {
            if name.starts_with("index.damaged-") {
                // it holds nothing that is not elsewhere
                let _ = crate::sys::fsutil::remove_tree(&self.store.root().join(name));
            }
        }
        Ok(())
    }

    /// Gives the bytes that count against a budget.
    pub(super) fn unneeded(&self, stock: &Stock, mounts: &[Mount]) -> u64 {
        plan::unneeded(&pieces(stock, mounts))
    }
}

fn pieces(stock: &Stock, mounts: &[Mount]) -> Vec<Piece> {
    let mut pieces = stock.pieces();
    pieces.extend(mounts.iter().map(|mount| Piece {
        thing: Thing::Mount(mount.name.clone()),
        below: Vec::new(),
        last_used: mount.last_used,
        own: mount.bytes,
        shared: Vec::new(),
        needed: false,
    }));
    pieces
}
