//! `run` and `create`: a new container, started or not. Exit codes are docker's.

use super::create_flags::{CreateFlags, Described, ENGINE_ERROR, on, run_error};
use super::{CliError, CommandResult, Ctx, registry};
use crate::progress::tty::Tty;
use crate::runtime::signals::Forwarder;
use crate::runtime::{
    Attachment, Client, Containers, DetachKeys, Parting, Record, RunError, RunRequest, Streams, create,
    create_to_start, follow, terminal,
};
use crate::snapshot::Snapshots;
use clap::{ArgAction, Args};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

/// Runs a command in a new container.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) flags: CreateFlags,
    /// Leave the container to itself and print its id
    #[arg(short, long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    detach: Option<Option<bool>>,
    /// Keys that leave the container to itself [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Pass signals on to the container [default: true]
    #[arg(long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    sig_proxy: Option<Option<bool>>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// Makes a container without starting it.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    flags: CreateFlags,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// Runs a container and gives the program's exit code.
pub(super) fn run(args: &RunArgs, ctx: &Ctx) -> CommandResult {
    let engine = |error: CliError| if error.code == 1 { error.code(ENGINE_ERROR) } else { error };
    let described = args.flags.describe(on(args.detach)).map_err(engine)?;
    let detach_keys = fits_caller(args, described.reads())?;
    start(args, described, detach_keys, ctx).map_err(engine)
}

/// Checks what is about the command and its caller, not the container; docker's exit code for these is 1.
fn fits_caller(args: &RunArgs, reads: bool) -> Result<DetachKeys, CliError> {
    if on(args.detach) && !args.flags.attach.is_empty() {
        return Err(CliError::new("conflicting options: cannot specify both --attach and --detach"));
    }
    let plain = |error| run_error(error).code(1);
    if reads && on(args.flags.tty) && !std::io::stdin().is_terminal() {
        return Err(plain(RunError::NoTerminal));
    }
    DetachKeys::parse(args.detach_keys.as_deref().unwrap_or_default()).map_err(plain)
}

fn start(args: &RunArgs, described: Described, detach_keys: DetachKeys, ctx: &Ctx) -> CommandResult {
    let detached = on(args.detach);
    // the monitor comes up while the store is read
    let client = Client::spawn().map_err(run_error)?;
    let signals = match detached {
        true => None,
        false => Some(Forwarder::start().map_err(run_error)?),
    };
    let (store, snapshots, images) = ctx.open()?;
    let images = match &signals {
        Some(signals) => images.until(&signals.stop()),
        None => images,
    };
    let stopped = |error| {
        let signal = signals.as_ref().and_then(Forwarder::interrupted);
        let code = signal.and_then(|signal| u8::try_from(128 + signal).ok());
        code.map_or(error, |code| CliError::new("interrupted").code(code))
    };
    let request = described.request(&args.flags, &store, &images, ctx).map_err(stopped)?;
    let containers = Containers::new(&store);
    let live = show_fetches(&request, &snapshots);
    let (record, starting) =
        create_to_start(&request, &containers, &snapshots).map_err(|e| stopped(run_error(e)))?;
    drop(live);
    if let Some(signal) = signals.as_ref().and_then(Forwarder::interrupted) {
        if record.auto_remove
            && let Ok(mut container) = containers.find(record.id.as_str())
        {
            let _ = containers.remove(&mut container, true);
        }
        return Ok(ExitCode::from(u8::try_from(128 + signal).unwrap_or(ENGINE_ERROR)));
    }
    let [stdin, stdout, stderr] = record.attached;
    let streams = (!detached).then_some(Streams { stdin, stdout, stderr });
    // a script wants to know it also when the start fails
    if detached {
        ctx.out.line(record.id.as_str())?;
    }
    let started = client.start(&containers, &record.id, streams, terminal::size(), &mut super::talk);
    started.map_err(run_error)?;
    drop(starting);
    if detached {
        return Ok(ExitCode::SUCCESS);
    }
    // with the input alone nobody sees the end
    if stdin && !(stdout || stderr) {
        ctx.out.line(record.id.as_str())?;
    }
    let how = Attachment {
        terminal: record.terminal,
        input: stdin,
        owner: true,
        sig_proxy: args.sig_proxy.is_none_or(|value| value.unwrap_or(true)),
        stop_signal: record.config.stop_signal,
        detach_keys,
    };
    let parting = follow(&client, &how, signals.as_ref(), super::talk).map_err(run_error)?;
    drop(signals);
    ended(&parting, &record)
}

/// Gives the exit code of a command that was attached.
pub(super) fn ended(parting: &Parting, record: &Record) -> CommandResult {
    match parting {
        Parting::Detached => Ok(ExitCode::SUCCESS),
        Parting::Ended(end) => {
            if end.out_of_memory {
                super::talk(
                    "note: the container reached its memory limit, and a process was killed for it\n",
                );
            }
            Ok(ExitCode::from(end.code))
        }
        Parting::Unheard => {
            super::talk(&format!(
                "error: nobody takes the output any more: this command ends, container {} goes on\n",
                record.name
            ));
            Ok(ExitCode::FAILURE)
        }
        Parting::Lost => Err(CliError::new(format!(
            "the monitor of container {} was killed, and the container with it",
            record.name
        ))
        .code(137)),
    }
}

/// Makes a container and prints its id.
pub(super) fn create_only(args: &CreateArgs, ctx: &Ctx) -> CommandResult {
    let described = args.flags.describe(false)?;
    let (store, snapshots, images) = ctx.open()?;
    let request = described.request(&args.flags, &store, &images, ctx)?;
    let live = show_fetches(&request, &snapshots);
    let record = create(&request, &Containers::new(&store), &snapshots)
        .map_err(|error| CliError { code: 1, ..run_error(error) })?;
    drop(live);
    ctx.out.line(record.id.as_str())?;
    Ok(ExitCode::SUCCESS)
}

/// Shows the layers that a container's image still lacks while they come; ends with what it gives.
fn show_fetches(request: &RunRequest, snapshots: &Snapshots) -> Option<Arc<Tty>> {
    if snapshots.is_present(&request.image.top()) {
        return None;
    }
    let (sink, live) = registry::progress(false, "Pulling");
    snapshots.show_fetches(sink, Arc::default());
    live
}
