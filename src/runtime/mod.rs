//! Containers: an image and a command line become a process on a terminal or on the caller's streams.
//!
//! Foreground containers only: they live inside one `rbuild run`, and their writable layer goes with them. The
//! sandbox makes the process; this room decides what goes into it (config, mounts, network) and carries terminal and
//! signals. It knows nothing of Dockerfiles, registries or the command line's flags.

mod claim;
mod config;
pub mod containers;
pub mod env;
mod error;
mod foreground;
pub mod health;
pub mod log;
mod mounts;
mod name;
pub mod network;
mod network_state;
pub mod record;
pub mod restart;
mod seed;
pub mod signals;
pub mod state;
mod terminal;
mod text;
pub mod time;
pub mod volume;

pub use crate::network::DnsRequest;
pub use claim::{Card, Claim, running};
pub use config::{ContainerConfig, Overrides};
pub use containers::{Container, Containers};
pub use error::RunError;
pub use foreground::{Confinement, Outcome, RunRequest, Tools, run_foreground};
pub use name::{ContainerId, ContainerName};
pub use network::{Member, NetworkRequest};
pub use network_state::NetworkState;
pub use record::{MountPoint, MountSource, Record};
pub use restart::RestartPolicy;
pub use state::{State, Status};
pub use volume::{VolumeName, VolumeRequest, VolumeSource};
