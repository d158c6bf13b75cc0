//! IPv4 subnets: choosing one that the host does not use yet. Pure.

use std::{fmt, net::Ipv4Addr};

/// Where bridges get their subnets from: little used corners of the private ranges, `/22` pieces of each `/16`.
const POOLS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 189, 0, 0), Ipv4Addr::new(172, 29, 0, 0)];
/// Room for 1022 addresses: a Linux bridge has at most 1023 ports, so a larger subnet would only clash more.
const PREFIX: u8 = 22;

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    base: u32,
    pub(super) prefix: u8,
}

impl Subnet {
    pub(super) fn new(ip: Ipv4Addr, prefix: u8) -> Self {
        Self { base: u32::from(ip) & mask(prefix), prefix }
    }

    pub(super) fn base(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base)
    }

    /// The first address, which is the bridge's own.
    pub(super) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// How many addresses there are beside the network, the gateway and the broadcast address.
    pub(super) fn places(self) -> u32 {
        (!mask(self.prefix)).saturating_sub(2)
    }

    /// The address of place `n`, counted from 0.
    pub(super) fn place(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 2 + n)
    }

    fn overlaps(self, other: Self) -> bool {
        let common = mask(self.prefix.min(other.prefix));
        self.base & common == other.base & common
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base(), self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    !u32::MAX.checked_shr(prefix.into()).unwrap_or(0)
}

/// Chooses the first subnet of the pools that overlaps with none of `used`.
///
/// Networks of prefix 0 and 1 don't count: they are default routes (VPNs split theirs in two halves).
pub(super) fn choose(used: &[Subnet]) -> Option<Subnet> {
    let step = 1_u32 << (32 - PREFIX);
    POOLS
        .iter()
        .flat_map(|pool| (0..1_u32 << (PREFIX - 16)).map(move |n| u32::from(*pool) + n * step))
        .map(|base| Subnet { base, prefix: PREFIX })
        .find(|candidate| !used.iter().any(|u| u.prefix > 1 && candidate.overlaps(*u)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Subnet {
        let (ip, prefix) = text.split_once('/').unwrap();
        Subnet::new(ip.parse().unwrap(), prefix.parse().unwrap())
    }

    #[test]
    fn the_first_free_one() {
        for (used, want) in [
            (vec![], Some("10.189.0.0/22")),
            (vec!["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "192.168.1.0/24"], Some("10.189.0.0/22")),
            (vec!["10.189.1.7/32"], Some("10.189.4.0/22")),
            (vec!["10.189.0.0/20", "10.189.16.0/24"], Some("10.189.20.0/22")),
            (vec!["10.0.0.0/8"], Some("172.29.0.0/22")),
            (vec!["10.0.0.0/8", "172.16.0.0/12"], None),
        ] {
            let used: Vec<_> = used.into_iter().map(net).collect();
            assert_eq!(choose(&used).map(|s| s.to_string()).as_deref(), want);
        }
    }

    #[test]
    fn places() {
        let subnet = net("10.189.4.9/22");
        assert_eq!(subnet.to_string(), "10.189.4.0/22");
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 189, 4, 1));
        assert_eq!(subnet.place(0), Ipv4Addr::new(10, 189, 4, 2));
        assert_eq!(subnet.place(subnet.places() - 1), Ipv4Addr::new(10, 189, 7, 254));
        assert_eq!((net("1.2.3.4/31").places(), net("1.2.3.4/32").places()), (0, 0));
    }
}
