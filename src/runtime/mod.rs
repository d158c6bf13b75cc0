//! Containers: an image and a command line become a process with a life of its own.
//!
//! Each has a directory with its record, its state and its writable layer ([`containers`]), and while it lives one
//! monitor process ([`monitor`]) that commands talk to ([`Client`]). The sandbox makes the process; this room decides
//! what goes into it (config, mounts, network), carries terminal and signals, keeps logs, judges health. It knows
//! nothing of Dockerfiles, registries or the command line's flags.

pub mod archive;
pub mod attach;
mod client;
mod config;
mod confinement;
pub mod containers;
mod create;
mod detach;
pub mod env;
mod error;
pub mod files;
pub mod health;
pub mod log;
mod monitor;
mod mounts;
mod name;
pub mod network;
mod network_state;
mod protocol;
pub mod record;
pub mod restart;
mod seed;
pub mod signals;
mod spec;
pub mod state;
pub mod terminal;
mod text;
pub mod time;
pub mod volume;
pub mod volumes;

pub use crate::network::DnsRequest;
pub use attach::{Attachment, Parting, follow};
pub use client::{Client, Ended};
pub use config::{ContainerConfig, Overrides};
pub use confinement::Confinement;
pub use containers::{Container, Containers};
pub use create::{RunRequest, create, create_to_start};
pub use detach::DetachKeys;
pub use error::RunError;
pub use monitor::{EventQuery, EventReader, monitor_main, record_event, record_other};
pub use name::{ContainerId, ContainerName};
pub use network::{Member, NetworkRequest};
pub use network_state::NetworkState;
pub use protocol::{ExecRequest, Streams};
pub use record::{MountPoint, MountSource, MountedImage, Record};
pub use restart::RestartPolicy;
pub use state::{State, Status};
pub use volume::{VolumeExtra, VolumeName, VolumeRequest, VolumeSource};
