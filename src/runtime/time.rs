//! Moments as nanoseconds since 1970, and how docker writes them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Docker's "never".
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// Gives nanoseconds since 1970.
pub fn now() -> i128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i128::try_from(since.as_nanos()).unwrap_or(0))
}

/// Writes a moment with nanoseconds, trailing zeros left out; 0 is [`NEVER`].
pub fn format(nanos: i128) -> String {
    match OffsetDateTime::from_unix_timestamp_nanos(nanos) {
        Ok(time) if nanos != 0 => time.format(&Rfc3339).unwrap_or_else(|_| NEVER.into()),
        _ => NEVER.into(),
    }
}

/// Reads what [`format()`] writes, and any other RFC 3339 time.
pub fn parse(text: &str) -> Option<i128> {
    if text == NEVER {
        return Some(0);
    }
    OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp_nanos)
}

/// Writes a moment as `ps` does: `2006-01-02 15:04:05 +0000 UTC`.
pub fn column(nanos: i128) -> String {
    let text = format(nanos - nanos.rem_euclid(1_000_000_000));
    format!("{} +0000 UTC", text.trim_end_matches('Z').replace('T', " "))
}

/// Says how long something took, in docker's words: `5 minutes`, `About an hour`.
pub fn span(nanos: i128) -> String {
    let secs = i64::try_from(nanos / 1_000_000_000).unwrap_or(0);
    crate::image::ago(0, secs).trim_end_matches(" ago").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_go_both_ways() {
        for (nanos, text) in [
            (0, NEVER),
            (1_136_214_245_000_000_000, "2006-01-02T15:04:05Z"),
            (1_136_214_245_120_000_000, "2006-01-02T15:04:05.12Z"),
            (1_136_214_245_000_000_001, "2006-01-02T15:04:05.000000001Z"),
        ] {
            assert_eq!(format(nanos), text);
            assert_eq!(parse(text), Some(nanos));
        }
        assert_eq!(column(1_136_214_245_120_000_000), "2006-01-02 15:04:05 +0000 UTC");
        assert_eq!(span(65 * 1_000_000_000), "About a minute");
        assert_eq!(parse("soon"), None);
    }
}
