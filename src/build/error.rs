//! Why a build failed, with the piece of the Dockerfile that it is about.

use crate::context::{ContextError, IgnoreError};
use crate::dockerfile::Diagnostic;
use crate::image::ImageError;
use crate::solve::SolveError;
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

    pub(super) fn step(name: &str, source_text: &[u8], step: SolveError) -> Self {
        Self::Step { name: name.to_owned(), source_text: source_text.to_owned(), step: Box::new(step) }
    }

    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }
}
