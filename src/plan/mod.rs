//! From stages to a graph of ops. Pure: no disk, no network; what a base image holds is asked through [`BaseImages`].
//!
//! Owns the meaning of a Dockerfile: scopes of arguments, what each instruction sees and does, which stages a target
//! needs, and the config and history of the image. Knows nothing about how an op is run, what a key is, or where
//! files come from.
//!
//! A stage is planned when the target turns out to need it, so a stage that nothing needs may name an image that
//! does not exist. Stages disappear here: the graph knows vertices only, and equal ones are one.

mod bases;
mod builder;
mod checks;
mod chmod;
mod env;
mod expose;
mod join;
mod lower;
mod op;
mod options;
mod output;
mod paths;
mod planner;
mod remote;
mod scope;
mod signal;
mod stages;
mod state;
mod wording;
mod words;

pub use crate::dockerfile::lint::Warning;
pub use join::{Joint, join};
pub use op::*;
pub use options::{NamedContext, PlanOptions};
pub use output::{Outline, OutlineArg, OutlineNeed, Plan, PlannedHistory};
pub use remote::{Kind as SourceKind, kind as source_kind};

use crate::dockerfile::ast::Dockerfile;
use crate::dockerfile::diagnostic::Diagnostic;

/// Plans a build. `source` is the text that `file` was read from; it is used for line numbers only.
///
/// # Errors
/// What is wrong with the file, with its place: a variable that must be set, an unknown stage, a cycle, an image that
/// `bases` cannot find, a port that is none.
pub fn plan(
    source: &[u8],
    file: &Dockerfile,
    options: &PlanOptions,
    bases: &dyn BaseImages,
) -> Result<Plan, Diagnostic> {
    planner::Planner::new(source, file, options, bases)?.run(file)
}

#[cfg(test)]
mod tests;
