//! The network of one container: its namespace and the two files in `/etc` that go with it.

use super::{ContainerId, RunError};
use crate::network::{
    ContainerNetwork, ContainerPort, DEFAULT_NETWORK, DnsRequest, ExtraHost, HostAddress, HostDns, NetEnv,
    NetworkError, PrivateNetwork, PublishRequest, Reach, hosts_file,
};
use crate::sandbox::{Network, rootless};
use crate::store::Store;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What the command line says about the network; kept with the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRequest {
    /// `--network` and what goes with it.
    #[serde(default)]
    pub choice: ContainerNetwork,
    /// `--add-host`.
    #[serde(default)]
    pub extra_hosts: Vec<ExtraHost>,
    /// What `/etc/resolv.conf` says instead of what the host's does.
    #[serde(default)]
    pub dns: DnsRequest,
    /// `--publish`.
    #[serde(default)]
    pub publish: Vec<PublishRequest>,
    /// `--publish-all`.
    #[serde(default)]
    pub publish_all: bool,
    /// `--expose`.
    #[serde(default)]
    pub expose: Vec<ContainerPort>,
}

/// The container that joins.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Where networks and volumes are kept.
    pub store: &'a Store,
    /// Its id.
    pub id: &'a ContainerId,
    /// Its name, which others find it by.
    pub name: &'a str,
    /// Its host name.
    pub hostname: &'a str,
    /// The ports that its image says it serves.
    pub exposed: &'a [ContainerPort],
    /// Its environment, which containers that link to it see.
    pub env: &'a [Vec<u8>],
}

/// A network that a container is about to join.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) network: Network,
    pub(super) resolv_conf: Vec<u8>,
    pub(super) hosts: Vec<u8>,
    /// What links add to the environment.
    pub(super) env: Vec<Vec<u8>>,
    /// Lives as long as the container.
    _private: Option<PrivateNetwork>,
}

impl NetworkRequest {
    /// Checks what can be checked before there is a container.
    ///
    /// # Errors
    /// [`NetworkError::Conflict`]: wishes that do not fit together.
    pub fn check(&self) -> Result<(), NetworkError> {
        let conflict = |why: String| Err(NetworkError::Conflict { why });
        let ports = !self.publish.is_empty() || self.publish_all;
        match &self.choice {
            ContainerNetwork::Container(_) if ports => {
                conflict("conflicting options: port publishing and the container type network mode".into())
            }
            ContainerNetwork::Networks(all) => {
                for (n, one) in all.iter().enumerate() {
                    if all[..n].iter().any(|before| before.network == one.network) {
                        return conflict(format!("network {:?} is named twice", one.network));
                    }
                    if one.network != DEFAULT_NETWORK {
                        continue;
                    }
                    if !one.aliases.is_empty() {
                        return conflict(
                            "network-scoped aliases are only supported for user-defined networks".into(),
                        );
                    }
                    if one.ip.is_some() || one.ip6.is_some() {
                        return conflict(
                            "user specified IP address is supported on user defined networks only".into(),
                        );
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Makes what is asked for. Without the programs for a private network an ordinary user who did not ask for one
    /// gets the host's, and is told.
    pub(super) fn join(&self, who: &Member<'_>, note: fn(&str)) -> Result<Joined, RunError> {
        let hostname = who.hostname;
        match &self.choice {
            ContainerNetwork::None => self.without_namespace(Network::None, hostname),
            ContainerNetwork::Host => self.without_namespace(Network::Host, hostname),
            ContainerNetwork::Container(_) | ContainerNetwork::Networks(_) => self.private(hostname, note),
            ContainerNetwork::Default => match self.private(hostname, note) {
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
        Ok(Joined {
            network: Network::Join(copy.into()),
            resolv_conf,
            hosts,
            env: Vec::new(),
            _private: Some(network),
        })
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
        Ok(Joined {
            network,
            resolv_conf: self.dns.apply(resolv_conf),
            hosts,
            env: Vec::new(),
            _private: None,
        })
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
