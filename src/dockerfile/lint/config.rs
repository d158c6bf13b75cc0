//! Which checks count: `# check=skip=Name,Name;error=true;experimental=all`.

use super::Rule;
use crate::dockerfile::ast::{Dockerfile, Head};
use crate::dockerfile::diagnostic::Diagnostic;
use crate::dockerfile::span::Text;
use crate::suggest::nearest;

/// Which checks are made and whether they fail the build.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// No check at all.
    pub skip_all: bool,
    /// Rules not to check, by name; unknown names are kept and mean nothing.
    pub skip: Vec<String>,
    /// All experimental checks too.
    pub experimental_all: bool,
    /// Experimental rules to check.
    pub experimental: Vec<String>,
    /// Whether a finding is an error.
    pub error: bool,
}

/// Why a check option cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No such option, or none of the form `name=value`.
    #[error("invalid check option {0:?}")]
    Unknown(String),
    /// `error=` with something that is neither true nor false.
    #[error("failed to parse check option {0:?}: it must be true or false")]
    NotBoolean(String),
}

impl Config {
    /// Reads the options, as the directive and the build argument `BUILDKIT_DOCKERFILE_CHECK` hold them.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut config = Config::default();
        if text.trim().is_empty() {
            return Ok(config);
        }
        for part in text.trim().splitn(3, ';') {
            let (key, value) = part.split_once('=').ok_or_else(|| ConfigError::Unknown(part.to_owned()))?;
            match key.trim() {
                "skip" => (config.skip_all, config.skip) = names(value),
                "experimental" => (config.experimental_all, config.experimental) = names(value),
                "error" => {
                    config.error = match value.trim() {
                        "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
                        "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
                        _ => return Err(ConfigError::NotBoolean(part.to_owned())),
                    }
                }
                other => return Err(ConfigError::Unknown(other.to_owned())),
            }
        }
        Ok(config)
    }

    /// Reads the `check` directive of a file; only its first word counts.
    pub fn of_file(file: &Dockerfile) -> Result<Self, Diagnostic> {
        let Some(value) = file.directive("check") else { return Ok(Config::default()) };
        let first = value.as_str().split(' ').next().unwrap_or_default();
        Config::parse(first).map_err(|error| {
            Diagnostic::new("rbuild::check_option", error.to_string())
                .at(value.span())
                .help("write `# check=skip=RuleName,OtherRule;error=true`")
        })
    }

    /// Reads the first `check=` among the comments above an instruction; a wrong one counts as none.
    pub(super) fn of_comments(head: &Head) -> Self {
        let option = |comment: &'_ Text| -> Option<Config> {
            let (key, value) = comment.as_str().split_once('=')?;
            let value = value.trim();
            (key.trim().eq_ignore_ascii_case("check") && !value.is_empty())
                .then(|| Config::parse(value.split(' ').next().unwrap_or_default()).unwrap_or_default())
        };
        head.comments.iter().find_map(option).unwrap_or_default()
    }

    /// Adds the choices of another one; whether findings are errors stays.
    #[must_use]
    pub fn merged(&self, other: &Config) -> Config {
        let join = |a: &[String], b: &[String]| a.iter().chain(b).cloned().collect();
        Config {
            skip_all: self.skip_all || other.skip_all,
            skip: join(&self.skip, &other.skip),
            experimental_all: self.experimental_all || other.experimental_all,
            experimental: join(&self.experimental, &other.experimental),
            error: self.error,
        }
    }

    /// Tells whether a rule is checked.
    pub fn wants(&self, rule: Rule) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name == rule.name());
        match rule.is_experimental() {
            true => self.experimental_all || named(&self.experimental),
            false => !self.skip_all && !named(&self.skip),
        }
    }

    /// Lists names that are no rules, each with the rule it is near to.
    pub fn unknown_names(&self) -> Vec<(&str, Option<&'static str>)> {
        let known = |name: &str| Rule::ALL.iter().any(|rule| rule.name() == name);
        let all = self.skip.iter().chain(&self.experimental).map(String::as_str);
        all.filter(|name| !known(name))
            .map(|name| (name, nearest(name, Rule::ALL.iter().map(|rule| rule.name()))))
            .collect()
    }
}

fn names(value: &str) -> (bool, Vec<String>) {
    match value.trim() {
        "all" => (true, Vec::new()),
        value => (false, value.split(',').map(|name| name.trim().to_owned()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let config =
            Config::parse("skip=StageNameCasing, FromAsCasing ;error=true;experimental=all").expect("valid");
        assert!(config.error && config.experimental_all && !config.skip_all);
        assert!(!config.wants(Rule::FromAsCasing) && config.wants(Rule::UndefinedVar));
        assert!(config.wants(Rule::InvalidDefinitionDescription));
        let all = Config::parse("skip=all").expect("valid");
        assert!(Rule::ALL.iter().all(|rule| !all.wants(*rule)));
        assert_eq!(Config::parse("").expect("valid"), Config::default());
        for bad in ["skip", "skp=all", "error=maybe"] {
            assert!(Config::parse(bad).is_err(), "{bad}");
        }
        let typo = Config::parse("skip=StageNameCasin").expect("valid");
        assert_eq!(typo.unknown_names(), [("StageNameCasin", Some("StageNameCasing"))]);
    }
}
