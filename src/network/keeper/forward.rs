//! Passes connections on from ports of the host to a container: TCP streams, both directions, half-closed ones too.
//!
//! One loop and one thread for all connections; a connection that stands still costs two descriptors and no buffer. The
//! loop runs in the network namespace from which the container is reached, while its listening sockets were made in the
//! host's, where they keep working.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::datagram::{Datagrams, UdpListener};

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// How often one connection is read before the next gets its turn.
const TURNS: usize = 8;

/// A port of the host and where it leads.
pub(super) enum Source {
    Tcp { listener: TcpListener, to: SocketAddr },
    Udp { listener: UdpListener, to: SocketAddr },
}

/// What an event is about; becomes the number that the kernel keeps with a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The order to end.
    End,
    /// A listening socket.
    Source(u64),
    /// The side of a pair that came to us.
    Client(u64),
    /// The side that leads to the container.
    Server(u64),
    /// A conversation of datagrams.
    Flow(u64),
}

impl Token {
    fn number(self) -> u64 {
        match self {
            Self::End => 0,
            Self::Source(n) => n << 3 | 1,
            Self::Client(n) => n << 3 | 2,
            Self::Server(n) => n << 3 | 3,
            Self::Flow(n) => n << 3 | 4,
        }
    }

    fn of(number: u64) -> Self {
        let n = number >> 3;
        match number & 7 {
            1 => Self::Source(n),
            2 => Self::Client(n),
            3 => Self::Server(n),
            4 => Self::Flow(n),
            _ => Self::End,
        }
    }
}

/// The kernel's list of what to wait for.
pub(super) struct Watch {
    epoll: OwnedFd,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    pub(super) fn add(&self, fd: impl AsFd, token: Token, what: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token.number()), what)?)
    }

    fn change(&self, fd: impl AsFd, token: Token, what: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token.number()), what)?)
    }

    fn remove(&self, fd: impl AsFd) {
        // closing does it as well
        let _ = epoll::delete(&self.epoll, fd);
    }

    fn wait(&self, patience: Option<Duration>) -> io::Result<Vec<(Token, EventFlags)>> {
        let timeout = patience.map(rustix::time::Timespec::try_from).transpose().map_err(io::Error::other)?;
        let mut events = Vec::with_capacity(64);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(events.iter().map(|event| (Token::of(event.data.u64()), event.flags)).collect())
    }
}

/// Passes everything on until `end` can be read or is closed on its other side.
pub(super) fn serve(end: BorrowedFd<'_>, sources: Vec<Source>) -> io::Result<()> {
    let watch = Watch::new()?;
    watch.add(end, Token::End, EventFlags::IN)?;
    for (n, source) in sources.iter().enumerate() {
        let fd = match source {
            Source::Tcp { listener, .. } => {
                listener.set_nonblocking(true)?;
                listener.as_fd()
            }
            Source::Udp { listener, .. } => listener.as_fd(),
        };
        watch.add(fd, Token::Source(n as u64), EventFlags::IN)?;
    }
    let mut streams = Streams { pairs: HashMap::new(), next: 0, buffer: vec![0; CHUNK] };
    let mut datagrams = Datagrams::default();
    loop {
        for (token, flags) in watch.wait(datagrams.patience())? {
            match token {
                Token::End => return Ok(()),
                Token::Source(n) => match sources.get(n as usize) {
                    Some(Source::Tcp { listener, to }) => streams.accept(&watch, listener, *to),
                    Some(Source::Udp { listener, to }) => {
                        datagrams.client_spoke(&watch, n as usize, listener, *to, &mut streams.buffer);
                    }
                    None => {}
                },
                Token::Client(n) => streams.event(&watch, n, 0, flags),
                Token::Server(n) => streams.event(&watch, n, 1, flags),
                Token::Flow(n) => datagrams.server_spoke(n, &sources, &mut streams.buffer),
            }
        }
        datagrams.forget_old_ones();
    }
}

/// All connections.
struct Streams {
    pairs: HashMap<u64, Pair>,
    next: u64,
    buffer: Vec<u8>,
}

/// A client's connection and the one to the container.
struct Pair {
    sides: [Side; 2],
    /// The connection to the container is not there yet; the client is not read so long.
    connecting: bool,
}

struct Side {
    stream: TcpStream,
    /// What came from the other side and could not be written yet.
    waiting: Vec<u8>,
    /// Whether more may come from here.
    reads: bool,
    /// Whether more may go there.
    writes: bool,
    /// What the kernel was asked to tell; `None` when it was asked to forget.
    asked: Option<EventFlags>,
}

impl Side {
    fn new(stream: TcpStream) -> Self {
        Self { stream, waiting: Vec::new(), reads: true, writes: true, asked: None }
    }
}

impl Streams {
    fn accept(&mut self, watch: &Watch, listener: &TcpListener, to: SocketAddr) {
        for _ in 0..TURNS {
            match listener.accept() {
                Ok((client, _)) => {
                    if let Ok(pair) = Pair::open(client, to) {
                        let n = self.next;
                        self.next += 1;
                        self.pairs.insert(n, pair);
                        self.event(watch, n, 1, EventFlags::empty());
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.raw_os_error(), Some(nix::libc::EMFILE | nix::libc::ENFILE)) => {
                    // until a connection ends; the listener would report it again at once
                    std::thread::sleep(Duration::from_millis(20));
                    return;
                }
                // the client went before it was accepted
                Err(_) => {}
            }
        }
    }

    fn event(&mut self, watch: &Watch, n: u64, side: usize, flags: EventFlags) {
        let Some(pair) = self.pairs.get_mut(&n) else { return };
        let alive = pair.go_on(side, flags, &mut self.buffer);
        let asked = alive.and_then(|alive| if alive { pair.ask(watch, n).map(|()| true) } else { Ok(false) });
        if !matches!(asked, Ok(true)) {
            self.pairs.remove(&n);
        }
    }
}

impl Pair {
    fn open(client: TcpStream, to: SocketAddr) -> io::Result<Self> {
        use rustix::net::{SocketFlags, SocketType, connect, socket_with};
        client.set_nonblocking(true)?;
        let _ = client.set_nodelay(true);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let family =
            if to.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 };
        let server = socket_with(family, SocketType::STREAM, flags, None)?;
        let connecting = match connect(&server, &to) {
            Ok(()) => false,
            Err(rustix::io::Errno::INPROGRESS) => true,
            Err(e) => return Err(e.into()),
        };
        let server = TcpStream::from(server);
        let _ = server.set_nodelay(true);
        Ok(Self { sides: [Side::new(client), Side::new(server)], connecting })
    }

    /// Does what can be done now; false when all is said.
    fn go_on(&mut self, side: usize, flags: EventFlags, buffer: &mut [u8]) -> io::Result<bool> {
        if self.connecting {
            if side != 1 || !flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP) {
                // a client that has gone meanwhile is noticed when there is somebody to tell
                return Ok(true);
            }
            if let Some(error) = self.sides[1].stream.take_error()? {
                return Err(error);
            }
            self.connecting = false;
        }
        for from in [0, 1] {
            self.pump(from, buffer)?;
        }
        let open = self.sides.iter().any(|side| side.reads || !side.waiting.is_empty());
        Ok(open)
    }

    /// Carries bytes from one side to the other as long as both go on.
    fn pump(&mut self, from: usize, buffer: &mut [u8]) -> io::Result<()> {
        let [first, second] = &mut self.sides;
        let (from, to) = if from == 0 { (first, second) } else { (second, first) };
        for _ in 0..TURNS {
            if !to.waiting.is_empty() {
                let done = write_some(&to.stream, &to.waiting)?;
                to.waiting.drain(..done);
                if !to.waiting.is_empty() {
                    return Ok(());
                }
                to.waiting.shrink_to(0);
            }
            if !from.reads {
                break;
            }
            match (&from.stream).read(buffer) {
                Ok(0) => from.reads = false,
                Ok(n) => {
                    let done = write_some(&to.stream, &buffer[..n])?;
                    to.waiting.extend_from_slice(&buffer[done..n]);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if !from.reads && to.writes && to.waiting.is_empty() {
            to.writes = false;
            // the other side may be gone altogether
            let _ = to.stream.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    /// Asks the kernel for what can make a difference next.
    fn ask(&mut self, watch: &Watch, n: u64) -> io::Result<()> {
        for side in 0..2 {
            let token = if side == 0 { Token::Client(n) } else { Token::Server(n) };
            let room = self.sides[1 - side].waiting.is_empty();
            let this = &mut self.sides[side];
            let mut wanted = EventFlags::empty();
            if self.connecting {
                wanted.set(EventFlags::OUT, side == 1);
            } else {
                wanted.set(EventFlags::IN, this.reads && room);
                wanted.set(EventFlags::OUT, !this.waiting.is_empty());
            }
            // a side that has said and heard all would report nothing but that, again and again
            let over = !this.reads && !this.writes;
            match this.asked {
                None if over => {}
                None => watch.add(&this.stream, token, wanted)?,
                Some(_) if over => watch.remove(&this.stream),
                Some(asked) if asked != wanted => watch.change(&this.stream, token, wanted)?,
                Some(_) => {}
            }
            this.asked = (!over).then_some(wanted);
        }
        Ok(())
    }
}

fn write_some(mut to: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match to.write(&bytes[done..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::UdpSocket, thread};

    /// Runs `test` with the address of a forwarder to `to`.
    fn with_forwarder(source: Source, at: SocketAddr, test: impl FnOnce(SocketAddr)) {
        let (end, order) = rustix::pipe::pipe().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| serve(end.as_fd(), vec![source]).unwrap());
            test(at);
            drop(order);
        });
    }

    #[test]
    fn tokens_are_told_apart() {
        for token in [Token::End, Token::Source(0), Token::Client(7), Token::Server(1 << 40), Token::Flow(3)]
        {
            assert_eq!(Token::of(token.number()), token);
        }
    }

    #[test]
    fn streams_are_carried_both_ways_and_half_closed() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (to, at) = (server.local_addr().unwrap(), listener.local_addr().unwrap());
        with_forwarder(Source::Tcp { listener, to }, at, |at| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let (mut peer, _) = server.accept().unwrap();
                        scope.spawn(move || {
                            // answers only when the question has ended
                            let mut all = Vec::new();
                            peer.read_to_end(&mut all).unwrap();
                            all.reverse();
                            peer.write_all(&all).unwrap();
                        });
                    }
                });
                for n in 0..20_u8 {
                    scope.spawn(move || {
                        let mut client = TcpStream::connect(at).unwrap();
                        let said: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8 ^ n).collect();
                        client.write_all(&said).unwrap();
                        client.shutdown(Shutdown::Write).unwrap();
                        let mut heard = Vec::new();
                        client.read_to_end(&mut heard).unwrap();
                        heard.reverse();
                        assert!(heard == said);
                    });
                }
            });
        });
    }

    #[test]
    fn a_closed_port_closes_the_connection() {
        let to = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        with_forwarder(Source::Tcp { listener, to }, at, |at| {
            let mut client = TcpStream::connect(at).unwrap();
            assert!(matches!(client.read(&mut [0; 8]), Ok(0) | Err(_)));
        });
    }

    #[test]
    fn datagrams_find_their_way_back() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        let listener = UdpListener::bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = [0; 100];
                for _ in 0..4 {
                    let (n, from) = server.recv_from(&mut buffer).unwrap();
                    server.send_to(&buffer[..n], from).unwrap();
                }
            });
            with_forwarder(Source::Udp { listener, to }, at, |at| {
                // connected sockets hear only the address that they spoke to
                let second = SocketAddr::from(([127, 0, 0, 9], at.port()));
                for (word, at) in [("one", at), ("two", second)] {
                    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
                    client.connect(at).unwrap();
                    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                    for _ in 0..2 {
                        client.send(word.as_bytes()).unwrap();
                        let mut buffer = [0; 100];
                        let n = client.recv(&mut buffer).unwrap();
                        assert_eq!(&buffer[..n], word.as_bytes());
                    }
                }
            });
        });
    }
}
