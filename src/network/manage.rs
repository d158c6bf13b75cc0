//! Making and removing networks, under the lock that keeps two commands from choosing the same addresses.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use super::{
    Cidr, Definitions, HostDns, Lives, NetEnv, NetworkDefinition, NetworkError, NetworkWish, PREDEFINED,
    bridge::{self, BRIDGE, lock},
    lan::{self, DEFAULT_ID},
};
use crate::sys::{
    netlink::{Netlink, Protocol},
    netlink_route as rt,
};

/// Where the networks of all stores of the host are known, below the directory of its state.
const ALL: &str = "defined";

/// The ids that the networks have which are always there, by name.
#[must_use]
pub fn predefined_id(name: &str) -> Option<String> {
    match name {
        "bridge" => Some(DEFAULT_ID.to_owned()),
        "host" => Some("b1".repeat(32)),
        "none" => Some("b2".repeat(32)),
        _ => None,
    }
}

/// Makes a network; `created` is the time, RFC 3339.
///
/// # Errors
/// The name is taken, the subnet overlaps with another or with what the host has routes to, or the disk is full.
pub fn create_network(
    dir: &Path,
    env: &NetEnv,
    wish: NetworkWish,
    created: String,
) -> Result<NetworkDefinition, NetworkError> {
    let _alone = lock(env)?;
    let definitions = Definitions::new(dir);
    if definitions.all()?.iter().any(|d| d.name == wish.name) {
        return Err(NetworkError::Exists { name: wish.name });
    }
    let mut used = used(&definitions)?;
    if !wish.subnets.iter().any(|net| net.is_v4()) {
        used.extend(neighbours(env));
    }
    let definition = wish.define(&used, lan::random()?, created)?;
    if let Some(other) = definitions.all()?.into_iter().find(|d| d.bridge() == definition.bridge()) {
        let why = format!(
            "conflicts with network {} ({}): networks have same bridge name",
            other.name,
            other.bridge()
        );
        return Err(NetworkError::Conflict { why });
    }
    definitions.add(&definition)?;
    announce(env, &definitions)?;
    Ok(definition)
}

/// The subnets of networks of all stores of the host, also of those that nobody is in at the moment. Those of the user's
/// own choice may overlap as long as they are not in use together.
fn neighbours(env: &NetEnv) -> Vec<Cidr> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(env.state_dir.join(ALL)).into_iter().flatten().flatten() {
        match std::fs::read(entry.path()).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            Some(NetworkDefinition { pools, .. }) => all.extend(pools.iter().map(|pool| pool.subnet)),
            // the network is gone, perhaps with its store
            None => drop(std::fs::remove_file(entry.path())),
        }
    }
    all.retain(|net| net.is_v4());
    all
}

/// Lets other stores of the host know of the networks of this one: links to their files, by id.
fn announce(env: &NetEnv, definitions: &Definitions) -> Result<(), NetworkError> {
    let all = env.state_dir.join(ALL);
    // it only keeps two stores from choosing the same; without it the kernel's routes still count
    let _ = std::fs::create_dir_all(&all);
    for definition in definitions.all()? {
        if let Ok(file) = std::path::absolute(definitions.file(&definition)) {
            let _ = std::os::unix::fs::symlink(file, all.join(&definition.id));
        }
    }
    Ok(())
}

/// All networks that must stay reachable: the host's routes and addresses, its name servers, the other networks.
fn used(definitions: &Definitions) -> Result<Vec<Cidr>, NetworkError> {
    let work = || -> std::io::Result<Vec<Cidr>> {
        let mut route = Netlink::open(Protocol::Route)?;
        let mut used: Vec<Option<Cidr>> = Vec::new();
        used.extend(rt::routes(&mut route)?.iter().map(|r| Cidr::around(r.to.0.into(), r.to.1)));
        used.extend(rt::routed_v6(&mut route)?.iter().map(|r| Cidr::around(r.0.into(), r.1)));
        used.extend(rt::ip_addresses(&mut route)?.iter().map(|a| Cidr::around(a.ip, a.prefix)));
        let servers = HostDns::read().all_servers();
        used.extend(servers.iter().map(|ip| Cidr::around(*ip, if ip.is_ipv4() { 32 } else { 128 })));
        Ok(used.into_iter().flatten().collect())
    };
    let mut used = work().map_err(NetworkError::setup("read the host's routes"))?;
    // every interface has a link-local address of this network
    used.retain(|net| !matches!(net.base(), IpAddr::V6(ip) if ip.is_unicast_link_local()));
    used.extend(definitions.all()?.iter().flat_map(|d| d.pools.iter().map(|pool| pool.subnet)));
    Ok(used)
}

/// Removes a network that nobody is in.
///
/// # Errors
/// [`NetworkError::InUse`], [`NetworkError::Predefined`], [`NetworkError::NotFound`].
pub fn remove_network(dir: &Path, env: &NetEnv, word: &str) -> Result<(), NetworkError> {
    if PREDEFINED.contains(&word) {
        return Err(NetworkError::Predefined { name: word.to_owned() });
    }
    let _alone = lock(env)?;
    let definitions = Definitions::new(dir);
    let definition = definitions.find(word)?;
    let members = Lives::new(dir).all();
    let inside = members.iter().filter(|live| live.endpoint(&definition.id).is_some());
    let by: Vec<String> =
        inside.map(|live| format!("name:{:?} id:{:?}", live.name, live.id.get(..12).unwrap_or(""))).collect();
    if !by.is_empty() {
        return Err(NetworkError::InUse { name: definition.name, by: by.join(", ") });
    }
    definitions.remove(&definition)
}

/// Gives the options of the default bridge under docker's names.
#[must_use]
pub fn default_options() -> BTreeMap<String, String> {
    let mut route = Netlink::open(Protocol::Route).ok();
    let link = route.as_mut().and_then(|route| rt::link(route, BRIDGE).ok()?);
    let mtu = link.map_or(bridge::ETHERNET, |link| link.mtu);
    [
        ("com.docker.network.bridge.default_bridge", "true".to_owned()),
        ("com.docker.network.bridge.enable_icc", "true".into()),
        ("com.docker.network.bridge.enable_ip_masquerade", "true".into()),
        ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0".into()),
        ("com.docker.network.bridge.name", BRIDGE.into()),
        ("com.docker.network.driver.mtu", mtu.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Gives subnet and gateway of the default bridge, if it is there.
#[must_use]
pub fn default_subnet() -> Option<(Cidr, IpAddr)> {
    let mut route = Netlink::open(Protocol::Route).ok()?;
    let link = rt::link(&mut route, BRIDGE).ok()??;
    let own = rt::addresses(&mut route).ok()?.into_iter().find(|a| a.index == link.index)?;
    Some((Cidr::around(own.ip.into(), own.prefix)?, own.ip.into()))
}
