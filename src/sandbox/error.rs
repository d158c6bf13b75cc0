//! What can go wrong before and around a sandboxed process.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

/// Why a process could not be run in a sandbox. A process that ran and failed is an [`super::Exit`], not an error.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The helper process that starts sandboxes did not come up.
    #[error("cannot start the sandbox helper process: {doing}")]
    Helper {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The helper process is gone, and its sandboxes with it.
    #[error("the sandbox helper process has ended unexpectedly; its processes were ended with it")]
    HelperGone,
    /// A step of preparing the sandbox failed.
    #[error("cannot prepare the sandbox: {0}")]
    Setup(SetupError),
    /// A limit was asked for that cannot be set here.
    #[error("cannot limit {what}: {why}")]
    Limit {
        /// Which limit.
        what: &'static str,
        /// Why not, and what to do.
        why: String,
    },
    /// The spec makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Talking to the process failed.
    #[error("{doing} the sandboxed process")]
    Process {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// One failed step of setting a sandbox up: what, why, and what helps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupError {
    /// What was tried, with the path it was tried on.
    pub doing: String,
    /// The reason given.
    pub why: String,
    /// The kernel's error number, if there was one.
    pub errno: Option<i32>,
    /// What the user can do.
    pub hint: Option<String>,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.why)?;
        self.hint.iter().try_for_each(|hint| write!(f, " ({hint})"))
    }
}

impl SetupError {
    /// Makes one without an error number.
    pub(super) fn new(doing: impl Into<String>, why: impl Into<String>) -> Self {
        Self { doing: doing.into(), why: why.into(), errno: None, hint: None }
    }

    /// Adds what helps.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

pub(super) type Setup<T> = Result<T, SetupError>;

/// Names what was being done when a system call failed.
pub(super) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Setup<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Setup<T> {
        self.map_err(|e| {
            let e: io::Error = e.into();
            let errno = e.raw_os_error().or_else(|| {
                let explained = e.get_ref()?.downcast_ref::<crate::sys::mount::Explained>()?;
                Some(explained.errno.raw_os_error())
            });
            SetupError { doing: what(), why: e.to_string(), errno, hint: errno.and_then(general_hint) }
        })
    }
}

/// The hint that fits an error number wherever it comes from.
fn general_hint(errno: i32) -> Option<String> {
    use nix::libc;
    let text = match errno {
        libc::ENOSPC => "no space or no inodes left there, or the limit of mounts is reached (fs.mount-max)",
        libc::ENOSYS => "this kernel is too old: Linux 5.12 or newer is needed",
        libc::EMFILE | libc::ENFILE => "too many open files: raise `ulimit -n`",
        libc::EACCES => {
            "if the permissions are right, SELinux or AppArmor may refuse it: see `ausearch -m avc -ts recent` or \
             `dmesg`"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// Shows bytes of a path in a message: control characters are escaped.
pub(super) fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}
