//! The record of a step: one file a key, written whole or not at all, checked when read.

use super::key::KeyPart;
use crate::digest::{CacheKey, ContentId, ResultId, hex};
use crate::fault;
use serde::{Deserialize, Serialize};
use std::io;

/// First word of a record file; another version is no record.
const MAGIC: &str = "rbstep1";
/// No honest record is longer, in bytes.
const LIMIT: u64 = 4 << 20;
/// No honest memo is longer, in bytes: two ids and their line ends.
const MEMO_LIMIT: u64 = 160;

/// Keeps small files by name; the store gives one. Names are relative paths that this room makes from hex digits.
pub trait Shelf: Send + Sync {
    /// Reads a whole file of at most `limit` bytes; `None` when it is not there.
    fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>>;
    /// Replaces a file in one step: readers see the old or the new bytes.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Lists the file names below a directory name.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Says when a file was written or last touched, in seconds since the epoch; `None` when it is not there.
    fn touched(&self, name: &str) -> io::Result<Option<i64>>;
    /// Makes now the time at which a file was last touched. Absence is fine.
    fn touch(&self, name: &str) -> io::Result<()>;
    /// Removes a file and gives the bytes of disk that this frees; absence is fine.
    fn remove(&self, name: &str) -> io::Result<u64>;
}

/// How old the time of a record's last use may be before a hit renews it, in seconds: so a hit costs one look at the
/// file and seldom a write, and "least recently used" is exact to the hour.
const TOUCH_AFTER: i64 = 3600;

/// What is known of a step that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The key that it ran for.
    pub key: CacheKey,
    /// What it produced.
    pub result: ResultId,
    /// As shown to the user.
    pub label: String,
    /// Names the instruction across builds: the same place of the same Dockerfile. For explanations only.
    pub place: String,
    /// The named inputs of the key.
    pub parts: Vec<KeyPart>,
    /// When it ended, seconds since the epoch. For people; no decision rests on it.
    pub ended: u64,
    /// How long it ran, in milliseconds.
    pub took_ms: u64,
}

/// All step records of a store.
#[derive(Clone)]
pub struct Records {
    shelf: std::sync::Arc<dyn Shelf>,
}

impl Records {
    /// Works on a shelf.
    pub fn new(shelf: std::sync::Arc<dyn Shelf>) -> Self {
        Self { shelf }
    }

    /// Finds the record of a key. A damaged or foreign file counts as absent: the step runs again and replaces it.
    pub fn get(&self, key: &CacheKey) -> Option<StepRecord> {
        let bytes = self.shelf.read(&name(key), LIMIT).ok()??;
        decode(&bytes).filter(|r| r.key == *key)
    }

    /// Keeps a record, in place of an earlier one of the same key.
    pub fn put(&self, record: &StepRecord) -> io::Result<()> {
        fault::point("cache.before_record");
        self.shelf.write(&name(&record.key), &encode(record))?;
        fault::point("cache.recorded");
        Ok(())
    }

    /// Notes that a record has been used, unless that was noted within the hour. A failure does no harm.
    pub fn touch(&self, key: &CacheKey, now: i64) {
        let name = name(key);
        let Ok(Some(last)) = self.shelf.touched(&name) else { return };
        // a time in the future comes from a clock that was wrong
        if now.saturating_sub(last) >= TOUCH_AFTER || last.saturating_sub(now) >= TOUCH_AFTER {
            let _ = self.shelf.touch(&name);
        }
    }

    /// Removes a record with the list beside it and gives the bytes of disk that this frees; absence is fine.
    pub fn remove(&self, key: &CacheKey) -> io::Result<u64> {
        let list = self.shelf.remove(&list_name(key)).unwrap_or(0);
        Ok(self.shelf.remove(&name(key))?.saturating_add(list))
    }

    /// Finds what was noted under a hash: what a selection takes from a result that never changes.
    pub fn memo(&self, name: &[u8; 32]) -> Option<ContentId> {
        let bytes = self.shelf.read(&memo_name(name), MEMO_LIMIT).ok()??;
        std::str::from_utf8(&bytes).ok()?.lines().next()?.parse().ok()
    }

    /// Notes it, with the result that it is about.
    pub fn put_memo(&self, name: &[u8; 32], content: &ContentId, result: &ResultId) -> io::Result<()> {
        self.shelf.write(&memo_name(name), format!("{content}\n{result}\n").as_bytes())
    }

    /// Removes what was noted about results that `gone` says are no more. Gives the bytes of disk that this frees.
    pub fn prune_memos(&self, gone: &dyn Fn(&ResultId) -> bool) -> u64 {
        let about = |bytes: &[u8]| -> Option<ResultId> {
            std::str::from_utf8(bytes).ok()?.lines().nth(1)?.parse().ok()
        };
        let mut freed = 0u64;
        for name in self.names("memos") {
            let Ok(Some(bytes)) = self.shelf.read(&name, MEMO_LIMIT) else { continue };
            if about(&bytes).is_none_or(|result| gone(&result)) {
                freed = freed.saturating_add(self.shelf.remove(&name).unwrap_or(0));
            }
        }
        freed
    }

    /// Lists all records that can be read with the time of their last use, in seconds since the epoch; the names of
    /// damaged ones come apart.
    pub fn uses(&self) -> (Vec<(StepRecord, i64)>, Vec<String>) {
        let (mut uses, mut damaged) = (Vec::new(), Vec::new());
        for name in self.names("steps") {
            let Ok(bytes) = self.shelf.read(&name, LIMIT) else { continue };
            match bytes.as_deref().map(decode) {
                Some(Some(record)) => {
                    let last = self.shelf.touched(&name).ok().flatten();
                    let ended = i64::try_from(record.ended).unwrap_or(0);
                    uses.push((record, last.unwrap_or(ended)));
                }
                Some(None) => damaged.push(name),
                None => {}
            }
        }
        (uses, damaged)
    }

    /// Removes a file that [`Records::uses`] called damaged, unless it has become whole.
    pub fn remove_damaged(&self, name: &str) {
        if let Ok(Some(bytes)) = self.shelf.read(name, LIMIT)
            && decode(&bytes).is_none()
        {
            let _ = self.shelf.remove(name);
        }
    }

    /// Lists the memos that cannot be read, by the names of their files.
    pub fn damaged_memos(&self) -> Vec<String> {
        let whole = |bytes: &[u8]| {
            let mut lines = std::str::from_utf8(bytes).ok()?.lines();
            let content = lines.next()?.parse::<ContentId>().ok()?;
            let result = lines.next()?.parse::<ResultId>().ok()?;
            Some((content, result))
        };
        let damaged = |name: &String| match self.shelf.read(name, MEMO_LIMIT) {
            Ok(Some(bytes)) => whole(&bytes).is_none(),
            Ok(None) => false,
            Err(_) => true,
        };
        self.names("memos").into_iter().filter(damaged).collect()
    }

    /// Lists the files in the numbered directories below one.
    fn names(&self, top: &str) -> Vec<String> {
        let mut out = Vec::new();
        for shard in self.shelf.list(top).unwrap_or_default() {
            let files = self.shelf.list(&format!("{top}/{shard}")).unwrap_or_default();
            out.extend(files.into_iter().map(|file| format!("{top}/{shard}/{file}")));
        }
        out
    }

    /// Finds what was noted about something outside, an URL for example; the caller checks what it means.
    pub fn note(&self, name: &[u8; 32]) -> Option<Vec<u8>> {
        self.shelf.read(&note_name(name), LIMIT).ok()?
    }

    /// Notes it.
    pub fn put_note(&self, name: &[u8; 32], note: &[u8]) -> io::Result<()> {
        self.shelf.write(&note_name(name), note)
    }

    /// Finds the list of files that is kept beside the record of a copy; for explanations only.
    pub fn list(&self, key: &CacheKey) -> Option<Vec<u8>> {
        self.shelf.read(&list_name(key), LIMIT).ok()?
    }

    /// Keeps it.
    pub fn put_list(&self, key: &CacheKey, list: &[u8]) -> io::Result<()> {
        self.shelf.write(&list_name(key), list)
    }

    /// Reads all records, to make the index anew.
    pub fn all(&self) -> Vec<StepRecord> {
        let mut out = Vec::new();
        for shard in self.shelf.list("steps").unwrap_or_default() {
            for file in self.shelf.list(&format!("steps/{shard}")).unwrap_or_default() {
                out.extend(file.parse().ok().and_then(|key| self.get(&key)));
            }
        }
        out
    }
}

fn name(key: &CacheKey) -> String {
    let hex = key.to_string();
    format!("steps/{}/{hex}", &hex[..2])
}

fn list_name(key: &CacheKey) -> String {
    let hex = key.to_string();
    format!("lists/{}/{hex}", &hex[..2])
}

fn memo_name(name: &[u8; 32]) -> String {
    let hex = hex(name);
    format!("memos/{}/{hex}", &hex[..2])
}

fn note_name(name: &[u8; 32]) -> String {
    format!("notes/{}", hex(name))
}

fn encode(record: &StepRecord) -> Vec<u8> {
    let body = serde_json::to_string(record).expect("plain data always packs");
    format!("{MAGIC} {} {}\n{body}", body.len(), blake3::hash(body.as_bytes()).to_hex()).into_bytes()
}

fn decode(bytes: &[u8]) -> Option<StepRecord> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once('\n')?;
    let [magic, len, sum] = head.split(' ').collect::<Vec<_>>()[..] else { return None };
    let whole =
        magic == MAGIC && len.parse() == Ok(body.len()) && *sum == *blake3::hash(body.as_bytes()).to_hex();
    if whole { serde_json::from_str(body).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_or_absent() {
        let record = StepRecord {
            key: CacheKey([7; 32]),
            result: ResultId([8; 32]),
            label: "RUN x".into(),
            place: "p".into(),
            parts: vec![KeyPart { name: "a".into(), value: "b".into() }],
            ended: 1,
            took_ms: 2,
        };
        let bytes = encode(&record);
        assert_eq!(decode(&bytes), Some(record));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None);
        }
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(decode(&bad), None, "byte {at}");
        }
    }
}
