//! `--explain`: why a step has to run, from what is kept of the step that stood at the same place before.

use super::BuildEnv;
use super::ops::Taken;
use super::ops::copy::listing;
use crate::cache::{KeyPart, StepRecord, explain};
use crate::digest::CacheKey;
use crate::plan::{Op, Vertex};

/// How the part of a copy's key begins that stands for its files.
const FILES: &str = "files: ";

/// Says it, a line each.
pub(super) fn why(
    vertex: &Vertex,
    key: &CacheKey,
    parts: &[KeyPart],
    taken: Option<&Taken>,
    before: Option<&StepRecord>,
    env: &BuildEnv,
) -> Vec<String> {
    match before {
        _ if vertex.no_cache => vec!["--no-cache".to_owned()],
        None => vec!["nothing like it has run before".to_owned()],
        Some(before) if before.key == *key => vec!["its result is gone from the store".to_owned()],
        Some(before) => {
            let files = taken.and_then(|taken| files(vertex, &before.key, taken, env));
            let name = |line: String| match &files {
                Some(files) if line.starts_with(FILES) => files.clone(),
                _ => line,
            };
            explain(&before.parts, parts).into_iter().map(name).collect()
        }
    }
}

/// Names the files that changed, when those of the earlier step were kept.
fn files(vertex: &Vertex, before: &CacheKey, taken: &Taken, env: &BuildEnv) -> Option<String> {
    let old = listing::unpack(&env.records.list(before)?)?;
    let changes = listing::changes(&old, &taken.listing()?)?;
    let word = if matches!(&vertex.op, Op::Copy(op) if op.is_add) { "ADD" } else { "COPY" };
    Some(format!("{word}: {changes}"))
}

/// Keeps what a copy took, for the next time. Losing it costs an explanation only.
pub(super) fn keep(key: &CacheKey, taken: Option<&Taken>, env: &BuildEnv) {
    let packed = taken.and_then(Taken::listing).and_then(|list| listing::pack(&list));
    if let Some(bytes) = packed {
        let _ = env.records.put_list(key, &bytes);
    }
}
