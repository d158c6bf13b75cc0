//! How a sandboxed process ended.

use crate::tree::TreePath;
use serde::{Deserialize, Serialize};

/// Exit code or fatal signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// The process returned this code, 0 to 255.
    Code(i32),
    /// This signal ended the process.
    Signal(i32),
}

impl Status {
    /// Gives the code that a shell reports: 128 + N for signal N.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Says whether it is exit code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// What is known after the end of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Code or signal.
    pub status: Status,
    /// Why the program could not be started at all, in docker's words; the code is then 127 or 126.
    pub exec_error: Option<String>,
    /// Paths that the engine made in the root file system as mount points and that the process left untouched. They
    /// have been removed again where that was possible; a commit leaves them out in any case.
    pub stubs: Vec<TreePath>,
    /// Whether the memory limit killed something.
    pub oom_killed: bool,
}
