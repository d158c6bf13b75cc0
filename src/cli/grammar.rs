//! Reads command lines as docker's flag library does where clap is stricter.
//!
//! A switch may have a value (`--force=true`, `--rm=1`), a flag that is given twice has its last value, and what follows
//! a flag that wants a value is that value even if it begins with a dash. All commands are declared without a word about
//! it; here it is laid over the declared ones, so that none forgets it. Help is made from what is declared.

use super::Cli;
use clap::builder::ValueRange;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches, Parser};
use std::any::TypeId;
use std::ffi::OsString;

/// Reads the arguments, the program's name first.
pub(super) fn parse(args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let mut command = tolerant(Cli::command());
    let matches = command.try_get_matches_from_mut(args.clone());
    let parsed = matches.and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    parsed.map_err(|error| match is_help(&error) {
        false => error.format(&mut command),
        true => Cli::try_parse_from(args).err().filter(is_help).unwrap_or(error),
    })
}

fn is_help(error: &clap::Error) -> bool {
    let missing = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    missing || !error.use_stderr()
}

/// Says whether a flag was wrong, which is docker's exit code 125 for all commands; a wrong number of arguments is 1.
pub(super) fn is_about_a_flag(error: &clap::Error) -> bool {
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => text.starts_with('-'),
        _ => false,
    };
    flag && !matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict)
}

fn tolerant(command: Command) -> Command {
    command.args_override_self(true).mut_args(relaxed).mut_subcommands(tolerant)
}

fn relaxed(arg: Arg) -> Arg {
    let switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let valued = matches!(arg.get_action(), ArgAction::Set) && !arg.is_positional();
    if switch || valued && arg.get_value_parser().type_id() == TypeId::of::<bool>() {
        let arg = arg.action(ArgAction::Set).num_args(0..=1).require_equals(true);
        let arg = arg.default_missing_value("true").hide_possible_values(true).value_parser(boolean);
        return if switch { arg.value_name("BOOL").default_value("false") } else { arg };
    }
    let one = arg.get_num_args().is_none_or(|range| range == ValueRange::SINGLE);
    let takes_next =
        !arg.is_positional() && arg.get_action().takes_values() && one && !arg.is_require_equals_set();
    if takes_next { arg.allow_hyphen_values(true) } else { arg }
}

/// Reads the words that Go takes for a boolean.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("expected true or false".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::containers::ContainerCommand;
    use super::super::create_flags::on;
    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        parse(std::iter::once("rbuild").chain(line.split(' ')).map(OsString::from).collect())
    }

    fn code(line: &str) -> bool {
        is_about_a_flag(&read(line).unwrap_err())
    }

    #[test]
    fn switches_have_values_everywhere() {
        for line in [
            "run --rm=1 --init=F -t=True x",
            "run --rm --rm=false -i -i x",
            "rm --force=true x",
            "rm -f=0 x",
            "logs --follow=false -t x",
            "ps -aq --no-trunc=true",
            "exec -it=false x y",
            "start -ai=true x",
            "build --no-cache=true --pull=true .",
            "images -q=true",
            "system prune --all=true -f",
        ] {
            assert!(read(line).is_ok(), "{line}");
        }
        for line in ["run --rm=yes x", "run --rm= x", "rm --force=2 x"] {
            assert!(code(line), "{line}");
        }
    }

    #[test]
    fn the_last_one_counts() {
        let super::super::Command::Run(args) =
            read("run --name a --name -b --rm --rm=0 x --rm").unwrap().command
        else {
            panic!("run is run")
        };
        assert_eq!(args.flags.name.as_deref(), Some("-b"));
        assert!(!on(args.flags.rm));
        assert_eq!(args.flags.image_and_command, ["x", "--rm"]);
        let super::super::Command::Container(command) = read("rm -f -f=false x").unwrap().command else {
            panic!("rm is about containers")
        };
        assert!(matches!(*command, ContainerCommand::Rm(_)));
    }

    #[test]
    fn wrong_flags_are_told_from_wrong_arguments() {
        for line in ["ps --nosuch", "run --name", "stop -t x y", "rm -q x", "run -x y", "create --memory"] {
            assert!(code(line), "{line}");
        }
        for line in
            ["rm", "run", "logs a b", "exec a", "rename a", "container nosuch", "login -p x --password-stdin"]
        {
            assert!(!code(line), "{line}");
        }
    }

    #[test]
    fn help_shows_what_is_declared() {
        for line in ["rm --help", "run --help", "create --rm=1 --help", "rm -f -h", "--version"] {
            assert!(!read(line).unwrap_err().use_stderr(), "{line}");
        }
        let help = read("rm --help").unwrap_err();
        let text = help.to_string();
        assert!(text.contains("-f, --force") && !text.contains("--force["), "{text}");
    }
}
