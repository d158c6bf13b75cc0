//! The network of one container: its namespace and the two files in `/etc` that go with it.

use super::RunError;
use crate::network::{
    DnsRequest, ExtraHost, HostAddress, HostDns, NetEnv, NetworkError, NetworkMode, PrivateNetwork, Reach,
    hosts_file,
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
    /// What `/etc/resolv.conf` says instead of what the host's does.
    pub dns: DnsRequest,
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
        let resolv_conf = self.dns.apply(network.resolv_conf());
        let hosts = network.hosts(hostname, &self.extra_hosts)?;
        Ok(Joined { network: Network::Join(copy.into()), resolv_conf, hosts, _private: Some(network) })
    }

    fn without_namespace(&self, network: Network, hostname: &str) -> Result<Joined, RunError> {
        let dns = HostDns::read();
        let (resolv_conf, hosts) = match &network {
            // its own name servers, also those on loopback, and its own names can be reached
            Network::Host => (dns.main.clone(), hosts_of_host(&host_file("/etc/hosts"), &self.extra_hosts)),
            _ => {
                (dns.render(&dns.servers(Reach::Dual)), hosts_file(hostname, None, None, &self.extra_hosts)?)
            }
        };
        Ok(Joined { network, resolv_conf: self.dns.apply(resolv_conf), hosts, _private: None })
    }
}

/// More of a file of the host is not passed on, in bytes.
const FILE_LIMIT: u64 = 1 << 20;

fn host_file(path: &str) -> Vec<u8> {
    use std::io::Read;
    let mut text = Vec::new();
    // a host without one gives an empty one
    let _ = std::fs::File::open(path).and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut text));
    text
}

/// The host's own file with further entries; the host itself is at its loopback there.
fn hosts_of_host(own: &[u8], extra: &[ExtraHost]) -> Vec<u8> {
    let mut out = own.to_vec();
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.push(b'\n');
    }
    for host in extra {
        let ip = match host.address {
            HostAddress::Ip(ip) => ip,
            HostAddress::Gateway => IpAddr::from([127, 0, 0, 1]),
        };
        out.extend_from_slice(format!("{ip}\t{}\n", host.name).as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_of_the_host_is_added_to() {
        let extra: Vec<ExtraHost> = ["db:10.0.0.7", "up:host-gateway"].map(|e| e.parse().unwrap()).to_vec();
        let file = hosts_of_host(b"127.0.0.1 localhost\n10.9.9.9 vm", &extra);
        assert_eq!(file, b"127.0.0.1 localhost\n10.9.9.9 vm\n10.0.0.7\tdb\n127.0.0.1\tup\n");
        assert_eq!(hosts_of_host(b"", &[]), b"");
    }
}
