//! What can go wrong with a registry. URLs in it carry neither passwords nor the signatures of their queries.

use crate::digest::Digest;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A request to a registry that failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry answered with an error; its own code and words are kept.
    #[error("{url}: the registry answered {status}{}{}", said(.code), said(.message))]
    Status {
        /// Where.
        url: String,
        /// HTTP status.
        status: u16,
        /// For example `MANIFEST_UNKNOWN` (distribution-spec, "Error Codes").
        code: String,
        /// The registry's own words, cut and made harmless.
        message: String,
    },
    /// It wants to know who asks, or does not let this user do it.
    #[error("{registry} denies access to {what}{}", said(.why))]
    Denied {
        /// The registry.
        registry: String,
        /// Repository or service.
        what: String,
        /// In the registry's words.
        why: String,
    },
    /// It asks for fewer requests.
    #[error("{url}: too many requests; the registry asks to wait {}s{}", wait.as_secs(), said(.message))]
    Busy {
        /// Where.
        url: String,
        /// For how long.
        wait: Duration,
        /// In its words.
        message: String,
    },
    /// No connection, or one that breaks off.
    #[error("{url}: {why}")]
    Transport {
        /// Where.
        url: String,
        /// As the client says it.
        why: String,
    },
    /// Other bytes than were promised.
    #[error("{what} from {registry} is not what its descriptor says: {why}")]
    Lie {
        /// Which document or blob.
        what: String,
        /// From where.
        registry: String,
        /// How it differs.
        why: String,
    },
    /// More bytes than are accepted.
    #[error("{url}: the answer has more than the {limit} bytes that are accepted")]
    TooLarge {
        /// Where.
        url: String,
        /// In bytes.
        limit: u64,
    },
    /// An answer that breaks the protocol.
    #[error("{url}: {why}")]
    Protocol {
        /// Where.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The registry sends us where we do not go.
    #[error("{from}: sent on to {to}, which is refused: {why}")]
    Redirect {
        /// Where we asked.
        from: String,
        /// Where we should go.
        to: String,
        /// Why not.
        why: &'static str,
    },
    /// Credentials would go over the network in the clear.
    #[error("{url}: user names and passwords are sent over https only")]
    Clear {
        /// Where they would go.
        url: String,
    },
    /// A configuration file cannot be used.
    #[error("{}: {why}", path.display())]
    Config {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A credential helper failed.
    #[error("{program}: {why}")]
    Helper {
        /// Its name.
        program: String,
        /// What is wrong.
        why: String,
    },
    /// Only sha256 is known to the store.
    #[error("{0}: only sha256 digests are supported")]
    Algorithm(Digest),
    /// What was to be sent cannot be read, or what came cannot be kept.
    #[error("cannot {action}: {source}")]
    Local {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl RegistryError {
    /// Says whether the registry has no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { status: 404, .. })
    }

    /// Says whether other or any credentials could help.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }

    pub(super) fn config(path: &Path, why: impl ToString) -> Self {
        Self::Config { path: path.to_owned(), why: why.to_string() }
    }

    pub(super) fn protocol(url: &str, why: impl Into<String>) -> Self {
        Self::Protocol { url: redact(url), why: why.into() }
    }
}

fn said(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// Takes user, password, query and fragment out of a URL for messages: queries of redirects hold signatures.
pub(super) fn redact(url: &str) -> String {
    let bare = &url[..url.find(['?', '#']).unwrap_or(url.len())];
    let Some((scheme, rest)) = bare.split_once("://") else { return bare.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{}", &rest[end..]),
        None => bare.to_owned(),
    }
}

/// The longest text of a registry that is passed on, in characters.
const LONGEST: usize = 400;

/// Makes a text of a registry fit for a message: one line, no control characters, not long.
pub(super) fn harmless(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let clean: String = clean.take(LONGEST).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Reads code and message out of an error body (distribution-spec, "Error Codes"); else the beginning of its text.
pub(super) fn parse_body(body: &[u8]) -> (String, String) {
    let text = |value: &serde_json::Value| harmless(value.as_str().unwrap_or_default());
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) {
        if let Some(first) = value.get("errors").and_then(|e| e.get(0)) {
            let mut message = text(&first["message"]);
            match &first["detail"] {
                serde_json::Value::String(detail) if !detail.is_empty() => {
                    message = format!("{message} ({})", harmless(detail));
                }
                _ => {}
            }
            return (text(&first["code"]), message);
        }
        // token servers and Docker Hub have forms of their own
        for key in ["message", "details", "error_description", "error", "detail"] {
            if value[key].is_string() {
                return (String::new(), text(&value[key]));
            }
        }
        return Default::default();
    }
    let body = String::from_utf8_lossy(&body[..body.len().min(4 * LONGEST)]);
    // a page for people says nothing in its first line
    let page = body.trim_start().starts_with('<');
    (String::new(), if page { String::new() } else { harmless(&body) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_secrets() {
        for (url, want) in [
            ("https://u:p@h/v2/x?sig=abc", "https://h/v2/x"),
            ("https://h/v2/a/blobs/x", "https://h/v2/a/blobs/x"),
            ("https://h?token=1", "https://h"),
        ] {
            assert_eq!(redact(url), want);
        }
    }

    #[test]
    fn error_bodies_are_understood() {
        for (body, code, message) in [
            (r#"{"errors":[{"code":"DENIED","message":"no","detail":"quota"}]}"#, "DENIED", "no (quota)"),
            (r#"{"errors":[{"code":"X","message":"a\u001b[2Jb","detail":{"k":1}}]}"#, "X", "a [2Jb"),
            (r#"{"details":"incorrect username or password"}"#, "", "incorrect username or password"),
            ("plain\nwords", "", "plain words"),
            ("<html><body>502</body></html>", "", ""),
            ("{}", "", ""),
            ("", "", ""),
        ] {
            let got = parse_body(body.as_bytes());
            assert_eq!((got.0.as_str(), got.1.as_str()), (code, message), "{body}");
        }
        assert!(parse_body(&[b'x'; 100_000]).1.len() <= LONGEST);
    }
}
