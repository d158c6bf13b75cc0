//! COPY and ADD: the key from what is selected, the result from the copy engine.

use super::copy::{self, ApplyEnv};
use super::take::Taken;
use crate::cache::KeyBuilder;
use crate::digest::ResultId;
use crate::layer;
use crate::plan::CopyOp;
use crate::snapshot::{Prepared, Snapshot, SnapshotMode};
use crate::solve::{BuildEnv, OpError};
use crate::tree::{Diff, Mtime};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Feeds all that can change what a COPY produces; of the source only what is selected counts.
pub(in crate::solve) fn feed(op: &CopyOp, base: &ResultId, taken: &Taken, key: &mut KeyBuilder) {
    key.id("base", &base.0)
        .id("files", &taken.content.0)
        .text("destination", &op.dest)
        .text("--chown", op.chown.as_deref().unwrap_or(""))
        .text("--chmod", op.chmod.as_deref().unwrap_or(""))
        .text("--link", if op.link { "yes" } else { "no" });
}

/// Copies onto a prepared tree and gives what that changed.
pub(in crate::solve) fn run(
    op: &CopyOp,
    taken: &Taken,
    prepared: &mut Prepared,
    env: &BuildEnv,
    rest: Option<&Rest>,
) -> Result<Diff, OpError> {
    let view = prepared.parent.view();
    let (diff, shows) = taken.with(op, env, |selection, sources| {
        let bodies = env.store.bodies();
        apply_env(env, |apply| {
            let apply = ApplyEnv { bodies: Some(&bodies), ..*apply };
            let (upper, rest) = (&prepared.upper, rest.map(|rest| &*rest.diff));
            Ok(copy::apply_on(selection, sources, &view, op, upper, &apply, rest)?)
        })
    })?;
    if let Some(rest) = rest.filter(|_| shows) {
        prepared.show_through(rest.snapshot.clone());
    }
    Ok(diff)
}

/// A result of the same instruction on the same base that may show through a new one.
pub(in crate::solve) struct Rest {
    snapshot: Snapshot,
    diff: Arc<Diff>,
}

/// Layers that a stack may have if two directories are to be spent on one of them; overlayfs takes 500.
const LAYERS: usize = 200;

impl Rest {
    /// Finds the last result that was written whole.
    pub(in crate::solve) fn find(place: &str, parent: &Snapshot, env: &BuildEnv) -> Option<Self> {
        let overlay = matches!(env.snapshots.mode(), SnapshotMode::Overlay { .. });
        if !overlay || parent.chain.len() > LAYERS {
            return None;
        }
        let id: ResultId =
            std::str::from_utf8(&env.records.note(&name(place, parent))?).ok()?.parse().ok()?;
        let info = env.snapshots.info(&id).ok()?;
        if info.rest.is_some() || info.parent != parent.id {
            return None;
        }
        let snapshot = env.snapshots.get(&id).ok()?;
        let diff = env.snapshots.diff(&id).ok()?;
        Some(Self { snapshot, diff })
    }

    /// Remembers a result that was written whole, if it has so many entries that showing through is worth while.
    pub(in crate::solve) fn remember(
        id: &ResultId,
        entries: usize,
        place: &str,
        parent: &Snapshot,
        env: &BuildEnv,
    ) {
        if entries >= copy::FEW {
            // losing it costs time only
            let _ = env.records.put_note(&name(place, parent), id.to_string().as_bytes());
        }
    }
}

fn name(place: &str, parent: &Snapshot) -> [u8; 32] {
    let mut h = blake3::Hasher::new_derive_key("rbuild rest of a copy v1");
    h.update(&parent.id.0).update(place.as_bytes());
    *h.finalize().as_bytes()
}

/// Hands out what the copy engine needs of the machine; bodies are not shared unless the caller says so.
pub(super) fn apply_env<T>(
    env: &BuildEnv,
    work: impl FnOnce(&ApplyEnv<'_>) -> Result<T, OpError>,
) -> Result<T, OpError> {
    let scratch = env.store.temp_dir("unpack")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    work(&ApplyEnv {
        bodies: None,
        now: Mtime { secs: i64::try_from(now.as_secs()).unwrap_or(0), nanos: now.subsec_nanos() },
        chown: crate::sys::fsutil::can_chown(),
        scratch: scratch.path(),
        limits: layer::Limits::default(),
    })
}
