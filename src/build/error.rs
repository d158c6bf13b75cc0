//! Why a build failed, with the piece of the Dockerfile that it is about.

use crate::context::{ContextError, IgnoreError};
use crate::dockerfile::Diagnostic;
use crate::dockerfile::lint::Warning;
use crate::image::ImageError;
use crate::share::ShareError;
use crate::solve::SolveError;
use crate::store::StoreError;
use std::io;
use std::path::{Path, PathBuf};

/// A build that failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile is wrong.
    #[error("{}", diagnostic.message())]
    Dockerfile {
        /// Of the file, for messages.
        name: String,
        /// Its text.
        source_text: Vec<u8>,
        /// What and where.
        diagnostic: Diagnostic,
    },
    /// The Dockerfile breaks checks and says itself that this is an error (`# check=error=true`).
    #[error("the checks found {} fault(s), which the Dockerfile says are errors", warnings.len())]
    Checks {
        /// Of the file, for messages.
        name: String,
        /// Its text.
        source_text: Vec<u8>,
        /// What was found.
        warnings: Vec<Warning>,
    },
    /// A step failed.
    #[error("{}", step.label)]
    Step {
        /// Of the file, for messages.
        name: String,
        /// Its text.
        source_text: Vec<u8>,
        /// Which and why.
        #[source]
        step: Box<SolveError>,
    },
    /// The context cannot be read.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The ignore file is wrong.
    #[error(transparent)]
    Ignore(#[from] IgnoreError),
    /// The image cannot be made.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A cache that is shared cannot be written, and that is not to be ignored.
    #[error("the image is built, but exporting cache to {name} failed: {source}")]
    Cache {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: ShareError,
    },
    /// A file that the user named cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl BuildError {
    pub(super) fn dockerfile(name: &str, source_text: &[u8], diagnostic: Diagnostic) -> Self {
        Self::Dockerfile { name: name.to_owned(), source_text: source_text.to_owned(), diagnostic }
    }

    pub(super) fn checks(name: &str, source_text: &[u8], warnings: Vec<Warning>) -> Self {
        Self::Checks { name: name.to_owned(), source_text: source_text.to_owned(), warnings }
    }

    pub(super) fn step(name: &str, source_text: &[u8], step: Box<SolveError>) -> Self {
        Self::Step { name: name.to_owned(), source_text: source_text.to_owned(), step }
    }

    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }
}
