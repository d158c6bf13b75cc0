//! Networks of either family as users write them, and the choice of free ones. Pure.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::NetworkError;

/// A network: `10.0.0.0/24`, `fd00::/64`. The bits behind the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

/// Where networks without a subnet of their own get theirs: 10.190.0.0 to 10.199.255.255, then 172.30.0.0/16.
const POOLS: [Ipv4Addr; 11] = {
    let mut pools = [Ipv4Addr::new(172, 30, 0, 0); 11];
    let mut n = 0;
    while n < 10 {
        pools[n] = Ipv4Addr::new(10, 190 + n as u8, 0, 0);
        n += 1;
    }
    pools
};
/// Room for 1021 containers: a Linux bridge has at most 1023 ports.
const AUTO_PREFIX: u8 = 22;

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

impl Cidr {
    /// Makes the network that an address is in; `None` when the prefix is too long.
    #[must_use]
    pub fn around(ip: IpAddr, prefix: u8) -> Option<Self> {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        if prefix > bits {
            return None;
        }
        let mask = (!0_u128).checked_shl(u32::from(bits - prefix)).unwrap_or(0);
        let base = match ip {
            IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from(u32::from(ip) & mask as u32)),
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip) & mask)),
        };
        Some(Self { base, prefix })
    }

    /// Whether it is one of IPv4.
    #[must_use]
    pub fn is_v4(self) -> bool {
        self.base.is_ipv4()
    }

    /// The first address.
    #[must_use]
    pub fn base(self) -> IpAddr {
        self.base
    }

    /// How many bits are the network's.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    fn free_bits(self) -> u8 {
        if self.is_v4() { 32 - self.prefix } else { 128 - self.prefix }
    }

    /// The address at place `n`; `None` beyond the end.
    #[must_use]
    pub fn nth(self, n: u128) -> Option<IpAddr> {
        let free = u32::from(self.free_bits());
        if free < 128 && n >> free != 0 {
            return None;
        }
        Some(match self.base {
            IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(u32::from(base) + n as u32)),
            IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base) + n)),
        })
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(self, ip: IpAddr) -> bool {
        Self::around(ip, self.prefix) == Some(self)
    }

    /// Whether two networks share addresses.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    /// Whether an interface can have the address: neither the network's own nor, in IPv4, the broadcast address.
    #[must_use]
    pub fn usable(self, ip: IpAddr) -> bool {
        if !self.contains(ip) || self.free_bits() <= 1 {
            return self.contains(ip);
        }
        let last = number(self.base) | ((1_u128 << self.free_bits().min(127)) - 1);
        ip != self.base && !(self.is_v4() && number(ip) == last)
    }

    /// Finds the first usable address of `range` (the whole network, if `None`) that nobody has.
    #[must_use]
    pub fn first_free(self, range: Option<Self>, taken: &dyn Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let range = range.unwrap_or(self);
        // a network with more members than this would not fit on a bridge
        (0..1 << 17).map_while(|n| range.nth(n)).find(|ip| self.usable(*ip) && !taken(*ip))
    }

    /// Chooses an IPv4 network that overlaps with none of `used`. Default routes and halves of them don't count.
    #[must_use]
    pub fn choose_v4(used: &[Self]) -> Option<Self> {
        let step = 1_u32 << (32 - AUTO_PREFIX);
        let each = |pool: &Ipv4Addr| {
            let pool = u32::from(*pool);
            (0..1_u32 << (AUTO_PREFIX - 16)).map(move |n| Ipv4Addr::from(pool + n * step))
        };
        POOLS
            .iter()
            .flat_map(each)
            .map(|base| Self { base: base.into(), prefix: AUTO_PREFIX })
            .find(|candidate| !used.iter().any(|u| u.prefix > 1 && candidate.overlaps(*u)))
    }

    /// Makes a unique local IPv6 network of random bits (RFC 4193: `fd`, 40 bits, a subnet number).
    #[must_use]
    pub fn unique_local(random: [u8; 5]) -> Self {
        let [a, b, c, d, e] = random.map(u16::from);
        let base = Ipv6Addr::new(0xfd00 | a, b << 8 | c, d << 8 | e, 0, 0, 0, 0, 0);
        Self { base: base.into(), prefix: 64 }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let bad = |why: String| NetworkError::Subnet { text: text.to_owned(), why };
        let (ip, prefix) = text
            .split_once('/')
            .ok_or_else(|| bad("write it as ADDRESS/BITS, for example 10.5.0.0/16".into()))?;
        let ip: IpAddr = ip.parse().map_err(|_| bad(format!("{ip:?} is no address")))?;
        let bits = prefix.parse().map_err(|_| bad(format!("{prefix:?} is no number of bits")))?;
        let net =
            Self::around(ip, bits).ok_or_else(|| bad(format!("an address has fewer than {bits} bits")))?;
        if net.base != ip {
            return Err(bad(format!("it should be {net}")));
        }
        Ok(net)
    }
}

impl From<Cidr> for String {
    fn from(net: Cidr) -> Self {
        net.to_string()
    }
}

impl TryFrom<String> for Cidr {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_are_read_strictly() {
        for good in
            ["10.0.0.0/8", "192.168.4.0/22", "0.0.0.0/0", "1.2.3.4/32", "fd00::/64", "::/0", "fd00::1/128"]
        {
            assert_eq!(net(good).to_string(), good);
        }
        for (bad, why) in [
            ("10.0.0.5/24", "should be 10.0.0.0/24"),
            ("10.0.0.0", "ADDRESS/BITS"),
            ("x/8", "no address"),
            ("10.0.0.0/33", "fewer"),
            ("10.0.0.0/x", "number"),
            ("fd00::1/64", "should be fd00::/64"),
        ] {
            let message = bad.parse::<Cidr>().unwrap_err().to_string();
            assert!(message.contains(why), "{message}");
        }
    }

    #[test]
    fn addresses_are_found() {
        let lan = net("10.0.0.0/29");
        let taken = |ips: &'static [&str]| move |ip: IpAddr| ips.contains(&ip.to_string().as_str());
        assert_eq!(lan.first_free(None, &taken(&["10.0.0.1"])).unwrap().to_string(), "10.0.0.2");
        let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"];
        assert_eq!(lan.first_free(None, &|ip| all.contains(&ip.to_string().as_str())), None);
        let range = Some(net("10.0.0.4/30"));
        assert_eq!(lan.first_free(range, &|_| false).unwrap().to_string(), "10.0.0.4");
        assert!(!lan.usable("10.0.0.7".parse().unwrap()) && !lan.usable("10.0.0.0".parse().unwrap()));
        assert!(lan.usable("10.0.0.6".parse().unwrap()) && !lan.usable("10.0.0.8".parse().unwrap()));
        assert_eq!(net("fd00::/64").first_free(None, &|_| false).unwrap().to_string(), "fd00::1");
    }

    #[test]
    fn free_networks_are_chosen() {
        let choose = |used: &[&str]| {
            let used: Vec<_> = used.iter().map(|text| net(text)).collect();
            Cidr::choose_v4(&used).map(|net| net.to_string())
        };
        assert_eq!(choose(&["0.0.0.0/0", "128.0.0.0/1"]).unwrap(), "10.190.0.0/22");
        assert_eq!(choose(&["10.190.0.0/22", "10.190.5.7/32", "fd00::/8"]).unwrap(), "10.190.8.0/22");
        assert_eq!(choose(&["10.0.0.0/8"]).unwrap(), "172.30.0.0/22");
        assert_eq!(choose(&["10.0.0.0/8", "172.16.0.0/12"]), None);
        assert_eq!(Cidr::unique_local([1, 2, 3, 4, 5]).to_string(), "fd01:203:405::/64");
    }

    proptest! {
        #[test]
        fn overlap_is_mutual(a: u32, b: u32, p in 0_u8..=32, q in 0_u8..=32) {
            let a = Cidr::around(Ipv4Addr::from(a).into(), p).unwrap();
            let b = Cidr::around(Ipv4Addr::from(b).into(), q).unwrap();
            prop_assert_eq!(a.overlaps(b), b.overlaps(a));
            prop_assert!(a.overlaps(a) && a.nth(0) == Some(a.base()));
            prop_assert_eq!(a.to_string().parse::<Cidr>().unwrap(), a);
        }
    }
}
