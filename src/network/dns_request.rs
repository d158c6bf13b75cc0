//! What a user wants in `/etc/resolv.conf` in place of what the host has there.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::dns::ResolvConf;

/// Lines of `/etc/resolv.conf`; an empty list leaves that of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRequest {
    /// `--dns`.
    pub servers: Vec<IpAddr>,
    /// `--dns-search`; a dot alone is no search domain.
    pub search: Vec<String>,
    /// `--dns-option`.
    pub options: Vec<String>,
}

impl DnsRequest {
    /// Puts what is asked for in the place of the lines of the same kind.
    pub fn apply(&self, conf: Vec<u8>) -> Vec<u8> {
        if self.servers.is_empty() && self.search.is_empty() && self.options.is_empty() {
            return conf;
        }
        let bytes = |words: &[String]| words.iter().map(|word| word.clone().into_bytes()).collect();
        let mut conf = ResolvConf::parse(&conf);
        if !self.servers.is_empty() {
            conf.servers = self.servers.iter().map(|ip| ip.to_string().into_bytes()).collect();
        }
        if !self.search.is_empty() {
            conf.search = bytes(&self.search);
            conf.search.retain(|domain| domain != b".");
        }
        if !self.options.is_empty() {
            conf.options = bytes(&self.options);
        }
        conf.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_and_domains_can_be_replaced() {
        let host = "# c\nsearch a b\nnameserver 192.0.2.1\n\noptions edns0\n";
        let text = |request: DnsRequest| String::from_utf8(request.apply(host.into())).unwrap();
        assert_eq!(text(DnsRequest::default()), host);
        let servers = vec!["192.0.2.9".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(
            text(DnsRequest { servers, ..DnsRequest::default() }),
            "nameserver 192.0.2.9\nnameserver 2001:db8::1\nsearch a b\noptions edns0\n"
        );
        assert_eq!(
            text(DnsRequest {
                search: vec!["x".into(), "y".into()],
                options: vec!["ndots:2".into()],
                ..DnsRequest::default()
            }),
            "nameserver 192.0.2.1\nsearch x y\noptions ndots:2\n"
        );
        let none = text(DnsRequest { search: vec![".".into()], ..DnsRequest::default() });
        assert_eq!(none, "nameserver 192.0.2.1\noptions edns0\n");
    }
}
