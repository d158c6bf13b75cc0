//! Plans stage after stage: a stage is planned when something needs it, and once.

use super::builder::GraphBuilder;
use super::checks::Checks;
use super::env::Env;
use super::lower::Lowering;
use super::op::{BaseImage, BaseImages, Op, Role, Vertex};
use super::options::PlanOptions;
use super::output::{Outline, Plan, PlannedHistory};
use super::scope;
use super::stages::{Parent, Source, Stages, references};
use super::state::{StageState, platform_of};
use super::words::Words;
use crate::dockerfile;
use crate::dockerfile::ast::{Dockerfile, Instruction};
use crate::dockerfile::diagnostic::Diagnostic;
use crate::dockerfile::span::{LineIndex, Span};
use crate::platform::Platform;
use petgraph::graph::NodeIndex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

/// Stages that need each other through triggers of base images are planned within each other; so deep at most.
const DEEPEST: usize = 50;

/// All that planning needs and makes.
pub(super) struct Planner<'a> {
    pub(super) options: &'a PlanOptions,
    pub(super) words: Words,
    pub(super) stages: Stages<'a>,
    /// Arguments visible in FROM, and defaults of bare ARGs.
    pub(super) globals: Env,
    /// `--build-arg` with values.
    pub(super) given: BTreeMap<String, String>,
    /// Names of arguments that an ARG asked for.
    pub(super) asked: BTreeSet<String>,
    pub(super) proxies: Vec<(String, String)>,
    pub(super) graph: GraphBuilder,
    pub(super) checks: Checks,
    pub(super) outline: Outline,
    pub(super) bases: &'a dyn BaseImages,
    pub(super) resolved: HashMap<(String, Platform), BaseImage>,
    lines: LineIndex<'a>,
    done: Vec<Option<StageState>>,
    depth: usize,
    epoch: Option<i64>,
}

/// A step of a stage as it will be numbered.
pub(super) struct Step {
    pub(super) vertex: NodeIndex,
    /// Of a build for several platforms for which one it is, with a space behind.
    pub(super) platform: String,
    pub(super) text: String,
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
        let mut given = scope::given(options);
        let mut checks = Checks::new(file, &given)?;
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
            asked: BTreeSet::new(),
            proxies,
            graph,
            checks,
            outline,
            bases,
            resolved: HashMap::new(),
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
        normalise_platform(&mut state);
        let (mut layers, mut history) = self.chain(&state);
        let (graph, moved) = self.graph.finish(state.vertex);
        layers.iter_mut().for_each(|vertex| *vertex = moved[vertex]);
        history.iter_mut().for_each(|entry| entry.vertex = entry.vertex.map(|vertex| moved[&vertex]));
        self.outline.args.sort_by_key(|arg| arg.span.start);
        self.outline.secrets.sort_by_key(|need| need.span.start);
        self.outline.ssh.sort_by_key(|need| need.span.start);
        let (warnings, warnings_are_errors) = self.checks.finish();
        Ok(Plan {
            target: moved[&state.vertex],
            layers,
            base: state.base,
            config: state.config,
            stage: self.stages.get(target).ast.name().map(str::to_owned),
            epoch: self.epoch,
            warnings,
            warnings_are_errors,
            unused_build_args: scope::unused(file, &self.given, &self.asked),
            outline: self.outline,
            graph,
            history,
        })
    }

    /// Gives layers and history of a stage and of those below it, oldest first.
    fn chain(&self, top: &StageState) -> (Vec<NodeIndex>, Vec<PlannedHistory>) {
        let below = |state: &&StageState| state.parent.map(|parent| self.state(parent));
        let mut stages: Vec<&StageState> = std::iter::successors(Some(top), below).collect();
        stages.reverse();
        let layers = stages.iter().flat_map(|state| state.layers.iter().copied()).collect();
        let history = stages.iter().flat_map(|state| state.history.iter().cloned()).collect();
        (layers, history)
    }

    /// Plans a stage with all that it needs, in the order of the file, if that has not been done.
    pub(super) fn need(&mut self, index: usize) -> Result<(), Diagnostic> {
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
    pub(super) fn state(&self, index: usize) -> &StageState {
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
            let text = trigger.head.original.as_str();
            lowering.instruction(trigger).map_err(|error| in_trigger(&error, text, ast.head.span))?;
        }
        lowering.trigger = None;
        for instruction in &ast.instructions {
            lowering.instruction(instruction)?;
        }
        let Lowering { state, steps, .. } = lowering;
        self.number(index, &steps);
        Ok(state)
    }

    /// Reads the triggers that a stage inherits and plans the stages that they copy from.
    fn triggers(&mut self, state: &mut StageState, index: usize) -> Result<Vec<Instruction>, Diagnostic> {
        let texts = std::mem::take(&mut state.config.config.on_build);
        let span = self.stages.get(index).ast.head.span;
        let mut triggers = Vec::new();
        for text in texts {
            let trigger =
                dockerfile::parse_trigger(&text).map_err(|error| in_trigger(&error, &text, span))?;
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

    /// Gives what a label says about the platform of a step: its programs', and the one that they work for as far as the
    /// stage has asked for it.
    pub(super) fn platform_label(&self, own: &Platform, env: &Env) -> String {
        if !self.options.label_platforms {
            return String::new();
        }
        let asked = ["TARGETPLATFORM", "TARGETOS", "TARGETARCH", "TARGETVARIANT"];
        let target = self.options.target_platform();
        match asked.iter().any(|name| env.get(name).is_some()) {
            true if target.os != own.os => format!("{own}->{target} "),
            true if target.architecture != own.architecture => {
                let variant = target.variant.as_ref().map(|v| format!("/{v}")).unwrap_or_default();
                format!("{own}->{}{variant} ", target.architecture)
            }
            _ => format!("{own} "),
        }
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
                let label = format!("[{}{name}{:width$}/{total}] {}", step.platform, number + 1, step.text);
                self.graph.set_label(step.vertex, label);
            }
        }
    }
}

/// Turns an error in the text of a trigger, which stands in no file, into one at the FROM line.
fn in_trigger(error: &Diagnostic, trigger: &str, from: Span) -> Diagnostic {
    let first = trigger.lines().next().unwrap_or_default();
    let message = format!("in the ONBUILD trigger {first:?}: {}", error.message());
    let moved = Diagnostic::new(error.kind(), message).label(from, "this base has the trigger");
    match error.help_text() {
        Some(help) => moved.help(help),
        None => moved,
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
            checks.default_base(&expanded.text, image.as_str(), &stage.head);
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

/// Writes the platform of the config in the spelling that images use.
fn normalise_platform(state: &mut StageState) {
    let Platform { os, architecture, variant } = platform_of(&state.config);
    (state.config.os, state.config.architecture, state.config.variant) = (os, architecture, variant);
}
