//! What a container's keepers are to do: which ports lead to it, and whether it needs a name server.

use super::Membership;
use crate::network::{
    Definitions, NetworkDefinition, NetworkError, PortBinding, PublishRequest,
    bridge::BRIDGE,
    keeper::{Job, Keeper},
    live::{LiveNetwork, Lives},
};

impl Membership {
    /// The ports that are still to be published: those that have been keep their numbers.
    pub(super) fn to_publish(&self) -> Vec<PublishRequest> {
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
    pub(super) fn withdraw(&mut self, before: &LiveNetwork) {
        let target =
            |live: &LiveNetwork| live.way_out(true).or(live.way_out(false)).map(|e| e.endpoint_id.clone());
        if !self.live.ports.is_empty() && target(before) != target(&self.live) {
            self.dismiss();
        }
    }

    /// Ends all keepers; what they had to do is to be done anew.
    pub(super) fn dismiss(&mut self) {
        if !self.live.ports.is_empty() {
            self.published = std::mem::take(&mut self.live.ports);
        }
        self.keepers.clear();
        self.names = false;
    }

    /// Starts a keeper when there is something to keep.
    pub(super) fn keep(&mut self, lives: &Lives) -> Result<(), NetworkError> {
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
}
