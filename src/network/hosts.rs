//! The content of `/etc/hosts`: the usual local names, the container's own name, `--add-host` entries.

use std::{io::Write, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::NetworkError;

/// The local names every container gets, as the docker engine writes them.
const LOCAL_NAMES: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    ff00::0\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// One `--add-host` entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExtraHost {
    /// The name to resolve: no blanks, no control characters.
    pub name: String,
    /// What it resolves to.
    pub address: HostAddress,
}

/// What an extra host resolves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HostAddress {
    /// A fixed address.
    Ip(IpAddr),
    /// `host-gateway`: the address at which the network reaches the host.
    Gateway,
}

impl FromStr for ExtraHost {
    type Err = NetworkError;

    /// Reads `NAME:ADDRESS` or `NAME=ADDRESS`; an IPv6 address may stand in brackets.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let bad = |why| NetworkError::ExtraHost { text: text.to_owned(), why };
        let at = text.find(['=', ':']).ok_or_else(|| bad("it has neither ':' nor '=' after the name"))?;
        let (name, address) = (&text[..at], &text[at + 1..]);
        check_name(name).map_err(bad)?;
        if address == "host-gateway" {
            return Ok(Self { name: name.to_owned(), address: HostAddress::Gateway });
        }
        let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
        let ip = bare
            .parse()
            .map_err(|_| bad("what follows the name is neither an IP address nor host-gateway"))?;
        Ok(Self { name: name.to_owned(), address: HostAddress::Ip(ip) })
    }
}

/// A name with a blank, a comment sign or a newline would let one entry write another.
fn check_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("the name is empty"),
        n if n.chars().any(|c| c.is_whitespace() || c.is_control() || c == '#') => {
            Err("the name holds a blank, a control character or '#'")
        }
        _ => Ok(()),
    }
}

/// Gives the names that a container has at its own addresses: the full one, and what stands before its domain.
#[must_use]
pub fn own_names(hostname: &str, domainname: &str) -> String {
    match (domainname, hostname.split_once('.')) {
        ("", None) => hostname.to_owned(),
        ("", Some((first, _))) => format!("{hostname} {first}"),
        (domain, _) => format!("{hostname}.{domain} {hostname}"),
    }
}

/// Renders `/etc/hosts`.
///
/// `hostname` is one name or several with blanks between, or nothing; `own` is the container's address, if it has one
/// (without it its name points to the loopback), `gateway` what `host-gateway` stands for. A host name that cannot stand
/// in the file is left out.
///
/// # Errors
/// [`NetworkError::NoHostGateway`] when an entry asks for `host-gateway` and `gateway` is `None`.
pub fn hosts_file(
    hostname: &str,
    own: Option<IpAddr>,
    gateway: Option<IpAddr>,
    extra: &[ExtraHost],
) -> Result<Vec<u8>, NetworkError> {
    let mut out = LOCAL_NAMES.as_bytes().to_vec();
    for host in extra {
        let ip = match host.address {
            HostAddress::Ip(ip) => ip,
            HostAddress::Gateway => {
                gateway.ok_or_else(|| NetworkError::NoHostGateway { name: host.name.clone() })?
            }
        };
        line(&mut out, ip, &host.name);
    }
    if hostname.split(' ').all(|name| check_name(name).is_ok()) {
        line(&mut out, own.unwrap_or(IpAddr::from([127, 0, 0, 1])), hostname);
    }
    Ok(out)
}

fn line(out: &mut Vec<u8>, ip: IpAddr, name: &str) {
    writeln!(out, "{ip}\t{name}").expect("writing to a Vec does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_are_read() {
        let ip = |s: &str| HostAddress::Ip(s.parse().unwrap());
        for (text, name, address) in [
            ("db:10.0.0.7", "db", ip("10.0.0.7")),
            ("db=10.0.0.7", "db", ip("10.0.0.7")),
            ("six:::1", "six", ip("::1")),
            ("six=[fd00::2]", "six", ip("fd00::2")),
            ("six:[fd00::2]", "six", ip("fd00::2")),
            ("me:host-gateway", "me", HostAddress::Gateway),
        ] {
            let host: ExtraHost = text.parse().unwrap();
            assert_eq!((host.name.as_str(), host.address), (name, address), "{text}");
        }
    }

    #[test]
    fn bad_entries_say_why() {
        for (text, why) in [
            ("db", "neither ':' nor '='"),
            (":1.2.3.4", "empty"),
            ("a b:1.2.3.4", "blank"),
            ("a\nb:1.2.3.4", "control"),
            ("a:1.2.3", "neither an IP address"),
            ("a:", "neither an IP address"),
        ] {
            let message = text.parse::<ExtraHost>().unwrap_err().to_string();
            assert!(message.contains(why), "{message}");
        }
    }

    #[test]
    fn the_file_has_local_names_extras_and_the_own_name() {
        let extra = ["db:10.0.0.7".parse().unwrap(), "up:host-gateway".parse().unwrap()];
        let gateway = Some(IpAddr::from([10, 0, 0, 1]));
        let file = hosts_file("box", Some(IpAddr::from([10, 0, 0, 2])), gateway, &extra).unwrap();
        let text = String::from_utf8(file).unwrap();
        assert!(text.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost"));
        assert!(text.ends_with("10.0.0.7\tdb\n10.0.0.1\tup\n10.0.0.2\tbox\n"), "{text}");
        assert!(matches!(
            hosts_file("box", None, None, &extra),
            Err(NetworkError::NoHostGateway { name }) if name == "up"
        ));
        let plain = String::from_utf8(hosts_file("box", None, None, &[]).unwrap()).unwrap();
        assert!(plain.ends_with("ip6-allrouters\n127.0.0.1\tbox\n"), "{plain}");
        let odd = hosts_file("two\nlines", None, None, &[]).unwrap();
        assert_eq!(odd, LOCAL_NAMES.as_bytes());
    }

    proptest! {
        #[test]
        fn an_accepted_entry_is_one_line(text in "\\PC*[:=]([0-9]{1,3}\\.){3}[0-9]{1,3}|\\PC*") {
            if let Ok(host) = text.parse::<ExtraHost>() {
                let gateway = Some(IpAddr::from([10, 0, 0, 1]));
                let file = hosts_file("", None, gateway, &[host]).unwrap();
                let lines = file.iter().filter(|b| **b == b'\n').count();
                prop_assert_eq!(lines, 7);
            }
        }
    }
}
