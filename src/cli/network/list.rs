//! `rbuild network ls` and `network inspect`.

use super::super::inspect::{Described, finish};
use super::super::listing::{Look, Wanted, labels_text, pass};
use super::super::{CliError, CommandResult, Ctx};
use super::{place, refused};
use crate::network::{
    DEFAULT_NETWORK, Definitions, LiveNetwork, Lives, NetworkDefinition, NetworkError, PREDEFINED,
    default_options, default_subnet, predefined_id,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Lists networks.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Only what fits: name=, id=, driver=, label=KEY[=VALUE], scope=, type=custom|builtin, dangling=true|false
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not cut ids
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    look: Look,
}

/// Shows all about networks.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InspectArgs {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
    /// Print with a template, or as json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Accepted for docker's sake
    #[arg(short, long)]
    verbose: bool,
}

/// A network of either kind.
enum Network {
    /// One that is always there.
    Predefined(&'static str),
    /// One of the user's making.
    User(NetworkDefinition),
}

impl Network {
    fn all(definitions: &Definitions) -> Result<Vec<Self>, CliError> {
        let users = definitions.all().map_err(refused)?.into_iter().map(Self::User);
        let mut all: Vec<Self> = users.chain(PREDEFINED.map(Self::Predefined)).collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(all)
    }

    fn find(definitions: &Definitions, word: &str) -> Result<Self, NetworkError> {
        let by_id =
            |name: &&&str| word.len() > 3 && predefined_id(name).is_some_and(|id| id.starts_with(word));
        match PREDEFINED.iter().find(|name| **name == word || by_id(name)) {
            Some(name) => Ok(Self::Predefined(name)),
            None => definitions.find(word).map(Self::User),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Predefined(name) => name,
            Self::User(definition) => &definition.name,
        }
    }

    fn id(&self) -> String {
        match self {
            Self::Predefined(name) => predefined_id(name).unwrap_or_default(),
            Self::User(definition) => definition.id.clone(),
        }
    }

    fn driver(&self) -> &str {
        match self {
            Self::Predefined("none") => "null",
            Self::Predefined("host") => "host",
            _ => "bridge",
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        match self {
            Self::Predefined(_) => BTreeMap::new(),
            Self::User(definition) => definition.labels.clone(),
        }
    }

    fn passes(&self, wanted: &Wanted, lives: &[LiveNetwork]) -> Result<bool, CliError> {
        let value = wanted.value.as_str();
        Ok(match wanted.key.as_str() {
            "name" => wanted.matches(self.name())?,
            "id" => wanted.matches(&self.id())?,
            "driver" => self.driver() == value,
            "scope" => value == "local",
            "label" => wanted.fits(&self.labels()),
            "type" => match value {
                "custom" => matches!(self, Self::User(_)),
                "builtin" => matches!(self, Self::Predefined(_)),
                other => {
                    return Err(CliError::new(format!("invalid filter type={other}: custom or builtin")));
                }
            },
            _ => {
                let used = lives.iter().any(|live| live.endpoint(&self.id()).is_some());
                (matches!(self, Self::User(_)) && !used) == wanted.truth()?
            }
        })
    }

    fn row(&self, whole_id: bool) -> Value {
        let id = self.id();
        let (created, internal, ipv6) = match self {
            Self::Predefined(_) => ("0001-01-01T00:00:00Z".to_owned(), false, false),
            Self::User(d) => (d.created.clone(), d.internal, d.ipv6),
        };
        json!({
            "ID": if whole_id { id.as_str() } else { &id[..12] },
            "Name": self.name(), "Driver": self.driver(), "Scope": "local", "CreatedAt": time_column(&created),
            "IPv4": "true", "IPv6": ipv6.to_string(), "Internal": internal.to_string(),
            "Labels": labels_text(&self.labels()), "LabelMap": self.labels(),
        })
    }

    fn inspect(&self, lives: &[LiveNetwork]) -> Value {
        let mut config: Vec<Value> = Vec::new();
        // those that are always there were never made
        let (mut created, mut flags) = ("0001-01-01T00:00:00Z".to_owned(), (false, false, false));
        let mut options = BTreeMap::new();
        match self {
            Self::Predefined(name) => {
                let subnet = (*name == DEFAULT_NETWORK).then(default_subnet).flatten();
                let one = |(net, ip): (crate::network::Cidr, std::net::IpAddr)| json!({"Subnet": net.to_string(), "Gateway": ip.to_string()});
                config.extend(subnet.map(one));
                if *name == DEFAULT_NETWORK {
                    options = default_options();
                }
            }
            Self::User(d) => {
                created.clone_from(&d.created);
                options.clone_from(&d.options);
                flags = (d.internal, d.ipv6, d.attachable);
                for pool in &d.pools {
                    let mut one = Map::new();
                    one.insert("Subnet".into(), pool.subnet.to_string().into());
                    if let Some(range) = pool.range {
                        one.insert("IPRange".into(), range.to_string().into());
                    }
                    one.insert("Gateway".into(), pool.gateway.to_string().into());
                    if !pool.reserved.is_empty() {
                        one.insert("AuxiliaryAddresses".into(), json!(pool.reserved));
                    }
                    config.push(Value::Object(one));
                }
            }
        }
        let (internal, ipv6, attachable) = flags;
        let no_options =
            if matches!(self, Self::Predefined("host" | "none")) { Value::Null } else { json!({}) };
        json!([{
            "Name": self.name(), "Id": self.id(), "Created": created, "Scope": "local", "Driver": self.driver(),
            "EnableIPv4": true, "EnableIPv6": ipv6,
            "IPAM": {"Driver": "default", "Options": no_options, "Config": config},
            "Internal": internal, "Attachable": attachable, "Ingress": false,
            "ConfigFrom": {"Network": ""}, "ConfigOnly": false,
            "Containers": self.containers(lives), "Options": options, "Labels": self.labels(),
        }])[0]
            .take()
    }

    fn containers(&self, lives: &[LiveNetwork]) -> Map<String, Value> {
        let id = self.id();
        let own = lives.iter().filter_map(|live| Some((live, live.endpoint(&id)?)));
        own.map(|(live, endpoint)| {
            let with_bits =
                |ip: Option<(String, u8)>| ip.map_or(String::new(), |(ip, n)| format!("{ip}/{n}"));
            let value = json!({
                "Name": live.name, "EndpointID": endpoint.endpoint_id,
                "MacAddress": endpoint.mac.map_or(String::new(), |mac| mac.to_string()),
                "IPv4Address": with_bits(endpoint.v4.map(|(ip, n)| (ip.to_string(), n))),
                "IPv6Address": with_bits(endpoint.v6.map(|(ip, n)| (ip.to_string(), n))),
            });
            (live.id.clone(), value)
        })
        .collect()
    }
}

/// Writes a time as lists show it.
fn time_column(time: &str) -> String {
    let seconds = crate::image::parse_time(time);
    seconds.map_or_else(|| time.to_owned(), |s| crate::runtime::time::column(i128::from(s) * 1_000_000_000))
}

/// Gives the head of a column.
fn title(field: &str) -> String {
    match field {
        "ID" => "NETWORK ID".into(),
        "CreatedAt" => "CREATED AT".into(),
        other => other.to_uppercase(),
    }
}

/// Runs `network ls`.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let known = ["name", "id", "driver", "label", "scope", "type", "dangling"];
    let wanted = Wanted::all(&args.filter, &known)?;
    let (dir, _) = place(ctx)?;
    let lives = Lives::new(&dir).all();
    let mut rows = Vec::new();
    for network in Network::all(&Definitions::new(&dir))? {
        if pass(&wanted, &|one| network.passes(one, &lives))? {
            rows.push(network.row(args.no_trunc));
        }
    }
    args.look.print(ctx, &rows, &["ID", "Name", "Driver", "Scope"], &title, "*network.networkContext")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `network inspect`.
pub(super) fn inspect(args: &InspectArgs, ctx: &Ctx) -> CommandResult {
    let described = args.names.iter().map(|name| describe(name, ctx)).collect::<Result<_, _>>()?;
    finish(described, args.format.as_deref(), ctx)
}

/// Describes a network in the terms of `docker network inspect`.
pub(in crate::cli) fn describe(name: &str, ctx: &Ctx) -> Result<Described, CliError> {
    let (dir, _) = place(ctx)?;
    Ok(match Network::find(&Definitions::new(&dir), name) {
        Ok(network) => Described::Found(network.inspect(&Lives::new(&dir).all())),
        Err(error) => Described::Missing(CliError::from_error(&error).message),
    })
}
