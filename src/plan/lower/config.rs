//! Instructions that change the config of the image, and WORKDIR, which makes a directory as well.

use super::Lowering;
use crate::dockerfile::ast::{Command, Healthcheck, Instruction, Pairs};
use crate::dockerfile::diagnostic::Diagnostic;
use crate::dockerfile::lint::Warning;
use crate::dockerfile::span::Text;
use crate::oci;
use crate::plan::env::set_in_config;
use crate::plan::op::{Op, WorkdirOp};
use crate::plan::{expose, paths, signal, wording};
use std::time::Duration;

impl Lowering<'_, '_> {
    pub(super) fn env(&mut self, instruction: &Instruction, pairs: &Pairs) -> Result<(), Diagnostic> {
        let pairs = self.pairs(instruction, pairs)?;
        let mut created_by = String::from("ENV");
        for (name, value) in &pairs {
            if let Some(warning) = Warning::secret_in_arg_or_env("ENV", name, &instruction.head) {
                self.warn(warning);
            }
            self.state.env.set(name, value);
            set_in_config(&mut self.state.config.config.env, name, value);
            created_by.push_str(&format!(" {name}={value}"));
        }
        self.state.note(created_by);
        Ok(())
    }

    pub(super) fn label(&mut self, instruction: &Instruction, pairs: &Pairs) -> Result<(), Diagnostic> {
        let pairs = self.pairs(instruction, pairs)?;
        let mut created_by = String::from("LABEL");
        for (name, value) in pairs {
            created_by.push_str(&format!(" {name}={value}"));
            self.state.config.config.labels.insert(name, value);
        }
        self.state.note(created_by);
        Ok(())
    }

    /// Expands all names and values before any is set.
    fn pairs(
        &mut self,
        instruction: &Instruction,
        pairs: &Pairs,
    ) -> Result<Vec<(String, String)>, Diagnostic> {
        if pairs.legacy {
            self.warn(Warning::legacy_key_value(&instruction.head));
        }
        let mut out = Vec::new();
        for pair in &pairs.pairs {
            let name = self.word(&pair.key, instruction)?;
            out.push((name, self.word(&pair.value, instruction)?));
        }
        Ok(out)
    }

    pub(super) fn workdir(&mut self, instruction: &Instruction, path: &Text) -> Result<(), Diagnostic> {
        let env = self.state.env.clone();
        let path = self.word(path, instruction)?;
        if !self.state.workdir_set && !path.starts_with('/') {
            self.warn(Warning::workdir_relative_path(&path, &instruction.head));
        }
        self.state.workdir_set = true;
        let config = &mut self.state.config.config;
        config.working_dir = paths::working_dir(&config.working_dir, &path);
        let created_by = format!("WORKDIR {}", config.working_dir);
        let user = config.user.clone();
        let clean = self.state.cwd();
        if clean == "/" {
            self.state.note(created_by);
        } else {
            let shown = self.shown(instruction.head.original.as_str(), &env, false);
            self.stack(
                Op::Workdir(WorkdirOp { path: clean, user }),
                Vec::new(),
                instruction,
                shown,
                created_by,
            );
        }
        Ok(())
    }

    pub(super) fn user(&mut self, instruction: &Instruction, user: &Text) -> Result<(), Diagnostic> {
        let user = self.word(user, instruction)?;
        self.state.note(format!("USER {user}"));
        self.state.config.config.user = user;
        Ok(())
    }

    pub(super) fn expose(&mut self, instruction: &Instruction, ports: &[Text]) -> Result<(), Diagnostic> {
        let mut sorted: Vec<&Text> = ports.iter().collect();
        sorted.sort_by_key(|text| text.as_str());
        let mut all = Vec::new();
        for text in sorted {
            for word in self.planner.words.split(text, &self.state.env)? {
                let exposed = expose::parse(&word).map_err(|why| {
                    let error = Diagnostic::new("rbuild::expose", why).at(text.span());
                    error.help("write a port, a range or a port with its protocol: 80, 8000-8010, 53/udp")
                })?;
                for warning in Warning::of_port(&word, &instruction.head) {
                    self.warn(warning);
                }
                all.extend(exposed);
            }
        }
        self.state.note(format!("EXPOSE {}", wording::list(&all)));
        let known = &mut self.state.config.config.exposed_ports;
        known.extend(all.into_iter().map(|port| (port, serde_json::Map::new())));
        Ok(())
    }

    pub(super) fn volume(&mut self, instruction: &Instruction, volumes: &[Text]) -> Result<(), Diagnostic> {
        let mut paths = Vec::new();
        for text in volumes {
            let path = self.word(text, instruction)?;
            if path.is_empty() {
                let message = format!("the volume {:?} is empty when expanded", text.as_str());
                return Err(Diagnostic::new("rbuild::volume", message).at(text.span()));
            }
            paths.push(path);
        }
        self.state.note(format!("VOLUME {}", wording::list(&paths)));
        let known = &mut self.state.config.config.volumes;
        known.extend(paths.into_iter().map(|path| (path, serde_json::Map::new())));
        Ok(())
    }

    pub(super) fn stop_signal(&mut self, instruction: &Instruction, text: &Text) -> Result<(), Diagnostic> {
        let name = self.word(text, instruction)?;
        if let Some(why) = signal::fault(&name) {
            let error = Diagnostic::new("rbuild::signal", why).at(text.span());
            let names: Vec<String> = signal::names().map(|name| format!("SIG{name}")).collect();
            let upper = name.to_ascii_uppercase();
            let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
            return Err(error
                .help("write a number or a name like SIGTERM")
                .did_you_mean(&full, names.iter().map(String::as_str)));
        }
        self.state.note(format!("STOPSIGNAL {name}"));
        self.state.config.config.stop_signal = Some(name);
        Ok(())
    }

    pub(super) fn shell(&mut self, words: &[Text]) -> Result<(), Diagnostic> {
        let words: Vec<String> = words.iter().map(|word| word.as_str().to_owned()).collect();
        self.state.note(format!("SHELL {}", wording::list(&words)));
        self.state.config.config.shell = Some(words);
        Ok(())
    }

    pub(super) fn cmd(&mut self, instruction: &Instruction, command: &Command) -> Result<(), Diagnostic> {
        let place = self.place(instruction.head.original.span());
        if let Some(earlier) = self.state.once.cmd.replace(place) {
            self.warn(Warning::multiple_instructions(&instruction.head, earlier));
        }
        let words = self.command(instruction, command);
        self.state.note(format!("CMD {}", wording::quoted_list(&words)));
        let config = &mut self.state.config.config;
        config.cmd = Some(words).filter(|words| !words.is_empty());
        config.args_escaped = Some(true);
        Ok(())
    }

    /// ENTRYPOINT drops a CMD that came from the base or an earlier stage, for it was meant for another program.
    pub(super) fn entrypoint(
        &mut self,
        instruction: &Instruction,
        command: &Command,
    ) -> Result<(), Diagnostic> {
        let place = self.place(instruction.head.original.span());
        if let Some(earlier) = self.state.once.entrypoint.replace(place) {
            self.warn(Warning::multiple_instructions(&instruction.head, earlier));
        }
        let words = self.command(instruction, command);
        self.state.note(format!("ENTRYPOINT {}", wording::quoted_list(&words)));
        let config = &mut self.state.config.config;
        config.entrypoint = Some(words).filter(|words| !words.is_empty());
        if self.state.once.cmd.is_none() {
            config.cmd = None;
        }
        Ok(())
    }

    /// Gives the words of a CMD or ENTRYPOINT; the shell form gets the shell in force.
    fn command(&mut self, instruction: &Instruction, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.iter().map(|word| word.as_str().to_owned()).collect(),
            Command::Shell(text) => {
                if self.state.config.config.shell.as_ref().is_none_or(Vec::is_empty) {
                    self.warn(Warning::json_args_recommended(&instruction.head));
                }
                let mut words = self.state.shell();
                words.push(text.as_str().to_owned());
                words
            }
        }
    }

    /// HEALTHCHECK replaces the whole check: what is not given is the engine's default, not the base image's value.
    pub(super) fn healthcheck(
        &mut self,
        instruction: &Instruction,
        check: &Healthcheck,
    ) -> Result<(), Diagnostic> {
        let place = self.place(instruction.head.original.span());
        if let Some(earlier) = self.state.once.healthcheck.replace(place) {
            self.warn(Warning::multiple_instructions(&instruction.head, earlier));
        }
        let check = match check {
            Healthcheck::None => {
                oci::Healthcheck { test: vec!["NONE".to_owned()], ..oci::Healthcheck::default() }
            }
            Healthcheck::Cmd { command, interval, timeout, start_period, start_interval, retries } => {
                oci::Healthcheck {
                    test: health_test(command),
                    interval: nanos(*interval),
                    timeout: nanos(*timeout),
                    start_period: nanos(*start_period),
                    start_interval: nanos(*start_interval),
                    retries: i64::from(*retries),
                }
            }
        };
        self.state.note(wording::healthcheck(&check));
        self.state.config.config.healthcheck = Some(check);
        Ok(())
    }
}

fn health_test(command: &Command) -> Vec<String> {
    let word = |text: &Text| text.as_str().to_owned();
    match command {
        Command::Shell(text) => vec!["CMD-SHELL".to_owned(), word(text)],
        Command::Exec(words) => std::iter::once("CMD".to_owned()).chain(words.iter().map(word)).collect(),
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
