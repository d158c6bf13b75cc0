//! COPY and ADD.

use super::Lowering;
use crate::digest::Digest;
use crate::dockerfile::ast::{Add, Copy, Instruction, Source};
use crate::dockerfile::diagnostic::Diagnostic;
use crate::dockerfile::span::Text;
use crate::dockerfile::without_passwords;
use crate::plan::bases::Files;
use crate::plan::op::{CopyOp, CopySource, From, Op, Role};
use crate::plan::remote::{self, Kind};
use crate::plan::{chmod, paths, wording};

/// The words of a COPY or ADD after expansion.
struct Words {
    sources: Vec<CopySource>,
    dest: String,
    chown: Option<String>,
    chmod: Option<String>,
}

impl Lowering<'_, '_> {
    pub(super) fn copy(&mut self, instruction: &Instruction, copy: &Copy) -> Result<(), Diagnostic> {
        let words = self.words(instruction, &copy.sources, &copy.dest, [&copy.chown, &copy.chmod], false)?;
        let created_by = history("COPY", copy.parents, &words);
        let mut inputs = Vec::new();
        let from = match &copy.from {
            Some(from) => match self.planner.files_of(from, self.index)? {
                Files::Vertex(vertex) => {
                    inputs.push((Role::Source, vertex));
                    From::Vertex
                }
                Files::Context(name) => From::Context(name),
                Files::Empty => From::Empty,
            },
            None => From::Context(String::new()),
        };
        let inline_only = !words.sources.iter().any(|source| matches!(source, CopySource::Path(_)));
        if inline_only {
            inputs.clear();
        }
        let op = CopyOp {
            from: if inline_only { From::Empty } else { from },
            dest: paths::destination(&self.state.cwd(), &words.dest),
            parents: copy.parents,
            // BuildKit does not link when modes change
            link: copy.link && words.chmod.is_none(),
            sources: words.sources,
            chown: words.chown,
            chmod: words.chmod,
            exclude: plain(&copy.excludes),
            is_add: false,
            unpack: None,
            checksum: None,
            keep_git_dir: false,
        };
        let shown = self.shown(instruction.head.original.as_str(), &self.state.env, false);
        self.stack(Op::Copy(Box::new(op)), inputs, instruction, shown, created_by);
        Ok(())
    }

    pub(super) fn add(&mut self, instruction: &Instruction, add: &Add) -> Result<(), Diagnostic> {
        let words = self.words(instruction, &add.sources, &add.dest, [&add.chown, &add.chmod], true)?;
        let checksum = self.optional(add.checksum.as_ref(), instruction)?;
        if let Some((checksum, text)) = checksum.as_deref().zip(add.checksum.as_ref()) {
            check_checksum(&words.sources, checksum)
                .map_err(|why| Diagnostic::new("rbuild::checksum", why).at(text.span()))?;
        }
        let created_by = history("ADD", false, &words);
        let local = words.sources.iter().any(|source| matches!(source, CopySource::Path(_)));
        let op = CopyOp {
            from: if local { From::Context(String::new()) } else { From::Empty },
            dest: paths::destination(&self.state.cwd(), &words.dest),
            parents: false,
            link: add.link && words.chmod.is_none(),
            sources: words.sources,
            chown: words.chown,
            chmod: words.chmod,
            exclude: plain(&add.excludes),
            is_add: true,
            unpack: add.unpack,
            checksum,
            keep_git_dir: add.keep_git_dir.unwrap_or(false),
        };
        let shown = self.shown(instruction.head.original.as_str(), &self.state.env, false);
        self.stack(Op::Copy(Box::new(op)), Vec::new(), instruction, shown, created_by);
        Ok(())
    }

    /// Expands everything that COPY and ADD have in common.
    fn words(
        &mut self,
        instruction: &Instruction,
        sources: &[Source],
        dest: &Text,
        [chown, chmod]: [&Option<Text>; 2],
        is_add: bool,
    ) -> Result<Words, Diagnostic> {
        let chown = self.optional(chown.as_ref(), instruction)?;
        let mode = self.optional(chmod.as_ref(), instruction)?;
        if let Some((why, text)) = mode.as_deref().and_then(chmod::fault).zip(chmod.as_ref()) {
            return Err(Diagnostic::new("rbuild::chmod", why).at(text.span()));
        }
        let mut paths = Vec::new();
        let mut inline = Vec::new();
        for source in sources {
            match source {
                Source::Path(text) => {
                    let path = self.word(text, instruction)?;
                    paths.push(copy_source(path, text, is_add)?);
                }
                Source::Heredoc(heredoc) => {
                    if heredoc.name.contains('/') || matches!(heredoc.name.as_str(), "" | "." | "..") {
                        let why = format!("the heredoc {:?} cannot be the name of a file", heredoc.name);
                        return Err(Diagnostic::new("rbuild::heredoc", why)
                            .at(heredoc.span)
                            .help("its word after << becomes the file's name"));
                    }
                    let body = self.planner.words.body(heredoc, &self.state.env)?;
                    self.check_undefined(&body, &instruction.head);
                    inline.push(CopySource::Inline { name: heredoc.name.clone(), content: body.text });
                }
            }
        }
        let dest = self.word(dest, instruction)?;
        paths.extend(inline);
        Ok(Words { sources: paths, dest, chown, chmod: mode })
    }
}

/// Decides what a source is; only ADD fetches.
fn copy_source(path: String, text: &Text, is_add: bool) -> Result<CopySource, Diagnostic> {
    let kind = remote::kind(&path);
    if kind != Kind::Path && !is_add {
        let what = if kind == Kind::Url { "a URL" } else { "a git repository" };
        return Err(Diagnostic::new("rbuild::copy_remote", format!("COPY cannot take {what}: {path}"))
            .at(text.span())
            .help("use ADD"));
    }
    Ok(match kind {
        // an unset variable names the root of the source
        Kind::Path if path.is_empty() => CopySource::Path("/".to_owned()),
        Kind::Path => CopySource::Path(path),
        Kind::Url => CopySource::Url(path),
        Kind::Git => CopySource::Git(path),
    })
}

/// Says why a checksum cannot be used.
fn check_checksum(sources: &[CopySource], checksum: &str) -> Result<(), String> {
    match sources {
        [CopySource::Url(_)] => {
            checksum.parse::<Digest>().map(drop).map_err(|error| format!("invalid --checksum: {error}"))
        }
        [CopySource::Git(_)] => Ok(()),
        [_] => Err("--checksum needs an http, https or git source".to_owned()),
        _ => Err("--checksum can be used with one source only".to_owned()),
    }
}

fn plain(texts: &[Text]) -> Vec<String> {
    texts.iter().map(|text| text.as_str().to_owned()).collect()
}

/// Words the history entry.
fn history(name: &str, parents: bool, words: &Words) -> String {
    let mut parts = vec![name.to_owned()];
    parts.extend(parents.then(|| "--parents".to_owned()));
    parts.extend(words.chown.iter().map(|chown| format!("--chown={chown}")));
    parts.extend(words.chmod.iter().map(|chmod| format!("--chmod={chmod}")));
    parts.extend(words.sources.iter().map(|source| match source {
        CopySource::Path(text) | CopySource::Url(text) | CopySource::Git(text) => text.clone(),
        CopySource::Inline { name, .. } => format!("<<{name}"),
    }));
    parts.push(words.dest.clone());
    without_passwords(&parts.join(" ")).into_owned() + wording::SUFFIX
}
