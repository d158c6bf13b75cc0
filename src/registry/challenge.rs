//! What a `WWW-Authenticate` header asks for. Pure.
//!
//! The grammar is that of RFC 9110, 11.3: one header may hold several challenges, a challenge is a scheme and either one
//! token68 or parameters separated by commas, and a value is a token or a quoted string. The comma that separates
//! parameters also separates challenges, so what follows one is a parameter only if `name =` comes.

/// One way in which the registry wants to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// In lower case, `bearer`.
    pub scheme: String,
    /// In the order in which they stand, names in lower case.
    params: Vec<(String, String)>,
}

impl Challenge {
    /// Gives a parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Reads all challenges of one header; what cannot be read ends it.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut text = Text { rest: header };
    let mut found = Vec::new();
    loop {
        text.skip_separators();
        let Some(scheme) = text.token() else { return found };
        let mut challenge = Challenge { scheme: scheme.to_ascii_lowercase(), params: Vec::new() };
        if text.space() && !text.token68() {
            while let Some((name, value)) = text.param() {
                challenge.params.push((name.to_ascii_lowercase(), value));
            }
        }
        found.push(challenge);
        if !text.rest.is_empty() && !text.rest.trim_start_matches([' ', '\t']).starts_with(',') {
            return found;
        }
    }
}

struct Text<'a> {
    rest: &'a str,
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl<'a> Text<'a> {
    fn skip_separators(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', ',']);
    }

    fn space(&mut self) -> bool {
        let before = self.rest.len();
        self.rest = self.rest.trim_start_matches([' ', '\t']);
        self.rest.len() < before
    }

    fn token(&mut self) -> Option<&'a str> {
        let end = self.rest.bytes().position(|b| !is_token(b)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!token.is_empty()).then_some(token)
    }

    /// Passes over a token68: it must be followed by a comma or the end, else it is the name of a parameter.
    fn token68(&mut self) -> bool {
        let word = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
        let body = self.rest.bytes().position(|b| !word(b)).unwrap_or(self.rest.len());
        let after = self.rest[body..].trim_start_matches('=');
        let tail = after.trim_start_matches([' ', '\t']);
        let found = body > 0 && (tail.is_empty() || tail.starts_with(','));
        if found {
            self.rest = tail;
        }
        found
    }

    /// Reads `name = value`; leaves the text as it is when something else comes.
    fn param(&mut self) -> Option<(&'a str, String)> {
        let mut ahead = Text { rest: self.rest };
        ahead.skip_separators();
        let name = ahead.token()?;
        ahead.space();
        ahead.rest = ahead.rest.strip_prefix('=')?;
        ahead.space();
        let value = match ahead.rest.strip_prefix('"') {
            Some(quoted) => {
                ahead.rest = quoted;
                ahead.quoted()?
            }
            None => ahead.token().unwrap_or_default().to_owned(),
        };
        self.rest = ahead.rest;
        Some((name, value))
    }

    fn quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Some(value);
                }
                '\\' => value.push(chars.next()?.1),
                c => value.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(header: &str) -> String {
        let one = |c: &Challenge| {
            let params: Vec<String> = c.params.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("{}({})", c.scheme, params.join(";"))
        };
        parse(header).iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn challenges_are_read() {
        for (header, want) in [
            (
                r#"Bearer realm="https://a/t",service="r",scope="repository:x:pull,push""#,
                "bearer(realm=https://a/t;service=r;scope=repository:x:pull,push)",
            ),
            (r#"Basic realm="a \"b\", c""#, r#"basic(realm=a "b", c)"#),
            (
                r#"Negotiate, Basic realm=x, Bearer realm = "y" , service=z"#,
                "negotiate() basic(realm=x) bearer(realm=y;service=z)",
            ),
            ("Negotiate YWJj==, Basic realm=x", "negotiate() basic(realm=x)"),
            (
                r#"NEWAUTH realm="apps", type=1, title="Log", Basic REALM="s""#,
                "newauth(realm=apps;type=1;title=Log) basic(realm=s)",
            ),
            ("Basic", "basic()"),
            (", ,Basic realm=", "basic()"),
            (r#"Bearer realm="open"#, "bearer()"),
            ("", ""),
            ("=;", ""),
        ] {
            assert_eq!(show(header), want, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_text_ends(header in "[a-zA-Z =,\"\\\\]{0,60}|\\PC{0,60}") {
            let _ = parse(&header);
        }
    }
}
