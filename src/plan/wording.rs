//! The words of history entries, as BuildKit writes them: they are Go's print forms of Go values.

use crate::oci::Healthcheck;
use std::fmt::Write as _;

/// What BuildKit notes in each entry.
pub(super) const COMMENT: &str = "buildkit.dockerfile.v0";

/// What entries of RUN, COPY and ADD end in.
pub(super) const SUFFIX: &str = " # buildkit";

/// Writes a list with quotes: `["a" "b"]` (Go's `%q`).
pub(super) fn quoted_list(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", quoted.join(" "))
}

/// Writes a list without quotes: `[a b]` (Go's `%v`).
pub(super) fn list(items: &[String]) -> String {
    format!("[{}]", items.join(" "))
}

/// Writes the entry of a RUN: the declared arguments with their number in front of the command.
pub(super) fn run(args: &[String], declared: &[(String, String)]) -> String {
    let mut out = String::from("RUN");
    if !declared.is_empty() {
        let _ = write!(out, " |{}", declared.len());
    }
    for (name, value) in declared {
        let _ = write!(out, " {name}={value}");
    }
    for arg in args {
        out.push(' ');
        out.push_str(arg);
    }
    out + SUFFIX
}

/// Writes the entry of a HEALTHCHECK.
pub(super) fn healthcheck(check: &Healthcheck) -> String {
    format!(
        "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        list(&check.test),
        duration(check.interval),
        duration(check.timeout),
        duration(check.start_period),
        duration(check.start_interval),
        check.retries
    )
}

/// Writes nanoseconds as Go does: `1m30s`, `500ms`, `1.5s`.
fn duration(nanos: i64) -> String {
    let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let fraction = |unit: u64, name: &str| format!("{sign}{}{name}", decimal(nanos, unit));
    match nanos {
        0 => "0s".into(),
        1..1_000 => fraction(1, "ns"),
        1_000..1_000_000 => fraction(1_000, "\u{b5}s"),
        1_000_000..1_000_000_000 => fraction(1_000_000, "ms"),
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let seconds = decimal(rest, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, m) => format!("{sign}{m}m{seconds}s"),
                (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
            }
        }
    }
}

/// Writes `n / unit` with as many decimals as it takes; `unit` is a power of ten.
fn decimal(n: u64, unit: u64) -> String {
    let width = unit.ilog10() as usize;
    let whole = n / unit;
    match n % unit {
        0 => whole.to_string(),
        rest => format!("{whole}.{}", format!("{rest:0width$}").trim_end_matches('0')),
    }
}

/// Quotes a string as Go source text.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() && u32::from(c) < 0x80 => drop(write!(out, "\\x{:02x}", u32::from(c))),
            c if unseen(c) && u32::from(c) < 0x10000 => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c if unseen(c) => drop(write!(out, "\\U{:08x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

/// Says whether Go would not print a character as itself: controls, format marks, blanks other than a space and
/// private use.
fn unseen(c: char) -> bool {
    (c != ' ' && c.is_whitespace())
        || c.is_control()
        || matches!(u32::from(c), 0xad | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x2064 | 0xfeff
            | 0xe000..=0xf8ff | 0xfff9..=0xfffb | 0xe0000..=0x10ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn lists_are_quoted_as_go_does() {
        assert_eq!(quoted_list(&[]), "[]");
        assert_eq!(
            quoted_list(&strings(&["/bin/sh", "-c", "a \"b\" \\ \t$x"])),
            r#"["/bin/sh" "-c" "a \"b\" \\ \t$x"]"#
        );
        assert_eq!(quoted_list(&strings(&["é\u{1}\u{7f}\u{a0}\u{85}"])), r#"["é\x01\x7f\u00a0\u0085"]"#);
        assert_eq!(list(&strings(&["/v 1", "/v2"])), "[/v 1 /v2]");
    }

    #[test]
    fn run_names_its_arguments() {
        let args = strings(&["/bin/sh", "-c", "make"]);
        assert_eq!(run(&args, &[]), "RUN /bin/sh -c make # buildkit");
        let declared = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), String::new())];
        assert_eq!(run(&args, &declared), "RUN |2 A=1 B= /bin/sh -c make # buildkit");
    }

    #[test]
    fn durations_are_written_as_go_does() {
        for (nanos, want) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5\u{b5}s"),
            (500_000_000, "500ms"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (7_200_000_000_000, "2h0m0s"),
            (3_600_000_000_001, "1h0m0.000000001s"),
        ] {
            assert_eq!(duration(nanos), want);
        }
    }

    #[test]
    fn healthchecks_are_written_as_go_structs() {
        let check = Healthcheck {
            test: strings(&["CMD-SHELL", "curl x"]),
            interval: 30_000_000_000,
            retries: 3,
            ..Healthcheck::default()
        };
        assert_eq!(
            healthcheck(&check),
            "HEALTHCHECK {Test:[CMD-SHELL curl x] Interval:30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3}"
        );
    }
}
