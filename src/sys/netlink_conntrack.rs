//! The kernel's list of connections, by nfnetlink: finds those whose destination was rewritten, and has them forgotten.
//!
//! Rules rewrite the first packet of a connection only; those that follow go where the first one went. That is right as long
//! as its target is there.
//!
//! Reference: linux/netfilter/nfnetlink_conntrack.h.

use std::io;

use super::netlink::{ACK, DUMP, Netlink, Request, attributes, pad};

const SUBSYSTEM: u16 = 1;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;
/// `CTA_TUPLE_ORIG`: how the connection began.
const ORIGINAL: u16 = 1;
const STATUS: u16 = 3;
const ZONE: u16 = 18;
/// In a tuple: protocol and ports.
const PROTOCOL: u16 = 2;
const NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;
const NESTED: u16 = 0x8000;
const IPS_DST_NAT: u32 = 1 << 5;

/// Forgets the connections to a port that were rewritten to lead elsewhere; `family` is 2 for IPv4 or 10 for IPv6,
/// `protocol` the number in IP headers. The socket is one for nf_tables.
///
/// # Errors
/// The kernel's refusal, e.g. when it does not tell of connections.
pub fn forget(netlink: &mut Netlink, family: u8, protocol: u8, port: u16) -> io::Result<()> {
    let known = netlink.query(GET, DUMP, vec![family, 0, 0, 0])?;
    let gone: Vec<Request> = known
        .iter()
        .filter(|reply| leads_elsewhere(&reply.body, protocol, port))
        .filter_map(|reply| deletion(family, &reply.body))
        .collect();
    if !gone.is_empty() {
        // one that has ended by itself meanwhile is refused
        netlink.run(&gone)?;
    }
    Ok(())
}

fn find(body: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(body).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn leads_elsewhere(body: &[u8], protocol: u8, port: u16) -> bool {
    let look = || {
        let body = body.get(4..)?;
        let status = u32::from_be_bytes(find(body, STATUS)?.get(..4)?.try_into().ok()?);
        let ends = find(find(body, ORIGINAL)?, PROTOCOL)?;
        let same = find(ends, NUMBER)?.first() == Some(&protocol)
            && find(ends, DESTINATION_PORT)?.get(..2) == Some(&port.to_be_bytes());
        Some(same && status & IPS_DST_NAT != 0)
    };
    look().unwrap_or(false)
}

fn deletion(family: u8, known: &[u8]) -> Option<Request> {
    let mut body = vec![family, 0, 0, 0];
    let known = known.get(4..)?;
    for (kind, flags) in [(ORIGINAL, NESTED), (ZONE, 0)] {
        if let Some(value) = find(known, kind) {
            let length = u16::try_from(4 + value.len()).ok()?;
            body.extend_from_slice(&length.to_ne_bytes());
            body.extend_from_slice(&(kind | flags).to_ne_bytes());
            body.extend_from_slice(value);
            pad(&mut body);
        }
    }
    Some(Request { kind: DELETE, flags: ACK, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut out = (u16::try_from(4 + value.len()).unwrap()).to_ne_bytes().to_vec();
        out.extend(kind.to_ne_bytes());
        out.extend(value);
        pad(&mut out);
        out
    }

    #[test]
    fn connections_are_told_apart() {
        let connection = |protocol: u8, port: u16, status: u32| {
            let ends = [attribute(NUMBER, &[protocol]), attribute(DESTINATION_PORT, &port.to_be_bytes())];
            let tuple = attribute(PROTOCOL | NESTED, &ends.concat());
            let original = attribute(ORIGINAL | NESTED, &tuple);
            [vec![2, 0, 0, 0], original, attribute(STATUS, &status.to_be_bytes())].concat()
        };
        let known = connection(17, 53, IPS_DST_NAT | 8);
        assert!(leads_elsewhere(&known, 17, 53));
        for (protocol, port, status) in [(6, 53, IPS_DST_NAT), (17, 54, IPS_DST_NAT), (17, 53, 8)] {
            assert!(!leads_elsewhere(&connection(protocol, port, status), 17, 53));
        }
        let request = deletion(2, &known).unwrap();
        assert_eq!(find(&request.body[4..], ORIGINAL), find(&known[4..], ORIGINAL));
        assert!(!leads_elsewhere(&[2, 0, 0, 0, 9, 9], 17, 53));
    }
}
