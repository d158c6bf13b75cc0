//! Changes of the networks while the container runs.

use std::{os::fd::AsRawFd, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Membership, act_on, release, sweep, target, target_id};
use crate::{
    network::{
        Attachment, DEFAULT_NETWORK, Definitions, NetworkError,
        bridge::lock,
        lan::{self, Target},
        live::{Endpoint, LiveNetwork, Lives},
        netns::Netns,
    },
    sys::netlink::{Netlink, Protocol},
};

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

impl Membership {
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
