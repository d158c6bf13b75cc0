//! How each kind of op is named (its cache key) and made.

mod agent;
mod binfmt;
mod cache_mount;
pub mod copy;
pub(super) mod copying;
mod mounts;
mod remotes;
pub(super) mod run;
mod take;
pub(super) mod workdir;

pub use cache_mount::Renewed;
pub(super) use mounts::{MountSource, mount_sources};
pub(super) use take::Taken;
