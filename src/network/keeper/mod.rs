//! A process beside a container's monitor that keeps what a network needs somebody for: published ports, the name server,
//! the rootless way out.
//!
//! It is rbuild executed anew, since a monitor has one thread and copies itself, and this needs threads and another
//! network namespace. It gets its [`Job`] on standard input, answers with a [`Reply`] on standard output, and ends when
//! its input is closed or its parent dies. All that it holds goes with it, however it dies: sockets by the kernel, the
//! rules of published ports because their table belongs to its netlink socket, the lock that says that the container
//! runs. A container that needs none of this has no keeper.

mod bind;
mod datagram;
mod forward;
mod message;
mod names;
mod resolver;

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitCode, Stdio},
};

use nix::sched::{CloneFlags, setns};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::{
    HostDns, NetEnv, NetworkError, PortBinding, PrivateNetwork, PublishRequest, Transport, live::Lives,
    netns::inside,
};
use crate::sys::{
    leash,
    netlink::Netlink,
    netlink_conntrack as conntrack,
    netlink_nft::{self as nft, Batch, Expr, Family, Hook},
};

pub(super) use resolver::ADDRESS as NAME_SERVER;

/// The name under which this program is executed as a keeper.
const NAME: &str = "rbuild-net";
/// The longest job or reply, in bytes.
const LIMIT: u64 = 16 << 20;
/// What the names of the tables of published ports begin with.
pub(super) const PORT_TABLES: &str = "rbuild-p-";
/// `NF_IP_PRI_NAT_DST`.
const DESTINATION_NAT: i32 = -100;

/// What a keeper shall do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// The container's id.
    pub(super) id: String,
    /// Its name, for messages.
    pub(super) name: String,
    /// Where files about networks are.
    pub(super) dir: PathBuf,
    /// Make a private network by a helper program first.
    pub(super) helper: Option<HelperJob>,
    /// The container's network namespace; the helper's, if that makes one.
    pub(super) netns: PathBuf,
    /// Whether an ordinary user runs the container.
    pub(super) rootless: bool,
    /// The network namespace from which such a container is reached; its own where there is none.
    pub(super) ground: Option<PathBuf>,
    /// Ports to publish.
    pub(super) publish: Vec<PublishRequest>,
    /// Where they lead; the helper's address, if that makes a network.
    pub(super) v4: Option<Ipv4Addr>,
    /// Where they lead.
    pub(super) v6: Option<Ipv6Addr>,
    /// The bridge of the container: who is on it reaches the ports through the forwarder.
    pub(super) bridge: Option<String>,
    /// Serve names, and ask these servers for those that are not containers'.
    pub(super) names: Option<Vec<IpAddr>>,
}

/// How to make a private network for an ordinary user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct HelperJob {
    /// See [`NetEnv`].
    pub(super) state_dir: PathBuf,
    /// See [`NetEnv`].
    pub(super) reach_host: bool,
    /// A network that is there already and has lost its helper.
    pub(super) netns: Option<PathBuf>,
}

/// What a keeper has done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Reply {
    /// What could not be done; the keeper ends then.
    pub(super) failure: Option<KeeperFailure>,
    /// Ports as published.
    pub(super) ports: Vec<PortBinding>,
    /// The network that a helper made.
    pub(super) private: Option<Private>,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

/// A network that a helper program connects.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Private {
    pub(super) netns: PathBuf,
    pub(super) address: Option<IpAddr>,
    pub(super) gateway: Option<IpAddr>,
    pub(super) resolv_conf: Vec<u8>,
}

/// An error on its way from the keeper.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum KeeperFailure {
    Bind { container: String, at: String, why: String },
    NoHelper,
    Other(String),
}

impl From<NetworkError> for KeeperFailure {
    fn from(error: NetworkError) -> Self {
        match error {
            NetworkError::Bind { container, at, why } => Self::Bind { container, at, why },
            NetworkError::NoHelper => Self::NoHelper,
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<KeeperFailure> for NetworkError {
    fn from(failure: KeeperFailure) -> Self {
        match failure {
            KeeperFailure::Bind { container, at, why } => Self::Bind { container, at, why },
            KeeperFailure::NoHelper => Self::NoHelper,
            KeeperFailure::Other(why) => Self::Keeper { why },
        }
    }
}

/// A running keeper; ended when dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    child: Child,
    /// Closed to end it.
    order: Option<ChildStdin>,
    /// Readable when it has ended.
    ended: Option<OwnedFd>,
}

impl Keeper {
    /// Starts one and waits until the job is done as far as it can be.
    pub(super) fn start(job: &Job) -> Result<(Self, Reply), NetworkError> {
        let failed = || NetworkError::setup("start the process that keeps the container's network");
        let mut command = Command::new("/proc/self/exe");
        command.arg0(NAME).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        leash::die_with_spawner(&mut command);
        let mut child = command.spawn().map_err(failed())?;
        let mut order = child.stdin.take().expect("stdin was asked to be a pipe");
        let answer = child.stdout.take().expect("stdout was asked to be a pipe");
        // a kernel without it has nobody to tell of a keeper that was killed
        let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).ok();
        let mut keeper = Self { child, order: None, ended };
        let text = serde_json::to_string(job).map_err(|e| failed()(e.into()))?;
        writeln!(order, "{text}").map_err(failed())?;
        keeper.order = Some(order);
        let mut line = String::new();
        BufReader::new(answer.take(LIMIT)).read_line(&mut line).map_err(failed())?;
        let reply: Reply = serde_json::from_str(&line)
            .map_err(|_| failed()(io::Error::other("it ended without an answer")))?;
        match reply.failure {
            Some(failure) => Err(failure.into()),
            None => Ok((keeper, reply)),
        }
    }

    /// Becomes readable when the process has ended.
    pub(super) fn ended(&self) -> Option<BorrowedFd<'_>> {
        self.ended.as_ref().map(AsFd::as_fd)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.order = None;
        // it would end by itself; this is sooner
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves as a keeper when this process was executed as one, and gives its exit code; `None` in every other case.
pub(super) fn helper_main() -> Option<ExitCode> {
    let asked = std::env::args_os().next().is_some_and(|name| name == NAME);
    asked.then(|| {
        // what `ps` shows; without it the name of the file that was executed, which says nothing
        let _ = rustix::thread::set_name(c"rbuild-net");
        // nobody reads what it would say; the reply has told the parent
        let code = u8::from(serve().is_err());
        ExitCode::from(code)
    })
}

/// What must live as long as the keeper.
struct Kept {
    _private: Option<PrivateNetwork>,
    _table: Option<Netlink>,
    sources: Vec<forward::Source>,
}

fn serve() -> io::Result<()> {
    let mut order = io::stdin().lock();
    let mut line = String::new();
    (&mut order).take(LIMIT).read_line(&mut line)?;
    let job: Job = serde_json::from_str(&line)?;
    raise_limits();
    let mut reply = Reply::default();
    let kept = match set_up(&job, &mut reply) {
        Ok(kept) => Some(kept),
        Err(error) => {
            reply = Reply { failure: Some(error.into()), ..Reply::default() };
            None
        }
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(&reply)?)?;
    out.flush()?;
    let Some(kept) = kept else { return Ok(()) };
    let Kept { _private: private, _table: table, sources } = kept;
    let served = forward::serve(io::stdin().as_fd(), sources);
    drop((private, table));
    served
}

/// Many connections need many descriptors.
fn raise_limits() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
}

fn set_up(job: &Job, reply: &mut Reply) -> Result<Kept, NetworkError> {
    let failed = || NetworkError::setup("enter the container's network");
    let mut target = bind::Target { v4: job.v4, v6: job.v6 };
    let mut netns = job.netns.clone();
    let mut private = None;
    if let Some(helper) = &job.helper {
        let mut env = NetEnv::new(true);
        env.state_dir.clone_from(&helper.state_dir);
        env.reach_host = helper.reach_host;
        let network = match &helper.netns {
            Some(path) => {
                let netns = std::fs::File::open(path).map_err(failed())?;
                PrivateNetwork::reconnect(&env, netns.into())?
            }
            None => PrivateNetwork::create(&env)?,
        };
        netns = format!("/proc/{}/fd/{}", std::process::id(), network.netns().as_raw_fd()).into();
        match network.address() {
            Some(IpAddr::V4(ip)) => target.v4 = Some(ip),
            Some(IpAddr::V6(ip)) => target.v6 = Some(ip),
            None => target.v4 = Some(Ipv4Addr::LOCALHOST),
        }
        reply.warnings.extend(network.warnings().iter().cloned());
        reply.private = Some(Private {
            netns: netns.clone(),
            address: network.address(),
            gateway: network.gateway(),
            resolv_conf: network.resolv_conf(),
        });
        private = Some(network);
    }
    let (sources, bindings) = bind::take(&job.name, &job.publish, target, job.rootless)?;
    let mut table = None;
    if !job.rootless && !bindings.is_empty() {
        match rewrite(job, &bindings) {
            Ok(socket) => table = Some(socket),
            Err(e) => reply.warnings.push(format!(
                "published ports are passed on by a program, since the kernel cannot rewrite their packets: {e}"
            )),
        }
    }
    reply.ports = bindings;
    if let Some(servers) = &job.names {
        let file = std::fs::File::open(&netns).map_err(failed())?;
        let sockets = resolver::Sockets::open(file.as_fd())
            .map_err(NetworkError::setup("open the name server's sockets in the container's network"))?;
        let names = names::Names::new(Lives::new(&job.dir), job.id.clone());
        let servers = if servers.is_empty() { HostDns::read().all_servers() } else { servers.clone() };
        resolver::serve(sockets, names, servers)
            .map_err(NetworkError::setup("start the container's name server"))?;
    }
    if job.rootless && !sources.is_empty() {
        // the host cannot reach the container's addresses, so connections to it are made from where they are known
        let file = std::fs::File::open(job.ground.as_ref().unwrap_or(&netns)).map_err(failed())?;
        inside(file.as_fd(), || ()).map_err(failed())?;
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| failed()(errno.into()))?;
    }
    Ok(Kept { _private: private, _table: table, sources })
}

/// Has the kernel rewrite packets for the published ports, those from the outside and the host's own but those on the
/// loopback, which only the forwarder can pass on. The table lives as long as the socket that is given.
fn rewrite(job: &Job, bindings: &[PortBinding]) -> io::Result<Netlink> {
    let mut netlink = nft::open()?;
    let name = format!("{PORT_TABLES}{}", job.id.get(..12).unwrap_or(&job.id));
    let mut batch = rules(job, bindings, &name, true);
    if batch.commit(&mut netlink).is_err() {
        // before Linux 5.12 a table has no owner; it is swept by its name then
        batch = rules(job, bindings, &name, false);
        batch.commit(&mut netlink)?;
    }
    forget_flows(bindings);
    Ok(netlink)
}

/// Clients that go on sending datagrams are passed on to where the container was before; that is to be decided anew. Other
/// protocols notice by themselves.
fn forget_flows(bindings: &[PortBinding]) {
    let Ok(mut netlink) = nft::open() else { return };
    for binding in bindings.iter().filter(|b| b.port.transport == Transport::Udp) {
        let family = if binding.host_ip.is_ipv4() { 2 } else { 10 };
        // where the kernel does not tell of connections, they end after a pause of half a minute
        let _ = conntrack::forget(&mut netlink, family, Transport::Udp.number(), binding.host_port);
    }
}

fn rules(job: &Job, bindings: &[PortBinding], table: &str, owned: bool) -> Batch {
    let mut batch = Batch::new();
    if owned {
        batch.owned_table(Family::Inet, table, &job.name);
    } else {
        batch.table(Family::Inet, table, &job.name);
    }
    for (chain, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        batch.chain(Family::Inet, table, chain, "nat", hook, DESTINATION_NAT);
        for binding in bindings.iter().filter(|b| !b.host_ip.is_loopback()) {
            let to: IpAddr = match (binding.host_ip, job.v4, job.v6) {
                (IpAddr::V4(_), Some(ip), _) => ip.into(),
                (IpAddr::V6(_), _, Some(ip)) => ip.into(),
                // of the other family: the forwarder passes it on
                _ => continue,
            };
            let mut rule = match binding.host_ip {
                IpAddr::V4(_) => vec![Expr::IsIpv4, Expr::NotToLoopback],
                IpAddr::V6(_) => vec![Expr::IsIpv6, Expr::NotToLoopback6],
            };
            rule.push(if binding.host_ip.is_unspecified() {
                Expr::ToLocal
            } else {
                Expr::DestinationIs(binding.host_ip)
            });
            if let Some(bridge) = job.bridge.as_ref().filter(|_| {
                // answers on the same bridge would not come back this way; the forwarder takes those, but SCTP
                hook == Hook::Prerouting && binding.port.transport != Transport::Sctp
            }) {
                rule.push(Expr::NotInterfaceIn(bridge.clone()));
            }
            rule.extend([
                Expr::Protocol(binding.port.transport.number()),
                Expr::DestinationPort(binding.host_port),
                Expr::RedirectTo(to, binding.port.number),
            ]);
            batch.append_rule(Family::Inet, table, chain, &rule);
        }
    }
    batch
}
