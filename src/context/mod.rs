//! The build context: the files that a build may copy, and the ignore rules that hide some of them.
//!
//! A context is read lazily: a path that no instruction mentions is never looked at, and a file whose stat has not
//! changed since the last build is not read. It knows nothing about instructions, caches or images; what it remembers
//! between builds goes through the [`StatCache`] trait.

mod dir;
pub mod glob;
pub mod ignore;
mod kept;
mod lookup;
mod memo;
pub mod remote;
mod stat;
#[cfg(test)]
mod tests;
mod walk;

pub use self::ignore::{IgnoreError, IgnoreRules};
pub use dir::BuildContext;
pub(crate) use dir::hash_file;
pub use lookup::{Dockerfile, find_dockerfile, find_dockerfile_inside, load_ignore, read_text};
pub use stat::{Stamp, StatCache};

/// Says whether the bytes that a [`StatCache`] has kept are whole.
pub(crate) fn is_whole(bytes: Vec<u8>) -> bool {
    kept::Kept::is_whole(bytes)
}

use std::path::PathBuf;

/// A context that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The directory itself.
    #[error("build context {}: {source}", path.display())]
    Open {
        /// As given.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// No Dockerfile in the context and no `-f`.
    #[error("no Dockerfile in {}: name it with -f, or give the directory that holds it", path.display())]
    NoDockerfile {
        /// The context.
        path: PathBuf,
    },
    /// No such Dockerfile in a context that is no directory of the user's.
    #[error("there is no {} in the build context", path.display())]
    NotInContext {
        /// Which.
        path: PathBuf,
    },
    /// A Dockerfile or ignore file that cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A bad line in the ignore file.
    #[error(transparent)]
    Ignore(#[from] IgnoreError),
}
