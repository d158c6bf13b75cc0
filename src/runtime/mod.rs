//! Containers: an image and a command line become a process on a terminal or on the caller's streams.
//!
//! Foreground containers only: they live inside one `rbuild run`, and their writable layer goes with them. The
//! sandbox makes the process; this room decides what goes into it (config, mounts, network) and carries terminal and
//! signals. It knows nothing of Dockerfiles, registries or the command line's flags.

mod claim;
mod config;
pub mod env;
mod error;
mod foreground;
mod mounts;
mod name;
mod network;
mod seed;
pub mod signals;
mod terminal;
pub mod volume;

pub use crate::network::DnsRequest;
pub use claim::{Card, Claim, running};
pub use config::{ContainerConfig, Overrides};
pub use error::RunError;
pub use foreground::{Confinement, Outcome, RunRequest, Tools, run_foreground};
pub use name::{ContainerId, ContainerName};
pub use network::{Member, NetworkRequest};
pub use volume::{VolumeName, VolumeRequest, VolumeSource};
