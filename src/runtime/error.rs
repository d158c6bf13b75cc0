//! What can keep a container from running, and what the user can do about it.

use crate::image::ImageError;
use crate::network::NetworkError;
use crate::sandbox::SandboxError;
use crate::snapshot::SnapshotError;
use crate::store::StoreError;
use std::io;

/// Why a container did not run. A program that ran and failed is an outcome, not an error.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A name that no container may have.
    #[error("invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, two or more of them")]
    Name(String),
    /// Another running container has the name.
    #[error("the container name {name:?} is already in use by container {by}")]
    NameInUse {
        /// The name.
        name: String,
        /// Short id of its owner.
        by: String,
    },
    /// There is no such container.
    #[error("No such container: {0}")]
    NoContainer(String),
    /// The beginning of an id fits several.
    #[error("multiple containers found with provided prefix: {0}")]
    AmbiguousContainer(String),
    /// It must not run for this.
    #[error("container {0} is running: stop it first, or use --force")]
    Running(String),
    /// It cannot be started as it is.
    #[error("container {name} cannot be started: it is {status}")]
    NotStartable {
        /// Its name.
        name: String,
        /// What it is.
        status: super::state::Status,
    },
    /// The program could not be executed, or the container not be made; with the exit code for that.
    #[error("{text}")]
    NotStarted {
        /// 125, 126 or 127.
        code: u8,
        /// Why.
        text: String,
    },
    /// It must run for this.
    #[error("container {name} is not running ({status})")]
    NotRunning {
        /// As asked for.
        name: String,
        /// What it is instead.
        status: super::state::Status,
    },
    /// Its monitor said no.
    #[error("{0}")]
    Refused(String),
    /// A file of a container cannot be read.
    #[error("container {id}: {file} is damaged: {why}")]
    Damaged {
        /// Short id.
        id: String,
        /// Which file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// Neither image nor command line say what to run.
    #[error("no command specified")]
    NoCommand,
    /// A flag's value makes no sense.
    #[error("{flag} {value:?}: {why}")]
    Flag {
        /// The flag as typed.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// A volume or bind mount cannot be made.
    #[error("cannot prepare the mount {target}: {why}")]
    Mount {
        /// Where it would stand in the container.
        target: String,
        /// What is wrong.
        why: String,
    },
    /// There is no such volume.
    #[error("get {0}: no such volume")]
    NoVolume(String),
    /// A container uses the volume.
    #[error("remove {name}: volume is in use - [{by}]")]
    VolumeInUse {
        /// Its name.
        name: String,
        /// Ids of the containers.
        by: String,
    },
    /// A volume cannot be made or mounted as asked for.
    #[error("volume {name}: {why}")]
    Volume {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The image is for machines that this one cannot imitate.
    #[error(
        "image {image:?} was found but its platform ({found}) does not match the specified platform ({wanted})"
    )]
    Platform {
        /// As typed.
        image: String,
        /// What it is for.
        found: String,
        /// What `--platform` asked for.
        wanted: String,
    },
    /// `-t` with `-i` without a terminal to read from.
    #[error("the input device is not a TTY")]
    NoTerminal,
    /// The image is not complete in the store.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The image's files are not all there.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network could not be made.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The process could not be started.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A system call failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried, as a verb phrase.
        action: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl RunError {
    /// Says what the user can do, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NameInUse { .. } => {
                Some("remove that container (rm), rename it, or choose another --name".into())
            }
            Self::NoCommand => Some(
                "the image names no CMD or ENTRYPOINT: write the command after the image, for example \
                 `rbuild run IMAGE sh`"
                    .into(),
            ),
            Self::NoTerminal => Some(
                "leave -t out when the input does not come from a terminal: -i alone passes it on".into(),
            ),
            Self::Snapshot(SnapshotError::Missing(_)) => Some(
                "a layer of the image is missing from the store: build, load or import the image again"
                    .into(),
            ),
            Self::Network(error) => error.hint().map(str::to_owned),
            _ => None,
        }
    }

    pub(crate) fn flag(flag: &'static str, value: impl AsRef<[u8]>, why: impl Into<String>) -> Self {
        Self::Flag { flag, value: String::from_utf8_lossy(value.as_ref()).into_owned(), why: why.into() }
    }

    pub(super) fn mount(target: &[u8], why: impl std::fmt::Display) -> Self {
        Self::Mount { target: String::from_utf8_lossy(target).into_owned(), why: why.to_string() }
    }

    pub(super) fn io<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source: source.into() }
    }
}
