//! The network of one container: its namespace and the two files in `/etc` that go with it.

use super::containers::Containers;
use super::record::Record;
use super::{ContainerId, RunError};
use crate::network::{
    ContainerNetwork, ContainerPort, DEFAULT_NETWORK, DnsRequest, ExtraHost, HostAddress, HostDns, NetEnv,
    NetworkError, PrivateNetwork, PublishRequest, Reach, hosts_file,
};
use crate::sandbox::{Network, rootless};
use crate::store::Store;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
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

/// What a running container has of networks; kept in its state, shown by `ps` and `inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkState {
    /// Its address, if it has one of its own.
    pub address: Option<IpAddr>,
    /// Where the host is reached.
    pub gateway: Option<IpAddr>,
}

impl NetworkState {
    /// Gives the column PORTS of `ps`.
    pub fn ports(&self, record: &Record) -> String {
        exposed(record).join(", ")
    }

    /// Gives the lines of `port`: container port with protocol, and host address with port.
    pub fn published(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Gives `NetworkSettings` of `inspect`.
    pub fn settings(&self, record: &Record) -> Value {
        let text = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
        let ports: serde_json::Map<String, Value> =
            exposed(record).into_iter().map(|port| (port, Value::Null)).collect();
        let (address, gateway) = (text(self.address), text(self.gateway));
        json!({
            "Ports": ports, "IPAddress": address, "Gateway": gateway,
            "Networks": { record.network.choice.mode(): { "IPAddress": address, "Gateway": gateway } },
        })
    }
}

fn exposed(record: &Record) -> Vec<String> {
    let mut all: Vec<String> =
        record.config.exposed.iter().chain(&record.network.expose).map(ToString::to_string).collect();
    all.sort();
    all.dedup();
    all
}

/// Takes away what a container has of networks on the host after its monitor was killed.
pub(super) fn clean(_containers: &Containers, _record: &Record, _state: &NetworkState) {
    // interfaces go with the last process of their namespace
}

/// Gives back what is reserved for a container, which is being removed.
pub(super) fn forget(_containers: &Containers, _record: &Record) {}

/// A network that a container is about to join.
///
/// It lives in the container's monitor, which has one thread and copies itself to start processes: no thread may stay
/// behind any call here, and a forwarder is a process of its own that dies with this one. Dropping it disconnects.
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

impl Joined {
    /// Gives what `ps` and `inspect` show.
    pub(super) fn state(&self) -> NetworkState {
        let private = self._private.as_ref();
        NetworkState {
            address: private.and_then(PrivateNetwork::address),
            gateway: private.and_then(PrivateNetwork::gateway),
        }
    }

    /// Takes note of the first process, which is about to execute the program: what can only be done then is done now.
    #[expect(clippy::unnecessary_wraps, reason = "publishing can fail")]
    pub(super) fn started(&mut self, _pid: u32) -> Result<(), RunError> {
        Ok(())
    }

    /// Changes the networks of the running container, as [`super::Client::network`] was asked to; gives the answer for it.
    pub(super) fn change(&mut self, _change: &[u8]) -> Result<Vec<u8>, RunError> {
        Err(RunError::Refused("the networks of a running container cannot be changed yet".into()))
    }
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
    pub(super) fn join(&self, who: &Member<'_>, note: &mut dyn FnMut(&str)) -> Result<Joined, RunError> {
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

    fn private(&self, hostname: &str, note: &mut dyn FnMut(&str)) -> Result<Joined, RunError> {
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
