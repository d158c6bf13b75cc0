//! Says which private network this machine and user can have, for `rbuild info`. Changes nothing.

use std::path::Path;

use super::HelperKind;
use crate::sys::netlink_nft;

/// What [`probe`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkProbe {
    /// The way private networks are made here; `None` when they cannot.
    pub private: Option<PrivateKind>,
    /// What is missing or in the way, and how to get it.
    pub missing: Vec<Missing>,
}

/// A way to make private networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrivateKind {
    /// Root's bridge with NAT by nf_tables.
    Bridge,
    /// A helper program, rootless.
    Helper(HelperKind),
}

impl std::fmt::Display for PrivateKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bridge => f.write_str("bridge with NAT (nf_tables)"),
            Self::Helper(kind) => f.write_str(kind.program()),
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What it is.
    pub what: &'static str,
    /// What the user can do.
    pub remedy: &'static str,
}

/// Looks at the host as root or, with `rootless`, as a user with a user namespace.
#[must_use]
pub fn probe(rootless: bool) -> NetworkProbe {
    if rootless { probe_helper() } else { probe_bridge() }
}

fn probe_helper() -> NetworkProbe {
    let mut missing = Vec::new();
    let found = HelperKind::find().map(|(kind, _)| kind);
    if found.is_none() {
        missing.push(Missing {
            what: "neither pasta nor slirp4netns is installed",
            remedy: "install the package passt (or slirp4netns)",
        });
    }
    let tun = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_ok();
    if !tun {
        missing.push(Missing {
            what: "/dev/net/tun cannot be opened",
            remedy: "as root: modprobe tun, then chmod 0666 /dev/net/tun",
        });
    }
    NetworkProbe { private: found.filter(|_| tun).map(PrivateKind::Helper), missing }
}

fn probe_bridge() -> NetworkProbe {
    let mut missing = Vec::new();
    let nft =
        netlink_nft::open().and_then(|mut n| netlink_nft::drop_chains(&mut n, netlink_nft::Hook::Forward));
    let works = nft.is_ok();
    if !works {
        missing.push(Missing {
            what: "the kernel's nf_tables cannot be used",
            remedy: "load the modules nf_tables, nft_masq and nft_ct, and grant CAP_NET_ADMIN",
        });
    }
    if legacy_filter() {
        missing.push(Missing {
            what: "rules of the old iptables are loaded, which nf_tables cannot see",
            remedy: "if steps cannot reach the network: iptables-legacy -I FORWARD -i rbuild0 -j ACCEPT; \
                     iptables-legacy -I FORWARD -o rbuild0 -j ACCEPT",
        });
    }
    NetworkProbe { private: works.then_some(PrivateKind::Bridge), missing }
}

/// Whether the filter table of iptables' first implementation is in use.
fn legacy_filter() -> bool {
    let names = std::fs::read_to_string(Path::new("/proc/net/ip_tables_names")).unwrap_or_default();
    names.lines().any(|name| name == "filter")
}
