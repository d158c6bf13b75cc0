//! `rbuild network create`.

use super::super::listing::pairs;
use super::super::{CliError, CommandResult, Ctx, happened};
use super::{place, refused};
use crate::image::format_time;
use crate::network::{Cidr, NetworkWish, create_network};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::ExitCode;

/// Makes a network.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Its name
    #[arg(value_name = "NETWORK")]
    name: String,
    /// Driver; there is one
    #[arg(short, long, default_value = "bridge", value_name = "DRIVER")]
    driver: String,
    /// Addresses of the network, for example 10.5.0.0/16 [default: free ones]
    #[arg(long, value_name = "NET/BITS")]
    subnet: Vec<String>,
    /// Address of the host in the network [default: the first one]
    #[arg(long, value_name = "IP")]
    gateway: Vec<IpAddr>,
    /// Where containers get their addresses from [default: the subnet]
    #[arg(long, value_name = "NET/BITS")]
    ip_range: Vec<String>,
    /// An address that no container gets
    #[arg(long, value_name = "NAME=IP")]
    aux_address: Vec<String>,
    /// No way out of the network, and none in
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    internal: Option<bool>,
    /// IPv6 addresses too
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    ipv6: Option<bool>,
    /// Accepted for docker's sake: containers can always be connected by hand
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    attachable: Option<bool>,
    /// Label of the network
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Option of the driver, for example com.docker.network.driver.mtu=1400
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
    /// How addresses are given out; there is one way
    #[arg(long, default_value = "default", value_name = "DRIVER")]
    ipam_driver: String,
    /// Where the network is known; there is one place
    #[arg(long, default_value = "local", value_name = "SCOPE")]
    scope: String,
}

/// Runs the command and prints the id.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    for (what, word, known) in [
        ("driver", &args.driver, "bridge"),
        ("ipam-driver", &args.ipam_driver, "default"),
        ("scope", &args.scope, "local"),
    ] {
        if word != known {
            return Err(CliError::new(format!("--{what} {word}: there is only {known}")));
        }
    }
    let nets = |texts: &[String]| -> Result<Vec<Cidr>, CliError> {
        texts.iter().map(|text| text.parse::<Cidr>().map_err(refused)).collect()
    };
    let reserved = args.aux_address.iter().map(|text| {
        let bad = || CliError::new(format!("--aux-address {text:?}: expected NAME=IP"));
        let (name, ip) = text.split_once('=').ok_or_else(bad)?;
        Ok((name.to_owned(), ip.parse().map_err(|_| bad())?))
    });
    if let Some(label) = args.label.iter().find(|label| label.is_empty() || label.starts_with('=')) {
        return Err(CliError::new(format!("invalid label '{label}': empty name")));
    }
    let wish = NetworkWish {
        name: args.name.clone(),
        subnets: nets(&args.subnet)?,
        gateways: args.gateway.clone(),
        ranges: nets(&args.ip_range)?,
        reserved: reserved.collect::<Result<BTreeMap<_, _>, CliError>>()?,
        internal: args.internal.unwrap_or(false),
        ipv6: args.ipv6.unwrap_or(false),
        attachable: args.attachable.unwrap_or(false),
        labels: pairs(&args.label),
        options: pairs(&args.opt),
    };
    let (dir, env) = place(ctx)?;
    let created = format_time(super::super::image_commands::now());
    let made = create_network(&dir, &env, wish, created).map_err(refused)?;
    happened::to_network(ctx, "create", &made.id, &made.name, None);
    ctx.out.line(&made.id)?;
    Ok(ExitCode::SUCCESS)
}
