//! What can go wrong with a network, and what the user can do about it.

use std::{io, net::IpAddr};

/// An error of the network room; `Display` names what was attempted, [`NetworkError::hint`] what helps.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// `--network` got a word that is no mode.
    #[error("unknown network \"{word}\": expected one of default, none, host or bridge")]
    UnknownMode {
        /// What the user wrote.
        word: String,
    },
    /// `--add-host` got something that is not `NAME:ADDRESS`.
    #[error("cannot use the extra host \"{text}\": {why}")]
    ExtraHost {
        /// What the user wrote.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `--publish` or `--expose` got something that names no ports.
    #[error("invalid port specification {text:?}: {why}")]
    Port {
        /// What the user wrote.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// `--link` got something that is not `CONTAINER[:ALIAS]`.
    #[error("bad format for links: {text:?}: expected CONTAINER or CONTAINER:ALIAS")]
    Link {
        /// What the user wrote.
        text: String,
    },
    /// A hardware address that no interface can have.
    #[error(
        "{text:?} is not a valid mac address: expected six pairs of hexadecimal digits such as 02:42:ac:11:00:02"
    )]
    Mac {
        /// What the user wrote.
        text: String,
    },
    /// The long form of `--network` is wrong.
    #[error("invalid network {text:?}: {why}")]
    Attachment {
        /// What the user wrote.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A subnet, range or gateway that cannot be used.
    #[error("invalid subnet {text}: {why}")]
    Subnet {
        /// What the user wrote.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A name that no network can have.
    #[error("invalid network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Name {
        /// What the user wrote.
        name: String,
    },
    /// A name that stands for something else.
    #[error("operation is not permitted on predefined {name} network")]
    Reserved {
        /// What the user wrote.
        name: String,
    },
    /// `bridge`, `host` and `none` stay as they are.
    #[error("{name} is a pre-defined network and cannot be removed")]
    Predefined {
        /// Which.
        name: String,
    },
    /// There is no such network.
    #[error("network {name} not found")]
    NotFound {
        /// What the user wrote.
        name: String,
    },
    /// Several ids begin so.
    #[error("network {name} is ambiguous: more than one id begins so")]
    Ambiguous {
        /// What the user wrote.
        name: String,
    },
    /// The name is taken.
    #[error("network with name {name} already exists")]
    Exists {
        /// Which.
        name: String,
    },
    /// Containers are in it.
    #[error("error while removing network: network {name} has active endpoints ({by})")]
    InUse {
        /// Which.
        name: String,
        /// Names and ids of the containers.
        by: String,
    },
    /// All ranges for networks without a subnet of their own are taken.
    #[error("all predefined address pools have been fully subnetted")]
    NoFreePool,
    /// A network has no address left.
    #[error("no available IPv4 addresses on this network's address pools: {network}")]
    Full {
        /// Which.
        network: String,
    },
    /// A fixed address cannot be had.
    #[error("cannot give the address {ip} in network {network}: {why}")]
    Address {
        /// Which address.
        ip: IpAddr,
        /// In which network.
        network: String,
        /// Why not.
        why: String,
    },
    /// A port of the host cannot be had.
    #[error(
        "failed to set up container networking: driver failed programming external connectivity on endpoint {container}: Bind for {at} failed: {why}"
    )]
    Bind {
        /// The container's name.
        container: String,
        /// Address and port.
        at: String,
        /// Why not.
        why: String,
    },
    /// Something that a container in a network of its own cannot have.
    #[error(
        "{network}: this container cannot share a network with others: it is in one of its own, with a way out"
    )]
    Rootless {
        /// What was asked for.
        network: String,
    },
    /// The process that keeps a container's network could not do its job.
    #[error("{why}")]
    Keeper {
        /// Its words.
        why: String,
    },
    /// A container is not in the network, or does not run.
    #[error("{why}")]
    Endpoint {
        /// What is wrong.
        why: String,
    },
    /// Wishes that do not fit together.
    #[error("{why}")]
    Conflict {
        /// What does not fit, in docker's words where it has some.
        why: String,
    },
    /// `host-gateway` was asked for in a network that has no way to the host.
    #[error("the extra host \"{name}\" asks for host-gateway, but this network has no way to the host")]
    NoHostGateway {
        /// The extra host's name.
        name: String,
    },
    /// The kernel refused one step of making the network.
    #[error("cannot {what}: {source}")]
    Setup {
        /// What was attempted, as a verb phrase.
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// All subnets of the pool overlap with routes or name servers of the host.
    #[error("no free subnet for the bridge {bridge}: the host's routes overlap with every candidate")]
    NoFreeSubnet {
        /// The bridge that needs a subnet.
        bridge: &'static str,
    },
    /// Every address of the bridge's subnet is taken.
    #[error("no free address on the bridge {bridge}: {limit} networks exist at the same time")]
    NoFreeAddress {
        /// The bridge.
        bridge: &'static str,
        /// How many networks the bridge can carry at once.
        limit: u32,
    },
    /// Neither rootless helper is installed.
    #[error("a private network as an ordinary user needs pasta or slirp4netns, and neither is installed")]
    NoHelper,
    /// The helper ended before the network was ready.
    #[error("{program} could not connect the network ({status}): {stderr}")]
    HelperFailed {
        /// The helper's name.
        program: &'static str,
        /// How it ended.
        status: String,
        /// The end of what it said, in one line.
        stderr: String,
    },
    /// The helper neither became ready nor ended in time.
    #[error("{program} did not connect the network within {seconds} seconds")]
    HelperSlow {
        /// The helper's name.
        program: &'static str,
        /// The time limit, in seconds.
        seconds: u64,
    },
}

impl NetworkError {
    /// Says what the user can do, where there is something to do.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::UnknownMode { .. } => Some("leave the option out for a private network with NAT"),
            Self::ExtraHost { .. } => Some("write it as name:1.2.3.4, name=1.2.3.4 or name:host-gateway"),
            Self::NoHostGateway { .. } => Some("use the default network or --network host"),
            Self::NoFreeSubnet { .. } => {
                Some("use --network host, or free a part of 10.189.0.0/16 or 172.29.0.0/16")
            }
            Self::Port { .. } => Some("write it as 8080:80, 127.0.0.1:8080:80, 53:53/udp or [::1]:8080:80"),
            Self::Rootless { .. } => {
                Some("publish ports and speak to them by the host, use --network host, or run as root")
            }
            Self::NotFound { .. } => {
                Some("`rbuild network ls` lists the networks, `rbuild network create` makes one")
            }
            Self::NoFreePool => {
                Some("choose one with --subnet, or remove unused networks: rbuild network prune")
            }
            Self::Bind { why, .. } if why.contains("ip_unprivileged_port_start") => Some(
                "an ordinary user may not listen on low ports: publish a port from 1024 on, or let the administrator set sysctl net.ipv4.ip_unprivileged_port_start",
            ),
            Self::Bind { why, .. } if why.contains("SCTP") => {
                Some("the helper programs of ordinary users carry TCP and UDP; as root SCTP can be published")
            }
            Self::Bind { .. } => Some("publish another port of the host, or end what listens on this one"),
            Self::Subnet { .. }
            | Self::Name { .. }
            | Self::Predefined { .. }
            | Self::Reserved { .. }
            | Self::Ambiguous { .. }
            | Self::Exists { .. }
            | Self::InUse { .. }
            | Self::Full { .. }
            | Self::Address { .. }
            | Self::Keeper { .. }
            | Self::Endpoint { .. } => None,
            Self::Link { .. } | Self::Mac { .. } | Self::Attachment { .. } | Self::Conflict { .. } => None,
            Self::NoFreeAddress { .. } => Some("wait until other builds have ended, or use --network host"),
            Self::NoHelper => Some(
                "install the package passt (or slirp4netns); --network host and --network none work without it",
            ),
            Self::HelperFailed { .. } | Self::HelperSlow { .. } | Self::Setup { .. } => {
                Some("--network host and --network none work without a private network")
            }
        }
    }

    /// Wraps a system error with the step that met it.
    pub(crate) fn setup(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Setup { what, source }
    }
}
