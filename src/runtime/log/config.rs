//! `--log-driver` and `--log-opt`.

use super::super::RunError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// Files of JSON lines.
    #[default]
    JsonFile,
    /// The same files under another name; they are rotated by default.
    Local,
    /// Nowhere.
    None,
}

/// A driver with its options.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// Where output goes.
    pub driver: LogDriver,
    /// As typed.
    pub options: BTreeMap<String, String>,
}

impl LogDriver {
    /// Gives docker's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::JsonFile => "json-file",
            Self::Local => "local",
            Self::None => "none",
        }
    }
}

impl LogConfig {
    /// Reads `--log-driver` and `--log-opt`s.
    pub fn parse(driver: Option<&str>, options: &[String]) -> Result<Self, RunError> {
        let driver = match driver.unwrap_or("json-file") {
            "json-file" => LogDriver::JsonFile,
            "local" => LogDriver::Local,
            "none" => LogDriver::None,
            other => return Err(RunError::flag("--log-driver", other, "expected json-file, local or none")),
        };
        let mut out = Self { driver, options: BTreeMap::new() };
        for text in options {
            let bad = |why: &str| RunError::flag("--log-opt", text, why);
            let (key, value) = text.split_once('=').ok_or_else(|| bad("expected NAME=VALUE"))?;
            let known = matches!(
                key,
                "max-size"
                    | "max-file"
                    | "compress"
                    | "labels"
                    | "labels-regex"
                    | "env"
                    | "env-regex"
                    | "tag"
                    | "mode"
                    | "max-buffer-size"
            );
            if !known {
                return Err(bad("unknown option; there are max-size, max-file, compress, labels, env, tag"));
            }
            if driver == LogDriver::None && !matches!(key, "mode" | "max-buffer-size") {
                return Err(bad("the log driver none takes no options"));
            }
            out.options.insert(key.into(), value.into());
        }
        let bad =
            |key: &str, why: &str| RunError::flag("--log-opt", format!("{key}={}", out.options[key]), why);
        if out.options.contains_key("max-size") && out.max_size().is_none() {
            return Err(bad("max-size", "expected a number of bytes such as 10m, or -1"));
        }
        if out.options.contains_key("max-file")
            && out.options["max-file"].parse::<u32>().ok().is_none_or(|n| n == 0)
        {
            return Err(bad("max-file", "expected a number of files, at least 1"));
        }
        if out.options.get("compress").is_some_and(|word| !matches!(word.as_str(), "true" | "false")) {
            return Err(bad("compress", "expected true or false"));
        }
        Ok(out)
    }

    /// Gives the bytes after which a new file begins; 0 is never, `None` that the option makes no sense.
    pub fn max_size(&self) -> Option<u64> {
        match self.options.get("max-size").map(String::as_str) {
            None if self.driver == LogDriver::Local => Some(20 << 20),
            None | Some("-1") => Some(0),
            Some(text) => crate::runtime::volume::bytes(text).filter(|n| *n > 0),
        }
    }

    /// Gives how many files are kept.
    pub fn max_file(&self) -> u32 {
        let default = if self.driver == LogDriver::Local { 5 } else { 1 };
        self.options.get("max-file").and_then(|n| n.parse().ok()).unwrap_or(default)
    }

    /// Gives the names of labels and variables whose values `logs --details` shows.
    pub fn detail_names(&self, key: &str) -> Vec<&str> {
        let list = self.options.get(key).map_or("", String::as_str);
        list.split(',').filter(|name| !name.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked() {
        let parse = |driver, options: &[&str]| {
            LogConfig::parse(driver, &options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
        };
        let config = parse(None, &["max-size=10k", "max-file=3"]).unwrap();
        assert_eq!((config.max_size(), config.max_file()), (Some(10 << 10), 3));
        assert_eq!(
            (parse(None, &[]).unwrap().max_size(), parse(None, &[]).unwrap().max_file()),
            (Some(0), 1)
        );
        assert_eq!(parse(Some("local"), &[]).unwrap().max_file(), 5);
        for (driver, option) in [
            (None, "max-size=x"),
            (None, "max-file=0"),
            (None, "what=1"),
            (None, "compress=x"),
            (None, "max-size"),
            (Some("none"), "max-size=1k"),
        ] {
            assert!(parse(driver, &[option]).is_err(), "{option}");
        }
        assert!(parse(Some("syslog"), &[]).is_err());
    }
}
