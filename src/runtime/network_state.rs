//! What a running container has of networks, and how `ps`, `port` and `inspect` show it. Pure.

use super::record::Record;
use crate::network::{
    Attachment, ContainerNetwork, ContainerPort, DEFAULT_NETWORK, Endpoint, LiveNetwork, PortBinding,
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

    /// Gives `NetworkSettings` of `inspect`; `pid` is the first process, if the container runs.
    pub fn settings(&self, record: &Record, pid: Option<u32>) -> Value {
        let mut ports = Map::new();
        // only of networks with addresses does docker say which ports are not published
        if !self.endpoints.is_empty() {
            for port in record.network.exposed(&record.config.exposed) {
                ports.insert(port.to_string(), Value::Null);
            }
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
        let mut out = addresses(default);
        out.extend(pairs(json!({
            "Bridge": "",
            "SandboxID": if pid.is_some() { record.id.as_str() } else { "" },
            "SandboxKey": pid.map_or(String::new(), |pid| format!("/proc/{pid}/ns/net")),
            "Ports": ports,
            "HairpinMode": false, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0,
            "SecondaryIPAddresses": null, "SecondaryIPv6Addresses": null,
            "Networks": self.networks(record),
        })));
        Value::Object(out)
    }

    fn networks(&self, record: &Record) -> Value {
        let mut out = Map::new();
        for endpoint in &self.endpoints {
            let wish = wish(record, endpoint);
            out.insert(endpoint.network.clone(), describe(record, &wish, Some(endpoint)));
        }
        if self.endpoints.is_empty() {
            // of a container that does not run, or shares a network, only the wishes are known
            for wish in wishes(&record.network.choice) {
                out.insert(wish.network.clone(), describe(record, &wish, None));
            }
        }
        Value::Object(out)
    }
}

/// What was asked for of a place in a network.
fn wish(record: &Record, endpoint: &Endpoint) -> Attachment {
    let is = |wish: &Attachment| {
        wish.network == endpoint.network || endpoint.network_id.starts_with(&wish.network)
    };
    let found = wishes(&record.network.choice).into_iter().find(is);
    found.unwrap_or_else(|| Attachment::to(&endpoint.network))
}

fn describe(record: &Record, wish: &Attachment, endpoint: Option<&Endpoint>) -> Value {
    let some = |list: Vec<String>| if list.is_empty() { Value::Null } else { json!(list) };
    let mut fixed = Map::new();
    fixed.extend(wish.ip.map(|ip| ("IPv4Address".to_owned(), json!(ip))));
    fixed.extend(wish.ip6.map(|ip| ("IPv6Address".to_owned(), json!(ip))));
    // those of the default network are told with the host's part of the settings
    let links = if wish.network == DEFAULT_NETWORK { &[][..] } else { &wish.links[..] };
    let mut out = pairs(json!({
        "IPAMConfig": if fixed.is_empty() { Value::Null } else { Value::Object(fixed) },
        "Links": some(links.iter().map(|link| format!("{}:{}", link.target, link.alias)).collect()),
        "Aliases": some(wish.aliases.clone()),
        "DriverOpts": if wish.driver_opts.is_empty() { Value::Null } else { json!(wish.driver_opts) },
        "GwPriority": wish.gw_priority,
        "NetworkID": endpoint.map_or("", |e| e.network_id.as_str()),
    }));
    out.extend(addresses(endpoint));
    out.insert("DNSNames".into(), endpoint.map_or(Value::Null, |e| names(record, e)));
    Value::Object(out)
}

fn pairs(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn wishes(choice: &ContainerNetwork) -> Vec<Attachment> {
    match choice {
        ContainerNetwork::Networks(all) => all.clone(),
        ContainerNetwork::Default => vec![Attachment::to(DEFAULT_NETWORK)],
        ContainerNetwork::None => vec![Attachment::to("none")],
        ContainerNetwork::Host => vec![Attachment::to("host")],
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

/// What is said of a place in a network, or of none.
fn addresses(endpoint: Option<&Endpoint>) -> Map<String, Value> {
    let text = |ip: Option<String>| Value::String(ip.unwrap_or_default());
    let (v4, v6) = (endpoint.and_then(|e| e.v4), endpoint.and_then(|e| e.v6));
    pairs(json!({
        "EndpointID": endpoint.map_or("", |e| e.endpoint_id.as_str()),
        "Gateway": text(endpoint.and_then(|e| e.gateway).map(|ip| ip.to_string())),
        "IPAddress": text(v4.map(|n| n.0.to_string())),
        "IPPrefixLen": v4.map_or(0, |n| n.1),
        "IPv6Gateway": text(endpoint.and_then(|e| e.gateway6).map(|ip| ip.to_string())),
        "GlobalIPv6Address": text(v6.map(|n| n.0.to_string())),
        "GlobalIPv6PrefixLen": v6.map_or(0, |n| n.1),
        "MacAddress": text(endpoint.and_then(|e| e.mac).map(|mac| mac.to_string())),
    }))
}

fn address(binding: &PortBinding) -> String {
    std::net::SocketAddr::new(binding.host_ip, binding.host_port).to_string()
}

/// Docker puts ports that follow each other together where the host's number is the container's, and those with another
/// number on the host behind all others, one by one.
fn columns(bindings: &[PortBinding], exposed: &[ContainerPort]) -> String {
    type Key = (Option<IpAddr>, crate::network::Transport);
    let text = |ip: Option<IpAddr>| ip.map_or(String::new(), |ip| ip.to_string());
    let mut bindings = bindings.to_vec();
    bindings.sort_by_key(|b| (b.port.number, text(Some(b.host_ip)), b.host_port, b.port.transport));
    let bare = exposed.iter().filter(|port| !bindings.iter().any(|b| b.port == **port));
    let mut entries: Vec<(ContainerPort, Option<IpAddr>)> = bare.map(|port| (*port, None)).collect();
    let same = bindings.iter().filter(|b| b.host_port == b.port.number);
    entries.extend(same.map(|b| (b.port, Some(b.host_ip))));
    entries.sort_by_key(|(port, ip)| (port.number, text(*ip), port.transport));
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
            (
                ["53", "53/udp"]
                    .iter()
                    .flat_map(|port| ["0.0.0.0", "::"].map(|ip| bound(ip, 9053, port)))
                    .collect(),
                vec!["53", "53/udp"],
                "0.0.0.0:9053->53/tcp, 0.0.0.0:9053->53/udp, [::]:9053->53/tcp, [::]:9053->53/udp",
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
