//! Chooses who hears the events of a build.

use super::args::BuildArgs;
use crate::cli::CliError;
use crate::progress::json::Json;
use crate::progress::plain::Plain;
use crate::progress::tty::Tty;
use crate::progress::{EventSink, Silent, Tee};
use std::fs::File;
use std::io::{BufWriter, IsTerminal};
use std::sync::Arc;

/// Who hears the events, and the live view if there is one.
type Progress = (Arc<dyn EventSink>, Option<Arc<Tty>>);

/// Chooses how progress is drawn and whether a file has it, too. The second value ends the live view when it is dropped.
pub(super) fn progress(args: &BuildArgs) -> Result<Progress, CliError> {
    let (shown, live) = shown(args)?;
    let Some(path) = &args.logfile else { return Ok((shown, live)) };
    let file = File::create(path).map_err(|e| CliError::new(format!("--logfile {}: {e}", path.display())))?;
    let log = Arc::new(Plain::new(Box::new(BufWriter::new(file))));
    Ok((Arc::new(Tee::new(shown, log)), live))
}

fn shown(args: &BuildArgs) -> Result<Progress, CliError> {
    let known = ["auto", "plain", "tty", "quiet", "none", "rawjson"];
    if !known.contains(&args.progress.as_str()) {
        return Err(CliError::new(format!(
            "--progress {:?}: expected auto, plain, tty, rawjson or quiet",
            args.progress
        )));
    }
    if args.switches.quiet || ["quiet", "none"].contains(&args.progress.as_str()) {
        return Ok((Arc::new(Silent), None));
    }
    if args.progress == "rawjson" {
        return Ok((Arc::new(Json::new(Box::new(std::io::stderr()))), None));
    }
    if is_live(args) {
        let tty = Arc::new(Tty::new(Box::new(std::io::stderr()), terminal_size));
        return Ok((tty.clone(), Some(tty)));
    }
    Ok((Arc::new(Plain::new(Box::new(std::io::stderr()))), None))
}

/// Whether the log of each step has been shown already when it fails.
pub(super) fn shows_logs(args: &BuildArgs) -> bool {
    !args.switches.quiet && !is_live(args) && args.progress != "quiet"
}

/// Whether nothing is to be heard of how it goes.
pub(super) fn is_quiet(args: &BuildArgs) -> bool {
    ["quiet", "none", "rawjson"].contains(&args.progress.as_str())
}

fn is_live(args: &BuildArgs) -> bool {
    match args.progress.as_str() {
        "tty" => true,
        "auto" => std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb"),
        _ => false,
    }
}

/// Columns and rows of the terminal.
pub(in crate::cli) fn terminal_size() -> (usize, usize) {
    let size = terminal_size::terminal_size_of(std::io::stderr());
    size.map_or((80, 24), |(w, h)| (usize::from(w.0).max(20), usize::from(h.0).max(5)))
}
