//! Durations as HEALTHCHECK options write them: `1h30m`, `1.5s`, `300ms`.

use std::time::Duration;

/// Reads a duration: one or more decimal numbers, each with a unit (`ns`, `us`, `µs`, `ms`, `s`, `m`, `h`), or `0`.
/// Gives nanoseconds, negative with a leading minus sign; nothing if the text is no duration or too large for 64 bit.
pub(super) fn parse_nanoseconds(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let unit = unit(&after[..end])?;
        rest = &after[end..];
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok().filter(|n| *n <= 1 << 63)? };
        total += whole * unit + fraction_of(fraction, unit);
        if total > 1 << 63 {
            return None;
        }
    }
    let signed = i128::try_from(total).ok().map(|total| if negative { -total } else { total })?;
    i64::try_from(signed).ok()
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn unit(name: &str) -> Option<u128> {
    Some(match name {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// Gives the nanoseconds of `0.<digits>` units; digits that are worth less than one are dropped.
fn fraction_of(digits: &str, unit: u128) -> u128 {
    let digits = &digits[..digits.len().min(15)];
    let scale = 10_u128.pow(u32::try_from(digits.len()).unwrap_or(0));
    digits.parse::<u128>().map_or(0, |number| number * unit / scale)
}

/// Reads a duration as Go writes it, such as `1h30m`, for command lines; a negative one is none.
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse_nanoseconds(text).and_then(from_nanoseconds)
}

/// Makes a duration of nanoseconds that are not negative.
pub(super) fn from_nanoseconds(nanoseconds: i64) -> Option<Duration> {
    u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        let cases = [
            ("0", Some(0)),
            ("1s", Some(1_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("5.s", Some(5_000_000_000)),
            ("-1ms", Some(-1_000_000)),
            ("+1ms", Some(1_000_000)),
            ("1us2µs3μs", Some(6_000)),
            ("9223372036854775807ns", Some(i64::MAX)),
            ("9223372036854775808ns", None),
            ("-9223372036854775808ns", Some(i64::MIN)),
            ("99999999999999999999999999999999999999999h", None),
            ("", None),
            ("-", None),
            ("3", None),
            ("s", None),
            (".s", None),
            ("1x", None),
            ("banana", None),
            ("1 s", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_nanoseconds(text), expected, "{text:?}");
        }
    }
}
