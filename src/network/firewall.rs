//! The host's packet rules for the bridge: NAT on the way out, nothing uninvited on the way in.
//!
//! All rules live in a table of rbuild's own, replaced as a whole when its comment is not the expected one. Another
//! table that drops forwarded packets cannot be overruled from there, as nf_tables asks every table. The most usual
//! one, iptables' `filter` table with the policy that the docker engine gives it, gets two accept rules of ours; of
//! others, and of firewalld, the user is told.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::{NetworkError, bridge::BRIDGE, definition::BRIDGES, subnet::Subnet};
use crate::sys::{
    netlink::Netlink,
    netlink_nft::{self as nft, Batch, DropChain, Expr, Family, Hook, Verdict},
};

/// The table's name.
const TABLE: &str = "rbuild";
/// Counts up when the rules change, so that a newer rbuild replaces the table of an older one.
const VERSION: u32 = 1;
/// `NF_IP_PRI_NAT_SRC`.
const SOURCE_NAT: i32 = 100;
/// The switch that lets the host pass packets on.
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Makes sure that packets of `subnet` get out and their answers in; returns warnings for the user.
pub(super) fn ensure(subnet: Subnet) -> Result<Vec<String>, NetworkError> {
    enable_forwarding().map_err(NetworkError::setup("turn on IPv4 forwarding (net.ipv4.ip_forward)"))?;
    let failed = || NetworkError::setup("set up NAT with nf_tables");
    let mut netlink = nft::open().map_err(failed())?;
    let comment = format!("rbuild {VERSION} {BRIDGE} {subnet}");
    let present = nft::table_comment(&mut netlink, Family::Inet, TABLE).map_err(failed())?;
    if present.as_deref() != Some(comment.as_bytes()) {
        table(subnet, &comment).commit(&mut netlink).map_err(failed())?;
    }
    // Listing can be refused where making our table was not; NAT works, so that is no failure.
    Ok(ways_blocked(&mut netlink, BRIDGE))
}

/// What the rules for a network of the user's making depend on.
pub(super) struct Walls<'a> {
    pub(super) bridge: &'a str,
    pub(super) v4: Option<(Ipv4Addr, u8)>,
    pub(super) v6: Option<(Ipv6Addr, u8)>,
    /// Nothing gets out or in.
    pub(super) internal: bool,
    /// What leaves carries the host's address.
    pub(super) masquerade: bool,
    /// Whether the bridge is rbuild's and goes when nobody is on it.
    pub(super) made: bool,
}

/// What the names of the tables of user networks begin with; the bridge's name follows.
pub(super) const NETWORK_TABLES: &str = "rbuild-n-";

/// How the comment of a table begins whose bridge is not rbuild's.
pub(super) const FOREIGN: &str = "foreign";

impl Walls<'_> {
    /// Makes the rules unless they are there; returns warnings for the user.
    pub(super) fn ensure(&self) -> Result<Vec<String>, NetworkError> {
        let failed = || NetworkError::setup(format!("set up the packet rules for {}", self.bridge));
        let mut netlink = nft::open().map_err(failed())?;
        let table = format!("{NETWORK_TABLES}{}", self.bridge);
        let comment = self.comment();
        let present = nft::table_comment(&mut netlink, Family::Inet, &table).map_err(failed())?;
        if present.as_deref() != Some(comment.as_bytes()) {
            self.table(&table, &comment).commit(&mut netlink).map_err(failed())?;
        }
        if self.internal {
            return Ok(Vec::new());
        }
        enable_forwarding().map_err(NetworkError::setup("turn on IPv4 forwarding (net.ipv4.ip_forward)"))?;
        if self.v6.is_some() {
            enable_forwarding6();
        }
        Ok(ways_blocked(&mut netlink, self.bridge))
    }

    fn comment(&self) -> String {
        let made = if self.made { "made" } else { FOREIGN };
        let (v4, v6) = (self.v4.map(|n| n.0), self.v6.map(|n| n.0));
        format!("{made} {VERSION} {v4:?} {v6:?} {} {}", self.internal, self.masquerade)
    }

    fn table(&self, table: &str, comment: &str) -> Batch {
        let mut batch = Batch::new();
        batch.table(Family::Inet, table, comment);
        batch.delete_table(Family::Inet, table);
        batch.table(Family::Inet, table, comment);
        batch.chain(Family::Inet, table, "postrouting", "nat", Hook::Postrouting, SOURCE_NAT);
        batch.chain(Family::Inet, table, "forward", "filter", Hook::Forward, 0);
        let bridge = || self.bridge.to_owned();
        let mut rule = |chain, rule: &[Expr]| batch.append_rule(Family::Inet, table, chain, rule);
        if self.masquerade {
            let out = Expr::NotInterfaceOut(bridge());
            if let Some((net, prefix)) = self.v4 {
                rule(
                    "postrouting",
                    &[Expr::IsIpv4, Expr::SourceIn(net, prefix), out.clone(), Expr::Masquerade],
                );
            }
            if let Some((net, prefix)) = self.v6 {
                rule("postrouting", &[Expr::IsIpv6, Expr::SourceIn6(net, prefix), out, Expr::Masquerade]);
            }
        }
        let (accept, drop) = (Expr::Verdict(Verdict::Accept), Expr::Verdict(Verdict::Drop));
        let (from, to) = (Expr::InterfaceIn(bridge()), Expr::InterfaceOut(bridge()));
        rule("forward", &[from.clone(), to.clone(), accept.clone()]);
        if self.internal {
            rule("forward", &[from, drop.clone()]);
        } else {
            rule("forward", &[from, accept.clone()]);
            rule("forward", &[to.clone(), Expr::Established, accept.clone()]);
            rule("forward", &[to.clone(), Expr::DestinationRewritten, accept]);
        }
        rule("forward", &[to, drop]);
        batch
    }
}

/// Routers don't listen to other routers' advertisements unless told to; the host's own way out may depend on them.
fn enable_forwarding6() {
    const ALL: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
    if std::fs::read(ALL).is_ok_and(|value| value.first() == Some(&b'1')) {
        return;
    }
    for entry in std::fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
        let switch = entry.path().join("accept_ra");
        if std::fs::read(&switch).is_ok_and(|value| value.first() == Some(&b'1')) {
            let _ = std::fs::write(&switch, "2");
        }
    }
    // without it containers reach each other and the host by IPv6, and nothing else
    let _ = std::fs::write(ALL, "1");
}

fn enable_forwarding() -> io::Result<()> {
    match std::fs::read(IP_FORWARD)?.first() {
        Some(b'1') => Ok(()),
        _ => std::fs::write(IP_FORWARD, "1"),
    }
}

/// The whole table. Making it before deleting it makes the deletion succeed whether or not it existed.
fn table(subnet: Subnet, comment: &str) -> Batch {
    let mut batch = Batch::new();
    batch.table(Family::Inet, TABLE, comment);
    batch.delete_table(Family::Inet, TABLE);
    batch.table(Family::Inet, TABLE, comment);
    batch.chain(Family::Inet, TABLE, "postrouting", "nat", Hook::Postrouting, SOURCE_NAT);
    batch.chain(Family::Inet, TABLE, "forward", "filter", Hook::Forward, 0);
    let bridge = || BRIDGE.to_owned();
    let from_us = Expr::SourceIn(subnet.base(), subnet.prefix);
    let mut rule = |chain, rule: &[Expr]| batch.append_rule(Family::Inet, TABLE, chain, rule);
    rule("postrouting", &[Expr::IsIpv4, from_us, Expr::NotInterfaceOut(bridge()), Expr::Masquerade]);
    let accept = Expr::Verdict(Verdict::Accept);
    rule("forward", &[Expr::InterfaceIn(bridge()), accept.clone()]);
    rule("forward", &[Expr::InterfaceOut(bridge()), Expr::Established, accept.clone()]);
    rule("forward", &[Expr::InterfaceOut(bridge()), Expr::DestinationRewritten, accept]);
    rule("forward", &[Expr::InterfaceOut(bridge()), Expr::Verdict(Verdict::Drop)]);
    batch
}

/// Makes a way through other people's rules where that is possible, and says what the user can do where it is not.
fn ways_blocked(netlink: &mut Netlink, bridge: &str) -> Vec<String> {
    let others = nft::drop_chains(netlink, Hook::Forward).unwrap_or_default();
    let mut all: Vec<String> =
        others.iter().filter_map(|chain| pass_through(netlink, chain, bridge)).collect();
    all.extend(firewalld(netlink, bridge));
    all
}

/// Says how firewalld is told of the bridge, unless it knows it: what is in none of its zones it rejects.
fn firewalld(netlink: &mut Netlink, bridge: &str) -> Option<String> {
    const TABLE: &str = "firewalld";
    if !nft::tables(netlink, Family::Inet).ok()?.iter().any(|table| table == TABLE) {
        return None;
    }
    let pattern = if bridge.starts_with(BRIDGES) { format!("{BRIDGES}+") } else { bridge.to_owned() };
    let known = [bridge, pattern.trim_end_matches('+')];
    if known.iter().any(|name| nft::mentions(netlink, Family::Inet, TABLE, name).unwrap_or(true)) {
        return None;
    }
    Some(format!(
        "firewalld does not know the bridge {bridge} and may keep containers from the network; allow it with: \
         firewall-cmd --permanent --zone=trusted --add-interface={pattern} && firewall-cmd --reload"
    ))
}

/// Lets the bridge's packets through a chain that drops by default, or says how the user can.
fn pass_through(netlink: &mut Netlink, chain: &DropChain, bridge: &str) -> Option<String> {
    let iptables = chain.ip && chain.table == "filter" && chain.chain == "FORWARD";
    // one pair of rules for all bridges of user networks, which come and go
    let pattern = if bridge.starts_with(BRIDGES) { format!("{BRIDGES}+") } else { bridge.to_owned() };
    if iptables && insert_accepts(netlink, &chain.table, &chain.chain, &pattern).is_ok() {
        return None;
    }
    let DropChain { table, chain, ip } = chain;
    let family = if *ip { "ip" } else { "inet" };
    let pattern = pattern.replace('+', "*");
    Some(format!(
        "the chain {family} {table} {chain} drops forwarded packets, so containers and steps may not reach the network; \
         allow it with: nft insert rule {family} {table} {chain} iifname {pattern} accept; \
         nft insert rule {family} {table} {chain} oifname {pattern} accept"
    ))
}

/// Inserts the accept rules unless they are there. What may come in is still decided by our own table.
fn insert_accepts(netlink: &mut Netlink, table: &str, chain: &str, pattern: &str) -> io::Result<()> {
    if nft::has_rule(netlink, Family::Ip, table, chain, pattern)? {
        return Ok(());
    }
    let mut batch = Batch::new();
    for interface in [Expr::InterfaceIn(pattern.to_owned()), Expr::InterfaceOut(pattern.to_owned())] {
        // The very instructions that iptables writes for `-i BRIDGE -j ACCEPT`, so that it can list them.
        let rule = [interface, Expr::Counter, Expr::Verdict(Verdict::Accept)];
        batch.insert_rule(Family::Ip, table, chain, pattern, &rule);
    }
    batch.commit(netlink)
}
