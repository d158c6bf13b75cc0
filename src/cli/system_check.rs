//! `rbuild system check`: whether the store is sound.

use super::{CommandResult, Ctx};
use crate::build;
use crate::check::{Checker, Finding, Report};
use crate::progress::printable;
use std::process::ExitCode;

/// Verifies everything in the store: images, layers to the last byte, records of the cache, containers, volumes.
/// Ends with 1 when something is wrong.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Remove what is damaged and make anew what can be made anew
    #[arg(long)]
    repair: bool,
}

/// Runs the command.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    let (store, snapshots, images) = ctx.open()?;
    let records = build::records(&store);
    let checker = Checker::new(store, snapshots, images, records);
    let report = if args.repair { checker.repair()? } else { checker.check()? };
    ctx.out.text(&text(&report))?;
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&printable(text.as_bytes()));
        out.push('\n');
    };
    for Finding { what, wrong, .. } in &report.mended {
        line(format!("mended: {what}: {wrong}"));
    }
    for Finding { what, wrong, cure } in &report.findings {
        line(format!("{what}: {wrong}; {}", cure.text()));
    }
    for what in &report.passed_over {
        line(format!("not looked at: {what}"));
    }
    let (left, done) = (report.findings.len(), report.mended.len());
    let repairable = report.findings.iter().filter(|finding| finding.cure.is_possible()).count();
    line(match (left, done) {
        (0, 0) => "The store is sound.".to_owned(),
        (0, _) => format!("The store is sound; {done} repaired."),
        (_, 0) => format!("{left} wrong, of which --repair can put {repairable} right."),
        _ => format!("{done} repaired, {left} wrong still."),
    });
    out
}
