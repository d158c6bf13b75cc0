//! The stages of a file: their names, what each stands on and what it copies from.
//!
//! Everything here is known before any stage is planned, so that only those that the target needs are, and that
//! a cycle is found even where it would never be reached.

use super::checks::Checks;
use super::env::Env;
use super::options::PlanOptions;
use super::words::Words;
use crate::dockerfile::ast::{self, Dockerfile, Instruction, Kind};
use crate::dockerfile::diagnostic::Diagnostic;
use crate::dockerfile::span::{Span, Text};
use crate::platform::Platform;
use crate::suggest;
use petgraph::graph::DiGraph;
use std::collections::hash_map::{Entry, HashMap};

/// What a stage stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parent {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image, by the name in FROM with its variables expanded.
    Image(String),
    /// A `--build-context` that stands for the whole stage, by its key.
    Context(String),
}

/// A stage and its place among the others.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    /// As written.
    pub(super) ast: &'a ast::Stage,
    /// What it stands on.
    pub(super) parent: Parent,
    /// `--platform` of FROM.
    pub(super) platform: Option<Platform>,
    /// Its name, else `stage-N`.
    pub(super) shown: String,
    /// Stages that it copies from or mounts, with the place of the reference.
    uses: Vec<(usize, Span)>,
}

/// All stages of a file.
#[derive(Debug)]
pub(super) struct Stages<'a> {
    list: Vec<Stage<'a>>,
    /// The last stage of each name.
    by_name: HashMap<&'a str, usize>,
}

/// What `--from` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A stage of the file, earlier or not.
    Stage(usize),
    /// Something else: a named context or an image.
    Other(String),
}

impl<'a> Stages<'a> {
    /// Reads the FROM lines and all `--from`.
    pub(super) fn new(
        file: &'a Dockerfile,
        options: &PlanOptions,
        words: &Words,
        globals: &Env,
        checks: &mut Checks,
    ) -> Result<Self, Diagnostic> {
        let mut stages = Self { list: Vec::new(), by_name: HashMap::new() };
        for (index, ast) in file.stages.iter().enumerate() {
            let stage = stages.read_from(index, ast, options, words, globals, checks)?;
            stages.list.push(stage);
            if let Some(name) = ast.name() {
                stages.by_name.insert(name, index);
            }
        }
        stages.note_uses()?;
        stages.refuse_cycles()?;
        Ok(stages)
    }

    /// Gives a stage.
    pub(super) fn get(&self, index: usize) -> &Stage<'a> {
        &self.list[index]
    }

    /// Counts the stages.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Finds the stage whose name is nearest to one that is none.
    pub(super) fn near(&self, name: &str) -> Option<&Stage<'a>> {
        let near = suggest::nearest(&name.to_ascii_lowercase(), self.names())?;
        Some(&self.list[self.by_name[near]])
    }

    /// Gives the names in the order of the file.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.list.iter().filter_map(|stage| stage.ast.name())
    }

    /// Finds the stage that the build is for.
    pub(super) fn target(&self, name: Option<&str>) -> Result<usize, Diagnostic> {
        let Some(name) = name else { return Ok(self.len() - 1) };
        let lower = name.to_ascii_lowercase();
        self.by_name.get(lower.as_str()).copied().ok_or_else(|| {
            let error =
                Diagnostic::new("rbuild::target", format!("target stage {name:?} is not in the Dockerfile"));
            match suggest::nearest(&lower, self.names()) {
                Some(near) => error.help(format!("did you mean {near}?")),
                None if self.by_name.is_empty() => {
                    error.help("no stage has a name; give it one with `FROM ... AS name`")
                }
                None => error.help(format!("stages: {}", self.names().collect::<Vec<_>>().join(", "))),
            }
        })
    }

    /// Finds what a `--from` names.
    pub(super) fn source(&self, from: &Text) -> Result<Source, Diagnostic> {
        let name = from.as_str();
        if name.contains('$') {
            return Err(Diagnostic::new("rbuild::from", "variables are not expanded in --from")
                .at(from.span())
                .help("name the image by a stage (`FROM image:$TAG AS name`) and copy from that stage"));
        }
        if let Ok(number) = name.parse::<i64>() {
            let index = usize::try_from(number).ok().filter(|index| *index < self.len());
            return index.map(Source::Stage).ok_or_else(|| {
                Diagnostic::new("rbuild::from", format!("there is no stage number {number}"))
                    .at(from.span())
                    .help(format!("stages are counted from 0; the last one is {}", self.len() - 1))
            });
        }
        let known = self.by_name.get(name.to_ascii_lowercase().as_str());
        Ok(known.map_or_else(|| Source::Other(name.to_owned()), |index| Source::Stage(*index)))
    }

    /// Gives all stages that `target` needs, as far as the file shows, in the order of the file.
    pub(super) fn needed(&self, target: usize) -> Vec<usize> {
        let mut needed = vec![false; self.len()];
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if !std::mem::replace(&mut needed[index], true) {
                open.extend(self.parent_of(index));
                open.extend(self.list[index].uses.iter().map(|(used, _)| *used).filter(|used| *used < index));
            }
        }
        (0..self.len()).filter(|index| needed[*index]).collect()
    }

    fn parent_of(&self, index: usize) -> Option<usize> {
        match self.list[index].parent {
            Parent::Stage(parent) => Some(parent),
            _ => None,
        }
    }

    fn read_from(
        &self,
        index: usize,
        ast: &'a ast::Stage,
        options: &PlanOptions,
        words: &Words,
        globals: &Env,
        checks: &mut Checks,
    ) -> Result<Stage<'a>, Diagnostic> {
        let image = words.word(&ast.from.image, globals)?;
        checks.undefined_in_from(&image, globals, &ast.head);
        if image.text.is_empty() {
            let text = ast.from.image.as_str();
            return Err(Diagnostic::new(
                "rbuild::base_name",
                format!("the image name {text:?} is empty when expanded"),
            )
            .at(ast.from.image.span())
            .help("give the ARG above the first FROM a default, or use --build-arg"));
        }
        let platform = match &ast.from.platform {
            Some(text) => Some(read_platform(text, ast, words, globals, checks)?),
            None => None,
        };
        let wanted = platform.as_ref().unwrap_or(options.target_platform());
        let parent = match ast.name().and_then(|name| options.context(name, wanted)) {
            Some((key, _)) => Parent::Context(key.to_owned()),
            None => match self.by_name.get(image.text.as_str()) {
                Some(&earlier) => Parent::Stage(earlier),
                None if image.text == "scratch" => Parent::Scratch,
                None => Parent::Image(image.text),
            },
        };
        let shown = ast.name().map_or_else(|| format!("stage-{index}"), str::to_owned);
        Ok(Stage { ast, parent, platform, shown, uses: Vec::new() })
    }

    fn note_uses(&mut self) -> Result<(), Diagnostic> {
        for index in 0..self.len() {
            if matches!(self.list[index].parent, Parent::Context(_)) {
                continue;
            }
            let mut uses = Vec::new();
            for from in self.list[index].ast.instructions.iter().flat_map(references) {
                if let Source::Stage(used) = self.source(from)? {
                    uses.push((used, from.span()));
                }
            }
            self.list[index].uses = uses;
        }
        Ok(())
    }

    /// Finds stages that need each other.
    fn refuse_cycles(&self) -> Result<(), Diagnostic> {
        let mut graph: DiGraph<usize, Span> = DiGraph::new();
        let nodes: Vec<_> = (0..self.len()).map(|index| graph.add_node(index)).collect();
        for (index, stage) in self.list.iter().enumerate() {
            if let Some(parent) = self.parent_of(index) {
                graph.add_edge(nodes[index], nodes[parent], stage.ast.from.image.span());
            }
            for (used, span) in &stage.uses {
                graph.add_edge(nodes[index], nodes[*used], *span);
            }
        }
        for knot in petgraph::algo::kosaraju_scc(&graph) {
            let start = knot.iter().copied().min().expect("a component has a member");
            if knot.len() > 1 || graph.contains_edge(start, start) {
                return Err(self.cycle(&graph, start));
            }
        }
        Ok(())
    }

    /// Describes a cycle through a stage, the shortest one.
    fn cycle(&self, graph: &DiGraph<usize, Span>, start: petgraph::graph::NodeIndex) -> Diagnostic {
        use petgraph::visit::EdgeRef;
        let mut reached_by: HashMap<_, (_, Span)> = HashMap::new();
        let mut open = std::collections::VecDeque::from([start]);
        while let Some(at) = open.pop_front() {
            for edge in graph.edges(at) {
                if let Entry::Vacant(place) = reached_by.entry(edge.target()) {
                    place.insert((at, *edge.weight()));
                    open.push_back(edge.target());
                }
            }
        }
        let mut steps = Vec::new();
        let mut at = start;
        while let Some(&(before, span)) = reached_by.get(&at) {
            steps.push((before, at, span));
            at = before;
            if at == start {
                break;
            }
        }
        steps.reverse();
        let name = |node: petgraph::graph::NodeIndex| self.list[graph[node]].shown.as_str();
        let message = match steps.len() {
            1 => format!("circular dependency: stage {} uses itself", name(start)),
            _ => format!("circular dependency between stages: {}", {
                let mut names: Vec<_> = steps.iter().map(|(from, ..)| name(*from)).collect();
                names.push(name(start));
                names.join(" needs ")
            }),
        };
        let error = Diagnostic::new("rbuild::cycle", message);
        let error = steps.iter().fold(error, |error, (from, to, span)| {
            error.label(*span, format!("{} needs {} here", name(*from), name(*to)))
        });
        error.help("a stage can use only stages that are complete before it; move the shared part to a stage of its own")
    }

    /// Describes the use of a stage that comes later.
    pub(super) fn used_too_early(&self, used: usize, from: Span, by: usize) -> Diagnostic {
        let (used, by) = (&self.list[used], &self.list[by]);
        let message = format!("stage {} is used before it is defined, in stage {}", used.shown, by.shown);
        Diagnostic::new("rbuild::stage_order", message)
            .label(from, "used here")
            .label(used.ast.head.span, "defined here")
            .help(format!("move stage {} above stage {}", used.shown, by.shown))
    }
}

/// Gives the `--from` values of an instruction.
pub(super) fn references(instruction: &Instruction) -> Vec<&Text> {
    match &instruction.kind {
        Kind::Copy(copy) => copy.from.iter().collect(),
        Kind::Run(run) => run.mounts.iter().filter_map(|mount| mount.from.as_ref()).collect(),
        _ => Vec::new(),
    }
}

fn read_platform(
    text: &Text,
    ast: &ast::Stage,
    words: &Words,
    globals: &Env,
    checks: &mut Checks,
) -> Result<Platform, Diagnostic> {
    let expanded = words.word(text, globals)?;
    checks.undefined_in_from(&expanded, globals, &ast.head);
    let fault = |why: String| {
        let error = Diagnostic::new("rbuild::platform", why).at(text.span());
        match expanded.unset.iter().next() {
            Some(unset) => error.did_you_mean(unset, globals.names()),
            None => error.help("write os/architecture[/variant], for example linux/arm64"),
        }
    };
    if expanded.text.is_empty() {
        return Err(fault(format!("the platform {:?} is empty when expanded", text.as_str())));
    }
    expanded.text.parse().map_err(|error: crate::platform::ParsePlatformError| fault(error.to_string()))
}
