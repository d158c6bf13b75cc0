//! From a logical line to a typed instruction.
//!
//! A [`Draft`] is the line cut into keyword, flags and the rest; that is enough to know whether heredoc bodies
//! follow. With them at hand, [`Draft::build`] reads the rest as the keyword demands.

use super::args::{self, at_least_one, exactly_one};
use super::ast::{
    Add, Alias, Command, Copy, From, Healthcheck, Heredoc, Kind, Onbuild, Run, RunNetwork, RunSecurity,
    Source,
};
use super::diagnostic::Diagnostic;
use super::duration;
use super::flags::{Flags, Takes, is_flag};
use super::grammar::{Escape, Rule, matched, text_of, within};
use super::heredoc::marker;
use super::mount::{self, RawMount};
use super::span::{Span, Text};
use crate::suggest::nearest;

/// The instructions, as they are usually written.
pub(super) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A logical line cut into keyword, flags and the rest.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) keyword: Text,
    name: String,
    flags: Flags,
    rest: Text,
    /// All behind the keyword, flags included.
    whole: Text,
    escape: Escape,
}

/// What an instruction says.
pub(super) enum Body {
    From(From),
    Kind(Kind),
}

impl Draft {
    /// Cuts a logical line.
    pub(super) fn read(line: &Text, escape: Escape) -> Self {
        let rule = escape.choose(Rule::instruction_backslash, Rule::instruction_backtick);
        let end = line.span().end;
        let (mut keyword, mut rest) = (Text::plain("", end), Text::plain("", end));
        let mut flags = Flags::default();
        for node in within(rule, line.as_str()) {
            match node.as_rule() {
                _ if is_flag(&node) => flags.push(line, node),
                Rule::keyword => keyword = text_of(line, &node),
                Rule::rest => rest = text_of(line, &node).trimmed(),
                _ => {}
            }
        }
        let name = keyword.as_str().to_ascii_uppercase();
        let whole = line.slice(keyword.as_str().len()..line.as_str().len()).trimmed();
        Draft { keyword, name, flags, rest, whole, escape }
    }

    /// Tells whether heredoc bodies may follow the line: RUN, COPY and ADD in a form that is no JSON array, and
    /// ONBUILD of them.
    pub(super) fn takes_heredocs(&self) -> Result<bool, Diagnostic> {
        Ok(match self.name.as_str() {
            "RUN" | "COPY" | "ADD" => args::exec(&self.rest)?.is_none(),
            "ONBUILD" => {
                let inner = Draft::read(&self.rest, self.escape);
                inner.name != "ONBUILD" && inner.takes_heredocs()?
            }
            _ => false,
        })
    }

    /// Reads the rest of the line. `tail` is the white space trimmed off the line.
    pub(super) fn build(&self, heredocs: Vec<Heredoc>, tail: &str) -> Result<Body, Diagnostic> {
        let kind = match self.name.as_str() {
            "FROM" => return self.from().map(Body::From),
            "RUN" => Kind::Run(self.run(heredocs)?),
            "COPY" => Kind::Copy(self.copy(heredocs)?),
            "ADD" => Kind::Add(self.add(heredocs)?),
            "ONBUILD" => Kind::Onbuild(self.onbuild(heredocs, tail)?),
            "HEALTHCHECK" => Kind::Healthcheck(self.healthcheck()?),
            "ARG" => Kind::Arg(args::arg_vars(&self.rest, self.keyword.span(), self.escape)?),
            "STOPSIGNAL" => Kind::StopSignal(self.exactly_one()?),
            _ => self.without_flags()?,
        };
        Ok(Body::Kind(kind))
    }

    fn without_flags(&self) -> Result<Kind, Diagnostic> {
        if !KEYWORDS.contains(&self.name.as_str()) {
            return Err(self.unknown());
        }
        self.flags.check(&self.name, &[])?;
        let place = self.keyword.span();
        Ok(match self.name.as_str() {
            "ENV" => Kind::Env(args::pairs(&self.rest, "ENV", place, self.escape)?),
            "LABEL" => Kind::Label(args::pairs(&self.rest, "LABEL", place, self.escape)?),
            "EXPOSE" => Kind::Expose(self.some(args::items(&self.rest))?),
            "VOLUME" => Kind::Volume(self.volumes()?),
            "USER" => Kind::User(self.exactly_one()?),
            "WORKDIR" => Kind::Workdir(self.exactly_one()?),
            "MAINTAINER" => Kind::Maintainer(self.exactly_one()?),
            "CMD" => Kind::Cmd(args::command(&self.rest)?),
            "ENTRYPOINT" => Kind::Entrypoint(args::command(&self.rest)?),
            "SHELL" => Kind::Shell(self.shell()?),
            _ => return Err(self.unknown()),
        })
    }

    fn unknown(&self) -> Diagnostic {
        let message = format!("unknown instruction: {}", self.keyword);
        let error = Diagnostic::new("rbuild::unknown_instruction", message).at(self.keyword.span());
        let lower = self.keyword.as_str().chars().all(|c| !c.is_uppercase());
        match nearest(&self.name, KEYWORDS) {
            Some(near) if lower => error.help(format!("did you mean {}?", near.to_ascii_lowercase())),
            Some(near) => error.help(format!("did you mean {near}?")),
            None if self.name.is_empty() => {
                error.help("remove the escape character; nothing is left to continue")
            }
            None => {
                error.help("if this line belongs to the one above, end that one with the escape character")
            }
        }
    }

    fn exactly_one(&self) -> Result<Text, Diagnostic> {
        match self.rest.is_empty() {
            true => Err(exactly_one(&self.name, self.keyword.span())),
            false => Ok(self.rest.clone()),
        }
    }

    fn some(&self, words: Vec<Text>) -> Result<Vec<Text>, Diagnostic> {
        match words.is_empty() {
            true => Err(at_least_one(&self.name, self.keyword.span())),
            false => Ok(words),
        }
    }

    fn volumes(&self) -> Result<Vec<Text>, Diagnostic> {
        let paths = self.some(args::paths(&self.rest)?.0)?;
        let trimmed = paths.iter().map(|path| match path.as_str().trim().is_empty() {
            true => Err(Diagnostic::new("rbuild::empty_path", "VOLUME specified can not be an empty string")
                .at(path.span())
                .help("write VOLUME /path")),
            false => Ok(path.trimmed()),
        });
        trimmed.collect()
    }

    fn shell(&self) -> Result<Vec<Text>, Diagnostic> {
        if self.rest.is_empty() {
            return Err(at_least_one("SHELL", self.keyword.span()));
        }
        match args::exec(&self.rest)? {
            Some(words) => self.some(words),
            None => {
                Err(Diagnostic::new("rbuild::not_json", "SHELL requires the arguments to be in JSON form")
                    .at(self.rest.span())
                    .help("write SHELL [\"/bin/sh\", \"-c\"], with double quotes"))
            }
        }
    }

    fn from(&self) -> Result<From, Diagnostic> {
        self.flags.check("FROM", &[("platform", Takes::Value)])?;
        let mut words = args::items(&self.rest).into_iter();
        let (image, second, third) = (words.next(), words.next(), words.next());
        let alias = match (&image, second, third, words.next()) {
            (Some(_), None, None, None) => None,
            (Some(_), Some(keyword), Some(written), None) if keyword.as_str().eq_ignore_ascii_case("as") => {
                Some(alias(keyword, written)?)
            }
            (_, second, third, _) => return Err(self.wrong_arguments(second.as_ref(), third.as_ref())),
        };
        Ok(From { image: image.unwrap_or_default(), alias, platform: self.flags.value("platform") })
    }

    fn wrong_arguments(&self, second: Option<&Text>, third: Option<&Text>) -> Diagnostic {
        let place = second.map_or(self.keyword.span(), |second| second.span().to(self.rest.span()));
        let error = Diagnostic::new("rbuild::from_arguments", "FROM requires either one or three arguments")
            .at(place);
        match (second, third) {
            (None, _) => {
                error.help("write FROM IMAGE or FROM IMAGE AS NAME; the empty image is called scratch")
            }
            (Some(second), None) if second.as_str().eq_ignore_ascii_case("as") => {
                error.help("a name must follow AS")
            }
            (Some(second), None) => error.help(format!("to name the stage, write AS {second}")),
            _ => error
                .help("write FROM IMAGE AS NAME; flags stand before the image, comments on their own line"),
        }
    }

    fn run(&self, heredocs: Vec<Heredoc>) -> Result<Run, Diagnostic> {
        let known = [
            ("mount", Takes::Values),
            ("network", Takes::Value),
            ("security", Takes::Value),
            ("device", Takes::Values),
        ];
        self.flags.check("RUN", &known)?;
        let network =
            self.flags.value("network").map(|value| network(&value)).transpose()?.unwrap_or_default();
        let security =
            self.flags.value("security").map(|value| security(&value)).transpose()?.unwrap_or_default();
        Ok(Run {
            command: args::command(&self.rest)?,
            heredocs,
            mounts: self.flags.values("mount").into_iter().map(RawMount::read).collect::<Result<_, _>>()?,
            network,
            security,
            devices: self.flags.values("device").iter().map(mount::device).collect::<Result<_, _>>()?,
            network_span: self.flags.span("network"),
            security_span: self.flags.span("security"),
        })
    }

    fn copy(&self, heredocs: Vec<Heredoc>) -> Result<Copy, Diagnostic> {
        let known = [
            ("from", Takes::Value),
            ("chown", Takes::Value),
            ("chmod", Takes::Value),
            ("link", Takes::Bool),
            ("parents", Takes::Bool),
            ("exclude", Takes::Values),
        ];
        self.flags.check("COPY", &known)?;
        let (sources, dest) = self.sources_and_dest(heredocs)?;
        Ok(Copy {
            sources,
            dest,
            from: self.flags.value("from").filter(|from| !from.is_empty()),
            chown: self.flags.value("chown"),
            chmod: self.flags.value("chmod"),
            link: self.flags.bool("link").unwrap_or(false),
            parents: self.flags.bool("parents").unwrap_or(false),
            excludes: self.flags.values("exclude"),
        })
    }

    fn add(&self, heredocs: Vec<Heredoc>) -> Result<Add, Diagnostic> {
        let known = [
            ("chown", Takes::Value),
            ("chmod", Takes::Value),
            ("link", Takes::Bool),
            ("checksum", Takes::Value),
            ("keep-git-dir", Takes::Bool),
            ("unpack", Takes::Bool),
            ("exclude", Takes::Values),
        ];
        self.flags.check("ADD", &known)?;
        let (sources, dest) = self.sources_and_dest(heredocs)?;
        Ok(Add {
            sources,
            dest,
            chown: self.flags.value("chown"),
            chmod: self.flags.value("chmod"),
            link: self.flags.bool("link").unwrap_or(false),
            checksum: self.flags.value("checksum"),
            keep_git_dir: self.flags.bool("keep-git-dir"),
            unpack: self.flags.bool("unpack"),
            excludes: self.flags.values("exclude"),
        })
    }

    fn sources_and_dest(&self, heredocs: Vec<Heredoc>) -> Result<(Vec<Source>, Text), Diagnostic> {
        let mut words = args::paths(&self.rest)?.0;
        let dest = words.pop().filter(|_| !words.is_empty()).ok_or_else(|| self.no_destination())?;
        if marker(dest.as_str(), dest.span()).is_ok_and(|marker| marker.is_some()) {
            let message = format!("{} cannot accept a heredoc as a destination", self.name);
            return Err(Diagnostic::new("rbuild::heredoc_destination", message)
                .at(dest.span())
                .help("the last argument says where the files go"));
        }
        let source = |word: Text| match marker(word.as_str(), word.span()) {
            Ok(Some(marker)) => Source::Heredoc(with_body(marker, &heredocs)),
            _ => Source::Path(word),
        };
        Ok((words.into_iter().map(source).collect(), dest))
    }

    fn no_destination(&self) -> Diagnostic {
        let message = format!(
            "{} requires at least two arguments, but only one was provided. Destination could not be determined",
            self.name
        );
        let place = if self.rest.is_empty() { self.keyword.span() } else { self.rest.span() };
        Diagnostic::new("rbuild::missing_argument", message)
            .at(place)
            .help(format!("write {} SOURCE... DESTINATION; `.` is the working directory", self.name))
    }

    fn onbuild(&self, heredocs: Vec<Heredoc>, tail: &str) -> Result<Onbuild, Diagnostic> {
        self.flags.check("ONBUILD", &[])?;
        let inner = Draft::read(&self.rest, self.escape);
        if self.rest.is_empty() {
            return Err(at_least_one("ONBUILD", self.keyword.span()));
        }
        let refused = |message: String, help: &str| {
            Err(Diagnostic::new("rbuild::bad_trigger", message).at(inner.keyword.span()).help(help))
        };
        match inner.name.as_str() {
            "ONBUILD" => {
                return refused(
                    "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into(),
                    "write ONBUILD once",
                );
            }
            "FROM" | "MAINTAINER" => {
                return refused(
                    format!("{} isn't allowed as an ONBUILD trigger", inner.name),
                    "a trigger runs inside a stage, after its FROM",
                );
            }
            _ => inner.check_form()?,
        }
        // with the `--` that ends flags, if it is there: it is part of what is stored
        let mut trigger = format!("{}{tail}", self.whole);
        for heredoc in &heredocs {
            trigger.push('\n');
            trigger.push_str(heredoc.content.as_str());
            trigger.push_str(&heredoc.name);
        }
        Ok(Onbuild { trigger, text: self.rest.clone(), heredocs })
    }

    /// Checks of a trigger what does not depend on the instruction being known: all else is the child's business.
    fn check_form(&self) -> Result<(), Diagnostic> {
        match self.name.as_str() {
            "ENV" | "LABEL" => match args::pairs(&self.rest, &self.name, self.keyword.span(), self.escape) {
                Err(error) if error.kind() == "rbuild::blank_name" || self.rest.is_empty() => Ok(()),
                checked => checked.map(drop),
            },
            "RUN" | "CMD" | "ENTRYPOINT" | "SHELL" | "ADD" | "COPY" | "VOLUME" => {
                args::exec(&self.rest).map(drop)
            }
            _ => Ok(()),
        }
    }

    fn healthcheck(&self) -> Result<Healthcheck, Diagnostic> {
        let Some(node) = matched(Rule::healthcheck, self.rest.as_str()) else {
            return Err(at_least_one("HEALTHCHECK", self.keyword.span()));
        };
        let mut parts = node.into_inner().map(|part| text_of(&self.rest, &part));
        let (kind, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if kind.as_str().eq_ignore_ascii_case("none") {
            return match rest.is_empty() {
                true => Ok(Healthcheck::None),
                false => {
                    Err(Diagnostic::new("rbuild::too_many_arguments", "HEALTHCHECK NONE takes no arguments")
                        .at(rest.span())
                        .help("write HEALTHCHECK NONE, or HEALTHCHECK CMD command"))
                }
            };
        }
        let options = ["interval", "timeout", "start-period", "start-interval", "retries"];
        self.flags.check("HEALTHCHECK", &options.map(|name| (name, Takes::Value)))?;
        if !kind.as_str().eq_ignore_ascii_case("cmd") {
            let message = format!("Unknown type {:?} in HEALTHCHECK (try CMD)", kind.as_str().to_uppercase());
            return Err(Diagnostic::new("rbuild::healthcheck_type", message)
                .at(kind.span())
                .help("write HEALTHCHECK [options] CMD command, or HEALTHCHECK NONE"));
        }
        Ok(Healthcheck::Cmd {
            command: health_command(&rest, &kind)?,
            interval: self.interval("interval")?,
            timeout: self.interval("timeout")?,
            start_period: self.interval("start-period")?,
            start_interval: self.interval("start-interval")?,
            retries: self.retries()?,
        })
    }

    /// A duration option: zero when absent, else zero or at least a millisecond.
    fn interval(&self, name: &str) -> Result<std::time::Duration, Diagnostic> {
        let Some(value) = self.flags.value(name).filter(|value| !value.is_empty()) else {
            return Ok(std::time::Duration::ZERO);
        };
        let bad = |message: String| {
            Diagnostic::new("rbuild::bad_value", message)
                .at(value.span())
                .help("write a number and a unit: 300ms, 30s, 1m30s, 2h")
        };
        let Some(nanoseconds) = duration::parse_nanoseconds(value.as_str()) else {
            return Err(bad(format!("invalid duration {:?} for --{name}", value.as_str())));
        };
        match duration::from_nanoseconds(nanoseconds) {
            Some(duration) if nanoseconds == 0 || nanoseconds >= 1_000_000 => Ok(duration),
            _ => Err(bad(format!("Interval {name:?} cannot be less than 1ms"))),
        }
    }

    fn retries(&self) -> Result<u32, Diagnostic> {
        let Some(value) = self.flags.value("retries").filter(|value| !value.is_empty()) else { return Ok(0) };
        let bad = |message: String| {
            Err(Diagnostic::new("rbuild::bad_value", message)
                .at(value.span())
                .help("write a whole number: --retries=3"))
        };
        match value.as_str().parse::<i32>() {
            Ok(number) => match u32::try_from(number) {
                Ok(number) => Ok(number),
                Err(_) => bad(format!("--retries cannot be negative ({number})")),
            },
            Err(_) => bad(format!("invalid number {:?} for --retries", value.as_str())),
        }
    }
}

fn health_command(rest: &Text, kind: &Text) -> Result<Command, Diagnostic> {
    match args::command(rest)? {
        Command::Shell(text) if text.is_empty() => Err(missing_command(kind.span())),
        Command::Exec(words) if words.is_empty() => Err(missing_command(rest.span())),
        command => Ok(command),
    }
}

fn missing_command(place: Span) -> Diagnostic {
    Diagnostic::new("rbuild::missing_argument", "Missing command after HEALTHCHECK CMD")
        .at(place)
        .help("write HEALTHCHECK CMD command")
}

fn alias(keyword: Text, written: Text) -> Result<Alias, Diagnostic> {
    let name = written.as_str().to_lowercase();
    let letter = |c: char| c.is_ascii_lowercase();
    let valid = name.starts_with(letter)
        && name.chars().all(|c| letter(c) || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
    if valid {
        return Ok(Alias { keyword, written, name });
    }
    let message = format!(
        "invalid name for build stage: {:?}, name can't start with a number or contain symbols",
        written.as_str()
    );
    Err(Diagnostic::new("rbuild::stage_name", message)
        .at(written.span())
        .help("begin with a letter; letters, digits, `-`, `_` and `.` may follow"))
}

fn with_body(mut marker: Heredoc, bodies: &[Heredoc]) -> Heredoc {
    if let Some(body) = bodies.iter().rev().find(|body| body.name == marker.name) {
        marker.content = body.content.clone();
    }
    marker
}

fn network(value: &Text) -> Result<RunNetwork, Diagnostic> {
    match value.as_str() {
        "default" => Ok(RunNetwork::Default),
        "none" => Ok(RunNetwork::None),
        "host" => Ok(RunNetwork::Host),
        other => {
            Err(bad_mode(format!("invalid network mode {other:?}"), value, &["default", "none", "host"]))
        }
    }
}

fn security(value: &Text) -> Result<RunSecurity, Diagnostic> {
    match value.as_str() {
        "sandbox" => Ok(RunSecurity::Sandbox),
        "insecure" => Ok(RunSecurity::Insecure),
        other => Err(bad_mode(format!("security {other:?} is not valid"), value, &["sandbox", "insecure"])),
    }
}

fn bad_mode(message: String, value: &Text, options: &[&str]) -> Diagnostic {
    let place = value.span();
    Diagnostic::new("rbuild::bad_value", message)
        .at(place)
        .help(format!("it may be {}", options.join(", ")))
        .did_you_mean(value.as_str(), options.iter().copied())
}
