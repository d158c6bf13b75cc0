//! The bridge of the host that root's private networks hang on, and their places on it.
//!
//! The kernel keeps all the state. A place on the bridge is taken by the name of the host-side interface: `rb0-7` is
//! place 7 and so has one address. Names are unique, creating one that exists fails, and the interface goes with its
//! network namespace; so an address cannot be given twice nor stay taken after a crash, even between stores and
//! containers that share no lock file. Only making the bridge itself takes a lock.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

use nix::fcntl::{Flock, FlockArg};

use super::{
    HostDns, NetEnv, NetworkError, Reach,
    netns::{LOOPBACK, Netns, run},
    subnet::{Subnet, choose},
};
use crate::sys::{
    netlink::Netlink,
    netlink_route::{self as rt, Address, Link},
};

/// The bridge's name.
pub(super) const BRIDGE: &str = "rbuild0";
/// What the names of host-side interfaces begin with; the place follows.
const PORT: &str = "rb0-";
/// The name of the interface inside.
const INSIDE: &str = "eth0";
/// The largest packet when there is no default route to learn it from, in bytes.
pub(super) const ETHERNET: u32 = 1500;

/// The bridge, ready for use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bridge {
    index: u32,
    mtu: u32,
    pub(super) subnet: Subnet,
    pub(super) gateway: Ipv4Addr,
}

impl Bridge {
    /// Finds the bridge, or makes it (under a lock in `env`'s state directory, so that two processes agree).
    pub(super) fn ensure(route: &mut Netlink, env: &NetEnv) -> Result<Self, NetworkError> {
        if let Found::Ready(bridge) = Self::inspect(route)? {
            return Ok(bridge);
        }
        let _lock = lock(env)?;
        Self::ensure_locked(route)
    }

    /// The same for a caller that holds the lock.
    pub(super) fn ensure_locked(route: &mut Netlink) -> Result<Self, NetworkError> {
        let missing = match Self::inspect(route)? {
            Found::Ready(bridge) => return Ok(bridge),
            missing => missing,
        };
        Self::make(route, missing)?;
        match Self::inspect(route)? {
            Found::Ready(bridge) => Ok(bridge),
            _ => Err(NetworkError::setup(format!("set up the bridge {BRIDGE}"))(
                io::ErrorKind::NotFound.into(),
            )),
        }
    }

    fn inspect(route: &mut Netlink) -> Result<Found, NetworkError> {
        Self::find(route).map_err(NetworkError::setup(format!("inspect the bridge {BRIDGE}")))
    }

    fn find(route: &mut Netlink) -> io::Result<Found> {
        let Some(link) = rt::link(route, BRIDGE)? else { return Ok(Found::Nothing) };
        if link.kind.as_deref() != Some("bridge") {
            return Err(io::Error::other("an interface with this name exists and is no bridge"));
        }
        let address = rt::addresses(route)?.into_iter().find(|a| a.index == link.index);
        Ok(match address {
            Some(a) if link.up => Found::Ready(Self {
                index: link.index,
                mtu: link.mtu,
                subnet: Subnet::new(a.ip, a.prefix),
                gateway: a.ip,
            }),
            Some(_) => Found::Down(link),
            None => Found::Bare(link),
        })
    }

    /// Does what is missing; every part may have been done by a process that was killed on the way.
    fn make(route: &mut Netlink, found: Found) -> Result<(), NetworkError> {
        let failed = || NetworkError::setup(format!("make the bridge {BRIDGE}"));
        let index = match found {
            Found::Ready(_) => return Ok(()),
            Found::Down(link) => return run(route, &[rt::link_up(link.index)]).map_err(failed()),
            Found::Bare(link) => link.index,
            Found::Nothing => {
                let mtu = uplink_mtu(route).map_err(failed())?;
                run(route, &[rt::new_bridge(BRIDGE, bridge_mac(), mtu)]).map_err(failed())?;
                let link = rt::link(route, BRIDGE).map_err(failed())?;
                link.ok_or(io::ErrorKind::NotFound.into()).map_err(failed())?.index
            }
        };
        let used = used_subnets(route).map_err(failed())?;
        let subnet = choose(&used).ok_or(NetworkError::NoFreeSubnet { bridge: BRIDGE })?;
        let address = Address { index, ip: subnet.gateway(), prefix: subnet.prefix };
        run(route, &[rt::new_address(address), rt::link_up(index)]).map_err(failed())
    }

    /// Connects a namespace: takes a free place, makes the interface pair, configures the inner end.
    pub(super) fn attach(&self, route: &mut Netlink, netns: &mut Netns) -> Result<Port, NetworkError> {
        let port = self.take_place(route, netns, INSIDE, None)?;
        let failed = || NetworkError::setup(format!("configure {INSIDE} in the network namespace"));
        let link = rt::link(&mut netns.route, INSIDE).map_err(failed())?;
        let index = link.ok_or(io::ErrorKind::NotFound.into()).map_err(failed())?.index;
        let address = Address { index, ip: port.address, prefix: self.subnet.prefix };
        let requests = [
            rt::link_up(LOOPBACK),
            rt::link_up(index),
            rt::new_address(address),
            rt::default_route(self.gateway),
        ];
        run(&mut netns.route, &requests).map_err(failed())?;
        Ok(port)
    }

    /// Takes a free place and makes the interface pair; `inside` is still down and without an address.
    pub(super) fn take_place(
        &self,
        route: &mut Netlink,
        netns: &Netns,
        inside: &str,
        own_mac: Option<[u8; 6]>,
    ) -> Result<Port, NetworkError> {
        use std::os::fd::AsFd;
        let failed = || NetworkError::setup(format!("add a port to the bridge {BRIDGE}"));
        let links = rt::links(route).map_err(failed())?;
        let mut taken: Vec<u32> =
            links.iter().filter_map(|l| l.name.strip_prefix(PORT)?.parse().ok()).collect();
        taken.sort_unstable();
        let limit = self.subnet.places();
        let free = (0..limit).filter(|n| taken.binary_search(n).is_err());
        for place in free.filter(|n| self.subnet.place(*n) != self.gateway) {
            let (name, address) = (format!("{PORT}{place}"), self.subnet.place(place));
            let mac = own_mac.unwrap_or_else(|| mac(address));
            let request = rt::new_veth(&name, self.index, self.mtu, (inside, mac), netns.fd.as_fd());
            match run(route, &[request]) {
                Ok(()) => return Ok(Port { name, address, mac }),
                // Another process was faster: the next place.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed()(e)),
            }
        }
        Err(NetworkError::NoFreeAddress { bridge: BRIDGE, limit })
    }
}

/// A place on the bridge.
#[derive(Clone, Debug)]
pub(super) struct Port {
    /// The host-side interface.
    pub(super) name: String,
    /// The address inside.
    pub(super) address: Ipv4Addr,
    /// The hardware address inside.
    pub(super) mac: [u8; 6],
}

/// How much of the bridge there is.
enum Found {
    Nothing,
    /// No address yet.
    Bare(Link),
    /// Somebody set it down.
    Down(Link),
    Ready(Bridge),
}

/// Takes the lock of the host under which bridges, rules and places of containers change.
pub(super) fn lock(env: &NetEnv) -> Result<Flock<std::fs::File>, NetworkError> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let work = || -> io::Result<Flock<std::fs::File>> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&env.state_dir)?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
        let file = options.open(env.state_dir.join("bridge.lock"))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    };
    work().map_err(NetworkError::setup(format!("lock the setup of networks in {}", env.state_dir.display())))
}

/// The packet size of the interface that leads outside: larger ones would have to be cut there.
pub(super) fn uplink_mtu(route: &mut Netlink) -> io::Result<u32> {
    let routes = rt::routes(route)?;
    let uplink = routes.iter().filter(|r| r.to.1 == 0).min_by_key(|r| r.metric).and_then(|r| r.index);
    let links = rt::links(route)?;
    Ok(links.iter().find(|l| Some(l.index) == uplink).map_or(ETHERNET, |l| l.mtu.clamp(576, 65535)))
}

/// All networks that must stay reachable: routes, own addresses, name servers.
fn used_subnets(route: &mut Netlink) -> io::Result<Vec<Subnet>> {
    let mut used: Vec<_> = rt::routes(route)?.iter().map(|r| Subnet::new(r.to.0, r.to.1)).collect();
    used.extend(rt::addresses(route)?.iter().map(|a| Subnet::new(a.ip, a.prefix)));
    used.extend(HostDns::read().servers(Reach::V4).into_iter().filter_map(|ip| match ip {
        IpAddr::V4(ip) => Some(Subnet::new(ip, 32)),
        IpAddr::V6(_) => None,
    }));
    Ok(used)
}

/// A locally administered hardware address made of the IPv4 address, so that the next holder of the address has the
/// same one and no neighbour remembers a wrong one.
pub(super) fn mac(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, 0x52, a, b, c, d]
}

/// The bridge's own hardware address: any that no port has.
pub(super) fn bridge_mac() -> [u8; 6] {
    mac(Ipv4Addr::new(0, 0, 0, 1))
}
