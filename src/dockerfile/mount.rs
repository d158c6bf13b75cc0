//! The value of `RUN --mount=`: comma separated options, typed once their variables are expanded.
//!
//! Variables expand in every value but `from`, and which options are allowed depends on the expanded `type`, so
//! reading happens twice: while parsing the value is cut into fields and `from` is read (the stages a step needs
//! must be known before any variable is), and [`RawMount::expand`] makes the typed [`Mount`] later.

use super::span::{Span, Text};

/// A `--mount` value before its variables are expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawMount {
    /// The whole value.
    pub text: Text,
    /// The fields of the comma separated value, quotes removed.
    pub fields: Vec<Text>,
    /// The value of the last `from` field; never holds a variable.
    pub from: Option<Text>,
}

/// A mount of a RUN step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount {
    /// Files of the context, a stage or an image.
    Bind(BindMount),
    /// A directory that outlives the build.
    Cache(CacheMount),
    /// An empty directory in memory.
    Tmpfs(TmpfsMount),
    /// A secret as file, environment variable or both.
    Secret(SecretMount),
    /// A socket of an ssh agent.
    Ssh(SshMount),
}

/// `type=bind`
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct BindMount {
    /// Stage, named context or image; the build context when absent.
    pub from: Option<String>,
    /// Path in it; the whole of it when empty.
    pub source: String,
    /// Where it appears; relative to the working directory. May be empty, which is the working directory.
    pub target: String,
    /// Whether writes fail; else they are discarded after the step.
    pub read_only: bool,
}

/// `type=cache`
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CacheMount {
    /// Identity; the cleaned target when absent.
    pub id: Option<String>,
    /// What a new cache starts with: stage, named context or image; empty when absent.
    pub from: Option<String>,
    /// Path in `from`.
    pub source: String,
    /// Where it appears; relative to the working directory.
    pub target: String,
    /// What happens when two steps want it at once.
    pub sharing: Sharing,
    /// Whether writes fail.
    pub read_only: bool,
    /// Mode of a new cache directory (octal 0755 when absent).
    pub mode: Option<u32>,
    /// Owner of a new cache directory (0 when absent).
    pub uid: Option<u32>,
    /// Group of a new cache directory (0 when absent).
    pub gid: Option<u32>,
}

/// `sharing=` of a cache mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Sharing {
    /// All steps write to it at the same time.
    #[default]
    Shared,
    /// A second step gets a new one.
    Private,
    /// A second step waits.
    Locked,
}

/// `type=tmpfs`
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TmpfsMount {
    /// Where it appears; relative to the working directory.
    pub target: String,
    /// Limit in bytes.
    pub size: Option<u64>,
    /// Whether writes fail.
    pub read_only: bool,
}

/// `type=secret`
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SecretMount {
    /// Name of the secret: `id`, else `source`, else the last part of the target; not empty.
    pub id: String,
    /// File that holds it: the target, else `/run/secrets/<last part of id>`; absent when only `env` is given.
    pub target: Option<String>,
    /// Environment variable that holds it.
    pub env: Option<String>,
    /// Whether the step fails without it.
    pub required: bool,
    /// Mode of the file (octal 0400 when absent).
    pub mode: Option<u32>,
    /// Owner of the file (0 when absent).
    pub uid: Option<u32>,
    /// Group of the file (0 when absent).
    pub gid: Option<u32>,
}

/// `type=ssh`
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SshMount {
    /// Name of the agent; `default` when not given.
    pub id: String,
    /// Path of the socket; the engine chooses when absent.
    pub target: Option<String>,
    /// Whether the step fails without it.
    pub required: bool,
    /// Mode of the socket (octal 0600 when absent).
    pub mode: Option<u32>,
    /// Owner of the socket (0 when absent).
    pub uid: Option<u32>,
    /// Group of the socket (0 when absent).
    pub gid: Option<u32>,
}

impl RawMount {
    /// Returns the place of the value.
    pub fn span(&self) -> Span {
        self.text.span()
    }
}
