//! The flags of `run` and `create` that are about the network.

use super::{CliError, values};
use crate::network::{
    Attachment, ContainerNetwork, ContainerPort, DnsRequest, ExtraHost, Link, Mac, NetworkError,
    PublishRequest, parse_attachment, parse_expose, parse_publish,
};
use crate::runtime::NetworkRequest;
use clap::Args;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What `run` and `network connect` say of a container's place in a network.
#[derive(Debug, Args)]
pub(super) struct PlaceFlags {
    /// IPv4 address in the network
    #[arg(long, value_name = "IP")]
    pub(super) ip: Option<Ipv4Addr>,
    /// IPv6 address in the network
    #[arg(long, value_name = "IP")]
    pub(super) ip6: Option<Ipv6Addr>,
    /// Hardware address in the network
    #[arg(long, value_name = "MAC")]
    mac_address: Option<String>,
    /// Know another container of the network by a name
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    link: Vec<String>,
}

impl PlaceFlags {
    /// Reads the hardware address.
    pub(super) fn mac(&self) -> Result<Option<Mac>, CliError> {
        super::create_flags::said(&self.mac_address).map(str::parse).transpose().map_err(refused)
    }

    /// Reads the links.
    pub(super) fn links(&self) -> Result<Vec<Link>, CliError> {
        each(&self.link, str::parse)
    }
}

/// Network, ports and names of a container.
#[derive(Debug, Args)]
pub(super) struct NetworkFlags {
    /// Network: bridge, host, none, container:NAME or a network's name, also name=NET,alias=...; may be repeated [default: bridge]
    #[arg(long, alias = "net", value_name = "NETWORK")]
    network: Vec<String>,
    /// Further name of the container in its network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    #[command(flatten)]
    place: PlaceFlags,
    /// Publish a port of the container on the host
    #[arg(short, long, value_name = "[[IP:][HOST]:]CONTAINER[/PROTOCOL]")]
    publish: Vec<String>,
    /// Publish all exposed ports on free ports of the host
    #[arg(short = 'P', long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    publish_all: Option<Option<bool>>,
    /// Say that the container serves a port
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    expose: Vec<String>,
    /// Add a line to /etc/hosts; host-gateway stands for the host
    #[arg(long, value_name = "NAME:IP")]
    add_host: Vec<String>,
    /// Name server [default: the host's]
    #[arg(long, value_name = "IP")]
    dns: Vec<IpAddr>,
    /// Domain to look names up in [default: the host's]; a dot alone is none
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Option of the name lookup, for example ndots:2
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
}

/// Makes an error of the command line of one of the network room.
pub(super) fn refused(error: NetworkError) -> CliError {
    CliError::from_error(&error).with_hint(error.hint())
}

fn each<T>(texts: &[String], read: impl Fn(&str) -> Result<T, NetworkError>) -> Result<Vec<T>, CliError> {
    texts.iter().map(|text| read(text)).collect::<Result<_, _>>().map_err(refused)
}

impl NetworkFlags {
    /// Reads the values that have a language of their own, and checks that they fit together.
    pub(super) fn request(&self) -> Result<NetworkRequest, CliError> {
        let publish: Vec<Vec<PublishRequest>> = each(&self.publish, parse_publish)?;
        let expose: Vec<Vec<ContainerPort>> = each(&self.expose, parse_expose)?;
        let request = NetworkRequest {
            choice: self.choice()?,
            extra_hosts: each(&self.add_host, str::parse::<ExtraHost>)?,
            dns: DnsRequest {
                servers: self.dns.clone(),
                search: values::words("--dns-search", &self.dns_search)?,
                options: values::words("--dns-option", &self.dns_option)?,
            },
            publish: publish.into_iter().flatten().collect(),
            publish_all: self.publish_all.is_some_and(|value| value.unwrap_or(true)),
            expose: expose.into_iter().flatten().collect(),
        };
        request.check().map_err(refused)?;
        Ok(request)
    }

    fn choice(&self) -> Result<ContainerNetwork, CliError> {
        let mut all = each(&self.network, parse_attachment)?;
        let PlaceFlags { ip, ip6, .. } = self.place;
        let (links, mac) = (self.place.links()?, self.place.mac()?);
        let plain = self.network_alias.is_empty() && ip.is_none() && ip6.is_none() && mac.is_none();
        if all.iter().any(|one| one.network.is_empty()) {
            return Err(CliError::new("no name set for network"));
        }
        if all.is_empty() && plain && links.is_empty() {
            return Ok(ContainerNetwork::Default);
        }
        for one in &mut all {
            // docker's other name for it
            if one.network == "default" {
                one.network = crate::network::DEFAULT_NETWORK.into();
            }
        }
        let word = all.first().map(|first| first.network.clone()).unwrap_or_default();
        let alone = match word.as_str() {
            "none" => Some(ContainerNetwork::None),
            "host" => Some(ContainerNetwork::Host),
            _ => match word.strip_prefix("container:") {
                Some("") => {
                    return Err(CliError::new("invalid container format container:<name|id>"));
                }
                Some(other) => Some(ContainerNetwork::Container(other.to_owned())),
                None => None,
            },
        };
        let alone_too = |a: &Attachment| {
            matches!(a.network.as_str(), "none" | "host") || a.network.starts_with("container:")
        };
        if all.len() > 1 && all.iter().any(alone_too) {
            return Err(CliError::new(
                "conflicting options: host, none and container:NAME go with no other network",
            ));
        }
        if let Some(alone) = alone {
            return match self.why_not_alone(&alone, !links.is_empty(), mac.is_some()) {
                Some(why) => Err(CliError::new(why)),
                None => Ok(alone),
            };
        }
        if all.is_empty() {
            all.push(Attachment::to(crate::network::DEFAULT_NETWORK));
        }
        // the short flags are about the first one, as docker has it
        let first = &mut all[0];
        first.aliases.extend(self.network_alias.iter().cloned());
        first.ip = ip.or(first.ip);
        first.ip6 = ip6.or(first.ip6);
        first.mac = mac.or(first.mac);
        first.links = links;
        Ok(ContainerNetwork::Networks(all))
    }

    /// Says what a container cannot have that has no network of its own, in docker's words.
    fn why_not_alone(&self, network: &ContainerNetwork, links: bool, mac: bool) -> Option<&'static str> {
        if links {
            return Some("links are only supported for user-defined networks");
        }
        if !self.network_alias.is_empty() {
            return Some("network-scoped aliases are only supported for user-defined networks");
        }
        if self.place.ip.is_some() || self.place.ip6.is_some() {
            return Some("user specified IP address is supported on user defined networks only");
        }
        // without a network there is nothing to give it to
        (mac && *network != ContainerNetwork::None)
            .then_some("conflicting options: mac-address and the network mode")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: NetworkFlags,
    }

    fn request(words: &[&str]) -> Result<NetworkRequest, CliError> {
        Line::try_parse_from(["x"].iter().chain(words)).unwrap().flags.request()
    }

    #[test]
    fn networks_are_chosen() {
        let choice = |words: &[&str]| request(words).unwrap().choice;
        assert_eq!(choice(&[]), ContainerNetwork::Default);
        assert_eq!(choice(&["--network", "host"]), ContainerNetwork::Host);
        assert_eq!(choice(&["--net=none"]), ContainerNetwork::None);
        assert_eq!(choice(&["--network", "container:web"]), ContainerNetwork::Container("web".into()));
        let ContainerNetwork::Networks(all) = choice(&[
            "--network",
            "a",
            "--network",
            "name=b,alias=x",
            "--network-alias",
            "y",
            "--ip",
            "10.0.0.9",
        ]) else {
            panic!("two networks")
        };
        assert_eq!((all[0].network.as_str(), all[0].aliases[0].as_str()), ("a", "y"));
        assert_eq!((all[1].network.as_str(), all[1].aliases[0].as_str(), all[1].ip), ("b", "x", None));
        let mode = choice(&["--network", "bridge"]).mode();
        assert_eq!(mode, "bridge");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (words, why) in [
            (&["--network", "host", "--network", "a"][..], "no other network"),
            (&["--network", "a", "--network", "none"], "no other network"),
            (&["--network", "host", "--ip", "10.0.0.1"], "user defined networks only"),
            (&["--network", "none", "--link", "a"], "links are only supported"),
            (&["--network", "host", "--network-alias", "a"], "aliases are only supported"),
            (&["--network", "container:a", "--mac-address", "02:00:00:00:00:01"], "mac-address"),
            (&["--network", "container:a", "--expose", "80"], "port exposing"),
            (&["--network", "container:a", "--dns", "1.2.3.4"], "dns"),
            (&["--network", "container:a", "--add-host", "a:1.2.3.4"], "custom host-to-IP"),
            (&["--network", "container:"], "container:<name|id>"),
            (&["--network", ""], "no name set"),
            (&["--network", "container:a", "-p", "80"], "conflicting options: port publishing"),
            (&["--network", "a", "--network", "a"], "multiple times"),
            (&["--network-alias", "x"], "user-defined"),
            (&["--ip", "10.0.0.1"], "user defined networks only"),
            (&["-p", "x"], "invalid port"),
        ] {
            let error = request(words).unwrap_err();
            assert!(error.message.contains(why), "{words:?}: {}", error.message);
        }
    }
}
