//! The build checks: habits that work today and hurt tomorrow.
//!
//! Owns the names, descriptions and wording of all rules, which are those of the reference builder, and runs those
//! that need nothing but the tree. The others need values of variables, images or the context; `plan` and `build`
//! make their warnings with the functions of [`Warning`] and pass them through the same [`Config`].

mod config;
mod rule;
mod walk;

pub use config::{Config, ConfigError};
pub use rule::Rule;
pub(crate) use rule::names_a_secret;
pub use walk::{Inherited, check, check_file, check_stage};

use super::ast::Head;
use super::diagnostic::{Diagnostic, Label};
use super::span::Span;

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule that was broken.
    pub rule: Rule,
    /// What was found.
    pub message: String,
    /// Where, the main place first.
    pub spans: Vec<Span>,
    /// Checks in the comments above the instruction; they may silence it.
    local: Config,
}

impl Warning {
    /// Makes a warning about an instruction; its comments may silence it.
    pub fn new(rule: Rule, message: impl Into<String>, head: &Head) -> Self {
        Warning {
            rule,
            message: message.into(),
            spans: vec![head.original.span()],
            local: Config::of_comments(head),
        }
    }

    /// Points at other bytes than the whole instruction.
    #[must_use]
    pub fn at(mut self, span: Span) -> Self {
        self.spans = vec![span];
        self
    }

    /// A variable that is used and nowhere defined.
    pub fn undefined_var(name: &str, near: Option<&str>, head: &Head) -> Self {
        let near = near.map(|near| format!(" (did you mean ${near}?)")).unwrap_or_default();
        Warning::new(Rule::UndefinedVar, format!("Usage of undefined variable '${name}'{near}"), head)
    }

    /// A variable in FROM that no global ARG declares.
    pub fn undefined_arg_in_from(name: &str, near: Option<&str>, head: &Head) -> Self {
        let near = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
        Warning::new(Rule::UndefinedArgInFrom, format!("FROM argument '{name}' is not declared{near}"), head)
    }

    /// A base name that is empty or wrong when only the defaults of the global arguments count.
    pub fn invalid_default_arg_in_from(base: &str, head: &Head) -> Self {
        let message = format!("Default value for ARG {base} results in empty or invalid base image name");
        Warning::new(Rule::InvalidDefaultArgInFrom, message, head)
    }

    /// A base image of another platform than the stage is built for.
    pub fn invalid_base_image_platform(image: &str, expected: &str, actual: &str, head: &Head) -> Self {
        let message = format!(
            "Base image {image} was pulled with platform {actual:?}, expected {expected:?} for current build"
        );
        Warning::new(Rule::InvalidBaseImagePlatform, message, head)
    }

    /// A source of COPY (`command` is "Copy") or ADD ("Add") that the ignore file excludes.
    pub fn copy_ignored_file(command: &str, file: &str, head: &Head) -> Self {
        let message = format!("Attempting to {command} file {file:?} that is excluded by .dockerignore");
        Warning::new(Rule::CopyIgnoredFile, message, head)
    }

    /// `--platform` that is nothing but the default; `written` is the flag's value as written.
    pub fn redundant_target_platform(written: &str, head: &Head) -> Self {
        let message = format!(
            "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
        );
        Warning::new(Rule::RedundantTargetPlatform, message, head)
    }

    /// `--platform` without a variable.
    pub fn from_platform_flag_const(platform: &str, head: &Head) -> Self {
        let message = format!("FROM --platform flag should not use constant value {platform:?}");
        Warning::new(Rule::FromPlatformFlagConstDisallowed, message, head)
    }

    /// An ARG or ENV (`instruction`) whose name looks like a secret's, if it does.
    pub fn secret_in_arg_or_env(instruction: &str, name: &str, head: &Head) -> Option<Self> {
        let message =
            format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})");
        rule::names_a_secret(name).then(|| Warning::new(Rule::SecretsUsedInArgOrEnv, message, head))
    }

    /// A port whose protocol is not in lower case.
    pub fn expose_proto_casing(port: &str, head: &Head) -> Self {
        let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
        Warning::new(Rule::ExposeProtoCasing, message, head)
    }

    /// A port with an address or a host port.
    pub fn expose_invalid_format(port: &str, head: &Head) -> Self {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
        );
        Warning::new(Rule::ExposeInvalidFormat, message, head)
    }

    /// A relative WORKDIR before any absolute one; `path` is the expanded path.
    pub fn workdir_relative_path(path: &str, head: &Head) -> Self {
        let message =
            format!("Relative workdir {path:?} can have unexpected results if the base image changes");
        Warning::new(Rule::WorkdirRelativePath, message, head)
    }

    /// A CMD or ENTRYPOINT in shell form where no SHELL says which.
    pub fn json_args_recommended(head: &Head) -> Self {
        let message = format!(
            "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
            head.keyword
        );
        Warning::new(Rule::JSONArgsRecommended, message, head)
    }

    /// `ENV key value` or `LABEL key value`.
    pub fn legacy_key_value(head: &Head) -> Self {
        let name = &head.keyword;
        let message =
            format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
        Warning::new(Rule::LegacyKeyValueFormat, message, head)
    }

    /// An instruction of which only the last in a stage counts, once more; `earlier` is the one that does not count.
    pub fn multiple_instructions(head: &Head, earlier: Span) -> Self {
        let message = format!(
            "Multiple {} instructions should not be used in the same stage because only the last one will be used",
            head.keyword
        );
        Warning::new(Rule::MultipleInstructionsDisallowed, message, head).at(earlier)
    }

    /// Tells whether the warning is to be shown under `config` (the file's) and the comments above the instruction.
    pub fn is_wanted(&self, config: &Config) -> bool {
        config.merged(&self.local).wants(self.rule)
    }

    /// Draws the warning as an excerpt of the file.
    pub fn render(&self, file_name: &str, source: &[u8], colour: bool) -> String {
        self.diagnostic().render(file_name, source, colour)
    }

    /// Makes a diagnostic of it, whose code is the rule's name.
    pub fn diagnostic(&self) -> Diagnostic {
        let message = format!("{}: {}", self.rule.name(), self.message);
        let error =
            self.spans.iter().fold(Diagnostic::new(self.rule.name(), message), |error, span| error.at(*span));
        match self.rule.url() {
            Some(url) => error.help(format!("{} ({url})", self.rule.description())),
            None => error.help(self.rule.description()),
        }
    }

    /// Gives the places as labels.
    pub fn labels(&self) -> Vec<Label> {
        self.spans.iter().map(|span| Label { span: *span, text: String::new() }).collect()
    }
}
