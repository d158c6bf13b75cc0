//! `logs`: what a container has written, and what it goes on to write.

use super::{failure, open};
use crate::cli::create_flags::said;
use crate::cli::{CliError, CommandResult, Ctx};
use crate::runtime::log::{LogDriver, LogQuery, LogReader, LogRecord, Stream};
use crate::runtime::{Container, Containers, time};
use clap::Args;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often to look for more.
const PAUSE: Duration = Duration::from_millis(25);

/// `logs`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LogsArgs {
    /// Name, id or beginning of an id
    #[arg(value_name = "CONTAINER")]
    name: String,
    /// Go on with what is written until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Only so many of the last lines
    #[arg(short = 'n', long, value_name = "N", default_value = "all", allow_hyphen_values = true)]
    tail: String,
    /// Only what was written since: a time (2006-01-02T15:04:05Z, seconds since 1970) or how long ago (42m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was written until then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show the labels and variables that the log keeps
    #[arg(long)]
    details: bool,
}

/// Shows the log.
pub(in crate::cli) fn run(args: &LogsArgs, ctx: &Ctx) -> CommandResult {
    let query = LogQuery {
        // docker takes what is no number for all
        tail: args.tail.parse().ok(),
        since: said(&args.since).map(|text| moment("--since", text)).transpose()?,
        until: said(&args.until).map(|text| moment("--until", text)).transpose()?,
    };
    let containers = open(ctx)?;
    let container = containers.find(&args.name).map_err(failure)?;
    if container.record.log.driver == LogDriver::None {
        return Err(CliError::new("configured logging driver does not support reading"));
    }
    let broken = |e: io::Error| CliError::new(format!("cannot read the log: {e}"));
    let mut reader = LogReader::open(&container.log_path(), query).map_err(broken)?;
    let mut out = Printer::new(args);
    let mut live = true;
    // of the run that was there first: another start is not waited for
    let started = container.state.started;
    let mut looked = Instant::now();
    loop {
        while let Some(record) = reader.next_record().map_err(broken)? {
            if out.print(&record).is_err() {
                // nobody reads any more
                return Ok(ExitCode::SUCCESS);
            }
        }
        if out.flush().is_err()
            || !args.follow
            || !live
            || query.until.is_some_and(|until| time::now() > until)
        {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(PAUSE);
        if looked.elapsed() > PAUSE * 4 {
            looked = Instant::now();
            // what is written before the end is read once more after it
            live = is_live(&containers, &container, started);
        }
    }
}

/// Whether there may be more to read: the container lives, and was not started anew by somebody. What its restart policy
/// starts goes on in the same log.
fn is_live(containers: &Containers, container: &Container, started: i128) -> bool {
    containers.get(&container.record.id).is_ok_and(|now| {
        now.is_some_and(|now| {
            let state = &now.state;
            state.status.is_live() && (state.started == started || state.restarts > 0)
        })
    })
}

/// Reads a point in time, in nanoseconds since 1970: a date with or without time and zone, seconds, or a duration before
/// now.
pub(super) fn moment(flag: &str, text: &str) -> Result<i128, CliError> {
    let bad = || {
        CliError::new(format!(
            "{flag} {text:?}: expected a time such as 2006-01-02T15:04:05Z, seconds since 1970, or a duration such as 42m"
        ))
    };
    if let Some((whole, part)) = text.split_once('.').or(Some((text, "")))
        && let Ok(seconds) = whole.parse::<i64>()
        && part.len() <= 9
        && part.bytes().all(|b| b.is_ascii_digit())
    {
        let nanos: i128 = format!("{part:0<9}").parse().map_err(|_| bad())?;
        return Ok(i128::from(seconds) * 1_000_000_000 + nanos);
    }
    // what is less than nothing ago is still to come
    let (sign, length) = text.strip_prefix('-').map_or((1, text), |length| (-1, length));
    if let Some(ago) = crate::dockerfile::parse_duration(length) {
        return Ok(time::now() - sign * i128::try_from(ago.as_nanos()).map_err(|_| bad())?);
    }
    full(text).and_then(|text| time::parse(&text)).ok_or_else(bad)
}

/// Completes a date that may lack minutes and seconds, or the whole time, or the zone.
fn full(text: &str) -> Option<String> {
    let (date, rest) = text.split_at_checked(10)?;
    let zone = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(zone);
    let missing = match clock.len() {
        0 => "T00:00:00",
        3 => ":00:00",
        6 => ":00",
        _ => "",
    };
    let zone = if zone.is_empty() { "Z" } else { zone };
    Some(format!("{date}{clock}{missing}{zone}"))
}

struct Printer {
    stdout: io::BufWriter<io::Stdout>,
    stderr: io::Stderr,
    timestamps: bool,
    details: bool,
}

impl Printer {
    fn new(args: &LogsArgs) -> Self {
        Self {
            stdout: io::BufWriter::with_capacity(64 << 10, io::stdout()),
            stderr: io::stderr(),
            timestamps: args.timestamps,
            details: args.details,
        }
    }

    fn print(&mut self, record: &LogRecord) -> io::Result<()> {
        let mut line = String::new();
        if self.timestamps {
            line.push_str(&stamp(record.time));
            line.push(' ');
        }
        if self.details {
            let pairs: Vec<String> =
                record.attrs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            line.push_str(&pairs.join(","));
            line.push(' ');
        }
        line.push_str(&record.text);
        match record.stream {
            Stream::Out => self.stdout.write_all(line.as_bytes()),
            Stream::Err => {
                self.stdout.flush()?;
                self.stderr.write_all(line.as_bytes())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

/// Writes a time with all nine digits, as docker's `-t`.
fn stamp(nanos: i128) -> String {
    let whole = time::format(nanos - nanos.rem_euclid(1_000_000_000));
    format!("{}.{:09}Z", whole.trim_end_matches('Z'), nanos.rem_euclid(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dockers() {
        let second = 1_000_000_000;
        for (text, want) in [
            ("2001-09-09T01:46:40Z", second * second),
            ("2001-09-09T01:46:40", second * second),
            ("2001-09-09T03:46:40+02:00", second * second),
            ("1000000000", second * second),
            ("1000000000.5", second * second + 500_000_000),
            ("2001-09-09", 999_993_600 * second),
            ("2001-09-09T01:46", 999_999_960 * second),
            ("2001-09-09T01", 999_997_200 * second),
            ("2001-09-09T03:46+02:00", 999_999_960 * second),
            ("2001-09-09Z", 999_993_600 * second),
        ] {
            assert_eq!(moment("--since", text).unwrap(), want, "{text}");
        }
        let then = moment("--since", "90s").unwrap();
        let ago = time::now() - then;
        assert!((90 * second..91 * second).contains(&ago));
        assert!(moment("--until", "-1h").unwrap() > time::now(), "still to come");
        for text in ["", "x", "2001-13-01", "1.x"] {
            assert!(moment("--since", text).is_err(), "{text:?}");
        }
        assert_eq!(stamp(second * second + 5), "2001-09-09T01:46:40.000000005Z");
    }
}
