//! What a build hands to all of its steps.

use super::folder::BuildFolder;
use super::ops::Renewed;
use super::shared::{Memo, SharedResults};
use crate::cache::{Index, Records};
use crate::context::BuildContext;
use crate::network::{DnsRequest, ExtraHost, NetworkMode};
use crate::progress::EventSink;
use crate::sandbox::{Launcher, Limits, MountSpec, Rlimit};
use crate::snapshot::Snapshots;
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

/// What a build hands to all of its steps.
pub struct BuildEnv {
    /// Where everything is kept.
    pub store: Store,
    /// Its snapshots.
    pub snapshots: Snapshots,
    /// Its step records.
    pub records: Records,
    /// The view over them.
    pub index: Arc<Index>,
    /// Starts processes.
    pub launcher: Launcher,
    /// By name; the main one has the empty name.
    pub contexts: BTreeMap<String, Arc<BuildContext>>,
    /// Secrets and agents.
    pub secrets: Secrets,
    /// What the command line says about RUN.
    pub run: RunSettings,
    /// Hears what happens.
    pub sink: Arc<dyn EventSink>,
    /// Keeps the logs.
    pub folder: BuildFolder,
    /// Most steps at once.
    pub jobs: usize,
    /// Whether to say why steps run.
    pub explain: bool,
    /// The cache mounts that were started anew.
    pub renewed: Renewed,
    /// Names this Dockerfile across builds, for explanations only.
    pub place: String,
    /// What other machines know.
    pub shared: Option<Arc<dyn SharedResults>>,
    /// What was found out about selections in this build, for others.
    pub memos: Mutex<Vec<Memo>>,
    /// Directories in `mounts/` that the steps of this build use, run or not.
    pub mounts: Mutex<BTreeSet<String>>,
    /// Numbers what is shown.
    pub steps: Arc<AtomicUsize>,
}

/// What the command line says about every RUN.
#[derive(Debug, Clone, Default)]
pub struct RunSettings {
    /// What `--network=default` means.
    pub network: NetworkMode,
    /// Further lines of `/etc/hosts`.
    pub extra_hosts: Vec<ExtraHost>,
    /// Bytes of `/dev/shm`.
    pub shm_size: Option<u64>,
    /// Of every process.
    pub rlimits: Vec<Rlimit>,
    /// Of every step.
    pub limits: Limits,
    /// `--volume`: directories of the host in every step. What is in them is no input and no output of a step.
    pub volumes: Vec<MountSpec>,
    /// Lines of `/etc/resolv.conf`.
    pub dns: DnsRequest,
    /// `--security-opt seccomp=unconfined`.
    pub unconfined: bool,
    /// `--security-opt no-new-privileges`.
    pub no_new_privs: bool,
    /// `--allow security.insecure`.
    pub allow_insecure: bool,
    /// `--allow network.host`.
    pub allow_host_network: bool,
}

/// Where secrets and ssh agents come from, by id. Values are read when a step runs and kept nowhere.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// By id.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Agent sockets by id.
    pub agents: BTreeMap<String, PathBuf>,
}

impl Secrets {
    /// Gives the header that a secret named after the host of an URL holds, as BuildKit has it: that of
    /// `HTTP_AUTH_HEADER_<host>` whole, or that of `HTTP_AUTH_TOKEN_<host>` as a bearer token.
    pub fn authorization(&self, url: &str) -> Option<String> {
        let host = url.split("://").nth(1)?.split(['/', '?', '#']).next()?.rsplit('@').next()?;
        let secret = |name: String| {
            let value = self.secrets.get(&name)?.read().ok()??;
            Some(String::from_utf8(value).ok()?.trim().to_owned())
        };
        secret(format!("HTTP_AUTH_HEADER_{host}"))
            .or_else(|| Some(format!("Bearer {}", secret(format!("HTTP_AUTH_TOKEN_{host}"))?)))
    }
}

/// Where one secret is.
#[derive(Debug, Clone)]
pub enum SecretSource {
    /// In a file of the host.
    File(PathBuf),
    /// In a variable of rbuild's own environment.
    Env(String),
}

/// Longest secret in bytes, as BuildKit has it.
const SECRET_LIMIT: u64 = 500 * 1024;

impl SecretSource {
    /// Reads the value; `None` when a variable is not set.
    pub(super) fn read(&self) -> std::io::Result<Option<Vec<u8>>> {
        use std::io::Read;
        use std::os::unix::ffi::OsStringExt;
        match self {
            Self::Env(name) => Ok(std::env::var_os(name).map(OsStringExt::into_vec)),
            Self::File(path) => {
                let mut value = Vec::new();
                std::fs::File::open(path)?.take(SECRET_LIMIT + 1).read_to_end(&mut value)?;
                if value.len() as u64 > SECRET_LIMIT {
                    return Err(std::io::Error::other(format!("longer than {SECRET_LIMIT} bytes")));
                }
                Ok(Some(value))
            }
        }
    }
}
