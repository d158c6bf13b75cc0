//! `completion SHELL`: a script for the shell that completes commands and flags.

use super::{CommandResult, Output};
use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(super) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionArgs) -> CommandResult {
    let mut script = Vec::new();
    generate(args.shell, &mut super::Cli::command(), "rbuild", &mut script);
    Output.bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}
