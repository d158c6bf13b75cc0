//! The index: what can be asked quickly because sled keeps it sorted; the only file that names sled.
//!
//! sled lets one process in at a time, can be damaged by a hard kill and may panic on what it then reads
//! (spacejam/sled issues 1289, 1517). So the index holds nothing that the records do not say too, a session
//! is short, every value carries its own checksum, a panic inside sled counts as damage, damage sets the old index
//! aside and makes a new one from the records, and a lock that is not given soon means to do without. No error leaves here.

use super::record::{Records, StepRecord};
use crate::digest::{CacheKey, ResultId};
use crate::fault;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a session waits for another process's session before it does without.
const PATIENCE: Duration = Duration::from_millis(250);
/// Pause between two tries for the lock.
const RETRY: Duration = Duration::from_millis(10);

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Says whether a panic on this thread is caught and turned into "no index"; the panic hook stays silent then.
pub fn panics_are_caught() -> bool {
    QUIET.get()
}

/// Runs something of sled's; a panic is `None`.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    QUIET.set(true);
    let out = catch_unwind(AssertUnwindSafe(work)).ok();
    QUIET.set(false);
    out
}

/// One open session.
struct Session {
    db: sled::Db,
    /// Whether anything was written.
    dirty: Cell<bool>,
}

impl Session {
    fn get(&self, tree: &str, key: &[u8]) -> Option<Vec<u8>> {
        guarded(|| self.db.open_tree(tree).ok()?.get(key).ok()?.and_then(|v| unseal(&v))).flatten()
    }

    fn put_all(&self, tree: &str, pairs: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) {
        self.dirty.set(true);
        guarded(|| {
            let mut batch = sled::Batch::default();
            pairs.for_each(|(key, value)| batch.insert(key, seal(&value)));
            self.db.open_tree(tree).ok()?.apply_batch(batch).ok()
        });
    }

    /// Fills an index that is new, or that sled silently emptied because it could not read it.
    fn filled(self, records: &Records) -> Self {
        if self.get(META, FILLED).is_none() {
            self.learn(&records.all());
            self.put_all(META, std::iter::once((FILLED.to_vec(), Vec::new())));
        }
        self
    }

    fn learn(&self, records: &[StepRecord]) {
        fault::point("index.before_insert");
        self.put_all(KEYS, records.iter().map(|r| (r.key.0.to_vec(), used(&r.result, r.ended))));
        self.put_all(NEAR, records.iter().map(|r| (r.place.clone().into_bytes(), r.key.0.to_vec())));
        fault::point("index.inserted");
    }
}

const KEYS: &str = "keys";
const NEAR: &str = "near";
const META: &str = "meta";
const FILLED: &[u8] = b"filled";

fn used(result: &ResultId, when: u64) -> Vec<u8> {
    [&result.0[..], &when.to_be_bytes()].concat()
}

/// Puts a checksum before a value, since sled hands out what it finds.
fn seal(value: &[u8]) -> Vec<u8> {
    [&blake3::hash(value).as_bytes()[..8], value].concat()
}

fn unseal(sealed: &[u8]) -> Option<Vec<u8>> {
    let (sum, value) = sealed.split_at_checked(8)?;
    (blake3::hash(value).as_bytes()[..8] == *sum).then(|| value.to_vec())
}

enum State {
    Closed,
    /// A thread writes what was learnt; it gives the session back.
    Learning(JoinHandle<Option<Session>>),
    Open(Session),
    Without,
}

/// The index of a store as one process uses it: opened when first asked.
pub struct Index {
    dir: PathBuf,
    records: Records,
    state: Mutex<State>,
}

impl Index {
    /// Names the index in `dir`; nothing is opened yet.
    pub fn new(dir: PathBuf, records: Records) -> Self {
        Self { dir, records, state: Mutex::new(State::Closed) }
    }

    /// Ends the session, so that other processes get the index while this one runs commands.
    pub fn close(&self) {
        let mut state = self.lock();
        let old = std::mem::replace(&mut *state, State::Closed);
        let old = match old {
            State::Learning(thread) => thread.join().ok().flatten().map_or(State::Without, State::Open),
            other => other,
        };
        guarded(move || drop(old));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn with<T>(&self, ask: impl FnOnce(&Session) -> Option<T>) -> Option<T> {
        let mut state = self.lock();
        let opened = match std::mem::replace(&mut *state, State::Without) {
            State::Closed => open(&self.dir, &self.records),
            State::Learning(thread) => thread.join().ok().flatten(),
            State::Open(session) => Some(session),
            State::Without => None,
        };
        *state = opened.map_or(State::Without, State::Open);
        if let State::Open(session) = &*state { ask(session) } else { None }
    }

    /// Remembers what ran and what was used.
    pub fn learn(&self, records: &[StepRecord]) {
        if !records.is_empty() {
            self.with(|s| {
                s.learn(records);
                guarded(|| s.db.flush().ok())
            });
        }
    }

    /// Does the same on a thread of its own, which is waited for when the index is used again or dropped: opening sled and
    /// waiting for the disk take longer than all else that remains to be done at the end of a build.
    pub fn learn_beside(&self, learnt: Vec<StepRecord>) {
        if learnt.is_empty() {
            return;
        }
        let mut state = self.lock();
        let before = std::mem::replace(&mut *state, State::Without);
        let (dir, records) = (self.dir.clone(), self.records.clone());
        *state = State::Learning(std::thread::spawn(move || {
            let session = match before {
                State::Closed => open(&dir, &records),
                State::Learning(thread) => thread.join().ok().flatten(),
                State::Open(session) => Some(session),
                State::Without => None,
            }?;
            session.learn(&learnt);
            guarded(|| session.db.flush().ok());
            fault::point("index.flushed");
            Some(session)
        }));
    }

    /// Finds the result of a key and when it was last used, in seconds since the epoch.
    pub fn result(&self, key: &CacheKey) -> Option<(ResultId, u64)> {
        let value = self.with(|s| s.get(KEYS, &key.0))?;
        let (id, when) = value.split_first_chunk::<32>()?;
        Some((ResultId(*id), u64::from_be_bytes(when.try_into().ok()?)))
    }

    /// Finds the key that was last seen at a place.
    pub fn nearest(&self, place: &str) -> Option<CacheKey> {
        self.with(|s| s.get(NEAR, place.as_bytes()))?.try_into().ok().map(CacheKey)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let state = match std::mem::replace(&mut *self.lock(), State::Without) {
            State::Learning(thread) => thread.join().ok().flatten().map_or(State::Without, State::Open),
            state => state,
        };
        match state {
            // sled would write and sync what nobody changed, which takes longer than the rest of a cached build; the
            // kernel lets go of its lock when the process ends
            State::Open(session) if !session.dirty.get() => std::mem::forget(session),
            State::Open(session) => drop(guarded(move || drop(session))),
            State::Learning(_) | State::Closed | State::Without => {}
        }
    }
}

/// How an index is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every value has its checksum.
    Whole,
    /// It cannot be opened, or values are damaged.
    Damaged(String),
    /// Another process has it.
    Locked,
}

/// Reads a whole index; nothing is made anew. One that is not there is whole.
pub fn verify(dir: &Path) -> Verdict {
    if !dir.join("db").exists() && dir.is_dir() {
        return Verdict::Whole;
    }
    let read = || -> Result<usize, sled::Error> {
        let db = config(dir).open()?;
        let mut bad = 0;
        for tree in [KEYS, NEAR, META] {
            for pair in &db.open_tree(tree)? {
                bad += usize::from(unseal(&pair?.1).is_none());
            }
        }
        Ok(bad)
    };
    match guarded(read) {
        Some(Ok(0)) => Verdict::Whole,
        Some(Ok(bad)) => Verdict::Damaged(format!("{bad} of its values are damaged")),
        Some(Err(error)) if is_locked(&error) => Verdict::Locked,
        Some(Err(error)) => Verdict::Damaged(error.to_string()),
        None => Verdict::Damaged("it cannot be read".into()),
    }
}

/// Opens the index or makes it anew; `None` when another process keeps it.
fn open(dir: &Path, records: &Records) -> Option<Session> {
    let until = Instant::now() + PATIENCE;
    let session = loop {
        match guarded(|| config(dir).open()) {
            Some(Ok(db)) => break Some(Session { db, dirty: Cell::new(false) }),
            Some(Err(error)) if is_locked(&error) => {
                if Instant::now() > until {
                    return None;
                }
                std::thread::sleep(RETRY);
            }
            _ => break None,
        }
    };
    match session {
        Some(session) => Some(session.filled(records)),
        None => anew(dir, records),
    }
}

/// Sets a damaged index aside and makes a new one from the records.
fn anew(dir: &Path, records: &Records) -> Option<Session> {
    let aside = dir.with_extension(format!("damaged-{}", std::process::id()));
    std::fs::rename(dir, &aside).ok()?;
    // it holds nothing that is not elsewhere; a failure to remove it costs space only
    let _ = if aside.is_dir() { std::fs::remove_dir_all(&aside) } else { std::fs::remove_file(&aside) };
    let db = guarded(|| config(dir).open())?.ok()?;
    Some(Session { db, dirty: Cell::new(false) }.filled(records))
}

fn config(dir: &Path) -> sled::Config {
    sled::Config::new().path(dir).mode(sled::Mode::LowSpace).flush_every_ms(None).cache_capacity(64 << 20)
}

fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(e) if e.kind() == std::io::ErrorKind::WouldBlock || e.to_string().contains("lock"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{KeyPart, Shelf};
    use std::collections::BTreeMap;
    use std::io;
    use std::sync::Arc;

    #[derive(Default)]
    struct MemoryShelf(Mutex<BTreeMap<String, Vec<u8>>>);

    impl Shelf for MemoryShelf {
        fn read(&self, name: &str, _limit: u64) -> io::Result<Option<Vec<u8>>> {
            Ok(self.0.lock().unwrap().get(name).cloned())
        }
        fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
            self.0.lock().unwrap().insert(name.to_owned(), bytes.to_vec());
            Ok(())
        }
        fn list(&self, dir: &str) -> io::Result<Vec<String>> {
            let map = self.0.lock().unwrap();
            let mut names: Vec<String> = map
                .keys()
                .filter_map(|k| k.strip_prefix(dir)?.strip_prefix('/')?.split('/').next().map(str::to_owned))
                .collect();
            names.dedup();
            Ok(names)
        }
        fn touched(&self, name: &str) -> io::Result<Option<i64>> {
            Ok(self.0.lock().unwrap().contains_key(name).then_some(0))
        }
        fn touch(&self, _name: &str) -> io::Result<()> {
            Ok(())
        }
        fn remove(&self, name: &str) -> io::Result<u64> {
            let removed = self.0.lock().unwrap().remove(name);
            Ok(removed.map_or(0, |bytes| bytes.len() as u64))
        }
    }

    fn record(n: u8) -> StepRecord {
        StepRecord {
            key: CacheKey([n; 32]),
            result: ResultId([n + 100; 32]),
            label: "RUN".into(),
            place: "place".into(),
            parts: vec![KeyPart { name: "a".into(), value: n.to_string() }],
            ended: u64::from(n),
            took_ms: 1,
        }
    }

    fn index(dir: &Path) -> (Index, Records) {
        let records = Records::new(Arc::new(MemoryShelf::default()));
        (Index::new(dir.join("index"), records.clone()), records)
    }

    #[test]
    fn what_is_learnt_is_found_and_the_last_at_a_place_is_nearest() {
        let dir = tempfile::tempdir().unwrap();
        let (index, _) = index(dir.path());
        assert_eq!(index.result(&CacheKey([1; 32])), None);
        index.learn(&[record(1)]);
        index.learn_beside(vec![record(2)]);
        index.close();
        assert_eq!(index.result(&CacheKey([1; 32])), Some((ResultId([101; 32]), 1)));
        assert_eq!(index.nearest("place"), Some(CacheKey([2; 32])));
    }

    #[test]
    fn a_deleted_or_damaged_index_is_made_anew_from_the_records() {
        let dir = tempfile::tempdir().unwrap();
        let (index, records) = index(dir.path());
        records.put(&record(1)).unwrap();
        let damage: [fn(&Path); 4] = [
            |p| drop(std::fs::remove_dir_all(p)),
            |p| {
                std::fs::write(p.join("db"), b"garbage, longer than any header of sled would be".repeat(99))
                    .unwrap()
            },
            |p| std::fs::write(p.join("conf"), b"garbage").unwrap(),
            |p| {
                std::fs::remove_dir_all(p).unwrap();
                std::fs::write(p, b"a file").unwrap();
            },
        ];
        for (n, damage) in damage.iter().enumerate() {
            index.learn(&[record(1)]);
            index.close();
            damage(&dir.path().join("index"));
            assert!(index.result(&CacheKey([1; 32])).is_some(), "damage {n}");
        }
    }

    #[test]
    fn a_locked_index_is_done_without() {
        let dir = tempfile::tempdir().unwrap();
        let (first, _) = index(dir.path());
        first.learn(&[record(1)]);
        let (second, _) = index(dir.path());
        assert_eq!(second.result(&CacheKey([1; 32])), None);
        first.close();
        second.close();
        assert!(second.result(&CacheKey([1; 32])).is_some());
    }
}
