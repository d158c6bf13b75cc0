//! A container's membership in its networks, from before its start to after its end.
//!
//! Held by the container's monitor. What needs a process of its own is in a keeper; the interfaces belong to the network
//! namespace and go with it at the latest. A monitor that is killed takes its keeper along, and what then remains (a
//! file, an empty bridge with its rules) is removed by whoever joins or leaves a network next. A keeper that is killed is
//! replaced by the monitor (`watch`), and so is the user's ground.

mod change;
mod files;
mod publish;
mod watch;

pub use change::NetworkChange;

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use super::{
    ContainerPort, Definitions, DnsRequest, ExtraHost, NetEnv, NetworkError, PortBinding, PublishRequest,
    bridge::lock,
    ground::Ground,
    keeper::{HelperJob, Job, Keeper, Private},
    lan::{self, DEFAULT_ID, Place, Target},
    live::{Endpoint, Held, LiveNetwork, Lives},
    netns::{LOOPBACK, Netns, run},
    request::{Attachment, DEFAULT_NETWORK},
};
use crate::sys::{
    netlink::{Netlink, Protocol},
    netlink_route,
};
use watch::Watch;

/// What a container brings along when it joins.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// Where files about networks are: `networks/` of the store.
    pub dir: PathBuf,
    /// The host.
    pub env: NetEnv,
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its host name.
    pub hostname: String,
    /// The domain behind it, if one is set.
    pub domainname: String,
    /// All ports that it says it serves.
    pub exposed: Vec<ContainerPort>,
    /// Its environment.
    pub environment: Vec<String>,
    /// The networks; with none there is a loopback interface only.
    pub attachments: Vec<Attachment>,
    /// The ports to publish.
    pub publish: Vec<PublishRequest>,
    /// Name servers and the like.
    pub dns: DnsRequest,
    /// Further hosts.
    pub extra_hosts: Vec<ExtraHost>,
}

/// Being in networks; dropping it leaves them.
#[derive(Debug)]
pub struct Membership {
    request: JoinRequest,
    live: LiveNetwork,
    netns: OwnedFd,
    keepers: Vec<Keeper>,
    /// Whether one of them serves names.
    names: bool,
    /// What the network of a helper program says of name servers and gateway.
    private: Option<Private>,
    /// Where the bridges are, if not in the host's network.
    ground: Option<Arc<Ground>>,
    warnings: Vec<String>,
    /// The ports as they were published first.
    published: Vec<PortBinding>,
    /// A line of `/etc/hosts` for each link.
    link_hosts: Vec<String>,
    link_env: Vec<String>,
    held: Option<Held>,
    watch: Watch,
}

impl Membership {
    /// Joins all networks and publishes the ports.
    ///
    /// # Errors
    /// A network is not there, an address or port is taken, or the kernel refuses. Nothing is left behind then.
    pub fn join(request: JoinRequest) -> Result<Self, NetworkError> {
        let lives = Lives::new(&request.dir);
        if !request.env.rootless {
            return Self::on_bridges(request, &lives, None);
        }
        // a network of its own alone may lead to the host's loopback
        let apart = request.env.reach_host
            && request.attachments.iter().all(|a| a.network == DEFAULT_NETWORK && a.links.is_empty());
        if !request.env.shared || apart {
            return Self::apart(request, &lives);
        }
        let ground = Ground::join(&request.env)?;
        Self::on_bridges(request, &lives, Some(ground))
    }

    fn new(request: JoinRequest, netns: OwnedFd, held: Held, ground: Option<Ground>) -> Self {
        let live = LiveNetwork {
            id: request.id.clone(),
            name: request.name.clone(),
            hostname: request.hostname.clone(),
            netns: format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd()).into(),
            exposed: request.exposed.clone(),
            env: request.environment.clone(),
            rootless: request.env.rootless && ground.is_none(),
            ..LiveNetwork::default()
        };
        Self {
            request,
            live,
            netns,
            keepers: Vec::new(),
            names: false,
            private: None,
            warnings: ground.iter().flat_map(|ground| ground.warnings.clone()).collect(),
            ground: ground.map(Arc::new),
            published: Vec::new(),
            link_hosts: Vec::new(),
            link_env: Vec::new(),
            held: Some(held),
            watch: Watch::default(),
        }
    }

    fn on_bridges(request: JoinRequest, lives: &Lives, ground: Option<Ground>) -> Result<Self, NetworkError> {
        let targets = targets(&request)?;
        let mut netns = Netns::new(false)?;
        let fd = netns.fd.try_clone().map_err(NetworkError::setup("keep the network namespace"))?;
        let alone = lock(&request.env)?;
        act_on(ground.as_ref(), || sweep(lives))?;
        let held = lives.hold(&request.id)?;
        let mut this = Self::new(request, fd, held, ground);
        let ground = this.ground.clone();
        let settled = act_on(ground.as_deref(), || this.settle(lives, &mut netns, &targets));
        // leaving takes the lock, also after a failure
        drop(alone);
        settled?;
        this.keep(lives)?;
        this.begin_watch();
        Ok(this)
    }

    fn settle(&mut self, lives: &Lives, netns: &mut Netns, targets: &[Target]) -> Result<(), NetworkError> {
        run(&mut netns.route, &[netlink_route::link_up(LOOPBACK)])
            .map_err(NetworkError::setup("set the loopback interface up"))?;
        for (attachment, target) in self.request.attachments.clone().iter().zip(targets) {
            self.take_place(lives, netns, attachment, target)?;
        }
        lan::set_way_out(netns, &LiveNetwork::default(), &self.live)?;
        self.link(&lives.all())?;
        lives.write(&self.live)
    }

    fn take_place(
        &mut self,
        lives: &Lives,
        netns: &mut Netns,
        attachment: &Attachment,
        target: &Target,
    ) -> Result<(), NetworkError> {
        let mut route =
            Netlink::open(Protocol::Route).map_err(NetworkError::setup("open a netlink socket"))?;
        let used = |n: usize| self.live.endpoints.iter().any(|e| e.inside == format!("eth{n}"));
        let number = (0..).find(|n| !used(*n)).unwrap_or(0);
        let others = lives.all();
        let place = Place { target, wish: attachment, container: &self.live.id, number, others: &others };
        let (endpoint, warnings) = place.take(&mut route, netns)?;
        self.warnings.extend(warnings);
        self.live.endpoints.push(endpoint);
        Ok(())
    }

    /// A network of the container's own, connected by a helper program that the keeper looks after: rootless, where
    /// it cannot be on a ground with others.
    fn apart(request: JoinRequest, lives: &Lives) -> Result<Self, NetworkError> {
        if let Some(other) = request.attachments.iter().find(|a| a.network != DEFAULT_NETWORK) {
            // a wrong name is the nearer mistake
            Definitions::new(&request.dir).find(&other.network)?;
            return Err(NetworkError::Rootless { network: other.network.clone() });
        }
        let job = helper_job(&request, None);
        let (keeper, reply) = Keeper::start(&job)?;
        let private =
            reply.private.ok_or_else(|| NetworkError::Keeper { why: "there is no network".into() })?;
        let netns = std::fs::File::open(&private.netns)
            .map_err(NetworkError::setup("open the container's network namespace"))?;
        let alone = lock(&request.env)?;
        lives.sweep();
        let held = lives.hold(&request.id)?;
        let mut this = Self::new(request, netns.into(), held, None);
        drop(alone);
        this.live.netns.clone_from(&private.netns);
        this.live.ports = reply.ports;
        this.warnings = reply.warnings;
        this.live.endpoints.push(Endpoint {
            network: DEFAULT_NETWORK.into(),
            network_id: DEFAULT_ID.into(),
            endpoint_id: crate::digest::hex(&lan::random()?),
            aliases: Vec::new(),
            links: Vec::new(),
            v4: v4(private.address).map(|ip| (ip, 32)),
            v6: None,
            gateway: v4(private.gateway),
            gateway6: None,
            mac: None,
            inside: "eth0".into(),
            outside: String::new(),
            gw_priority: 0,
            named: false,
        });
        this.private = Some(private);
        this.keepers.push(keeper);
        if this.request.attachments.iter().any(|a| !a.links.is_empty()) {
            return Err(NetworkError::Rootless { network: "--link".into() });
        }
        lives.write(&this.live)?;
        this.begin_watch();
        Ok(this)
    }

    /// The namespace, to be entered with setns(2).
    #[must_use]
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// Addresses and ports as they are now.
    #[must_use]
    pub fn live(&self) -> &LiveNetwork {
        &self.live
    }

    /// What the user should know though all went well.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.keepers.clear();
        let alone = lock(&self.request.env);
        let lives = Lives::new(&self.request.dir);
        lives.forget(&self.live.id);
        self.held = None;
        if self.live.rootless {
            return;
        }
        if alone.is_ok() {
            // what cannot be removed now is found by the next one
            let _ = act_on(self.ground.as_deref(), || release(&self.live.endpoints));
        }
    }
}

/// What a keeper is to do for a container in a network of its own; `netns` is that network, if it is there already.
fn helper_job(request: &JoinRequest, netns: Option<PathBuf>) -> Job {
    Job {
        id: request.id.clone(),
        name: request.name.clone(),
        dir: request.dir.clone(),
        helper: Some(HelperJob {
            state_dir: request.env.state_dir.clone(),
            reach_host: request.env.reach_host,
            netns,
        }),
        netns: PathBuf::new(),
        rootless: true,
        ground: None,
        publish: request.publish.clone(),
        v4: None,
        v6: None,
        bridge: None,
        names: None,
    }
}

/// Does something where the bridges are.
fn act_on<T: Send>(
    ground: Option<&Ground>,
    act: impl FnOnce() -> Result<T, NetworkError> + Send,
) -> Result<T, NetworkError> {
    match ground {
        Some(ground) => ground.act(act),
        None => act(),
    }
}

fn release(endpoints: &[Endpoint]) -> Result<(), NetworkError> {
    let mut route = Netlink::open(Protocol::Route).map_err(NetworkError::setup("open a netlink socket"))?;
    lan::release(&mut route, endpoints)
}

fn v4(ip: Option<IpAddr>) -> Option<Ipv4Addr> {
    match ip {
        Some(IpAddr::V4(ip)) => Some(ip),
        _ => None,
    }
}

fn targets(request: &JoinRequest) -> Result<Vec<Target>, NetworkError> {
    let definitions = Definitions::new(&request.dir);
    request.attachments.iter().map(|a| target(&definitions, &a.network)).collect()
}

fn target(definitions: &Definitions, network: &str) -> Result<Target, NetworkError> {
    if network == DEFAULT_NETWORK {
        return Ok(Target::Default);
    }
    Ok(Target::User(Box::new(definitions.find(network)?)))
}

fn target_id(target: &Target) -> &str {
    match target {
        Target::Default => DEFAULT_ID,
        Target::User(definition) => &definition.id,
    }
}

/// Removes what killed containers left on the host, and their files in `dir`.
///
/// # Errors
/// The kernel's refusal.
pub fn sweep_networks(dir: &std::path::Path, env: &NetEnv) -> Result<(), NetworkError> {
    let _alone = lock(env)?;
    let lives = Lives::new(dir);
    if env.rootless {
        // the command is not where the bridges are; the next container that joins cleans them
        lives.sweep();
        return Ok(());
    }
    sweep(&lives)
}

/// The same for a caller that holds the lock.
fn sweep(lives: &Lives) -> Result<(), NetworkError> {
    let left: Vec<Endpoint> = lives.sweep().into_iter().flat_map(|live| live.endpoints).collect();
    release(&left)
}
