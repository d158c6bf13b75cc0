//! COPY and ADD: the key from what is selected, the result from the copy engine.

use super::copy::{self, ApplyEnv};
use super::take::Taken;
use crate::cache::KeyBuilder;
use crate::digest::ResultId;
use crate::layer;
use crate::plan::CopyOp;
use crate::snapshot::Prepared;
use crate::solve::{BuildEnv, OpError};
use crate::tree::{Diff, Mtime};
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
    prepared: &Prepared,
    env: &BuildEnv,
) -> Result<Diff, OpError> {
    let view = prepared.parent.view();
    taken.with(op, env, |selection, sources| {
        let bodies = env.store.bodies();
        apply_env(env, |apply| {
            let apply = ApplyEnv { bodies: Some(&bodies), ..*apply };
            Ok(copy::apply(selection, sources, &view, op, &prepared.upper, &apply)?)
        })
    })
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
