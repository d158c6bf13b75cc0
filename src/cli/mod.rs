//! The door: command line in, exit code out. One file a command; each has clap `Args` and a `run`.
//!
//! Data goes to standard output, talk to standard error. `rbuild -t app .` is `rbuild build -t app .`: a first word that
//! is no command starts a build.

mod build;
mod builder;
mod call;
mod completion;
mod containers;
mod create_flags;
mod ctx;
mod error;
mod grammar;
mod happened;
mod history;
mod image_commands;
mod image_prune;
mod images;
mod import;
mod info;
mod inspect;
mod listing;
mod load;
mod network;
mod network_flags;
mod output;
mod prune;
mod registry;
mod rmi;
mod run;
mod save;
mod signals;
mod step_failure;
mod system;
mod system_boot;
mod system_check;
mod system_df;
mod table;
mod tag;
mod template;
mod values;
mod volume;
mod volume_flags;
mod warnings;

pub use ctx::Ctx;
pub use error::CliError;
pub use output::Output;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// What a command gives: its exit code, or what went wrong.
pub type CommandResult = Result<ExitCode, CliError>;

#[derive(Debug, Parser)]
#[command(name = "rbuild", version, about, subcommand_required = true)]
#[command(arg_required_else_help = true)]
struct Cli {
    /// Where images, snapshots and the cache live [default: $RBUILD_ROOT, or /var/lib/rbuild as root, $XDG_DATA_HOME/rbuild else]
    // clap would take a variable for a given argument, and show no help for a command line without any
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(flatten)]
    registry: registry::RegistryArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build an image from a Dockerfile; the word may be left out
    Build(Box<build::BuildArgs>),
    /// Run a command in a new container
    Run(Box<run::RunArgs>),
    #[command(flatten)]
    Container(Box<containers::ContainerCommand>),
    /// The commands about containers as a group
    #[command(subcommand, name = "container")]
    Containers(Box<containers::GroupCommand>),
    /// Show what works on this machine, and what is missing
    Info(info::InfoArgs),
    /// Show the version
    Version(info::VersionArgs),
    /// Build, and look after the build cache
    #[command(subcommand, visible_alias = "buildx")]
    Builder(Box<builder::BuilderCommand>),
    /// Disk use, clean-up and what works here
    #[command(subcommand)]
    System(system::SystemCommand),
    /// Volumes: files that outlive containers
    #[command(subcommand)]
    Volume(Box<volume::VolumeCommand>),
    /// Networks between containers
    #[command(subcommand)]
    Network(Box<network::NetworkCommand>),
    /// Print a script that teaches a shell to complete commands and flags
    Completion(completion::CompletionArgs),
    /// The commands about images as a group
    #[command(subcommand, name = "image")]
    Group(Box<image_commands::GroupCommand>),
    /// Log in to a registry
    Login(registry::login::LoginArgs),
    /// Forget the credentials for a registry
    Logout(registry::login::LogoutArgs),
    /// Search a registry for repositories
    Search(registry::search::Args),
    /// Images for several platforms under one name
    #[command(subcommand)]
    Manifest(registry::manifest::ManifestCommand),
    #[command(flatten)]
    Image(Box<image_commands::ImageCommand>),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    std::panic::set_hook(Box::new(internal_error));
    let args = with_build(std::env::args_os().collect());
    let failure = failure_code(&args);
    let cli = match grammar::parse(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    // files of images belong to many users, and an ordinary user has those only inside a user namespace, which can
    // only be entered while there is one thread
    match crate::sandbox::rootless::enter(starts_containers(&cli.command)) {
        Ok(state) => {
            if let Some(advice) = state.and_then(|s| s.advice()) {
                talk(&format!("warning: {advice}\n"));
            }
        }
        Err(error) => return CliError::from_error(&error).code(failure).report(),
    }
    // What the caller left open is not for the programs that are started from here, some of which go on in the background.
    let _ = crate::sys::process::cloexec_from(3);
    let root = cli.root.or_else(|| std::env::var_os("RBUILD_ROOT").map(PathBuf::from));
    let ctx = match Ctx::new(root, cli.registry.flags()) {
        Ok(ctx) => ctx,
        Err(error) => return error.code(failure).report(),
    };
    dispatch(cli.command, &ctx).unwrap_or_else(|error| error.report())
}

/// Whether a command may start containers that outlive it.
fn starts_containers(command: &Command) -> bool {
    match command {
        Command::Run(_) => true,
        Command::Container(command) => command.starts(),
        Command::Containers(command) => command.starts(),
        Command::System(command) => command.starts(),
        _ => false,
    }
}

fn dispatch(command: Command, ctx: &Ctx) -> CommandResult {
    match command {
        Command::Build(args) => build::run(&args, ctx),
        Command::Run(args) => run::run(&args, ctx),
        Command::Container(command) => containers::run(&command, ctx),
        Command::Containers(command) => containers::run_group(&command, ctx),
        Command::Info(args) => info::run(&args, ctx),
        Command::Version(args) => info::version(&args, ctx),
        Command::Builder(command) => builder::run(&command, ctx),
        Command::System(command) => system::run(&command, ctx),
        Command::Volume(command) => volume::run(&command, ctx),
        Command::Network(command) => network::run(&command, ctx),
        Command::Completion(args) => completion::run(&args),
        Command::Group(command) => image_commands::run_group(&command, ctx),
        Command::Login(args) => registry::login::run(&args, ctx),
        Command::Logout(args) => registry::login::run_out(&args, ctx),
        Command::Search(args) => registry::search::run(&args, ctx),
        Command::Manifest(command) => registry::manifest::run(&command, ctx),
        Command::Image(command) => image_commands::run(&command, ctx),
    }
}

/// Says something to the user on standard error.
fn talk(text: &str) {
    // standard error may be gone; the work goes on
    let _ = std::io::stderr().lock().write_all(output::calm(text).as_bytes());
}

/// A panic is a fault of rbuild's own and is said to be one.
fn internal_error(info: &std::panic::PanicHookInfo<'_>) {
    if crate::cache::index::panics_are_caught() {
        return;
    }
    talk(&format!("error: internal error, please report it: {info}\n"));
}

/// Prints help, version or what is wrong with the command line.
fn usage(error: &clap::Error) -> ExitCode {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        talk(&error.render().to_string());
        return ExitCode::SUCCESS;
    }
    if error.use_stderr() {
        talk(&error.render().to_string());
        let code = if grammar::is_about_a_flag(error) { create_flags::ENGINE_ERROR } else { 1 };
        return ExitCode::from(code);
    }
    // help that nobody gets is no success
    if error.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Gives the exit code of a failure before the command has begun: `run` keeps 1 for the program in the container.
fn failure_code(args: &[OsString]) -> u8 {
    if args.get(command_at(args)).is_some_and(|word| word == "run") { create_flags::ENGINE_ERROR } else { 1 }
}

/// Finds the first word that is not about the whole program.
fn command_at(args: &[OsString]) -> usize {
    let mut at = 1;
    while let Some(word) = args.get(at).and_then(|a| a.to_str()) {
        match word {
            "--root" => at += 2,
            _ if word.starts_with("--root=") => at += 1,
            _ => break,
        }
    }
    at
}

/// Puts `build` before the arguments of a command line that names no command.
fn with_build(mut args: Vec<OsString>) -> Vec<OsString> {
    let at = command_at(&args);
    let word = args.get(at).and_then(|a| a.to_str());
    let about_all = matches!(word, Some("-h" | "--help" | "-V" | "--version"));
    if at < args.len() && !about_all && !word.is_some_and(is_command) {
        args.insert(at, "build".into());
    }
    args
}

fn is_command(word: &str) -> bool {
    word == "help"
        || Cli::command()
            .get_subcommands()
            .any(|c| c.get_name() == word || c.get_all_aliases().any(|a| a == word))
}

/// A command that the user may have meant by a word that was taken for a build context.
fn near_command(word: &str) -> Option<String> {
    let cli = Cli::command();
    let names: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
    let near = crate::suggest::nearest(word, names)?;
    Some(format!("did you mean rbuild {near}?"))
}
