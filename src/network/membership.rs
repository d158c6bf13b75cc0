//! A container's membership in its networks, from before its start to after its end.
//!
//! Held by the container's monitor. What needs a process of its own is in a keeper; the interfaces belong to the network
//! namespace and go with it at the latest. A monitor that is killed takes its keeper along, and what then remains (a
//! file, an empty bridge with its rules) is removed by whoever joins or leaves a network next.

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    ContainerPort, Definitions, DnsRequest, ExtraHost, HostDns, NetEnv, NetworkDefinition, NetworkError,
    PortBinding, PublishRequest, Reach,
    bridge::{BRIDGE, lock},
    ground::Ground,
    hosts_file,
    keeper::{HelperJob, Job, Keeper, NAME_SERVER, Private},
    lan::{self, DEFAULT_ID, Place, Target},
    links,
    live::{Endpoint, Held, LiveNetwork, Lives},
    netns::{LOOPBACK, Netns, run},
    request::{Attachment, DEFAULT_NETWORK},
};
use crate::sys::{
    netlink::{Netlink, Protocol},
    netlink_route,
};

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

/// A change to the networks of a running container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum NetworkChange {
    /// `network connect`.
    Connect(Attachment),
    /// `network disconnect`, by the network's name or id.
    Disconnect(String),
    /// `rename`: the container's new name.
    Rename(String),
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
    link_hosts: String,
    link_env: Vec<String>,
    held: Option<Held>,
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
            link_hosts: String::new(),
            link_env: Vec::new(),
            held: Some(held),
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

    /// The ports that are still to be published: those that have been keep their numbers.
    fn to_publish(&self) -> Vec<PublishRequest> {
        if !self.published.is_empty() {
            let again = |b: &PortBinding| PublishRequest {
                host_ip: Some(b.host_ip),
                host_ports: Some((b.host_port, b.host_port)),
                port: b.port,
            };
            return if self.live.ports.is_empty() {
                self.published.iter().map(again).collect()
            } else {
                Vec::new()
            };
        }
        self.request.publish.clone()
    }

    /// Gives ports back whose target is not the container's way out any more, so that they are published anew.
    fn withdraw(&mut self, before: &LiveNetwork) {
        let target =
            |live: &LiveNetwork| live.way_out(true).or(live.way_out(false)).map(|e| e.endpoint_id.clone());
        if !self.live.ports.is_empty() && target(before) != target(&self.live) {
            self.published = std::mem::take(&mut self.live.ports);
            self.keepers.clear();
            self.names = false;
        }
    }

    /// Starts a keeper when there is something to keep.
    fn keep(&mut self, lives: &Lives) -> Result<(), NetworkError> {
        let wants_names = self.live.endpoints.iter().any(|e| e.named) && !self.names;
        // nothing comes into a network without a way out
        let way_out = self.live.way_out(true).or(self.live.way_out(false)).cloned();
        let publish = if way_out.is_some() { self.to_publish() } else { Vec::new() };
        if !wants_names && publish.is_empty() {
            return Ok(());
        }
        let way_out = way_out.as_ref().or(self.live.endpoints.first());
        let definition = match way_out.filter(|e| e.named) {
            Some(endpoint) => Some(Definitions::new(&self.request.dir).find(&endpoint.network_id)?),
            None => None,
        };
        let binding = definition.as_ref().and_then(NetworkDefinition::binding);
        let bind = |request: PublishRequest| {
            let host_ip =
                request.host_ip.or(binding).filter(|ip| !ip.is_unspecified() || request.host_ip.is_some());
            PublishRequest { host_ip, ..request }
        };
        let job = Job {
            id: self.live.id.clone(),
            name: self.live.name.clone(),
            dir: self.request.dir.clone(),
            helper: None,
            netns: self.live.netns.clone(),
            rootless: self.request.env.rootless,
            ground: self.ground.as_ref().map(|ground| ground.path.clone()),
            publish: publish.into_iter().map(bind).collect(),
            v4: way_out.and_then(|e| e.v4).map(|n| n.0),
            v6: way_out.and_then(|e| e.v6).map(|n| n.0),
            bridge: way_out.map(|_| definition.map_or_else(|| BRIDGE.to_owned(), |d| d.bridge())),
            names: wants_names.then(|| self.request.dns.servers.clone()),
        };
        let (keeper, reply) = Keeper::start(&job)?;
        self.keepers.push(keeper);
        self.names |= wants_names;
        self.warnings.extend(reply.warnings);
        if !reply.ports.is_empty() {
            self.published.clone_from(&reply.ports);
            self.live.ports = reply.ports;
            lives.write(&self.live)?;
        }
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
        let job = Job {
            id: request.id.clone(),
            name: request.name.clone(),
            dir: request.dir.clone(),
            helper: Some(HelperJob {
                state_dir: request.env.state_dir.clone(),
                reach_host: request.env.reach_host,
            }),
            netns: PathBuf::new(),
            rootless: true,
            ground: None,
            publish: request.publish.clone(),
            v4: None,
            v6: None,
            bridge: None,
            names: None,
        };
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
        Ok(this)
    }

    /// Finds the containers that are linked to on the default bridge.
    fn link(&mut self, others: &[LiveNetwork]) -> Result<(), NetworkError> {
        let own = self.live.name.clone();
        let places = self.live.endpoints.iter().filter(|e| !e.named);
        for link in places.flat_map(|e| &e.links) {
            let missing = || NetworkError::Endpoint {
                why: format!(
                    "Cannot link to a non running container: /{} AS /{own}/{}",
                    link.target, link.alias
                ),
            };
            let is = |l: &&LiveNetwork| {
                l.name == link.target || (link.target.len() >= 6 && l.id.starts_with(&link.target))
            };
            let target = others.iter().find(is).ok_or_else(missing)?;
            let place = target.endpoint(DEFAULT_ID).and_then(|e| e.v4).ok_or_else(missing)?;
            self.link_hosts.push_str(&links::hosts_line(&link.alias, target, place.0));
            self.link_env.extend(links::environment(&own, &link.alias, target, place.0));
        }
        Ok(())
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

    /// Variables that links add.
    #[must_use]
    pub fn environment(&self) -> &[String] {
        &self.link_env
    }

    /// The content of `/etc/resolv.conf`.
    #[must_use]
    pub fn resolv_conf(&self) -> Vec<u8> {
        let dns = &self.request.dns;
        if let Some(private) = &self.private {
            return dns.apply(private.resolv_conf.clone());
        }
        if !self.names {
            let conf = self.ground.as_ref().map(|ground| ground.resolv_conf.clone());
            return dns.apply(conf.unwrap_or_else(|| HostDns::read().render_for(Reach::V4)));
        }
        // the user's servers are asked by the name server
        let rest = DnsRequest { servers: Vec::new(), ..dns.clone() };
        let mut conf = rest.apply(HostDns::read().render(&[NAME_SERVER.into()]));
        if !dns.options.iter().any(|option| option.starts_with("ndots")) {
            // names of containers have no dots
            conf.extend_from_slice(b"options ndots:0\n");
        }
        conf
    }

    /// The content of `/etc/hosts`.
    ///
    /// # Errors
    /// [`NetworkError::NoHostGateway`].
    pub fn hosts(&self) -> Result<Vec<u8>, NetworkError> {
        let gateway = match (&self.private, &self.ground) {
            (Some(private), _) => private.gateway,
            // the bridge is not the host
            (None, Some(_)) => None,
            (None, None) => self.live.way_out(true).and_then(|e| e.gateway).map(IpAddr::V4),
        };
        let mut own = self.live.endpoints.iter().flat_map(|e| {
            [e.v4.map(|n| IpAddr::V4(n.0)), e.v6.map(|n| IpAddr::V6(n.0))].into_iter().flatten()
        });
        let hostname = &self.request.hostname;
        let mut file = hosts_file(hostname, own.next(), gateway, &self.request.extra_hosts)?;
        for ip in own {
            file.extend_from_slice(format!("{ip}\t{hostname}\n").as_bytes());
        }
        file.extend_from_slice(self.link_hosts.as_bytes());
        Ok(file)
    }

    /// Changes the networks while the container runs.
    ///
    /// # Errors
    /// The network is not there, the container is in it already or is not, an address is taken.
    pub fn change(&mut self, change: &NetworkChange) -> Result<(), NetworkError> {
        let lives = Lives::new(&self.request.dir);
        match change {
            NetworkChange::Rename(name) => {
                self.live.name.clone_from(name);
                self.request.name.clone_from(name);
                lives.write(&self.live)
            }
            _ if self.live.rootless => Err(NetworkError::Rootless { network: DEFAULT_NETWORK.into() }),
            NetworkChange::Connect(attachment) => self.connect(&lives, attachment),
            NetworkChange::Disconnect(network) => self.disconnect(&lives, network),
        }
    }

    fn connect(&mut self, lives: &Lives, attachment: &Attachment) -> Result<(), NetworkError> {
        let target = target(&Definitions::new(&self.request.dir), &attachment.network)?;
        let id = target_id(&target);
        if self.live.endpoint(id).is_some() {
            let why = format!(
                "endpoint with name {} already exists in network {}",
                self.live.name, attachment.network
            );
            return Err(NetworkError::Endpoint { why });
        }
        let before = self.live.clone();
        let alone = lock(&self.request.env)?;
        let ground = self.ground.clone();
        act_on(ground.as_deref(), || self.move_in(lives, attachment, &target, &before))?;
        drop(alone);
        self.withdraw(&before);
        self.keep(lives)
    }

    fn move_in(
        &mut self,
        lives: &Lives,
        attachment: &Attachment,
        target: &Target,
        before: &LiveNetwork,
    ) -> Result<(), NetworkError> {
        sweep(lives)?;
        let mut netns = self.open()?;
        self.take_place(lives, &mut netns, attachment, target)?;
        let done = lan::set_way_out(&mut netns, before, &self.live).and_then(|()| lives.write(&self.live));
        if done.is_err()
            && let Some(half) = self.live.endpoints.pop()
        {
            let route = Netlink::open(Protocol::Route);
            // the error is told; what remains of the interface is found by the next one
            let _ = route.map(|mut route| lan::release(&mut route, &[half]));
        }
        done
    }

    fn disconnect(&mut self, lives: &Lives, network: &str) -> Result<(), NetworkError> {
        let is =
            |e: &Endpoint| e.network == network || (!network.is_empty() && e.network_id.starts_with(network));
        let Some(at) = self.live.endpoints.iter().position(is) else {
            let why = format!("container {} is not connected to network {network}", self.live.name);
            return Err(NetworkError::Endpoint { why });
        };
        let before = self.live.clone();
        let alone = lock(&self.request.env)?;
        let gone = self.live.endpoints.remove(at);
        act_on(self.ground.as_deref(), || release(&[gone]))?;
        let mut netns = self.open()?;
        lan::set_way_out(&mut netns, &before, &self.live)?;
        self.withdraw(&before);
        lives.write(&self.live)?;
        drop(alone);
        self.keep(lives)
    }

    fn open(&self) -> Result<Netns, NetworkError> {
        let path: PathBuf = format!("/proc/self/fd/{}", self.netns.as_raw_fd()).into();
        Netns::open(&path).map_err(NetworkError::setup("enter the container's network"))
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
