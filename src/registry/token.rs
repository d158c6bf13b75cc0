//! Bearer tokens: where they come from, and for what they are good.
//!
//! The exchange is Docker's token specification (distribution, "Token Authentication" and "OAuth2 Token
//! Authentication"): a user with a password, or nobody, asks with GET; an identity token is exchanged with POST. A token
//! is kept in memory for its scope until shortly before it ends; the registry's 401 ends it earlier.

use super::challenge::Challenge;
use super::credential::Credential;
use super::endpoint;
use super::error::{RegistryError, harmless, parse_body, redact};
use super::settings::{Settings, is_loopback};
use super::url::encode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Most bytes of a token server's answer.
const MAX_ANSWER: u64 = 1 << 20;
/// How long a token is good when its server does not say; the specification's words.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// So long before its end a token is not used any more.
const MARGIN: Duration = Duration::from_secs(10);

/// What may be done where, as token servers write it: `repository:NAME:pull,push`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Scope(pub(super) Vec<String>);

impl Scope {
    pub(super) fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    pub(super) fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    /// To push to one and read from another, for mounting.
    pub(super) fn mount(repository: &str, from: &str) -> Self {
        Self([Self::push(repository).0, Self::pull(from).0].concat())
    }

    /// For nothing but saying who we are.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// To list all repositories.
    pub(super) fn catalog() -> Self {
        Self(vec!["registry:catalog:*".to_owned()])
    }
}

/// A token and its end.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) value: String,
    pub(super) until: Instant,
}

/// Asks a token server.
pub(super) fn fetch(
    settings: &Settings,
    agent: &ureq::Agent,
    registry_url: &str,
    challenge: &Challenge,
    scope: &Scope,
    credential: Option<&Credential>,
) -> Result<Token, RegistryError> {
    let realm = challenge.param("realm").unwrap_or_default();
    check_realm(settings, registry_url, realm, credential.is_some())?;
    let service = challenge.param("service").unwrap_or_default();
    let mut scopes = scope.0.clone();
    // for what we have no words a registry may have some
    if scopes.is_empty() {
        scopes.extend(challenge.param("scope").unwrap_or_default().split_whitespace().map(str::to_owned));
    }
    let pairs = |also: &[(&str, &str)]| {
        let mut all: Vec<String> = also.iter().map(|(k, v)| format!("{k}={}", encode(v))).collect();
        if !service.is_empty() {
            all.push(format!("service={}", encode(service)));
        }
        all
    };
    let answer = match credential {
        Some(Credential::Identity(token)) => {
            let mut form =
                pairs(&[("grant_type", "refresh_token"), ("client_id", "rbuild"), ("refresh_token", token)]);
            form.push(format!("scope={}", encode(&scopes.join(" "))));
            let call = agent.post(realm).header("content-type", "application/x-www-form-urlencoded");
            call.send(form.join("&").as_bytes())
        }
        other => {
            let mut query = match other {
                Some(Credential::Password { user, .. }) => {
                    pairs(&[("account", user.as_str()), ("client_id", "rbuild")])
                }
                _ => pairs(&[]),
            };
            query.extend(scopes.iter().map(|s| format!("scope={}", encode(s))));
            let join = if realm.contains('?') { '&' } else { '?' };
            let mut call = agent.get(format!("{realm}{join}{}", query.join("&")));
            if let Some(Credential::Password { user, password }) = other {
                call = call.header("authorization", basic(user, password));
            }
            call.call()
        }
    };
    let mut answer = answer.map_err(|e| endpoint::transport(realm, &e))?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
    let body = body.map_err(|_| RegistryError::TooLarge { url: redact(realm), limit: MAX_ANSWER })?;
    match status {
        200..=299 => {
            read(&body).ok_or_else(|| RegistryError::protocol(realm, "the token server sent no token"))
        }
        400 | 401 | 403 => Err(denied(realm, scope, &body)),
        _ => {
            let (code, message) = parse_body(&body);
            Err(RegistryError::Status { url: redact(realm), status, code, message })
        }
    }
}

/// Makes the value of an `Authorization` header.
pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn denied(realm: &str, scope: &Scope, body: &[u8]) -> RegistryError {
    let what = match scope.0.first() {
        Some(scope) => scope.split(':').nth(1).unwrap_or(scope).to_owned(),
        None => "its service".to_owned(),
    };
    RegistryError::Denied { registry: endpoint::host_in(realm).to_owned(), what, why: parse_body(body).1 }
}

/// A token server is as trusted as the registry that names it: nothing goes from https to http.
fn check_realm(settings: &Settings, registry: &str, realm: &str, secret: bool) -> Result<(), RegistryError> {
    let host = endpoint::host_in(realm);
    if realm.starts_with("https://") && !host.is_empty() {
        return Ok(());
    }
    if !realm.starts_with("http://") || host.is_empty() {
        let why = format!("its token server {:?} is no address", harmless(realm));
        return Err(RegistryError::protocol(registry, why));
    }
    if registry.starts_with("https://") {
        let why = "a registry with https names a token server without";
        return Err(RegistryError::Redirect { from: redact(registry), to: redact(realm), why });
    }
    if secret && !is_loopback(host) && !settings.is_insecure(host) {
        return Err(RegistryError::Clear { url: redact(realm) });
    }
    Ok(())
}

fn read(body: &[u8]) -> Option<Token> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let text = |key: &str| value[key].as_str().filter(|t| !t.is_empty());
    let token = text("token").or_else(|| text("access_token"))?;
    // it becomes a header
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let life = value["expires_in"].as_u64().filter(|s| *s > 0).map_or(DEFAULT_LIFE, Duration::from_secs);
    let life = life.min(Duration::from_secs(24 * 3600)).saturating_sub(MARGIN).max(Duration::from_secs(1));
    Some(Token { value: token.to_owned(), until: Instant::now() + life })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        assert_eq!(read(br#"{"token":"a","expires_in":300}"#).unwrap().value, "a");
        assert_eq!(read(br#"{"access_token":"b"}"#).unwrap().value, "b");
        for bad in [&b"{}"[..], b"{\"token\":\"\"}", b"{\"token\":\"a\\r\\nx: y\"}", b"nonsense"] {
            assert!(read(bad).is_none());
        }
    }

    #[test]
    fn secrets_stay_on_safe_ways() {
        let settings = Settings::default();
        let check = |registry, realm, secret| check_realm(&settings, registry, realm, secret);
        assert!(check("https://r.io", "https://auth.io/token", true).is_ok());
        assert!(check("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", true).is_ok());
        assert!(check("http://r.io", "http://auth.io/token", false).is_ok());
        assert!(matches!(check("http://r.io", "http://auth.io/t", true), Err(RegistryError::Clear { .. })));
        assert!(matches!(
            check("https://r.io", "http://127.0.0.1/t", true),
            Err(RegistryError::Redirect { .. })
        ));
        for realm in ["", "file:///etc/passwd", "auth.io/token", "http://"] {
            assert!(
                matches!(check("https://r.io", realm, true), Err(RegistryError::Protocol { .. })),
                "{realm}"
            );
        }
    }
}
