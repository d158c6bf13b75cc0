//! The one private network that the RUN steps of a build share, made when the first of them needs it.

use super::OpError;
use crate::network::{ExtraHost, HostDns, NetEnv, NetworkError, NetworkMode, PrivateNetwork, hosts_file};
use crate::progress::{Event, EventSink};
use crate::sandbox::{Network, SharedFd};
use std::io;
use std::sync::{Arc, Mutex};

/// What a step needs to be on a network.
pub(super) struct Joined {
    /// The namespace.
    pub(super) network: Network,
    /// Content of `/etc/resolv.conf`.
    pub(super) resolv_conf: Vec<u8>,
    /// Content of `/etc/hosts`.
    pub(super) hosts: Vec<u8>,
}

/// Hands networks to steps.
pub(super) struct StepNetwork {
    sink: Arc<dyn EventSink>,
    private: Mutex<Private>,
}

enum Private {
    NotYet,
    Made(Arc<PrivateNetwork>),
    /// There is no way to make one here; the host's network takes its place.
    Without,
}

impl StepNetwork {
    pub(super) fn new(sink: Arc<dyn EventSink>) -> Self {
        Self { sink, private: Mutex::new(Private::NotYet) }
    }

    /// Gives what a step of the mode needs.
    pub(super) fn join(
        &self,
        mode: NetworkMode,
        hostname: &str,
        extra: &[ExtraHost],
    ) -> Result<Joined, OpError> {
        match mode {
            NetworkMode::Private => match self.private()? {
                Some(network) => Ok(Joined {
                    network: Network::Join(shared(&network)?),
                    resolv_conf: network.resolv_conf(),
                    hosts: network.hosts(hostname, extra)?,
                }),
                None => without_namespace(Network::Host, hostname, extra),
            },
            NetworkMode::None => without_namespace(Network::None, hostname, extra),
            NetworkMode::Host => without_namespace(Network::Host, hostname, extra),
        }
    }

    /// Makes the private network once. An ordinary user without a helper program gets the host's network instead, as
    /// other rootless builders do, and is told.
    fn private(&self) -> Result<Option<Arc<PrivateNetwork>>, OpError> {
        let mut private = self.private.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Private::NotYet = *private {
            *private = match PrivateNetwork::create(&NetEnv::new(crate::sys::fsutil::in_user_namespace())) {
                Ok(network) => {
                    network.warnings().iter().for_each(|w| self.sink.send(Event::Warning(w.clone())));
                    Private::Made(Arc::new(network))
                }
                Err(error @ NetworkError::NoHelper) => {
                    let hint = error.hint().unwrap_or_default();
                    let text = format!("{error}; RUN steps use the host's network instead ({hint})");
                    self.sink.send(Event::Warning(text));
                    Private::Without
                }
                Err(error) => return Err(error.into()),
            };
        }
        match &*private {
            Private::Made(network) => Ok(Some(network.clone())),
            _ => Ok(None),
        }
    }
}

fn without_namespace(network: Network, hostname: &str, extra: &[ExtraHost]) -> Result<Joined, OpError> {
    let dns = HostDns::read();
    let servers = dns.servers(crate::network::Reach::Dual);
    // with the host's network its own name servers, also those on loopback, can be reached
    let resolv_conf = match &network {
        Network::Host => std::fs::read("/etc/resolv.conf").unwrap_or_else(|_| dns.render(&servers)),
        _ => dns.render(&servers),
    };
    Ok(Joined { network, resolv_conf, hosts: hosts_file(hostname, None, None, extra)? })
}

fn shared(network: &PrivateNetwork) -> Result<SharedFd, OpError> {
    let copy = network.netns().try_clone_to_owned();
    let io = |source: io::Error| OpError::Io { action: "keep the network namespace".into(), source };
    Ok(copy.map_err(io)?.into())
}
