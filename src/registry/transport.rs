//! One request to a registry, with all that can stand between question and answer: credentials, redirects, a busy
//! or broken server.
//!
//! A request is made again after a lost connection, after 408, 429 and 5xx, a bounded number of times with growing
//! pauses; `Retry-After` counts unless it asks for more than anybody would wait. Redirects are followed by hand, since
//! the name and password for a registry are for its scheme, host and port alone: what leads elsewhere goes without,
//! and never comes back to them.

use super::challenge::{self, Challenge};
use super::credential::Credential;
use super::endpoint;
use super::error::{RegistryError, parse_body, redact};
use super::settings::{Settings, is_loopback};
use super::token::{self, Scope, Token, basic};
use super::url::{join, origin};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::{Request, Response, header};
use ureq::{Agent, Body, SendBody};

/// Redirects that are followed, one after the other.
const MAX_REDIRECTS: usize = 5;
/// Most bytes of an error that are read.
const MAX_ERROR: u64 = 64 << 10;
/// A registry that asks to wait longer than this is not waited for.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Times that credentials are asked for anew in one request.
const MAX_CHALLENGES: u32 = 2;

/// Opens what is to be sent, from its beginning.
pub(super) type Open<'a> = &'a (dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync);

/// What is sent along.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// So many bytes of a stream.
    Stream(Open<'a>, u64),
}

/// One request.
pub(super) struct Call<'a> {
    pub(super) method: &'static str,
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) payload: Payload<'a>,
    pub(super) scope: &'a Scope,
    /// Whose credentials are used.
    pub(super) repository: &'a str,
}

/// A host that answers for a registry.
pub(super) struct Endpoint {
    /// Name for messages and credentials.
    pub(super) registry: String,
    /// `https://host[:port]`.
    pub(super) base: String,
    pub(super) agent: Agent,
    auth: Mutex<Auth>,
}

#[derive(Default)]
struct Auth {
    challenge: Option<Challenge>,
    tokens: HashMap<Scope, Token>,
    credential: HashMap<String, Option<Credential>>,
}

impl Endpoint {
    pub(super) fn new(registry: &str, base: String, agent: Agent) -> Self {
        Self { registry: registry.to_owned(), base, agent, auth: Mutex::default() }
    }
}

/// What all requests share.
pub(super) struct Transport {
    pub(super) settings: Settings,
    /// Given on the command line of `login`; wins over all files.
    pub(super) own: Option<Credential>,
    /// Clients of other hosts: token servers, stores behind redirects.
    agents: Mutex<HashMap<String, Agent>>,
    jitter: OnceLock<u64>,
}

impl Transport {
    pub(super) fn new(settings: Settings, own: Option<Credential>) -> Self {
        Self { settings, own, agents: Mutex::default(), jitter: OnceLock::new() }
    }

    /// Makes a request until it is answered with 2xx.
    ///
    /// # Errors
    /// Any other answer, and no answer after all attempts.
    pub(super) fn send(&self, at: &Endpoint, call: &Call<'_>) -> Result<Response<Body>, RegistryError> {
        let (mut attempt, mut challenges) = (0, 0);
        loop {
            attempt += 1;
            let outcome = self.attempt(at, call, &mut challenges);
            let Err(failure) = outcome else { return outcome.map_err(|f| f.error) };
            match failure.again {
                Again::Never => return Err(failure.error),
                // not an attempt of its own: nothing was wrong but our name
                Again::WithName => attempt -= 1,
                Again::After(wait) => {
                    if attempt >= self.settings.attempts || wait.is_some_and(|w| w > MAX_WAIT) {
                        return Err(failure.error);
                    }
                    self.pause(attempt, wait);
                }
            }
        }
    }

    /// Makes a request whose repetition needs more than the same request, once (and with credentials once more).
    pub(super) fn send_once(&self, at: &Endpoint, call: &Call<'_>) -> Result<Response<Body>, RegistryError> {
        let mut challenges = 0;
        loop {
            match self.attempt(at, call, &mut challenges) {
                Err(Failure { again: Again::WithName, .. }) => {}
                outcome => return outcome.map_err(|f| f.error),
            }
        }
    }

    /// Waits before another attempt; the first one is number 1.
    pub(super) fn pause(&self, attempt: u32, asked: Option<Duration>) {
        let jitter = *self.jitter.get_or_init(|| {
            let mut random = [0u8; 8];
            // without it many clients knock together, nothing worse
            let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
            u64::from_le_bytes(random)
        });
        let base = self.settings.pause * 2u32.saturating_pow(attempt.saturating_sub(1).min(6));
        let spread = base.mul_f64((jitter % 256) as f64 / 1024.0);
        std::thread::sleep(asked.unwrap_or(base).max(base.min(MAX_WAIT)) + spread);
    }

    fn attempt(
        &self,
        at: &Endpoint,
        call: &Call<'_>,
        challenges: &mut u32,
    ) -> Result<Response<Body>, Failure> {
        let name = self.authorization(at, call).map_err(Failure::never)?;
        let mut home = true;
        let mut url = call.url.clone();
        let mut agent = at.agent.clone();
        for _ in 0..=MAX_REDIRECTS {
            let shown = name.as_ref().map(|n| n.value.as_str()).filter(|_| home);
            let answer = self.once(&agent, call, &url, shown)?;
            let status = answer.status().as_u16();
            match status {
                200..=299 => return Ok(answer),
                301 | 302 | 303 | 307 | 308 if matches!(call.payload, Payload::Nothing) => {
                    let next = self.redirect(&url, &answer).map_err(Failure::never)?;
                    home = home && origin(&next) == origin(&at.base);
                    if !home {
                        agent = self.agent(endpoint::host_in(&next)).map_err(Failure::never)?;
                    }
                    url = next;
                }
                401 if home => return Err(self.challenged(at, call, name, answer, challenges)),
                _ => return Err(self.refused(at, call, &url, home, answer)),
            }
        }
        let why = "it is the sixth redirect in a row";
        let error = RegistryError::Redirect { from: redact(&call.url), to: redact(&url), why };
        Err(Failure::never(error))
    }

    /// One exchange over the network.
    fn once(
        &self,
        agent: &Agent,
        call: &Call<'_>,
        url: &str,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder().method(call.method).uri(url);
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let bad = |e: ureq::http::Error| Failure::never(RegistryError::protocol(url, e.to_string()));
        let local =
            |source| Failure::never(RegistryError::Local { action: "read what is to be sent", source });
        let broken: RefCell<Option<io::Error>> = RefCell::new(None);
        let answer = match call.payload {
            Payload::Nothing => agent.run(request.body(SendBody::none()).map_err(bad)?),
            Payload::Bytes(bytes) => {
                let mut bytes = bytes;
                let size = bytes.len();
                let request = request.header(header::CONTENT_LENGTH, size);
                agent.run(request.body(SendBody::from_reader(&mut bytes)).map_err(bad)?)
            }
            Payload::Stream(open, size) => {
                let inner = open().map_err(local)?;
                let mut feed = Feed { inner: inner.take(size), broken: &broken };
                let request = request.header(header::CONTENT_LENGTH, size);
                agent.run(request.body(SendBody::from_reader(&mut feed)).map_err(bad)?)
            }
        };
        if let Some(source) = broken.into_inner() {
            return Err(local(source));
        }
        answer.map_err(|e| {
            let again = match &e {
                ureq::Error::BadUri(_) => Again::Never,
                e if endpoint::tls_error(e).is_some_and(endpoint::is_certificate) => Again::Never,
                e if endpoint::is_unknown_host(e) => Again::Never,
                _ => Again::After(None),
            };
            Failure { error: endpoint::transport(url, &e), again }
        })
    }

    fn redirect(&self, from: &str, answer: &Response<Body>) -> Result<String, RegistryError> {
        let location =
            answer.headers().get(header::LOCATION).and_then(|l| l.to_str().ok()).unwrap_or_default();
        self.leads(from, location)
    }

    /// Gives where a `Location` leads, if we go there.
    pub(super) fn leads(&self, from: &str, location: &str) -> Result<String, RegistryError> {
        let refuse = |why| RegistryError::Redirect { from: redact(from), to: redact(location), why };
        let next = join(from, location).ok_or_else(|| refuse("it is no address"))?;
        if !next.starts_with("https://") {
            let host = endpoint::host_in(&next);
            if from.starts_with("https://") {
                return Err(refuse("it leads from https to http"));
            }
            if !is_loopback(host) && !self.settings.is_insecure(host) {
                return Err(refuse("plain http is for this machine and --insecure-registry only"));
            }
        }
        Ok(next)
    }

    /// Learns from a 401 and decides whether another try makes sense.
    fn challenged(
        &self,
        at: &Endpoint,
        call: &Call<'_>,
        name: Option<Name>,
        mut answer: Response<Body>,
        challenges: &mut u32,
    ) -> Failure {
        let headers = answer.headers().get_all(header::WWW_AUTHENTICATE);
        let all: Vec<Challenge> =
            headers.iter().filter_map(|h| h.to_str().ok()).flat_map(challenge::parse).collect();
        let best = ["bearer", "basic"].iter().find_map(|scheme| all.iter().find(|c| c.scheme == *scheme));
        let why = self.said(&mut answer);
        let denied = |why: String| {
            let (registry, what) = (at.registry.clone(), call.repository.to_owned());
            let what = if what.is_empty() { "its service".to_owned() } else { what };
            Failure::never(RegistryError::Denied { registry, what, why })
        };
        let Some(best) = best else {
            let schemes: Vec<&str> = all.iter().map(|c| c.scheme.as_str()).collect();
            return denied(match schemes.is_empty() {
                true => why,
                false => format!("it asks for {}, and only Basic and Bearer are known", schemes.join(", ")),
            });
        };
        let mut auth = at.auth.lock().unwrap_or_else(PoisonError::into_inner);
        let credential = match self.credential(at, &mut auth, call.repository) {
            Ok(credential) => credential,
            Err(error) => return Failure::never(error),
        };
        if let Some(name) = &name {
            // another thread may have brought a new one meanwhile
            auth.tokens.retain(|scope, token| scope != call.scope || !name.value.ends_with(&token.value));
        }
        *challenges += 1;
        let same = auth.challenge.as_ref() == Some(best);
        auth.challenge = Some(best.clone());
        // an old token may have ended early; what is new, and a password, does not get better by being said again
        let useless = name.is_some_and(|name| name.fresh && (same || best.scheme == "basic"));
        if useless || *challenges > MAX_CHALLENGES || (best.scheme == "basic" && credential.is_none()) {
            return denied(why);
        }
        Failure { error: denied(why).error, again: Again::WithName }
    }

    fn refused(
        &self,
        at: &Endpoint,
        call: &Call<'_>,
        url: &str,
        home: bool,
        mut answer: Response<Body>,
    ) -> Failure {
        let status = answer.status().as_u16();
        let wait =
            answer.headers().get(header::RETRY_AFTER).and_then(|w| w.to_str().ok()).and_then(retry_after);
        let (code, message) = parse_body(&self.small(&mut answer));
        let url = redact(url);
        match status {
            403 if home => {
                let (registry, what) = (at.registry.clone(), call.repository.to_owned());
                Failure::never(RegistryError::Denied { registry, what, why: message })
            }
            429 => {
                let error = match wait {
                    Some(wait) => RegistryError::Busy { url, wait, message },
                    None => RegistryError::Status { url, status, code, message },
                };
                Failure { error, again: Again::After(wait) }
            }
            408 | 500 | 502 | 503 | 504 => {
                let error = RegistryError::Status { url, status, code, message };
                Failure { error, again: Again::After(wait) }
            }
            _ => Failure::never(RegistryError::Status { url, status, code, message }),
        }
    }

    fn said(&self, answer: &mut Response<Body>) -> String {
        parse_body(&self.small(answer)).1
    }

    fn small(&self, answer: &mut Response<Body>) -> Vec<u8> {
        let mut body = answer.body_mut().with_config().limit(u64::MAX).reader();
        read_until(&mut body, MAX_ERROR, self.settings.patience).unwrap_or_default()
    }

    /// Gives the client for a host; one is enough for all its connections.
    pub(super) fn agent(&self, host: &str) -> Result<Agent, RegistryError> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(host) {
            return Ok(agent.clone());
        }
        let agent = endpoint::agent(&self.settings, host)?;
        agents.insert(host.to_owned(), agent.clone());
        Ok(agent)
    }

    /// Gives the value of the `Authorization` header, as far as the registry has said that it wants one.
    fn authorization(&self, at: &Endpoint, call: &Call<'_>) -> Result<Option<Name>, RegistryError> {
        // held while a token is fetched, so that parallel requests share it
        let mut auth = at.auth.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(challenge) = auth.challenge.clone() else { return Ok(None) };
        let credential = self.credential(at, &mut auth, call.repository)?;
        if let Some(Credential::Bearer(token)) = &credential {
            self.may_tell(at)?;
            return Ok(Some(Name { value: format!("Bearer {token}"), fresh: true }));
        }
        if challenge.scheme == "basic" {
            let Some(Credential::Password { user, password }) = &credential else { return Ok(None) };
            self.may_tell(at)?;
            return Ok(Some(Name { value: basic(user, password), fresh: true }));
        }
        if let Some(token) = auth.tokens.get(call.scope).filter(|t| t.until > Instant::now()) {
            return Ok(Some(Name { value: format!("Bearer {}", token.value), fresh: false }));
        }
        let agent = self.agent(endpoint::host_in(challenge.param("realm").unwrap_or_default()))?;
        let token =
            token::fetch(&self.settings, &agent, &at.base, &challenge, call.scope, credential.as_ref())?;
        let value = format!("Bearer {}", token.value);
        auth.tokens.insert(call.scope.clone(), token);
        Ok(Some(Name { value, fresh: true }))
    }

    fn credential(
        &self,
        at: &Endpoint,
        auth: &mut Auth,
        repository: &str,
    ) -> Result<Option<Credential>, RegistryError> {
        if let Some(own) = &self.own {
            return Ok(Some(own.clone()));
        }
        if let Some(known) = auth.credential.get(repository) {
            return Ok(known.clone());
        }
        let found = self.settings.credentials.find(&at.registry, repository)?;
        auth.credential.insert(repository.to_owned(), found.clone());
        Ok(found)
    }

    fn may_tell(&self, at: &Endpoint) -> Result<(), RegistryError> {
        let host = endpoint::host_in(&at.base);
        if at.base.starts_with("https://") || is_loopback(host) || self.settings.is_insecure(host) {
            return Ok(());
        }
        Err(RegistryError::Clear { url: redact(&at.base) })
    }
}

/// What stands in an `Authorization` header.
struct Name {
    value: String,
    /// It was made for this request, so that no other could be better.
    fresh: bool,
}

/// Whether one more try makes sense.
enum Again {
    Never,
    WithName,
    After(Option<Duration>),
}

struct Failure {
    error: RegistryError,
    again: Again,
}

impl Failure {
    fn never(error: RegistryError) -> Self {
        Self { error, again: Again::Never }
    }
}

/// Tells a file that cannot be read from a network that cannot be written.
struct Feed<'a, R> {
    inner: R,
    broken: &'a RefCell<Option<io::Error>>,
}

impl<R: Read> Read for Feed<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf).inspect_err(|e| {
            *self.broken.borrow_mut() = Some(io::Error::new(e.kind(), e.to_string()));
        })
    }
}

/// Reads at most `limit` bytes in a bounded time; `None` when there are more or it takes longer.
pub(super) fn read_until(body: &mut dyn Read, limit: u64, patience: Duration) -> Option<Vec<u8>> {
    let end = Instant::now() + 2 * patience;
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 32 << 10];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => return Some(bytes),
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
        if bytes.len() as u64 > limit || Instant::now() > end {
            return None;
        }
    }
}

/// Reads `Retry-After`: seconds or a date (RFC 9110, 10.2.3).
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let format = &time::format_description::well_known::Rfc2822;
    let at = time::OffsetDateTime::parse(&text.trim().replace("GMT", "+0000"), format).ok()?;
    let seconds = (at - time::OffsetDateTime::now_utc()).whole_seconds();
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_from_https_to_http() {
        let settings = Settings { insecure: vec!["lab.io".into()], ..Settings::default() };
        let transport = Transport::new(settings, None);
        for (from, location, goes) in [
            ("https://r.io/v2/", "https://s.io/x?sig=1", true),
            ("https://r.io/v2/", "/x", true),
            ("https://r.io/v2/", "http://r.io/x", false),
            ("https://127.0.0.1/v2/", "http://127.0.0.1/x", false),
            ("http://127.0.0.1:1/v2/", "http://127.0.0.1:2/x", true),
            ("http://127.0.0.1:1/v2/", "https://s.io/x", true),
            ("http://127.0.0.1:1/v2/", "http://s.io/x", false),
            ("http://lab.io/v2/", "http://lab.io:8080/x", true),
            ("https://r.io/v2/", "file:///etc/passwd", false),
        ] {
            assert_eq!(transport.leads(from, location).is_ok(), goes, "{from} {location}");
        }
    }

    #[test]
    fn waits_are_read() {
        assert_eq!(retry_after("3"), Some(Duration::from_secs(3)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("soon"), None);
    }

    #[test]
    fn endless_and_slow_answers_are_cut() {
        assert_eq!(read_until(&mut &b"abc"[..], 3, Duration::from_secs(1)).unwrap(), b"abc");
        assert!(read_until(&mut &b"abcd"[..], 3, Duration::from_secs(1)).is_none());
        assert!(read_until(&mut io::repeat(0), 1 << 20, Duration::from_secs(60)).is_none());
        assert!(read_until(&mut io::repeat(0), u64::MAX, Duration::from_millis(5)).is_none());
    }
}
