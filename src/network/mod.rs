//! Networks for build steps and containers: the mode a user asks for, and private networks with a way out.
//!
//! Knows nothing of sandboxes, stores or Dockerfiles: it hands out a network namespace as a file descriptor and
//! the content of two files in `/etc`.

mod dns;
mod error;
mod hosts;
mod mode;

pub use dns::{FALLBACK, HostDns, Reach};
pub use error::NetworkError;
pub use hosts::{ExtraHost, HostAddress, hosts_file};
pub use mode::NetworkMode;
