//! What a container was made with. Written when it is created; only `rename` and `update` change it afterwards.

use super::config::ContainerConfig;
use super::confinement::Confinement;
use super::log::LogConfig;
use super::network::NetworkRequest;
use super::restart::RestartPolicy;
use super::{ContainerId, ContainerName};
use crate::digest::ResultId;
use crate::oci::Healthcheck;
use crate::sandbox::{BindOptions, TmpfsOptions};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// All that a container was made with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Names it for ever.
    pub id: ContainerId,
    /// Names it for people.
    pub name: ContainerName,
    /// Nanoseconds since 1970.
    #[serde(with = "super::text::moment")]
    pub created: i128,
    /// The image's name as typed.
    pub image: String,
    /// The image behind the name.
    pub image_id: String,
    /// `os/architecture` of the image.
    #[serde(default)]
    pub platform: String,
    /// The snapshot below the writable layer.
    pub top: ResultId,
    /// What runs.
    pub config: ContainerConfig,
    /// Name of the machine inside.
    pub hostname: String,
    /// Whether the user chose that name.
    #[serde(default)]
    pub own_hostname: bool,
    /// `--domainname`.
    #[serde(default)]
    pub domainname: String,
    /// `-i`: standard input stays open.
    #[serde(default)]
    pub interactive: bool,
    /// Standard input ends with the first attached client.
    #[serde(default)]
    pub stdin_once: bool,
    /// `-t`: the process has a terminal.
    #[serde(default)]
    pub terminal: bool,
    /// The streams that the creating command is attached to: input, output, errors.
    #[serde(default)]
    pub attached: [bool; 3],
    /// `--rm`.
    #[serde(default)]
    pub auto_remove: bool,
    /// `--restart`.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// How its health is probed; the test may be `NONE`.
    #[serde(default)]
    pub health: Option<Healthcheck>,
    /// SHELL of the image, for probes.
    #[serde(default)]
    pub shell: Option<Vec<String>>,
    /// Seconds that it may take to stop, -1 is for ever; `None` is docker's 10.
    #[serde(default)]
    pub stop_timeout: Option<i64>,
    /// Where its output goes.
    #[serde(default)]
    pub log: LogConfig,
    /// Its mounts, volumes already made.
    #[serde(default)]
    pub mounts: Vec<MountPoint>,
    /// Namespace, networks, ports, names.
    #[serde(default)]
    pub network: NetworkRequest,
    /// What the process may do and use.
    #[serde(default)]
    pub confinement: Confinement,
    /// `--annotation`.
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
    /// `--cidfile`, as typed.
    #[serde(default)]
    pub cidfile: String,
}

impl Record {
    /// Gives the ids of the images that it needs: its own, and those that it mounts.
    pub fn images(&self) -> impl Iterator<Item = &str> {
        let mounted = self.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Image { image, .. } => Some(image.id.as_str()),
            _ => None,
        });
        std::iter::once(self.image_id.as_str()).chain(mounted)
    }

    /// Gives the snapshots that it stands on or mounts.
    pub fn tops(&self) -> impl Iterator<Item = ResultId> {
        std::iter::once(self.top).chain(image_tops(&self.mounts))
    }
}

/// Gives the snapshots of the images among mounts.
pub(super) fn image_tops(mounts: &[MountPoint]) -> impl Iterator<Item = ResultId> {
    mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Image { image, .. } => Some(image.top),
        _ => None,
    })
}

/// One mount of a container, as `inspect` shows it and as it is made at each start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// Absolute path in the container.
    #[serde(with = "super::text")]
    pub target: Vec<u8>,
    /// What is mounted.
    pub source: MountSource,
    /// Whether the container may only read it.
    #[serde(default)]
    pub readonly: bool,
}

/// What a mount of a container shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A path of the host.
    Bind {
        /// Absolute.
        #[serde(with = "super::text::path")]
        path: PathBuf,
        /// Whether a missing one becomes a directory, at every start.
        create: bool,
        /// What is seen of mounts below it.
        #[serde(default)]
        options: BindOptions,
    },
    /// A volume of the store, `volumes/<name>/_data`.
    Volume {
        /// Its name; 64 hexadecimal digits for an anonymous one.
        name: String,
        /// It was made for this container alone and goes with it (`--rm`, `rm -v`).
        anonymous: bool,
        /// The path in it that is shown; empty for all of it.
        #[serde(default, with = "super::text")]
        subpath: Vec<u8>,
    },
    /// An empty memory file system.
    Tmpfs(TmpfsOptions),
    /// The files of an image, read-only.
    Image {
        /// Its name as typed.
        name: String,
        /// What the name meant when the container was made.
        image: MountedImage,
        /// The path in it that is shown; empty for all of it.
        #[serde(default, with = "super::text")]
        subpath: Vec<u8>,
    },
}

/// An image whose files are mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedImage {
    /// Its id.
    pub id: String,
    /// The snapshot of its files.
    pub top: ResultId,
}
