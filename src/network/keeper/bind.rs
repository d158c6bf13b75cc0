//! Takes ports of the host: one container's published ports, all of them or none.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::OwnedFd,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt};

use super::{datagram::UdpListener, forward::Source};
use crate::network::{NetworkError, PortBinding, PublishRequest, Transport};

/// How often a port of the kernel's choice is tried that must be free on two addresses.
const TRIES: usize = 16;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// From this port on an ordinary user may listen, unless the administrator says otherwise.
const ORDINARY: u16 = 1024;

/// Where a published port leads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
}

impl Target {
    /// The container's address for clients of a family: the same family, if it has one.
    fn address(self, client: IpAddr) -> Option<IpAddr> {
        let (v4, v6) = (self.v4.map(IpAddr::V4), self.v6.map(IpAddr::V6));
        if client.is_ipv6() { v6.or(v4) } else { v4.or(v6) }
    }
}

/// Takes the ports; `container` is its name, for messages.
pub(super) fn take(
    container: &str,
    requests: &[PublishRequest],
    target: Target,
    rootless: bool,
) -> Result<(Vec<Source>, Vec<PortBinding>), NetworkError> {
    let (mut sources, mut bindings) = (Vec::new(), Vec::new());
    for request in requests {
        if rootless && request.port.transport == Transport::Sctp {
            let (at, why) =
                (request.port.to_string(), "an ordinary user cannot publish SCTP ports".to_owned());
            return Err(NetworkError::Bind { container: container.to_owned(), at, why });
        }
        let addresses = match request.host_ip {
            Some(ip) => vec![ip],
            None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        };
        let taken = one(request, &addresses).map_err(|failure| failure.explain(container, rootless))?;
        for (ip, port, socket) in taken {
            let binding = PortBinding { port: request.port, host_ip: ip, host_port: port };
            if let (Some(to), Some(socket)) = (target.address(ip), socket) {
                let to = SocketAddr::new(to, request.port.number);
                sources.push(
                    source(request.port.transport, socket, to)
                        .map_err(|e| Failure::new(ip, port, e).explain(container, rootless))?,
                );
            }
            bindings.push(binding);
        }
    }
    Ok((sources, bindings))
}

fn source(transport: Transport, socket: OwnedFd, to: SocketAddr) -> io::Result<Source> {
    Ok(match transport {
        Transport::Udp => Source::Udp { listener: UdpListener::on(socket)?, to },
        Transport::Tcp | Transport::Sctp => Source::Tcp { listener: TcpListener::from(socket), to },
    })
}

/// Why a port cannot be had.
struct Failure {
    at: SocketAddr,
    error: io::Error,
}

impl Failure {
    fn new(ip: IpAddr, port: u16, error: io::Error) -> Self {
        Self { at: SocketAddr::new(ip, port), error }
    }

    fn explain(self, container: &str, rootless: bool) -> NetworkError {
        let why = match self.error.kind() {
            io::ErrorKind::AddrInUse => "port is already allocated".to_owned(),
            io::ErrorKind::PermissionDenied if rootless && self.at.port() < ORDINARY => {
                "permission denied (sysctl net.ipv4.ip_unprivileged_port_start)".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => {
                "cannot assign requested address: the host has no such address".into()
            }
            _ => self.error.to_string(),
        };
        NetworkError::Bind { container: container.to_owned(), at: self.at.to_string(), why }
    }

    /// Whether the host has no addresses of this kind at all.
    fn is_no_family(&self) -> bool {
        matches!(self.error.raw_os_error(), Some(nix::libc::EAFNOSUPPORT | nix::libc::EADDRNOTAVAIL))
    }
}

type Taken = Vec<(IpAddr, u16, Option<OwnedFd>)>;

/// Takes one port on all the addresses, of the wanted range or of the kernel's choice.
fn one(request: &PublishRequest, addresses: &[IpAddr]) -> Result<Taken, Failure> {
    let mut last = None;
    match request.host_ports {
        Some((first, end)) => {
            for port in first..=end {
                match on_all(request, addresses, port) {
                    Ok(taken) => return Ok(taken),
                    // the others of a range may be free
                    Err(failure) => last = Some(last.unwrap_or(failure)),
                }
            }
        }
        None => {
            for _ in 0..TRIES {
                match on_all(request, addresses, 0) {
                    Ok(taken) => return Ok(taken),
                    Err(failure) if failure.error.kind() == io::ErrorKind::AddrInUse => last = Some(failure),
                    Err(failure) => return Err(failure),
                }
            }
        }
    }
    Err(last.expect("a range has at least one port, and there is at least one try"))
}

fn on_all(request: &PublishRequest, addresses: &[IpAddr], port: u16) -> Result<Taken, Failure> {
    let mut port = port;
    let mut taken = Vec::new();
    for ip in addresses {
        match on_one(request.port.transport, *ip, port) {
            Ok((socket, at)) => {
                port = at;
                taken.push((*ip, at, socket));
            }
            // nobody asked for IPv6 by name
            Err(error) => {
                let failure = Failure::new(*ip, port, error);
                if taken.is_empty() || !failure.is_no_family() {
                    return Err(failure);
                }
            }
        }
    }
    Ok(taken)
}

fn on_one(transport: Transport, ip: IpAddr, port: u16) -> io::Result<(Option<OwnedFd>, u16)> {
    let kind = match transport {
        Transport::Udp => SocketType::DGRAM,
        // the kernel alone forwards SCTP; the socket only chooses a number that is free for others
        Transport::Tcp | Transport::Sctp => SocketType::STREAM,
    };
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if ip.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if kind == SocketType::STREAM {
        // connections of a container that has just ended may linger
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &SocketAddr::new(ip, port))?;
    let at = SocketAddr::try_from(getsockname(&socket)?).map_or(port, |at| at.port());
    match transport {
        Transport::Sctp => Ok((None, at)),
        Transport::Tcp => {
            // two may be bound to it until one of them listens
            listen(&socket, BACKLOG)?;
            Ok((Some(socket), at))
        }
        Transport::Udp => Ok((Some(socket), at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::parse_publish;

    const NOWHERE: Target = Target { v4: Some(Ipv4Addr::LOCALHOST), v6: None };

    fn ports(text: &str) -> Result<Vec<PortBinding>, NetworkError> {
        take("web", &parse_publish(text).unwrap(), NOWHERE, false).map(|(_, bindings)| bindings)
    }

    #[test]
    fn ports_are_taken_on_all_addresses_alike() {
        for text in ["80", "80/udp"] {
            let got = ports(text).unwrap();
            assert!(got[0].host_port > 0 && got.iter().all(|b| b.host_port == got[0].host_port), "{got:?}");
            assert_eq!(got[0].host_ip, IpAddr::from([0, 0, 0, 0]));
        }
        let got = ports("127.0.0.1::80").unwrap();
        assert_eq!((got.len(), got[0].host_ip), (1, IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    fn a_clash_is_told_in_dockers_words() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let message = ports(&format!("127.0.0.1:{port}:80")).unwrap_err().to_string();
        assert!(
            message.contains(&format!(
                "endpoint web: Bind for 127.0.0.1:{port} failed: port is already allocated"
            )),
            "{message}"
        );
        // a range has other ports, and another address is another port
        let next = port.checked_add(20).unwrap_or(port);
        if next > port {
            let got = ports(&format!("127.0.0.1:{port}-{next}:80")).unwrap();
            assert!(got[0].host_port > port);
        }
        ports(&format!("127.0.0.2:{port}:80")).unwrap();
        let message = ports("203.0.113.77:0:80").unwrap_err().to_string();
        assert!(message.contains("cannot assign requested address"), "{message}");
    }
}
