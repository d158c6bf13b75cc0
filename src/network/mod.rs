//! Networks for build steps and containers: the mode a user asks for, and private networks with a way out.
//!
//! A [`PrivateNetwork`] is a network namespace held by a file descriptor. As root it hangs on the bridge `rbuild0`
//! (`bridge`) behind NAT (`firewall`); rootless a helper program connects it (`helper`). All talk with the kernel is
//! netlink, done here: no `ip`, `nft` or `iptables` is run, which costs a process each and may not be installed.
//!
//! Containers join networks of the user's making too ([`Membership`]): `definition` and `live` are the files, `lan` the
//! kernel's side of them, `keeper` the process that publishes ports and answers names. Rootless the same is done on a
//! `ground` of the user's own.
//!
//! Knows nothing of sandboxes, stores or Dockerfiles: it hands out the descriptor and the content of two files in
//! `/etc`. IPv6 reaches the outside rootless, by pasta, and from networks that were made with `--ipv6`.

mod bridge;
mod cidr;
mod definition;
mod dns;
mod dns_request;
mod error;
mod firewall;
mod ground;
mod helper;
mod hosts;
mod keeper;
mod lan;
mod links;
mod live;
mod manage;
mod membership;
mod mode;
mod netns;
mod ports;
mod private;
mod probe;
mod request;
mod subnet;
#[cfg(test)]
mod tests;

pub use cidr::Cidr;
pub use definition::{AddressPool, Definitions, NetworkDefinition, NetworkWish, PREDEFINED};
pub use dns::{FALLBACK, HostDns, Reach};
pub use dns_request::DnsRequest;
pub use error::NetworkError;
pub use helper::HelperKind;
pub use hosts::{ExtraHost, HostAddress, hosts_file, own_names};
pub use live::{Endpoint, LiveNetwork, Lives, PortBinding};
pub use manage::{create_network, default_options, default_subnet, predefined_id, remove_network};
pub use membership::{JoinRequest, Membership, NetworkChange, sweep_networks};
pub use mode::NetworkMode;
pub use netns::IsolatedNetwork;
pub use ports::{ContainerPort, PublishRequest, Transport, parse_expose, parse_publish};
pub use private::{NetEnv, PrivateNetwork};
pub use probe::{Missing, NetworkProbe, PrivateKind, probe};
pub use request::{Attachment, ContainerNetwork, DEFAULT_NETWORK, Link, Mac, parse_attachment};

/// Serves as a keeper of networks when this process was executed as one, and gives its exit code; `None` in every other
/// case.
#[must_use]
pub fn helper_main() -> Option<std::process::ExitCode> {
    keeper::helper_main().or_else(ground::helper_main)
}
