//! The kernel's side of networks: bridges of user networks, and containers' places on them and on the default bridge.
//!
//! A bridge and its packet rules are there while somebody is on it. Whoever attaches the first container makes them,
//! whoever takes the last one away removes them, and [`clean`] does it for those who were killed. All of this happens
//! under one lock of the host, since stores share the host's interfaces.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
};

use super::{
    NetworkError,
    bridge::{self, Bridge},
    definition::{AddressPool, BRIDGES, NetworkDefinition},
    firewall::{self, FOREIGN, NETWORK_TABLES, Walls},
    live::{Endpoint, LiveNetwork},
    netns::{LOOPBACK, Netns, inside, run},
    request::{Attachment, DEFAULT_NETWORK, Mac},
};
use crate::sys::{
    netlink::Netlink,
    netlink_nft::{self as nft, Batch, Family},
    netlink_route::{self as rt, IpAddress},
};

/// The id that the default network has for docker's sake: it is the same bridge in all stores.
pub(super) const DEFAULT_ID: &str = "b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0";

/// The network that an endpoint shall be in.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// The default bridge.
    Default,
    /// One of the user's making.
    User(Box<NetworkDefinition>),
}

/// What is needed to give a container a place.
pub(super) struct Place<'a> {
    pub(super) target: &'a Target,
    pub(super) wish: &'a Attachment,
    pub(super) container: &'a str,
    /// Names the interface inside.
    pub(super) number: usize,
    /// All running containers of the store.
    pub(super) others: &'a [LiveNetwork],
}

impl Place<'_> {
    /// Makes the bridge if need be, takes an address and connects the namespace; returns warnings too.
    pub(super) fn take(
        &self,
        route: &mut Netlink,
        netns: &mut Netns,
    ) -> Result<(Endpoint, Vec<String>), NetworkError> {
        let (endpoint, warnings) = match self.target {
            Target::Default => self.on_default(route, netns)?,
            Target::User(definition) => self.on_user(route, netns, definition)?,
        };
        configure(netns, &endpoint)
            .map_err(NetworkError::setup(format!("configure {} in the container", endpoint.inside)))?;
        Ok((endpoint, warnings))
    }

    fn endpoint(&self, network: &str, network_id: &str, outside: String) -> Result<Endpoint, NetworkError> {
        Ok(Endpoint {
            network: network.to_owned(),
            network_id: network_id.to_owned(),
            endpoint_id: crate::digest::hex(&random()?),
            aliases: self.wish.aliases.clone(),
            links: self.wish.links.clone(),
            v4: None,
            v6: None,
            gateway: None,
            gateway6: None,
            mac: None,
            inside: format!("eth{}", self.number),
            outside,
            gw_priority: self.wish.gw_priority,
            named: network != DEFAULT_NETWORK,
        })
    }

    fn on_default(
        &self,
        route: &mut Netlink,
        netns: &Netns,
    ) -> Result<(Endpoint, Vec<String>), NetworkError> {
        let bridge = Bridge::ensure_locked(route)?;
        let warnings = firewall::ensure(bridge.subnet)?;
        let inside = format!("eth{}", self.number);
        let port = bridge.take_place(route, netns, &inside, self.wish.mac.map(|mac| mac.0))?;
        let mut endpoint = self.endpoint(DEFAULT_NETWORK, DEFAULT_ID, port.name)?;
        endpoint.v4 = Some((port.address, bridge.subnet.prefix));
        endpoint.gateway = Some(bridge.gateway);
        endpoint.mac = Some(Mac(port.mac));
        Ok((endpoint, warnings))
    }

    fn on_user(
        &self,
        route: &mut Netlink,
        netns: &Netns,
        definition: &NetworkDefinition,
    ) -> Result<(Endpoint, Vec<String>), NetworkError> {
        let (v4, v6) = (self.address(definition, true)?, self.address(definition, false)?);
        let bridge = ensure(route, definition)?;
        let failed = || NetworkError::setup(format!("add a port to the bridge {}", definition.bridge()));
        let outside = format!("rv{}-{}", self.container.get(..8).unwrap_or(self.container), self.number);
        let mut endpoint = self.endpoint(&definition.name, &definition.id, outside)?;
        if let (Some(IpAddr::V4(ip)), Some(pool)) = (v4, definition.pool(true)) {
            endpoint.v4 = Some((ip, pool.subnet.prefix()));
            endpoint.gateway = v4_of(pool.gateway).filter(|_| !definition.internal);
        }
        if let (Some(IpAddr::V6(ip)), Some(pool)) = (v6, definition.pool(false)) {
            endpoint.v6 = Some((ip, pool.subnet.prefix()));
            endpoint.gateway6 = v6_of(pool.gateway).filter(|_| !definition.internal);
        }
        let mac = match (self.wish.mac, endpoint.v4) {
            (Some(mac), _) => mac.0,
            (None, Some((ip, _))) => bridge::mac(ip),
            (None, None) => random_mac()?,
        };
        endpoint.mac = Some(Mac(mac));
        // what a killed predecessor of this very container left
        if let Some(old) = rt::link(route, &endpoint.outside).map_err(failed())? {
            run(route, &[rt::delete_link(old.index)]).map_err(failed())?;
        }
        let peer = (endpoint.inside.as_str(), mac);
        let pair = rt::new_veth(&endpoint.outside, bridge.index, bridge.mtu, peer, netns.fd.as_fd());
        run(route, &[pair]).map_err(failed())?;
        if !definition.talks()
            && let Some(link) = rt::link(route, &endpoint.outside).map_err(failed())?
        {
            run(route, &[rt::isolate_port(link.index)]).map_err(failed())?;
        }
        Ok((endpoint, bridge.warnings))
    }

    /// Takes the address that is asked for, or the first free one.
    fn address(&self, definition: &NetworkDefinition, v4: bool) -> Result<Option<IpAddr>, NetworkError> {
        let wish = if v4 { self.wish.ip.map(IpAddr::V4) } else { self.wish.ip6.map(IpAddr::V6) };
        let bad =
            |ip, why: &str| NetworkError::Address { ip, network: definition.name.clone(), why: why.into() };
        let pool = match (definition.pool(v4), wish) {
            (Some(pool), _) => pool,
            (None, None) => return Ok(None),
            (None, Some(ip)) => return Err(bad(ip, "the network has no addresses of this kind")),
        };
        let taken = |ip: IpAddr| pool.gateway == ip || reserved(pool, ip) || self.has(definition, ip);
        match wish {
            None => {
                let free = pool.subnet.first_free(pool.range, &taken);
                free.map(Some).ok_or_else(|| NetworkError::Full { network: definition.name.clone() })
            }
            Some(ip) if !definition.fixed_subnets => Err(bad(
                ip,
                "user specified IP address is supported only when connecting to networks with user configured subnets",
            )),
            Some(ip) if !pool.subnet.usable(ip) => {
                Err(bad(ip, &format!("no configured subnet contains it ({})", pool.subnet)))
            }
            Some(ip) if pool.gateway == ip || self.has(definition, ip) => {
                Err(bad(ip, "Address already in use"))
            }
            Some(ip) => Ok(Some(ip)),
        }
    }

    fn has(&self, definition: &NetworkDefinition, ip: IpAddr) -> bool {
        let of = self.others.iter().filter_map(|live| live.endpoint(&definition.id));
        of.into_iter().any(|e| {
            e.v4.is_some_and(|(v4, _)| IpAddr::V4(v4) == ip)
                || e.v6.is_some_and(|(v6, _)| IpAddr::V6(v6) == ip)
        })
    }
}

fn reserved(pool: &AddressPool, ip: IpAddr) -> bool {
    pool.reserved.values().any(|r| *r == ip)
}

fn v4_of(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

fn v6_of(ip: IpAddr) -> Option<Ipv6Addr> {
    match ip {
        IpAddr::V6(ip) => Some(ip),
        IpAddr::V4(_) => None,
    }
}

/// Random bits for ids.
pub(super) fn random() -> Result<[u8; 32], NetworkError> {
    let mut bits = [0; 32];
    rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| NetworkError::setup("get random numbers")(e.into()))?;
    Ok(bits)
}

fn random_mac() -> Result<[u8; 6], NetworkError> {
    let [a, b, c, d, ..] = random()?;
    Ok([0x02, 0x52, a, b, c, d])
}

/// Gives the interface in the container its addresses; routes come later, when all interfaces are there.
fn configure(netns: &mut Netns, endpoint: &Endpoint) -> io::Result<()> {
    if endpoint.v6.is_some() {
        let base = format!("/proc/sys/net/ipv6/conf/{}", endpoint.inside);
        inside(netns.fd.as_fd(), || {
            // nobody else can have the address, so nobody need be asked
            let _ = std::fs::write(format!("{base}/accept_dad"), "0");
            std::fs::write(format!("{base}/disable_ipv6"), "0")
        })??;
    }
    let link = rt::link(&mut netns.route, &endpoint.inside)?.ok_or(io::ErrorKind::NotFound)?;
    let mut requests = vec![rt::link_up(LOOPBACK), rt::link_up(link.index)];
    if let Some((ip, prefix)) = endpoint.v4 {
        requests.push(rt::new_ip_address(IpAddress { index: link.index, ip: ip.into(), prefix }));
    }
    if let Some((ip, prefix)) = endpoint.v6 {
        requests.push(rt::new_ip_address(IpAddress { index: link.index, ip: ip.into(), prefix }));
    }
    run(&mut netns.route, &requests)
}

/// Makes the default routes of a namespace those of `live`, whatever they were.
pub(super) fn set_way_out(
    netns: &mut Netns,
    before: &LiveNetwork,
    live: &LiveNetwork,
) -> Result<(), NetworkError> {
    let mut work = || -> io::Result<()> {
        for v4 in [true, false] {
            let gateway = |e: &Endpoint| {
                if v4 { e.gateway.map(IpAddr::V4) } else { e.gateway6.map(IpAddr::V6) }
            };
            let (old, new) = (before.way_out(v4), live.way_out(v4));
            if old.map(|e| &e.endpoint_id) == new.map(|e| &e.endpoint_id) {
                continue;
            }
            if let Some(old) = old
                && let (Some(link), Some(ip)) = (rt::link(&mut netns.route, &old.inside)?, gateway(old))
            {
                // it may have gone with its interface
                let _ = run(&mut netns.route, &[rt::delete_default_route(ip, link.index)]);
            }
            if let Some(new) = new
                && let (Some(link), Some(ip)) = (rt::link(&mut netns.route, &new.inside)?, gateway(new))
            {
                run(&mut netns.route, &[rt::default_route_via(ip, link.index)])?;
            }
        }
        Ok(())
    };
    work().map_err(NetworkError::setup("set the container's default route"))
}

/// A bridge that is ready.
struct Ready {
    index: u32,
    mtu: u32,
    warnings: Vec<String>,
}

/// Makes what is missing of a network's bridge; every part may have been done by a process that was killed.
fn ensure(route: &mut Netlink, definition: &NetworkDefinition) -> Result<Ready, NetworkError> {
    let name = definition.bridge();
    let failed = || NetworkError::setup(format!("make the bridge {name} of the network {}", definition.name));
    let present = rt::link(route, &name).map_err(failed())?;
    let foreign = present.is_some() && is_foreign(&name);
    if present.is_none() {
        let mtu = match definition.mtu() {
            Some(mtu) => mtu,
            None => bridge::uplink_mtu(route).map_err(failed())?,
        };
        run(route, &[rt::new_bridge(&name, bridge::bridge_mac(), mtu)]).map_err(failed())?;
    }
    let link = rt::link(route, &name).map_err(failed())?;
    let link = link.ok_or(io::ErrorKind::NotFound.into()).map_err(failed())?;
    if link.kind.as_deref() != Some("bridge") {
        return Err(failed()(io::Error::other("an interface with this name exists and is no bridge")));
    }
    if definition.ipv6 {
        let base = format!("/proc/sys/net/ipv6/conf/{name}");
        let _ = std::fs::write(format!("{base}/accept_dad"), "0");
        std::fs::write(format!("{base}/disable_ipv6"), "0")
            .map_err(NetworkError::setup(format!("turn IPv6 on for the bridge {name}")))?;
    }
    let have = rt::ip_addresses(route).map_err(failed())?;
    let mut requests = if link.up { Vec::new() } else { vec![rt::link_up(link.index)] };
    for pool in &definition.pools {
        if !have.iter().any(|a| a.index == link.index && a.ip == pool.gateway) {
            let (ip, prefix) = (pool.gateway, pool.subnet.prefix());
            requests.push(rt::new_ip_address(IpAddress { index: link.index, ip, prefix }));
        }
    }
    run(route, &requests).map_err(failed())?;
    let warnings = walls(definition, &name, !foreign).ensure()?;
    Ok(Ready { index: link.index, mtu: link.mtu, warnings })
}

fn walls<'a>(definition: &NetworkDefinition, bridge: &'a str, made: bool) -> Walls<'a> {
    let net = |v4: bool| definition.pool(v4).map(|pool| (pool.subnet.base(), pool.subnet.prefix()));
    Walls {
        bridge,
        v4: net(true).and_then(|(ip, prefix)| Some((v4_of(ip)?, prefix))),
        v6: net(false).and_then(|(ip, prefix)| Some((v6_of(ip)?, prefix))),
        internal: definition.internal,
        masquerade: definition.masquerades(),
        made,
    }
}

/// Whether a bridge that exists is somebody else's: the user named it, and the rules do not say that rbuild made it.
fn is_foreign(name: &str) -> bool {
    let comment = || {
        let mut netlink = nft::open().ok()?;
        nft::table_comment(&mut netlink, Family::Inet, &format!("{NETWORK_TABLES}{name}")).ok()?
    };
    !name.starts_with(BRIDGES) && comment().is_none_or(|comment| comment.starts_with(FOREIGN.as_bytes()))
}

/// Takes interfaces of containers away, with the bridges and rules that nobody uses any more.
pub(super) fn release(route: &mut Netlink, endpoints: &[Endpoint]) -> Result<(), NetworkError> {
    let failed = || NetworkError::setup("take the container's interfaces away");
    for endpoint in endpoints {
        if let Some(link) = rt::link(route, &endpoint.outside).map_err(failed())? {
            // it may go at this moment with its namespace
            let _ = run(route, &[rt::delete_link(link.index)]);
        }
    }
    clean(route)
}

/// Removes bridges of user networks that nobody is on, and their rules: what killed processes left, of any store.
pub(super) fn clean(route: &mut Netlink) -> Result<(), NetworkError> {
    let mut work = || -> io::Result<()> {
        let links = rt::links(route)?;
        let used = |index: u32| links.iter().any(|port| port.master == Some(index));
        let mut netlink = nft::open()?;
        for table in nft::tables(&mut netlink, Family::Inet)? {
            let Some(bridge) = table.strip_prefix(NETWORK_TABLES) else { continue };
            let link = links.iter().find(|link| link.name == bridge);
            if link.is_some_and(|link| used(link.index)) {
                continue;
            }
            let foreign = is_foreign(bridge);
            let mut batch = Batch::new();
            batch.delete_table(Family::Inet, &table);
            batch.commit(&mut netlink)?;
            if let Some(link) = link.filter(|_| !foreign) {
                run(route, &[rt::delete_link(link.index)])?;
            }
        }
        for link in &links {
            let ours = link.kind.as_deref() == Some("bridge") && link.name.starts_with(BRIDGES);
            if ours && !used(link.index) {
                // its rules may have gone with it above
                let _ = run(route, &[rt::delete_link(link.index)]);
            }
        }
        Ok(())
    };
    work().map_err(NetworkError::setup("remove what is left of networks without containers"))
}
