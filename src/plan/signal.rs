//! The signals that STOPSIGNAL accepts.

/// Signals of Linux by name, without `SIG`; [`is_real_time`] knows the numbered ones.
const LINUX: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "RTMAX", "RTMIN", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Says what is wrong with a signal, or `None` when it is one: a number other than 0, or a name with or without
/// `SIG` in any case.
pub(super) fn fault(text: &str) -> Option<String> {
    if text.parse::<i64>().is_ok_and(|number| number != 0) {
        return None;
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let known = LINUX.contains(&name) || is_real_time(name);
    (!known).then(|| format!("invalid signal: {text}"))
}

/// Gives the names for a suggestion.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    LINUX.iter().copied()
}

fn is_real_time(name: &str) -> bool {
    let within = |number: &str, most: u8| {
        number.parse::<u8>().is_ok_and(|n| (1..=most).contains(&n)) && !number.starts_with(['0', '+'])
    };
    name.strip_prefix("RTMIN+").is_some_and(|n| within(n, 15))
        || name.strip_prefix("RTMAX-").is_some_and(|n| within(n, 14))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_names_or_numbers() {
        for good in ["9", "SIGTERM", "term", "sigUsr1", "RTMIN", "SIGRTMIN+15", "rtmax-14", "200", "-1"] {
            assert_eq!(fault(good), None, "{good}");
        }
        for bad in ["", "0", "SIGFOO", "SIG", "RTMIN+16", "RTMAX-15", "RTMIN+0", "RTMIN+01", "9x", "TERM "] {
            assert!(fault(bad).is_some(), "{bad}");
        }
    }
}
