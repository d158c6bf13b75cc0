//! `update`: other limits and another restart policy for containers that exist.

use super::super::create_flags::{cpus, processor_time, settle};
use super::super::values;
use super::{failure, for_each, open};
use crate::cli::{CliError, CommandResult, Ctx};
use crate::runtime::{Client, RestartPolicy};
use crate::sandbox::{Limits, RareLimits};
use clap::Args;

/// `update`.
#[derive(Debug, Args)]
pub(in crate::cli) struct UpdateArgs {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    /// Memory of the container, for example 512m
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Memory and swap together; -1 is no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory that it keeps when memory runs short
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// Number of processors, for example 1.5
    #[arg(long, value_name = "N")]
    cpus: Option<String>,
    /// Weight against other containers
    #[arg(short, long, value_name = "N")]
    cpu_shares: Option<u64>,
    /// Processors to use, for example 0-2,5
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use, for example 0-1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Weight at the disks against other containers, 10 to 1000
    #[arg(long, value_name = "N")]
    blkio_weight: Option<u16>,
    /// Length of a period of processor time in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Processor time in a period in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Length of a period of real-time processor time in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    /// Real-time processor time in a period in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_runtime: Option<u64>,
    /// Most processes and threads; -1 is no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Start it again when it ends: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
}

/// Changes containers, also while they run.
pub(in crate::cli) fn run(args: &UpdateArgs, ctx: &Ctx) -> CommandResult {
    // as with flags that cannot be read at all
    let mut limits = limits(args).map_err(|error| error.code(125))?;
    // what is left out afterwards was asked for all the same
    let asked = !limits.is_empty();
    settle(&mut limits).map_err(|error| error.code(125))?;
    let restart = args.restart.as_deref().map(RestartPolicy::parse).transpose().map_err(failure)?;
    if !asked && restart.is_none() {
        return Err(CliError::new("you must provide one or more flags when using this command"));
    }
    let containers = open(ctx)?;
    for_each(&args.names, ctx, &|name| {
        let mut container = containers.find(name).map_err(failure)?;
        let live = container.state.status.is_live();
        if container.record.auto_remove && restart.is_some_and(|policy| policy != RestartPolicy::No) {
            return Err(CliError::new(
                "restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        let mut limits = limits.clone();
        let own = &container.record.confinement.limits;
        if limits.rare.cpu_period.is_some() != limits.rare.cpu_quota.is_some() {
            // one goes with the other
            limits.rare.cpu_period = limits.rare.cpu_period.or(own.rare.cpu_period);
            limits.rare.cpu_quota = limits.rare.cpu_quota.or(own.rare.cpu_quota);
        }
        if limits.rare.cpu_period.or(limits.rare.cpu_quota).is_some() && own.cpu_millis.is_some() {
            return Err(CliError::new(
                "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
            ));
        }
        if limits.cpu_millis.is_some() && own.rare.cpu_period.or(own.rare.cpu_quota).is_some() {
            return Err(CliError::new(
                "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
            ));
        }
        if live && !limits.is_empty() {
            Client::connect(&container).and_then(|client| client.limit(&limits)).map_err(failure)?;
        }
        overlay(&mut container.record.confinement.limits, &limits);
        container.record.restart = restart.unwrap_or(container.record.restart);
        containers.update(&container.record).map_err(failure)?;
        if live {
            Client::connect(&container).and_then(|client| client.reload()).map_err(failure)?;
        }
        Ok(())
    })
}

fn limits(args: &UpdateArgs) -> Result<Limits, CliError> {
    let bytes =
        |flag: &str, text: &Option<String>| text.as_deref().map(|t| values::bytes(flag, t)).transpose();
    Ok(Limits {
        memory: bytes("--memory", &args.memory)?,
        memory_swap: match args.memory_swap.as_deref() {
            Some("-1") => Some(u64::MAX),
            Some(text) => Some(values::bytes("--memory-swap", text)?),
            None => None,
        },
        memory_reservation: bytes("--memory-reservation", &args.memory_reservation)?,
        cpu_millis: args.cpus.as_deref().map(cpus).transpose()?,
        cpu_shares: args.cpu_shares.filter(|shares| *shares > 0),
        cpuset_cpus: args.cpuset_cpus.clone(),
        cpuset_mems: args.cpuset_mems.clone(),
        pids: args.pids_limit.map(|n| u64::try_from(n).ok().filter(|n| *n > 0).unwrap_or(u64::MAX)),
        rare: RareLimits {
            blkio_weight: args.blkio_weight.filter(|weight| *weight > 0).map(u64::from),
            cpu_rt_period: args.cpu_rt_period.filter(|n| *n > 0),
            cpu_rt_runtime: args.cpu_rt_runtime.filter(|n| *n > 0),
            ..processor_time(args.cpus.is_some(), args.cpu_period, args.cpu_quota)?
        },
        ..Limits::default()
    })
}

fn overlay(own: &mut Limits, new: &Limits) {
    let set = |own: &mut Option<u64>, new: Option<u64>| *own = new.or(*own);
    set(&mut own.memory, new.memory);
    set(&mut own.memory_swap, new.memory_swap);
    set(&mut own.memory_reservation, new.memory_reservation);
    set(&mut own.cpu_millis, new.cpu_millis);
    set(&mut own.cpu_shares, new.cpu_shares);
    set(&mut own.pids, new.pids);
    set(&mut own.rare.blkio_weight, new.rare.blkio_weight);
    set(&mut own.rare.cpu_period, new.rare.cpu_period);
    set(&mut own.rare.cpu_quota, new.rare.cpu_quota);
    set(&mut own.rare.cpu_rt_period, new.rare.cpu_rt_period);
    set(&mut own.rare.cpu_rt_runtime, new.rare.cpu_rt_runtime);
    own.cpuset_cpus = new.cpuset_cpus.clone().or(own.cpuset_cpus.take());
    own.cpuset_mems = new.cpuset_mems.clone().or(own.cpuset_mems.take());
}
