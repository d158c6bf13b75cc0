//! A failed step, as the user wants to see it: why, its log, and the lines of the Dockerfile.

use super::CliError;
use crate::dockerfile::without_passwords;
use crate::progress::printable;
use crate::solve::{OpError, SolveError};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Lines of the Dockerfile shown before and after those of the step.
const AROUND: usize = 2;
/// Longest piece of a log that is shown, in bytes; the file holds all of it.
const SHOWN: u64 = 256 * 1024;
/// Lines repeated of a log that was shown already.
const REPEATED: usize = 12;

/// Says what failed, with the end of the log and the Dockerfile excerpt.
pub(super) fn describe(name: &str, source: &[u8], error: &SolveError, log_shown: bool) -> CliError {
    let mut text = format!("{}: {}\n", error.label, causes(&error.cause));
    if let Some(path) = &error.log {
        text.push_str(&log(path, log_shown));
    }
    text.push_str(&excerpt(name, source, error));
    let shown = CliError::new(text.trim_end());
    match &error.cause {
        OpError::NotAllowed { right, .. } => shown.hint(format!("add --allow {right}")),
        OpError::Platform { .. } => {
            shown.hint("register an emulator: install qemu-user-static with binfmt support")
        }
        OpError::Network(cause) => cause.hint().map(ToString::to_string).map_or(shown, |h| add(text, h)),
        _ => shown,
    }
}

fn add(text: String, hint: String) -> CliError {
    CliError::new(text.trim_end()).hint(hint)
}

fn causes(error: &OpError) -> String {
    CliError::from_error(error).message
}

fn log(path: &Path, shown: bool) -> String {
    let Ok((bytes, cut)) = tail(path) else { return String::new() };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let skip = if shown { lines.len().saturating_sub(REPEATED) } else { 0 };
    let mut out = String::from(" > log:\n");
    if cut || skip > 0 {
        out.push_str(&format!(" > ... (all of it: {})\n", path.display()));
    }
    for line in &lines[skip..] {
        out.push_str(&format!(" > {}\n", printable(line.as_bytes())));
    }
    out
}

fn tail(path: &Path) -> std::io::Result<(Vec<u8>, bool)> {
    let mut file = std::fs::File::open(path)?;
    let len = file.metadata()?.len();
    let cut = len > SHOWN;
    file.seek(SeekFrom::Start(len.saturating_sub(SHOWN)))?;
    let mut bytes = Vec::new();
    file.take(SHOWN).read_to_end(&mut bytes)?;
    Ok((bytes, cut))
}

fn excerpt(name: &str, source: &[u8], error: &SolveError) -> String {
    if error.lines.is_empty() {
        return String::new();
    }
    let text = String::from_utf8_lossy(source);
    let lines: Vec<&str> = text.lines().collect();
    let first = error.lines.start.saturating_sub(AROUND).max(1);
    let last = (error.lines.end - 1 + AROUND).min(lines.len());
    let width = last.to_string().len();
    let mut out = format!("{name}:{}\n", error.lines.start);
    for number in first..=last {
        let mark = if error.lines.contains(&number) { ">>>" } else { "   " };
        let line = lines.get(number - 1).copied().unwrap_or("");
        out.push_str(&format!(
            " {number:width$} | {mark} {}\n",
            printable(without_passwords(line).as_bytes())
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_step_are_marked() {
        let error = SolveError {
            label: "[2/2] RUN false".into(),
            lines: 3..4,
            cause: OpError::Process { command: "/bin/sh -c false".into(), how: "exit code: 1".into() },
            log: None,
        };
        let shown = describe("Dockerfile", b"FROM x\nENV A=1\nRUN false\nRUN true\n", &error, false).message;
        assert_eq!(
            shown,
            "[2/2] RUN false: process \"/bin/sh -c false\" did not complete successfully: exit code: 1\n\
             Dockerfile:3\n 1 |     FROM x\n 2 |     ENV A=1\n 3 | >>> RUN false\n 4 |     RUN true"
        );
    }
}
