//! What can go wrong with images.

use super::documents::DocumentError;
use crate::digest::{Digest, ImageId};
use crate::layer::LayerError;
use crate::reference::ParseReferenceError;
use crate::snapshot::SnapshotError;
use crate::store::StoreError;
use std::io;
use std::path::{Path, PathBuf};

/// An image operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A snapshot is missing or damaged.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A layer could not be read or written.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A document is not what it should be.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A name is none.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// No image has this name or id.
    #[error("no such image: {name}{}", hint.as_ref().map(|h| format!(" ({h})")).unwrap_or_default())]
    NotFound {
        /// As the user wrote it.
        name: String,
        /// A near name.
        hint: Option<String>,
    },
    /// None of the images under a name is for the platform that is wanted.
    #[error("{name} has no image for {wanted}, only for {has} (--platform says which)")]
    Platform {
        /// As the user wrote it.
        name: String,
        /// What is wanted.
        wanted: String,
        /// What there is.
        has: String,
    },
    /// Several images have an id that begins so.
    #[error("{prefix:?} is the beginning of several image IDs: {}; write more of it", list(ids))]
    Ambiguous {
        /// As the user wrote it.
        prefix: String,
        /// All that fit.
        ids: Vec<ImageId>,
    },
    /// The image cannot be removed as asked.
    #[error("cannot remove {image}: {why}")]
    InUse {
        /// As the user wrote it.
        image: String,
        /// Why not and what to do.
        why: String,
    },
    /// An archive holds no image that can be loaded.
    #[error("not a loadable image archive: {0}")]
    Archive(String),
    /// A blob of an archive is not what its descriptor says.
    #[error("the archive lies about {what}: {why}")]
    Lie {
        /// Which part.
        what: String,
        /// How.
        why: String,
    },
    /// The image documents in the store disagree with each other.
    #[error("image {image} is damaged: {why}; build, load or import it again")]
    Damaged {
        /// Which.
        image: ImageId,
        /// What does not fit.
        why: String,
    },
    /// An image that nobody had asked for yet cannot be assembled.
    #[error("the image of the last build cannot be read: {why}; build it again")]
    Pending {
        /// What is wrong with its record.
        why: String,
    },
    /// The list of images cannot be read.
    #[error("the list of images {} is damaged: {source}; `rbuild system check --repair` makes it anew", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// The list of images and its copy are gone.
    #[error(
        "the list of images {} is gone: `rbuild system check --repair` makes it anew from what is left", path.display()
    )]
    NoList {
        /// The file.
        path: PathBuf,
    },
    /// A layer's bytes are not those that the image names.
    #[error(
        "layer {expected} is damaged: its bytes now give {found}; `rbuild system check --repair` removes it, then build, load \
         or pull the image again"
    )]
    Layers {
        /// As the config says.
        expected: Digest,
        /// As found.
        found: Digest,
    },
    /// What should become an image breaks a rule.
    #[error("the image cannot be made: {0}")]
    Assemble(String),
    /// A system call on something that the user named failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Writing the result failed.
    #[error("cannot write {what}: {source}")]
    Write {
        /// What.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl ImageError {
    pub(crate) fn io<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |e| Self::Io { action, path, source: e.into() }
    }

    pub(crate) fn write<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |e| Self::Write { what, source: e.into() }
    }
}

fn list(ids: &[ImageId]) -> String {
    ids.iter().take(5).map(|id| id.0.short()).collect::<Vec<_>>().join(", ")
}
