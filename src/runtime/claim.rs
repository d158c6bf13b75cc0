//! Which containers run: one locked file each, named like the container.
//!
//! The lock vanishes with the process that holds it, however it dies, so a file without a lock is a container that is
//! gone and its name is free. Nothing here outlives `run` yet.

use super::{ContainerId, ContainerName, RunError};
use crate::store::{Lock, LockKind, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the file says about its container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// All 64 digits.
    pub id: String,
    /// As typed.
    pub image: String,
    /// The ID behind it.
    #[serde(default)]
    pub image_id: String,
    /// The process that holds it.
    pub pid: u32,
    /// Labels of image and command line.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// More is not read, in bytes.
const CARD_LIMIT: u64 = 1 << 20;

/// How often to look again at a file that is locked and empty, a millisecond apart.
const RETRIES: u32 = 50;

/// The right to a name until it is dropped.
#[derive(Debug)]
pub struct Claim {
    name: ContainerName,
    path: PathBuf,
    _lock: Lock,
}

impl Claim {
    /// Takes the wanted name, or a random one that is free.
    ///
    /// # Errors
    /// [`RunError::NameInUse`] when a running container has the wanted name.
    pub fn take(store: &Store, wanted: Option<&ContainerName>, card: &Card) -> Result<Self, RunError> {
        let dir = store.root().join("containers");
        sweep(&dir);
        for attempt in 0.. {
            let name = wanted.map_or_else(ContainerName::random, |name| Ok(name.clone()))?;
            if let Some(claim) = Self::attempt(&dir, &name, card)? {
                return Ok(claim);
            }
            if wanted.is_none() {
                continue;
            }
            match owner(&dir.join(name.as_str())) {
                // somebody is just writing it, or sweeping it away
                None if attempt < RETRIES => std::thread::sleep(Duration::from_millis(1)),
                by => {
                    let by = by.unwrap_or_else(|| "of which nothing is known".into());
                    return Err(RunError::NameInUse { name: name.to_string(), by });
                }
            }
        }
        unreachable!("the loop has no end but its returns")
    }

    fn attempt(dir: &Path, name: &ContainerName, card: &Card) -> Result<Option<Self>, RunError> {
        let path = dir.join(name.as_str());
        let fail = |e| RunError::Store(StoreError::io("claim", &path)(e));
        loop {
            let mut file = open(&path, true).map_err(fail)?;
            let copy = file.try_clone().map_err(fail)?;
            let Some(lock) = Lock::on(copy, LockKind::Exclusive).map_err(fail)? else { return Ok(None) };
            // its last owner removes the file while it holds the lock; then ours is no name any more
            if !is_named(&file, &path) {
                continue;
            }
            let text = serde_json::to_vec(card).map_err(|e| fail(e.into()))?;
            file.set_len(0).and_then(|()| file.write_all(&text)).map_err(fail)?;
            return Ok(Some(Self { name: name.clone(), path, _lock: lock }));
        }
    }

    /// Gives the name.
    pub fn name(&self) -> &ContainerName {
        &self.name
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // while the lock is held; what cannot be removed now is swept later
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Card {
    /// Describes a container of this process.
    pub fn new(id: &ContainerId, image: &str, labels: &BTreeMap<String, String>) -> Self {
        let (id, image) = (id.to_string(), image.to_owned());
        Self { id, image, image_id: String::new(), pid: std::process::id(), labels: labels.clone() }
    }

    /// Adds which image the name meant when the container was made.
    #[must_use]
    pub fn with_image_id(mut self, id: &crate::digest::ImageId) -> Self {
        self.image_id = id.to_string();
        self
    }
}

/// Lists the containers that run now with their names, in no order. One whose card is just being written is left out.
pub fn running(store: &Store) -> Result<Vec<(String, Card)>, StoreError> {
    let dir = store.root().join("containers");
    let mut out = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(StoreError::io("list", &dir))?.flatten() {
        let path = entry.path();
        let Ok(mut file) = open(&path, false) else { continue };
        let mut text = Vec::new();
        let card = match (&mut file).take(CARD_LIMIT).read_to_end(&mut text) {
            Ok(_) => serde_json::from_slice::<Card>(&text),
            Err(_) => continue,
        };
        // shared: two who look at the same time do not hinder each other
        let held = matches!(Lock::on(file, LockKind::Shared), Ok(None));
        if let (true, Ok(card)) = (held, card) {
            out.push((entry.file_name().to_string_lossy().into_owned(), card));
        }
    }
    Ok(out)
}

fn open(path: &Path, create: bool) -> std::io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    File::options()
        .read(true)
        .write(true)
        .create(create)
        .mode(0o600)
        .custom_flags(flags.bits() as i32)
        .open(path)
}

fn is_named(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn owner(path: &Path) -> Option<String> {
    let mut text = Vec::new();
    open(path, false).ok()?.take(CARD_LIMIT).read_to_end(&mut text).ok()?;
    let card: Card = serde_json::from_slice(&text).ok()?;
    card.id.get(..12).map(str::to_owned)
}

/// Removes the files of containers whose process died without removing them.
fn sweep(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let held = open(&path, false)
            .and_then(|file| Ok((is_named(&file, &path), Lock::on(file, LockKind::Exclusive)?)));
        if let Ok((true, Some(_dead))) = held {
            let _ = std::fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        (dir, store)
    }

    #[test]
    fn a_name_is_held_once_and_free_afterwards() {
        let (_dir, store) = store();
        let name: ContainerName = "web-1".parse().unwrap();
        let card = Card::new(&ContainerId::random().unwrap(), "busybox", &BTreeMap::new());
        let first = Claim::take(&store, Some(&name), &card).unwrap();
        let error = Claim::take(&store, Some(&name), &card).unwrap_err();
        assert!(matches!(&error, RunError::NameInUse { by, .. } if *by == card.id[..12]), "{error}");
        let other = Claim::take(&store, None, &card).unwrap();
        assert_ne!(other.name(), first.name());
        drop((first, other));
        assert_eq!(std::fs::read_dir(store.root().join("containers")).unwrap().count(), 0);
        Claim::take(&store, Some(&name), &card).unwrap();
    }

    #[test]
    fn what_a_dead_process_left_is_swept() {
        let (_dir, store) = store();
        let left = store.root().join("containers/old-1");
        std::fs::write(&left, "{}").unwrap();
        let card = Card::new(&ContainerId::random().unwrap(), "busybox", &BTreeMap::new());
        let _claim = Claim::take(&store, Some(&"new-1".parse().unwrap()), &card).unwrap();
        assert!(!left.exists());
    }
}
