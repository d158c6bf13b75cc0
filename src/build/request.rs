//! What is to be built, with every text of the command line already understood.

use crate::context::Dockerfile;
use crate::digest::ImageId;
use crate::plan::PlanOptions;
use crate::plan::Warning;
use crate::reference::Reference;
use crate::solve::{RunSettings, Secrets};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where COPY takes files from.
#[derive(Debug, Clone)]
pub enum ContextSource {
    /// A directory.
    Dir(PathBuf),
    /// Nothing: the Dockerfile came alone.
    Empty,
}

impl ContextSource {
    /// Tells contexts apart in explanations.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Dir(dir) => dir.display().to_string(),
            Self::Empty => String::new(),
        }
    }
}

/// One build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The main context.
    pub context: ContextSource,
    /// Directories of `--build-context`, by name; the plan's options have the names too.
    pub named: BTreeMap<String, PathBuf>,
    /// The Dockerfile and its name for messages.
    pub dockerfile: Dockerfile,
    /// Ignore rules in place of those beside the Dockerfile or in the context.
    pub ignore_file: Option<PathBuf>,
    /// What the planner needs: arguments, target, labels, named contexts.
    pub plan: PlanOptions,
    /// `--annotation`: notes in the manifests of exported images.
    pub annotations: Vec<(String, String)>,
    /// Names of the image.
    pub names: Vec<Reference>,
    /// One layer above the base.
    pub squash: bool,
    /// What the command line says about RUN.
    pub run: RunSettings,
    /// Secrets and agents.
    pub secrets: Secrets,
    /// Most steps at once.
    pub jobs: usize,
    /// Whether to say why steps run.
    pub explain: bool,
}

/// What a build gave.
#[derive(Debug, Clone)]
pub struct Built {
    /// The image.
    pub image: ImageId,
    /// What the checks found.
    pub warnings: Vec<Warning>,
    /// `SOURCE_DATE_EPOCH` in seconds, when it was given.
    pub epoch: Option<i64>,
}
