//! Writing a tree back as a Dockerfile.
//!
//! The outcome is the same program, not the same text: one line for each instruction, flags in a fixed order, no
//! comments. Parsing what was printed gives the tree back but for places, comments and wording; the tests lean on
//! that to know that the tree holds all that the file says.

use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use super::ast::{
    Add, ArgVar, Command, Copy, Device, Dockerfile, From, Healthcheck, Heredoc, Instruction, Kind, Onbuild,
    Pairs, Run, RunNetwork, RunSecurity, Source,
};
use super::span::Text;

impl Display for Dockerfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for directive in &self.directives {
            writeln!(f, "# {}={}", directive.name, directive.value)?;
        }
        let printer = Printer { escape: self.escape };
        for arg in &self.global_args {
            printer.instruction(f, arg)?;
        }
        for stage in &self.stages {
            printer.from(f, stage.head.keyword.as_str(), &stage.from)?;
            for instruction in &stage.instructions {
                printer.instruction(f, instruction)?;
            }
        }
        Ok(())
    }
}

impl Display for Instruction {
    /// Writes the instruction for a file whose escape character is `\`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printer { escape: '\\' }.instruction(f, self)
    }
}

struct Printer {
    escape: char,
}

type Out<'a, 'b> = &'a mut fmt::Formatter<'b>;

impl Printer {
    fn from(&self, out: Out<'_, '_>, keyword: &str, from: &From) -> fmt::Result {
        let mut line = Line::new(self.escape, keyword);
        line.flag("platform", from.platform.as_ref());
        line.word(&from.image);
        if let Some(alias) = &from.alias {
            line.word(&alias.keyword);
            line.word(&alias.written);
        }
        line.finish(out, &[])
    }

    fn instruction(&self, out: Out<'_, '_>, instruction: &Instruction) -> fmt::Result {
        let mut line = Line::new(self.escape, instruction.head.keyword.as_str());
        let heredocs = self.arguments(&mut line, &instruction.kind);
        line.finish(out, &heredocs)
    }

    /// Writes what follows the keyword; gives the heredocs whose bodies follow the line.
    fn arguments<'a>(&self, line: &mut Line, kind: &'a Kind) -> Vec<&'a Heredoc> {
        match kind {
            Kind::Run(run) => return line.run(run),
            Kind::Copy(copy) => return line.copy(copy),
            Kind::Add(add) => return line.add(add),
            Kind::Onbuild(Onbuild { trigger, heredocs, .. }) => {
                line.push(trigger.split('\n').next().unwrap_or_default());
                return heredocs.iter().collect();
            }
            Kind::Env(pairs) | Kind::Label(pairs) => line.pairs(pairs),
            Kind::Arg(vars) => vars.iter().for_each(|var| line.arg(var)),
            Kind::Expose(words) => words.iter().for_each(|word| line.word(word)),
            Kind::Volume(paths) => line.paths(paths),
            Kind::Shell(words) => line.json(words),
            Kind::Cmd(command) | Kind::Entrypoint(command) => line.command(command),
            Kind::Healthcheck(check) => line.healthcheck(check),
            Kind::User(text) | Kind::Workdir(text) | Kind::StopSignal(text) | Kind::Maintainer(text) => {
                line.word(text)
            }
        }
        Vec::new()
    }
}

struct Line {
    text: String,
    escape: char,
    /// Whether the flags are over.
    started: bool,
}

impl Line {
    fn new(escape: char, keyword: &str) -> Self {
        Line { text: keyword.to_owned(), escape, started: false }
    }

    /// Ends the line. White space that is no blank keeps an escape character at its end from continuing it.
    fn finish(mut self, out: Out<'_, '_>, heredocs: &[&Heredoc]) -> fmt::Result {
        let escapes = self.text.chars().rev().take_while(|c| *c == self.escape).count();
        if escapes == 1 {
            self.text.push('\u{b}');
        }
        writeln!(out, "{}", self.text)?;
        heredocs.iter().try_for_each(|heredoc| writeln!(out, "{}{}", heredoc.content, heredoc.name))
    }

    /// Writes a word, or text to the end of the line. A leading word like a flag is kept from being read as one.
    fn word(&mut self, word: &Text) {
        self.push(word.as_str());
    }

    fn push(&mut self, word: &str) {
        if !self.started && word.starts_with("--") {
            self.text.push_str(" --");
        }
        self.started = true;
        // A blank would make `<<` and the next word a heredoc marker; other white space does not.
        self.text.push(if self.text.ends_with("<<") { '\u{b}' } else { ' ' });
        self.text.push_str(word);
    }

    /// Writes a flag. A value with blanks is quoted: an escaped blank at the end of the line would be trimmed.
    fn flag(&mut self, name: &str, value: Option<&Text>) {
        let Some(value) = value else { return };
        let quoted = value.as_str().chars().any(char::is_whitespace);
        let quote = if quoted { "\"" } else { "" };
        let _ = write!(self.text, " --{name}={quote}");
        for c in value.as_str().chars() {
            if c == '"' || c == self.escape || (c == '\'' && !quoted) {
                self.text.push(self.escape);
            }
            self.text.push(c);
        }
        self.text.push_str(quote);
    }

    fn bool(&mut self, name: &str, value: Option<bool>) {
        if let Some(value) = value {
            let _ = write!(self.text, " --{name}={value}");
        }
    }

    fn json(&mut self, words: &[Text]) {
        let words: Vec<&str> = words.iter().map(Text::as_str).collect();
        let _ = write!(self.text, " {}", serde_json::Value::from(words));
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::Shell(text) => self.word(text),
            Command::Exec(words) => self.json(words),
        }
    }

    /// Writes paths as a list, or as JSON if one of them could not stand in a list.
    fn paths(&mut self, paths: &[Text]) {
        let bracket = paths.first().is_some_and(|path| path.as_str().starts_with('['));
        match bracket || paths.iter().any(is_odd) {
            true => self.json(paths),
            false => paths.iter().for_each(|path| self.word(path)),
        }
    }

    fn pairs(&mut self, pairs: &Pairs) {
        let separator = if pairs.legacy { ' ' } else { '=' };
        for pair in &pairs.pairs {
            self.push(&format!("{}{separator}{}", pair.key, pair.value));
        }
    }

    fn arg(&mut self, var: &ArgVar) {
        self.word(&var.name);
        if let Some(default) = &var.default {
            let _ = write!(self.text, "={default}");
        }
    }

    fn run<'a>(&mut self, run: &'a Run) -> Vec<&'a Heredoc> {
        run.mounts.iter().for_each(|mount| self.flag("mount", Some(&mount.text)));
        let network = match run.network {
            RunNetwork::Default => "default",
            RunNetwork::None => "none",
            RunNetwork::Host => "host",
        };
        self.flag("network", run.network_span.map(|_| Text::detached(network)).as_ref());
        let security = match run.security {
            RunSecurity::Sandbox => "sandbox",
            RunSecurity::Insecure => "insecure",
        };
        self.flag("security", run.security_span.map(|_| Text::detached(security)).as_ref());
        run.devices
            .iter()
            .for_each(|device| self.flag("device", Some(&Text::detached(device_value(device)))));
        self.command(&run.command);
        run.heredocs.iter().collect()
    }

    fn copy<'a>(&mut self, copy: &'a Copy) -> Vec<&'a Heredoc> {
        self.flag("from", copy.from.as_ref());
        self.flag("chown", copy.chown.as_ref());
        self.flag("chmod", copy.chmod.as_ref());
        self.bool("link", copy.link.then_some(true));
        self.bool("parents", copy.parents.then_some(true));
        copy.excludes.iter().for_each(|exclude| self.flag("exclude", Some(exclude)));
        self.sources(&copy.sources, &copy.dest)
    }

    fn add<'a>(&mut self, add: &'a Add) -> Vec<&'a Heredoc> {
        self.flag("chown", add.chown.as_ref());
        self.flag("chmod", add.chmod.as_ref());
        self.bool("link", add.link.then_some(true));
        self.flag("checksum", add.checksum.as_ref());
        self.bool("keep-git-dir", add.keep_git_dir);
        self.bool("unpack", add.unpack);
        add.excludes.iter().for_each(|exclude| self.flag("exclude", Some(exclude)));
        self.sources(&add.sources, &add.dest)
    }

    fn sources<'a>(&mut self, sources: &'a [Source], dest: &Text) -> Vec<&'a Heredoc> {
        let mut heredocs = Vec::new();
        let mut words = Vec::new();
        for source in sources {
            match source {
                Source::Path(path) => words.push(path.clone()),
                Source::Heredoc(heredoc) => {
                    heredocs.push(heredoc);
                    words.push(Text::detached(marker(heredoc)));
                }
            }
        }
        words.push(dest.clone());
        // In a JSON array a marker has no body: that is how one without content can stand beside any path.
        if heredocs.iter().all(|heredoc| heredoc.content.is_empty()) && !heredocs.is_empty() {
            heredocs.clear();
            self.json(&words);
        } else {
            self.paths(&words);
        }
        heredocs
    }

    fn healthcheck(&mut self, check: &Healthcheck) {
        let Healthcheck::Cmd { command, interval, timeout, start_period, start_interval, retries } = check
        else {
            return self.text.push_str(" NONE");
        };
        for (name, duration) in [
            ("interval", interval),
            ("timeout", timeout),
            ("start-period", start_period),
            ("start-interval", start_interval),
        ] {
            if *duration != Duration::ZERO {
                let _ = write!(self.text, " --{name}={}ns", duration.as_nanos());
            }
        }
        let _ = write!(self.text, " --retries={retries}");
        self.push("CMD");
        match command {
            Command::Shell(text) => self.word(text),
            Command::Exec(words) => self.json(words),
        }
    }
}

/// Tells whether a path cannot stand in a list cut at white space.
fn is_odd(path: &Text) -> bool {
    let gap = |c: char| matches!(c, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r' | '\n');
    path.is_empty() || path.as_str().contains(gap) || path.as_str().trim() != path.as_str()
}

/// Writes a marker of COPY or ADD, which must be one word of a list.
fn marker(heredoc: &Heredoc) -> String {
    let fd = if heredoc.fd == 0 { String::new() } else { heredoc.fd.to_string() };
    let chomp = if heredoc.chomp { "-" } else { "" };
    let quote = if heredoc.expand { "" } else { "\"" };
    let name: String = heredoc.name.chars().flat_map(|c| escaped_in_marker(c, heredoc.expand)).collect();
    format!("{fd}<<{chomp}{quote}{name}{quote}")
}

fn escaped_in_marker(c: char, expand: bool) -> impl Iterator<Item = char> {
    let special = match expand {
        true => matches!(c, '\\' | '\'' | '"' | '$' | '-'),
        false => matches!(c, '\\' | '"' | '$'),
    };
    special.then_some('\\').into_iter().chain([c])
}

fn device_value(device: &Device) -> String {
    let name = device.name.replace('"', "\"\"");
    format!("\"name={name}\",required={}", device.required)
}
