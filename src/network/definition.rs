//! Networks that users make: what defines one, and the files they are kept in.
//!
//! A definition is a file and nothing more: the bridge of the kernel exists only while a container is on it (see `lan`),
//! so a restart of the machine or a killed command leaves nothing that does not fit the files.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{NetworkError, cidr::Cidr, request::DEFAULT_NETWORK};
use crate::fault;

/// One network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkDefinition {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Unique among the networks of a store.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Whether it has no way out.
    #[serde(default)]
    pub internal: bool,
    /// Whether its members get IPv6 addresses.
    #[serde(default)]
    pub ipv6: bool,
    /// The address ranges, IPv4 first.
    pub pools: Vec<AddressPool>,
    /// Whether the user named the subnets, which fixed addresses need.
    #[serde(default)]
    pub fixed_subnets: bool,
    /// Labels of the user.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Options of the driver.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Whether `connect` may be used on it by hand; kept for docker's sake.
    #[serde(default)]
    pub attachable: bool,
}

/// A subnet and what is special in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPool {
    /// All its addresses.
    pub subnet: Cidr,
    /// The bridge's own address.
    pub gateway: IpAddr,
    /// Where members get theirs from, if not from everywhere.
    #[serde(default)]
    pub range: Option<Cidr>,
    /// Addresses that no member gets, by name.
    #[serde(default)]
    pub reserved: BTreeMap<String, IpAddr>,
}

/// The names that are no networks to make or remove.
pub const PREDEFINED: [&str; 3] = [DEFAULT_NETWORK, "host", "none"];

const OPTION_NAME: &str = "com.docker.network.bridge.name";
const OPTION_MTU: &str = "com.docker.network.driver.mtu";
const OPTION_ICC: &str = "com.docker.network.bridge.enable_icc";
const OPTION_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const OPTION_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";

/// What the names of bridges of user networks begin with.
pub(super) const BRIDGES: &str = "rb-";

impl NetworkDefinition {
    /// The name of the bridge in the kernel.
    #[must_use]
    pub fn bridge(&self) -> String {
        match self.options.get(OPTION_NAME) {
            Some(name) => name.clone(),
            None => format!("{BRIDGES}{}", &self.id[..12]),
        }
    }

    /// The largest packet that the user asked for, in bytes.
    #[must_use]
    pub fn mtu(&self) -> Option<u32> {
        self.options.get(OPTION_MTU)?.parse().ok()
    }

    /// Whether members may talk to each other.
    #[must_use]
    pub fn talks(&self) -> bool {
        !self.option_is_off(OPTION_ICC)
    }

    /// Whether packets that leave carry the host's address.
    #[must_use]
    pub fn masquerades(&self) -> bool {
        !self.internal && !self.option_is_off(OPTION_MASQUERADE)
    }

    /// The host's address that ports are published on when none is named.
    #[must_use]
    pub fn binding(&self) -> Option<IpAddr> {
        self.options.get(OPTION_BINDING)?.parse().ok()
    }

    fn option_is_off(&self, name: &str) -> bool {
        self.options.get(name).and_then(|value| truth(value)) == Some(false)
    }

    /// The pool of one family.
    #[must_use]
    pub fn pool(&self, v4: bool) -> Option<&AddressPool> {
        self.pools.iter().find(|pool| pool.subnet.is_v4() == v4)
    }

    /// Checks the values of options that the kernel will see.
    fn check(&self) -> Result<(), NetworkError> {
        let bad = |name: &str, why: &str| {
            Err(NetworkError::Attachment {
                text: format!("--opt {name}={}", self.options[name]),
                why: why.into(),
            })
        };
        if let Some(name) = self.options.get(OPTION_NAME) {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.is_empty() || name.len() > 15 || !name.chars().all(plain) || name.starts_with('.') {
                return bad(OPTION_NAME, "a name of an interface has 1 to 15 letters, digits or any of -_.");
            }
        }
        if self.options.contains_key(OPTION_MTU) && self.mtu().is_none_or(|mtu| !(68..=65535).contains(&mtu))
        {
            return bad(OPTION_MTU, "expected a number of bytes from 68 to 65535");
        }
        if self.options.contains_key(OPTION_BINDING) && self.binding().is_none() {
            return bad(OPTION_BINDING, "expected an address");
        }
        for name in [OPTION_ICC, OPTION_MASQUERADE] {
            if self.options.get(name).is_some_and(|value| truth(value).is_none()) {
                return bad(name, "expected true or false");
            }
        }
        Ok(())
    }
}

/// Reads yes or no in the words that docker takes.
fn truth(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// What a user says of a new network.
#[derive(Clone, Debug, Default)]
pub struct NetworkWish {
    /// Its name.
    pub name: String,
    /// `--subnet`.
    pub subnets: Vec<Cidr>,
    /// `--gateway`.
    pub gateways: Vec<IpAddr>,
    /// `--ip-range`.
    pub ranges: Vec<Cidr>,
    /// `--aux-address`.
    pub reserved: BTreeMap<String, IpAddr>,
    /// `--internal`.
    pub internal: bool,
    /// `--ipv6`.
    pub ipv6: bool,
    /// `--attachable`.
    pub attachable: bool,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--opt`.
    pub options: BTreeMap<String, String>,
}

impl NetworkWish {
    /// Completes the wish with what is free: `used` are networks that must stay reachable, `random` 256 random bits.
    ///
    /// # Errors
    /// What does not fit together, or overlaps.
    pub fn define(
        self,
        used: &[Cidr],
        random: [u8; 32],
        created: String,
    ) -> Result<NetworkDefinition, NetworkError> {
        check_name(&self.name)?;
        let subnet_error =
            |net: Cidr, why: &str| NetworkError::Subnet { text: net.to_string(), why: why.into() };
        let mut subnets = self.subnets.clone();
        for (n, net) in subnets.iter().enumerate() {
            if subnets[..n].iter().any(|before| before.is_v4() == net.is_v4()) {
                return Err(subnet_error(*net, "a network has one subnet of each family"));
            }
            if net.nth(1).is_none() || (net.is_v4() && net.prefix() > 30) {
                return Err(subnet_error(*net, "it has no room for containers"));
            }
            if used.iter().any(|u| u.prefix() > 1 && u.overlaps(*net)) {
                return Err(subnet_error(*net, "Pool overlaps with other one on this address space"));
            }
        }
        let ipv6 = self.ipv6 || subnets.iter().any(|net| !net.is_v4());
        if !subnets.iter().any(|net| net.is_v4()) {
            subnets.push(Cidr::choose_v4(used).ok_or(NetworkError::NoFreePool)?);
        }
        if ipv6 && subnets.iter().all(|net| net.is_v4()) {
            let [a, b, c, d, e, ..] = random;
            subnets.push(Cidr::unique_local([a, b, c, d, e]));
        }
        subnets.sort_by_key(|net| !net.is_v4());
        let pools = subnets.iter().map(|net| self.pool(*net)).collect::<Result<Vec<_>, _>>()?;
        self.nothing_left_over(&pools)?;
        let definition = NetworkDefinition {
            id: crate::digest::hex(&random),
            name: self.name,
            created,
            internal: self.internal,
            ipv6,
            pools,
            fixed_subnets: !self.subnets.is_empty(),
            labels: self.labels,
            options: self.options,
            attachable: self.attachable,
        };
        definition.check()?;
        Ok(definition)
    }

    fn pool(&self, subnet: Cidr) -> Result<AddressPool, NetworkError> {
        let inside = |ip: &&IpAddr| subnet.contains(**ip);
        let named = self.gateways.iter().find(inside).copied();
        let range = self.ranges.iter().find(|range| subnet.contains(range.base())).copied();
        if range.is_some_and(|range| range.prefix() < subnet.prefix()) {
            let why = format!("no matching subnet for range {}", range.unwrap_or(subnet));
            return Err(NetworkError::Subnet { text: subnet.to_string(), why });
        }
        let gateway = match named {
            Some(ip) if !subnet.usable(ip) => {
                let why = format!("the gateway {ip} is the address of the network itself or of all in it");
                return Err(NetworkError::Subnet { text: subnet.to_string(), why });
            }
            Some(ip) => ip,
            // docker takes the first address of the range, if there is one
            None => subnet
                .first_free(range, &|ip| self.reserved.values().any(|r| *r == ip))
                .unwrap_or(subnet.base()),
        };
        let reserved = self.reserved.iter().filter(|(_, ip)| subnet.contains(**ip));
        Ok(AddressPool {
            subnet,
            gateway,
            range,
            reserved: reserved.map(|(name, ip)| (name.clone(), *ip)).collect(),
        })
    }

    fn nothing_left_over(&self, pools: &[AddressPool]) -> Result<(), NetworkError> {
        if self.gateways.len() > self.subnets.len() || self.ranges.len() > self.subnets.len() {
            let first =
                self.gateways.iter().copied().chain(self.ranges.iter().map(|range| range.base())).next();
            let text = first.map(|ip| ip.to_string()).unwrap_or_default();
            let why = "every ip-range or gateway must have a corresponding subnet".to_owned();
            return Err(NetworkError::Subnet { text, why });
        }
        let homeless = |ip: IpAddr| !pools.iter().any(|pool| pool.subnet.contains(ip));
        let all = (self.gateways.iter().map(|ip| ("gateway", *ip)))
            .chain(self.ranges.iter().map(|range| ("range", range.base())))
            .chain(self.reserved.values().map(|ip| ("aux-address", *ip)));
        for (what, ip) in all {
            if homeless(ip) {
                let why = format!("no matching subnet for {what} {ip}");
                return Err(NetworkError::Subnet { text: ip.to_string(), why });
            }
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), NetworkError> {
    let plain = |c: char| c.is_ascii_alphanumeric();
    let first = name.chars().next().is_some_and(plain);
    let rest = name.chars().all(|c| plain(c) || matches!(c, '_' | '.' | '-'));
    if PREDEFINED.contains(&name) || name == "default" {
        return Err(NetworkError::Reserved { name: name.to_owned() });
    }
    if !first || !rest || name.len() > 128 {
        return Err(NetworkError::Name { name: name.to_owned() });
    }
    Ok(())
}

/// The definitions of one store.
#[derive(Clone, Debug)]
pub struct Definitions {
    dir: PathBuf,
}

/// More is not read of a file, in bytes.
const LIMIT: u64 = 1 << 20;

impl Definitions {
    /// Looks at those in `dir`, which need not exist.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.join("defined") }
    }

    /// Gives the file of one.
    pub(super) fn file(&self, definition: &NetworkDefinition) -> PathBuf {
        self.dir.join(format!("{}.json", definition.id))
    }

    /// Lists them by name. A file that makes no sense is left out.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn all(&self) -> Result<Vec<NetworkDefinition>, NetworkError> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(NetworkError::setup("list the networks")(e)),
        };
        let mut all: Vec<NetworkDefinition> = entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|ext| ext == "json"))
            .filter_map(|entry| read(&entry.path()).ok())
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Finds one by name, id or the beginning of an id.
    ///
    /// # Errors
    /// [`NetworkError::NotFound`], [`NetworkError::Ambiguous`].
    pub fn find(&self, word: &str) -> Result<NetworkDefinition, NetworkError> {
        let mut all = self.all()?;
        if let Some(at) = all.iter().position(|d| d.name == word || d.id == word) {
            return Ok(all.swap_remove(at));
        }
        all.retain(|d| !word.is_empty() && d.id.starts_with(word));
        match all.len() {
            1 => Ok(all.remove(0)),
            0 => Err(NetworkError::NotFound { name: word.to_owned() }),
            _ => Err(NetworkError::Ambiguous { name: word.to_owned() }),
        }
    }

    /// Keeps a new one. The caller holds the lock on networks.
    ///
    /// # Errors
    /// [`NetworkError::Exists`], or the disk's.
    pub fn add(&self, definition: &NetworkDefinition) -> Result<(), NetworkError> {
        if self.all()?.iter().any(|d| d.name == definition.name) {
            return Err(NetworkError::Exists { name: definition.name.clone() });
        }
        write_json(&self.dir, &definition.id, definition, true)
            .map_err(NetworkError::setup(format!("keep the network {}", definition.name)))
    }

    /// Forgets one. The caller holds the lock on networks.
    ///
    /// # Errors
    /// The disk's.
    pub fn remove(&self, definition: &NetworkDefinition) -> Result<(), NetworkError> {
        std::fs::remove_file(self.file(definition))
            .map_err(NetworkError::setup(format!("remove the network {}", definition.name)))
    }
}

/// Reads a file of ours.
pub(super) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    use std::{io::Read, os::unix::fs::OpenOptionsExt};
    let mut options = std::fs::File::options();
    let file = options.read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(path)?;
    let mut text = Vec::new();
    file.take(LIMIT).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::from)
}

/// Writes a file in one step; the directory is made when it is missing. `durable` returns only when it survives a
/// power cut.
pub(super) fn write_json<T: Serialize>(dir: &Path, name: &str, value: &T, durable: bool) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    sweep_staged(dir);
    let staged = dir.join(format!(".{name}.{}", std::process::id()));
    let file = stage(&staged)?;
    (&*file).write_all(&serde_json::to_vec(value)?)?;
    fault::point("network.written");
    if durable {
        file.sync_all()?;
        fault::point("network.synced");
    }
    std::fs::rename(&staged, dir.join(format!("{name}.json")))?;
    fault::point("network.renamed");
    if durable { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// Makes an empty file, locked as long as somebody writes it.
fn stage(path: &Path) -> io::Result<Flock<File>> {
    use std::os::unix::fs::OpenOptionsExt;
    loop {
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
        let file = options.open(path)?;
        // before it was locked another process may have taken it for what a dead one has left
        if let Ok(file) = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            && path.exists()
        {
            return Ok(file);
        }
    }
}

/// Removes staged files whose writer was killed.
fn sweep_staged(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b".")
            && let Ok(file) = File::open(entry.path())
            && Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok()
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(name: &str) -> NetworkWish {
        NetworkWish { name: name.into(), ..NetworkWish::default() }
    }

    fn define(wish: NetworkWish) -> Result<NetworkDefinition, NetworkError> {
        let used = ["10.190.0.0/22".parse().unwrap(), "192.168.0.0/24".parse().unwrap()];
        wish.define(&used, [7; 32], "2024-01-01T00:00:00Z".into())
    }

    #[test]
    fn a_wish_is_completed() {
        let plain = define(wish("web")).unwrap();
        assert_eq!(plain.pools[0].subnet.to_string(), "10.190.4.0/22");
        assert_eq!(plain.pools[0].gateway.to_string(), "10.190.4.1");
        assert_eq!((plain.pools.len(), plain.fixed_subnets), (1, false));
        assert_eq!(plain.bridge(), "rb-070707070707");

        let mut full = wish("full");
        full.subnets = vec!["fd00:9::/64".parse().unwrap(), "10.5.0.0/24".parse().unwrap()];
        full.gateways = vec!["10.5.0.254".parse().unwrap()];
        full.ranges = vec!["10.5.0.128/25".parse().unwrap()];
        full.reserved = BTreeMap::from([("router".into(), "10.5.0.129".parse().unwrap())]);
        let full = define(full).unwrap();
        assert_eq!(full.pools[0].gateway.to_string(), "10.5.0.254");
        assert_eq!(full.pools[0].reserved["router"].to_string(), "10.5.0.129");
        assert_eq!(full.pools[1].gateway.to_string(), "fd00:9::1");
        assert!(full.ipv6 && full.fixed_subnets);

        let six = define(NetworkWish { ipv6: true, ..wish("six") }).unwrap();
        assert_eq!(six.pools[1].subnet.to_string(), "fd07:707:707::/64");
    }

    #[test]
    fn what_cannot_be_is_said() {
        let net = |text: &str| vec![text.parse::<Cidr>().unwrap()];
        let ip = |text: &str| vec![text.parse::<IpAddr>().unwrap()];
        for (wish, why) in [
            (wish(""), "invalid network name"),
            (wish("a b"), "invalid network name"),
            (wish("bridge"), "not permitted on predefined bridge network"),
            (wish("default"), "not permitted on predefined"),
            (wish("container:x"), "invalid network name"),
            (NetworkWish { subnets: net("192.168.0.0/16"), ..wish("n") }, "Pool overlaps"),
            (NetworkWish { subnets: net("10.5.0.0/31"), ..wish("n") }, "no room"),
            (NetworkWish { gateways: ip("10.5.0.1"), ..wish("n") }, "corresponding subnet"),
            (
                NetworkWish { subnets: net("10.5.0.0/24"), gateways: ip("10.6.0.1"), ..wish("n") },
                "no matching",
            ),
            (
                NetworkWish {
                    subnets: net("10.5.0.0/24"),
                    gateways: [ip("10.5.0.1"), ip("10.5.0.2")].concat(),
                    ..wish("n")
                },
                "corresponding subnet",
            ),
            (
                NetworkWish { options: BTreeMap::from([(OPTION_ICC.into(), "maybe".into())]), ..wish("n") },
                "true or false",
            ),
            (NetworkWish { subnets: net("10.5.0.0/24"), gateways: ip("10.5.0.0"), ..wish("n") }, "gateway"),
            (NetworkWish { subnets: net("10.5.0.0/24"), ranges: net("10.5.0.0/16"), ..wish("n") }, "range"),
            (
                NetworkWish { options: BTreeMap::from([(OPTION_NAME.into(), "a/b".into())]), ..wish("n") },
                "interface",
            ),
        ] {
            let message = define(wish).unwrap_err().to_string();
            assert!(message.contains(why), "{message} / {why}");
        }
    }

    #[test]
    fn definitions_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let all = Definitions::new(dir.path());
        assert_eq!(all.all().unwrap(), []);
        let web = define(wish("web")).unwrap();
        all.add(&web).unwrap();
        assert!(matches!(all.add(&web), Err(NetworkError::Exists { .. })));
        assert_eq!(all.find("web").unwrap(), web);
        assert_eq!(all.find("0707").unwrap(), web);
        assert!(matches!(all.find("x"), Err(NetworkError::NotFound { .. })));
        all.remove(&web).unwrap();
        assert_eq!(all.all().unwrap(), []);
    }
}
