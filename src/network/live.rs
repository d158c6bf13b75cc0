//! What networks the running containers are in: one small file a container, and a lock that says that it still runs.
//!
//! The process that looks after a container holds the lock; however it dies, the lock goes, and a file without a held
//! lock is a leftover that the next command removes. So no process number has to be trusted, and `network connect` of
//! another process can rewrite the file while the container runs. Changes are made under the lock on networks
//! ([`super::NetEnv`]); readers need none, since files change in one step.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use rustix::fs::inotify;
use serde::{Deserialize, Serialize};

use super::{
    NetworkError,
    definition::{read, write_json},
    ports::ContainerPort,
    request::{Link, Mac},
};

/// The network of one running container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveNetwork {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its host name.
    pub hostname: String,
    /// Where its network namespace can be opened.
    pub netns: PathBuf,
    /// Its places in networks.
    pub endpoints: Vec<Endpoint>,
    /// Its published ports.
    pub ports: Vec<PortBinding>,
    /// The ports that it says it serves.
    pub exposed: Vec<ContainerPort>,
    /// Its environment, for containers that link to it.
    pub env: Vec<String>,
    /// Whether a user runs it, so that its interfaces are not the host's to change.
    pub rootless: bool,
}

/// A container's place in one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's name.
    pub network: String,
    /// The network's id.
    pub network_id: String,
    /// Random; 64 hexadecimal digits.
    pub endpoint_id: String,
    /// Names given for this network.
    pub aliases: Vec<String>,
    /// Other containers by names that only this one knows.
    pub links: Vec<Link>,
    /// Address, and bits of the network part.
    pub v4: Option<(Ipv4Addr, u8)>,
    /// Address, and bits of the network part.
    pub v6: Option<(Ipv6Addr, u8)>,
    /// The way out; `None` in an internal network.
    pub gateway: Option<Ipv4Addr>,
    /// The way out.
    pub gateway6: Option<Ipv6Addr>,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// The interface in the container.
    pub inside: String,
    /// The interface on the host.
    pub outside: String,
    /// The highest one has the default route.
    pub gw_priority: i64,
    /// Whether the network is of the user's making, so that names are known in it.
    pub named: bool,
}

/// A port of the host that leads to one of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    /// The port inside.
    pub port: ContainerPort,
    /// The host's address.
    pub host_ip: IpAddr,
    /// The host's port.
    pub host_port: u16,
}

impl LiveNetwork {
    /// Its place in a network, by the network's id.
    #[must_use]
    pub fn endpoint(&self, network_id: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|e| e.network_id == network_id)
    }

    /// The names that others find it by in a network, its own name first.
    pub fn names<'a>(&'a self, endpoint: &'a Endpoint) -> impl Iterator<Item = &'a str> {
        let short = self.id.get(..12).unwrap_or(&self.id);
        let own = [self.name.as_str()].into_iter();
        own.chain(endpoint.aliases.iter().map(String::as_str)).chain([short, self.hostname.as_str()])
    }

    /// Says which of its networks has the default route: the highest priority, then the first name.
    #[must_use]
    pub fn way_out(&self, v4: bool) -> Option<&Endpoint> {
        let leads = |e: &&Endpoint| if v4 { e.gateway.is_some() } else { e.gateway6.is_some() };
        let order = |e: &&Endpoint| (std::cmp::Reverse(e.gw_priority), e.network.clone());
        self.endpoints.iter().filter(leads).min_by_key(order)
    }
}

/// The running containers of one store.
#[derive(Clone, Debug)]
pub struct Lives {
    dir: PathBuf,
}

/// The sign that a container runs; given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    _lock: Flock<File>,
}

impl Lives {
    /// Looks at those in `dir`, which need not exist.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.join("live") }
    }

    /// Lists the containers that run now.
    #[must_use]
    pub fn all(&self) -> Vec<LiveNetwork> {
        self.ids().into_iter().filter(|id| self.is_held(id)).filter_map(|id| self.read(&id)).collect()
    }

    /// Gives one by its whole id; `None` when it does not run.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<LiveNetwork> {
        self.is_held(id).then(|| self.read(id)).flatten()
    }

    /// Finds one by name, id, or the beginning of an id that no other has.
    #[must_use]
    pub fn find(&self, word: &str) -> Option<LiveNetwork> {
        let mut all = self.all();
        if let Some(at) = all.iter().position(|live| live.name == word || live.id == word) {
            return Some(all.swap_remove(at));
        }
        all.retain(|live| !word.is_empty() && live.id.starts_with(word));
        if all.len() == 1 { all.pop() } else { None }
    }

    /// Gives something that becomes readable when a container comes, or what is known of one changes.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn watch(&self) -> io::Result<OwnedFd> {
        let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        // files come in one step
        inotify::add_watch(&events, &self.dir, inotify::WatchFlags::MOVED_TO)?;
        Ok(events)
    }

    fn ids(&self) -> Vec<String> {
        self.named(&[".json"])
    }

    /// Lists the ids of files with one of these endings, each once.
    fn named(&self, endings: &[&str]) -> Vec<String> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let id = |name: String| endings.iter().find_map(|end| name.strip_suffix(end).map(str::to_owned));
        names.filter_map(id).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    fn read(&self, id: &str) -> Option<LiveNetwork> {
        read(&self.dir.join(format!("{id}.json"))).ok()
    }

    fn lock_file(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.lock"))
    }

    fn is_held(&self, id: &str) -> bool {
        let Ok(file) = File::open(self.lock_file(id)) else { return false };
        matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, nix::errno::Errno::EWOULDBLOCK)))
    }

    /// Says that a container runs, until what is given is dropped.
    pub(super) fn hold(&self, id: &str) -> Result<Held, NetworkError> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        let work = || -> io::Result<Held> {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
            let mut options = File::options();
            options.write(true).create(true).truncate(false).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
            let file = options.open(self.lock_file(id))?;
            // somebody may be looking at this moment, so this waits
            let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
            Ok(Held { _lock: lock })
        };
        work().map_err(NetworkError::setup("note that the container is in its network"))
    }

    /// Keeps what is known of a container that runs.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, live: &LiveNetwork) -> Result<(), NetworkError> {
        // it says nothing any more once the machine has been off
        write_json(&self.dir, &live.id, live, false)
            .map_err(NetworkError::setup("note which networks the container is in"))
    }

    /// Takes the files of a container away.
    pub(super) fn forget(&self, id: &str) {
        let _ = std::fs::remove_file(self.dir.join(format!("{id}.json")));
        let _ = std::fs::remove_file(self.lock_file(id));
    }

    /// Removes what containers left whose process was killed. The caller holds the lock on networks, so that nobody is
    /// just beginning to hold one.
    pub(super) fn sweep(&self) -> Vec<LiveNetwork> {
        // one that was killed before it wrote its file has a lock alone
        let dead: Vec<String> =
            self.named(&[".json", ".lock"]).into_iter().filter(|id| !self.is_held(id)).collect();
        let found = dead.iter().filter_map(|id| self.read(id)).collect();
        dead.iter().for_each(|id| self.forget(id));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(network: &str, gateway: bool, gw_priority: i64) -> Endpoint {
        Endpoint {
            network: network.into(),
            network_id: format!("id-{network}"),
            endpoint_id: String::new(),
            aliases: vec!["alias".into()],
            links: Vec::new(),
            v4: None,
            v6: None,
            gateway: gateway.then_some(Ipv4Addr::LOCALHOST),
            gateway6: None,
            mac: None,
            inside: "eth0".into(),
            outside: "x".into(),
            gw_priority,
            named: true,
        }
    }

    #[test]
    fn the_default_route_is_chosen() {
        let way = |list: &[(&str, bool, i64)]| {
            let endpoints = list.iter().map(|(n, g, p)| endpoint(n, *g, *p)).collect();
            let live = LiveNetwork { endpoints, ..LiveNetwork::default() };
            live.way_out(true).map(|e| e.network.clone())
        };
        assert_eq!(way(&[("b", true, 0), ("a", true, 0)]).as_deref(), Some("a"));
        assert_eq!(way(&[("b", true, 1), ("a", true, 0)]).as_deref(), Some("b"));
        assert_eq!(way(&[("b", true, 0), ("a", false, 0)]).as_deref(), Some("b"));
        assert_eq!(way(&[("a", false, 9)]), None);
    }

    #[test]
    fn a_container_is_there_as_long_as_its_lock_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let lives = Lives::new(dir.path());
        let live = LiveNetwork { id: "abc123".into(), name: "web".into(), ..LiveNetwork::default() };
        let held = lives.hold("abc123").unwrap();
        lives.write(&live).unwrap();
        assert_eq!(lives.find("web").as_ref(), Some(&live));
        assert_eq!(lives.find("ab").as_ref(), Some(&live));
        assert_eq!((lives.find(""), lives.find("other")), (None, None));
        assert_eq!(lives.sweep(), []);
        drop(held);
        assert_eq!(lives.all(), []);
        assert_eq!(lives.sweep(), [live]);
        assert_eq!(std::fs::read_dir(dir.path().join("live")).unwrap().count(), 0);
    }
}
