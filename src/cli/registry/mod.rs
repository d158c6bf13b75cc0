//! The commands that talk to registries, and what they share.

pub(super) mod login;
pub(super) mod manifest;
pub(super) mod pull;
pub(super) mod push;
pub(super) mod search;

use super::signals::Interrupt;
use super::{CliError, Ctx};
use crate::interrupt::Stop;
use crate::progress::plain::Plain;
use crate::progress::tty::Tty;
use crate::progress::{EventSink, Silent};
use crate::registry::{Client, Flags, RegistryError, Settings};
use crate::transfer::TransferError;
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

/// Flags about how registries are reached.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct RegistryArgs {
    /// Whether registries need a certificate that is trusted; false also allows plain http
    #[arg(
        long, global = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL", value_parser = BoolishValueParser::new(),
        hide_short_help = true
    )]
    tls_verify: Option<bool>,
    /// Registry that may speak plain http or have any certificate; may be repeated
    #[arg(long, global = true, value_name = "HOST[:PORT]", hide_short_help = true)]
    insecure_registry: Vec<String>,
    /// Directory with certificates of registries: HOST:PORT/*.crt, and our own in *.cert and *.key
    #[arg(long, global = true, value_name = "DIR", hide_short_help = true)]
    cert_dir: Option<PathBuf>,
}

impl RegistryArgs {
    /// Gives what they say.
    pub(super) fn flags(&self) -> Flags {
        Flags {
            insecure_all: self.tls_verify == Some(false),
            insecure: self.insecure_registry.clone(),
            certs: self.cert_dir.clone(),
        }
    }
}

/// Brings flags, environment and files together.
pub(super) fn settings(ctx: &Ctx) -> Result<Settings, CliError> {
    Settings::with_flags(&ctx.registry).map_err(|e| registry_error(&e))
}

/// Makes the client.
pub(super) fn client(ctx: &Ctx) -> Result<Client, CliError> {
    Ok(Client::new(settings(ctx)?))
}

/// Listens for Ctrl-C and its relatives while images travel.
fn stopping() -> Result<(Stop, Interrupt), CliError> {
    let stop = Stop::default();
    let told = stop.clone();
    Ok((stop, Interrupt::watch(move || told.now())?))
}

/// Says that a transfer was interrupted, if it was.
fn interrupted(interrupt: &Interrupt, kept: &str) -> Option<CliError> {
    let code = interrupt.code()?;
    Some(CliError::new(format!("interrupted; {kept}")).code(code))
}

/// Words an error and says what to do.
pub(super) fn registry_error(error: &RegistryError) -> CliError {
    let shown = CliError::from_error(error);
    match hint(error) {
        Some(hint) => shown.hint(hint),
        None => shown,
    }
}

/// Words an error of a pull or push.
pub(super) fn transfer_error(error: &TransferError) -> CliError {
    let shown = CliError::from_error(error);
    let mut inner = error;
    while let TransferError::Layer { source, .. } = inner {
        inner = source;
    }
    match inner {
        TransferError::Registry(registry) => match hint(registry) {
            Some(hint) => shown.hint(hint),
            None => shown,
        },
        TransferError::Platform { .. } => shown.hint("--platform OS/ARCH takes another one"),
        _ => shown,
    }
}

fn hint(error: &RegistryError) -> Option<String> {
    match error {
        RegistryError::Denied { registry, .. } => {
            let name = if registry == "docker.io" { String::new() } else { format!(" {registry}") };
            Some(format!("if it is a private one: rbuild login{name}"))
        }
        RegistryError::Status { status: 404, .. } => Some("check the name and the tag".into()),
        RegistryError::Clear { .. } => {
            Some("use a registry with https, or allow this one with --insecure-registry HOST".into())
        }
        _ => None,
    }
}

/// Who hears of layers, and the live view, which ends when it is dropped.
pub(super) fn progress(quiet: bool, verb: &'static str) -> (Arc<dyn EventSink>, Option<Arc<Tty>>) {
    if quiet {
        return (Arc::new(Silent), None);
    }
    let live = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
    if !live {
        return (Arc::new(Plain::new(Box::new(std::io::stderr()))), None);
    }
    let tty = Arc::new(Tty::with_verb(Box::new(std::io::stderr()), super::build::terminal_size, verb));
    (tty.clone(), Some(tty))
}
