//! A stage in the making: its file system so far, its environment, its config.

use super::env::{self, Env};
use super::op::BaseImage;
use super::output::PlannedHistory;
use super::{paths, wording};
use crate::dockerfile::span::Span;
use crate::oci::{Config, ImageConfig, RootFs};
use crate::platform::Platform;
use petgraph::graph::NodeIndex;

/// What PATH is when a base image does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Fields of a config that we do not model but that stay true on top of the image.
const KEPT: [&str; 2] = ["os.version", "os.features"];

/// Everything that an instruction can see and change.
#[derive(Debug, Clone)]
pub(super) struct StageState {
    /// The file system so far.
    pub(super) vertex: NodeIndex,
    /// The stage that it stands on; layers and history begin there.
    pub(super) parent: Option<usize>,
    /// The vertices that this stage adds, lowest first.
    pub(super) layers: Vec<NodeIndex>,
    /// The history entries that this stage adds.
    pub(super) history: Vec<PlannedHistory>,
    /// The image that the chain of stages starts with.
    pub(super) base: Option<BaseImage>,
    /// The config so far; history and root file system stay empty.
    pub(super) config: ImageConfig,
    /// What the next instruction sees: ENV and ARG together, the later one wins.
    pub(super) env: Env,
    /// The ARGs so far, for the history of RUN; a name may be there twice.
    pub(super) declared: Vec<(String, Option<String>)>,
    /// For what the stage's programs are made.
    pub(super) platform: Platform,
    /// A WORKDIR came in this file.
    pub(super) workdir_set: bool,
    /// Where this very stage has the instructions of which only the last counts.
    pub(super) once: Once,
}

/// Places of instructions of which the last one counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Once {
    pub(super) cmd: Option<Span>,
    pub(super) entrypoint: Option<Span>,
    pub(super) healthcheck: Option<Span>,
}

impl StageState {
    /// Starts a chain of stages on a vertex.
    pub(super) fn new(
        vertex: NodeIndex,
        config: ImageConfig,
        base: Option<BaseImage>,
        platform: Platform,
    ) -> Self {
        Self {
            vertex,
            parent: None,
            layers: Vec::new(),
            history: Vec::new(),
            base,
            config,
            env: Env::default(),
            declared: Vec::new(),
            platform,
            workdir_set: false,
            once: Once::default(),
        }
    }

    /// Starts a stage on this one, which is stage `index`; its ONBUILD triggers come along for the caller to take.
    pub(super) fn child(&self, index: usize) -> Self {
        Self {
            vertex: self.vertex,
            parent: Some(index),
            layers: Vec::new(),
            history: Vec::new(),
            base: self.base.clone(),
            config: self.config.clone(),
            env: self.env.clone(),
            declared: self.declared.clone(),
            platform: self.platform.clone(),
            workdir_set: self.workdir_set,
            once: Once::default(),
        }
    }

    /// Brings the config into the environment, as FROM does.
    pub(super) fn enter(&mut self) {
        let config = &mut self.config.config;
        let has_path = config.env.iter().any(|pair| env::split_pair(pair).0 == "PATH");
        if !has_path && self.platform.os != "windows" {
            config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        for pair in &config.env {
            let (name, value) = env::split_pair(pair);
            self.env.set(name, value);
        }
        if !config.working_dir.is_empty() {
            config.working_dir = paths::working_dir("/", &config.working_dir);
        }
    }

    /// Gives the working directory, absolute and clean.
    pub(super) fn cwd(&self) -> String {
        paths::clean(&self.config.config.working_dir)
    }

    /// Gives what runs shell forms.
    pub(super) fn shell(&self) -> Vec<String> {
        let default: &[&str] =
            if self.platform.os == "windows" { &["cmd", "/S", "/C"] } else { &["/bin/sh", "-c"] };
        let shell = self.config.config.shell.clone().filter(|shell| !shell.is_empty());
        shell.unwrap_or_else(|| default.iter().map(|word| (*word).to_owned()).collect())
    }

    /// Adds a history entry without a layer.
    pub(super) fn note(&mut self, created_by: String) {
        self.push_history(created_by, None);
    }

    /// Adds a vertex on top, with its history entry.
    pub(super) fn stack(&mut self, vertex: NodeIndex, created_by: String) {
        self.vertex = vertex;
        self.layers.push(vertex);
        self.push_history(created_by, Some(vertex));
    }

    fn push_history(&mut self, created_by: String, vertex: Option<NodeIndex>) {
        let comment = wording::COMMENT.to_owned();
        self.history.push(PlannedHistory { created_by, comment, empty_layer: vertex.is_none(), vertex });
    }

    /// Gives the declared arguments with the values that they have now, each name once.
    pub(super) fn declared_values(&self) -> Vec<(String, String)> {
        let mut out: Vec<(String, String)> = Vec::new();
        for (name, value) in &self.declared {
            let value = self.env.get(name).or(value.as_deref()).unwrap_or_default().to_owned();
            match out.iter_mut().find(|(known, _)| known == name) {
                Some((_, old)) => *old = value,
                None => out.push((name.clone(), value)),
            }
        }
        out
    }
}

/// Makes the config of an image that stands on nothing.
pub(super) fn empty_config(platform: &Platform) -> ImageConfig {
    let env = match platform.os.as_str() {
        "windows" => Vec::new(),
        _ => vec![format!("PATH={DEFAULT_PATH}")],
    };
    bare_config(platform, Config { working_dir: "/".to_owned(), env, ..Config::default() })
}

/// Makes a config of nothing but what is given.
pub(super) fn bare_config(platform: &Platform, config: Config) -> ImageConfig {
    ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        created: None,
        author: None,
        config,
        rootfs: RootFs::default(),
        history: Vec::new(),
        other: serde_json::Map::new(),
    }
}

/// Takes over the config of a base image: what is true of the image that is built on it.
pub(super) fn inherited_config(base: &ImageConfig) -> ImageConfig {
    let mut config = base.clone();
    config.created = None;
    config.history.clear();
    config.rootfs = RootFs::default();
    config.other.retain(|name, _| KEPT.contains(&name.as_str()));
    config.config.other.clear();
    config
}

/// Gives the platform that a config names, in normal form.
pub(super) fn platform_of(config: &ImageConfig) -> Platform {
    let named = Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone().filter(|variant| !variant.is_empty()),
    };
    named.to_string().parse().unwrap_or(named)
}
