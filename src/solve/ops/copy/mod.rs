//! COPY and ADD: which files a step takes, what they are called, and what the step makes of them.
//!
//! Four stages, each with its own file. [`select`] finds the files in the sources and names them (the cache key needs
//! no more). [`Layout`](layout) merges them with what the base has, in memory, by the rules of BuildKit's file op; all
//! errors that a Dockerfile can cause show here, before anything is written. [`apply`] writes the result into an empty
//! directory in overlayfs's form and gives the [`Diff`] at the same time, so nothing is walked or read twice. The base
//! is only ever looked at through [`SourceTree`], never mounted.

mod apply;
mod archive;
mod chmod;
mod difference;
mod directory;
pub mod fetch;
mod layout;
pub mod listing;
mod owner;
mod placed;
mod resolve;
mod select;
#[cfg(test)]
mod tests;
mod wildcard;
mod write;

pub(in crate::solve::ops) use apply::apply_on;
pub use apply::{ApplyEnv, apply};
pub(in crate::solve::ops) use difference::FEW;
pub use directory::make_directory;
pub(in crate::solve::ops) use resolve::resolve;
pub use select::{Selection, select};

use crate::context::glob::PatternError;
use crate::context::remote::RemoteError;
use crate::context::{ContextError, IgnoreError};
use crate::layer::LayerError;
use crate::store::StoreError;
use crate::tree::{SourceTree, TreePath};
use std::io;

/// Where the files of one instruction come from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// For paths: the context, a stage or an image.
    pub main: &'a dyn SourceTree,
    /// For the URLs and git remotes of an ADD, in the order of the op's sources.
    pub remotes: &'a [Remote],
}

impl<'a> Sources<'a> {
    /// Takes paths only.
    pub fn paths(main: &'a dyn SourceTree) -> Self {
        Self { main, remotes: &[] }
    }

    fn tree(&self, origin: Origin) -> Option<&'a dyn SourceTree> {
        match origin {
            Origin::Main => Some(self.main),
            Origin::Remote(index) => self.remotes.get(index).map(|r| &*r.tree),
            Origin::Inline => None,
        }
    }
}

/// What an URL or a git remote turned out to be.
pub struct Remote {
    /// The downloaded file or the checkout.
    pub tree: Box<dyn SourceTree>,
    /// The one file at the root of the tree, or the root itself for git.
    pub path: TreePath,
}

/// Which of the [`Sources`] a file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The main tree.
    Main,
    /// A remote, by position.
    Remote(usize),
    /// The op itself (heredoc).
    Inline,
}

/// Why files cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A source that was named without wildcards and is not there.
    #[error("{path:?}: not found{}", hint.as_ref().map(|h| format!(" ({h})")).unwrap_or_default())]
    NotFound {
        /// As the Dockerfile has it, absolute.
        path: String,
        /// What may be the reason.
        hint: Option<String>,
    },
    /// A wildcard that matches nothing in a directory of the context that nothing else of the build needs.
    #[error(
        "{pattern}: nothing matches, and the build takes nothing else of {dir} (BuildKit, which gets only what is taken, says: lstat {dir}: no such file or directory)"
    )]
    NothingSent {
        /// As written.
        pattern: TreePath,
        /// The part before the wildcard.
        dir: TreePath,
    },
    /// A wildcard or exclude pattern with wrong syntax.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The same, with the place.
    #[error(transparent)]
    Rule(#[from] IgnoreError),
    /// `--chmod` is neither octal nor symbolic.
    #[error("invalid --chmod={value}: it has to be octal between 0 and 07777, or symbolic like u=rwX,go=rX")]
    Chmod {
        /// As written.
        value: String,
    },
    /// `--chown` names somebody who is not in the destination.
    #[error("--chown={value}: {why}")]
    Chown {
        /// As written.
        value: String,
        /// What is missing and what to do.
        why: String,
    },
    /// Several files for one file name.
    #[error(
        "{dest} has to end with a slash: {count} sources cannot become one file (write {dest}/ to copy them into a directory)"
    )]
    ManySources {
        /// As the op has it.
        dest: String,
        /// How many there are.
        count: usize,
    },
    /// A directory where something else stands.
    #[error("cannot copy to non-directory: {path}: the directory {from} would have to replace a {what}")]
    NotADirectory {
        /// In the image.
        path: TreePath,
        /// In the source.
        from: TreePath,
        /// What stands there.
        what: &'static str,
    },
    /// A parent directory that is something else.
    #[error("cannot make the directory {path}: {blocked} is not a directory")]
    Blocked {
        /// That was wanted.
        path: TreePath,
        /// What is in the way.
        blocked: TreePath,
    },
    /// A file where a directory stands.
    #[error("cannot replace the directory {path} with the file {from}")]
    IsADirectory {
        /// In the image.
        path: TreePath,
        /// In the source.
        from: TreePath,
    },
    /// A source that cannot be read.
    #[error("cannot read {path} from the source: {source}")]
    Source {
        /// In the source.
        path: TreePath,
        /// Why not.
        source: io::Error,
    },
    /// The base's tree cannot be read.
    #[error("cannot look at {path} in the image: {source}")]
    Base {
        /// In the image.
        path: TreePath,
        /// Why not.
        source: io::Error,
    },
    /// The result cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// In the image.
        path: TreePath,
        /// Why not.
        source: io::Error,
    },
    /// A file had other bytes when it was copied than when it was looked at.
    #[error("{path} changed while it was copied; let the build have the files for itself")]
    Changed {
        /// In the source.
        path: TreePath,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An archive for ADD.
    #[error("cannot unpack {path}: {source}")]
    Archive {
        /// In the source.
        path: TreePath,
        /// Why not.
        source: LayerError,
    },
    /// An URL or git remote.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// What was fetched cannot be opened.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A source of the op has not been fetched.
    #[error("the source {name} was not fetched before")]
    Missing {
        /// URL or remote.
        name: String,
    },
}

impl CopyError {
    fn source(path: &TreePath) -> impl FnOnce(io::Error) -> Self {
        let path = path.clone();
        move |source| Self::Source { path, source }
    }

    fn base(path: &TreePath) -> impl FnOnce(io::Error) -> Self {
        let path = path.clone();
        move |source| Self::Base { path, source }
    }

    fn write<E: Into<io::Error>>(path: &TreePath) -> impl FnOnce(E) -> Self {
        let path = path.clone();
        move |source| Self::Write { path, source: source.into() }
    }
}
