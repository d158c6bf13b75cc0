//! The host's packet rules for the bridge: NAT on the way out, nothing uninvited on the way in.
//!
//! All rules live in a table of rbuild's own, replaced as a whole when its comment is not the expected one. Another
//! table that drops forwarded packets cannot be overruled from there, as nf_tables asks every table. The most usual
//! one, iptables' `filter` table with the policy that the docker engine gives it, gets two accept rules of ours; of
//! others the user is told.

use std::io;

use super::{NetworkError, bridge::BRIDGE, subnet::Subnet};
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
    // Listing chains can be refused where making our table was not; NAT works, so that is no failure.
    let others = nft::drop_chains(&mut netlink, Hook::Forward).unwrap_or_default();
    Ok(others.iter().filter_map(|chain| pass_through(&mut netlink, chain)).collect())
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

/// Lets the bridge's packets through a chain that drops by default, or says how the user can.
fn pass_through(netlink: &mut Netlink, chain: &DropChain) -> Option<String> {
    let iptables = chain.ip && chain.table == "filter" && chain.chain == "FORWARD";
    if iptables && insert_accepts(netlink, &chain.table, &chain.chain).is_ok() {
        return None;
    }
    let DropChain { table, chain, ip } = chain;
    let family = if *ip { "ip" } else { "inet" };
    Some(format!(
        "the chain {family} {table} {chain} drops forwarded packets, so steps may not reach the network; \
         allow it with: nft insert rule {family} {table} {chain} iifname {BRIDGE} accept; \
         nft insert rule {family} {table} {chain} oifname {BRIDGE} accept"
    ))
}

/// Inserts the accept rules unless they are there. What may come in is still decided by our own table.
fn insert_accepts(netlink: &mut Netlink, table: &str, chain: &str) -> io::Result<()> {
    if nft::has_rule(netlink, Family::Ip, table, chain, BRIDGE)? {
        return Ok(());
    }
    let mut batch = Batch::new();
    for interface in [Expr::InterfaceIn(BRIDGE.to_owned()), Expr::InterfaceOut(BRIDGE.to_owned())] {
        // The very instructions that iptables writes for `-i BRIDGE -j ACCEPT`, so that it can list them.
        let rule = [interface, Expr::Counter, Expr::Verdict(Verdict::Accept)];
        batch.insert_rule(Family::Ip, table, chain, BRIDGE, &rule);
    }
    batch.commit(netlink)
}
