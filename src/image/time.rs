//! Times as image documents write them (RFC 3339, UTC) and as people read them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Writes seconds since the epoch as `2006-01-02T15:04:05Z`.
pub fn format_time(secs: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(secs).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_else(|_| "1970-01-01T00:00:00Z".into())
}

/// Reads an RFC 3339 time as seconds since the epoch.
pub fn parse_time(text: &str) -> Option<i64> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
}

/// Reads an RFC 3339 time as nanoseconds since the epoch.
pub(super) fn parse_nanos(text: &str) -> Option<i128> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp_nanos)
}

/// Gives the seconds since the epoch of now; 0 on a machine whose clock is before 1970.
pub(super) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(0))
}

/// Says how long ago a time was, in docker's words: `3 days ago`.
pub fn ago(then: i64, now: i64) -> String {
    let secs = now.saturating_sub(then).max(0);
    let (minutes, hours) = (secs / 60, (secs + 1800) / 3600);
    let text = match secs {
        0 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{secs} seconds"),
        _ if minutes == 1 => "About a minute".into(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    };
    format!("{text} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_both_ways() {
        assert_eq!(format_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(format_time(1_136_214_245), "2006-01-02T15:04:05Z");
        assert_eq!(parse_time("2006-01-02T15:04:05.123456789Z"), Some(1_136_214_245));
        assert_eq!(parse_time("2006-01-02T17:04:05+02:00"), Some(1_136_214_245));
        assert_eq!(parse_time("yesterday"), None);
        assert_eq!(format_time(i64::MAX), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn ages_are_dockers_words() {
        let day = 86_400;
        for (secs, want) in [
            (0, "Less than a second ago"),
            (59, "59 seconds ago"),
            (60, "About a minute ago"),
            (3599, "59 minutes ago"),
            (3600, "About an hour ago"),
            (day, "24 hours ago"),
            (2 * day, "2 days ago"),
            (14 * day, "2 weeks ago"),
            (60 * day, "2 months ago"),
            (800 * day, "2 years ago"),
            (-5, "Less than a second ago"),
        ] {
            assert_eq!(ago(0, secs), want, "{secs}");
        }
    }
}
