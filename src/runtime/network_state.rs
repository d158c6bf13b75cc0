//! What a running container has of networks, and how `ps`, `port` and `inspect` show it. Pure.

use super::record::Record;
use crate::network::{
    ContainerNetwork, ContainerPort, DEFAULT_NETWORK, Endpoint, LiveNetwork, NetworkMode, PortBinding,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// What a running container has of networks; kept in its state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkState {
    /// Its places in networks.
    pub endpoints: Vec<Endpoint>,
    /// Its published ports.
    pub ports: Vec<PortBinding>,
}

impl NetworkState {
    pub(super) fn of(live: &LiveNetwork) -> Self {
        Self { endpoints: live.endpoints.clone(), ports: live.ports.clone() }
    }

    /// Gives the column PORTS of `ps`: `0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 443/tcp`.
    pub fn ports(&self, record: &Record) -> String {
        columns(&self.ports, &record.network.exposed(&record.config.exposed))
    }

    /// Gives the lines of `port`: container port with protocol, and host address with port.
    pub fn published(&self) -> Vec<(String, String)> {
        let mut all = self.ports.clone();
        all.sort_by_key(|b| (b.port, b.host_ip));
        all.iter().map(|b| (b.port.to_string(), address(b))).collect()
    }

    /// Gives `NetworkSettings` of `inspect`.
    pub fn settings(&self, record: &Record) -> Value {
        let mut ports = Map::new();
        for port in record.network.exposed(&record.config.exposed) {
            ports.insert(port.to_string(), Value::Null);
        }
        for binding in &self.ports {
            let entry = json!({
                "HostIp": binding.host_ip.to_string(), "HostPort": binding.host_port.to_string(),
            });
            match ports.entry(binding.port.to_string()).or_insert(Value::Null) {
                Value::Array(list) => list.push(entry),
                other => *other = Value::Array(vec![entry]),
            }
        }
        let default = self.endpoints.iter().find(|e| e.network == DEFAULT_NETWORK);
        let mut out = default.map(addresses).unwrap_or_else(no_addresses);
        for key in ["Bridge", "SandboxID", "SandboxKey", "LinkLocalIPv6Address"] {
            out.insert(key.into(), "".into());
        }
        out.insert("HairpinMode".into(), false.into());
        out.insert("LinkLocalIPv6PrefixLen".into(), 0.into());
        out.insert("SecondaryIPAddresses".into(), Value::Null);
        out.insert("SecondaryIPv6Addresses".into(), Value::Null);
        out.insert("Ports".into(), Value::Object(ports));
        out.insert("Networks".into(), self.networks(record));
        Value::Object(out)
    }

    fn networks(&self, record: &Record) -> Value {
        let mut out = Map::new();
        for endpoint in &self.endpoints {
            let mut one = addresses(endpoint);
            let links: Vec<String> =
                endpoint.links.iter().map(|link| format!("{}:{}", link.target, link.alias)).collect();
            one.insert("IPAMConfig".into(), Value::Null);
            one.insert("Links".into(), if links.is_empty() { Value::Null } else { json!(links) });
            one.insert("Aliases".into(), json!(endpoint.aliases));
            one.insert("NetworkID".into(), json!(endpoint.network_id));
            one.insert("GwPriority".into(), json!(endpoint.gw_priority));
            one.insert("DriverOpts".into(), Value::Null);
            one.insert("DNSNames".into(), names(record, endpoint));
            out.insert(endpoint.network.clone(), Value::Object(one));
        }
        if self.endpoints.is_empty() {
            // of a container that does not run, or shares a network, only the names are known
            for name in wanted(&record.network.choice) {
                let mut one = no_addresses();
                one.insert("NetworkID".into(), "".into());
                one.insert("GwPriority".into(), 0.into());
                for key in ["IPAMConfig", "Links", "Aliases", "DriverOpts", "DNSNames"] {
                    one.insert(key.into(), Value::Null);
                }
                out.insert(name, Value::Object(one));
            }
        }
        Value::Object(out)
    }
}

fn wanted(choice: &ContainerNetwork) -> Vec<String> {
    match choice {
        ContainerNetwork::Networks(all) => all.iter().map(|one| one.network.clone()).collect(),
        ContainerNetwork::Default => vec![DEFAULT_NETWORK.into()],
        ContainerNetwork::None => vec![NetworkMode::None.to_string()],
        ContainerNetwork::Host => vec![NetworkMode::Host.to_string()],
        ContainerNetwork::Container(_) => Vec::new(),
    }
}

fn names(record: &Record, endpoint: &Endpoint) -> Value {
    if !endpoint.named {
        return Value::Null;
    }
    let mut names = vec![record.name.as_str().to_owned()];
    names.extend(endpoint.aliases.iter().cloned());
    names.push(record.id.short().to_owned());
    names.push(record.hostname.clone());
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    json!(names)
}

fn addresses(endpoint: &Endpoint) -> Map<String, Value> {
    let text = |ip: Option<String>| Value::String(ip.unwrap_or_default());
    let mut out = Map::new();
    out.insert("EndpointID".into(), json!(endpoint.endpoint_id));
    out.insert("Gateway".into(), text(endpoint.gateway.map(|ip| ip.to_string())));
    out.insert("IPAddress".into(), text(endpoint.v4.map(|n| n.0.to_string())));
    out.insert("IPPrefixLen".into(), json!(endpoint.v4.map_or(0, |n| n.1)));
    out.insert("IPv6Gateway".into(), text(endpoint.gateway6.map(|ip| ip.to_string())));
    out.insert("GlobalIPv6Address".into(), text(endpoint.v6.map(|n| n.0.to_string())));
    out.insert("GlobalIPv6PrefixLen".into(), json!(endpoint.v6.map_or(0, |n| n.1)));
    out.insert("MacAddress".into(), text(endpoint.mac.map(|mac| mac.to_string())));
    out
}

fn no_addresses() -> Map<String, Value> {
    let mut out = Map::new();
    for key in ["EndpointID", "Gateway", "IPAddress", "IPv6Gateway", "GlobalIPv6Address", "MacAddress"] {
        out.insert(key.into(), "".into());
    }
    for key in ["IPPrefixLen", "GlobalIPv6PrefixLen"] {
        out.insert(key.into(), 0.into());
    }
    out
}

fn address(binding: &PortBinding) -> String {
    std::net::SocketAddr::new(binding.host_ip, binding.host_port).to_string()
}

/// Docker puts ports that follow each other together where the host's number is the container's, and those with another
/// number on the host behind all others, one by one.
fn columns(bindings: &[PortBinding], exposed: &[ContainerPort]) -> String {
    type Key = (Option<IpAddr>, crate::network::Transport);
    let mut bindings = bindings.to_vec();
    bindings.sort_by_key(|b| (b.port, b.host_ip));
    let bare = exposed.iter().filter(|port| !bindings.iter().any(|b| b.port == **port));
    let mut entries: Vec<(ContainerPort, Option<IpAddr>)> = bare.map(|port| (*port, None)).collect();
    let same = bindings.iter().filter(|b| b.host_port == b.port.number);
    entries.extend(same.map(|b| (b.port, Some(b.host_ip))));
    entries.sort();
    let mut groups: Vec<(Key, u16, u16)> = Vec::new();
    for (port, ip) in entries {
        let key = (ip, port.transport);
        match groups.iter_mut().rev().find(|group| group.0 == key) {
            Some(group) if group.2.checked_add(1) == Some(port.number) => group.2 = port.number,
            _ => groups.push((key, port.number, port.number)),
        }
    }
    let group = |((ip, transport), first, last): &(Key, u16, u16)| {
        let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
        let transport = transport.name();
        match ip {
            Some(IpAddr::V6(ip)) => format!("[{ip}]:{ports}->{ports}/{transport}"),
            Some(ip) => format!("{ip}:{ports}->{ports}/{transport}"),
            None => format!("{ports}/{transport}"),
        }
    };
    let others = bindings.iter().filter(|b| b.host_port != b.port.number);
    let others = others.map(|b| format!("{}->{}", address(b), b.port));
    groups.iter().map(group).chain(others).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_shown_as_docker_does() {
        let port = |text: &str| text.parse::<ContainerPort>().unwrap();
        let bound = |ip: &str, host_port: u16, text: &str| PortBinding {
            port: port(text),
            host_ip: ip.parse().unwrap(),
            host_port,
        };
        for (bindings, exposed, want) in [
            (vec![], vec![], ""),
            (vec![], vec!["80", "81", "90/udp"], "80-81/tcp, 90/udp"),
            (
                vec![bound("0.0.0.0", 8080, "80"), bound("::", 8080, "80")],
                vec!["80", "443"],
                "443/tcp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
            ),
            (
                vec![bound("127.0.0.1", 80, "80"), bound("127.0.0.1", 81, "81")],
                vec!["80", "81"],
                "127.0.0.1:80-81->80-81/tcp",
            ),
        ] {
            let exposed: Vec<_> = exposed.into_iter().map(port).collect();
            assert_eq!(columns(&bindings, &exposed), want);
        }
        let state = NetworkState {
            ports: vec![bound("::", 8080, "80"), bound("0.0.0.0", 8080, "80")],
            ..Default::default()
        };
        let lines: Vec<_> = state.published().into_iter().map(|(a, b)| format!("{a} -> {b}")).collect();
        assert_eq!(lines, ["80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"]);
    }
}
