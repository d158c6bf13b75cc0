//! The content of `/etc/resolv.conf` inside a network, made from the host's.
//!
//! A name server on the host's loopback cannot be reached from another network namespace, so those go. When none
//! remain and systemd-resolved runs, its list of real servers is used; else [`FALLBACK`], as the docker engine does.
//! Search domains and options stay as they are. What is made here has docker's order: servers, domains, options.
//! Everything but [`HostDns::read`] is pure.

use std::{
    fs::File,
    io::{self, Read},
    net::{IpAddr, Ipv4Addr},
};

/// The name servers used when the host names none that a private network can reach: the docker engine's choice.
pub const FALLBACK: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)];

/// Where the host's configuration is.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systemd-resolved lists the servers behind its stub at 127.0.0.53.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";
/// More than any sane resolv.conf; what is beyond is not read. Bytes.
const LIMIT: u64 = 1 << 20;

/// The host's DNS configuration, as read once.
#[derive(Clone, Debug, Default)]
pub struct HostDns {
    /// The bytes of the host's `/etc/resolv.conf`, empty if there is none.
    pub main: Vec<u8>,
    /// The bytes of systemd-resolved's own list, if it runs.
    pub resolved: Option<Vec<u8>>,
}

impl HostDns {
    /// Reads the host's files; a missing file is an empty one.
    #[must_use]
    pub fn read() -> Self {
        Self {
            main: read_bounded(RESOLV_CONF).unwrap_or_default(),
            resolved: read_bounded(RESOLVED_CONF).ok(),
        }
    }

    /// The reachable name servers, best source first; empty if there are none.
    #[must_use]
    pub fn servers(&self, reach: Reach) -> Vec<IpAddr> {
        let first = nameservers(&self.main, reach);
        match &self.resolved {
            Some(other) if first.is_empty() => nameservers(other, reach),
            _ => first,
        }
    }

    /// All name servers, for whoever asks from the host's own network; else [`FALLBACK`].
    #[must_use]
    pub fn all_servers(&self) -> Vec<IpAddr> {
        let words = |line: &[u8]| {
            let mut words = line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
            (words.next() == Some(b"nameserver")).then(|| words.next().map(<[u8]>::to_vec)).flatten()
        };
        let lines = self.main.split(|b| *b == b'\n').filter_map(words);
        let mut all: Vec<IpAddr> = lines.filter_map(|w| std::str::from_utf8(&w).ok()?.parse().ok()).collect();
        if all.is_empty() {
            all.extend(FALLBACK.map(IpAddr::V4));
        }
        all
    }

    /// Renders the file for a network that asks `servers`; other lines come from the host's file.
    #[must_use]
    pub fn render(&self, servers: &[IpAddr]) -> Vec<u8> {
        let servers = servers.iter().map(|ip| ip.to_string().into_bytes()).collect();
        ResolvConf { servers, ..ResolvConf::parse(&self.main) }.render()
    }

    /// Renders the file for a network behind NAT: reachable servers, else [`FALLBACK`].
    #[must_use]
    pub fn render_for(&self, reach: Reach) -> Vec<u8> {
        let mut servers = self.servers(reach);
        if servers.is_empty() {
            servers.extend(FALLBACK.map(IpAddr::V4));
        }
        self.render(&servers)
    }
}

/// Which addresses outside a network can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// IPv4 only.
    V4,
    /// IPv4 and IPv6.
    Dual,
}

fn read_bounded(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a resolver's configuration says, word by word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResolvConf {
    /// Addresses, with whatever scope they have.
    pub(super) servers: Vec<Vec<u8>>,
    /// Domains; the last line that names some counts.
    pub(super) search: Vec<Vec<u8>>,
    pub(super) options: Vec<Vec<u8>>,
    /// Whole lines that are passed on.
    others: Vec<Vec<u8>>,
}

impl ResolvConf {
    pub(super) fn parse(text: &[u8]) -> Self {
        let mut conf = Self::default();
        for line in text.split(|b| *b == b'\n') {
            let mut words = line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()).map(<[u8]>::to_vec);
            match words.next().as_deref() {
                Some(b"nameserver") => conf.servers.extend(words.next()),
                Some(b"search" | b"domain") => conf.search = words.collect(),
                Some(b"options") => conf.options.extend(words),
                Some(b"sortlist") => conf.others.push(line.trim_ascii().to_vec()),
                _ => {}
            }
        }
        conf
    }

    pub(super) fn render(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut line = |word: &[u8], rest: &[Vec<u8>]| {
            if !rest.is_empty() {
                out.extend([word, &rest.join(&b' ')].join(&b' '));
                out.push(b'\n');
            }
        };
        self.servers.iter().for_each(|server| line(b"nameserver", std::slice::from_ref(server)));
        line(b"search", &self.search);
        line(b"options", &self.options);
        for other in &self.others {
            out.extend_from_slice(other);
            out.push(b'\n');
        }
        out
    }

    /// Whether an option of this name is set.
    pub(super) fn has_option(&self, name: &str) -> bool {
        self.options.iter().any(|option| option.split(|b| *b == b':').next() == Some(name.as_bytes()))
    }
}

fn nameservers(conf: &[u8], reach: Reach) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in conf.split(|b| *b == b'\n') {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
        if words.next() != Some(b"nameserver") {
            continue;
        }
        let address = words.next().and_then(|w| std::str::from_utf8(w).ok()).and_then(|w| w.parse().ok());
        if let Some(ip) = address.filter(|ip| reachable(*ip, reach)) {
            servers.push(ip);
        }
    }
    servers
}

fn reachable(ip: IpAddr, reach: Reach) -> bool {
    // `0.0.0.0` and `::` mean "this host" to a resolver.
    if ip.is_loopback() || ip.is_unspecified() {
        return false;
    }
    match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => reach == Reach::Dual && !v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn render(main: &str, resolved: Option<&str>, reach: Reach) -> String {
        let dns = HostDns { main: main.into(), resolved: resolved.map(Into::into) };
        String::from_utf8(dns.render_for(reach)).unwrap()
    }

    #[test]
    fn filtered_as_the_docker_engine_does() {
        let fallback = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        for (main, resolved, want) in [
            ("nameserver 192.0.2.1\n", None, "nameserver 192.0.2.1\n"),
            ("# c\n;d\nsearch a b\nnameserver 192.0.2.1", None, "nameserver 192.0.2.1\nsearch a b\n"),
            (
                "domain x\noptions a\nsearch b\noptions  c:2 d\nsortlist 1.2.3.4\nnameserver 192.0.2.1",
                None,
                "nameserver 192.0.2.1\nsearch b\noptions a c:2 d\nsortlist 1.2.3.4\n",
            ),
            ("nameserver 127.0.0.1\nnameserver 192.0.2.1\n", None, "nameserver 192.0.2.1\n"),
            ("nameserver 127.0.0.53\noptions edns0\n", None, &*format!("{fallback}options edns0\n")),
            (
                "nameserver 127.0.0.53\nsearch x\n",
                Some("nameserver 192.0.2.9\n"),
                "nameserver 192.0.2.9\nsearch x\n",
            ),
            ("nameserver 192.0.2.1\n", Some("nameserver 192.0.2.9\n"), "nameserver 192.0.2.1\n"),
            ("nameserver ::1\nnameserver 2001:db8::1\nnameserver fe80::1%eth0\n", None, fallback),
            ("  nameserver\t192.0.2.1  # x\nnameserver\nnameserver what\n", None, "nameserver 192.0.2.1\n"),
            ("", None, fallback),
        ] {
            assert_eq!(render(main, resolved, Reach::V4), want, "{main:?}");
        }
        assert_eq!(render("nameserver 2001:db8::1\n", None, Reach::Dual), "nameserver 2001:db8::1\n");
    }

    proptest! {
        #[test]
        fn any_bytes_give_at_least_one_reachable_server(main in proptest::collection::vec(any::<u8>(), 0..300)) {
            let dns = HostDns { main, resolved: None };
            let again = HostDns { main: dns.render_for(Reach::V4), resolved: None };
            prop_assert!(!again.servers(Reach::V4).is_empty());
            prop_assert_eq!(again.render_for(Reach::V4), dns.render_for(Reach::V4));
        }
    }
}
