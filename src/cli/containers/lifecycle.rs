//! From one state to another: start, stop, restart, kill, pause, unpause, wait, rename.

use super::super::run::ended;
use super::{failure, for_each, open};
use crate::cli::{CliError, CommandResult, Ctx, talk};
use crate::runtime::signals::{self, Forwarder};
use crate::runtime::{
    Attachment, Client, Container, Containers, DetachKeys, RunError, Status, Streams, follow, record_event,
    terminal,
};
use clap::Args;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What `kill` sends when nothing else is said.
const KILL: i32 = 9;

/// Containers by name or id.
#[derive(Debug, Args)]
pub(in crate::cli) struct NamesArgs {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

/// `start`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StartArgs {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    /// Attach to its output and give its exit code
    #[arg(short, long)]
    attach: bool,
    /// Attach to its input
    #[arg(short, long)]
    interactive: bool,
    /// Keys that leave the container to itself [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
}

/// `stop`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StopArgs {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    /// Seconds until they are killed; -1 is never [default: the container's, else 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", allow_hyphen_values = true)]
    time: Option<i64>,
    /// Signal to ask with [default: the container's, else SIGTERM]
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
}

/// `restart`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RestartArgs {
    #[command(flatten)]
    stop: StopArgs,
}

/// `kill`.
#[derive(Debug, Args)]
pub(in crate::cli) struct KillArgs {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    /// Signal to send
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
}

/// `rename`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RenameArgs {
    /// Name, id or beginning of an id
    #[arg(value_name = "CONTAINER")]
    old: String,
    /// The new name
    #[arg(value_name = "NAME")]
    new: String,
}

/// Starts containers.
pub(in crate::cli) fn start(args: &StartArgs, ctx: &Ctx) -> CommandResult {
    let containers = open(ctx)?;
    if args.attach || args.interactive {
        let [name] = &args.names[..] else {
            return Err(CliError::new("you cannot start and attach multiple containers at once"));
        };
        return start_attached(args, &containers, name);
    }
    for_each(&args.names, ctx, &|name| start_one(&containers, name))
}

/// Starts one that does not run; for one that does nothing is to be done.
pub(in crate::cli) fn start_one(containers: &Containers, name: &str) -> Result<(), CliError> {
    let container = containers.find(name).map_err(failure)?;
    if !must_start(&container)? {
        return Ok(());
    }
    let client = Client::spawn().map_err(failure)?;
    match client.start(containers, &container.record.id, None, None, &mut talk) {
        // somebody else was faster
        Err(RunError::NotStarted { .. }) if is_live(containers, &container) => Ok(()),
        other => other.map_err(failure),
    }
}

fn must_start(container: &Container) -> Result<bool, CliError> {
    let name = &container.record.name;
    match container.state.status {
        Status::Running | Status::Restarting => Ok(false),
        Status::Paused => {
            Err(CliError::new(format!("cannot start the paused container {name}, try unpause instead")))
        }
        status if status.can_start() => Ok(true),
        status => Err(CliError::new(format!("container {name} is {status} and cannot be started"))),
    }
}

fn is_live(containers: &Containers, container: &Container) -> bool {
    let now = containers.get(&container.record.id);
    now.is_ok_and(|now| now.is_some_and(|now| now.state.status.is_live()))
}

fn start_attached(args: &StartArgs, containers: &Containers, name: &str) -> CommandResult {
    let container = containers.find(name).map_err(failure)?;
    let record = &container.record;
    let detach_keys = DetachKeys::parse(args.detach_keys.as_deref().unwrap_or_default()).map_err(failure)?;
    let input = args.interactive && record.interactive;
    if !must_start(&container)? {
        return super::attach::join(&container, input, true, detach_keys);
    }
    let signals = Forwarder::start().map_err(failure)?;
    let client = Client::spawn().map_err(failure)?;
    let streams = Streams { stdin: input, stdout: true, stderr: true };
    let started = client.start(containers, &record.id, Some(streams), terminal::size(), &mut talk);
    started.map_err(failure)?;
    let how = Attachment {
        terminal: record.terminal,
        owner: false,
        input,
        sig_proxy: true,
        stop_signal: record.config.stop_signal,
        detach_keys,
    };
    let parting = follow(&client, &how, Some(&signals), talk).map_err(failure)?;
    drop(signals);
    ended(&parting, record)
}

fn signal(text: Option<&str>) -> Result<Option<i32>, CliError> {
    let parse = |text: &str| {
        // docker's word for "the usual one"
        if text.is_empty() {
            return Ok(None);
        }
        signals::parse(text)
            .map(Some)
            .ok_or_else(|| CliError::new(format!("--signal {text:?}: there is no such signal")))
    };
    text.map_or(Ok(None), parse)
}

/// Stops containers.
pub(in crate::cli) fn stop(args: &StopArgs, ctx: &Ctx) -> CommandResult {
    let containers = open(ctx)?;
    let signal = signal(args.signal.as_deref())?;
    for_each(&args.names, ctx, &|name| stop_one(&containers, name, signal, args.time, false).map(drop))
}

/// Stops one and waits for that; one that does not run is stopped already.
pub(in crate::cli) fn stop_one(
    containers: &Containers,
    name: &str,
    signal: Option<i32>,
    timeout: Option<i64>,
    again: bool,
) -> Result<Container, CliError> {
    let container = containers.find(name).map_err(failure)?;
    if container.state.status.is_live()
        && let Ok(client) = Client::connect(&container)
        && client.stop(signal, timeout, again).is_err()
    {
        until_ended(containers, &container);
    }
    Ok(container)
}

/// Waits until the state on disk says that a container does not live, when its monitor cannot be asked any more.
fn until_ended(containers: &Containers, container: &Container) -> Option<i32> {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        match containers.get(&container.record.id) {
            Ok(Some(now)) if now.state.status.is_live() => std::thread::sleep(Duration::from_millis(5)),
            Ok(Some(now)) => return Some(now.state.exit_code),
            _ => return None,
        }
    }
    None
}

/// Stops containers and starts them again.
pub(in crate::cli) fn restart(args: &RestartArgs, ctx: &Ctx) -> CommandResult {
    let containers = open(ctx)?;
    let signal = signal(args.stop.signal.as_deref())?;
    for_each(&args.stop.names, ctx, &|name| {
        let container = stop_one(&containers, name, signal, args.stop.time, true)?;
        start_one(&containers, container.record.id.as_str())?;
        record_event(&containers, &container.record, "restart", &[]);
        Ok(())
    })
}

/// Kills containers.
pub(in crate::cli) fn kill(args: &KillArgs, ctx: &Ctx) -> CommandResult {
    let containers = open(ctx)?;
    let signal = signal(Some(&args.signal))?.unwrap_or(KILL);
    for_each(&args.names, ctx, &|name| kill_one(&containers, name, signal))
}

/// Sends a signal; after SIGKILL waits for the end.
pub(super) fn kill_one(containers: &Containers, name: &str, signal: i32) -> Result<(), CliError> {
    let container = containers.find(name).map_err(failure)?;
    let id = container.record.id.short().to_owned();
    let refused = |why: String| CliError::new(format!("cannot kill container: {name}: {why}"));
    if !container.state.status.has_process() {
        return Err(refused(format!("container {id} is not running")));
    }
    let client = Client::connect(&container).map_err(failure)?;
    client.kill(signal).map_err(|e| refused(e.to_string()))?;
    if signal == 9 && client.wait().is_err() {
        until_ended(containers, &container);
    }
    Ok(())
}

/// Freezes containers.
pub(in crate::cli) fn pause(args: &NamesArgs, ctx: &Ctx) -> CommandResult {
    let containers = open(ctx)?;
    for_each(&args.names, ctx, &|name| {
        let container = containers.find(name).map_err(failure)?;
        Client::connect(&container).and_then(|client| client.pause()).map_err(failure)
    })
}

/// Lets them go on.
pub(in crate::cli) fn unpause(args: &NamesArgs, ctx: &Ctx) -> CommandResult {
    let containers = open(ctx)?;
    for_each(&args.names, ctx, &|name| {
        let container = containers.find(name).map_err(failure)?;
        if container.state.status != Status::Paused {
            return Err(CliError::new(format!("container {} is not paused", container.record.name)));
        }
        Client::connect(&container).and_then(|client| client.unpause()).map_err(failure)
    })
}

/// Waits for the end and prints exit codes.
pub(in crate::cli) fn wait(args: &NamesArgs, ctx: &Ctx) -> CommandResult {
    let containers = open(ctx)?;
    let mut failed = Vec::new();
    for name in &args.names {
        match wait_one(&containers, name) {
            Ok(code) => ctx.out.line(&code.to_string())?,
            Err(error) => failed.push(error),
        }
    }
    super::together(failed)
}

fn wait_one(containers: &Containers, name: &str) -> Result<i32, CliError> {
    let container = containers.find(name).map_err(failure)?;
    if !container.state.status.is_live() {
        return Ok(container.state.exit_code);
    }
    match Client::connect(&container).and_then(|client| client.wait()) {
        Ok(ended) => Ok(i32::from(ended.code)),
        Err(_) => until_ended(containers, &container)
            .ok_or_else(|| CliError::new(format!("container {name} is gone, and its exit code with it"))),
    }
}

/// Gives a container another name.
pub(in crate::cli) fn rename(args: &RenameArgs, ctx: &Ctx) -> CommandResult {
    let containers = open(ctx)?;
    if args.old.is_empty() || args.new.is_empty() {
        return Err(CliError::new("neither the old nor the new name may be empty"));
    }
    let mut container = containers.find(&args.old).map_err(failure)?;
    let name: crate::runtime::ContainerName = args.new.parse().map_err(failure)?;
    if name == container.record.name {
        return Err(CliError::new(format!("the container is called {name} already")));
    }
    containers.rename(&container, &name).map_err(failure)?;
    if container.state.status.is_live()
        && let Ok(client) = Client::connect(&container)
    {
        // one that does not hear it reads the name at its end
        let _ = client.reload();
        // others find it by name
        let change = crate::network::NetworkChange::Rename(name.to_string());
        let _ = serde_json::to_vec(&change).map(|change| client.network(change));
    }
    let old = std::mem::replace(&mut container.record.name, name);
    record_event(&containers, &container.record, "rename", &[("oldName", format!("/{old}"))]);
    Ok(ExitCode::SUCCESS)
}
