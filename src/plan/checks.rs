//! The build checks that need values: what is unset, what a base image is, what a shell is in force.
//!
//! Names and messages are those of BuildKit's rules, so that `# check=skip=` lines and people know them. Checks that
//! need only the text are in the language room.

use super::env::Env;
use super::output::Warning;
use crate::dockerfile::ast;
use crate::dockerfile::span::Span;
use crate::dockerfile::suggest::nearest;
use crate::dockerfile::word::Expanded;
use crate::platform::Platform;
use crate::reference::Reference;

/// Words that make a variable's name look like a secret's.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];

/// Words that make such a name harmless.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

/// Collects what the checks find.
#[derive(Debug, Default)]
pub(super) struct Checks {
    found: Vec<Warning>,
    /// Names of the ARGs above the first FROM.
    global: Vec<String>,
}

impl Checks {
    /// Starts with nothing found.
    pub(super) fn new(file: &ast::Dockerfile) -> Self {
        let args = file.global_args.iter().filter_map(|instruction| match &instruction.kind {
            ast::Kind::Arg(vars) => Some(vars),
            _ => None,
        });
        Self { found: Vec::new(), global: args.flatten().map(|var| var.name.as_str().to_owned()).collect() }
    }

    /// Notes something.
    pub(super) fn warn(&mut self, rule: &'static str, span: Span, message: String) {
        let warning = Warning { rule, message, span };
        if !self.found.contains(&warning) {
            self.found.push(warning);
        }
    }

    /// Gives everything, in the order of the file.
    pub(super) fn finish(mut self) -> Vec<Warning> {
        self.found.sort_by_key(|warning| warning.span.start);
        self.found
    }

    /// Variables of an instruction that are not set.
    pub(super) fn undefined(
        &mut self,
        expanded: &Expanded,
        declared: &[(String, Option<String>)],
        env: &Env,
        span: Span,
    ) {
        for name in &expanded.unset {
            if declared.iter().any(|(declared, _)| declared == name) || !super::scope::enters_env(name) {
                continue;
            }
            let hint = nearest(name, env.names()).map(|near| format!(" (did you mean ${near}?)"));
            let message = format!("Usage of undefined variable '${name}'{}", hint.unwrap_or_default());
            self.warn("UndefinedVar", span, message);
        }
    }

    /// Variables of a FROM line that no global ARG declares.
    pub(super) fn undefined_in_from(&mut self, expanded: &Expanded, globals: &Env, span: Span) {
        for name in expanded.unset.iter().filter(|name| !self.global.contains(name)).collect::<Vec<_>>() {
            let hint = nearest(name, globals.names()).map(|near| format!(" (did you mean {near}?)"));
            let message = format!("FROM argument '{name}' is not declared{}", hint.unwrap_or_default());
            self.warn("UndefinedArgInFrom", span, message);
        }
    }

    /// `FROM --platform` that repeats the default or is not a variable.
    pub(super) fn platform_flag(
        &mut self,
        expanded: &Expanded,
        written: &str,
        platform: &Platform,
        globals: &Env,
        stage: &ast::Stage,
    ) {
        let span = stage.head.span;
        if expanded.used.len() == 1 && expanded.unset.is_empty() && expanded.used.contains("TARGETPLATFORM") {
            if globals.get("TARGETPLATFORM") == Some(&expanded.text) {
                let message = format!(
                    "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
                );
                self.warn("RedundantTargetPlatform", span, message);
            }
        } else if expanded.used.is_empty() && expanded.unset.is_empty() {
            let name = stage.name().unwrap_or_default();
            if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
                let message =
                    format!("FROM --platform flag should not use constant value {:?}", expanded.text);
                self.warn("FromPlatformFlagConstDisallowed", span, message);
            }
        }
    }

    /// A base image name that is no name when no `--build-arg` is given.
    pub(super) fn default_base(&mut self, expanded: &str, written: &str, span: Span) {
        if expanded.parse::<Reference>().is_err() {
            let message =
                format!("Default value for ARG {written} results in empty or invalid base image name");
            self.warn("InvalidDefaultArgInFrom", span, message);
        }
    }

    /// A base image made for something else.
    pub(super) fn base_platform(&mut self, name: &str, want: &Platform, got: &Platform, span: Span) {
        if (&want.os, &want.architecture) != (&got.os, &got.architecture) {
            let message = format!(
                "Base image {name} was pulled with platform \"{got}\", expected \"{want}\" for current build"
            );
            self.warn("InvalidBaseImagePlatform", span, message);
        }
    }

    /// An ARG or ENV that looks like a secret.
    pub(super) fn secret_name(&mut self, instruction: &str, name: &str, span: Span) {
        let lower = name.to_ascii_lowercase();
        let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
        if has(&SECRET) && !has(&HARMLESS) {
            let message =
                format!("Do not use ARG or ENV instructions for sensitive data ({instruction} \"{name}\")");
            self.warn("SecretsUsedInArgOrEnv", span, message);
        }
    }

    /// A shell form where no SHELL says which.
    pub(super) fn shell_form(&mut self, instruction: &str, span: Span) {
        let message = format!(
            "JSON arguments recommended for {instruction} to prevent unintended behavior related to OS signals"
        );
        self.warn("JSONArgsRecommended", span, message);
    }

    /// An instruction of which the last counts, given before; `earlier` is where.
    pub(super) fn repeated(&mut self, instruction: &str, earlier: Span) {
        let message = format!(
            "Multiple {instruction} instructions should not be used in the same stage because only the last one \
             will be used"
        );
        self.warn("MultipleInstructionsDisallowed", earlier, message);
    }

    /// A relative WORKDIR before any absolute one.
    pub(super) fn relative_workdir(&mut self, path: &str, span: Span) {
        let message =
            format!("Relative workdir {path:?} can have unexpected results if the base image changes");
        self.warn("WorkdirRelativePath", span, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_secrets() {
        for (name, secret) in [
            ("api_key", true),
            ("DATABASE_PASSWORD", true),
            ("AUTH", true),
            ("secret_MESSAGE", true),
            ("PUBLIC_KEY", false),
            ("TOKEN_FILE", false),
            ("KEYBOARD", false),
            ("monkey", false),
        ] {
            let mut checks = Checks::default();
            checks.secret_name("ARG", name, Span::default());
            assert_eq!(checks.finish().len(), usize::from(secret), "{name}");
        }
    }
}
