//! The network of one container: its namespace and the two files in `/etc` that go with it.

use super::RunError;
use crate::network::{
    ExtraHost, HostAddress, HostDns, NetEnv, NetworkError, NetworkMode, PrivateNetwork, Reach, hosts_file,
};
use crate::sandbox::{Network, rootless};
use std::net::IpAddr;

/// What the command line says about the network.
#[derive(Debug, Clone, Default)]
pub struct NetworkRequest {
    /// `--network`; `None` when it was left out, which is a private network where one can be made.
    pub mode: Option<NetworkMode>,
    /// `--add-host`.
    pub extra_hosts: Vec<ExtraHost>,
    /// `--dns`; empty for the host's.
    pub dns: Vec<IpAddr>,
}

/// A network that a container is about to join.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) network: Network,
    pub(super) resolv_conf: Vec<u8>,
    pub(super) hosts: Vec<u8>,
    /// Lives as long as the container.
    pub(super) _private: Option<PrivateNetwork>,
}

impl NetworkRequest {
    /// Makes what is asked for. Without the programs for a private network an ordinary user who did not ask for one
    /// gets the host's, and is told.
    pub(super) fn join(&self, hostname: &str, note: fn(&str)) -> Result<Joined, RunError> {
        match self.mode {
            Some(NetworkMode::None) => self.without_namespace(Network::None, hostname),
            Some(NetworkMode::Host) => self.without_namespace(Network::Host, hostname),
            Some(NetworkMode::Private) => self.private(hostname, note),
            None => match self.private(hostname, note) {
                Err(RunError::Network(error @ NetworkError::NoHelper)) => {
                    let hint = error.hint().unwrap_or_default();
                    note(&format!(
                        "warning: {error}; the container uses the host's network instead ({hint})\n"
                    ));
                    self.without_namespace(Network::Host, hostname)
                }
                other => other,
            },
        }
    }

    fn private(&self, hostname: &str, note: fn(&str)) -> Result<Joined, RunError> {
        let mut env = NetEnv::new(rootless::state().is_some());
        env.reach_host = self.extra_hosts.iter().any(|host| host.address == HostAddress::Gateway);
        let network = PrivateNetwork::create(&env)?;
        network.warnings().iter().for_each(|warning| note(&format!("warning: {warning}\n")));
        let copy =
            network.netns().try_clone_to_owned().map_err(RunError::io("keep the network namespace"))?;
        let resolv_conf = match self.dns.is_empty() {
            true => network.resolv_conf(),
            false => HostDns::read().render(&self.dns),
        };
        let hosts = network.hosts(hostname, &self.extra_hosts)?;
        Ok(Joined { network: Network::Join(copy.into()), resolv_conf, hosts, _private: Some(network) })
    }

    fn without_namespace(&self, network: Network, hostname: &str) -> Result<Joined, RunError> {
        let dns = HostDns::read();
        let resolv_conf = match (&network, self.dns.is_empty()) {
            (_, false) => dns.render(&self.dns),
            // with the host's network its own name servers, also those on loopback, can be reached
            (Network::Host, true) => dns.main.clone(),
            (_, true) => dns.render(&dns.servers(Reach::Dual)),
        };
        let hosts = hosts_file(hostname, None, None, &self.extra_hosts)?;
        Ok(Joined { network, resolv_conf, hosts, _private: None })
    }
}
