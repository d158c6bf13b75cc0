//! The client: what a registry has under a name, and who answers for it.

use super::credential::Credential;
use super::endpoint::{self, host_of};
use super::error::{RegistryError, redact};
use super::settings::Settings;
use super::token::Scope;
use super::transport::{Call, Endpoint, Payload, Transport, read_until};
use super::url::join;
use crate::digest::Digest;
use crate::oci::{Descriptor, media_type};
use crate::reference::Reference;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use ureq::Body;
use ureq::http::{Response, header};

/// Longest manifest or index in bytes.
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// Most tags that are listed.
const MAX_TAGS: usize = 100_000;
/// Most pages of a list.
const MAX_PAGES: usize = 1000;

/// A client of all registries; cheap to clone, used by many threads at once.
#[derive(Clone)]
pub struct Client {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) transport: Transport,
    /// By registry or, for mirrors, by address.
    endpoints: Mutex<HashMap<String, Slot>>,
}

/// Filled by the first who asks, while the others wait.
type Slot = Arc<Mutex<Option<Arc<Endpoint>>>>;

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// A manifest or index as the registry has it, its digest checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Media type as the registry says, digest and size as counted.
    pub descriptor: Descriptor,
    /// The document.
    pub bytes: Vec<u8>,
}

impl Client {
    /// Makes a client. Asks nobody yet.
    pub fn new(settings: Settings) -> Self {
        Self::with_credential(settings, None)
    }

    /// Makes a client that uses one credential and no file.
    pub fn with_credential(settings: Settings, credential: Option<Credential>) -> Self {
        let transport = Transport::new(settings, credential);
        Self { inner: Arc::new(Inner { transport, endpoints: Mutex::default() }) }
    }

    /// Gets the manifest or index under a name; a digest in the name wins over its tag. Mirrors are asked first.
    ///
    /// # Errors
    /// There is none, access is denied, no answer, or it is not what the digest or the registry's own header says.
    pub fn resolve(&self, name: &Reference) -> Result<Resolved, RegistryError> {
        self.any_source(name, |at| self.resolve_at(at, name))
    }

    /// Asks for the descriptor under a name without its document; `None` when there is none.
    ///
    /// # Errors
    /// Access is denied, or no usable answer.
    pub fn head(&self, name: &Reference) -> Result<Option<Descriptor>, RegistryError> {
        let at = self.upstream(name.registry())?;
        let answer = self.send(
            &at,
            "HEAD",
            &manifest_path(name, target(name)),
            name,
            &accept(),
            &Scope::pull(name.repository()),
        );
        let answer = match answer {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
        let text = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok());
        let digest =
            text("docker-content-digest").and_then(|d| d.parse().ok()).or_else(|| name.digest().cloned());
        let size = text("content-length").and_then(|s| s.parse().ok());
        match (digest, size) {
            (Some(digest), Some(size)) => {
                let media_type = media_type_of(&answer);
                Ok(Some(Descriptor {
                    media_type,
                    digest,
                    size,
                    annotations: Default::default(),
                    platform: None,
                }))
            }
            // it says too little; the document itself tells all
            _ => self.resolve_at(&at, name).map(|found| Some(found.descriptor)),
        }
    }

    /// Gets the document that a descriptor of an index points at, checked against it.
    ///
    /// # Errors
    /// As [`Client::resolve`], and a size over [`MANIFEST_LIMIT`].
    pub fn manifest(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Resolved, RegistryError> {
        let name = repository.with_digest(&descriptor.digest);
        let found = self.resolve(&name)?;
        if found.descriptor.size != descriptor.size {
            let why =
                format!("it has {} bytes where {} were promised", found.descriptor.size, descriptor.size);
            return Err(lie(repository.registry(), &descriptor.digest, why));
        }
        Ok(Resolved {
            descriptor: Descriptor { annotations: Default::default(), ..descriptor.clone() },
            ..found
        })
    }

    /// Lists the tags of a repository, in the registry's order.
    ///
    /// # Errors
    /// There is no such repository, access is denied, or no usable answer.
    pub fn tags(&self, repository: &Reference) -> Result<Vec<String>, RegistryError> {
        let at = self.upstream(repository.registry())?;
        let scope = Scope::pull(repository.repository());
        let mut path = format!("/v2/{}/tags/list?n=1000", repository.repository());
        let mut tags: Vec<String> = Vec::new();
        for _ in 0..MAX_PAGES {
            let url = format!("{}{path}", at.base);
            let mut answer = self.send(&at, "GET", &path, repository, &[], &scope)?;
            let next = answer.headers().get(header::LINK).and_then(|l| l.to_str().ok()).and_then(next_page);
            let next = next
                .and_then(|link| join(&url, link))
                .and_then(|u| u.strip_prefix(&at.base).map(str::to_owned));
            let body = self.document(&mut answer, &url)?;
            let page: serde_json::Value = serde_json::from_slice(&body).map_err(|e| {
                RegistryError::protocol(&url, format!("the list of tags cannot be read: {e}"))
            })?;
            let page = page["tags"].as_array().into_iter().flatten().filter_map(|t| t.as_str());
            // a tag that no name could have is not asked for
            tags.extend(page.filter(|t| repository.with_tag(t).is_ok()).map(str::to_owned));
            match next {
                Some(next) if tags.len() < MAX_TAGS => path = next,
                _ => break,
            }
        }
        Ok(tags)
    }

    /// Asks a registry whether it lets us in.
    ///
    /// # Errors
    /// It does not, or it is no registry.
    pub fn ping(&self, registry: &str) -> Result<(), RegistryError> {
        let at = self.upstream(registry)?;
        let (url, scope) = (format!("{}/v2/", at.base), Scope::none());
        let call = Call {
            method: "GET",
            url,
            headers: Vec::new(),
            payload: Payload::Nothing,
            scope: &scope,
            repository: "",
        };
        self.inner.transport.send(&at, &call).map(|_| ())
    }

    fn resolve_at(&self, at: &Endpoint, name: &Reference) -> Result<Resolved, RegistryError> {
        let path = manifest_path(name, target(name));
        let mut answer = self.send(at, "GET", &path, name, &accept(), &Scope::pull(name.repository()))?;
        let media_type = media_type_of(&answer);
        let promised = answer.headers().get("docker-content-digest").and_then(|d| d.to_str().ok());
        let promised: Option<Digest> = promised.and_then(|d| d.parse().ok());
        let bytes = self.document(&mut answer, &format!("{}{path}", at.base))?;
        let digest = Digest::sha256_of(&bytes);
        let expected = name.digest().cloned().or(promised.filter(|d| d.algorithm() == "sha256"));
        if let Some(expected) = expected.filter(|e| *e != digest) {
            only_sha256(&expected)?;
            return Err(lie(&at.registry, &expected, format!("its digest is {digest}")));
        }
        let size = bytes.len() as u64;
        let descriptor =
            Descriptor { media_type, digest, size, annotations: Default::default(), platform: None };
        Ok(Resolved { descriptor, bytes })
    }

    /// Reads a document of bounded length in bounded time.
    pub(super) fn document(&self, answer: &mut Response<Body>, url: &str) -> Result<Vec<u8>, RegistryError> {
        let length = answer.body().content_length().unwrap_or(0);
        let too_large = || RegistryError::TooLarge { url: redact(url), limit: MANIFEST_LIMIT };
        if length > MANIFEST_LIMIT {
            return Err(too_large());
        }
        let mut seen = Counted { inner: answer.body_mut().with_config().limit(u64::MAX).reader(), bytes: 0 };
        let patience = self.inner.transport.settings.patience;
        match read_until(&mut seen, MANIFEST_LIMIT, patience) {
            Some(bytes) => Ok(bytes),
            None if seen.bytes > MANIFEST_LIMIT => Err(too_large()),
            None => Err(RegistryError::Transport {
                url: redact(url),
                why: "the answer breaks off or is too slow".into(),
            }),
        }
    }

    /// Makes a plain request about a repository.
    pub(super) fn send(
        &self,
        at: &Endpoint,
        method: &'static str,
        path: &str,
        name: &Reference,
        headers: &[(&'static str, String)],
        scope: &Scope,
    ) -> Result<Response<Body>, RegistryError> {
        let url = format!("{}{path}", at.base);
        let repository = name.repository();
        let call =
            Call { method, url, headers: headers.to_vec(), payload: Payload::Nothing, scope, repository };
        self.inner.transport.send(at, &call)
    }

    /// Asks the mirrors one after the other and then the registry itself; its error is the one that counts.
    pub(super) fn any_source<T>(
        &self,
        name: &Reference,
        ask: impl Fn(&Endpoint) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        for mirror in self.mirrors(name.registry()) {
            if let Ok(found) = self.mirror(&mirror).and_then(|at| ask(&at)) {
                return Ok(found);
            }
        }
        ask(&*self.upstream(name.registry())?)
    }

    pub(super) fn mirrors(&self, registry: &str) -> Vec<String> {
        if registry == "docker.io" { self.inner.transport.settings.mirrors.clone() } else { Vec::new() }
    }

    /// Gives a mirror by its address.
    pub(super) fn mirror(&self, address: &str) -> Result<Arc<Endpoint>, RegistryError> {
        let address = address.trim_end_matches('/');
        let host = endpoint::host_in(address);
        self.endpoint(address, host, |agent| match address.contains("://") {
            true => Ok(address.to_owned()),
            false => endpoint::base_url(&self.inner.transport.settings, host, agent),
        })
    }

    /// Gives the host that answers for a registry.
    pub(super) fn upstream(&self, registry: &str) -> Result<Arc<Endpoint>, RegistryError> {
        let host = host_of(registry);
        self.endpoint(registry, host, |agent| endpoint::base_url(&self.inner.transport.settings, host, agent))
    }

    fn endpoint(
        &self,
        key: &str,
        host: &str,
        base: impl FnOnce(&ureq::Agent) -> Result<String, RegistryError>,
    ) -> Result<Arc<Endpoint>, RegistryError> {
        let slot = {
            let mut all = self.inner.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(key.to_owned()).or_default().clone()
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = &*slot {
            return Ok(endpoint.clone());
        }
        let agent = self.inner.transport.agent(host)?;
        let base = base(&agent)?;
        let registry = if key.contains("://") { host } else { key };
        let endpoint = Arc::new(Endpoint::new(registry, base, agent));
        *slot = Some(endpoint.clone());
        Ok(endpoint)
    }
}

pub(super) fn lie(registry: &str, digest: &Digest, why: String) -> RegistryError {
    RegistryError::Lie { what: digest.to_string(), registry: registry.to_owned(), why }
}

pub(super) fn only_sha256(digest: &Digest) -> Result<(), RegistryError> {
    if digest.algorithm() == "sha256" { Ok(()) } else { Err(RegistryError::Algorithm(digest.clone())) }
}

pub(super) fn manifest_path(name: &Reference, target: &str) -> String {
    format!("/v2/{}/manifests/{target}", name.repository())
}

/// What of a name is asked for.
fn target(name: &Reference) -> &str {
    name.digest().map(Digest::as_str).or(name.tag()).unwrap_or("latest")
}

fn accept() -> Vec<(&'static str, String)> {
    use media_type::{DOCKER_INDEX, DOCKER_MANIFEST, INDEX, MANIFEST};
    vec![("accept", [INDEX, MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].join(", "))]
}

/// The media type of an answer without parameters.
fn media_type_of(answer: &Response<Body>) -> String {
    let value = answer.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    super::error::harmless(value.split(';').next().unwrap_or_default().trim())
}

/// Finds the next page in a `Link` header (RFC 8288): `<URL>; rel="next"`.
fn next_page(link: &str) -> Option<&str> {
    let (url, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    rest.contains("rel=\"next\"").then_some(url).or_else(|| rest.contains("rel=next").then_some(url))
}

struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: std::io::Read> std::io::Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.bytes += n as u64;
        Ok(n)
    }
}
