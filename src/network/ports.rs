//! The languages of `--publish` and `--expose`. Pure.
//!
//! A range on both sides becomes one pair a port here, so that everything later deals with single container ports. Only
//! "one of these host ports for this container port" stays a range, since it is decided when the port is bound.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::NetworkError;

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
    /// Streams of messages.
    Sctp,
}

impl Transport {
    /// The name used in port specifications.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The number of the protocol in IP headers.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    fn parse(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            "sctp" => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// A port inside a container: `80/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ContainerPort {
    /// 1 to 65535.
    pub number: u16,
    /// Its protocol.
    pub transport: Transport,
}

impl fmt::Display for ContainerPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.transport.name())
    }
}

impl From<ContainerPort> for String {
    fn from(port: ContainerPort) -> Self {
        port.to_string()
    }
}

impl TryFrom<String> for ContainerPort {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl FromStr for ContainerPort {
    type Err = NetworkError;

    /// Reads `80`, `80/tcp`, `53/udp`.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        match parse_expose(text)?.as_slice() {
            [one] => Ok(*one),
            _ => Err(bad(text, "one port is expected, not a range")),
        }
    }
}

/// One published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishRequest {
    /// The host's address; `None` is all of them, IPv4 and IPv6.
    pub host_ip: Option<IpAddr>,
    /// First and last host port to choose from; `None` lets the kernel choose.
    pub host_ports: Option<(u16, u16)>,
    /// The port inside.
    pub port: ContainerPort,
}

fn bad(text: &str, why: impl Into<String>) -> NetworkError {
    NetworkError::Port { text: text.to_owned(), why: why.into() }
}

/// Reads a `--publish` value: `[[IP:][HOST]:]CONTAINER[/PROTOCOL]`, where `HOST` and `CONTAINER` are ports or ranges and an
/// IPv6 address stands in brackets; or the long form `target=CONTAINER[,published=HOST][,protocol=PROTOCOL]`.
///
/// # Errors
/// [`NetworkError::Port`].
pub fn parse_publish(text: &str) -> Result<Vec<PublishRequest>, NetworkError> {
    let long = if text.contains('=') { Some(short_form(text)?) } else { None };
    let text = long.as_deref().unwrap_or(text);
    let (address, rest) = split_address(text)?;
    let (host, inside) = match rest.rsplit_once(':') {
        Some((host, inside)) => (host, inside),
        None if address.is_some() => return Err(bad(text, "a container port is missing behind the address")),
        None => ("", rest),
    };
    let (inside, transport) = transport(text, inside)?;
    let inside = range(text, inside)?;
    if inside.0 == 0 {
        return Err(bad(text, "invalid port: a container has no port 0"));
    }
    let one = |number, host_ports| PublishRequest {
        host_ip: address,
        host_ports,
        port: ContainerPort { number, transport },
    };
    if host.is_empty() {
        return Ok((inside.0..=inside.1).map(|number| one(number, None)).collect());
    }
    let host = match range(text, host)? {
        // an explicit 0 asks for any
        (0, 0) => return Ok((inside.0..=inside.1).map(|number| one(number, None)).collect()),
        (0, _) => return Err(bad(text, "invalid range: port 0 means any port and begins no range")),
        host => host,
    };
    if inside.0 == inside.1 {
        return Ok(vec![one(inside.0, Some(host))]);
    }
    if host.1 - host.0 != inside.1 - inside.0 {
        let why = format!(
            "invalid ranges specified for container and host Ports: {}-{} and {}-{}",
            inside.0, inside.1, host.0, host.1
        );
        return Err(bad(text, why));
    }
    Ok((inside.0..=inside.1).zip(host.0..=host.1).map(|(number, at)| one(number, Some((at, at)))).collect())
}

fn short_form(text: &str) -> Result<String, NetworkError> {
    let (mut target, mut published, mut protocol) = ("", "", "tcp");
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| bad(text, format!("invalid field {field:?}: it has no =")))?;
        match key.to_ascii_lowercase().as_str() {
            "target" => target = value,
            "published" => published = value,
            "protocol" => protocol = value,
            "mode" if matches!(value, "host" | "ingress") => {}
            "mode" => return Err(bad(text, format!("invalid publish mode {value:?}: host or ingress"))),
            other => return Err(bad(text, format!("invalid field key {other:?}"))),
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

/// Takes the address off the front: `1.2.3.4:...`, `[::1]:...`.
fn split_address(text: &str) -> Result<(Option<IpAddr>, &str), NetworkError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or_else(|| bad(text, "a bracket is not closed"))?;
        let rest =
            rest.strip_prefix(':').ok_or_else(|| bad(text, "a colon is missing behind the bracket"))?;
        let ip: std::net::Ipv6Addr =
            address.parse().map_err(|_| bad(text, format!("invalid IP address: {address}")))?;
        return Ok((Some(ip.into()), rest));
    }
    if text.matches(':').count() > 2 {
        return Err(bad(text, "an IPv6 address needs brackets: [::1]:80:80"));
    }
    match text.split_once(':') {
        Some((address, rest)) if rest.contains(':') => {
            if address.is_empty() {
                return Ok((None, rest));
            }
            let ip = address.parse().map_err(|_| bad(text, format!("invalid IP address: {address}")))?;
            Ok((Some(ip), rest))
        }
        // `1.2.3.4:80` would be read as host port 1.2.3.4
        _ => Ok((None, text)),
    }
}

/// Reads an `--expose` value: a port or range, with or without protocol.
///
/// # Errors
/// [`NetworkError::Port`].
pub fn parse_expose(text: &str) -> Result<Vec<ContainerPort>, NetworkError> {
    if text.contains(':') {
        return Err(bad(text, "--expose takes a port of the container; --publish takes host ports too"));
    }
    let (ports, transport) = transport(text, text)?;
    let (first, last) = range(text, ports)?;
    if first == 0 {
        return Err(bad(text, "a container has no port 0"));
    }
    Ok((first..=last).map(|number| ContainerPort { number, transport }).collect())
}

fn transport<'a>(text: &str, port: &'a str) -> Result<(&'a str, Transport), NetworkError> {
    match port.split_once('/') {
        None => Ok((port, Transport::Tcp)),
        Some((port, word)) => Transport::parse(word)
            .map(|transport| (port, transport))
            .ok_or_else(|| bad(text, format!("invalid proto: {word:?}; expected tcp, udp or sctp"))),
    }
}

fn range(text: &str, ports: &str) -> Result<(u16, u16), NetworkError> {
    let number = |word: &str| -> Result<u16, NetworkError> {
        let plain = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        word.parse()
            .ok()
            .filter(|_| plain)
            .ok_or_else(|| bad(text, format!("invalid port: {word:?} is no number from 0 to 65535")))
    };
    let (first, last) = match ports.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(ports)?, number(ports)?),
    };
    if last < first {
        return Err(bad(text, format!("invalid range: {first}-{last} ends before it begins")));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        let all = parse_publish(text).unwrap();
        let one = |p: &PublishRequest| {
            let ip = p.host_ip.map_or("*".into(), |ip| ip.to_string());
            let host = p.host_ports.map_or("any".into(), |(a, b)| format!("{a}-{b}"));
            format!("{ip} {host} {}", p.port)
        };
        all.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn published_ports() {
        for (text, want) in [
            ("80", "* any 80/tcp"),
            ("8080:80", "* 8080-8080 80/tcp"),
            ("8080:80/udp", "* 8080-8080 80/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1 8080-8080 80/tcp"),
            ("127.0.0.1::80/SCTP", "127.0.0.1 any 80/sctp"),
            ("published=8080,target=80", "* 8080-8080 80/tcp"),
            ("target=53,protocol=udp,mode=host", "* any 53/udp"),
            (":80", "* any 80/tcp"),
            ("0:80", "* any 80/tcp"),
            ("[::1]:80:81", "::1 80-80 81/tcp"),
            ("[::]::81", ":: any 81/tcp"),
            ("8000-8001:80-81", "* 8000-8000 80/tcp; * 8001-8001 81/tcp"),
            ("8000-9000:80", "* 8000-9000 80/tcp"),
            ("80-81", "* any 80/tcp; * any 81/tcp"),
        ] {
            assert_eq!(shown(text), want, "{text}");
        }
        for (text, why) in [
            ("", "invalid port"),
            ("x", "invalid port"),
            ("65536", "invalid port"),
            ("+80", "invalid port"),
            ("80:", "invalid port"),
            ("80/icmp", "invalid proto"),
            ("81-80", "ends before"),
            ("8000-8002:80-81", "invalid ranges"),
            ("1.2.3:80:80", "invalid IP address"),
            ("::1:80:80", "brackets"),
            ("[::1]80", "colon"),
            ("[::1:80", "bracket"),
            ("[::1]:80", "missing behind"),
        ] {
            let message = parse_publish(text).unwrap_err().to_string();
            assert!(message.contains(why), "{text}: {message}");
        }
    }

    #[test]
    fn exposed_ports() {
        let words =
            |text: &str| parse_expose(text).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(words("80"), ["80/tcp"]);
        assert_eq!(words("53-54/udp"), ["53/udp", "54/udp"]);
        for text in ["", "80:80", "0", "a", "80/x"] {
            assert!(parse_expose(text).is_err(), "{text}");
        }
        let port: ContainerPort = "53/udp".parse().unwrap();
        let text = serde_json::to_string(&port).unwrap();
        assert_eq!(text, "\"53/udp\"");
        assert_eq!(serde_json::from_str::<ContainerPort>(&text).unwrap(), port);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9:./\\[\\]a-f-]{0,24}|\\PC{0,20}") {
            for request in parse_publish(&text).unwrap_or_default() {
                prop_assert!(request.host_ports.is_none_or(|(a, b)| 0 < a && a <= b));
            }
        }
    }
}
