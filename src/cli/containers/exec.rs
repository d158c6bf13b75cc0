//! `exec`: a further command in a running container.

use super::{failure, open};
use crate::cli::create_flags::{run_error, said};
use crate::cli::{CliError, CommandResult, Ctx, talk};
use crate::runtime::terminal::{self, Outputs};
use crate::runtime::{Client, DetachKeys, ExecRequest, RunError, env};
use clap::Args;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// `exec`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExecArgs {
    /// Container, then the command; what follows the container is not read as flags
    #[arg(value_name = "CONTAINER COMMAND [ARG...]", required = true, num_args = 2.., trailing_var_arg = true)]
    container_and_command: Vec<OsString>,
    /// Leave the command to itself
    #[arg(short, long)]
    detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable; without = it is taken from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,
    /// Read variables from a file, one a line; -e wins
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// User, by name or number [default: the container's]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory [default: the container's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<OsString>,
    /// Give all rights to the command
    #[arg(long)]
    privileged: bool,
    /// Keys that leave the command to itself [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
}

/// Runs the command and gives its exit code.
pub(in crate::cli) fn run(args: &ExecArgs, ctx: &Ctx) -> CommandResult {
    let (name, command) =
        args.container_and_command.split_first().ok_or_else(|| CliError::new("no container named"))?;
    let name = name.to_str().ok_or_else(|| CliError::new("the container's name is not UTF-8"))?;
    let keys = DetachKeys::parse(args.detach_keys.as_deref().unwrap_or_default()).map_err(failure)?;
    let request = request(args, command)?;
    if args.interactive && args.tty && !args.detach && !std::io::stdin().is_terminal() {
        return Err(failure(RunError::NoTerminal));
    }
    let container = open(ctx)?.find(name).map_err(failure)?;
    if !container.state.status.has_process() {
        let (name, status) = (container.record.name.to_string(), container.state.status);
        return Err(failure(RunError::NotRunning { name, status }));
    }
    let client = Client::connect(&container).map_err(failure)?;
    // what cannot be executed has docker's codes, all else is 1
    let problem = |error| match error {
        RunError::NotStarted { .. } => run_error(error),
        other => failure(other),
    };
    if args.detach {
        client.exec(request, None).map_err(problem)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.tty {
        return on_terminal(&client, request, args.interactive, &keys, problem);
    }
    let stdin = terminal::input(args.interactive).map_err(failure)?;
    let Outputs { stdout, stderr, carriers } = terminal::outputs().map_err(failure)?;
    client.exec(request, Some([stdin, stdout, stderr])).map_err(problem)?;
    let code = client.exec_ended().map_err(problem)?;
    carriers.finish(talk);
    Ok(ExitCode::from(code))
}

fn on_terminal(
    client: &Client,
    request: ExecRequest,
    input: bool,
    keys: &DetachKeys,
    problem: impl Fn(RunError) -> CliError,
) -> CommandResult {
    let master = client.exec(request, None).map_err(&problem)?;
    let master = Arc::new(master.ok_or_else(|| CliError::new("the command has got no terminal"))?);
    if !terminal::attach(&master, client.as_fd(), input, keys).map_err(failure)? {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::from(client.exec_ended().map_err(&problem)?))
}

fn request(args: &ExecArgs, command: &[OsString]) -> Result<ExecRequest, CliError> {
    let host = |name: &[u8]| std::env::var_os(OsStr::from_bytes(name)).map(OsString::into_vec);
    let mut changes = Vec::new();
    for path in &args.env_file {
        changes.extend(env::read_file(path, &host).map_err(failure)?);
    }
    for text in &args.env {
        changes.push(env::parse_flag(text.as_bytes(), &host).map_err(run_error)?);
    }
    let workdir = args.workdir.as_ref().filter(|dir| !dir.is_empty());
    if let Some(dir) = workdir.filter(|dir| !dir.as_bytes().starts_with(b"/")) {
        let shown = dir.to_string_lossy();
        return Err(CliError::new(format!(
            "--workdir {shown:?}: it needs to be an absolute path in the container"
        ))
        .code(126));
    }
    Ok(ExecRequest {
        argv: command.iter().map(|word| word.clone().into_vec()).collect(),
        env: changes,
        workdir: workdir.cloned().map(OsString::into_vec),
        user: said(&args.user).map(str::to_owned),
        privileged: args.privileged,
        terminal: args.tty,
        detached: args.detach,
        size: if args.tty { terminal::size() } else { None },
    })
}
