//! One private network with a way out, and its end.

use std::{
    fmt,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    thread,
    time::Duration,
};

use super::{
    ExtraHost, HelperKind, HostDns, NetworkError, Reach,
    bridge::{Bridge, Port},
    firewall,
    helper::{Helper, Plan},
    hosts_file,
    netns::{LOOPBACK, Netns, run},
};
use crate::sys::{
    netlink::{Netlink, Protocol},
    netlink_route, run_dir,
};

/// How often and after which pause a helper is tried again for a network that has lost its own.
const RETRIES: u32 = 20;
const RETRY: Duration = Duration::from_millis(100);

/// What the host offers and the user wants of private networks.
#[derive(Clone, Debug)]
pub struct NetEnv {
    /// A directory of the host (not of a store) for lock files, as all stores share one bridge; made when needed.
    pub state_dir: PathBuf,
    /// Whether rbuild runs as the mapped root of a user namespace, so that the host's network is not its to change.
    pub rootless: bool,
    /// Whether an `--add-host NAME:host-gateway` wants to reach the host. Rootless this opens the host's own loopback
    /// to the network, so it is off unless asked for; on root's bridge the host can be reached anyway.
    pub reach_host: bool,
    /// Whether this is the user namespace that an ordinary user's containers share, so that they can have networks
    /// together.
    pub shared: bool,
}

impl NetEnv {
    /// The usual environment: state in `/run/rbuild`, rootless in the user's own such directory.
    #[must_use]
    pub fn new(rootless: bool) -> Self {
        let state_dir = if rootless { run_dir::path() } else { PathBuf::from("/run/rbuild") };
        Self { state_dir, rootless, reach_host: false, shared: false }
    }
}

/// A network namespace with a way out, shared by the steps of one build or used by one container.
///
/// It lives as long as this value and the processes in it. Then, also when rbuild is killed, the kernel takes the
/// interfaces away, which frees the address: in its own time, some 50 ms later, because asking for it and waiting
/// costs about 35 ms, thirty times more than making the network.
pub struct PrivateNetwork {
    link: Uplink,
    netns: OwnedFd,
    address: Option<IpAddr>,
    gateway: Option<IpAddr>,
    resolv_conf: Vec<u8>,
    warnings: Vec<String>,
}

/// What connects the namespace with the outside.
enum Uplink {
    /// A port of the host's bridge.
    Bridge(Port),
    /// A helper process.
    Helper(Helper),
    /// Nothing: the host itself is not connected.
    Offline,
}

impl PrivateNetwork {
    /// Makes a network. Root takes about a millisecond (the first time on a host some more, for bridge and rules), rootless as long
    /// as the helper needs to start.
    ///
    /// # Errors
    /// See [`NetworkError`]; [`NetworkError::hint`] says what helps. Nothing is left behind but the bridge and the rules.
    pub fn create(env: &NetEnv) -> Result<Self, NetworkError> {
        let mut route =
            Netlink::open(Protocol::Route).map_err(NetworkError::setup("open a netlink socket"))?;
        let dns = HostDns::read();
        if env.rootless { Self::rootless(&mut route, &dns, env) } else { Self::bridged(route, &dns, env) }
    }

    fn bridged(mut route: Netlink, dns: &HostDns, env: &NetEnv) -> Result<Self, NetworkError> {
        let bridge = Bridge::ensure(&mut route, env)?;
        let warnings = firewall::ensure(bridge.subnet)?;
        let mut netns = Netns::new(false)?;
        let port = bridge.attach(&mut route, &mut netns)?;
        Ok(Self {
            netns: netns.fd,
            address: Some(port.address.into()),
            gateway: Some(bridge.gateway.into()),
            resolv_conf: dns.render_for(Reach::V4),
            warnings,
            link: Uplink::Bridge(port),
        })
    }

    /// Connects a rootless network that is there already and has lost its helper.
    ///
    /// # Errors
    /// As [`PrivateNetwork::create`].
    pub(super) fn reconnect(env: &NetEnv, netns: OwnedFd) -> Result<Self, NetworkError> {
        let mut route =
            Netlink::open(Protocol::Route).map_err(NetworkError::setup("open a netlink socket"))?;
        let dns = HostDns::read();
        let mut tries = 0;
        loop {
            let copy = netns.try_clone().and_then(Netns::of);
            let copy = copy.map_err(NetworkError::setup("enter the network namespace"))?;
            match Self::connect(&mut route, &dns, env, copy) {
                // the interface of one that was just killed may still be there
                Err(NetworkError::HelperFailed { .. }) if tries < RETRIES => {
                    tries += 1;
                    thread::sleep(RETRY);
                }
                other => return other,
            }
        }
    }

    fn rootless(route: &mut Netlink, dns: &HostDns, env: &NetEnv) -> Result<Self, NetworkError> {
        Self::connect(route, dns, env, Netns::new(true)?)
    }

    fn connect(
        route: &mut Netlink,
        dns: &HostDns,
        env: &NetEnv,
        mut netns: Netns,
    ) -> Result<Self, NetworkError> {
        let plan = Plan::new(route, dns, env.reach_host)?;
        let mut warnings = Vec::new();
        let link = match Helper::start(&plan, netns.fd.as_fd()) {
            Ok(helper) => Uplink::Helper(helper),
            // pasta has nothing to copy then. A build on a train goes on until a step really needs the network.
            Err(error @ NetworkError::HelperFailed { .. }) if plan.offline => {
                run(&mut netns.route, &[netlink_route::link_up(LOOPBACK)])
                    .map_err(NetworkError::setup("set the loopback interface up"))?;
                warnings
                    .push(format!("steps run without a network, as the host has no default route: {error}"));
                Uplink::Offline
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            link,
            netns: netns.fd,
            address: plan.address,
            gateway: plan.gateway,
            resolv_conf: plan.resolv_conf,
            warnings,
        })
    }

    /// The namespace, to be entered with setns(2).
    #[must_use]
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// The content of `/etc/resolv.conf` inside.
    #[must_use]
    pub fn resolv_conf(&self) -> Vec<u8> {
        self.resolv_conf.clone()
    }

    /// The content of `/etc/hosts` inside.
    ///
    /// # Errors
    /// [`NetworkError::NoHostGateway`] when an entry asks for `host-gateway` and there is none (see [`NetEnv::reach_host`]).
    pub fn hosts(&self, hostname: &str, extra: &[ExtraHost]) -> Result<Vec<u8>, NetworkError> {
        hosts_file(hostname, self.address, self.gateway, extra)
    }

    /// The address inside, if it is known.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The address at which the host is reached from inside, if it can be.
    #[must_use]
    pub fn gateway(&self) -> Option<IpAddr> {
        self.gateway
    }

    /// What the user should know though the network was made, e.g. that a firewall of the host is in the way.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The helper program, if one is used.
    #[must_use]
    pub fn helper(&self) -> Option<HelperKind> {
        match &self.link {
            Uplink::Helper(helper) => Some(helper.kind),
            Uplink::Bridge(_) | Uplink::Offline => None,
        }
    }

    /// The interface on the host, if there is one.
    #[must_use]
    pub fn host_interface(&self) -> Option<&str> {
        match &self.link {
            Uplink::Bridge(port) => Some(&port.name),
            Uplink::Helper(_) | Uplink::Offline => None,
        }
    }
}

impl fmt::Debug for PrivateNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateNetwork")
            .field("address", &self.address)
            .field("gateway", &self.gateway)
            .field("host_interface", &self.host_interface())
            .field("helper", &self.helper())
            .finish_non_exhaustive()
    }
}
