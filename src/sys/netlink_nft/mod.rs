//! nf_tables by nfnetlink: just the tables, chains and rules a NAT bridge needs, without `nft` or libnftables.
//!
//! A [`Batch`] collects changes that the kernel applies all or none. Rules are lists of [`Expr`].
//!
//! References: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h.

mod expr;

use std::{ffi::CStr, io};

use super::netlink::{ACK, APPEND, CREATE, DUMP, EXCL, Netlink, Protocol, Request, aligned, attributes, pad};

pub use expr::Expr;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NESTED: u16 = 0x8000;

/// `NFT_MSG_*`.
#[derive(Clone, Copy)]
enum Message {
    NewTable = 0,
    GetTable = 1,
    DelTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
}

impl Message {
    const fn kind(self) -> u16 {
        (SUBSYSTEM << 8) | self as u16
    }
}

/// The protocol family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// All families, when listing.
    Any = 0,
    /// IPv4 and IPv6.
    Inet = 1,
    /// IPv4.
    Ip = 2,
    /// IPv6; only as a fact about packets.
    Ip6 = 10,
}

/// Where a base chain sees packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets that have just come in.
    Prerouting = 0,
    /// Packets of the host's own programs.
    Output = 3,
    /// Packets on their way through the host.
    Forward = 2,
    /// Packets about to leave.
    Postrouting = 4,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Dropped without an answer.
    Drop = 0,
    /// Goes on, past the rest of this chain.
    Accept = 1,
}

/// Changes that are applied together or not at all.
pub struct Batch {
    requests: Vec<Request>,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// Begins an empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self { requests: vec![bracket(BATCH_BEGIN)] }
    }

    /// Makes a table unless it exists; `comment` is kept with it (kernel 5.10) and read back by [`table_comment`].
    pub fn table(&mut self, family: Family, name: &str, comment: &str) {
        let mut body = Body::new(family);
        body.text(1, name);
        body.bytes(6, &user_comment(comment));
        self.push(Message::NewTable, CREATE, body);
    }

    /// Makes a table that lives as long as the socket by which the batch is sent, and that others cannot change; so
    /// it goes with the process. Kernels before 5.12 refuse.
    pub fn owned_table(&mut self, family: Family, name: &str, comment: &str) {
        const OWNER: u32 = 2;
        let mut body = Body::new(family);
        body.text(1, name);
        body.number(2, OWNER);
        body.bytes(6, &user_comment(comment));
        self.push(Message::NewTable, CREATE | EXCL, body);
    }

    /// Deletes a table and all in it; refused when it does not exist.
    pub fn delete_table(&mut self, family: Family, name: &str) {
        let mut body = Body::new(family);
        body.text(1, name);
        self.push(Message::DelTable, 0, body);
    }

    /// Makes a base chain that accepts by default. `kind` is `filter` or `nat`; smaller priorities come first.
    pub fn chain(&mut self, family: Family, table: &str, name: &str, kind: &str, hook: Hook, priority: i32) {
        let mut body = Body::new(family);
        body.text(1, table);
        body.text(3, name);
        body.nest(4, |body| {
            body.number(1, hook as u32);
            body.bytes(2, &priority.to_be_bytes());
        });
        body.number(5, Verdict::Accept as u32);
        body.text(7, kind);
        self.push(Message::NewChain, CREATE, body);
    }

    /// Adds a rule at the end of a chain.
    pub fn append_rule(&mut self, family: Family, table: &str, chain: &str, rule: &[Expr]) {
        self.push(Message::NewRule, CREATE | APPEND, rule_body(family, table, chain, "", rule));
    }

    /// Adds a rule at the head of a chain, marked with a comment to be found by [`has_rule`].
    pub fn insert_rule(&mut self, family: Family, table: &str, chain: &str, comment: &str, rule: &[Expr]) {
        self.push(Message::NewRule, CREATE, rule_body(family, table, chain, comment, rule));
    }

    fn push(&mut self, message: Message, flags: u16, body: Body) {
        self.requests.push(Request { kind: message.kind(), flags: flags | ACK, body: body.bytes });
    }

    /// Applies the batch.
    ///
    /// # Errors
    /// The kernel's first complaint; nothing is changed then.
    pub fn commit(mut self, netlink: &mut Netlink) -> io::Result<()> {
        self.requests.push(bracket(BATCH_END));
        netlink.run(&self.requests)?.into_iter().collect()
    }
}

/// Opens a socket for nf_tables in the network namespace of the calling thread.
///
/// # Errors
/// The kernel's, e.g. when it has no netfilter.
pub fn open() -> io::Result<Netlink> {
    Netlink::open(Protocol::Netfilter)
}

/// Reads the comment of a table; `None` if there is no such table or it has none.
///
/// # Errors
/// The kernel's refusal.
pub fn table_comment(netlink: &mut Netlink, family: Family, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut body = Body::new(family);
    body.text(1, name);
    match netlink.query(Message::GetTable.kind(), 0, body.bytes) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
        Ok(replies) => Ok(replies.first().and_then(|r| comment_in(&r.body, 6))),
    }
}

/// Lists the names of the tables of a family.
///
/// # Errors
/// The kernel's refusal.
pub fn tables(netlink: &mut Netlink, family: Family) -> io::Result<Vec<String>> {
    let replies = netlink.query(Message::GetTable.kind(), DUMP, Body::new(family).bytes)?;
    let name = |body: &[u8]| attributes(body.get(4..)?).find(|a| a.0 == 1).and_then(|a| text_in(a.1));
    Ok(replies.iter().filter_map(|r| name(&r.body)).collect())
}

/// Whether a chain has a rule with this comment.
///
/// # Errors
/// The kernel's refusal.
pub fn has_rule(
    netlink: &mut Netlink,
    family: Family,
    table: &str,
    chain: &str,
    comment: &str,
) -> io::Result<bool> {
    let mut body = Body::new(family);
    body.text(1, table);
    body.text(2, chain);
    let replies = netlink.query(Message::GetRule.kind(), DUMP, body.bytes)?;
    Ok(replies.iter().any(|r| comment_in(&r.body, 7).as_deref() == Some(comment.as_bytes())))
}

/// Whether a rule of a table compares something with a text, such as the name of an interface or its beginning.
///
/// # Errors
/// The kernel's refusal.
pub fn mentions(netlink: &mut Netlink, family: Family, table: &str, text: &str) -> io::Result<bool> {
    let mut body = Body::new(family);
    body.text(1, table);
    let replies = netlink.query(Message::GetRule.kind(), DUMP, body.bytes)?;
    let has = |body: &[u8]| body.windows(text.len().max(1)).any(|window| window == text.as_bytes());
    Ok(replies.iter().any(|reply| has(&reply.body)))
}

/// A base chain that drops what none of its rules accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropChain {
    /// Whether it is the IPv4 family (else inet or another).
    pub ip: bool,
    /// The table's name.
    pub table: String,
    /// The chain's name.
    pub chain: String,
}

/// Lists the chains at `hook` whose policy is drop, IPv4 and inet families.
///
/// # Errors
/// The kernel's refusal.
pub fn drop_chains(netlink: &mut Netlink, hook: Hook) -> io::Result<Vec<DropChain>> {
    let replies = netlink.query(Message::GetChain.kind(), DUMP, Body::new(Family::Any).bytes)?;
    Ok(replies.iter().filter_map(|r| drop_chain(&r.body, hook)).collect())
}

fn drop_chain(body: &[u8], hook: Hook) -> Option<DropChain> {
    let family = *body.first()?;
    let (mut table, mut chain, mut at, mut policy) = (None, None, None, None);
    for (kind, value) in attributes(body.get(4..)?) {
        match kind {
            1 => table = text_in(value),
            3 => chain = text_in(value),
            4 => at = attributes(value).find(|a| a.0 == 1).and_then(|a| number_in(a.1)),
            5 => policy = number_in(value),
            _ => {}
        }
    }
    let ours = family == Family::Ip as u8 || family == Family::Inet as u8;
    (ours && at == Some(hook as u32) && policy == Some(Verdict::Drop as u32)).then_some(DropChain {
        ip: family == Family::Ip as u8,
        table: table?,
        chain: chain?,
    })
}

fn number_in(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}

fn text_in(value: &[u8]) -> Option<String> {
    Some(CStr::from_bytes_until_nul(value).ok()?.to_string_lossy().into_owned())
}

/// Finds the comment in the user data attribute `at` of an object.
fn comment_in(body: &[u8], at: u16) -> Option<Vec<u8>> {
    let data = attributes(body.get(4..)?).find(|a| a.0 == at)?.1;
    // Type 0 is the comment, both of tables and of rules; rbuild writes nothing else.
    let (0, length) = (*data.first()?, usize::from(*data.get(1)?)) else { return None };
    Some(CStr::from_bytes_until_nul(data.get(2..2 + length)?).ok()?.to_bytes().to_vec())
}

/// A comment as user space tools keep it: type 0, length, text with its final zero.
fn user_comment(comment: &str) -> Vec<u8> {
    let text = &comment.as_bytes()[..comment.len().min(120)];
    let mut data = vec![0, text.len() as u8 + 1];
    data.extend_from_slice(text);
    data.push(0);
    data
}

/// The message that begins or ends a batch.
fn bracket(kind: u16) -> Request {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    Request { kind, flags: 0, body: vec![0, 0, high, low] }
}

fn rule_body(family: Family, table: &str, chain: &str, comment: &str, rule: &[Expr]) -> Body {
    let mut body = Body::new(family);
    body.text(1, table);
    body.text(2, chain);
    body.nest(4, |list| rule.iter().for_each(|expr| expr.write(list)));
    if !comment.is_empty() {
        body.bytes(7, &user_comment(comment));
    }
    body
}

/// A message body in the making: `struct nfgenmsg`, then attributes.
struct Body {
    bytes: Vec<u8>,
}

impl Body {
    fn new(family: Family) -> Self {
        Self { bytes: vec![family as u8, 0, 0, 0] }
    }

    fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("attributes made here are short");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        pad(&mut self.bytes);
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes(kind | NESTED, &[]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("attributes made here are short");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        debug_assert_eq!(self.bytes.len(), aligned(self.bytes.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_come_back() {
        let mut body = Body::new(Family::Inet);
        body.text(1, "t");
        body.bytes(6, &user_comment("rbuild 1"));
        assert_eq!(comment_in(&body.bytes, 6).as_deref(), Some(&b"rbuild 1"[..]));
        assert_eq!(comment_in(&body.bytes, 7), None);
        assert_eq!(comment_in(&[1, 0, 0, 0, 6, 0, 6, 0, 0, 9], 6), None);
    }

    #[test]
    fn nested_lengths_cover_their_content() {
        let mut body = Body::new(Family::Inet);
        body.nest(4, |list| Expr::Established.write(list));
        let (kind, list) = attributes(&body.bytes[4..]).next().unwrap();
        assert_eq!((kind, list.len() + 8), (4, body.bytes.len()));
        let names: Vec<_> =
            attributes(list).map(|(_, e)| attributes(e).next().and_then(|a| text_in(a.1))).collect();
        assert_eq!(names, ["ct", "bitwise", "cmp"].map(|n| Some(n.to_owned())));
    }

    #[test]
    fn drop_chains_are_recognised() {
        let chain = |hook: u32, policy: u32| {
            let mut body = Body::new(Family::Ip);
            body.text(1, "filter");
            body.text(3, "FORWARD");
            body.nest(4, |h| h.number(1, hook));
            body.number(5, policy);
            drop_chain(&body.bytes, Hook::Forward)
        };
        let found = DropChain { ip: true, table: "filter".into(), chain: "FORWARD".into() };
        assert_eq!(chain(2, 0), Some(found));
        assert_eq!(chain(2, 1), None);
        assert_eq!(chain(3, 0), None);
    }
}
