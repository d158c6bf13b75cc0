//! `rbuild network connect` and `network disconnect`.
//!
//! The container's record says which networks it is in from its next start on; while it runs its monitor makes the change
//! at once, and only when that worked is the record written.

use super::super::listing::pairs;
use super::super::{CliError, CommandResult, Ctx, happened};
use super::{PlaceFlags, refused};
use crate::network::{
    Attachment, ContainerNetwork, DEFAULT_NETWORK, Definitions, NetworkChange, predefined_id,
};
use crate::runtime::network::networks;
use crate::runtime::{Client, Container, Containers, RunError};
use crate::store::Store;
use std::process::ExitCode;

/// Puts a container into a network.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ConnectArgs {
    /// Name, id or beginning of an id
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Name, id or beginning of an id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Further name of the container in this network
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    #[command(flatten)]
    place: PlaceFlags,
    /// Option of the driver; kept and shown
    #[arg(long, value_name = "NAME=VALUE")]
    driver_opt: Vec<String>,
    /// The network with the highest one has the default route
    #[arg(long, default_value_t = 0, allow_hyphen_values = true, value_name = "N")]
    gw_priority: i64,
}

/// Takes a container out of a network.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct DisconnectArgs {
    /// Name, id or beginning of an id
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Name, id or beginning of an id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Accepted for docker's sake; a container that is gone is in no network
    #[arg(short, long)]
    force: bool,
}

fn failed(error: RunError) -> CliError {
    let hint = error.hint();
    CliError::from_error(&error).with_hint(hint)
}

/// What both commands work on.
struct Case {
    containers: Containers,
    container: Container,
    /// The network's name, however it was typed.
    network: String,
}

impl Case {
    fn open(ctx: &Ctx, network: &str, container: &str) -> Result<Self, CliError> {
        let store = Store::open(&ctx.root)?;
        let containers = Containers::new(&store);
        let container = containers.find(container).map_err(failed)?;
        let network = match network {
            DEFAULT_NETWORK => network.to_owned(),
            "host" => {
                let why = "container cannot be disconnected from host network or connected to host network";
                return Err(CliError::new(why));
            }
            "none" => {
                let why = "container cannot be connected to multiple networks with one of the networks in private (none) mode";
                return Err(CliError::new(why));
            }
            _ => Definitions::new(&networks(&store)).find(network).map_err(refused)?.name,
        };
        Ok(Self { containers, container, network })
    }

    /// The networks that the container is in, as its record says.
    fn attachments(&self) -> Result<Vec<Attachment>, CliError> {
        match &self.container.record.network.choice {
            ContainerNetwork::Networks(all) => Ok(all.clone()),
            ContainerNetwork::Default => Ok(vec![Attachment::to(DEFAULT_NETWORK)]),
            other => Err(CliError::new(format!(
                "container sharing network namespace with another container or host, or with none, cannot be connected \
                 to any other network (it has --network {})",
                other.mode()
            ))),
        }
    }

    fn network_id(&self) -> Option<String> {
        let dir = networks(self.containers.store());
        match predefined_id(&self.network) {
            Some(id) => Some(id),
            None => Definitions::new(&dir).find(&self.network).ok().map(|network| network.id),
        }
    }

    /// Has the monitor make the change, if there is one, and keeps it.
    fn make(&self, ctx: &Ctx, change: &NetworkChange, after: Vec<Attachment>) -> CommandResult {
        let mut request = self.container.record.network.clone();
        request.choice = ContainerNetwork::Networks(after);
        request.check().map_err(refused)?;
        if self.container.state.status.is_live() {
            let client = Client::connect(&self.container).map_err(failed)?;
            client.network(serde_json::to_vec(change)?).map_err(failed)?;
            let action = if matches!(change, NetworkChange::Connect(_)) { "connect" } else { "disconnect" };
            let id = self.network_id().unwrap_or_default();
            happened::to_network(ctx, action, &id, &self.network, Some(self.container.record.id.as_str()));
        }
        self.containers.set_network(&self.container, request).map_err(failed)?;
        if self.container.state.status.is_live()
            && let Ok(client) = Client::connect(&self.container)
        {
            // one that does not hear it reads the record at its next start
            let _ = client.reload();
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Runs `network connect`.
pub(super) fn connect(args: &ConnectArgs, ctx: &Ctx) -> CommandResult {
    let case = Case::open(ctx, &args.network, &args.container)?;
    let attachment = Attachment {
        network: case.network.clone(),
        aliases: args.alias.clone(),
        ip: args.place.ip,
        ip6: args.place.ip6,
        mac: args.place.mac()?,
        links: args.place.links()?,
        driver_opts: pairs(&args.driver_opt),
        gw_priority: args.gw_priority,
    };
    let mut all = case.attachments()?;
    if all.iter().any(|a| a.network == case.network) {
        return Err(CliError::new(format!(
            "endpoint with name {} already exists in network {}",
            case.container.record.name, case.network
        )));
    }
    all.push(attachment.clone());
    case.make(ctx, &NetworkChange::Connect(attachment), all)
}

/// Runs `network disconnect`.
pub(super) fn disconnect(args: &DisconnectArgs, ctx: &Ctx) -> CommandResult {
    let case = Case::open(ctx, &args.network, &args.container)?;
    let mut all = case.attachments()?;
    let before = all.len();
    all.retain(|a| a.network != case.network);
    if all.len() == before {
        return Err(CliError::new(format!(
            "container {} is not connected to the network {}",
            case.container.record.id, case.network
        )));
    }
    case.make(ctx, &NetworkChange::Disconnect(case.network.clone()), all)
}
