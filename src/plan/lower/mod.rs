//! Turns the instructions of a stage into vertices and changes of its config.
//!
//! Every word of an instruction is expanded against the environment as it was before the instruction (ARG alone
//! evaluates its words one after another), and only then is anything changed.

mod arg;
mod config;
mod copy;
mod mounts;
mod run;

use super::checks;
use super::env::Env;
use super::op::{Op, Role};
use super::planner::{Planner, Step};
use super::state::StageState;
use crate::dockerfile::ast::{Head, Instruction, Kind};
use crate::dockerfile::diagnostic::Diagnostic;
use crate::dockerfile::lint::{Warning, names_a_secret};
use crate::dockerfile::span::{Span, Text};
use crate::dockerfile::without_passwords;
use crate::dockerfile::word::Expanded;
use petgraph::graph::NodeIndex;

/// One stage while its instructions are turned into vertices.
pub(super) struct Lowering<'p, 'a> {
    pub(super) planner: &'p mut Planner<'a>,
    pub(super) state: StageState,
    /// The stage's place in the file.
    pub(super) index: usize,
    pub(super) steps: Vec<Step>,
    /// The FROM line, while a trigger of its base is planned: its text stands in no file.
    pub(super) trigger: Option<Span>,
}

impl Lowering<'_, '_> {
    /// Plans one instruction.
    pub(super) fn instruction(&mut self, instruction: &Instruction) -> Result<(), Diagnostic> {
        match &instruction.kind {
            Kind::Run(run) => self.run(instruction, run),
            Kind::Copy(copy) => self.copy(instruction, copy),
            Kind::Add(add) => self.add(instruction, add),
            Kind::Workdir(path) => self.workdir(instruction, path),
            Kind::Arg(vars) => self.arg(instruction, vars),
            Kind::Env(pairs) => self.env(instruction, pairs),
            Kind::Label(pairs) => self.label(instruction, pairs),
            Kind::Expose(ports) => self.expose(instruction, ports),
            Kind::Volume(paths) => self.volume(instruction, paths),
            Kind::User(user) => self.user(instruction, user),
            Kind::Cmd(command) => self.cmd(instruction, command),
            Kind::Entrypoint(command) => self.entrypoint(instruction, command),
            Kind::Shell(words) => self.shell(words),
            Kind::StopSignal(signal) => self.stop_signal(instruction, signal),
            Kind::Healthcheck(check) => self.healthcheck(instruction, check),
            Kind::Onbuild(onbuild) => {
                self.state.config.config.on_build.push(onbuild.trigger.clone());
                Ok(())
            }
            Kind::Maintainer(name) => {
                self.state.config.author = Some(name.as_str().to_owned());
                self.state.note(format!("MAINTAINER {name}"));
                Ok(())
            }
        }
    }

    /// Gives the place to blame for an instruction.
    fn place(&self, span: Span) -> Span {
        self.trigger.unwrap_or(span)
    }

    /// Notes what a check found.
    fn warn(&mut self, warning: Warning) {
        let warning = match self.trigger {
            Some(from) => warning.at(from),
            None => warning,
        };
        self.planner.checks.warn(warning);
    }

    /// Notes the variables that are not set.
    fn check_undefined(&mut self, expanded: &Expanded, head: &Head) {
        for warning in checks::undefined(expanded, &self.state.declared, &self.state.env, head) {
            self.warn(warning);
        }
    }

    /// Expands a word in the environment so far.
    fn word(&mut self, text: &Text, instruction: &Instruction) -> Result<String, Diagnostic> {
        let expanded = self.planner.words.word(text, &self.state.env)?;
        self.check_undefined(&expanded, &instruction.head);
        Ok(expanded.text)
    }

    /// Expands a word that may be missing; one that expands to nothing counts as missing.
    fn optional(
        &mut self,
        text: Option<&Text>,
        instruction: &Instruction,
    ) -> Result<Option<String>, Diagnostic> {
        let Some(text) = text else { return Ok(None) };
        Ok(Some(self.word(text, instruction)?).filter(|text| !text.is_empty()))
    }

    /// Puts a vertex on top of the file system so far.
    fn stack(
        &mut self,
        op: Op,
        mut inputs: Vec<(Role, NodeIndex)>,
        instruction: &Instruction,
        shown: String,
        created_by: String,
    ) {
        inputs.insert(0, (Role::Base, self.state.vertex));
        let no_cache = !matches!(op, Op::Workdir(_)) && self.planner.no_cache(self.index);
        let lines = self.planner.lines_of(self.place(instruction.span()));
        let vertex = self.planner.vertex(op, inputs, lines, no_cache);
        let text = if self.trigger.is_some() { format!("ONBUILD {shown}") } else { shown };
        let platform = self.planner.platform_label(&self.state.platform, &self.state.env);
        self.steps.push(Step { vertex, platform, text });
        self.state.stack(vertex, created_by);
    }

    /// Writes an instruction as it is shown: variables expanded, the keyword in capitals. What is called like a secret
    /// shows stars: the text goes to logs that many read.
    fn shown(&self, text: &str, env: &Env, keep_quotes: bool) -> String {
        let mut env = env.clone();
        let secret: Vec<String> =
            env.names().filter(|name| names_a_secret(name)).map(str::to_owned).collect();
        secret.iter().for_each(|name| env.set(name, "****"));
        let shown = self.planner.words.shown(text.trim(), &env, keep_quotes);
        let shown = without_passwords(&shown);
        match shown.split_once(' ') {
            Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
            None => shown.to_uppercase(),
        }
    }
}
