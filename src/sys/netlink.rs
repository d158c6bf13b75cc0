//! Talks netlink: frames requests, sends many in one go, matches the kernel's answers to them.
//!
//! Knows no family: bodies are bytes. `netlink_route` fills them for links, addresses and routes, `netlink_nft` for
//! nf_tables. Sockets are blocking and short-lived; a socket stays in the network namespace it was opened in, from
//! whichever thread it is used later.
//!
//! References: netlink(7), linux/netlink.h.

use std::io;

use netlink_sys::{Socket, SocketAddr};

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// `NLMSG_ERROR`: an error, or an acknowledgement when its code is 0.
const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
const DONE: u16 = 3;
/// Answers come in pieces of at most 32 KiB (`NLMSG_GOODSIZE` of the kernel's dumps), in bytes.
const RECEIVE: usize = 64 << 10;

/// The request itself.
pub const REQUEST: u16 = 0x01;
/// Asks for an acknowledgement.
pub const ACK: u16 = 0x04;
/// Asks for all objects.
pub const DUMP: u16 = 0x300;
/// Makes the object when it is missing.
pub const CREATE: u16 = 0x400;
/// Fails when the object exists (with [`CREATE`]).
pub const EXCL: u16 = 0x200;
/// Adds at the end of the list (rules; with [`CREATE`]).
pub const APPEND: u16 = 0x800;

/// Which kernel subsystem a socket talks to.
#[derive(Clone, Copy, Debug)]
pub enum Protocol {
    /// Links, addresses, routes.
    Route = 0,
    /// Netfilter.
    Netfilter = 12,
}

/// One message to send.
#[derive(Clone, Debug)]
pub struct Request {
    /// The message type of the family.
    pub kind: u16,
    /// Flags beside [`REQUEST`].
    pub flags: u16,
    /// What follows the netlink header.
    pub body: Vec<u8>,
}

/// One object that the kernel sent back.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The message type of the family.
    pub kind: u16,
    /// What follows the netlink header.
    pub body: Vec<u8>,
}

/// A netlink socket.
pub struct Netlink {
    socket: Socket,
    /// The sequence number of the next message.
    next: u32,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's, e.g. when the subsystem is not built in.
    pub fn open(protocol: Protocol) -> io::Result<Self> {
        let mut socket = Socket::new(protocol as isize)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Refusals then carry no copy of the request but a text, where the kernel has one; old kernels ignore it.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        Ok(Self { socket, next: 1 })
    }

    /// Sends all requests in one packet and returns the kernel's verdict on each, in order.
    ///
    /// A refused request does not stop the ones after it (but see nf_tables, whose batches are all or nothing).
    /// Requests without [`ACK`] in their flags count as done unless the kernel complains.
    ///
    /// # Errors
    /// Only when the socket itself fails.
    pub fn run(&mut self, requests: &[Request]) -> io::Result<Vec<io::Result<()>>> {
        let first = self.send(requests)?;
        let mut verdicts: Vec<Option<io::Result<()>>> =
            requests.iter().map(|r| (r.flags & ACK == 0).then_some(Ok(()))).collect();
        let mut buffer = Vec::with_capacity(RECEIVE);
        while verdicts.iter().any(Option::is_none) {
            self.receive(&mut buffer, |sequence, kind, body| {
                let at = sequence.wrapping_sub(first) as usize;
                if kind != ERROR || at >= verdicts.len() {
                    return;
                }
                let verdict = verdict(body);
                // A batch that is refused as a whole is answered once, at its head: nothing else will come.
                if verdict.is_err() && requests[at].flags & ACK == 0 {
                    verdicts.iter_mut().for_each(|v| {
                        v.get_or_insert_with(|| verdict_again(&verdict));
                    });
                }
                verdicts[at] = Some(verdict);
            })?;
        }
        Ok(verdicts.into_iter().map(|v| v.expect("the loop ends when each has its verdict")).collect())
    }

    /// Sends one request and returns the objects it asked for: all of a [`DUMP`], else those before the verdict.
    ///
    /// # Errors
    /// The kernel's refusal (`ENOENT` and `ENODEV` for a missing object), or a failing socket.
    pub fn query(&mut self, kind: u16, flags: u16, body: Vec<u8>) -> io::Result<Vec<Reply>> {
        let dump = flags & DUMP == DUMP;
        let flags = if dump { flags } else { flags | ACK };
        let first = self.send(&[Request { kind, flags, body }])?;
        let mut replies = Vec::new();
        let mut end = None;
        let mut buffer = Vec::with_capacity(RECEIVE);
        while end.is_none() {
            self.receive(&mut buffer, |sequence, kind, body| match kind {
                _ if sequence != first => {}
                ERROR | DONE => end = Some(verdict(body)),
                _ => replies.push(Reply { kind, body: body.to_vec() }),
            })?;
        }
        end.unwrap_or(Ok(())).map(|()| replies)
    }

    /// Frames and sends the requests; returns the sequence number of the first.
    fn send(&mut self, requests: &[Request]) -> io::Result<u32> {
        let first = self.next;
        let mut packet = Vec::with_capacity(4096);
        for request in requests {
            let length =
                u32::try_from(HEADER + request.body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            packet.extend_from_slice(&length.to_ne_bytes());
            packet.extend_from_slice(&request.kind.to_ne_bytes());
            packet.extend_from_slice(&(request.flags | REQUEST).to_ne_bytes());
            packet.extend_from_slice(&self.next.to_ne_bytes());
            packet.extend_from_slice(&0_u32.to_ne_bytes());
            packet.extend_from_slice(&request.body);
            pad(&mut packet);
            self.next = self.next.wrapping_add(1);
        }
        self.socket.send(&packet, 0)?;
        Ok(first)
    }

    /// Receives one packet and calls `each` with sequence number, type and body of its messages.
    fn receive(&self, buffer: &mut Vec<u8>, mut each: impl FnMut(u32, u16, &[u8])) -> io::Result<()> {
        buffer.clear();
        loop {
            match self.socket.recv(buffer, 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
                Ok(n) if n > buffer.len() => return Err(io::Error::other("a netlink answer is too long")),
                Ok(_) => break,
            }
        }
        let mut rest = buffer.as_slice();
        while let Some((length, kind, sequence)) = header(rest) {
            each(sequence, kind, &rest[HEADER..length]);
            rest = rest.get(aligned(length)..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Length, type and sequence number of the message at the start of `bytes`, if a whole one is there.
fn header(bytes: &[u8]) -> Option<(usize, u16, u32)> {
    let length = u32_at(bytes, 0)? as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let sequence = u32_at(bytes, 8)?;
    (length >= HEADER && length <= bytes.len()).then_some((length, kind, sequence))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Reads the code of an `NLMSG_ERROR` or `NLMSG_DONE`: 0, or a negative errno.
fn verdict(body: &[u8]) -> io::Result<()> {
    match u32_at(body, 0).unwrap_or(0) as i32 {
        code if code < 0 => Err(io::Error::from_raw_os_error(-code)),
        _ => Ok(()),
    }
}

fn verdict_again(verdict: &io::Result<()>) -> io::Result<()> {
    match verdict {
        Err(e) => Err(e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error)),
        Ok(()) => Ok(()),
    }
}

/// Rounds up to the alignment of messages and attributes, 4 bytes.
#[must_use]
pub fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Pads with zeros to the alignment of messages and attributes.
pub(super) fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(aligned(bytes.len()), 0);
}

/// Walks the attributes in `bytes`: type (flag bits removed) and value of each; ends at the first broken one.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn verdicts() {
        assert!(verdict(&0_i32.to_ne_bytes()).is_ok());
        assert_eq!(verdict(&(-17_i32).to_ne_bytes()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(verdict(&[]).is_ok());
    }

    #[test]
    fn a_missing_link_is_refused_and_the_loopback_found() {
        let mut route = Netlink::open(Protocol::Route).unwrap();
        let get = |index: i32| {
            let mut body = vec![0; 16];
            body[4..8].copy_from_slice(&index.to_ne_bytes());
            body
        };
        // RTM_GETLINK = 18, RTM_NEWLINK = 16
        let found = route.query(18, 0, get(1)).unwrap();
        assert_eq!((found.len(), found[0].kind), (1, 16));
        assert_eq!(route.query(18, 0, get(i32::MAX)).unwrap_err().raw_os_error(), Some(19));
        assert!(
            route.query(18, DUMP, get(0)).unwrap().iter().any(|r| r.body == found[0].body || r.kind == 16)
        );
        let verdicts = route
            .run(&[
                Request { kind: 18, flags: ACK, body: get(i32::MAX) },
                Request { kind: 18, flags: ACK, body: get(1) },
            ])
            .unwrap();
        assert!(verdicts[0].is_err() && verdicts[1].is_ok());
    }

    proptest! {
        #[test]
        fn broken_attributes_end_the_walk(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let total: usize = attributes(&bytes).map(|(_, v)| v.len() + 4).sum();
            prop_assert!(total <= bytes.len());
        }
    }
}
