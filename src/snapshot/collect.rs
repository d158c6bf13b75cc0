//! What is there, and taking away what nobody needs.

use super::record::{Record, SnapshotInfo};
use super::{SnapshotError, Snapshots};
use crate::digest::ResultId;
use crate::store::{Lock, LockKind, StoreError, TempDir};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;

/// Held together by commits, alone by removal.
pub(super) const PUBLISH: &str = "publish";

/// The further names of each snapshot.
type Aliases = HashMap<ResultId, Vec<ResultId>>;

impl Snapshots {
    /// Lists all valid snapshots with their records, in no order.
    pub fn list(&self) -> Result<Vec<SnapshotInfo>, SnapshotError> {
        let (records, mut aliases) = self.read_all()?;
        let info = |record: Record| {
            let aliases = aliases.remove(&record.id).unwrap_or_default();
            describe(record, aliases)
        };
        Ok(records.into_iter().map(info).collect())
    }

    /// Gives the record of one snapshot, without its aliases; much cheaper than [`Snapshots::list`].
    pub fn info(&self, id: &ResultId) -> Result<SnapshotInfo, SnapshotError> {
        let id = self.real(id).ok_or(SnapshotError::Missing(*id))?;
        Ok(describe(self.load(&id)?.record.clone(), Vec::new()))
    }

    fn read_all(&self) -> Result<(Vec<Record>, Aliases), SnapshotError> {
        let dir = self.inner.store.path("snapshots");
        let mut records = Vec::new();
        let mut aliases = Aliases::new();
        for entry in std::fs::read_dir(&dir).map_err(StoreError::io("list", &dir))?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                if let Some(real) = self.real(&id) {
                    aliases.entry(real).or_default().push(id);
                }
            } else if let Some(record) = self.read_record(&id)? {
                records.push(record);
            }
        }
        Ok((records, aliases))
    }

    /// Removes a snapshot that nobody holds and nothing stands on; gives false when it is in use. Absence is fine.
    pub fn remove(&self, id: &ResultId) -> Result<bool, SnapshotError> {
        let Some(id) = self.real(id) else { return Ok(true) };
        let grave = self.inner.store.temp_dir("removed")?;
        let _alone = self.inner.store.lock(PUBLISH, LockKind::Exclusive)?;
        let (records, aliases) = self.read_all()?;
        if records.iter().any(|record| self.real(&record.parent) == Some(id)) {
            return Ok(false);
        }
        self.take_away(&grave, &id, aliases.get(&id).map_or(&[], Vec::as_slice))
    }

    /// Removes all snapshots but those in `keep`, those in use by any process, and what these stand on. Gives the
    /// removed ones. A snapshot that a build finds at the same moment is either held by it in time or missing for it.
    pub fn collect(&self, keep: &HashSet<ResultId>) -> Result<Vec<SnapshotInfo>, SnapshotError> {
        // dropped last: the slow part, deleting, comes after the lock is given back
        let grave = self.inner.store.temp_dir("removed")?;
        // no commit comes in between, which could put something onto a snapshot that we take for unused
        let _alone = self.inner.store.lock(PUBLISH, LockKind::Exclusive)?;
        let (records, mut aliases) = self.read_all()?;
        let parents: HashMap<ResultId, ResultId> =
            records.iter().map(|r| (r.id, self.real(&r.parent).unwrap_or(r.parent))).collect();
        let mut live: HashSet<ResultId> = HashSet::new();
        let spare = |live: &mut HashSet<ResultId>, top: ResultId| {
            let mut next = Some(top);
            while let Some(id) = next.filter(|id| live.insert(*id)) {
                next = parents.get(&id).copied();
            }
        };
        for id in keep.iter().filter_map(|id| self.real(id)) {
            spare(&mut live, id);
        }
        // the tops of stacks come first, so that what lies below is never missing for somebody above
        let mut order = records;
        order.sort_by_key(|record| std::cmp::Reverse(depth(&parents, record.id)));
        let mut removed = Vec::new();
        for record in order {
            let names = aliases.remove(&record.id).unwrap_or_default();
            if live.contains(&record.id) {
                continue;
            }
            if self.take_away(&grave, &record.id, &names)? {
                removed.push(describe(record, names));
            } else {
                spare(&mut live, record.id);
            }
        }
        Ok(removed)
    }

    /// Removes one directory if nobody else has it locked: by a rename, so that nobody sees half of it.
    fn take_away(&self, grave: &TempDir, id: &ResultId, aliases: &[ResultId]) -> Result<bool, SnapshotError> {
        let path = self.dir(id);
        let dir = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
            opened => opened.map_err(StoreError::io("open", &path))?,
        };
        let Some(_alone) = Lock::on(dir, LockKind::Exclusive).map_err(StoreError::io("lock", &path))? else {
            return Ok(false);
        };
        std::fs::rename(&path, grave.path().join(id.to_string())).map_err(StoreError::io("remove", &path))?;
        self.forget(id);
        for alias in aliases {
            let link = self.dir(alias);
            std::fs::remove_file(&link).map_err(StoreError::io("remove", &link))?;
        }
        Ok(true)
    }
}

fn depth(parents: &HashMap<ResultId, ResultId>, id: ResultId) -> usize {
    // a stack is never longer than the number of snapshots, whatever damaged records say
    std::iter::successors(parents.get(&id), |id| parents.get(*id)).take(parents.len()).count()
}

fn describe(record: Record, aliases: Vec<ResultId>) -> SnapshotInfo {
    let Record { id, parent, bytes, chain, step, created, .. } = record;
    SnapshotInfo { id, parent, bytes, chain, step, aliases, created }
}
