//! What is to be built, with every text of the command line already understood.

use super::bases::PullPolicy;
use super::shared::FilesWanted;
use crate::context::Dockerfile;
use crate::digest::{Digest, ImageId};
use crate::image::Notes;
use crate::plan::PlanOptions;
use crate::plan::Warning;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::share::{ExportSpec, ImportSpec};
use crate::solve::{RunSettings, Secrets};
use crate::store::TempDir;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Where COPY takes files from.
#[derive(Debug, Clone)]
pub enum ContextSource {
    /// A directory.
    Dir(PathBuf),
    /// What was fetched or unpacked for this build.
    Fetched(Arc<Fetched>),
    /// Nothing: the Dockerfile came alone.
    Empty,
}

impl ContextSource {
    /// Tells contexts apart in explanations.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Dir(dir) => dir.display().to_string(),
            Self::Fetched(fetched) => fetched.from.clone(),
            Self::Empty => String::new(),
        }
    }
}

/// A context in the store's `tmp/`; removed with the last copy of the request.
#[derive(Debug)]
pub struct Fetched {
    /// Where its files are.
    pub path: PathBuf,
    /// Where they came from, without passwords.
    pub from: String,
    /// When a git commit was made, in seconds since 1970.
    pub time: Option<i64>,
    /// Whether its files have owners of their own: those of an archive have, those of a commit or download have not.
    pub owners: bool,
    pub(super) _dir: TempDir,
}

/// Where the ignore rules of the main context are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IgnoreFrom {
    /// Beside the Dockerfile, else at the root of the context.
    Context {
        /// The Dockerfile, when it is a file.
        beside: Option<PathBuf>,
    },
    /// In this file.
    File(PathBuf),
    /// There are none.
    Nowhere,
}

/// One build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The main context.
    pub context: ContextSource,
    /// Files of `--build-context`, by name; the plan's options have the names too.
    pub named: BTreeMap<String, ContextSource>,
    /// The Dockerfile and its name for messages.
    pub dockerfile: Dockerfile,
    /// Ignore rules of the main context.
    pub ignore: IgnoreFrom,
    /// What the planner needs: arguments, target, labels, named contexts.
    pub plan: PlanOptions,
    /// The platforms when there are several, each once; the plan's own counts when there are not.
    pub platforms: Vec<Platform>,
    /// Names of the image.
    pub names: Vec<Reference>,
    /// Annotations that the image keeps.
    pub notes: Notes,
    /// One layer above the base.
    pub squash: bool,
    /// What the command line says about RUN.
    pub run: RunSettings,
    /// Secrets and agents.
    pub secrets: Secrets,
    /// How registries are reached.
    pub registry: crate::registry::Flags,
    /// Most steps at once.
    pub jobs: usize,
    /// Whether to say why steps run.
    pub explain: bool,
    /// When registries are asked for base images.
    pub pull: PullPolicy,
    /// Whether the image itself is wanted, not only its names.
    pub wants_image: bool,
    /// Caches to read.
    pub cache_from: Vec<ImportSpec>,
    /// Caches to write.
    pub cache_to: Vec<ExportSpec>,
    /// Which files of the image must be there in the end.
    pub files: FilesWanted,
}

impl BuildRequest {
    /// Gives the options of each plan that is to be made: one, or one a platform.
    pub(super) fn variants(&self) -> Vec<PlanOptions> {
        if self.platforms.is_empty() {
            return vec![self.plan.clone()];
        }
        let one = |platform: &Platform| PlanOptions {
            platform: Some(platform.clone()),
            label_platforms: true,
            ..self.plan.clone()
        };
        self.platforms.iter().map(one).collect()
    }
}

/// What a build gave.
#[derive(Debug, Clone)]
pub struct Built {
    /// The image; `None` when it has its names and nobody has asked for more, so that its ID is not known yet.
    pub image: Option<ImageId>,
    /// The index, when the build was for several platforms.
    pub index: Option<Digest>,
    /// What the checks found.
    pub warnings: Vec<Warning>,
    /// `SOURCE_DATE_EPOCH` in seconds, when it was given.
    pub epoch: Option<i64>,
}
