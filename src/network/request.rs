//! What a user wants of a container's network, as it is kept with the container.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::NetworkError;

/// Which network a container is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerNetwork {
    /// Nothing was said: the network `bridge` where one can be made.
    #[default]
    Default,
    /// A loopback interface and nothing else.
    None,
    /// The host's, shared.
    Host,
    /// That of another container, named or by id.
    Container(String),
    /// One or more networks by name; `bridge` may be among them.
    Networks(Vec<Attachment>),
}

impl ContainerNetwork {
    /// The word that docker shows as the network mode.
    #[must_use]
    pub fn mode(&self) -> String {
        match self {
            Self::Default => "bridge".into(),
            Self::None => "none".into(),
            Self::Host => "host".into(),
            Self::Container(other) => format!("container:{other}"),
            Self::Networks(all) => all.first().map_or_else(|| "none".into(), |first| first.network.clone()),
        }
    }
}

/// The name of the network that containers are in unless something else is asked for.
pub const DEFAULT_NETWORK: &str = "bridge";

/// A container's wish to be in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network's name or id.
    pub network: String,
    /// Further names of the container in this network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// A fixed IPv4 address.
    #[serde(default)]
    pub ip: Option<Ipv4Addr>,
    /// A fixed IPv6 address.
    #[serde(default)]
    pub ip6: Option<Ipv6Addr>,
    /// A fixed hardware address.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// Other containers under names that only this one knows.
    #[serde(default)]
    pub links: Vec<Link>,
    /// Options of the driver; kept and shown.
    #[serde(default)]
    pub driver_opts: BTreeMap<String, String>,
    /// The network with the highest one has the default route.
    #[serde(default)]
    pub gw_priority: i64,
}

impl Attachment {
    /// Wishes for nothing but to be in the network.
    #[must_use]
    pub fn to(network: &str) -> Self {
        Self { network: network.to_owned(), ..Self::default() }
    }
}

/// Another container and the name by which it is known here: `--link`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Name or id of the other container.
    pub target: String,
    /// What it is called here.
    pub alias: String,
    /// The name of the other container, where `target` is its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl FromStr for Link {
    type Err = NetworkError;

    /// Reads `CONTAINER` or `CONTAINER:ALIAS`.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (target, alias) = text.split_once(':').unwrap_or((text, text));
        let alias = alias.trim_start_matches('/');
        let target = target.trim_start_matches('/');
        if target.is_empty() || alias.is_empty() || !is_host_word(alias) {
            return Err(NetworkError::Link { text: text.to_owned() });
        }
        Ok(Self { target: target.to_owned(), alias: alias.to_owned(), name: None })
    }
}

/// Whether a word can be a name in `/etc/hosts` and in DNS.
pub(super) fn is_host_word(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= 253
        && !word.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '#' | '/' | ':'))
}

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl FromStr for Mac {
    type Err = NetworkError;

    /// Reads six pairs of hexadecimal digits between colons or dashes; refuses group addresses.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let bad = || NetworkError::Mac { text: text.to_owned() };
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() || bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(bad());
        }
        Ok(Self(bytes))
    }
}

/// Reads the long form of `--network`: `name=NET,alias=A,ip=..,ip6=..,mac-address=..,driver-opt=K=V,gw-priority=N`; a plain
/// word is the name alone.
///
/// # Errors
/// [`NetworkError::Attachment`], [`NetworkError::Mac`].
pub fn parse_attachment(text: &str) -> Result<Attachment, NetworkError> {
    let bad = |why: String| NetworkError::Attachment { text: text.to_owned(), why };
    if !text.contains('=') {
        return Ok(Attachment::to(text));
    }
    let mut out = Attachment::default();
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| bad(format!("invalid field {field:?}: it has no =")))?;
        let address = || bad(format!("{key}={value}: that is no address of the kind"));
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => out.network = value.to_owned(),
            "alias" if is_host_word(value) => out.aliases.push(value.to_owned()),
            "alias" => return Err(bad(format!("alias={value}: that cannot be a host name"))),
            "ip" => out.ip = Some(value.parse().map_err(|_| address())?),
            "ip6" => out.ip6 = Some(value.parse().map_err(|_| address())?),
            "mac-address" => out.mac = Some(value.parse()?),
            "driver-opt" => {
                let (key, value) =
                    value.split_once('=').ok_or_else(|| bad("driver-opt needs KEY=VALUE".into()))?;
                out.driver_opts.insert(key.to_owned(), value.to_owned());
            }
            "gw-priority" => {
                out.gw_priority = value.parse().map_err(|_| bad("gw-priority is a number".into()))?;
            }
            // a link-local address is not routed; the kernel gives one by itself for IPv6
            other => return Err(bad(format!("unexpected key {other:?}"))),
        }
    }
    if out.network.is_empty() {
        return Err(bad("the network's name is missing: name=NETWORK".into()));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments() {
        assert_eq!(parse_attachment("web").unwrap(), Attachment::to("web"));
        let text = "name=web,alias=a,alias=b,ip=10.0.0.5,ip6=fd00::5,mac-address=02:00:00:00:00:01,driver-opt=k=v,gw-priority=3";
        let got = parse_attachment(text).unwrap();
        assert_eq!((got.network.as_str(), got.aliases.len(), got.gw_priority), ("web", 2, 3));
        assert_eq!(got.ip, Some(Ipv4Addr::new(10, 0, 0, 5)));
        assert_eq!(got.mac.unwrap().to_string(), "02:00:00:00:00:01");
        assert_eq!(got.driver_opts["k"], "v");
        for text in [
            "alias=x",
            "name=w,what=1",
            "name=w,ip=::1",
            "name=w,x",
            "name=w,alias=a b",
            "name=w,gw-priority=x",
        ] {
            assert!(parse_attachment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn links_and_hardware_addresses() {
        let link: Link = "db:store".parse().unwrap();
        assert_eq!((link.target.as_str(), link.alias.as_str()), ("db", "store"));
        assert_eq!("db".parse::<Link>().unwrap().alias, "db");
        assert_eq!(
            "/db:/x".parse::<Link>().unwrap(),
            Link { target: "db".into(), alias: "x".into(), name: None }
        );
        for bad in ["", ":x", "x:", "a:b c"] {
            assert!(bad.parse::<Link>().is_err(), "{bad}");
        }
        for bad in [
            "",
            "01:00:00:00:00:01",
            "02:00:00:00:00",
            "02:00:00:00:00:0g",
            "00:00:00:00:00:00",
            "2:0:0:0:0:1",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
