//! What a stage stands on and what `--from` names: a stage, an image, a context or nothing.

use super::env::Env;
use super::op::{BaseImage, BaseImageError, CopyOp, CopySource, From, ImageOp, Op, Role};
use super::options::NamedContext;
use super::planner::{Planner, Step};
use super::stages::{Parent, Source};
use super::state::{StageState, bare_config, empty_config, inherited_config, platform_of};
use super::wording;
use crate::dockerfile::ast;
use crate::dockerfile::diagnostic::Diagnostic;
use crate::dockerfile::span::Text;
use crate::oci::{Config, ImageConfig};
use crate::platform::Platform;
use petgraph::graph::NodeIndex;
use std::ops::Range;

/// Images that people mistype.
const COMMON_IMAGES: [&str; 8] =
    ["alpine", "busybox", "debian", "ubuntu", "fedora", "golang", "python", "scratch"];

/// Where a COPY or mount takes files from.
pub(super) enum Files {
    /// A vertex of the graph.
    Vertex(NodeIndex),
    /// A build context by its name.
    Context(String),
    /// An empty directory.
    Empty,
}

/// A FROM line.
struct Head<'t> {
    image: &'t Text,
    line: &'t ast::Head,
    /// The platform that the base should have.
    wanted: Platform,
    /// Somebody asked for that platform; else the base may have another one.
    explicit: bool,
}

impl Planner<'_> {
    /// Makes the state right after FROM.
    pub(super) fn begin(&mut self, index: usize, steps: &mut Vec<Step>) -> Result<StageState, Diagnostic> {
        let stage = self.stages.get(index);
        let (ast, platform) = (stage.ast, stage.platform.clone());
        let head = Head {
            image: &ast.from.image,
            line: &ast.head,
            explicit: platform.is_some() || self.options.platform.is_some(),
            wanted: platform.unwrap_or_else(|| self.options.target_platform().clone()),
        };
        match stage.parent.clone() {
            Parent::Stage(parent) => Ok(self.state(parent).child(parent)),
            Parent::Scratch => Ok(self.on_nothing()),
            Parent::Context(key) => match self.options.contexts[&key].clone() {
                NamedContext::Image(name) => self.on_image(&name, &key, &head, steps),
                NamedContext::Files => {
                    let config = bare_config(&head.wanted, Config::default());
                    Ok(self.on_files(&key, config, &head, steps))
                }
            },
            Parent::Image(name) => {
                let context = self.options.context(&name, &head.wanted);
                match context.map(|(key, context)| (key.to_owned(), context.clone())) {
                    Some((key, NamedContext::Files)) => {
                        Ok(self.on_files(&key, empty_config(&head.wanted), &head, steps))
                    }
                    Some((_, NamedContext::Image(other))) => self.on_image(&other, &name, &head, steps),
                    None => self.on_image(&name, &name, &head, steps),
                }
            }
        }
    }

    /// Starts a stage on the empty file system; it is always for the target platform.
    fn on_nothing(&mut self) -> StageState {
        let target = self.options.target_platform().clone();
        StageState::new(self.scratch(), empty_config(&target), None, target)
    }

    /// Starts a stage on an image.
    fn on_image(
        &mut self,
        name: &str,
        shown: &str,
        head: &Head<'_>,
        steps: &mut Vec<Step>,
    ) -> Result<StageState, Diagnostic> {
        if name == "scratch" {
            return Ok(self.on_nothing());
        }
        let base = self
            .resolve(name, &head.wanted)
            .map_err(|error| self.no_image(format!("base image {name}: {}", error.why), name, head.image))?;
        let got = platform_of(&base.config);
        self.checks.base_platform(shown, &head.wanted, &got, head.line);
        let platform = if head.explicit { head.wanted.clone() } else { got };
        let vertex = self.image_vertex(name, &base, self.lines_of(head.line.span));
        let label = self.platform_label(&platform, &Env::default());
        steps.push(Step { vertex, platform: label, text: format!("FROM {shown}") });
        let config = inherited_config(&base.config);
        Ok(StageState::new(vertex, config, Some(base), platform))
    }

    /// Starts a stage on the files of a context.
    fn on_files(
        &mut self,
        key: &str,
        config: ImageConfig,
        head: &Head<'_>,
        steps: &mut Vec<Step>,
    ) -> StageState {
        let scratch = self.scratch();
        let op = CopyOp::plain(vec![CopySource::Path("/".to_owned())], From::Context(key.to_owned()), "/");
        let lines = self.lines_of(head.line.span);
        let vertex = self.vertex(Op::Copy(Box::new(op)), vec![(Role::Base, scratch)], lines, false);
        let label = self.platform_label(&head.wanted, &Env::default());
        steps.push(Step { vertex, platform: label, text: format!("FROM {key}") });
        let mut state = StageState::new(scratch, config, None, head.wanted.clone());
        // a layer needs a line of history
        state.stack(vertex, format!("FROM {key}{}", wording::SUFFIX));
        state
    }

    /// Finds what a `--from` of stage `index` names and plans it, if it is a stage.
    pub(super) fn files_of(&mut self, from: &Text, index: usize) -> Result<Files, Diagnostic> {
        match self.stages.source(from)? {
            Source::Stage(used) if used >= index => Err(self.stages.used_too_early(used, from.span(), index)),
            Source::Stage(used) => {
                if let Parent::Context(key) = &self.stages.get(used).parent
                    && self.options.contexts.get(key) == Some(&NamedContext::Files)
                {
                    return Ok(Files::Context(key.clone()));
                }
                self.need(used)?;
                Ok(Files::Vertex(self.state(used).vertex))
            }
            Source::Other(name) => self.files_of_other(name, from),
        }
    }

    fn files_of_other(&mut self, name: String, from: &Text) -> Result<Files, Diagnostic> {
        let platform = self.options.target_platform().clone();
        let name = match self.options.context(&name, &platform) {
            Some((key, NamedContext::Files)) => return Ok(Files::Context(key.to_owned())),
            Some((_, NamedContext::Image(other))) => other.clone(),
            None => name,
        };
        if name == "scratch" {
            return Ok(Files::Empty);
        }
        let base = self.resolve(&name, &platform).map_err(|error| {
            self.no_image(format!("no stage is called {name}; image {name}: {}", error.why), &name, from)
        })?;
        let vertex = self.image_vertex(&name, &base, 0..0);
        if self.graph.label(vertex).is_empty() {
            self.graph.set_label(vertex, format!("FROM {name}"));
        }
        Ok(Files::Vertex(vertex))
    }

    /// Asks for an image, once.
    fn resolve(&mut self, name: &str, platform: &Platform) -> Result<BaseImage, BaseImageError> {
        let key = (name.to_owned(), platform.clone());
        if let Some(known) = self.resolved.get(&key) {
            return Ok(known.clone());
        }
        let base = self.bases.resolve(name, Some(platform))?;
        self.resolved.insert(key, base.clone());
        Ok(base)
    }

    /// Says that an image cannot be had; perhaps a stage or another image was meant.
    fn no_image(&self, message: String, name: &str, at: &Text) -> Diagnostic {
        // what follows the first line says what to do
        let (message, cure) =
            message.split_once('\n').map_or((message.as_str(), None), |(m, c)| (m, Some(c)));
        let error = Diagnostic::new("rbuild::base_image", message).at(at.span());
        let error = cure.map_or(error.clone(), |cure| error.help(cure));
        match self.stages.near(name).map(|stage| stage.ast) {
            Some(ast) => match &ast.from.alias {
                Some(alias) => error
                    .label(alias.written.span(), "there is this stage")
                    .help(format!("did you mean {}?", alias.name)),
                None => error,
            },
            None if cure.is_none() => error.did_you_mean(name, COMMON_IMAGES),
            None => error,
        }
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
}
