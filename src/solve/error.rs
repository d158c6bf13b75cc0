//! Why a step failed.

use crate::digest::ResultId;
use crate::network::NetworkError;
use crate::sandbox::SandboxError;
use crate::snapshot::SnapshotError;
use crate::solve::ops::copy::CopyError;
use crate::store::StoreError;
use std::ops::Range;
use std::path::PathBuf;

/// A step that failed, and where it stands in the Dockerfile.
#[derive(Debug, thiserror::Error)]
#[error("{label}")]
pub struct SolveError {
    /// The step as shown.
    pub label: String,
    /// Its Dockerfile lines, 1-based and half open.
    pub lines: Range<usize>,
    /// Why.
    #[source]
    pub cause: OpError,
    /// Its full log, when it wrote one.
    pub log: Option<PathBuf>,
}

impl SolveError {
    /// Gives the results that were believed to be had elsewhere, and why they are not: a solver that does not ask for
    /// them again can go on.
    pub fn lost(&self) -> Option<(&[ResultId], &str)> {
        match &self.cause {
            OpError::Snapshot(SnapshotError::Unavailable { ids, why }) if !ids.is_empty() => Some((ids, why)),
            _ => None,
        }
    }
}

/// Why an op could not be done.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// The command of a RUN ended badly.
    #[error("process {command:?} did not complete successfully: {how}")]
    Process {
        /// The command line.
        command: String,
        /// `exit code: 1`, `killed by signal 9`, ...
        how: String,
    },
    /// The sandbox could not be made.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// No network for the step.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// COPY or ADD could not find or write something.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A snapshot could not be read or made.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A mount of a RUN could not be made.
    #[error("--mount=type={kind},{place}: {why}")]
    Mount {
        /// `cache`, `secret`, ...
        kind: &'static str,
        /// Which of them: `target=/path`, or `env=NAME` for a secret without a file.
        place: String,
        /// Why.
        why: String,
    },
    /// The step asks for a right that the command line did not give.
    #[error("{what} is not allowed; to allow it build with --allow {right}")]
    NotAllowed {
        /// The flag.
        what: &'static str,
        /// The right.
        right: &'static str,
    },
    /// A build context that the step names is not there.
    #[error("there is no build context named {0:?}")]
    NoContext(String),
    /// Programs of another platform.
    #[error(
        "the step is for {wanted}, this machine runs {host}, and no emulator is registered with binfmt_misc"
    )]
    Platform {
        /// Of the step.
        wanted: String,
        /// Of the machine.
        host: String,
    },
    /// Something of the host could not be read or written.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The user interrupted, or another step failed.
    #[error("canceled")]
    Cancelled,
}
