//! `top`: the processes of a container, as the host's `ps` shows them.

use super::{failure, open};
use crate::cli::table::table_of;
use crate::cli::{CliError, CommandResult, Ctx};
use crate::runtime::Client;
use clap::Args;
use std::process::{Command, ExitCode, Stdio};

/// `top`.
#[derive(Debug, Args)]
pub(in crate::cli) struct TopArgs {
    /// Name, id or beginning of an id
    #[arg(value_name = "CONTAINER")]
    name: String,
    /// Options of ps [default: -ef]
    #[arg(value_name = "PS OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Lists the processes.
pub(in crate::cli) fn run(args: &TopArgs, ctx: &Ctx) -> CommandResult {
    let container = open(ctx)?.find(&args.name).map_err(failure)?;
    let client = Client::connect(&container).map_err(failure)?;
    let pids = client.processes().map_err(failure)?;
    let default = ["-ef".to_owned()];
    let options = if args.options.is_empty() { &default[..] } else { &args.options };
    let out = Command::new("ps").args(options).stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let out = out.map_err(|e| CliError::new(format!("cannot run ps: {e}")).hint("install procps"))?;
    if !out.status.success() {
        return Err(CliError::new(format!("ps failed: {}", String::from_utf8_lossy(&out.stderr).trim())));
    }
    let rows = select(&String::from_utf8_lossy(&out.stdout), &pids).ok_or_else(|| {
        CliError::new("couldn't find PID field in ps output").hint("the options must show it")
    })?;
    ctx.out.text(&table_of(&rows, 20))?;
    Ok(ExitCode::SUCCESS)
}

/// Picks the head line and the lines of the processes, cut into columns; the last one may hold blanks.
fn select(text: &str, pids: &[u32]) -> Option<Vec<Vec<String>>> {
    let mut lines = text.lines();
    let head: Vec<String> = lines.next()?.split_whitespace().map(str::to_owned).collect();
    let at = head.iter().position(|title| title == "PID")?;
    let columns = head.len();
    let mut rows = vec![head];
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.get(at).and_then(|pid| pid.parse().ok()).is_none_or(|pid: u32| !pids.contains(&pid)) {
            continue;
        }
        let mut row: Vec<String> = words.iter().take(columns - 1).map(|word| (*word).to_owned()).collect();
        row.push(words.get(columns - 1..).unwrap_or_default().join(" "));
        rows.push(row);
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_process() {
        let text = "UID PID CMD\nroot 1 init\nme 25 sleep 9 9\nme 250 other\n";
        let rows = select(text, &[25]).unwrap();
        assert_eq!(rows, [vec!["UID", "PID", "CMD"], vec!["me", "25", "sleep 9 9"]]);
        assert!(select("USER CMD\n", &[1]).is_none());
    }
}
