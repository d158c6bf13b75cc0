//! Looks at every snapshot to the last byte: what `system check` says of them.
//!
//! A build looks at records, checksums and, after another boot, at sizes; reading all files would take longer than the
//! build. Here they are read.

use super::collect::PUBLISH;
use super::load::Below;
use super::record::{LayerInfo, unseal};
use super::{LayerDirs, SnapshotError, Snapshots};
use crate::digest::ResultId;
use crate::layer::hash_file;
use crate::store::{LockKind, StoreError};
use crate::sys::fsutil;
use crate::tree::{Entry, Node};
use rayon::prelude::*;
use rustix::fs::{FileType, Stat};
use std::path::{Path, PathBuf};

/// No honest record of a tar is longer, in bytes.
const MAX_LAYER: u64 = 1 << 20;

/// Something that is wrong with a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Name of its directory, its alias or its file in `absent/`.
    pub name: String,
    /// In words.
    pub wrong: String,
    /// What can be done.
    pub kind: FlawKind,
}

/// What can be done about a flaw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlawKind {
    /// It is damaged, so nobody should use it: [`Snapshots::remove_flawed`].
    Damaged,
    /// It is whole, and what it stands on is gone: it is of no use until that is back.
    Orphan,
    /// A file that only saves time is damaged and can go.
    File(PathBuf),
}

impl Snapshots {
    /// Looks at all snapshots, aliases and records of absent ones, and reads every file of them. Those that go meanwhile
    /// are passed over.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn audit(&self) -> Result<Vec<Flaw>, SnapshotError> {
        let mut flaws = Vec::new();
        for (name, path) in entries(&self.store().path("snapshots"))? {
            flaws.extend(self.audit_one(&name, &path));
        }
        let absent = self.store().path("absent");
        if absent.is_dir() {
            for (name, path) in entries(&absent)? {
                if name.parse().ok().and_then(|id| self.absent(&id)).is_none() && path.exists() {
                    let wrong = "what is known of a layer that is elsewhere cannot be read".to_owned();
                    flaws.push(Flaw { name, wrong, kind: FlawKind::File(path) });
                }
            }
        }
        Ok(flaws)
    }

    fn audit_one(&self, name: &str, path: &Path) -> Vec<Flaw> {
        let flaw = |wrong: String, kind| Flaw { name: name.to_owned(), wrong, kind };
        let damaged = |wrong: &str| vec![flaw(wrong.to_owned(), FlawKind::Damaged)];
        let Ok(id) = name.parse::<ResultId>() else {
            return damaged("it has no name of a snapshot");
        };
        if path.is_symlink() {
            let leads = self.real(&id).is_some();
            return if leads { Vec::new() } else { damaged("the alias leads nowhere") };
        }
        // held, so that a collector passes it over while it is read
        let record = match self.hold(&id) {
            Ok(held) => (held, self.read_record(&id)),
            Err(_) => return if path.exists() { damaged("it cannot be opened") } else { Vec::new() },
        };
        let record = match record.1 {
            Ok(Some(record)) => record,
            Ok(None) if !self.is_garbage(&id) => return Vec::new(),
            Ok(None) => return damaged("its record is missing or damaged"),
            Err(error) => return damaged(&error.to_string()),
        };
        let mut flaws = self.audit_layer_files(name, path);
        let diff = match self.read_diff(&id) {
            Ok(diff) if diff.content_id() == record.content => diff,
            _ => {
                flaws.extend(damaged("the list of its files is missing or damaged"));
                return flaws;
            }
        };
        match self.open_dirs(&id, record.rest.as_ref()) {
            Ok(dirs) => {
                let places = (0..diff.len()).into_par_iter();
                let wrong = places.find_map_first(|at| fault(&dirs, &diff.entry(at)));
                flaws.extend(wrong.map(|wrong| flaw(wrong, FlawKind::Damaged)));
            }
            Err(error) => flaws.extend(damaged(&error.to_string())),
        }
        if flaws.iter().all(|flaw| flaw.kind != FlawKind::Damaged) && !self.stands(&record.parent) {
            let wrong = format!("what it stands on, {}, is gone", record.parent);
            flaws.push(flaw(wrong, FlawKind::Orphan));
        }
        flaws
    }

    /// Looks at what is remembered of the tar and of the disk use.
    fn audit_layer_files(&self, name: &str, path: &Path) -> Vec<Flaw> {
        let files = entries(path).unwrap_or_default();
        let tars =
            files.into_iter().filter(|(file, _)| file.starts_with("layer.") && file.ends_with(".json"));
        let bad = tars.filter(|(file, _)| {
            let bytes = self.store().read(&format!("snapshots/{name}/{file}"), MAX_LAYER);
            bytes.ok().flatten().is_some_and(|bytes| unseal::<LayerInfo>(&bytes).is_none())
        });
        let wrong = |(file, path): (String, PathBuf)| Flaw {
            name: name.to_owned(),
            wrong: format!("{file}, which remembers its tar, is damaged"),
            kind: FlawKind::File(path),
        };
        bad.map(wrong).collect()
    }

    /// Says whether a snapshot and all that it stands on are here, or known so well that they can be brought. Nothing is
    /// brought, and no file of a layer is looked at.
    pub fn stands(&self, id: &ResultId) -> bool {
        let mut next = *id;
        while next != ResultId::scratch() {
            let Some(real) = self.real(&next) else { return false };
            match self.below(&real) {
                Ok(Below { parent, .. }) if self.dir(&real).join("record.json").exists() => next = parent,
                _ => return self.absent(&real).is_some(),
            }
        }
        true
    }

    /// Takes away a snapshot that is flawed, or an alias; gives false while somebody uses it.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove_flawed(&self, name: &str) -> Result<bool, SnapshotError> {
        let path = self.store().path("snapshots").join(name);
        let grave = self.store().temp_dir("flawed")?;
        let _alone = self.store().lock(PUBLISH, LockKind::Exclusive)?;
        let id = name.parse::<ResultId>().ok();
        let _lock = match &id {
            Some(id) if path.is_dir() && !path.is_symlink() => match self.lock_alone(id)? {
                Some(lock) => Some(lock),
                None => return Ok(!path.exists()),
            },
            _ => None,
        };
        std::fs::rename(&path, grave.path().join("flawed")).map_err(StoreError::io("remove", &path))?;
        if let Some(id) = id {
            self.forget(&id);
        }
        Ok(true)
    }
}

fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    let list = std::fs::read_dir(dir).map_err(StoreError::io("list", dir))?;
    let mut all: Vec<(String, PathBuf)> =
        list.flatten().map(|e| (e.file_name().to_string_lossy().into_owned(), e.path())).collect();
    all.sort();
    Ok(all)
}

/// Says what is wrong with one entry of a layer.
fn fault(dirs: &LayerDirs, entry: &Entry) -> Option<String> {
    let path = String::from_utf8_lossy(entry.path.as_bytes()).into_owned();
    let missing = |error: std::io::Error| format!("/{path} cannot be read: {error}");
    let stat = match dirs.stat(&entry.path) {
        Ok(stat) => stat,
        // without the machine's root devices are in the record alone
        Err(_) if matches!(entry.node, Node::CharDevice { .. } | Node::BlockDevice { .. }) => return None,
        Err(error) => return Some(missing(error)),
    };
    if !kind_fits(&entry.node, &stat) {
        return Some(format!("/{path} is another kind of file"));
    }
    match &entry.node {
        Node::File { size, content } => {
            let read = dirs.open(&entry.path).and_then(|file| hash_file(&file));
            match read {
                Err(error) => return Some(missing(error)),
                Ok((_, found)) if found != *size => {
                    return Some(format!("/{path} has {found} bytes, not {size}"));
                }
                Ok((found, _)) if found != *content => return Some(format!("/{path} has another content")),
                Ok(_) => {}
            }
            (stat.st_mode & 0o7777 != entry.meta.mode).then(|| format!("/{path} has another mode"))
        }
        Node::Dir { .. } => {
            (stat.st_mode & 0o7777 != entry.meta.mode).then(|| format!("/{path} has another mode"))
        }
        _ => None,
    }
}

fn kind_fits(node: &Node, stat: &Stat) -> bool {
    let kind = fsutil::file_type(stat);
    match node {
        Node::File { .. } | Node::Hardlink { .. } => kind == FileType::RegularFile,
        Node::Dir { .. } => kind == FileType::Directory,
        Node::Symlink { .. } => kind == FileType::Symlink,
        Node::CharDevice { .. } => kind == FileType::CharacterDevice,
        Node::BlockDevice { .. } => kind == FileType::BlockDevice,
        Node::Fifo => kind == FileType::Fifo,
        // the second form is that of unprivileged users on some file systems
        Node::Whiteout => match kind {
            FileType::CharacterDevice => stat.st_rdev == 0,
            FileType::RegularFile => stat.st_size == 0,
            _ => false,
        },
    }
}
