//! Cuts a template into tokens, with Go's rules and words. Pure.

/// What a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Text(String),
    /// `{{`
    Left,
    /// `}}`
    Right,
    Space,
    /// A name of a function, or a word such as `if`.
    Word(String),
    /// `.Name`, without the dot.
    Field(String),
    Dot,
    /// `$name`, without the sign.
    Variable(String),
    /// A text in quotation marks, as written.
    Quoted(String),
    /// A character in single quotation marks, as written.
    Char(String),
    Number(String),
    /// `|`
    Pipe,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// Any other printable character.
    Other(char),
    /// Why the text cannot go on.
    Error(String),
    End,
}

/// A token and where it begins, in bytes.
#[derive(Debug, Clone)]
pub(super) struct At {
    pub(super) token: Token,
    pub(super) pos: usize,
}

/// Cuts all; the last token is [`Token::End`] or [`Token::Error`].
pub(super) fn tokens(text: &str) -> Vec<At> {
    let mut lexer = Lexer { text, pos: 0, out: Vec::new(), open: 0 };
    let end = match lexer.run() {
        Ok(()) => Token::End,
        Err(why) => Token::Error(why),
    };
    let pos = lexer.pos;
    lexer.out.push(At { token: end, pos });
    lexer.out
}

struct Lexer<'a> {
    text: &'a str,
    pos: usize,
    out: Vec<At>,
    /// Parentheses that are open.
    open: usize,
}

const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.pos..]
    }

    fn run(&mut self) -> Result<(), String> {
        let mut trim = false;
        while let Some(at) = self.rest().find("{{") {
            let rest = self.rest();
            let after = &rest[at + 2..];
            let trims_before = after.starts_with('-') && after[1..].starts_with(BLANK);
            let mut before = &rest[..at];
            let mut start = self.pos;
            if trim {
                start += before.len() - before.trim_start_matches(BLANK).len();
                before = before.trim_start_matches(BLANK);
            }
            if trims_before {
                before = before.trim_end_matches(BLANK);
            }
            if !before.is_empty() {
                self.out.push(At { token: Token::Text(before.to_owned()), pos: start });
            }
            self.pos += at;
            let left = self.pos;
            self.pos += 2 + if trims_before { 2 } else { 0 };
            trim = match self.rest().starts_with("/*") {
                true => self.comment()?,
                false => {
                    self.out.push(At { token: Token::Left, pos: left });
                    self.action()?
                }
            };
        }
        let rest = if trim { self.rest().trim_start_matches(BLANK) } else { self.rest() };
        if !rest.is_empty() {
            let pos = self.text.len() - rest.len();
            self.out.push(At { token: Token::Text(rest.to_owned()), pos });
        }
        self.pos = self.text.len();
        Ok(())
    }

    /// Skips a comment; says whether blanks after it go.
    fn comment(&mut self) -> Result<bool, String> {
        let end = self.rest().find("*/").ok_or("unclosed comment")?;
        self.pos += end + 2;
        match self.right() {
            Some(trim) => Ok(trim),
            None => Err("comment ends before closing delimiter".into()),
        }
    }

    /// Takes `}}` or ` -}}`, if it is there; says whether blanks after it go.
    fn right(&mut self) -> Option<bool> {
        let rest = self.rest();
        if rest.starts_with(BLANK) && rest[1..].starts_with("-}}") {
            self.pos += 4;
            return Some(true);
        }
        rest.starts_with("}}").then(|| self.pos += 2).map(|()| false)
    }

    fn push(&mut self, token: Token, length: usize) {
        self.out.push(At { token, pos: self.pos });
        self.pos += length;
    }

    /// Reads to the end of an action; says whether blanks after it go.
    fn action(&mut self) -> Result<bool, String> {
        self.open = 0;
        loop {
            let at = self.pos;
            if let Some(trim) = self.right() {
                if self.open > 0 {
                    return Err("unclosed left paren".into());
                }
                self.out.push(At { token: Token::Right, pos: at });
                return Ok(trim);
            }
            let rest = self.rest();
            let Some(c) = rest.chars().next() else { return Err("unclosed action".into()) };
            match c {
                c if BLANK.contains(&c) => self.blanks(),
                '|' => self.push(Token::Pipe, 1),
                '(' => {
                    self.open += 1;
                    self.push(Token::Open, 1);
                }
                ')' => {
                    self.open = self.open.checked_sub(1).ok_or("unexpected right paren")?;
                    self.push(Token::Close, 1);
                }
                '=' => self.push(Token::Assign, 1),
                ':' if rest.starts_with(":=") => self.push(Token::Declare, 2),
                ':' => return Err("expected :=".into()),
                '"' => self.quoted('"', "unterminated quoted string")?,
                '`' => {
                    let end = rest[1..].find('`').ok_or("unterminated raw quoted string")?;
                    self.push(Token::Quoted(rest[..end + 2].to_owned()), end + 2);
                }
                '\'' => self.quoted('\'', "unterminated character constant")?,
                '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.name(1)?,
                '$' => self.name(1)?,
                c if c == '.' || c == '+' || c == '-' || c.is_ascii_digit() => self.number()?,
                c if word(c) => self.name(0)?,
                c if c.is_ascii() && !c.is_ascii_control() => self.push(Token::Other(c), 1),
                c => return Err(format!("unrecognized character in action: {}", code(c))),
            }
        }
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        let mut length = rest.len() - rest.trim_start_matches(BLANK).len();
        // the blank before -}} is part of that
        if rest[length..].starts_with("-}}") {
            length -= 1;
        }
        if length > 0 {
            self.push(Token::Space, length);
        }
    }

    fn quoted(&mut self, mark: char, open: &str) -> Result<(), String> {
        let rest = self.rest();
        let mut escaped = false;
        for (at, c) in rest.char_indices().skip(1) {
            match c {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == mark => {
                    let text = rest[..=at].to_owned();
                    let token = if mark == '"' { Token::Quoted(text) } else { Token::Char(text) };
                    self.push(token, at + 1);
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(open.into())
    }

    /// Reads a word, or a field or variable whose sign is `sign` bytes long.
    fn name(&mut self, sign: usize) -> Result<(), String> {
        let rest = self.rest();
        let name: String = rest[sign..].chars().take_while(|c| word(*c)).collect();
        let length = sign + name.len();
        let token = match rest.as_bytes()[0] {
            b'.' if name.is_empty() => Token::Dot,
            b'.' => Token::Field(name),
            b'$' => Token::Variable(name),
            _ => Token::Word(name),
        };
        let next = rest[length..].chars().next();
        let ends = next.is_none_or(|c| BLANK.contains(&c) || matches!(c, '.' | ',' | '|' | ':' | ')' | '('));
        if token != Token::Dot && !ends && !rest[length..].starts_with("}}") && next != Some('=') {
            self.pos += length;
            return Err(format!("bad character {}", next.map(code).unwrap_or_default()));
        }
        self.push(token, length);
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        let rest = self.rest();
        let signed = usize::from(rest.starts_with(['+', '-']));
        let digit = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
        let mut length = signed;
        for c in rest[signed..].chars() {
            let exponent = matches!(c, '+' | '-')
                && rest[..length].ends_with(['e', 'E'])
                && !rest[signed..].starts_with("0x");
            if !digit(c) && !exponent {
                break;
            }
            length += 1;
        }
        let text = &rest[..length];
        if length == signed || super::parse::number(text).is_none() {
            let more: String = rest[length..].chars().take(usize::from(length == signed)).collect();
            return Err(format!("bad number syntax: {:?}", format!("{text}{more}")));
        }
        self.push(Token::Number(text.to_owned()), length);
        Ok(())
    }
}

fn word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Writes a character as Go's `%#U`.
fn code(c: char) -> String {
    format!("U+{:04X} '{c}'", u32::from(c))
}
