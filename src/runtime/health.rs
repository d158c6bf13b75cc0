//! The health of a container as docker judges it: a state machine over the results of probes. Pure.
//!
//! ```text
//! starting ──success──► healthy ◄──────────────┐
//!    │                     │ `retries` failures │ success
//!    └── `retries` ────────┴──────► unhealthy ──┘
//! ```
//! In the start period failures do not count, and the first success ends it.

use crate::oci::Healthcheck;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How many results are kept.
const KEPT: usize = 5;

/// More of a probe's output is not kept, in bytes.
pub const OUTPUT_LIMIT: usize = 4096;

/// A judgement in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Nothing is known yet.
    Starting,
    /// The last probe succeeded.
    Healthy,
    /// Too many probes in a row failed.
    Unhealthy,
}

impl HealthStatus {
    /// Gives docker's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Nanoseconds since 1970.
    #[serde(with = "super::text::moment")]
    pub start: i128,
    /// Nanoseconds since 1970.
    #[serde(with = "super::text::moment")]
    pub end: i128,
    /// 0 is success; -1 says that the probe was killed or could not be started.
    pub exit_code: i32,
    /// What it wrote, cut off.
    pub output: String,
}

/// What is known of a container's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The judgement.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing: u32,
    /// The last results, oldest first.
    pub log: Vec<Probe>,
}

/// How a container is probed, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Between the end of one probe and the next.
    pub interval: Duration,
    /// After which a probe is killed.
    pub timeout: Duration,
    /// In which failures do not count.
    pub start_period: Duration,
    /// Between probes in the start period.
    pub start_interval: Duration,
    /// Failures in a row until the container is unhealthy.
    pub retries: u32,
}

impl Plan {
    /// Reads a health check; `None` when there is nothing to run. `shell` is the image's SHELL.
    pub fn new(check: &Healthcheck, shell: Option<&[String]>) -> Option<Self> {
        let argv = match check.test.split_first() {
            Some((kind, words)) if kind == "CMD" && !words.is_empty() => words.to_vec(),
            Some((kind, [text])) if kind == "CMD-SHELL" => {
                let default = ["/bin/sh".to_owned(), "-c".to_owned()];
                let shell = shell.filter(|shell| !shell.is_empty()).unwrap_or(&default);
                shell.iter().chain([text]).cloned().collect()
            }
            _ => return None,
        };
        let or = |nanos: i64, seconds: u64| match u64::try_from(nanos) {
            Ok(nanos) if nanos > 0 => Duration::from_nanos(nanos),
            _ => Duration::from_secs(seconds),
        };
        Some(Self {
            argv,
            interval: or(check.interval, 30),
            timeout: or(check.timeout, 30),
            start_period: or(check.start_period, 0),
            start_interval: or(check.start_interval, 5),
            retries: u32::try_from(check.retries).ok().filter(|n| *n > 0).unwrap_or(3),
        })
    }

    /// Says how long to wait for the next probe, so long after the start of the container.
    pub fn pause(&self, health: &Health, age: Duration) -> Duration {
        match health.status {
            HealthStatus::Starting if age < self.start_period => self.start_interval,
            _ => self.interval,
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self { status: HealthStatus::Starting, failing: 0, log: Vec::new() }
    }
}

impl Health {
    /// Takes a result in; `age` is the time from the container's start to the probe's. Gives the new judgement when
    /// it is another one.
    pub fn take(&mut self, plan: &Plan, probe: Probe, age: Duration) -> Option<HealthStatus> {
        let before = self.status;
        if probe.exit_code == 0 {
            self.status = HealthStatus::Healthy;
            self.failing = 0;
        } else {
            let excused = before == HealthStatus::Starting && age < plan.start_period;
            if !excused {
                self.failing += 1;
                if self.failing >= plan.retries {
                    self.status = HealthStatus::Unhealthy;
                }
            }
        }
        self.log.push(probe);
        let surplus = self.log.len().saturating_sub(KEPT);
        self.log.drain(..surplus);
        (self.status != before).then_some(self.status)
    }
}

/// Writes a duration as Go does: `1m30s`, `500ms`.
pub fn span(time: Duration) -> String {
    let (secs, millis) = (time.as_secs(), time.subsec_millis());
    match (secs / 3600, secs / 60 % 60, secs % 60) {
        (0, 0, 0) if millis > 0 => format!("{millis}ms"),
        (0, 0, s) if millis > 0 => format!("{}s", s as f64 + f64::from(millis) / 1000.0),
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(test: &[&str]) -> Healthcheck {
        Healthcheck { test: test.iter().map(|t| (*t).to_owned()).collect(), ..Healthcheck::default() }
    }

    fn probe(exit_code: i32) -> Probe {
        Probe { start: 1, end: 2, exit_code, output: String::new() }
    }

    #[test]
    fn defaults_are_dockers() {
        let plan = Plan::new(&check(&["CMD-SHELL", "true"]), None).unwrap();
        assert_eq!(plan.argv, ["/bin/sh", "-c", "true"]);
        let secs = |d: Duration| d.as_secs();
        assert_eq!((secs(plan.interval), secs(plan.timeout), secs(plan.start_period)), (30, 30, 0));
        assert_eq!((secs(plan.start_interval), plan.retries), (5, 3));
        let bash = ["bash".to_owned(), "-ec".to_owned()];
        assert_eq!(Plan::new(&check(&["CMD-SHELL", "x"]), Some(&bash)).unwrap().argv, ["bash", "-ec", "x"]);
        assert_eq!(Plan::new(&check(&["CMD", "a", "b"]), None).unwrap().argv, ["a", "b"]);
        for none in [&["NONE"][..], &[], &["CMD"], &["what", "x"]] {
            assert!(Plan::new(&check(none), None).is_none(), "{none:?}");
        }
    }

    #[test]
    fn failures_count_in_a_row_and_not_while_starting() {
        let plan = Plan {
            start_period: Duration::from_secs(10),
            retries: 2,
            ..Plan::new(&check(&["CMD", "x"]), None).unwrap()
        };
        let early = Duration::from_secs(1);
        let late = Duration::from_secs(60);
        let mut health = Health::default();
        assert_eq!(plan.pause(&health, early), plan.start_interval);
        for _ in 0..4 {
            assert_eq!(health.take(&plan, probe(1), early), None);
        }
        assert_eq!((health.failing, health.status), (0, HealthStatus::Starting));
        assert_eq!(health.take(&plan, probe(0), early), Some(HealthStatus::Healthy));
        // the success has ended the start period
        assert_eq!(plan.pause(&health, early), plan.interval);
        assert_eq!(health.take(&plan, probe(1), early), None);
        assert_eq!(health.take(&plan, probe(-1), late), Some(HealthStatus::Unhealthy));
        assert_eq!((health.failing, health.log.len()), (2, KEPT));
        assert_eq!(health.take(&plan, probe(2), late), None);
        assert_eq!(health.take(&plan, probe(0), late), Some(HealthStatus::Healthy));
        assert_eq!(health.failing, 0);
        let mut never = Health::default();
        assert_eq!(never.take(&plan, probe(1), late), None);
        assert_eq!(never.take(&plan, probe(1), late), Some(HealthStatus::Unhealthy));
    }
}
