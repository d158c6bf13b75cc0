//! The URLs and git remotes of an ADD: asked for their version when the step is named, fetched when it runs.

use super::copy::Remote;
use super::copy::fetch::{self, FetchEnv, Identified, KnownUrl};
use crate::digest::ContentId;
use crate::plan::CopyOp;
use crate::solve::{BuildEnv, OpError};
use crate::store::TempDir;
use crate::tree::SourceTree;
use std::sync::Mutex;

/// The remote sources of one step, and where what is fetched of them lies.
pub(super) struct Remotes {
    dir: TempDir,
    found: Mutex<Vec<Identified>>,
}

impl Remotes {
    /// Asks the servers. What they say of an URL is noted, so that the next build need not fetch it again.
    pub(super) fn identify(op: &CopyOp, env: &BuildEnv) -> Result<Self, OpError> {
        let dir = env.store.temp_dir("remote")?;
        let found = with_env(dir.path(), env, |fetch| Ok(fetch::identify(op, fetch)?))?;
        for (url, known) in found.iter().filter_map(|f| f.known.as_ref()) {
            if let Ok(note) = serde_json::to_vec(known) {
                // losing it costs a download only
                let _ = env.records.put_note(&note_name(url), &note);
            }
        }
        Ok(Self { dir, found: Mutex::new(found) })
    }

    /// Names all that the op takes.
    pub(super) fn key(&self, main: &dyn SourceTree, op: &CopyOp) -> Result<ContentId, OpError> {
        Ok(fetch::key_id(main, &self.lock(), op)?)
    }

    /// Fetches what is not here yet. Works once: a step runs once.
    pub(super) fn fetch(&self, op: &CopyOp, env: &BuildEnv) -> Result<Vec<Remote>, OpError> {
        let found = std::mem::take(&mut *self.lock());
        with_env(self.dir.path(), env, |fetch| Ok(fetch::open(found, op, fetch)?))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Identified>> {
        self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn note_name(url: &str) -> [u8; 32] {
    blake3::derive_key("rbuild url note v1", url.as_bytes())
}

fn with_env<T>(
    dir: &std::path::Path,
    env: &BuildEnv,
    work: impl FnOnce(&FetchEnv<'_>) -> Result<T, OpError>,
) -> Result<T, OpError> {
    let known =
        |url: &str| -> Option<KnownUrl> { serde_json::from_slice(&env.records.note(&note_name(url))?).ok() };
    let authorization = |url: &str| env.secrets.authorization(url);
    let agent = env.secrets.agents.get("default").map(std::path::PathBuf::as_path);
    work(&FetchEnv { dir, known: &known, authorization: &authorization, ssh_auth_sock: agent })
}
