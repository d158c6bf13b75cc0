//! What is there, and taking away what nobody needs.

use super::record::{Record, SnapshotInfo};
use super::{SnapshotError, Snapshots};
use crate::digest::ResultId;
use crate::fault;
use crate::store::{Lock, LockKind, StoreError, TempDir};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;

/// Held together by commits, alone by removal.
pub(super) const PUBLISH: &str = "publish";

/// What must stay, as [`Snapshots::evict`] asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// These and what they stand on, beside those that were named before.
    Now(Vec<ResultId>),
    /// Nothing new since the last answer.
    AsBefore,
    /// It cannot be found out, so nothing more may be removed.
    Unknown,
}

/// What each snapshot needs: its parent first.
type Below = HashMap<ResultId, Vec<ResultId>>;

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
        match self.load(&id) {
            Err(SnapshotError::Missing(_)) => {
                self.absent(&id).map(|absent| absent.info()).ok_or(SnapshotError::Missing(id))
            }
            loaded => Ok(describe(loaded?.record.clone(), Vec::new())),
        }
    }

    /// Says whether a result is what a step on `parent` makes with the content of its files; what is not here counts
    /// as right, since it is checked when it is brought.
    pub fn stands_on(&self, id: &ResultId, parent: &ResultId) -> bool {
        let Some(id) = self.real(id) else { return false };
        match self.load(&id) {
            Ok(loaded) => ResultId::step(parent, &loaded.record.content) == id,
            Err(_) => self.absent(&id).is_some_and(|absent| absent.parent == *parent),
        }
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
        let Some(id) = self.real(id).filter(|id| self.dir(id).exists()) else { return Ok(true) };
        let grave = self.inner.store.temp_dir("removed")?;
        let _alone = self.inner.store.lock(PUBLISH, LockKind::Exclusive)?;
        let (records, aliases) = self.read_all()?;
        if records.iter().any(|record| record.rest == Some(id) || self.real(&record.parent) == Some(id)) {
            return Ok(false);
        }
        let Some(_lock) = self.lock_alone(&id)? else { return Ok(self.real(&id).is_none()) };
        self.bury(&grave, &id, aliases.get(&id).map_or(&[], Vec::as_slice))?;
        Ok(true)
    }

    /// Removes all snapshots but those in `keep`, those in use by any process, and what these stand on. Gives the
    /// removed ones. A snapshot that a build finds at the same moment is either held by it in time or missing for it.
    pub fn collect(&self, keep: &HashSet<ResultId>) -> Result<Vec<SnapshotInfo>, SnapshotError> {
        let (records, _) = self.read_all()?;
        let parents = self.parents(&records);
        let mut order: Vec<ResultId> = records.iter().map(|record| record.id).collect();
        // the tops of stacks come first
        order.sort_by_key(|id| std::cmp::Reverse(depth(&parents, *id)));
        let mut first = true;
        let mut roots = || match std::mem::replace(&mut first, false) {
            true => Roots::Now(keep.iter().copied().collect()),
            false => Roots::AsBefore,
        };
        self.evict(&order, &mut roots)
    }

    /// Removes those of the `victims`, in this order, that nothing stands on, that no process holds and that are
    /// neither a root nor below one. Gives the removed ones.
    ///
    /// `roots` is asked at the beginning and again whenever a victim has been locked: whoever makes something a
    /// root holds it until that is on record, so once we have the lock all roots that lead to the victim can be seen.
    /// A snapshot that a build finds at the same moment is either held by it in time or missing for it. A crash leaves
    /// each snapshot whole or gone.
    pub fn evict(
        &self,
        victims: &[ResultId],
        roots: &mut dyn FnMut() -> Roots,
    ) -> Result<Vec<SnapshotInfo>, SnapshotError> {
        // dropped last: the slow part, deleting, comes after the lock is given back
        let grave = self.inner.store.temp_dir("removed")?;
        // no commit comes in between, which could put something onto a snapshot that we take for unused
        let _alone = self.inner.store.lock(PUBLISH, LockKind::Exclusive)?;
        let (records, mut aliases) = self.read_all()?;
        let parents = self.parents(&records);
        let mut records: HashMap<ResultId, Record> = records.into_iter().map(|r| (r.id, r)).collect();
        let mut above: HashMap<ResultId, usize> = HashMap::new();
        for below in parents.values().flatten() {
            *above.entry(*below).or_default() += 1;
        }
        let mut live = HashSet::new();
        let mut removed = Vec::new();
        if !self.spare(&mut live, &parents, roots()) {
            return Ok(removed);
        }
        for id in victims {
            if live.contains(id) || above.get(id).is_some_and(|n| *n > 0) || !records.contains_key(id) {
                continue;
            }
            let Some(lock) = self.lock_alone(id)? else { continue };
            if !self.spare(&mut live, &parents, roots()) {
                break;
            }
            if live.contains(id) {
                continue;
            }
            let names = aliases.remove(id).unwrap_or_default();
            self.bury(&grave, id, &names)?;
            drop(lock);
            for below in parents.get(id).into_iter().flatten() {
                above.entry(*below).and_modify(|count| *count -= 1);
            }
            removed.extend(records.remove(id).map(|record| describe(record, names)));
        }
        Ok(removed)
    }

    /// Adds roots and what they stand on; false when they are not known.
    fn spare(&self, live: &mut HashSet<ResultId>, parents: &Below, roots: Roots) -> bool {
        let roots = match roots {
            Roots::AsBefore => return true,
            Roots::Unknown => return false,
            Roots::Now(roots) => roots,
        };
        let mut next: Vec<ResultId> = roots.iter().filter_map(|root| self.real(root)).collect();
        while let Some(id) = next.pop() {
            if live.insert(id) {
                next.extend(parents.get(&id).into_iter().flatten());
            }
        }
        true
    }

    fn parents(&self, records: &[Record]) -> Below {
        let below =
            |r: &Record| [self.real(&r.parent).or(Some(r.parent)), r.rest].into_iter().flatten().collect();
        records.iter().map(|r| (r.id, below(r))).collect()
    }

    /// Says whether some process uses a snapshot itself; what only stands below a used one is not asked for.
    pub fn is_held(&self, id: &ResultId) -> bool {
        self.real(id).is_some_and(|id| matches!(self.lock_alone(&id), Ok(None)))
    }

    /// Removes what is no snapshot: directories without a valid record and aliases that lead nowhere. Gives how many.
    /// What belongs to another mode of the same store stays.
    pub fn remove_garbage(&self) -> Result<usize, SnapshotError> {
        let grave = self.inner.store.temp_dir("garbage")?;
        let _alone = self.inner.store.lock(PUBLISH, LockKind::Exclusive)?;
        let dir = self.inner.store.path("snapshots");
        let mut removed = 0;
        for entry in std::fs::read_dir(&dir).map_err(StoreError::io("list", &dir))?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<ResultId>().ok()) else {
                continue;
            };
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                if self.real(&id).is_none() && std::fs::remove_file(entry.path()).is_ok() {
                    removed += 1;
                }
            } else if self.is_garbage(&id)
                && let Some(_lock) = self.lock_alone(&id)?
            {
                self.bury(&grave, &id, &[])?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Locks a snapshot's directory for ourselves; `None` when somebody uses it, or when it is not there.
    ///
    /// Whoever wants to use it meanwhile waits, so this is held for a moment only.
    pub(super) fn lock_alone(&self, id: &ResultId) -> Result<Option<Lock>, SnapshotError> {
        let path = self.dir(id);
        let dir = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(StoreError::io("open", &path))?,
        };
        Ok(Lock::on(dir, LockKind::Exclusive).map_err(StoreError::io("lock", &path))?)
    }

    /// Removes a directory that is locked: by a rename, so that nobody sees half of it. Its further names go first, so
    /// that none ever leads nowhere.
    fn bury(&self, grave: &TempDir, id: &ResultId, aliases: &[ResultId]) -> Result<(), SnapshotError> {
        for alias in aliases {
            let link = self.dir(alias);
            match std::fs::remove_file(&link) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("remove", &link)(e).into());
                }
                _ => {}
            }
        }
        let path = self.dir(id);
        fault::point("snapshot.aliases_gone");
        std::fs::rename(&path, grave.path().join(id.to_string())).map_err(StoreError::io("remove", &path))?;
        fault::point("snapshot.buried");
        self.forget(id);
        Ok(())
    }
}

/// Gives the longest way down. What shows through is never a difference itself, so one step to it is enough.
fn depth(parents: &Below, id: ResultId) -> usize {
    let parent = |id: &ResultId| parents.get(id).and_then(|below| below.first());
    // a stack is never longer than the number of snapshots, whatever damaged records say
    let own = std::iter::successors(parent(&id), |id| parent(id)).take(parents.len()).count();
    let rest = parents.get(&id).and_then(|below| below.get(1));
    let rest =
        rest.map(|rest| std::iter::successors(Some(rest), |id| parent(id)).take(parents.len()).count());
    own.max(rest.unwrap_or(0))
}

fn describe(record: Record, aliases: Vec<ResultId>) -> SnapshotInfo {
    let Record { id, parent, rest, bytes, chain, step, created, .. } = record;
    SnapshotInfo { id, parent, rest, bytes, chain, step, aliases, created }
}
