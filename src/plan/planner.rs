//! Plans stage after stage: a stage is planned when something needs it, and once.

use super::builder::GraphBuilder;
use super::checks::Checks;
use super::env::Env;
use super::lower::Lowering;
use super::op::{BaseImage, BaseImages, CopyOp, CopySource, From, ImageOp, Op, Role, Vertex};
use super::options::{NamedContext, PlanOptions};
use super::output::{Outline, Plan};
use super::stages::{Parent, Source, Stages, references};
use super::state::{StageState, bare_config, empty_config, inherited_config, platform_of};
use super::words::Words;
use super::{scope, wording};
use crate::dockerfile;
use crate::dockerfile::ast::{Dockerfile, Instruction};
use crate::dockerfile::diagnostic::Diagnostic;
use crate::dockerfile::span::{LineIndex, Span, Text};
use crate::oci::Config;
use crate::platform::Platform;
use petgraph::graph::NodeIndex;
use std::collections::BTreeMap;
use std::ops::Range;

/// Stages that need each other through triggers of base images are planned within each other; so deep at most.
const DEEPEST: usize = 50;

/// Images that people mistype.
const COMMON_IMAGES: [&str; 8] =
    ["alpine", "busybox", "debian", "ubuntu", "fedora", "golang", "python", "scratch"];

/// All that planning needs and makes.
pub(super) struct Planner<'a> {
    pub(super) options: &'a PlanOptions,
    pub(super) words: Words,
    pub(super) stages: Stages<'a>,
    /// Arguments visible in FROM, and defaults of bare ARGs.
    pub(super) globals: Env,
    /// `--build-arg` with values.
    pub(super) given: BTreeMap<String, String>,
    pub(super) proxies: Vec<(String, String)>,
    pub(super) graph: GraphBuilder,
    pub(super) checks: Checks,
    pub(super) outline: Outline,
    bases: &'a dyn BaseImages,
    lines: LineIndex<'a>,
    done: Vec<Option<StageState>>,
    depth: usize,
    epoch: Option<i64>,
}

/// A step of a stage as it will be numbered.
pub(super) struct Step {
    pub(super) vertex: NodeIndex,
    pub(super) text: String,
}

/// Where a COPY or mount takes files from.
pub(super) enum Files {
    /// A vertex of the graph.
    Vertex(NodeIndex),
    /// A build context by its name.
    Context(String),
    /// An empty directory.
    Empty,
}

impl<'a> Planner<'a> {
    /// Reads everything that is known before a stage is planned.
    pub(super) fn new(
        source: &'a [u8],
        file: &'a Dockerfile,
        options: &'a PlanOptions,
        bases: &'a dyn BaseImages,
    ) -> Result<Self, Diagnostic> {
        let words = Words::new(file.escape);
        let mut checks = Checks::new(file);
        let mut given = scope::given(options);
        let last = file.stages.last().and_then(|stage| stage.name()).unwrap_or_default();
        let platforms = scope::platform_args(options, &given, options.target.as_deref().unwrap_or(last));
        check_default_bases(file, &words, &platforms, &mut checks);
        let (globals, args) = scope::global_args(file, &words, &given, platforms)?;
        let epoch = scope::epoch(&given, &globals)?;
        if let Some(epoch) = epoch {
            given.entry("SOURCE_DATE_EPOCH".to_owned()).and_modify(|value| *value = epoch.to_string());
        }
        let stages = Stages::new(file, options, &words, &globals, &mut checks)?;
        let done = vec![None; stages.len()];
        let outline = Outline { args, ..Outline::default() };
        let proxies = scope::proxies(&given);
        let (graph, lines) = (GraphBuilder::default(), LineIndex::new(source));
        Ok(Self {
            options,
            words,
            stages,
            globals,
            given,
            proxies,
            graph,
            checks,
            outline,
            bases,
            lines,
            done,
            depth: 0,
            epoch,
        })
    }

    /// Plans what the target needs.
    pub(super) fn run(mut self, file: &Dockerfile) -> Result<Plan, Diagnostic> {
        let target = self.stages.target(self.options.target.as_deref())?;
        if self.options.all_stages {
            for index in 0..self.stages.len() {
                self.need(index)?;
            }
        }
        self.need(target)?;
        let mut state = self.state(target).clone();
        for (name, value) in &self.options.labels {
            state.config.config.labels.insert(name.clone(), value.clone());
        }
        if let Some(platform) = &self.options.platform {
            set_platform(&mut state, platform);
        }
        let (graph, moved) = self.graph.finish(state.vertex);
        let mut history = state.history;
        history.iter_mut().for_each(|entry| entry.vertex = entry.vertex.map(|vertex| moved[&vertex]));
        self.outline.args.sort_by_key(|arg| arg.span.start);
        self.outline.secrets.sort_by_key(|need| need.span.start);
        self.outline.ssh.sort_by_key(|need| need.span.start);
        Ok(Plan {
            target: moved[&state.vertex],
            layers: state.layers.iter().map(|vertex| moved[vertex]).collect(),
            base: state.base,
            config: state.config,
            stage: self.stages.get(target).ast.name().map(str::to_owned),
            epoch: self.epoch,
            warnings: self.checks.finish(),
            unused_build_args: scope::unused(file, &self.given),
            outline: self.outline,
            graph,
            history,
        })
    }

    /// Plans a stage with all that it needs, in the order of the file, if that has not been done.
    fn need(&mut self, index: usize) -> Result<(), Diagnostic> {
        if self.done[index].is_some() {
            return Ok(());
        }
        if self.depth >= DEEPEST {
            let message =
                format!("ONBUILD triggers make stages need each other more than {DEEPEST} levels deep");
            return Err(Diagnostic::new("rbuild::depth", message).at(self.stages.get(index).ast.head.span));
        }
        self.depth += 1;
        for needed in self.stages.needed(index) {
            if self.done[needed].is_none() {
                let state = self.stage(needed)?;
                self.done[needed] = Some(state);
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Gives the final state of a planned stage.
    fn state(&self, index: usize) -> &StageState {
        self.done[index].as_ref().expect("a stage is planned before its state is asked for")
    }

    /// Plans one stage; what the file shows that it needs is there.
    fn stage(&mut self, index: usize) -> Result<StageState, Diagnostic> {
        let ast = self.stages.get(index).ast;
        let mut steps = Vec::new();
        let mut state = self.begin(index, &mut steps)?;
        if matches!(self.stages.get(index).parent, Parent::Context(_)) {
            self.number(index, &steps);
            return Ok(state);
        }
        state.enter();
        let triggers = self.triggers(&mut state, index)?;
        let mut lowering = Lowering { planner: self, state, index, steps, trigger: None };
        for trigger in &triggers {
            lowering.trigger = Some(ast.head.span);
            lowering.instruction(trigger).map_err(|error| error.moved_to(ast.head.span))?;
        }
        lowering.trigger = None;
        for instruction in &ast.instructions {
            lowering.instruction(instruction)?;
        }
        let Lowering { state, steps, .. } = lowering;
        self.number(index, &steps);
        Ok(state)
    }

    /// Makes the state right after FROM.
    fn begin(&mut self, index: usize, steps: &mut Vec<Step>) -> Result<StageState, Diagnostic> {
        let stage = self.stages.get(index);
        let (ast, platform) = (stage.ast, stage.platform.clone());
        let wanted = platform.clone().unwrap_or_else(|| self.options.target_platform().clone());
        let explicit = platform.is_some() || self.options.platform.is_some();
        let name = match stage.parent.clone() {
            Parent::Stage(parent) => {
                return Ok(self.state(parent).child());
            }
            Parent::Scratch => {
                let target = self.options.target_platform().clone();
                let vertex = self.scratch();
                return Ok(StageState::new(vertex, empty_config(&target), None, target));
            }
            Parent::Image(name) => name,
            Parent::Context(key) => match self.options.contexts[&key].clone() {
                NamedContext::Image(name) => name,
                NamedContext::Files => {
                    return Ok(self.from_files(
                        &key,
                        bare_config(&wanted, Config::default()),
                        wanted,
                        steps,
                        ast.head.span,
                    ));
                }
            },
        };
        let context = match &self.stages.get(index).parent {
            Parent::Image(_) => self.options.context(&name, &wanted),
            _ => None,
        };
        match context {
            Some((key, NamedContext::Files)) => {
                let key = key.to_owned();
                Ok(self.from_files(&key, empty_config(&wanted), wanted, steps, ast.head.span))
            }
            Some((_, NamedContext::Image(other))) => {
                let other = other.clone();
                self.from_image(&other, &name, wanted, explicit, steps, &ast.from.image, ast.head.span)
            }
            None => self.from_image(&name, &name, wanted, explicit, steps, &ast.from.image, ast.head.span),
        }
    }

    /// Starts a stage on an image.
    #[expect(clippy::too_many_arguments, reason = "all of them are what FROM says")]
    fn from_image(
        &mut self,
        name: &str,
        shown: &str,
        wanted: Platform,
        explicit: bool,
        steps: &mut Vec<Step>,
        at: &Text,
        span: Span,
    ) -> Result<StageState, Diagnostic> {
        let base = self.resolve(name, &wanted, at)?;
        let got = platform_of(&base.config);
        self.checks.base_platform(shown, &wanted, &got, span);
        let platform = if explicit { wanted } else { got };
        let vertex = self.image_vertex(name, &base, self.lines_of(span));
        steps.push(Step { vertex, text: format!("FROM {shown}") });
        let config = inherited_config(&base.config);
        Ok(StageState::new(vertex, config, Some(base), platform))
    }

    /// Starts a stage on the files of a context.
    fn from_files(
        &mut self,
        key: &str,
        config: crate::oci::ImageConfig,
        platform: Platform,
        steps: &mut Vec<Step>,
        span: Span,
    ) -> StageState {
        let scratch = self.scratch();
        let op = CopyOp {
            sources: vec![CopySource::Path("/".to_owned())],
            from: From::Context(key.to_owned()),
            dest: "/".to_owned(),
            chown: None,
            chmod: None,
            parents: false,
            link: false,
            exclude: Vec::new(),
            is_add: false,
            unpack: None,
            checksum: None,
            keep_git_dir: false,
        };
        let vertex =
            self.vertex(Op::Copy(Box::new(op)), vec![(Role::Base, scratch)], self.lines_of(span), false);
        steps.push(Step { vertex, text: format!("FROM {key}") });
        let mut state = StageState::new(scratch, config, None, platform);
        state.stack(vertex, format!("FROM {key}{}", wording::SUFFIX));
        state
    }

    /// Finds what a `--from` names and plans it, if it is a stage.
    pub(super) fn files_of(&mut self, from: &Text, index: usize) -> Result<Files, Diagnostic> {
        let platform = self.options.target_platform().clone();
        let name = match self.stages.source(from)? {
            Source::Stage(used) if used >= index => {
                return Err(self.stages.used_too_early(used, from.span(), index));
            }
            Source::Stage(used) => {
                if let Parent::Context(key) = &self.stages.get(used).parent
                    && matches!(self.options.contexts.get(key), Some(NamedContext::Files))
                {
                    return Ok(Files::Context(key.clone()));
                }
                self.need(used)?;
                return Ok(Files::Vertex(self.state(used).vertex));
            }
            Source::Other(name) if name == "scratch" => return Ok(Files::Empty),
            Source::Other(name) => name,
        };
        let name = match self.options.context(&name, &platform) {
            Some((key, NamedContext::Files)) => return Ok(Files::Context(key.to_owned())),
            Some((_, NamedContext::Image(other))) => other.clone(),
            None => name,
        };
        let base = self.resolve(&name, &platform, from)?;
        let vertex = self.image_vertex(&name, &base, 0..0);
        if self.graph.label(vertex).is_empty() {
            self.graph.set_label(vertex, format!("FROM {name}"));
        }
        Ok(Files::Vertex(vertex))
    }

    /// Reads the triggers that a stage inherits and plans the stages that they copy from.
    fn triggers(&mut self, state: &mut StageState, index: usize) -> Result<Vec<Instruction>, Diagnostic> {
        let texts = std::mem::take(&mut state.config.config.on_build);
        let span = self.stages.get(index).ast.head.span;
        let mut triggers = Vec::new();
        for text in texts {
            let trigger = dockerfile::parse_trigger(&text).map_err(|error| {
                let message = format!("ONBUILD trigger {text:?}: {}", error.message());
                Diagnostic::new("rbuild::onbuild", message).label(span, "this base image has the trigger")
            })?;
            for from in references(&trigger) {
                match self.stages.source(from) {
                    Ok(Source::Stage(used)) if used < index => self.need(used)?,
                    _ => {} // said when the trigger is planned
                }
            }
            triggers.push(trigger);
        }
        Ok(triggers)
    }

    fn resolve(&mut self, name: &str, platform: &Platform, at: &Text) -> Result<BaseImage, Diagnostic> {
        self.bases.resolve(name, Some(platform)).map_err(|error| {
            let message = format!("base image {name}: {}", error.why);
            let known = self.stages.names().chain(COMMON_IMAGES);
            Diagnostic::new("rbuild::base_image", message).at(at.span()).did_you_mean(name, known)
        })
    }

    fn image_vertex(&mut self, name: &str, base: &BaseImage, lines: Range<usize>) -> NodeIndex {
        let diff_ids = base.config.rootfs.diff_ids.clone();
        if diff_ids.is_empty() {
            return self.scratch();
        }
        let op = Op::Image(ImageOp { name: name.to_owned(), image: base.image.clone(), diff_ids });
        self.vertex(op, Vec::new(), lines, false)
    }

    fn scratch(&mut self) -> NodeIndex {
        let vertex = self.vertex(Op::Scratch, Vec::new(), 0..0, false);
        self.graph.set_label(vertex, "FROM scratch".to_owned());
        vertex
    }

    /// Adds a vertex; its label comes when the stage is complete.
    pub(super) fn vertex(
        &mut self,
        op: Op,
        inputs: Vec<(Role, NodeIndex)>,
        lines: Range<usize>,
        no_cache: bool,
    ) -> NodeIndex {
        self.graph.add(Vertex { op, label: String::new(), lines, no_cache }, inputs)
    }

    /// Gives the lines of a place, from 1, half open.
    pub(super) fn lines_of(&self, span: Span) -> Range<usize> {
        let (first, last) = self.lines.lines(span);
        first..last + 1
    }

    /// Says whether the steps of a stage must run.
    pub(super) fn no_cache(&self, index: usize) -> bool {
        let name = self.stages.get(index).ast.name();
        let named = |filter: &String| name.is_some_and(|name| name.eq_ignore_ascii_case(filter));
        self.options.no_cache || self.options.no_cache_filter.iter().any(named)
    }

    /// Labels the steps of a stage: `[name 2/5] RUN make`. A vertex that another stage has too keeps its first label.
    fn number(&mut self, index: usize, steps: &[Step]) {
        let total = steps.len();
        let width = total.to_string().len();
        let name = match self.stages.len() {
            1 => String::new(),
            _ => format!("{} ", self.stages.get(index).shown),
        };
        for (number, step) in steps.iter().enumerate() {
            if self.graph.label(step.vertex).is_empty() {
                let label = format!("[{name}{:width$}/{total}] {}", number + 1, step.text);
                self.graph.set_label(step.vertex, label);
            }
        }
    }
}

/// Looks at the base names as they are without any `--build-arg`.
fn check_default_bases(file: &Dockerfile, words: &Words, platforms: &Env, checks: &mut Checks) {
    let Ok((globals, _)) = scope::global_args(file, words, &BTreeMap::new(), platforms.clone()) else {
        return;
    };
    for stage in &file.stages {
        let image = &stage.from.image;
        if let Ok(expanded) = words.word(image, &globals) {
            checks.default_base(&expanded.text, image.as_str(), stage.head.span);
        }
    }
}

/// Writes the platform that was asked for into the config.
fn set_platform(state: &mut StageState, platform: &Platform) {
    let config = &mut state.config;
    let same = config.os == platform.os && config.architecture == platform.architecture;
    config.os.clone_from(&platform.os);
    config.architecture.clone_from(&platform.architecture);
    if platform.variant.is_some() || !same {
        config.variant.clone_from(&platform.variant);
    }
}
