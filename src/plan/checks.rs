//! Collects the build checks: those that need only the file, and those that need values, images or a shell in force.
//!
//! The wording and the choice of rules are the language room's; here is only what it cannot know.

use super::env::Env;
use crate::dockerfile::ast::{Dockerfile, Head, Kind};
use crate::dockerfile::diagnostic::Diagnostic;
use crate::dockerfile::lint::{self, Config, Warning};
use crate::dockerfile::word::Expanded;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::suggest::nearest;
use std::collections::BTreeMap;

/// Collects what the checks find.
#[derive(Debug)]
pub(super) struct Checks {
    found: Vec<Warning>,
    config: Config,
    /// Names of the ARGs above the first FROM.
    global: Vec<String>,
}

impl Checks {
    /// Makes the checks that need the file only.
    pub(super) fn new(file: &Dockerfile, given: &BTreeMap<String, String>) -> Result<Self, Diagnostic> {
        let config = match given.get("BUILDKIT_DOCKERFILE_CHECK") {
            Some(text) => Config::parse(text).map_err(|error| {
                let message = format!("BUILDKIT_DOCKERFILE_CHECK: {error}");
                Diagnostic::new("rbuild::check_option", message)
            })?,
            None => Config::of_file(file)?,
        };
        let args = file.global_args.iter().filter_map(|instruction| match &instruction.kind {
            Kind::Arg(vars) => Some(vars),
            _ => None,
        });
        let global = args.flatten().map(|var| var.name.as_str().to_owned()).collect();
        Ok(Self { found: lint::check_file(file), config, global })
    }

    /// Notes something, once.
    pub(super) fn warn(&mut self, warning: Warning) {
        if !self.found.contains(&warning) {
            self.found.push(warning);
        }
    }

    /// Gives everything that is wanted, in the order of the file, and says whether it is to fail the build.
    pub(super) fn finish(mut self) -> (Vec<Warning>, bool) {
        self.found.retain(|warning| warning.is_wanted(&self.config));
        self.found.sort_by_key(|warning| warning.spans.first().copied());
        (self.found, self.config.error)
    }

    /// Variables of a FROM line that no global ARG declares.
    pub(super) fn undefined_in_from(&mut self, expanded: &Expanded, globals: &Env, head: &Head) {
        for name in &expanded.unset {
            if !self.global.contains(name) {
                self.warn(Warning::undefined_arg_in_from(name, nearest(name, globals.names()), head));
            }
        }
    }

    /// A base image name that is no name when no `--build-arg` is given.
    pub(super) fn default_base(&mut self, expanded: &str, written: &str, head: &Head) {
        if expanded.parse::<Reference>().is_err() {
            self.warn(Warning::invalid_default_arg_in_from(written, head));
        }
    }

    /// A base image made for something else.
    pub(super) fn base_platform(&mut self, name: &str, want: &Platform, got: &Platform, head: &Head) {
        if (&want.os, &want.architecture) != (&got.os, &got.architecture) {
            let (want, got) = (want.to_string(), got.to_string());
            self.warn(Warning::invalid_base_image_platform(name, &want, &got, head));
        }
    }
}

/// Variables of an instruction that are neither set nor declared.
pub(super) fn undefined(
    expanded: &Expanded,
    declared: &[(String, Option<String>)],
    env: &Env,
    head: &Head,
) -> Vec<Warning> {
    let known = |name: &str| declared.iter().any(|(declared, _)| declared == name);
    let unset = expanded.unset.iter().filter(|name| !known(name) && super::scope::enters_env(name));
    unset.map(|name| Warning::undefined_var(name, nearest(name, env.names()), head)).collect()
}
