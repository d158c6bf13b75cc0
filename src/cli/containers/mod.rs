//! The commands about containers: at the top level, as docker has them, and as the group `container`.

mod attach;
mod copy;
pub(super) mod events;
mod exec;
mod inspect;
mod layer;
pub(super) mod lifecycle;
mod logs;
mod port;
pub(super) mod prune;
mod ps;
mod remove;
mod stats;
mod top;
mod update;

pub(super) use inspect::describe;
pub(super) use ps::{rows, usage_table};
pub(super) use stats::all_memory;

use super::create_flags::run_error;
use super::run::{CreateArgs, RunArgs};
use super::{CliError, CommandResult, Ctx};
use crate::runtime::{Containers, RunError};
use crate::store::Store;
use clap::Subcommand;
use std::process::ExitCode;

/// Commands that are there with and without the word `container` before them.
#[derive(Debug, Subcommand)]
pub(super) enum ContainerCommand {
    /// Make a container without starting it
    Create(Box<CreateArgs>),
    /// Start containers that do not run
    Start(lifecycle::StartArgs),
    /// Stop containers: ask them to end, and kill them when that takes too long
    Stop(lifecycle::StopArgs),
    /// Stop containers and start them again
    Restart(lifecycle::RestartArgs),
    /// Kill containers, or send them another signal
    Kill(lifecycle::KillArgs),
    /// Freeze all processes of containers
    Pause(lifecycle::NamesArgs),
    /// Let frozen processes go on
    Unpause(lifecycle::NamesArgs),
    /// Wait until containers have ended and print their exit codes
    Wait(lifecycle::NamesArgs),
    /// Give a container another name
    Rename(lifecycle::RenameArgs),
    /// Attach to the streams of a running container
    Attach(attach::AttachArgs),
    /// Run a further command in a running container
    Exec(exec::ExecArgs),
    /// Show what a container has written
    Logs(logs::LogsArgs),
    /// List the processes of a container
    Top(top::TopArgs),
    /// List published ports
    Port(port::PortArgs),
    /// Remove containers
    Rm(remove::RmArgs),
    /// List containers
    Ps(ps::PsArgs),
    /// Copy files between a container and the host
    Cp(copy::CopyArgs),
    /// List what a container has changed in its files
    Diff(layer::DiffArgs),
    /// Make an image of a container
    Commit(Box<layer::CommitArgs>),
    /// Write the files of a container as a tar
    Export(layer::ExportArgs),
    /// Change limits and restart policy of containers
    Update(Box<update::UpdateArgs>),
    /// Show what containers use of the machine
    Stats(stats::StatsArgs),
    /// Show what happens to containers
    Events(events::EventsArgs),
}

/// The group `container`.
#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// Run a command in a new container
    Run(Box<RunArgs>),
    /// List containers
    #[command(visible_alias = "list")]
    Ls(ps::PsArgs),
    /// Tell all about containers
    Inspect(inspect::InspectArgs),
    /// Remove all containers that do not run
    Prune(prune::PruneArgs),
    #[command(flatten)]
    Plain(Box<ContainerCommand>),
}

impl ContainerCommand {
    /// Whether it may start containers that outlive it.
    pub(super) fn starts(&self) -> bool {
        matches!(self, Self::Start(_) | Self::Restart(_))
    }
}

impl GroupCommand {
    /// Whether it may start containers that outlive it.
    pub(super) fn starts(&self) -> bool {
        match self {
            Self::Run(_) => true,
            Self::Plain(command) => command.starts(),
            Self::Ls(_) | Self::Inspect(_) | Self::Prune(_) => false,
        }
    }
}

/// Runs a command of the group.
pub(super) fn run_group(command: &GroupCommand, ctx: &Ctx) -> CommandResult {
    match command {
        GroupCommand::Run(args) => super::run::run(args, ctx),
        GroupCommand::Ls(args) => ps::run(args, ctx),
        GroupCommand::Inspect(args) => inspect::run(args, ctx),
        GroupCommand::Prune(args) => prune::run(args, ctx),
        GroupCommand::Plain(command) => run(command, ctx),
    }
}

/// Runs a command.
pub(super) fn run(command: &ContainerCommand, ctx: &Ctx) -> CommandResult {
    match command {
        ContainerCommand::Create(args) => super::run::create_only(args, ctx),
        ContainerCommand::Start(args) => lifecycle::start(args, ctx),
        ContainerCommand::Stop(args) => lifecycle::stop(args, ctx),
        ContainerCommand::Restart(args) => lifecycle::restart(args, ctx),
        ContainerCommand::Kill(args) => lifecycle::kill(args, ctx),
        ContainerCommand::Pause(args) => lifecycle::pause(args, ctx),
        ContainerCommand::Unpause(args) => lifecycle::unpause(args, ctx),
        ContainerCommand::Wait(args) => lifecycle::wait(args, ctx),
        ContainerCommand::Rename(args) => lifecycle::rename(args, ctx),
        ContainerCommand::Attach(args) => attach::run(args, ctx),
        ContainerCommand::Exec(args) => exec::run(args, ctx),
        ContainerCommand::Logs(args) => logs::run(args, ctx),
        ContainerCommand::Top(args) => top::run(args, ctx),
        ContainerCommand::Port(args) => port::run(args, ctx),
        ContainerCommand::Rm(args) => remove::run(args, ctx),
        ContainerCommand::Ps(args) => ps::run(args, ctx),
        ContainerCommand::Cp(args) => copy::run(args, ctx),
        ContainerCommand::Diff(args) => layer::diff(args, ctx),
        ContainerCommand::Commit(args) => layer::commit(args, ctx),
        ContainerCommand::Export(args) => layer::export(args, ctx),
        ContainerCommand::Update(args) => update::run(args, ctx),
        ContainerCommand::Stats(args) => stats::run(args, ctx),
        ContainerCommand::Events(args) => events::run(args, ctx),
    }
}

/// Opens the containers of the store.
pub(super) fn open(ctx: &Ctx) -> Result<Containers, CliError> {
    Ok(Containers::new(&Store::open(&ctx.root)?))
}

/// Makes an error of a command about existing containers: exit code 1.
pub(super) fn failure(error: RunError) -> CliError {
    CliError { code: 1, ..run_error(error) }
}

/// Does something for each name at the same time, prints the names for which it worked in their order, and fails at the
/// end if one did not.
pub(super) fn for_each(
    names: &[String],
    ctx: &Ctx,
    work: &(dyn Fn(&str) -> Result<(), CliError> + Sync),
) -> CommandResult {
    for_each_that(names, ctx, &|name| work(name).map(|()| true))
}

/// As [`for_each`], but prints only the names for which there was something to do.
fn for_each_that(
    names: &[String],
    ctx: &Ctx,
    work: &(dyn Fn(&str) -> Result<bool, CliError> + Sync),
) -> CommandResult {
    let results: Vec<Result<bool, CliError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = names.iter().map(|name| scope.spawn(move || work(name))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<bool, CliError>>| {
            thread.join().unwrap_or_else(|_| Err(CliError::new("the work for it panicked")))
        };
        threads.into_iter().map(join).collect()
    });
    let mut failed = Vec::new();
    for (name, result) in names.iter().zip(results) {
        match result {
            Ok(true) => ctx.out.line(name)?,
            Ok(false) => {}
            Err(error) => failed.push(error),
        }
    }
    together(failed)
}

/// Makes one result of the failures of several names.
pub(super) fn together(mut failed: Vec<CliError>) -> CommandResult {
    match failed.len() {
        0 => Ok(ExitCode::SUCCESS),
        1 => Err(failed.remove(0)),
        _ => Err(CliError::new(failed.iter().map(|e| e.message.as_str()).collect::<Vec<_>>().join("\n"))),
    }
}
