//! What a container sees of its networks: `/etc/hosts`, `/etc/resolv.conf`, variables of links.

use std::net::{IpAddr, Ipv4Addr};

use super::Membership;
use crate::network::{
    DnsRequest, HostDns, Link, NetworkError, Reach, default_subnet, dns::ResolvConf, hosts_file,
    keeper::NAME_SERVER, lan::DEFAULT_ID, links, live::LiveNetwork, own_names,
};

impl Membership {
    /// Finds the containers that are linked to on the default bridge.
    pub(super) fn link(&mut self, others: &[LiveNetwork]) -> Result<(), NetworkError> {
        let own = self.live.name.clone();
        for link in self.links() {
            let (target, ip) = linked(&link, others).ok_or_else(|| NetworkError::Endpoint {
                why: format!(
                    "Cannot link to a non running container: /{} AS /{own}/{}",
                    link.name.as_ref().unwrap_or(&link.target),
                    link.alias
                ),
            })?;
            self.link_hosts.push(links::hosts_line(&link.alias, target, ip));
            self.link_env.extend(links::environment(&own, &link.alias, target, ip));
        }
        Ok(())
    }

    /// Finds them again: one that was started anew may have another address. One that is gone keeps its line.
    pub(super) fn link_again(&mut self, others: &[LiveNetwork]) {
        for (link, line) in self.links().iter().zip(&mut self.link_hosts) {
            if let Some((target, ip)) = linked(link, others) {
                *line = links::hosts_line(&link.alias, target, ip);
            }
        }
    }

    /// All links that are lines of `/etc/hosts`, since there are no names on the default bridge.
    pub(super) fn links(&self) -> Vec<Link> {
        let places = self.live.endpoints.iter().filter(|e| !e.named);
        places.flat_map(|e| e.links.iter().cloned()).collect()
    }

    /// Variables that links add.
    #[must_use]
    pub fn environment(&self) -> &[String] {
        &self.link_env
    }

    /// The content of `/etc/resolv.conf`.
    #[must_use]
    pub fn resolv_conf(&self) -> Vec<u8> {
        let dns = &self.request.dns;
        if let Some(private) = &self.private {
            return dns.apply(private.resolv_conf.clone());
        }
        if !self.names {
            let conf = self.ground.as_ref().map(|ground| ground.resolv_conf.clone());
            return dns.apply(conf.unwrap_or_else(|| HostDns::read().render_for(Reach::V4)));
        }
        // the user's servers are asked by the name server
        let rest = DnsRequest { servers: Vec::new(), ..dns.clone() };
        let mut conf = ResolvConf::parse(&rest.apply(HostDns::read().render(&[NAME_SERVER.into()])));
        if !conf.has_option("ndots") {
            // names of containers have no dots
            conf.options.push(b"ndots:0".to_vec());
        }
        conf.render()
    }

    /// The content of `/etc/hosts`.
    ///
    /// # Errors
    /// [`NetworkError::NoHostGateway`].
    pub fn hosts(&self) -> Result<Vec<u8>, NetworkError> {
        let gateway = match (&self.private, &self.ground) {
            (Some(private), _) => private.gateway,
            // the bridge is not the host
            (None, Some(_)) => None,
            (None, None) => {
                let own = self.live.way_out(true).and_then(|e| e.gateway).map(IpAddr::V4);
                own.or_else(|| default_subnet().map(|(_, gateway)| gateway))
            }
        };
        let mut file = hosts_file("", None, gateway, &self.request.extra_hosts)?;
        self.link_hosts.iter().for_each(|line| file.extend_from_slice(line.as_bytes()));
        let names = own_names(&self.request.hostname, &self.request.domainname);
        for endpoint in &self.live.endpoints {
            let ips = [endpoint.v4.map(|n| IpAddr::V4(n.0)), endpoint.v6.map(|n| IpAddr::V6(n.0))];
            for ip in ips.into_iter().flatten() {
                file.extend_from_slice(format!("{ip}\t{names}\n").as_bytes());
            }
        }
        Ok(file)
    }
}

/// The container that a link leads to, if it runs, and its address.
fn linked<'a>(link: &Link, others: &'a [LiveNetwork]) -> Option<(&'a LiveNetwork, Ipv4Addr)> {
    let is = |l: &&LiveNetwork| {
        l.name == link.target || (link.target.len() >= 6 && l.id.starts_with(&link.target))
    };
    let target = others.iter().find(is)?;
    Some((target, target.endpoint(DEFAULT_ID)?.v4?.0))
}
