//! The flags of `run` and `create` that are about the health check.

use super::{on, said};
use crate::cli::CliError;
use crate::oci::Healthcheck;
use clap::Args;

/// How it is found out whether the container works.
#[derive(Debug, Args)]
pub(super) struct HealthFlags {
    /// Command that tells whether the container works
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks [default: 30s]
    #[arg(long, value_name = "DURATION")]
    health_interval: Option<String>,
    /// Time for one check [default: 30s]
    #[arg(long, value_name = "DURATION")]
    health_timeout: Option<String>,
    /// Failures in a row until it is unhealthy [default: 3]
    #[arg(long, value_name = "N")]
    health_retries: Option<u32>,
    /// Time from the start in which failures do not count [default: 0s]
    #[arg(long, value_name = "DURATION")]
    health_start_period: Option<String>,
    /// Time between checks in the start period [default: 5s]
    #[arg(long, value_name = "DURATION")]
    health_start_interval: Option<String>,
    /// Leave the image's health check out
    #[arg(long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    no_healthcheck: Option<Option<bool>>,
}

/// What the command line says about the health check.
#[derive(Debug, Default)]
pub(super) struct HealthChange {
    none: bool,
    check: Healthcheck,
}

impl HealthFlags {
    /// Reads all of them.
    pub(super) fn change(&self) -> Result<HealthChange, CliError> {
        let nanos = |flag: &str, text: &Option<String>| match text {
            None => Ok(0),
            Some(text) => crate::dockerfile::parse_duration(text)
                .filter(|time| time.is_zero() || time.as_millis() > 0)
                .and_then(|time| i64::try_from(time.as_nanos()).ok())
                .ok_or_else(|| {
                    CliError::new(format!("{flag} {text:?}: expected a duration such as 30s or 1m30s"))
                        .hint("the shortest is 1ms; 0s stands for the default")
                }),
        };
        let test = said(&self.health_cmd).map(|text| vec!["CMD-SHELL".to_owned(), text.to_owned()]);
        let check = Healthcheck {
            test: test.unwrap_or_default(),
            interval: nanos("--health-interval", &self.health_interval)?,
            timeout: nanos("--health-timeout", &self.health_timeout)?,
            start_period: nanos("--health-start-period", &self.health_start_period)?,
            start_interval: nanos("--health-start-interval", &self.health_start_interval)?,
            retries: self.health_retries.map_or(0, i64::from),
        };
        let none = on(self.no_healthcheck);
        if none && check != Healthcheck::default() {
            return Err(CliError::new("--no-healthcheck conflicts with --health-* options"));
        }
        Ok(HealthChange { none, check })
    }
}

impl HealthChange {
    /// Lays it over the image's.
    pub(super) fn over(self, image: Option<&Healthcheck>) -> Option<Healthcheck> {
        if self.none {
            return Some(Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() });
        }
        if self.check == Healthcheck::default() {
            return image.cloned();
        }
        let image = image.cloned().unwrap_or_default();
        let or = |given: i64, below: i64| if given == 0 { below } else { given };
        Some(Healthcheck {
            test: if self.check.test.is_empty() { image.test } else { self.check.test },
            interval: or(self.check.interval, image.interval),
            timeout: or(self.check.timeout, image.timeout),
            start_period: or(self.check.start_period, image.start_period),
            start_interval: or(self.check.start_interval, image.start_interval),
            retries: or(self.check.retries, image.retries),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::*;

    #[test]
    fn health_flags_lie_over_the_image() {
        let test = vec!["CMD".into(), "a".into()];
        let image = Healthcheck { test, interval: 5, retries: 7, ..Healthcheck::default() };
        let health = |words: &[&str]| {
            let args = parse(&[words, &["app"]].concat()).unwrap();
            args.health.change().unwrap().over(Some(&image))
        };
        assert_eq!(health(&[]).unwrap(), image);
        let got = health(&["--health-retries", "2", "--health-timeout", "1s"]).unwrap();
        assert_eq!((got.test.len(), got.interval, got.retries, got.timeout), (2, 5, 2, 1_000_000_000));
        assert_eq!(health(&["--health-cmd", "x y"]).unwrap().test, ["CMD-SHELL", "x y"]);
        assert_eq!(health(&["--no-healthcheck"]).unwrap().test, ["NONE"]);
    }
}
