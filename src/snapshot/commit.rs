//! Makes snapshots: prepare a directory, write the record last, rename.

use super::collect::PUBLISH;
use super::load::{Loaded, layer_file};
use super::record::{LayerInfo, Record, StepRecord, seal};
use super::{Committed, Prepared, SnapshotError, Snapshots};
use crate::digest::{ChainId, ContentId, DiffId, ResultId};
use crate::fault;
use crate::layer::{LayerError, UnpackOptions, unpack_blob};
use crate::oci::Descriptor;
use crate::store::{LockKind, StoreError};
use crate::sys::fsutil;
use crate::tree::{Diff, Node};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

impl Snapshots {
    /// Makes a writable tree on top of `parent`.
    ///
    /// # Errors
    /// The parent is missing, or the directory cannot be made.
    pub fn prepare(&self, parent: &ResultId) -> Result<Prepared, SnapshotError> {
        self.prepare_for("step", parent)
    }

    /// The same; `purpose` becomes part of the directory's name in `tmp/`, so that it can be told whose it is.
    pub fn prepare_for(&self, purpose: &str, parent: &ResultId) -> Result<Prepared, SnapshotError> {
        let named = *parent;
        let parent = self.get(parent)?;
        let dir = self.inner.store.temp_dir(purpose)?;
        let (upper, work) = (dir.path().join("snapshot/fs"), dir.path().join("work"));
        let make = |path: &Path, mode: u32| {
            let made = std::fs::DirBuilder::new().mode(mode).create(path);
            made.map_err(StoreError::io("make the directory", path))
        };
        make(&dir.path().join("snapshot"), 0o700)?;
        make(&upper, 0o755)?;
        // the root directory of every image, whatever the umask
        fsutil::chmod_dir(&upper, 0o755).map_err(StoreError::io("set the mode of", &upper))?;
        make(&work, 0o700)?;
        fault::point("snapshot.prepared");
        Ok(Prepared::new(dir, upper, work, (named, parent), self.inner.mode))
    }

    /// Keeps what a step made; `diff` must describe the prepared upper directory.
    ///
    /// When the same result is there already, whoever made it, that one stays. A crash halfway leaves nothing visible.
    pub fn commit(
        &self,
        prepared: Prepared,
        diff: Diff,
        record: StepRecord,
    ) -> Result<Committed, SnapshotError> {
        let content = diff.content_id();
        let id = ResultId::step(prepared.named(), &content);
        self.keep(prepared, id, (diff, content), None, record, now())
    }

    /// Keeps what a step made on another machine; the caller has checked that parent and content lead to `id`.
    pub(super) fn commit_fetched(
        &self,
        prepared: Prepared,
        id: &ResultId,
        diff: Diff,
        info: &LayerInfo,
        record: StepRecord,
        created: i64,
    ) -> Result<Committed, SnapshotError> {
        write_layer(&prepared, id, info)?;
        let content = diff.content_id();
        self.keep(prepared, *id, (diff, content), None, record, created)
    }

    /// Keeps a layer of an image under its chain's id.
    ///
    /// The caller has checked that `diff_id` is the digest of the layer's tar.
    pub fn commit_base(
        &self,
        prepared: Prepared,
        chain: &ChainId,
        diff_id: &DiffId,
        diff: Diff,
        tar_size: Option<u64>,
        blob: Option<Descriptor>,
    ) -> Result<ResultId, SnapshotError> {
        let id = ResultId::chain(chain);
        let info = LayerInfo { diff_id: Some(diff_id.clone()), tar_size, blob, ..Default::default() };
        write_layer(&prepared, &id, &info)?;
        let content = diff.content_id();
        let done =
            self.keep(prepared, id, (diff, content), Some(chain.clone()), StepRecord::default(), now())?;
        Ok(done.id)
    }

    /// Unpacks a layer of an image on top of `parent`, checks its diff ID and keeps it under its chain's id; does
    /// nothing when it is there. Processes that want the same layer wait for the first.
    ///
    /// # Errors
    /// The blob is damaged or hostile, or its content is not what `diff_id` promises: nothing is kept.
    pub fn apply_layer(
        &self,
        parent: &ResultId,
        chain: &ChainId,
        diff_id: &DiffId,
        blob: Option<Descriptor>,
        bytes: Box<dyn Read + Send>,
    ) -> Result<ResultId, SnapshotError> {
        let id = ResultId::chain(chain);
        if self.is_present(&id) {
            return Ok(id);
        }
        let _once = self.inner.store.lock(&format!("layer-{id}"), LockKind::Exclusive)?;
        if self.is_present(&id) {
            return Ok(id);
        }
        let prepared = self.prepare(parent)?;
        let view = prepared.parent.view();
        let opts = UnpackOptions {
            userxattr: self.inner.mode.userxattr(),
            chown_ok: fsutil::can_chown(),
            parent: (*parent != ResultId::scratch()).then_some(&view),
            ..UnpackOptions::default()
        };
        let unpacked = unpack_blob(bytes, &prepared.upper, &opts)?;
        if unpacked.diff_id != *diff_id {
            let (expected, found) = (diff_id.clone(), unpacked.diff_id);
            return Err(LayerError::DiffId { expected, found }.into());
        }
        drop(view);
        self.commit_base(prepared, chain, diff_id, unpacked.diff, Some(unpacked.tar_size), blob)
    }

    fn keep(
        &self,
        prepared: Prepared,
        id: ResultId,
        (diff, content): (Diff, ContentId),
        chain: Option<ChainId>,
        step: StepRecord,
        created: i64,
    ) -> Result<Committed, SnapshotError> {
        let staged = prepared.dir.path().join("snapshot");
        let tree_bytes = write_tree(&staged.join("tree"), &diff)?;
        fault::point("snapshot.tree_written");
        let opaque = (0..diff.len()).any(|at| matches!(diff.node(at), Node::Dir { opaque: true }));
        let record = Record {
            id,
            parent: prepared.parent.id,
            rest: prepared.rest.as_ref().map(|rest| rest.id),
            content,
            tree_bytes,
            bytes: diff.content_bytes(),
            chain,
            step,
            created,
            boot: self.inner.boot.clone(),
            user_marks: opaque.then_some(self.inner.mode.userxattr()),
        };
        write(&staged.join("record.json"), &seal(&record))?;
        fault::point("snapshot.record_written");
        let _commits = self.inner.store.lock(PUBLISH, LockKind::Shared)?;
        let existed = !self.publish(&staged, &id)?;
        fault::point("snapshot.renamed");
        if !existed {
            // a snapshot without files takes its directories and records
            self.inner.grown.fetch_add(record.bytes + record.tree_bytes + 4096, Ordering::Relaxed);
            self.remember(id, Arc::new(Loaded::new(record, Some(Arc::new(diff)))));
        }
        let real = self.real(&id).ok_or(SnapshotError::Missing(id))?;
        self.pin(&real)?;
        Ok(Committed { id, existed })
    }

    /// Renames a finished directory to its place; false when a valid snapshot or alias is there.
    fn publish(&self, staged: &Path, id: &ResultId) -> Result<bool, SnapshotError> {
        let target = self.dir(id);
        let cwd = rustix::fs::CWD;
        let rename =
            || rustix::fs::renameat_with(cwd, staged, cwd, &target, rustix::fs::RenameFlags::NOREPLACE);
        loop {
            match rename() {
                Ok(()) => return Ok(true),
                Err(rustix::io::Errno::EXIST) => {}
                Err(rustix::io::Errno::INVAL) => {
                    // a file system without that flag: a directory never replaces a full one either
                    match std::fs::rename(staged, &target) {
                        Ok(()) => return Ok(true),
                        Err(_) if target.exists() => {}
                        Err(e) => return Err(StoreError::io("publish", &target)(e).into()),
                    }
                }
                Err(e) => return Err(StoreError::io("publish", &target)(e.into()).into()),
            }
            if self.is_present(id) {
                return Ok(false);
            }
            self.clear_garbage(id)?;
        }
    }

    /// Takes away what stands in a snapshot's place without a valid record.
    fn clear_garbage(&self, id: &ResultId) -> Result<(), SnapshotError> {
        let _alone = self.inner.store.lock("garbage", LockKind::Exclusive)?;
        // another process may have done it and put a good one there
        if self.is_present(id) {
            return Ok(());
        }
        let grave = self.inner.store.temp_dir("garbage")?;
        let target = self.dir(id);
        match std::fs::rename(&target, grave.path().join("snapshot")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", &target)(e).into()),
            _ => Ok(()),
        }
    }

    /// Makes `from` another name of `to`; a snapshot or alias that is there under that name stays.
    ///
    /// # Errors
    /// There is no `to`.
    pub fn alias(&self, from: &ResultId, to: &ResultId) -> Result<(), SnapshotError> {
        let to = self.real(to).ok_or(SnapshotError::Missing(*to))?;
        if *from == to || self.is_present(from) {
            return Ok(());
        }
        self.info(&to)?;
        self.clear_garbage(from)?;
        let link = self.dir(from);
        fault::point("snapshot.before_alias");
        match std::os::unix::fs::symlink(to.to_string(), &link) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StoreError::io("make the alias", &link)(e).into());
            }
            _ => {}
        }
        fault::point("snapshot.aliased");
        Ok(())
    }
}

/// Seconds since the epoch; 0 before it.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Puts what is known of the tar beside the files of a snapshot in the making.
fn write_layer(prepared: &Prepared, id: &ResultId, info: &LayerInfo) -> Result<(), StoreError> {
    let name = layer_file(id, None);
    let name = name.rsplit('/').next().unwrap_or(&name);
    write(&prepared.dir.path().join("snapshot").join(name), &seal(info))
}

fn write_tree(path: &Path, diff: &Diff) -> Result<u64, StoreError> {
    let write = || {
        let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
        let length = diff.write(&mut out)?;
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        Ok(length)
    };
    write().map_err(StoreError::io("write", path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    std::fs::write(path, bytes).map_err(StoreError::io("write", path))
}
