//! The network of one container: its namespace and the two files in `/etc` that go with it.

use super::containers::Containers;
use super::network_state::NetworkState;
use super::record::Record;
use super::{ContainerId, RunError};
use crate::network::{
    Attachment, ContainerNetwork, ContainerPort, DEFAULT_NETWORK, DnsRequest, ExtraHost, HostAddress,
    HostDns, JoinRequest, Membership, NetEnv, NetworkChange, NetworkError, PublishRequest, Reach, hosts_file,
    sweep_networks,
};
use crate::sandbox::{Network, rootless};
use crate::store::Store;
use crate::sys::inroot::open_in_root;
use rustix::fs::{self, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

/// What the command line says about the network; kept with the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRequest {
    /// `--network` and what goes with it.
    #[serde(default)]
    pub choice: ContainerNetwork,
    /// `--add-host`.
    #[serde(default)]
    pub extra_hosts: Vec<ExtraHost>,
    /// What `/etc/resolv.conf` says instead of what the host's does.
    #[serde(default)]
    pub dns: DnsRequest,
    /// `--publish`.
    #[serde(default)]
    pub publish: Vec<PublishRequest>,
    /// `--publish-all`.
    #[serde(default)]
    pub publish_all: bool,
    /// `--expose`.
    #[serde(default)]
    pub expose: Vec<ContainerPort>,
}

/// The container that joins.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Where networks and volumes are kept.
    pub store: &'a Store,
    /// Its id.
    pub id: &'a ContainerId,
    /// Its name, which others find it by.
    pub name: &'a str,
    /// Its host name.
    pub hostname: &'a str,
    /// The domain behind it, if one is set.
    pub domainname: &'a str,
    /// The ports that its image says it serves.
    pub exposed: &'a [ContainerPort],
    /// Its environment, which containers that link to it see.
    pub env: &'a [Vec<u8>],
}

/// A network that a container is about to join.
///
/// It lives in the container's monitor, which has one thread and copies itself to start processes: no thread stays
/// behind any call here. Dropping it leaves the networks.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) network: Network,
    pub(super) resolv_conf: Vec<u8>,
    pub(super) hosts: Vec<u8>,
    /// What links add to the environment.
    pub(super) env: Vec<Vec<u8>>,
    /// Lives as long as the container.
    membership: Option<Membership>,
    /// The first process, once it is there.
    pid: Option<u32>,
}

impl Joined {
    /// Gives what `ps` and `inspect` show.
    pub(super) fn state(&self) -> NetworkState {
        self.membership.as_ref().map(|m| NetworkState::of(m.live())).unwrap_or_default()
    }

    /// Takes note of the first process, which is about to execute the program.
    #[expect(clippy::unnecessary_wraps, reason = "a hook: what is done then may fail one day")]
    pub(super) fn started(&mut self, pid: u32) -> Result<(), RunError> {
        self.pid = Some(pid);
        Ok(())
    }

    /// Changes the networks of the running container, as the JSON of a [`NetworkChange`] says; the answer is empty.
    pub(super) fn change(&mut self, change: &[u8]) -> Result<Vec<u8>, RunError> {
        let change: NetworkChange = serde_json::from_slice(change)
            .map_err(|e| RunError::Refused(format!("the change of networks makes no sense: {e}")))?;
        let Some(membership) = &mut self.membership else {
            return match change {
                NetworkChange::Rename(_) => Ok(Vec::new()),
                _ => Err(RunError::Refused(
                    "a container that shares the network of the host or of another container, or has none, cannot \
                     be connected to a network or disconnected from one"
                        .into(),
                )),
            };
        };
        membership.change(&change)?;
        self.tell_container();
        Ok(Vec::new())
    }

    /// What becomes readable when [`Joined::look_after`] has something to do.
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.membership.iter().flat_map(Membership::watched)
    }

    /// Mends what has happened to the networks from outside.
    pub(super) fn look_after(&mut self) {
        if let Some(membership) = &mut self.membership {
            membership.look_after();
            self.tell_container();
        }
    }

    /// Brings the files in the running container up to date. The program may have put its own there; it keeps running
    /// either way.
    fn tell_container(&mut self) {
        let (Some(membership), Some(pid)) = (&self.membership, self.pid) else { return };
        let now = membership.resolv_conf();
        if now != self.resolv_conf {
            let _ = rewrite_in_container(pid, "etc/resolv.conf", &now);
            self.resolv_conf = now;
        }
        let Ok(now) = membership.hosts() else { return };
        if now != self.hosts {
            // what others have added stays
            if let Ok(there) = read_in_container(pid, "etc/hosts") {
                let _ =
                    rewrite_in_container(pid, "etc/hosts", &brought_up_to_date(&there, &self.hosts, &now));
            }
            self.hosts = now;
        }
    }
}

/// Takes the lines that are only in `before` out of a text, and adds those that are only in `now`.
fn brought_up_to_date(text: &[u8], before: &[u8], now: &[u8]) -> Vec<u8> {
    let lines = |text: &[u8]| -> Vec<Vec<u8>> {
        text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
    };
    let (before, now) = (lines(before), lines(now));
    let mut all = lines(text);
    all.retain(|line| now.contains(line) || !before.contains(line));
    for line in now {
        if !before.contains(&line) && !all.contains(&line) {
            all.push(line);
        }
    }
    all.into_iter().flat_map(|line| [line, b"\n".to_vec()].concat()).collect()
}

/// Replaces what is in a file of a running container, in place since it is a mount.
fn rewrite_in_container(pid: u32, path: &str, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let root = fs::open(format!("/proc/{pid}/root"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NONBLOCK;
    let file = open_in_root(&root, std::ffi::OsStr::new(path), flags, Mode::empty())?;
    std::fs::File::from(file).write_all(content)
}

fn read_in_container(pid: u32, path: &str) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let root = fs::open(format!("/proc/{pid}/root"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = open_in_root(&root, std::ffi::OsStr::new(path), flags, Mode::empty())?;
    let mut text = Vec::new();
    std::fs::File::from(file).take(FILE_LIMIT).read_to_end(&mut text)?;
    Ok(text)
}

/// Takes away what a container has of networks on the host after its monitor was killed.
pub(super) fn clean(containers: &Containers, _record: &Record, _state: &NetworkState) {
    // what cannot be removed now is found by whoever joins a network next
    let _ = sweep_networks(&networks(containers.store()), &NetEnv::new(rootless::state().is_some()));
}

/// Gives back what is reserved for a container, which is being removed.
pub(super) fn forget(_containers: &Containers, _record: &Record) {
    // a container that does not run has nothing in any network
}

/// The directory of a store's files about networks.
pub fn networks(store: &Store) -> PathBuf {
    store.root().join("networks")
}

impl NetworkRequest {
    /// Gives `HostConfig.PortBindings` of `inspect`.
    pub fn port_bindings(&self) -> serde_json::Value {
        let mut out = serde_json::Map::new();
        for publish in &self.publish {
            let port = match publish.host_ports {
                None => String::new(),
                Some((first, last)) if first == last => first.to_string(),
                Some((first, last)) => format!("{first}-{last}"),
            };
            let ip = publish.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
            let list = out.entry(publish.port.to_string()).or_insert_with(|| serde_json::json!([]));
            if let Some(list) = list.as_array_mut() {
                list.push(serde_json::json!({ "HostIp": ip, "HostPort": port }));
            }
        }
        out.into()
    }

    /// Checks what can be checked before there is a container.
    ///
    /// # Errors
    /// [`NetworkError::Conflict`]: wishes that do not fit together.
    pub fn check(&self) -> Result<(), NetworkError> {
        let conflict = |why: String| Err(NetworkError::Conflict { why });
        match &self.choice {
            ContainerNetwork::Container(_) => self.check_shared(),
            ContainerNetwork::Networks(all) => {
                for (n, one) in all.iter().enumerate() {
                    if all[..n].iter().any(|before| before.network == one.network) {
                        return conflict(format!("network {:?} is specified multiple times", one.network));
                    }
                    if one.network != DEFAULT_NETWORK {
                        continue;
                    }
                    if !one.aliases.is_empty() {
                        return conflict(
                            "network-scoped aliases are only supported for user-defined networks".into(),
                        );
                    }
                    if one.ip.is_some() || one.ip6.is_some() {
                        return conflict(
                            "user specified IP address is supported on user defined networks only".into(),
                        );
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What a container can have that is in the network of another: nothing of its own.
    fn check_shared(&self) -> Result<(), NetworkError> {
        let what = if !self.dns.servers.is_empty() {
            "dns and the network mode"
        } else if !self.extra_hosts.is_empty() {
            "custom host-to-IP mapping and the network mode"
        } else if !self.publish.is_empty() || self.publish_all {
            "port publishing and the container type network mode"
        } else if !self.expose.is_empty() {
            "port exposing and the container type network mode"
        } else {
            return Ok(());
        };
        Err(NetworkError::Conflict { why: format!("conflicting options: {what}") })
    }

    /// Puts ids in the place of the names of other containers, so that these may be renamed.
    ///
    /// # Errors
    /// A container is not there.
    pub(super) fn resolve(&mut self, containers: &Containers) -> Result<(), RunError> {
        match &mut self.choice {
            ContainerNetwork::Container(other) => *other = containers.find(other)?.record.id.to_string(),
            ContainerNetwork::Networks(all) => {
                // elsewhere a link is a name like others, which is looked up when it is asked for
                for link in all.iter_mut().filter(|a| a.network == DEFAULT_NETWORK).flat_map(|a| &mut a.links)
                {
                    let found = containers.find(&link.target).map_err(|error| {
                        RunError::Refused(format!("could not get container for {}: {error}", link.target))
                    })?;
                    link.target = found.record.id.to_string();
                    link.name = Some(found.record.name.to_string());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The links of the default bridge, with the present names of the containers: `db`, `store` for `--link db:store`.
    pub fn links(&self, containers: &Containers) -> Vec<(String, String)> {
        let ContainerNetwork::Networks(all) = &self.choice else { return Vec::new() };
        let links = all.iter().filter(|a| a.network == DEFAULT_NETWORK).flat_map(|a| &a.links);
        links
            .map(|link| {
                let found = containers.find(&link.target).map(|found| found.record.name.to_string());
                let known = || link.name.clone().unwrap_or_else(|| link.target.clone());
                (found.unwrap_or_else(|_| known()), link.alias.clone())
            })
            .collect()
    }

    /// Makes what is asked for. Without the programs for a private network an ordinary user who did not ask for one
    /// gets the host's, and is told.
    pub(super) fn join(&self, who: &Member<'_>, note: &mut dyn FnMut(&str)) -> Result<Joined, RunError> {
        let default = || vec![Attachment::to(DEFAULT_NETWORK)];
        match &self.choice {
            ContainerNetwork::None => self.without_namespace(Network::None),
            ContainerNetwork::Host => {
                if !self.publish.is_empty() || self.publish_all {
                    note("WARNING: Published ports are discarded when using host network mode\n");
                }
                self.without_namespace(Network::Host)
            }
            ContainerNetwork::Container(other) => self.with_other(who.store, other),
            ContainerNetwork::Networks(all) => {
                let mut all = all.clone();
                let containers = Containers::new(who.store);
                for link in all.iter_mut().flat_map(|a| &mut a.links).filter(|link| link.name.is_some()) {
                    // it may have been renamed
                    link.name = containers.find(&link.target).ok().map(|found| found.record.name.to_string());
                }
                self.member(who, all, note)
            }
            ContainerNetwork::Default => match self.member(who, default(), note) {
                Err(RunError::Network(error @ NetworkError::NoHelper)) if self.publish.is_empty() => {
                    let hint = error.hint().unwrap_or_default();
                    note(&format!(
                        "warning: {error}; the container uses the host's network instead ({hint})\n"
                    ));
                    self.without_namespace(Network::Host)
                }
                other => other,
            },
        }
    }

    fn member(
        &self,
        who: &Member<'_>,
        attachments: Vec<Attachment>,
        note: &mut dyn FnMut(&str),
    ) -> Result<Joined, RunError> {
        let mut env = NetEnv::new(rootless::state().is_some());
        env.shared = rootless::state().is_some_and(|state| state.shared);
        env.reach_host = self.extra_hosts.iter().any(|host| host.address == HostAddress::Gateway);
        let membership = Membership::join(JoinRequest {
            dir: networks(who.store),
            env,
            id: who.id.to_string(),
            name: who.name.to_owned(),
            hostname: who.hostname.to_owned(),
            domainname: who.domainname.to_owned(),
            exposed: self.exposed(who.exposed),
            environment: who.env.iter().map(|entry| String::from_utf8_lossy(entry).into_owned()).collect(),
            attachments,
            publish: self.published(who.exposed),
            dns: self.dns.clone(),
            extra_hosts: self.extra_hosts.clone(),
        })?;
        membership.warnings().iter().for_each(|warning| note(&format!("warning: {warning}\n")));
        let copy =
            membership.netns().try_clone_to_owned().map_err(RunError::io("keep the network namespace"))?;
        Ok(Joined {
            network: Network::Join(copy.into()),
            resolv_conf: membership.resolv_conf(),
            hosts: membership.hosts()?,
            env: membership.environment().iter().map(|entry| entry.clone().into_bytes()).collect(),
            membership: Some(membership),
            pid: None,
        })
    }

    /// All ports that the container serves: the image's, `--expose`, `--publish`.
    pub fn exposed(&self, image: &[ContainerPort]) -> Vec<ContainerPort> {
        let published = self.publish.iter().map(|request| &request.port);
        let mut all: Vec<_> = image.iter().chain(&self.expose).chain(published).copied().collect();
        all.sort();
        all.dedup();
        all
    }

    /// The ports to publish, with `-P` all that are exposed.
    fn published(&self, image: &[ContainerPort]) -> Vec<PublishRequest> {
        let mut all = self.publish.clone();
        if self.publish_all {
            let named = |port: &ContainerPort| self.publish.iter().any(|request| request.port == *port);
            let others = self.exposed(image).into_iter().filter(|port| !named(port));
            all.extend(others.map(|port| PublishRequest { host_ip: None, host_ports: None, port }));
        }
        all
    }

    /// The network of another container, with its files.
    fn with_other(&self, store: &Store, other: &str) -> Result<Joined, RunError> {
        let found = Containers::new(store).find(other)?;
        let pid = found.state.pid;
        if !found.state.status.is_live() || pid == 0 {
            return Err(RunError::Refused(format!(
                "cannot join network of a non running container: {}",
                found.record.id
            )));
        }
        if rootless::state().is_some_and(|state| !state.shared) {
            return Err(NetworkError::Rootless { network: format!("container:{other}") }.into());
        }
        let read = |path| read_in_container(pid, path).unwrap_or_default();
        Ok(Joined {
            network: Network::JoinPath(format!("/proc/{pid}/ns/net").into()),
            resolv_conf: read("etc/resolv.conf"),
            hosts: read("etc/hosts"),
            env: Vec::new(),
            membership: None,
            pid: None,
        })
    }

    fn without_namespace(&self, network: Network) -> Result<Joined, RunError> {
        let dns = HostDns::read();
        let (resolv_conf, hosts) = match &network {
            // its own name servers, also those on loopback, and its own names can be reached
            Network::Host => (dns.main.clone(), hosts_of_host(&host_file("/etc/hosts"), &self.extra_hosts)),
            _ => (dns.render(&dns.servers(Reach::Dual)), hosts_file("", None, None, &self.extra_hosts)?),
        };
        Ok(Joined {
            network,
            resolv_conf: self.dns.apply(resolv_conf),
            hosts,
            env: Vec::new(),
            membership: None,
            pid: None,
        })
    }
}

/// More of a file of the host is not passed on, in bytes.
const FILE_LIMIT: u64 = 1 << 20;

fn host_file(path: &str) -> Vec<u8> {
    use std::io::Read;
    let mut text = Vec::new();
    // a host without one gives an empty one
    let _ = std::fs::File::open(path).and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut text));
    text
}

/// The host's own file with further entries; the host itself is at its loopback there.
fn hosts_of_host(own: &[u8], extra: &[ExtraHost]) -> Vec<u8> {
    let mut out = own.to_vec();
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.push(b'\n');
    }
    for host in extra {
        let ip = match host.address {
            HostAddress::Ip(ip) => ip,
            HostAddress::Gateway => IpAddr::from([127, 0, 0, 1]),
        };
        out.extend_from_slice(format!("{ip}\t{}\n", host.name).as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_file_that_others_have_changed_is_brought_up_to_date() {
        let now = brought_up_to_date(b"l\n1 own\n9 theirs", b"l\n1 own\n2 old\n", b"l\n3 new\n1 own\n");
        assert_eq!(now, b"l\n1 own\n9 theirs\n3 new\n");
        assert_eq!(brought_up_to_date(b"", b"l\n1 own\n", b"l\n"), b"");
    }

    #[test]
    fn the_hosts_file_of_the_host_is_added_to() {
        let extra: Vec<ExtraHost> = ["db:10.0.0.7", "up:host-gateway"].map(|e| e.parse().unwrap()).to_vec();
        let file = hosts_of_host(b"127.0.0.1 localhost\n10.9.9.9 vm", &extra);
        assert_eq!(file, b"127.0.0.1 localhost\n10.9.9.9 vm\n10.0.0.7\tdb\n127.0.0.1\tup\n");
        assert_eq!(hosts_of_host(b"", &[]), b"");
    }
}
