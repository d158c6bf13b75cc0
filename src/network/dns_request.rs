//! What a user wants in `/etc/resolv.conf` in place of what the host has there.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

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
        let replaced = |line: &[u8]| {
            let word = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty()).unwrap_or_default();
            match word {
                b"nameserver" => !self.servers.is_empty(),
                b"search" | b"domain" => !self.search.is_empty(),
                b"options" => !self.options.is_empty(),
                _ => word.is_empty(),
            }
        };
        let mut out = Vec::new();
        for line in conf.split(|b| *b == b'\n').filter(|line| !replaced(line)) {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        let search: Vec<&str> =
            self.search.iter().map(String::as_str).filter(|domain| *domain != ".").collect();
        let mut add = |word: &str, rest: &str| out.extend_from_slice(format!("{word} {rest}\n").as_bytes());
        self.servers.iter().for_each(|server| add("nameserver", &server.to_string()));
        if !search.is_empty() {
            add("search", &search.join(" "));
        }
        if !self.options.is_empty() {
            add("options", &self.options.join(" "));
        }
        out
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
            "# c\nsearch a b\noptions edns0\nnameserver 192.0.2.9\nnameserver 2001:db8::1\n"
        );
        assert_eq!(
            text(DnsRequest {
                search: vec!["x".into(), "y".into()],
                options: vec!["ndots:2".into()],
                ..DnsRequest::default()
            }),
            "# c\nnameserver 192.0.2.1\nsearch x y\noptions ndots:2\n"
        );
        let none = text(DnsRequest { search: vec![".".into()], ..DnsRequest::default() });
        assert_eq!(none, "# c\nnameserver 192.0.2.1\noptions edns0\n");
    }
}
