//! Passes datagrams on. A client's datagrams make a conversation with a socket of its own towards the container, so that
//! answers find their client; a conversation that is silent for a while is forgotten.

use std::{
    collections::HashMap,
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use rustix::event::epoll::EventFlags;

use super::forward::{Source, Token, Watch};

/// How long a conversation may be silent: docker's proxy waits as long.
const SILENCE: Duration = Duration::from_secs(90);
/// More conversations at once are not kept, so that a port scan does not eat all descriptors.
const MOST: usize = 2048;
/// How many datagrams are taken before others get their turn.
const TURNS: usize = 32;

/// A port that receives datagrams and knows which of the host's addresses each was for.
pub(super) struct UdpListener {
    socket: UdpSocket,
    /// Whether it listens on all addresses, so that an answer must name the one that was spoken to.
    any: bool,
}

impl AsFd for UdpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl UdpListener {
    #[cfg(test)]
    pub(super) fn bind(at: SocketAddr) -> io::Result<Self> {
        Self::on(OwnedFd::from(UdpSocket::bind(at)?))
    }

    /// Takes a bound socket.
    pub(super) fn on(socket: OwnedFd) -> io::Result<Self> {
        let socket = UdpSocket::from(socket);
        socket.set_nonblocking(true)?;
        let at = socket.local_addr()?;
        let any = at.ip().is_unspecified();
        if any {
            match at {
                SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
                SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
            }
        }
        Ok(Self { socket, any })
    }

    #[cfg(test)]
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Client)> {
        if !self.any {
            let (length, from) = self.socket.recv_from(buffer)?;
            return Ok((length, Client { from, spoke_to: None }));
        }
        let mut space = nix::cmsg_space!(nix::libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::empty(),
        )?;
        let spoke_to = message.cmsgs()?.find_map(|part| match part {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
            _ => None,
        });
        let from = message.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
        Ok((message.bytes, Client { from, spoke_to }))
    }

    fn answer(&self, client: &Client, bytes: &[u8]) -> io::Result<()> {
        let Some(own) = client.spoke_to else {
            return self.socket.send_to(bytes, client.from).map(drop);
        };
        let parts = [IoSlice::new(bytes)];
        let to = SockaddrStorage::from(client.from);
        let fd = self.socket.as_raw_fd();
        match own {
            IpAddr::V4(ip) => {
                let info = nix::libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: nix::libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                    ipi_addr: nix::libc::in_addr { s_addr: 0 },
                };
                sendmsg(fd, &parts, &[ControlMessage::Ipv4PacketInfo(&info)], MsgFlags::empty(), Some(&to))?;
            }
            IpAddr::V6(ip) => {
                let info = nix::libc::in6_pktinfo {
                    ipi6_addr: nix::libc::in6_addr { s6_addr: ip.octets() },
                    ipi6_ifindex: 0,
                };
                sendmsg(fd, &parts, &[ControlMessage::Ipv6PacketInfo(&info)], MsgFlags::empty(), Some(&to))?;
            }
        }
        Ok(())
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    storage.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))
}

/// Who speaks, and to which of our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Client {
    from: SocketAddr,
    spoke_to: Option<IpAddr>,
}

struct Flow {
    source: usize,
    client: Client,
    socket: UdpSocket,
    last: Instant,
}

/// All conversations.
#[derive(Default)]
pub(super) struct Datagrams {
    flows: HashMap<u64, Flow>,
    known: HashMap<(usize, Client), u64>,
    next: u64,
}

impl Datagrams {
    /// How long the loop may sleep before something has to be forgotten.
    pub(super) fn patience(&self) -> Option<Duration> {
        (!self.flows.is_empty()).then_some(SILENCE / 8)
    }

    pub(super) fn client_spoke(
        &mut self,
        watch: &Watch,
        source: usize,
        listener: &UdpListener,
        to: SocketAddr,
        buffer: &mut [u8],
    ) {
        for _ in 0..TURNS {
            let Ok((length, client)) = listener.receive(buffer) else { return };
            let known = self.known.get(&(source, client)).copied();
            let n = match known {
                Some(n) => n,
                None => match self.open(watch, source, client, to) {
                    Ok(n) => n,
                    // datagrams may be lost
                    Err(_) => continue,
                },
            };
            if let Some(flow) = self.flows.get_mut(&n) {
                flow.last = Instant::now();
                let _ = flow.socket.send(&buffer[..length]);
            }
        }
    }

    fn open(&mut self, watch: &Watch, source: usize, client: Client, to: SocketAddr) -> io::Result<u64> {
        if self.flows.len() >= MOST
            && let Some(oldest) = self.flows.iter().min_by_key(|(_, flow)| flow.last).map(|(n, _)| *n)
        {
            self.forget(oldest);
        }
        let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        socket.connect(to)?;
        let n = self.next;
        self.next += 1;
        watch.add(&socket, Token::Flow(n), EventFlags::IN)?;
        self.flows.insert(n, Flow { source, client, socket, last: Instant::now() });
        self.known.insert((source, client), n);
        Ok(n)
    }

    pub(super) fn server_spoke(&mut self, n: u64, sources: &[Source], buffer: &mut [u8]) {
        let Some(flow) = self.flows.get_mut(&n) else { return };
        let Some(Source::Udp { listener, .. }) = sources.get(flow.source) else { return };
        for _ in 0..TURNS {
            match flow.socket.recv(buffer) {
                Ok(length) => {
                    flow.last = Instant::now();
                    let _ = listener.answer(&flow.client, &buffer[..length]);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // nobody listens in the container at the moment; reading took the error away
                Err(_) => {}
            }
        }
    }

    pub(super) fn forget_old_ones(&mut self) {
        let old: Vec<u64> =
            self.flows.iter().filter(|(_, flow)| flow.last.elapsed() > SILENCE).map(|(n, _)| *n).collect();
        old.into_iter().for_each(|n| self.forget(n));
    }

    fn forget(&mut self, n: u64) {
        if let Some(flow) = self.flows.remove(&n) {
            self.known.remove(&(flow.source, flow.client));
        }
    }
}
