//! What `--link` adds to a container on the default bridge: lines of `/etc/hosts` and variables. Pure.

use std::net::Ipv4Addr;

use super::{
    live::LiveNetwork,
    ports::{ContainerPort, Transport},
};

/// The line of `/etc/hosts` for a linked container: its alias, its short id, its name.
pub(super) fn hosts_line(alias: &str, target: &LiveNetwork, ip: Ipv4Addr) -> String {
    let short = target.id.get(..12).unwrap_or(&target.id);
    let mut names = vec![alias];
    names.extend([short, target.name.as_str()].into_iter().filter(|name| *name != alias));
    format!("{ip}\t{}\n", names.join(" "))
}

/// The variables that speak of a linked container, as docker names them; `own` is the name of who links.
pub(super) fn environment(own: &str, alias: &str, target: &LiveNetwork, ip: Ipv4Addr) -> Vec<String> {
    let prefix = alias.replace('-', "_").to_uppercase();
    let mut ports = target.exposed.clone();
    ports.sort_by_key(|port| (port.number, port.transport));
    ports.dedup();
    let url = |port: &ContainerPort| format!("{}://{ip}:{}", port.transport.name(), port.number);
    let key = |port: &ContainerPort| {
        format!("{prefix}_PORT_{}_{}", port.number, port.transport.name().to_uppercase())
    };
    let mut out = Vec::new();
    if let Some(first) = ports.first() {
        out.push(format!("{prefix}_PORT={}", url(first)));
    }
    for (first, last) in ranges(&ports) {
        let (key, transport) = (key(&first), first.transport.name());
        out.push(format!("{key}_START={}", url(&first)));
        out.push(format!("{key}_PORT_START={}", first.number));
        out.push(format!("{key}_END={transport}://{ip}:{}", last.number));
        out.push(format!("{key}_PORT_END={}", last.number));
    }
    for port in &ports {
        let key = key(port);
        out.push(format!("{key}={}", url(port)));
        out.push(format!("{key}_ADDR={ip}"));
        out.push(format!("{key}_PORT={}", port.number));
        out.push(format!("{key}_PROTO={}", port.transport.name()));
    }
    out.push(format!("{prefix}_NAME=/{own}/{alias}"));
    let own_env = target.env.iter().filter_map(|entry| entry.split_once('='));
    let passed = own_env.filter(|(name, _)| !matches!(*name, "HOME" | "PATH"));
    out.extend(passed.map(|(name, value)| format!("{prefix}_ENV_{name}={value}")));
    out
}

/// Finds ports that follow each other, two or more of one protocol.
fn ranges(ports: &[ContainerPort]) -> Vec<(ContainerPort, ContainerPort)> {
    let mut out = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp] {
        let mut run: Option<(ContainerPort, ContainerPort)> = None;
        for port in ports.iter().filter(|p| p.transport == transport) {
            run = match run {
                Some((first, last)) if last.number.checked_add(1) == Some(port.number) => {
                    Some((first, *port))
                }
                other => {
                    out.extend(other);
                    Some((*port, *port))
                }
            };
        }
        out.extend(run);
    }
    out.retain(|(first, last)| first != last);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_are_dockers() {
        let port = |text: &str| text.parse::<ContainerPort>().unwrap();
        let target = LiveNetwork {
            id: "ab".repeat(32),
            name: "db".into(),
            exposed: vec![port("53/udp"), port("5433"), port("5432")],
            env: ["HOME=/root", "PATH=/bin", "USER=me", "odd"].map(str::to_owned).to_vec(),
            ..LiveNetwork::default()
        };
        let ip = Ipv4Addr::new(10, 0, 0, 7);
        let env = environment("web", "my-db", &target, ip);
        for want in [
            "MY_DB_PORT=udp://10.0.0.7:53",
            "MY_DB_PORT_5432_TCP=tcp://10.0.0.7:5432",
            "MY_DB_PORT_5432_TCP_ADDR=10.0.0.7",
            "MY_DB_PORT_5432_TCP_PORT=5432",
            "MY_DB_PORT_5432_TCP_PROTO=tcp",
            "MY_DB_PORT_5432_TCP_START=tcp://10.0.0.7:5432",
            "MY_DB_PORT_5432_TCP_END=tcp://10.0.0.7:5433",
            "MY_DB_PORT_53_UDP=udp://10.0.0.7:53",
            "MY_DB_NAME=/web/my-db",
            "MY_DB_ENV_USER=me",
        ] {
            assert!(env.iter().any(|line| line == want), "{want}: {env:?}");
        }
        assert!(!env.iter().any(|line| line.contains("ENV_HOME") || line.contains("odd")));
        assert_eq!(hosts_line("my-db", &target, ip), "10.0.0.7\tmy-db abababababab db\n");
        assert_eq!(hosts_line("db", &target, ip), "10.0.0.7\tdb abababababab\n");
    }
}
