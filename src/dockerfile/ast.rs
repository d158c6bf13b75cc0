//! What a Dockerfile says, instruction by instruction, before any variable is expanded.
//!
//! The tree is data only: it knows neither values of variables nor images nor files. Every word is a [`Text`]
//! (characters plus place), so later rooms can expand it with [`word`](super::word) and still point at the file.
//! Words keep the quotes and escapes that the expander removes; flag values and JSON strings are already unquoted,
//! because the language removes their first layer of quotes before expansion.

use std::borrow::Cow;
use std::time::Duration;

use super::mount::RawMount;
use super::span::{Span, Text};

/// A whole Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// The character that escapes and continues lines: `\` unless the `escape` directive says otherwise.
    pub escape: char,
    /// The leading directives in the order of the file.
    pub directives: Vec<Directive>,
    /// The `ARG` instructions above the first `FROM`.
    pub global_args: Vec<Instruction>,
    /// The stages in the order of the file; never empty.
    pub stages: Vec<Stage>,
}

impl Dockerfile {
    /// Returns the value of a directive (`syntax`, `escape`, `check`).
    pub fn directive(&self, name: &str) -> Option<&Text> {
        self.directives.iter().find(|directive| directive.name == name).map(|directive| &directive.value)
    }

    /// Walks over the heads of all instructions, `FROM` lines included, in the order of the file.
    pub fn heads(&self) -> impl Iterator<Item = &Head> {
        let global = self.global_args.iter().map(|instruction| &instruction.head);
        let staged = self.stages.iter().flat_map(|stage| {
            std::iter::once(&stage.head).chain(stage.instructions.iter().map(|instruction| &instruction.head))
        });
        global.chain(staged)
    }
}

/// A parser directive: `# name=value` at the very top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Name in lower case: `syntax`, `escape` or `check`.
    pub name: String,
    /// Value without the blanks around it.
    pub value: Text,
    /// The whole line.
    pub span: Span,
}

/// One `FROM` and the instructions below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Where the `FROM` line stands.
    pub head: Head,
    /// What the `FROM` line says.
    pub from: From,
    /// The instructions of the stage.
    pub instructions: Vec<Instruction>,
}

impl Stage {
    /// Returns the lower-case name given by `AS`.
    pub fn name(&self) -> Option<&str> {
        self.from.alias.as_ref().map(|alias| alias.name.as_str())
    }
}

/// One instruction other than `FROM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Where it stands.
    pub head: Head,
    /// What it says.
    pub kind: Kind,
}

impl Instruction {
    /// Returns the bytes of the file it covers, heredoc bodies included.
    pub fn span(&self) -> Span {
        self.head.span
    }
}

/// What every instruction has, whatever it says: place, wording, comments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// From the first letter of the keyword to the end of the last line, heredoc bodies included.
    pub span: Span,
    /// The keyword as written (`FROM`, `from`, ...).
    pub keyword: Text,
    /// The instruction on one line: continuations joined, comments dropped, heredoc bodies not included.
    pub original: Text,
    /// The comments above it without their `#`, nearest last; an empty comment line forgets those above it.
    pub comments: Vec<Text>,
    /// Blank lines in the middle of the instruction (they should not be there).
    pub blank_continuations: Vec<Span>,
}

impl Head {
    /// Returns the keyword in upper case.
    pub fn name(&self) -> String {
        self.keyword.as_str().to_ascii_uppercase()
    }

    /// Returns the text of the comment `# <name> text` above: the description of a stage or an argument.
    pub fn doc_comment(&self, name: &str) -> Option<&str> {
        let described = |comment: &'_ Text| -> Option<usize> {
            comment.as_str().strip_prefix(name)?.strip_prefix(' ').map(str::len)
        };
        let found =
            self.comments.iter().find_map(|comment| described(comment).map(|len| (comment.as_str(), len)));
        found.filter(|_| !name.is_empty()).map(|(text, len)| &text[text.len() - len..])
    }
}

/// The seventeen instructions beside `FROM`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is documented by its type")]
pub enum Kind {
    Run(Run),
    Copy(Copy),
    Add(Add),
    Env(Pairs),
    Label(Pairs),
    Arg(Vec<ArgVar>),
    /// The ports in the order of the file; each word may expand to several ports or ranges.
    Expose(Vec<Text>),
    /// The volume paths, white space trimmed, none of them empty.
    Volume(Vec<Text>),
    User(Text),
    Workdir(Text),
    Cmd(Command),
    Entrypoint(Command),
    /// The words of the shell; never empty.
    Shell(Vec<Text>),
    StopSignal(Text),
    Healthcheck(Healthcheck),
    Onbuild(Onbuild),
    Maintainer(Text),
}

/// `FROM [--platform=P] IMAGE [AS NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// Image reference, stage name or `scratch`; expands with the global arguments only.
    pub image: Text,
    /// The name of the stage.
    pub alias: Option<Alias>,
    /// `--platform`; expands with the global arguments only.
    pub platform: Option<Text>,
}

/// `AS NAME`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The word `AS` as written.
    pub keyword: Text,
    /// The name as written.
    pub written: Text,
    /// The name in lower case; matches `[a-z][a-z0-9-_.]*`.
    pub name: String,
}

/// How a command is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// One string for the shell in force; empty when the instruction has no arguments.
    Shell(Text),
    /// A JSON array: the words as they are; may be empty.
    Exec(Vec<Text>),
}

/// `RUN [flags] COMMAND`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The command; never expanded by the builder.
    pub command: Command,
    /// Heredocs of the shell form in order; never expanded by the builder.
    pub heredocs: Vec<Heredoc>,
    /// `--mount` options in order; [`RawMount::expand`] makes them typed.
    pub mounts: Vec<RawMount>,
    /// `--network`
    pub network: RunNetwork,
    /// `--security`
    pub security: RunSecurity,
    /// `--device` options in order.
    pub devices: Vec<Device>,
    /// Span of the `--network` flag, when given.
    pub network_span: Option<Span>,
    /// Span of the `--security` flag, when given.
    pub security_span: Option<Span>,
}

/// `RUN --network`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RunNetwork {
    /// The network of the build.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's network; needs the entitlement `network.host`.
    Host,
}

/// `RUN --security`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RunSecurity {
    /// The normal sandbox.
    #[default]
    Sandbox,
    /// Privileged; needs the entitlement `security.insecure`.
    Insecure,
}

/// `RUN --device=NAME[,required]`: a CDI device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The CDI name.
    pub name: String,
    /// Whether the step must fail without it.
    pub required: bool,
    /// The option value.
    pub span: Span,
}

/// `COPY [flags] SOURCE... DEST`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// What is copied, in the order of the line; heredocs are written after all paths.
    pub sources: Vec<Source>,
    /// Where to.
    pub dest: Text,
    /// `--from`: stage name, stage number, named context or image; not expanded.
    pub from: Option<Text>,
    /// `--chown`; expands.
    pub chown: Option<Text>,
    /// `--chmod`; expands.
    pub chmod: Option<Text>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude` patterns; not expanded.
    pub excludes: Vec<Text>,
}

/// `ADD [flags] SOURCE... DEST`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// What is added, in the order of the line; heredocs are written after all others.
    pub sources: Vec<Source>,
    /// Where to.
    pub dest: Text,
    /// `--chown`; expands.
    pub chown: Option<Text>,
    /// `--chmod`; expands.
    pub chmod: Option<Text>,
    /// `--link`
    pub link: bool,
    /// `--checksum`; expands.
    pub checksum: Option<Text>,
    /// `--keep-git-dir`, when given.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`, when given.
    pub unpack: Option<bool>,
    /// `--exclude` patterns; not expanded.
    pub excludes: Vec<Text>,
}

/// A source of COPY or ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path, pattern, URL or git address; expands.
    Path(Text),
    /// A file whose content stands in the Dockerfile.
    Heredoc(Heredoc),
}

/// `<<NAME` and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The word after `<<` without quotes: terminator and file name.
    pub name: String,
    /// The whole marker (`3<<-"NAME"`).
    pub span: Span,
    /// The number before `<<`; 0 when there is none.
    pub fd: u64,
    /// Whether COPY and ADD expand variables in the body: no part of the word was quoted.
    pub expand: bool,
    /// Whether leading tabs go (`<<-`).
    pub chomp: bool,
    /// The body as it stands in the file, line ends included, terminator line not included.
    pub content: Text,
}

impl Heredoc {
    /// Returns the body with leading tabs of each line removed where `<<-` asks for it.
    pub fn body(&self) -> Cow<'_, str> {
        match self.chomp
            && (self.content.as_str().starts_with('\t') || self.content.as_str().contains("\n\t"))
        {
            true => self
                .content
                .as_str()
                .split_inclusive('\n')
                .map(|line| line.trim_start_matches('\t'))
                .collect(),
            false => Cow::Borrowed(self.content.as_str()),
        }
    }
}

/// The words of ENV and LABEL; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// Name and value in order; both expand.
    pub pairs: Vec<Pair>,
    /// `KEY value with blanks`, without an equals sign: then there is exactly one pair.
    pub legacy: bool,
}

/// One `key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The name; not empty.
    pub key: Text,
    /// The value; may be empty.
    pub value: Text,
}

/// One `NAME` or `NAME=DEFAULT` of ARG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgVar {
    /// The name; expands.
    pub name: Text,
    /// The default; expands.
    pub default: Option<Text>,
}

/// `HEALTHCHECK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`: an inherited check is switched off.
    None,
    /// `HEALTHCHECK [options] CMD command`. Zero means: the engine's default.
    Cmd {
        /// The command.
        command: Command,
        /// `--interval`
        interval: Duration,
        /// `--timeout`
        timeout: Duration,
        /// `--start-period`
        start_period: Duration,
        /// `--start-interval`
        start_interval: Duration,
        /// `--retries`
        retries: u32,
    },
}

/// `ONBUILD INSTRUCTION`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onbuild {
    /// The text to store in the image: the rest of the line and, below it, heredoc bodies with their terminators.
    pub trigger: String,
    /// The instruction on the line, without heredoc bodies.
    pub text: Text,
    /// The heredocs of the trigger.
    pub heredocs: Vec<Heredoc>,
}
