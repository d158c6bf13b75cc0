//! When a container that has ended is started again: docker's policies and its back-off. Pure.

use super::RunError;
use serde::{Deserialize, Serialize};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// A run of this length sets the back-off back.
const LONG_RUN: Duration = Duration::from_secs(10);

/// `--restart`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// After a failure; at most so often, 0 is without limit.
    OnFailure(u32),
    /// Always, unless the user has stopped it; then again from the next boot on.
    Always,
    /// The same, but not after a boot when the user had stopped it.
    UnlessStopped,
}

impl RestartPolicy {
    /// Reads `no`, `on-failure[:N]`, `always` or `unless-stopped`.
    pub fn parse(text: &str) -> Result<Self, RunError> {
        let bad = |why: &str| RunError::flag("--restart", text, why);
        let (word, count) = text.split_once(':').map_or((text, None), |(w, n)| (w, Some(n)));
        let policy = match word {
            "" | "no" => Self::No,
            "on-failure" => {
                let count =
                    count.map(|n| n.parse().map_err(|_| bad("maximum retry count must be an integer")));
                return Ok(Self::OnFailure(count.transpose()?.unwrap_or(0)));
            }
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            _ => return Err(bad("expected no, on-failure[:N], always or unless-stopped")),
        };
        match count {
            None => Ok(policy),
            Some(_) => Err(bad("only on-failure takes a maximum retry count")),
        }
    }

    /// Gives docker's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::OnFailure(_) => "on-failure",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
        }
    }

    /// Gives the most retries; 0 is without limit.
    pub fn retries(self) -> u32 {
        if let Self::OnFailure(n) = self { n } else { 0 }
    }

    /// Says whether a container that ended by itself is started again after so many restarts.
    pub fn again(self, exit_code: i32, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure(most) => exit_code != 0 && (most == 0 || restarts < most),
            Self::Always | Self::UnlessStopped => true,
        }
    }
}

impl RestartPolicy {
    /// Says whether a container is started when the machine comes up. docker starts those of `on-failure` too when they
    /// had failed, against its own manual.
    pub fn at_boot(self, stopped_by_user: bool) -> bool {
        match self {
            Self::Always => true,
            Self::UnlessStopped => !stopped_by_user,
            Self::No | Self::OnFailure(_) => false,
        }
    }
}

/// How long to wait before the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff(Option<Duration>);

impl Backoff {
    /// Gives the wait after a run of this length.
    pub fn next(&mut self, ran: Duration) -> Duration {
        let wait = match self.0 {
            Some(last) if ran < LONG_RUN => (last * 2).min(LONGEST),
            _ => FIRST,
        };
        self.0 = Some(wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        use RestartPolicy as P;
        for (text, want) in [
            ("no", P::No),
            ("always", P::Always),
            ("unless-stopped", P::UnlessStopped),
            ("on-failure", P::OnFailure(0)),
            ("on-failure:3", P::OnFailure(3)),
        ] {
            assert_eq!(P::parse(text).unwrap(), want);
        }
        for bad in ["never", "always:3", "on-failure:x", "on-failure:-1"] {
            assert!(P::parse(bad).is_err(), "{bad}");
        }
        assert!(
            P::Always.at_boot(true) && P::UnlessStopped.at_boot(false) && !P::UnlessStopped.at_boot(true)
        );
        assert!(!P::No.at_boot(false) && !P::OnFailure(0).at_boot(false));
        assert!(P::Always.again(0, 99) && !P::No.again(1, 0));
        assert!(P::OnFailure(2).again(1, 1) && !P::OnFailure(2).again(1, 2) && !P::OnFailure(0).again(0, 0));
    }

    #[test]
    fn waits_double_to_a_minute_and_begin_anew_after_a_long_run() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        let waits: Vec<u128> = (0..12).map(|_| backoff.next(short).as_millis()).collect();
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[10..], [60_000, 60_000]);
        assert_eq!(backoff.next(Duration::from_secs(10)).as_millis(), 100);
    }
}
