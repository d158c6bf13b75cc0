//! Reading a Dockerfile.
//!
//! Two things in the language depend on what was read before. The escape character comes from a directive at the
//! top: the grammar has its rules in pairs, which put the one or the other character on pest's stack. Heredoc
//! bodies are data up to a line that a marker above names, after unquoting: so the file is not given to pest in one
//! piece, but a logical line at a time ([`super::lines`]); the words of the line are cut by pest again, and
//! between two lines the bodies are taken out ([`super::heredoc`]). Each byte is looked at a fixed number of times.
//!
//! The file must be UTF-8: an instruction goes into image documents, which are JSON and cannot hold anything else.
//! A byte order mark is skipped, line ends may be LF or CR LF, lines may be of any length. Reading stops at the
//! first error.

use super::ast::{Directive, Dockerfile, Head, Heredoc, Instruction, Kind, Stage};
use super::diagnostic::Diagnostic;
use super::grammar::Escape;
use super::heredoc;
use super::instruction::{Body, Draft};
use super::lines::{self, LogicalLine, Step};
use super::span::{Span, Text};

/// Files longer than this are refused; the reference builder's limit for documents of this kind is far lower.
const LONGEST_FILE: usize = 64 << 20;

/// Parses a Dockerfile.
pub fn parse(source: &[u8]) -> Result<Dockerfile, Diagnostic> {
    let source = utf8(source)?;
    let mut reader = Reader::new(source);
    reader.directives()?;
    let mut dockerfile = Dockerfile {
        escape: reader.escape.char(),
        directives: Vec::new(),
        global_args: Vec::new(),
        stages: Vec::new(),
    };
    while let Some((head, body)) = reader.next()? {
        match (body, dockerfile.stages.last_mut()) {
            (Body::From(from), _) => dockerfile.stages.push(Stage { head, from, instructions: Vec::new() }),
            (Body::Kind(kind), Some(stage)) => stage.instructions.push(Instruction { head, kind }),
            (Body::Kind(kind @ Kind::Arg(_)), None) => {
                dockerfile.global_args.push(Instruction { head, kind })
            }
            (Body::Kind(_), None) => return Err(before_from(&head)),
        }
    }
    dockerfile.directives = reader.directives;
    match (dockerfile.stages.is_empty(), dockerfile.global_args.last()) {
        (false, _) => Ok(dockerfile),
        (true, None) => Err(Diagnostic::new("rbuild::empty", "file with no instructions")
            .at(Span::new(source.trim_end().len(), source.trim_end().len()))
            .help("begin with FROM IMAGE")),
        (true, Some(last)) => {
            Err(Diagnostic::new("rbuild::no_stage", "dockerfile contains no stages to build")
                .at(last.head.keyword.span())
                .help("add FROM IMAGE below the global arguments"))
        }
    }
}

/// Parses the text that an ONBUILD stored. Places count from the start of the text; its escape character is
/// always `\`.
pub fn parse_trigger(text: &str) -> Result<Instruction, Diagnostic> {
    let mut reader = Reader::new(text);
    reader.directives()?;
    let first = reader.next()?;
    let more = reader.next()?;
    let bad =
        |message: String| Err(Diagnostic::new("rbuild::bad_trigger", message).at(Span::new(0, text.len())));
    match (first, more) {
        (Some((head, Body::Kind(kind))), None) => match kind {
            Kind::Onbuild(_) | Kind::Maintainer(_) => {
                bad(format!("{} isn't allowed as an ONBUILD trigger", head.name()))
            }
            kind => Ok(Instruction { head, kind }),
        },
        (Some((_, Body::From(_))), None) => bad("FROM isn't allowed as an ONBUILD trigger".into()),
        _ => bad("onbuild trigger should be a single expression".into()),
    }
}

/// Finds the front end that a file asks for: the first word of the `syntax` directive, which may also follow a
/// `#!` line, be written `//syntax=`, or be the member `syntax` of a JSON object. The file need not be a
/// Dockerfile. A file that is not UTF-8 asks for none.
pub fn detect_syntax(source: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(source).ok()?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = if text.starts_with("#!") { text.split_once('\n').map_or("", |(_, rest)| rest) } else { text };
    let value = leading_directive(text, "syntax").or_else(|| {
        let hashed: String =
            text.lines().map_while(|line| line.strip_prefix("//")).map(|line| format!("#{line}\n")).collect();
        leading_directive(&hashed, "syntax")
    });
    let value = value.or_else(|| {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
        Some(object.get("syntax")?.as_str()?.to_owned())
    })?;
    Some(value.split(' ').next().unwrap_or_default().to_owned())
}

fn leading_directive(text: &str, name: &str) -> Option<String> {
    let mut at = 0;
    loop {
        let line = lines::directive(text, at).filter(|line| NAMES.contains(&line.name.as_str()))?;
        if line.name == name {
            return Some(line.value.to_string());
        }
        at = next_line(text, line.span.end);
    }
}

/// The directives; any other name is an ordinary comment.
const NAMES: [&str; 3] = ["syntax", "escape", "check"];

fn utf8(source: &[u8]) -> Result<&str, Diagnostic> {
    if source.len() > LONGEST_FILE {
        let message = format!("the file is longer than {} MiB", LONGEST_FILE >> 20);
        return Err(Diagnostic::new("rbuild::too_long", message));
    }
    std::str::from_utf8(source).map_err(|error| {
        let at = error.valid_up_to();
        let length = error.error_len().unwrap_or(source.len() - at);
        Diagnostic::new("rbuild::not_utf8", "the file is not valid UTF-8")
            .at(Span::new(at, at + length))
            .help("save the file as UTF-8")
    })
}

fn next_line(source: &str, at: usize) -> usize {
    source[at..].find('\n').map_or(source.len(), |end| at + end + 1)
}

struct Reader<'a> {
    source: &'a str,
    at: usize,
    escape: Escape,
    directives: Vec<Directive>,
    comments: Vec<Text>,
}

impl<'a> Reader<'a> {
    fn new(source: &'a str) -> Self {
        let at = if source.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Reader { source, at, escape: Escape::default(), directives: Vec::new(), comments: Vec::new() }
    }

    /// Reads the directives at the top; the first line that is none ends them. After a `#!` line only those
    /// which concern the file as a whole count.
    fn directives(&mut self) -> Result<(), Diagnostic> {
        let shebang = self.source[self.at..].starts_with("#!");
        if shebang {
            self.at = next_line(self.source, self.at);
        }
        while let Some(line) = lines::directive(self.source, self.at) {
            if !NAMES.contains(&line.name.as_str()) {
                break;
            }
            let earlier = self.directives.iter().find(|directive| directive.name == line.name);
            if let Some(earlier) = earlier {
                let message = format!("only one {} parser directive can be used", line.name);
                return Err(Diagnostic::new("rbuild::duplicate_directive", message)
                    .label(line.span, "second time")
                    .label(earlier.span, "first time")
                    .help("remove one of them"));
            }
            self.at = next_line(self.source, line.span.end);
            match line.name.as_str() {
                "escape" if shebang => continue,
                "escape" => self.escape = escape(&line.value)?,
                _ => {}
            }
            self.directives.push(Directive { name: line.name, value: line.value, span: line.span });
        }
        Ok(())
    }

    /// Reads the next instruction with what belongs to it.
    fn next(&mut self) -> Result<Option<(Head, Body)>, Diagnostic> {
        while self.at < self.source.len() {
            let (step, next) = lines::step(self.source, self.at, self.escape);
            self.at = next;
            match step {
                Step::Blank => {}
                Step::Comment(text) if text.is_empty() => self.comments.clear(),
                Step::Comment(text) => self.comments.push(text),
                Step::Line(line) => return self.instruction(line).map(Some),
            }
        }
        Ok(None)
    }

    fn instruction(&mut self, line: LogicalLine) -> Result<(Head, Body), Diagnostic> {
        let draft = Draft::read(&line.text, self.escape);
        let mut end = line.end;
        let mut heredocs = Vec::new();
        if draft.takes_heredocs()? {
            heredocs = heredoc::markers(&line.text)?;
            for heredoc in &mut heredocs {
                end = self.body(heredoc)?;
            }
        }
        let body = draft.build(heredocs, &line.tail)?;
        let head = Head {
            span: Span::new(line.text.span().start, end),
            keyword: draft.keyword,
            original: line.text,
            comments: std::mem::take(&mut self.comments),
            blank_continuations: line.blanks,
        };
        Ok((head, body))
    }

    fn body(&mut self, heredoc: &mut Heredoc) -> Result<usize, Diagnostic> {
        let (end, next) = heredoc::read_body(heredoc, self.source, self.at)?;
        self.at = next;
        Ok(end)
    }
}

fn escape(value: &Text) -> Result<Escape, Diagnostic> {
    match value.as_str() {
        "\\" => Ok(Escape::Backslash),
        "`" => Ok(Escape::Backtick),
        other => {
            let message = format!("invalid escape token '{other}' does not match ` or \\");
            Err(Diagnostic::new("rbuild::escape", message)
                .at(value.span())
                .help("write `# escape=\\` or, for paths with backslashes, the directive with a backtick"))
        }
    }
}

fn before_from(head: &Head) -> Diagnostic {
    let message = format!("no build stage in current context: {} stands before the first FROM", head.name());
    Diagnostic::new("rbuild::before_from", message)
        .at(head.keyword.span())
        .help("only ARG may stand before the first FROM; begin with FROM IMAGE")
}
