//! The commands that talk to registries, and what they share.

pub(super) mod login;
pub(super) mod manifest;
pub(super) mod pull;
pub(super) mod push;
pub(super) mod search;

use super::CliError;
use crate::progress::plain::Plain;
use crate::progress::tty::Tty;
use crate::progress::{EventSink, Silent};
use crate::registry::{Client, RegistryError, Settings};
use crate::transfer::TransferError;
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use std::io::IsTerminal;
use std::sync::Arc;

/// Flags about how registries are reached.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct RegistryArgs {
    /// Whether registries need a certificate that is trusted; false also allows plain http
    #[arg(
        long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", value_parser = BoolishValueParser::new()
    )]
    tls_verify: Option<bool>,
    /// Registry that may speak plain http or have any certificate; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// Directory with HOST:PORT/*.crt and *.cert, *.key
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<std::path::PathBuf>,
}

impl RegistryArgs {
    /// Brings flags, environment and files together.
    pub(super) fn settings(&self) -> Result<Settings, CliError> {
        let mut settings = Settings::from_env().map_err(|e| registry_error(&e))?;
        settings.insecure.extend(self.insecure_registry.iter().cloned());
        settings.insecure_all |= self.tls_verify == Some(false);
        settings.certs.splice(0..0, self.cert_dir.clone());
        Ok(settings)
    }

    /// Makes the client.
    pub(super) fn client(&self) -> Result<Client, CliError> {
        Ok(Client::new(self.settings()?))
    }
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
