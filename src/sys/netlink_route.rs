//! Links, IPv4 addresses and routes by rtnetlink.
//!
//! Each function returns the [`Request`] that does one thing, so that callers send several in one go with
//! [`Netlink::run`]; reading functions take the socket.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use netlink_packet_core::{NetlinkSerializable, Parseable};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{
        InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
        LinkFlags, LinkInfo, LinkMessage,
    },
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};

use super::netlink::{ACK, CREATE, DUMP, EXCL, Netlink, Request};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;

/// What is worth knowing of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The interface index.
    pub index: u32,
    /// The name.
    pub name: String,
    /// Whether it is administratively up.
    pub up: bool,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// The kind (`bridge`, `veth`); `None` for hardware.
    pub kind: Option<String>,
    /// The index of the bridge that it is a port of.
    pub master: Option<u32>,
}

/// An address of an interface, of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpAddress {
    /// The interface index.
    pub index: u32,
    /// The interface's own address.
    pub ip: IpAddr,
    /// Bits of the network part.
    pub prefix: u8,
}

/// An IPv4 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface index.
    pub index: u32,
    /// The interface's own address.
    pub ip: Ipv4Addr,
    /// Bits of the network part.
    pub prefix: u8,
}

/// An IPv4 route that sends packets somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination network; `0.0.0.0/0` for a default route.
    pub to: (Ipv4Addr, u8),
    /// The next hop, if there is one.
    pub gateway: Option<Ipv4Addr>,
    /// The interface, if there is a single one.
    pub index: Option<u32>,
    /// Smaller wins.
    pub metric: u32,
}

fn request(message: &RouteNetlinkMessage, flags: u16) -> Request {
    let mut body = vec![0; NetlinkSerializable::buffer_len(message)];
    NetlinkSerializable::serialize(message, &mut body);
    Request { kind: message.message_type(), flags, body }
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// Makes a bridge that is up, with a fixed hardware address (else it changes as ports come and go).
#[must_use]
pub fn new_bridge(name: &str, mac: [u8; 6], mtu: u32) -> Request {
    let mut link = named(name, mac, mtu);
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        // Build networks come and go within seconds; learning who listens to which group costs more than it saves.
        LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)])),
    ]));
    request(&RouteNetlinkMessage::NewLink(link), ACK | CREATE | EXCL)
}

/// Makes a veth pair: `name`, up, as a port of the bridge with index `bridge`; `peer`, still down, in the namespace `netns`.
///
/// The request holds the number of `netns`, so send it while the descriptor is open.
#[must_use]
pub fn new_veth(name: &str, bridge: u32, mtu: u32, peer: (&str, [u8; 6]), netns: BorrowedFd<'_>) -> Request {
    let mut inner = named(peer.0, peer.1, mtu);
    // The kernel configures the peer before it knows its other half, and refuses to set up half a pair.
    inner.header.flags = LinkFlags::empty();
    inner.header.change_mask = LinkFlags::empty();
    inner.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    let mut outer = LinkMessage::default();
    set_up(&mut outer);
    outer.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::Controller(bridge),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(inner))),
        ]),
    ];
    request(&RouteNetlinkMessage::NewLink(outer), ACK | CREATE | EXCL)
}

fn named(name: &str, mac: [u8; 6], mtu: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    set_up(&mut link);
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::Mtu(mtu),
    ];
    link
}

fn set_up(link: &mut LinkMessage) {
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
}

/// Sets the link with this index up.
#[must_use]
pub fn link_up(index: u32) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    set_up(&mut link);
    Request { kind: RTM_NEWLINK, ..request(&RouteNetlinkMessage::NewLink(link), ACK) }
}

/// Deletes the link with this index; the other end of a veth pair goes with it.
#[must_use]
pub fn delete_link(index: u32) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    Request { kind: RTM_DELLINK, ..request(&RouteNetlinkMessage::DelLink(link), ACK) }
}

/// Keeps the port with this index from talking to other isolated ports of its bridge.
#[must_use]
pub fn isolate_port(index: u32) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes = vec![LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(true)])),
    ])];
    Request { kind: RTM_NEWLINK, ..request(&RouteNetlinkMessage::NewLink(link), ACK) }
}

/// Gives an interface an address of either family. An IPv6 one can be used at once: nobody else is asked for it.
#[must_use]
pub fn new_ip_address(address: IpAddress) -> Request {
    match address.ip {
        IpAddr::V4(ip) => new_address(Address { index: address.index, ip, prefix: address.prefix }),
        IpAddr::V6(_) => {
            let mut message = AddressMessage::default();
            message.header.family = AddressFamily::Inet6;
            message.header.prefix_len = address.prefix;
            message.header.index = address.index;
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes =
                vec![AddressAttribute::Local(address.ip), AddressAttribute::Address(address.ip)];
            request(&RouteNetlinkMessage::NewAddress(message), ACK | CREATE | EXCL)
        }
    }
}

/// Makes `gateway` the default route of its family, by the interface `index`.
#[must_use]
pub fn default_route_via(gateway: IpAddr, index: u32) -> Request {
    request(&RouteNetlinkMessage::NewRoute(default_via(gateway, index)), ACK | CREATE | EXCL)
}

/// Takes the default route by `gateway` away.
#[must_use]
pub fn delete_default_route(gateway: IpAddr, index: u32) -> Request {
    request(&RouteNetlinkMessage::DelRoute(default_via(gateway, index)), ACK)
}

fn default_via(gateway: IpAddr, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family =
        if gateway.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Gateway(gateway.into()), RouteAttribute::Oif(index)];
    message
}

/// Lists the addresses of both families.
///
/// # Errors
/// The kernel's refusal.
pub fn ip_addresses(netlink: &mut Netlink) -> io::Result<Vec<IpAddress>> {
    let request = request(&RouteNetlinkMessage::GetAddress(AddressMessage::default()), DUMP);
    let replies = netlink.query(request.kind, DUMP, request.body)?;
    let read = |body: &[u8]| {
        let message = AddressMessage::parse(body).ok()?;
        let of = |local: bool| {
            message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(ip) if local => Some(*ip),
                AddressAttribute::Address(ip) if !local => Some(*ip),
                _ => None,
            })
        };
        let ip = of(true).or_else(|| of(false))?;
        Some(IpAddress { index: message.header.index, ip, prefix: message.header.prefix_len })
    };
    Ok(replies.iter().filter_map(|r| read(&r.body)).collect())
}

/// Lists the IPv6 networks that the host has routes to, without the kernel's own.
///
/// # Errors
/// The kernel's refusal.
pub fn routed_v6(netlink: &mut Netlink) -> io::Result<Vec<(Ipv6Addr, u8)>> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    let request = request(&RouteNetlinkMessage::GetRoute(message), DUMP);
    let replies = netlink.query(request.kind, DUMP, request.body)?;
    let read = |body: &[u8]| {
        let message = RouteMessage::parse(body).ok().filter(|m| m.header.kind == RouteType::Unicast)?;
        message.attributes.iter().find_map(|a| match a {
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => {
                Some((*ip, message.header.destination_prefix_length))
            }
            _ => None,
        })
    };
    Ok(replies.iter().filter_map(|r| read(&r.body)).collect())
}

/// Gives an interface an IPv4 address.
#[must_use]
pub fn new_address(address: Address) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = address.prefix;
    message.header.index = address.index;
    let host = u32::MAX.checked_shr(address.prefix.into()).unwrap_or(0);
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address.ip)),
        AddressAttribute::Address(IpAddr::V4(address.ip)),
        AddressAttribute::Broadcast(Ipv4Addr::from(u32::from(address.ip) | host)),
    ];
    request(&RouteNetlinkMessage::NewAddress(message), ACK | CREATE | EXCL)
}

/// Makes `gateway` the default route.
#[must_use]
pub fn default_route(gateway: Ipv4Addr) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway))];
    request(&RouteNetlinkMessage::NewRoute(message), ACK | CREATE | EXCL)
}

/// Finds a link by name; `None` if there is none.
///
/// # Errors
/// The kernel's refusal.
pub fn link(netlink: &mut Netlink, name: &str) -> io::Result<Option<Link>> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    let request = request(&RouteNetlinkMessage::GetLink(message), 0);
    match netlink.query(request.kind, 0, request.body) {
        // ENODEV
        Err(e) if e.raw_os_error() == Some(19) => Ok(None),
        Err(e) => Err(e),
        Ok(replies) => replies.first().map(|r| read_link(&r.body)).transpose(),
    }
}

/// Lists all links of the namespace.
///
/// # Errors
/// The kernel's refusal.
pub fn links(netlink: &mut Netlink) -> io::Result<Vec<Link>> {
    let request = request(&RouteNetlinkMessage::GetLink(LinkMessage::default()), DUMP);
    netlink.query(request.kind, DUMP, request.body)?.iter().map(|r| read_link(&r.body)).collect()
}

fn read_link(body: &[u8]) -> io::Result<Link> {
    // Parsed by hand: the typed parser is strict about attributes newer than itself, and dumps are on the hot path.
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MTU: u16 = 4;
    const IFLA_MASTER: u16 = 10;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    let word = |b: &[u8]| b.get(..4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
    let text = |b: &[u8]| String::from_utf8_lossy(b).trim_end_matches('\0').to_owned();
    let short = || invalid("a link message is too short");
    let mut link = Link {
        index: body.get(4..).and_then(word).ok_or_else(short)?,
        up: body.get(8..).and_then(word).ok_or_else(short)? & 1 != 0,
        ..Link::default()
    };
    for (kind, value) in super::netlink::attributes(body.get(16..).ok_or_else(short)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MASTER => link.master = word(value),
            IFLA_MTU => link.mtu = word(value).unwrap_or(0),
            IFLA_LINKINFO => {
                link.kind =
                    super::netlink::attributes(value).find(|a| a.0 == IFLA_INFO_KIND).map(|a| text(a.1));
            }
            _ => {}
        }
    }
    Ok(link)
}

/// Lists all IPv4 addresses of the namespace.
///
/// # Errors
/// The kernel's refusal.
pub fn addresses(netlink: &mut Netlink) -> io::Result<Vec<Address>> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    let request = request(&RouteNetlinkMessage::GetAddress(message), DUMP);
    let replies = netlink.query(request.kind, DUMP, request.body)?;
    Ok(replies.iter().filter_map(|r| read_address(&r.body)).collect())
}

fn read_address(body: &[u8]) -> Option<Address> {
    let message = AddressMessage::parse(body).ok()?;
    let ip = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
        _ => None,
    })?;
    Some(Address { index: message.header.index, ip, prefix: message.header.prefix_len })
}

/// Lists the IPv4 routes of all tables, without the kernel's own (local, broadcast).
///
/// # Errors
/// The kernel's refusal.
pub fn routes(netlink: &mut Netlink) -> io::Result<Vec<Route>> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    let request = request(&RouteNetlinkMessage::GetRoute(message), DUMP);
    let replies = netlink.query(request.kind, DUMP, request.body)?;
    Ok(replies.iter().filter_map(|r| read_route(&r.body)).collect())
}

fn read_route(body: &[u8]) -> Option<Route> {
    let message = RouteMessage::parse(body).ok()?;
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route {
        to: (Ipv4Addr::UNSPECIFIED, message.header.destination_prefix_length),
        gateway: None,
        index: None,
        metric: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => route.to.0 = *ip,
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => route.gateway = Some(*ip),
            RouteAttribute::Oif(index) => route.index = Some(*index),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            _ => {}
        }
    }
    Some(route)
}
