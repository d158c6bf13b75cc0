//! The name server of one container, at 127.0.0.11 in its network as docker has it.
//!
//! It answers names of containers itself and asks the host's servers for all others, from the host's network, so that a
//! server on the host's loopback serves too. It listens on a free port, to which packets for port 53 of that address are
//! rewritten inside the container's network: so a container can have a name server of its own on all addresses.
//! UDP questions are answered on one thread; each question that has to be asked elsewhere waits on a thread of its own, up
//! to a limit.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    message::{Failure, Kind, Question, refuse},
    names::{Found, Names},
};
use crate::{
    network::netns::inside,
    sys::netlink_nft::{self as nft, Batch, Expr, Family, Hook},
};

/// Where a container finds it.
pub(in crate::network) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;
/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a client may say nothing on a connection.
const IDLE: Duration = Duration::from_secs(10);
/// So many questions may wait for other servers, or connections be open, at the same time.
const MOST: usize = 64;
/// Enough for a resolver's calls, in bytes.
const STACK: usize = 96 << 10;
/// The longest datagram that DNS has with its extensions, in bytes.
const LONGEST: usize = 65535;

/// The sockets in the container's network.
pub(super) struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Makes them, and the rewriting of packets; where that is not to be had, takes port 53 itself.
    pub(super) fn open(netns: BorrowedFd<'_>) -> io::Result<Self> {
        inside(netns, || {
            let free = bind(0)?;
            let port = free.udp.local_addr()?.port();
            match redirect(port, free.tcp.local_addr()?.port()) {
                Ok(()) => Ok(free),
                Err(_) => bind(PORT),
            }
        })?
    }
}

fn bind(port: u16) -> io::Result<Sockets> {
    Ok(Sockets { udp: UdpSocket::bind((ADDRESS, port))?, tcp: TcpListener::bind((ADDRESS, port))? })
}

/// Rewrites the port of packets to the resolver, in the network namespace of the calling thread.
fn redirect(udp: u16, tcp: u16) -> io::Result<()> {
    const TABLE: &str = "rbuild-dns";
    const DESTINATION_NAT: i32 = -100;
    let mut netlink = nft::open()?;
    let mut batch = Batch::new();
    batch.table(Family::Inet, TABLE, "names of containers");
    batch.delete_table(Family::Inet, TABLE);
    batch.table(Family::Inet, TABLE, "names of containers");
    batch.chain(Family::Inet, TABLE, "output", "nat", Hook::Output, DESTINATION_NAT);
    for (protocol, port) in [(17, udp), (6, tcp)] {
        let rule = [
            Expr::IsIpv4,
            Expr::DestinationIs(ADDRESS.into()),
            Expr::Protocol(protocol),
            Expr::DestinationPort(PORT),
            Expr::RedirectTo(ADDRESS.into(), port),
        ];
        batch.append_rule(Family::Inet, TABLE, "output", &rule);
    }
    batch.commit(&mut netlink)
}

/// What every thread needs.
struct Shared {
    names: Names,
    /// Whom to ask what is not a container's.
    servers: Vec<IpAddr>,
    /// Threads at work.
    busy: AtomicUsize,
}

/// Answers on threads of its own, in the network namespace of the caller, until the process ends.
pub(super) fn serve(sockets: Sockets, names: Names, servers: Vec<IpAddr>) -> io::Result<()> {
    let shared = Arc::new(Shared { names, servers, busy: AtomicUsize::new(0) });
    let Sockets { udp, tcp } = sockets;
    let udp = Arc::new(udp);
    let for_tcp = Arc::clone(&shared);
    let spawn = |name: &str| thread::Builder::new().name(name.into()).stack_size(STACK);
    spawn("dns udp").spawn(move || datagrams(&udp, &shared))?;
    spawn("dns tcp").spawn(move || {
        for stream in tcp.incoming() {
            match stream {
                Ok(stream) => {
                    let shared = Arc::clone(&for_tcp);
                    for_tcp.start(move || {
                        // a client that breaks off has its answer
                        let _ = connection(stream, &shared);
                    });
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    })?;
    Ok(())
}

impl Shared {
    /// Runs something on a thread of its own; false when too much is going on.
    fn start(self: &Arc<Self>, work: impl FnOnce() + Send + 'static) -> bool {
        if self.busy.fetch_add(1, Ordering::Relaxed) >= MOST {
            self.busy.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let shared = Arc::clone(self);
        let spawned = thread::Builder::new().name("dns".into()).stack_size(STACK).spawn(move || {
            work();
            shared.busy.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            self.busy.fetch_sub(1, Ordering::Relaxed);
        }
        spawned.is_ok()
    }

    /// Answers what containers' names are enough for.
    fn own_answer(&self, query: &[u8], question: &Question, short: bool) -> Option<Vec<u8>> {
        let unknown = |found: Found| match found {
            Found::Nowhere => Some(question.fail(query, Failure::Server)),
            Found::Elsewhere | Found::Here(_) => None,
        };
        if let Some(ip) = question.address().filter(|_| question.kind == Kind::Ptr) {
            return match self.names.name(ip) {
                Ok(name) => Some(question.pointer(query, &name)),
                Err(found) => unknown(found),
            };
        }
        match self.names.addresses(&question.name) {
            Found::Here(mut ips) => {
                shuffle(&mut ips);
                Some(question.addresses(query, &ips, short))
            }
            found => unknown(found),
        }
    }

    /// Asks the other servers, one after the other.
    fn elsewhere(&self, query: &[u8], ask: fn(IpAddr, &[u8]) -> io::Result<Vec<u8>>) -> Option<Vec<u8>> {
        self.servers.iter().find_map(|server| ask(*server, query).ok())
    }
}

/// Containers with the same alias share the load.
fn shuffle(ips: &mut [IpAddr]) {
    let mut dice = [0_u8; 8];
    if ips.len() > 1 && rustix::rand::getrandom(&mut dice, rustix::rand::GetRandomFlags::empty()).is_ok() {
        let first = (u64::from_ne_bytes(dice) % ips.len() as u64) as usize;
        ips.rotate_left(first);
    }
}

fn datagrams(udp: &Arc<UdpSocket>, shared: &Arc<Shared>) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((length, from)) = udp.recv_from(&mut buffer) else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let query = &buffer[..length];
        let Some(question) = Question::read(query) else {
            if let Some(answer) = refuse(query) {
                let _ = udp.send_to(&answer, from);
            }
            continue;
        };
        if let Some(answer) = shared.own_answer(query, &question, true) {
            let _ = udp.send_to(&answer, from);
            continue;
        }
        let (query, socket, asker) = (query.to_vec(), Arc::clone(udp), Arc::clone(shared));
        let failed = question.fail(&query, Failure::Server);
        let late = failed.clone();
        let started = shared.start(move || {
            let answer = asker.elsewhere(&query, ask_udp).unwrap_or(late);
            let _ = socket.send_to(&answer, from);
        });
        if !started {
            let _ = udp.send_to(&failed, from);
        }
    }
}

/// Serves one client's connection: messages with their length before them.
fn connection(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    loop {
        let query = read_message(&mut stream)?;
        let answer = match Question::read(&query) {
            None => refuse(&query).ok_or(io::ErrorKind::InvalidData)?,
            Some(question) => shared
                .own_answer(&query, &question, false)
                .or_else(|| shared.elsewhere(&query, ask_tcp))
                .unwrap_or_else(|| question.fail(&query, Failure::Server)),
        };
        write_message(&mut stream, &answer)?;
    }
}

fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat())
}

fn ask_udp(server: IpAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect((server, PORT))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(query)?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer)?;
        // an answer to something else is a late or a forged one
        if length >= 2 && buffer[..2] == query[..2] {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

fn ask_tcp(server: IpAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&(server, PORT).into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write_message(&mut stream, query)?;
    read_message(&mut stream)
}
