//! `rbuild login` and `rbuild logout`.

use super::{registry_error, settings};
use crate::cli::{CliError, CommandResult, Ctx, talk};
use crate::registry::{Client, Credential, Kept, RegistryError, registry_name};
use std::io::{BufRead, IsTerminal, Read};
use std::process::ExitCode;

/// Longest password that is read from standard input, in bytes.
const MAX_PASSWORD: u64 = 64 << 10;

/// Logs in to a registry; what for docker's config.json is good is good here, and the other way round.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LoginArgs {
    /// The registry [default: docker.io]
    #[arg(value_name = "SERVER")]
    server: Option<String>,
    /// Name of the user
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password; --password-stdin keeps it out of the history and the list of processes
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
}

/// Runs `login`.
pub(in crate::cli) fn run(args: &LoginArgs, ctx: &Ctx) -> CommandResult {
    let server = registry_name(args.server.as_deref())?;
    let settings = settings(ctx)?;
    let files = settings.credentials.clone();
    let known = match args.username.is_none() && args.password.is_none() && !args.password_stdin {
        true => files.find(&server, "").map_err(|e| registry_error(&e))?,
        false => None,
    };
    let credential = match known {
        Some(known) => {
            talk(&format!("Authenticating with existing credentials for {server}\n"));
            known
        }
        None => ask(args, &server)?,
    };
    let client = Client::with_credential(settings, Some(credential.clone()));
    client.ping(&server).map_err(|error| match &error {
        RegistryError::Denied { why, .. } => {
            let why = if why.is_empty() { "wrong user name or password" } else { why };
            CliError::new(format!("login to {server} failed: {why}"))
        }
        error => registry_error(error),
    })?;
    match files.keep(&server, &credential).map_err(|e| registry_error(&e))? {
        Kept::Helper(_) => {}
        Kept::File(path) => talk(&format!(
            "warning: your credentials are stored unencrypted in {}; a credential helper (credsStore) keeps them better\n",
            path.display()
        )),
    }
    ctx.out.line("Login Succeeded")?;
    Ok(ExitCode::SUCCESS)
}

/// Gets name and password from flags, standard input or the terminal.
fn ask(args: &LoginArgs, server: &str) -> Result<Credential, CliError> {
    let terminal = std::io::stdin().is_terminal();
    let user = match &args.username {
        Some(user) => user.clone(),
        None if args.password_stdin || !terminal => {
            return Err(
                CliError::new("--username is missing").hint("rbuild login -u NAME --password-stdin < FILE")
            );
        }
        None => prompt(&format!("Username for {server}: "), true)?,
    };
    let password = match &args.password {
        Some(password) => {
            talk(
                "warning: --password shows the password to everybody on this machine; use --password-stdin\n",
            );
            password.clone()
        }
        None if args.password_stdin => {
            let mut text = String::new();
            std::io::stdin().take(MAX_PASSWORD).read_to_string(&mut text).map_err(|e| unreadable(&e))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None if !terminal => {
            return Err(CliError::new("there is no password, and no terminal to ask for it")
                .hint("use --password-stdin"));
        }
        None => prompt("Password: ", false)?,
    };
    if user.is_empty() || password.is_empty() {
        return Err(CliError::new("user name and password must not be empty"));
    }
    if user.contains(':') {
        return Err(CliError::new(format!("the user name {user:?} must not hold a colon")));
    }
    Ok(Credential::Password { user, password })
}

fn unreadable(error: &std::io::Error) -> CliError {
    CliError::new(format!("cannot read from standard input: {error}"))
}

/// Asks on the terminal; what must not be seen is not shown.
fn prompt(question: &str, echo: bool) -> Result<String, CliError> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    talk(question);
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).ok().filter(|_| !echo);
    if let Some(before) = &before {
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        let hide = tcsetattr(&stdin, OptionalActions::Flush, &hidden);
        hide.map_err(|e| CliError::new(format!("cannot hide the password on this terminal: {e}")))?;
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if let Some(before) = &before {
        // the terminal may be gone
        let _ = tcsetattr(&stdin, OptionalActions::Flush, before);
        talk("\n");
    }
    read.map_err(|e| unreadable(&e))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Forgets the credentials for a registry.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LogoutArgs {
    /// The registry [default: docker.io]
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// Runs `logout`.
pub(in crate::cli) fn run_out(args: &LogoutArgs, ctx: &Ctx) -> CommandResult {
    let server = registry_name(args.server.as_deref())?;
    let files = settings(ctx)?.credentials;
    match files.forget(&server).map_err(|e| registry_error(&e))? {
        true => ctx.out.line(&format!("Removing login credentials for {server}"))?,
        false => ctx.out.line(&format!("Not logged in to {server}"))?,
    }
    Ok(ExitCode::SUCCESS)
}
