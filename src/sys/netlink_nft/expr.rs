//! The instructions of nf_tables' small packet machine: load something into register 1, compare it, give a verdict; a
//! rule whose comparison fails ends there. All numbers in nf_tables attributes are big-endian, except what ends up in
//! registers, which is compared byte by byte with the packet's own order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Body, Family, Verdict};

const VERDICT_REGISTER: u32 = 0;
const REGISTER: u32 = 1;
/// Where in a packet: IP, and what is in it.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

/// One instruction of a rule.
#[derive(Clone, Debug)]
pub enum Expr {
    /// The packet is IPv4.
    IsIpv4,
    /// The packet came in by the interface with this name; `rb-+` stands for all that begin with `rb-`.
    InterfaceIn(String),
    /// The packet goes out by the interface with this name.
    InterfaceOut(String),
    /// The packet goes out by another interface than this.
    NotInterfaceOut(String),
    /// The packet is IPv6.
    IsIpv6,
    /// The packet came in by another interface than this.
    NotInterfaceIn(String),
    /// The IPv4 source address is in this network (address, prefix length).
    SourceIn(Ipv4Addr, u8),
    /// The IPv6 source address is in this network.
    SourceIn6(Ipv6Addr, u8),
    /// The packet is for this address; stands behind the question for its family.
    DestinationIs(IpAddr),
    /// The packet is for none of the IPv4 loopback addresses.
    NotToLoopback,
    /// The packet is not for the IPv6 loopback address.
    NotToLoopback6,
    /// The packet is for one of the host's own addresses.
    ToLocal,
    /// The number of the protocol, such as 6 for TCP.
    Protocol(u8),
    /// The destination port; stands behind the question for the protocol.
    DestinationPort(u16),
    /// Rewrites the destination.
    RedirectTo(IpAddr, u16),
    /// The packet belongs to a known connection, or answers to one.
    Established,
    /// The destination of the packet's connection was rewritten: a published port.
    DestinationRewritten,
    /// Counts packets and bytes.
    Counter,
    /// Rewrites the source to the address of the outgoing interface.
    Masquerade,
    /// Ends the rule.
    Verdict(Verdict),
}

impl Expr {
    pub(super) fn write(&self, list: &mut Body) {
        const META_IIFNAME: u32 = 6;
        const META_OIFNAME: u32 = 7;
        const META_NFPROTO: u32 = 15;
        const META_L4PROTO: u32 = 16;
        const CT_STATE: u32 = 0;
        const CT_STATUS: u32 = 2;
        // NF_CT_STATE_BIT(IP_CT_ESTABLISHED) | NF_CT_STATE_BIT(IP_CT_RELATED)
        const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
        const IPS_DST_NAT: u32 = 1 << 5;
        match self {
            Self::IsIpv4 => {
                list.meta(META_NFPROTO);
                list.compare(true, &[Family::Ip as u8]);
            }
            Self::InterfaceIn(name) => {
                list.meta(META_IIFNAME);
                list.compare(true, &interface(name));
            }
            Self::InterfaceOut(name) => {
                list.meta(META_OIFNAME);
                list.compare(true, &interface(name));
            }
            Self::NotInterfaceOut(name) => {
                list.meta(META_OIFNAME);
                list.compare(false, &interface(name));
            }
            Self::SourceIn(network, prefix) => {
                list.payload(NETWORK_HEADER, 12, 4);
                let mask = !u32::MAX.checked_shr((*prefix).into()).unwrap_or(0);
                list.mask(&mask.to_be_bytes());
                list.compare(true, &(u32::from(*network) & mask).to_be_bytes());
            }
            Self::IsIpv6 => {
                list.meta(META_NFPROTO);
                list.compare(true, &[Family::Ip6 as u8]);
            }
            Self::NotInterfaceIn(name) => {
                list.meta(META_IIFNAME);
                list.compare(false, &interface(name));
            }
            Self::SourceIn6(network, prefix) => {
                list.payload(NETWORK_HEADER, 8, 16);
                let mask = !u128::MAX.checked_shr((*prefix).into()).unwrap_or(0);
                list.mask(&mask.to_be_bytes());
                list.compare(true, &(u128::from(*network) & mask).to_be_bytes());
            }
            Self::DestinationIs(IpAddr::V4(ip)) => {
                list.payload(NETWORK_HEADER, 16, 4);
                list.compare(true, &ip.octets());
            }
            Self::DestinationIs(IpAddr::V6(ip)) => {
                list.payload(NETWORK_HEADER, 24, 16);
                list.compare(true, &ip.octets());
            }
            Self::NotToLoopback => {
                list.payload(NETWORK_HEADER, 16, 1);
                list.compare(false, &[127]);
            }
            Self::NotToLoopback6 => {
                list.payload(NETWORK_HEADER, 24, 16);
                list.compare(false, &Ipv6Addr::LOCALHOST.octets());
            }
            Self::ToLocal => {
                // NFT_FIB_RESULT_ADDRTYPE of the destination; RTN_LOCAL is 2
                list.expression("fib", |data| {
                    for (kind, value) in [(1, REGISTER), (2, 3), (3, 2)] {
                        data.number(kind, value);
                    }
                });
                list.compare(true, &2_u32.to_ne_bytes());
            }
            Self::Protocol(number) => {
                list.meta(META_L4PROTO);
                list.compare(true, &[*number]);
            }
            Self::DestinationPort(port) => {
                list.payload(TRANSPORT_HEADER, 2, 2);
                list.compare(true, &port.to_be_bytes());
            }
            Self::RedirectTo(ip, port) => list.redirect(*ip, *port),
            Self::Established => list.conntrack_has(CT_STATE, ESTABLISHED_OR_RELATED),
            Self::DestinationRewritten => list.conntrack_has(CT_STATUS, IPS_DST_NAT),
            Self::Counter => list.expression("counter", |_| {}),
            Self::Masquerade => list.expression("masq", |_| {}),
            Self::Verdict(verdict) => list.expression("immediate", |data| {
                data.number(1, VERDICT_REGISTER);
                data.nest(2, |data| data.nest(2, |data| data.number(1, *verdict as u32)));
            }),
        }
    }
}

/// An interface name as a register holds it: 16 bytes, padded with zeros. A name that ends in `+` stands for all that
/// begin so, as iptables writes it: then only the beginning is compared.
fn interface(name: &str) -> Vec<u8> {
    if let Some(beginning) = name.strip_suffix('+') {
        return beginning.as_bytes().to_vec();
    }
    let mut bytes = name.as_bytes()[..name.len().min(15)].to_vec();
    bytes.resize(16, 0);
    bytes
}

impl Body {
    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.nest(1, |element| {
            element.text(1, name);
            element.nest(2, fill);
        });
    }

    /// Loads a fact about the packet.
    fn meta(&mut self, key: u32) {
        self.expression("meta", |data| {
            data.number(1, REGISTER);
            data.number(2, key);
        });
    }

    /// Loads `length` bytes at `offset` of one of the packet's headers.
    fn payload(&mut self, header: u32, offset: u32, length: u32) {
        self.expression("payload", |data| {
            for (kind, value) in [(1, REGISTER), (2, header), (3, offset), (4, length)] {
                data.number(kind, value);
            }
        });
    }

    /// Puts a constant into a register.
    fn constant(&mut self, register: u32, value: &[u8]) {
        self.expression("immediate", |data| {
            data.number(1, register);
            data.nest(2, |data| data.bytes(1, value));
        });
    }

    /// Rewrites the destination by way of two registers.
    fn redirect(&mut self, ip: IpAddr, port: u16) {
        const DNAT: u32 = 1;
        let family = match ip {
            IpAddr::V4(v4) => {
                self.constant(REGISTER, &v4.octets());
                Family::Ip
            }
            IpAddr::V6(v6) => {
                self.constant(REGISTER, &v6.octets());
                Family::Ip6
            }
        };
        self.constant(REGISTER + 1, &port.to_be_bytes());
        self.expression("nat", |data| {
            for (kind, value) in [(1, DNAT), (2, family as u32), (3, REGISTER), (5, REGISTER + 1)] {
                data.number(kind, value);
            }
        });
    }

    /// Ands the register with `mask`.
    fn mask(&mut self, mask: &[u8]) {
        let length = u32::try_from(mask.len()).expect("masks are as long as addresses");
        self.expression("bitwise", |data| {
            for (kind, value) in [(1, REGISTER), (2, REGISTER), (3, length)] {
                data.number(kind, value);
            }
            data.nest(4, |data| data.bytes(1, mask));
            data.nest(5, |data| data.bytes(1, &vec![0; mask.len()]));
        });
    }

    /// Goes on only if the register equals (or not) `value`.
    fn compare(&mut self, equal: bool, value: &[u8]) {
        self.expression("cmp", |data| {
            data.number(1, REGISTER);
            data.number(2, u32::from(!equal));
            data.nest(3, |data| data.bytes(1, value));
        });
    }

    /// Goes on only if one of `bits` is set in a fact about the packet's connection.
    fn conntrack_has(&mut self, key: u32, bits: u32) {
        self.expression("ct", |data| {
            data.number(1, REGISTER);
            data.number(2, key);
        });
        self.mask(&bits.to_ne_bytes());
        self.compare(false, &[0; 4]);
    }
}
