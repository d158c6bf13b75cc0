//! Tokens of a template to its tree, with Go's rules and words. Pure.

use super::lex::{At, Token, tokens};
use super::value::Val;
use std::collections::{BTreeSet, HashMap};

/// A template.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    /// What `define` and `block` made.
    pub(super) named: HashMap<String, Vec<Node>>,
    /// The fields that are asked for; an empty one when the whole is.
    pub(super) fields: BTreeSet<String>,
    /// For the places in errors.
    pub(super) text: String,
}

/// A piece of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipe),
    If(Pipe, Vec<Node>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
    Range(Pipe, Vec<Node>, Vec<Node>),
    Break,
    Continue,
    /// Name, place, argument.
    Call(String, usize, Option<Pipe>),
}

/// Commands, each of which gets the value of the one before as its last argument.
#[derive(Debug)]
pub(super) struct Pipe {
    /// The variables that get the value.
    pub(super) names: Vec<String>,
    /// They are there already.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Command>,
}

/// A function or a value, and arguments.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) words: Vec<Word>,
}

/// A value, its place and its text, for errors.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) what: What,
    pub(super) pos: usize,
    pub(super) text: String,
}

/// What a word says.
#[derive(Debug)]
pub(super) enum What {
    Literal(Val),
    Nil,
    Dot,
    Function(String),
    /// Fields from the dot down.
    Field(Vec<String>),
    /// A variable, and fields from there.
    Variable(String, Vec<String>),
    /// Parentheses, and fields of what is in them.
    Group(Box<Pipe>, Vec<String>),
}

impl Command {
    pub(super) fn text(&self) -> String {
        self.words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
    }
}

impl Pipe {
    fn text(&self) -> String {
        let sign = if self.assigns { "=" } else { ":=" };
        let names: Vec<String> = self.names.iter().map(|name| format!("${name}")).collect();
        let commands: Vec<String> = self.commands.iter().map(Command::text).collect();
        let before = if names.is_empty() { String::new() } else { format!("{} {sign} ", names.join(", ")) };
        before + &commands.join(" | ")
    }
}

/// Reads a template.
pub(super) fn tree(text: &str) -> Result<Tree, String> {
    let tree = Tree { text: text.to_owned(), ..Tree::default() };
    let mut parser = Parser { tokens: tokens(text), at: 0, variables: vec![String::new()], ranges: 0, tree };
    let nodes = parser.top()?;
    parser.tree.nodes = nodes;
    Ok(parser.tree)
}

/// Reads a number as Go writes them.
pub(super) fn number(text: &str) -> Option<Val> {
    let clean = text.replace('_', "");
    let (sign, digits) = match clean.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, clean.strip_prefix('+').unwrap_or(&clean)),
    };
    let lower = digits.to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0b", 2), ("0o", 8)] {
        if let Some(rest) = lower.strip_prefix(prefix) {
            return i128::from_str_radix(rest, radix).ok().map(|n| Val::Int(sign * n));
        }
    }
    if !lower.is_empty() && lower.bytes().all(|b| b.is_ascii_digit()) {
        let radix = if lower.len() > 1 && lower.starts_with('0') { 8 } else { 10 };
        return i128::from_str_radix(&lower, radix).ok().map(|n| Val::Int(sign * n));
    }
    let valid = lower.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'+' | b'-'));
    let float: f64 = valid.then(|| clean.parse().ok()).flatten()?;
    // Go takes 1e3 for a whole number
    let whole = float.fract() == 0.0 && float.abs() < 1e15 && !lower.contains('.');
    Some(if whole { Val::Int(float as i128) } else { Val::Float(float) })
}

struct Parser {
    tokens: Vec<At>,
    at: usize,
    variables: Vec<String>,
    /// How many `range` are around.
    ranges: usize,
    tree: Tree,
}

/// How a list of nodes ended.
#[derive(PartialEq, Eq)]
enum Ending {
    End,
    Else,
    Eof,
}

impl Parser {
    fn line(&self) -> usize {
        let pos = self.tokens[self.at.min(self.tokens.len() - 1)].pos;
        1 + self.tree.text[..pos].matches('\n').count()
    }

    fn fail<T>(&self, what: impl std::fmt::Display) -> Result<T, String> {
        Err(format!(":{}: {what}", self.line()))
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)].token
    }

    fn next(&mut self) -> At {
        let at = self.tokens[self.at.min(self.tokens.len() - 1)].clone();
        self.at += 1;
        at
    }

    fn skip(&mut self) {
        while *self.peek() == Token::Space {
            self.at += 1;
        }
    }

    fn pos(&self) -> usize {
        self.tokens[self.at.min(self.tokens.len() - 1)].pos
    }

    fn unexpected<T>(&self, token: &Token, context: &str) -> Result<T, String> {
        let word = match token {
            Token::Error(why) => return self.fail(why),
            Token::End => "EOF".to_owned(),
            Token::Word(word) if KEYWORDS.contains(&word.as_str()) => format!("<{word}>"),
            other => quote(&written(other)),
        };
        self.fail(format!("unexpected {word} in {context}"))
    }

    fn top(&mut self) -> Result<Vec<Node>, String> {
        match self.list()? {
            (nodes, Ending::Eof) => Ok(nodes),
            (_, Ending::End) => self.fail("unexpected {{end}}"),
            (_, Ending::Else) => self.fail("unexpected {{else}}"),
        }
    }

    /// Reads to an `end`, an `else` (the word itself is taken) or the end of the text.
    fn list(&mut self) -> Result<(Vec<Node>, Ending), String> {
        let mut nodes = Vec::new();
        loop {
            let next = self.next();
            match next.token {
                Token::Text(text) => nodes.push(Node::Text(text)),
                Token::End => return Ok((nodes, Ending::Eof)),
                Token::Left => {
                    self.skip();
                    let word = match self.peek() {
                        Token::Word(word) => word.clone(),
                        _ => String::new(),
                    };
                    if word == "end" || word == "else" {
                        self.at += 1;
                        if word == "else" {
                            return Ok((nodes, Ending::Else));
                        }
                        self.right("end")?;
                        return Ok((nodes, Ending::End));
                    }
                    nodes.extend(self.action(&word)?);
                }
                token => return self.unexpected(&token, "input"),
            }
        }
    }

    fn right(&mut self, context: &str) -> Result<(), String> {
        self.skip();
        let next = self.next();
        if next.token == Token::Right { Ok(()) } else { self.unexpected(&next.token, context) }
    }

    fn action(&mut self, word: &str) -> Result<Option<Node>, String> {
        match word {
            "if" | "with" | "range" => {
                self.at += 1;
                self.control(word).map(Some)
            }
            "break" | "continue" => {
                self.at += 1;
                self.right(&format!("{{{{{word}}}}}"))?;
                if self.ranges == 0 {
                    return self.fail(format!("{{{{{word}}}}} outside {{{{range}}}}"));
                }
                Ok(Some(if word == "break" { Node::Break } else { Node::Continue }))
            }
            "define" => {
                self.at += 1;
                let name = self.name("define clause")?;
                self.right("define clause")?;
                self.body(name, "define clause")?;
                Ok(None)
            }
            "block" | "template" => {
                self.at += 1;
                self.skip();
                let pos = self.pos();
                let context = format!("{word} clause");
                let name = self.name(&context)?;
                self.skip();
                let pipe = match self.peek() {
                    Token::Right if word == "template" => {
                        self.at += 1;
                        None
                    }
                    _ => Some(self.pipe(&context, &Token::Right)?),
                };
                if word == "block" {
                    self.body(name.clone(), "block clause")?;
                }
                Ok(Some(Node::Call(name, pos, pipe)))
            }
            _ => self.pipe("command", &Token::Right).map(|pipe| Some(Node::Print(pipe))),
        }
    }

    fn name(&mut self, context: &str) -> Result<String, String> {
        self.skip();
        let next = self.next();
        match &next.token {
            Token::Quoted(text) => Ok(unquote(text).unwrap_or_default()),
            other => self.unexpected(other, context),
        }
    }

    /// Reads what belongs to a name, to its `end`.
    fn body(&mut self, name: String, context: &str) -> Result<(), String> {
        let variables = std::mem::replace(&mut self.variables, vec![String::new()]);
        let ranges = std::mem::take(&mut self.ranges);
        let (nodes, ending) = self.list()?;
        (self.variables, self.ranges) = (variables, ranges);
        match ending {
            Ending::End => {
                self.tree.named.insert(name, nodes);
                Ok(())
            }
            Ending::Else => self.fail(format!("unexpected {{{{else}}}} in {context}")),
            Ending::Eof => self.fail(format!("unexpected EOF in {context}")),
        }
    }

    fn control(&mut self, word: &str) -> Result<Node, String> {
        let known = self.variables.len();
        let pipe = self.pipe(word, &Token::Right)?;
        self.ranges += usize::from(word == "range");
        let (yes, ending) = self.list()?;
        self.ranges -= usize::from(word == "range");
        let mut no = Vec::new();
        match ending {
            Ending::End => {}
            Ending::Eof => return self.fail("unexpected EOF"),
            Ending::Else => {
                self.skip();
                match self.peek().clone() {
                    Token::Word(next) if next == word && word != "range" => {
                        self.at += 1;
                        no.push(self.control(word)?);
                    }
                    _ => {
                        self.right("else")?;
                        let (nodes, ending) = self.list()?;
                        match ending {
                            Ending::End => no = nodes,
                            Ending::Else => return self.fail("expected end; found {{else}}"),
                            Ending::Eof => return self.fail("unexpected EOF"),
                        }
                    }
                }
            }
        }
        self.variables.truncate(known);
        Ok(match word {
            "if" => Node::If(pipe, yes, no),
            "with" => Node::With(pipe, yes, no),
            _ => Node::Range(pipe, yes, no),
        })
    }

    /// Reads `$x :=`, `$x =` or `$k, $v :=`, if that is there.
    fn declaration(&mut self, context: &str) -> Result<(Vec<String>, bool), String> {
        let (start, mut names) = (self.at, Vec::new());
        loop {
            self.skip();
            let Token::Variable(name) = self.peek().clone() else { break };
            self.at += 1;
            self.skip();
            match self.peek() {
                Token::Declare => {
                    self.at += 1;
                    names.push(name);
                    self.variables.extend(names.iter().cloned());
                    return Ok((names, false));
                }
                Token::Assign => {
                    self.at += 1;
                    names.push(name);
                    for name in &names {
                        self.known(name)?;
                    }
                    return Ok((names, true));
                }
                Token::Other(',') => {
                    self.at += 1;
                    names.push(name);
                    if context != "range" || names.len() > 1 {
                        return self.fail(format!("too many declarations in {context}"));
                    }
                }
                _ => break,
            }
        }
        if !names.is_empty() {
            return self.fail("range can only initialize variables");
        }
        self.at = start;
        Ok((names, false))
    }

    fn known(&self, name: &str) -> Result<(), String> {
        if self.variables.iter().any(|known| known == name) {
            Ok(())
        } else {
            self.fail(format!("undefined variable \"${name}\""))
        }
    }

    fn pipe(&mut self, context: &str, end: &Token) -> Result<Pipe, String> {
        let before = self.variables.len();
        let (names, assigns) = self.declaration(context)?;
        // what is declared here is not known to its own value
        let fresh = self.variables.split_off(if assigns { self.variables.len() } else { before });
        let mut commands = Vec::new();
        loop {
            self.skip();
            let token = self.peek().clone();
            if token == *end {
                self.at += 1;
                break;
            }
            if !begins(&token) {
                self.at += 1;
                return self.unexpected(&token, context);
            }
            commands.push(self.command()?);
        }
        self.variables.extend(fresh);
        if commands.is_empty() {
            return self.fail(format!("missing value for {context}"));
        }
        for (at, command) in commands.iter().enumerate().skip(1) {
            if matches!(command.words[0].what, What::Literal(_) | What::Nil | What::Dot) {
                return self.fail(format!("non executable command in pipeline stage {}", at + 1));
            }
        }
        Ok(Pipe { names, assigns, commands })
    }

    fn command(&mut self) -> Result<Command, String> {
        let mut words = Vec::new();
        loop {
            self.skip();
            if let Some(word) = self.word()? {
                words.push(word);
            }
            match self.peek().clone() {
                Token::Space => continue,
                Token::Right | Token::Close => break,
                Token::Pipe => {
                    self.at += 1;
                    break;
                }
                token => {
                    self.at += 1;
                    return self.unexpected(&token, "operand");
                }
            }
        }
        if words.is_empty() { self.fail("empty command") } else { Ok(Command { words }) }
    }

    fn word(&mut self) -> Result<Option<Word>, String> {
        let At { token, mut pos } = self.tokens[self.at.min(self.tokens.len() - 1)].clone();
        if !begins(&token) {
            return Ok(None);
        }
        self.at += 1;
        let mut text = written(&token);
        let mut what = match token {
            Token::Word(word) => match word.as_str() {
                "true" | "false" => What::Literal(Val::Bool(word == "true")),
                "nil" => What::Nil,
                name if super::functions::known(name) => What::Function(name.to_owned()),
                name => return self.fail(format!("function {name:?} not defined")),
            },
            Token::Dot => {
                self.tree.fields.insert(String::new());
                What::Dot
            }
            Token::Field(name) => {
                self.tree.fields.insert(name.clone());
                What::Field(vec![name])
            }
            Token::Variable(name) => {
                self.known(&name)?;
                What::Variable(name, Vec::new())
            }
            Token::Number(number_) => What::Literal(number(&number_).unwrap_or(Val::Nil)),
            Token::Quoted(quoted) => match unquote(&quoted) {
                Some(text) => What::Literal(Val::Str(text)),
                None => return self.fail("invalid syntax"),
            },
            Token::Char(quoted) => match unquote(&format!("\"{}\"", &quoted[1..quoted.len() - 1])) {
                Some(text) if text.chars().count() == 1 => {
                    What::Literal(Val::Int(text.chars().next().map_or(0, |c| i128::from(u32::from(c)))))
                }
                _ => return self.fail(format!("malformed character constant: {quoted}")),
            },
            _ => {
                let pipe = self.pipe("parenthesized pipeline", &Token::Close)?;
                text = format!("({})", pipe.text());
                What::Group(Box::new(pipe), Vec::new())
            }
        };
        while let Token::Field(name) = self.peek().clone() {
            pos = if matches!(what, What::Field(_) | What::Variable(..)) && !text[1..].contains('.') {
                self.pos()
            } else {
                pos
            };
            text.push('.');
            text.push_str(&name);
            match &mut what {
                What::Field(path) | What::Variable(_, path) | What::Group(_, path) => path.push(name.clone()),
                _ => {
                    return self
                        .fail(format!("unexpected . after term {:?}", &text[..text.len() - name.len() - 1]));
                }
            }
            self.tree.fields.insert(name);
            self.at += 1;
        }
        Ok(Some(Word { what, pos, text }))
    }
}

const KEYWORDS: [&str; 11] =
    ["block", "break", "continue", "define", "else", "end", "if", "nil", "range", "template", "with"];

/// Says whether a value can begin with it.
fn begins(token: &Token) -> bool {
    match token {
        Token::Word(word) => word == "nil" || !KEYWORDS.contains(&word.as_str()),
        Token::Dot
        | Token::Field(_)
        | Token::Variable(_)
        | Token::Number(_)
        | Token::Quoted(_)
        | Token::Char(_)
        | Token::Open => true,
        _ => false,
    }
}

fn written(token: &Token) -> String {
    match token {
        Token::Text(text)
        | Token::Word(text)
        | Token::Quoted(text)
        | Token::Char(text)
        | Token::Number(text) => text.clone(),
        Token::Field(name) => format!(".{name}"),
        Token::Variable(name) => format!("${name}"),
        Token::Left => "{{".into(),
        Token::Right => "}}".into(),
        Token::Space => " ".into(),
        Token::Dot => ".".into(),
        Token::Pipe => "|".into(),
        Token::Open => "(".into(),
        Token::Close => ")".into(),
        Token::Declare => ":=".into(),
        Token::Assign => "=".into(),
        Token::Other(c) => c.to_string(),
        Token::Error(why) => why.clone(),
        Token::End => "EOF".into(),
    }
}

/// Quotes a token for an error, cut at ten characters.
fn quote(text: &str) -> String {
    match text.chars().count() > 10 {
        true => format!("{:?}...", text.chars().take(10).collect::<String>()),
        false => format!("{text:?}"),
    }
}

/// Reads a text in quotation marks.
fn unquote(text: &str) -> Option<String> {
    let inside = text.get(1..text.len().checked_sub(1)?)?;
    if text.starts_with('`') {
        return Some(inside.replace('\r', ""));
    }
    let mut out = String::new();
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let (length, radix, first) = match chars.next()? {
            'x' => (2, 16, None),
            'u' => (4, 16, None),
            'U' => (8, 16, None),
            digit @ '0'..='7' => (2, 8, Some(digit)),
            other => {
                out.push(escape(other)?);
                continue;
            }
        };
        let digits: String = first.into_iter().chain(chars.by_ref().take(length)).collect();
        out.push(u32::from_str_radix(&digits, radix).ok().and_then(char::from_u32)?);
    }
    Some(out)
}

fn escape(c: char) -> Option<char> {
    Some(match c {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'v' => '\x0b',
        '\\' | '"' | '\'' => c,
        _ => return None,
    })
}
