//! Blobs and manifests on their way out (distribution-spec, "Pushing").

use super::client::{Client, lie, manifest_path};
use super::endpoint;
use super::error::RegistryError;
use super::token::Scope;
use super::transport::{Call, Endpoint, Payload};
use super::url::{encode, origin, with_query};
use crate::digest::Digest;
use crate::oci::Descriptor;
use crate::reference::Reference;
use std::io::{self, Read};
use std::sync::Arc;
use ureq::Body;
use ureq::http::{Response, header};

/// How a blob came into a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upload {
    /// It was there already.
    Present,
    /// The registry took it from another of its repositories.
    Mounted,
    /// Its bytes were sent.
    Sent,
}

/// Where the bytes of one blob go, given out by the registry for this once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session(String);

/// What a registry says of a blob that it is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// It has it now, without bytes having been sent.
    Taken(Upload),
    /// It wants its bytes, perhaps at a place that it has named already.
    Wanted(Option<Session>),
}

impl Client {
    /// Brings a blob into a repository: not if it is there, by mounting it from `from` (another repository of the same
    /// registry) if that has it, else by sending it. `open` gives the bytes from the beginning, each time it is called.
    ///
    /// # Errors
    /// Access is denied, no usable answer, the bytes cannot be read or are not what the descriptor says.
    pub fn upload(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        from: Option<&str>,
        open: &(dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync),
    ) -> Result<Upload, RegistryError> {
        match self.offer(repository, &blob.digest, from)? {
            Offer::Taken(how) => Ok(how),
            Offer::Wanted(session) => {
                self.put_blob(repository, blob, session, open)?;
                Ok(Upload::Sent)
            }
        }
    }

    /// Asks whether a repository has a blob, or can take it from `from`.
    ///
    /// # Errors
    /// Access to `repository` is denied, or no usable answer.
    pub fn offer(
        &self,
        repository: &Reference,
        digest: &Digest,
        from: Option<&str>,
    ) -> Result<Offer, RegistryError> {
        if self.has_blob(repository, digest)? {
            return Ok(Offer::Taken(Upload::Present));
        }
        match from.filter(|from| *from != repository.repository()) {
            Some(from) => self.mount(repository, digest, from),
            None => Ok(Offer::Wanted(None)),
        }
    }

    /// Sends a blob without asking whether it is there.
    ///
    /// # Errors
    /// As [`Client::upload`].
    pub fn put_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        session: Option<Session>,
        open: &(dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync),
    ) -> Result<(), RegistryError> {
        let at = self.upstream(repository.registry())?;
        let (mut session, mut tries) = (session, 0);
        loop {
            tries += 1;
            let place = match session.take() {
                Some(session) => session,
                None => self.begin(&at, repository)?,
            };
            match self.put_at(&at, repository, blob, &place, open) {
                Ok(()) => return Ok(()),
                // a session that was lost halfway cannot be taken up; another one can
                Err(error) if is_passing(&error) && tries < self.inner.transport.settings.attempts => {
                    self.inner.transport.pause(tries, None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks the registry to take a blob from another of its repositories.
    fn mount(&self, repository: &Reference, digest: &Digest, from: &str) -> Result<Offer, RegistryError> {
        let at = self.upstream(repository.registry())?;
        let url = format!(
            "{}/v2/{}/blobs/uploads/?mount={}&from={}",
            at.base,
            repository.repository(),
            encode(digest.as_str()),
            encode(from)
        );
        let scope = Scope::mount(repository.repository(), from);
        match self.post(&at, repository, &url, &scope) {
            Ok(answer) if answer.status() == 201 => Ok(Offer::Taken(Upload::Mounted)),
            // 202: it has begun an upload instead
            Ok(answer) => Ok(Offer::Wanted(self.location(&url, &answer).ok().map(Session))),
            // no right to read the other repository
            Err(RegistryError::Denied { .. } | RegistryError::Status { .. }) => Ok(Offer::Wanted(None)),
            Err(error) => Err(error),
        }
    }

    fn post(
        &self,
        at: &Arc<Endpoint>,
        repository: &Reference,
        url: &str,
        scope: &Scope,
    ) -> Result<Response<Body>, RegistryError> {
        let call = Call {
            method: "POST",
            url: url.to_owned(),
            headers: Vec::new(),
            payload: Payload::Bytes(&[]),
            scope,
            repository: repository.repository(),
        };
        self.inner.transport.send(at, &call)
    }

    /// Puts a manifest or index under a tag, or under its digest where the name has one.
    ///
    /// # Errors
    /// Access is denied, the registry lacks what it points at, or no usable answer.
    pub fn put_manifest(
        &self,
        name: &Reference,
        descriptor: &Descriptor,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        let at = self.upstream(name.registry())?;
        let target = name.digest().map(Digest::as_str).or(name.tag()).unwrap_or(descriptor.digest.as_str());
        let scope = Scope::push(name.repository());
        let call = Call {
            method: "PUT",
            url: format!("{}{}", at.base, manifest_path(name, target)),
            headers: vec![("content-type", descriptor.media_type.clone())],
            payload: Payload::Bytes(bytes),
            scope: &scope,
            repository: name.repository(),
        };
        let answer = self.inner.transport.send(&at, &call)?;
        let stored = answer.headers().get("docker-content-digest").and_then(|d| d.to_str().ok());
        match stored.and_then(|d| d.parse::<Digest>().ok()) {
            Some(stored) if stored != descriptor.digest && stored.algorithm() == "sha256" => {
                Err(lie(name.registry(), &descriptor.digest, format!("the registry keeps it as {stored}")))
            }
            _ => Ok(()),
        }
    }

    fn begin(&self, at: &Arc<Endpoint>, repository: &Reference) -> Result<Session, RegistryError> {
        let url = format!("{}/v2/{}/blobs/uploads/", at.base, repository.repository());
        let answer = self.post(at, repository, &url, &Scope::push(repository.repository()))?;
        self.location(&url, &answer).map(Session)
    }

    /// Sends all bytes in one request, which every registry takes.
    fn put_at(
        &self,
        at: &Arc<Endpoint>,
        repository: &Reference,
        blob: &Descriptor,
        place: &Session,
        open: &(dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync),
    ) -> Result<(), RegistryError> {
        let url = with_query(&place.0, "digest", blob.digest.as_str());
        if let Some(other) = origin(&url).filter(|o| Some(o) != origin(&at.base).as_ref()) {
            // some registries take bytes at another host, by an address that is its own key
            let agent = self.inner.transport.agent(endpoint::host_in(&url))?;
            return self.send_blob(&Endpoint::new("", other, agent), repository, blob, url, open);
        }
        self.send_blob(at, repository, blob, url, open)
    }

    fn send_blob(
        &self,
        at: &Endpoint,
        repository: &Reference,
        blob: &Descriptor,
        url: String,
        open: &(dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync),
    ) -> Result<(), RegistryError> {
        let scope = Scope::push(repository.repository());
        let call = Call {
            method: "PUT",
            url,
            headers: vec![("content-type", "application/octet-stream".into())],
            payload: Payload::Stream(open, blob.size),
            scope: &scope,
            repository: repository.repository(),
        };
        self.inner.transport.send_once(at, &call).map(|_| ())
    }

    fn location(&self, url: &str, answer: &Response<Body>) -> Result<String, RegistryError> {
        let location = answer.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
        let location =
            location.ok_or_else(|| RegistryError::protocol(url, "it gave no address for the upload"))?;
        self.inner.transport.leads(url, location)
    }
}

/// Says whether a new upload may go better.
fn is_passing(error: &RegistryError) -> bool {
    match error {
        RegistryError::Status { status, .. } => {
            matches!(status, 404 | 408 | 416 | 429 | 500 | 502 | 503 | 504)
        }
        RegistryError::Transport { .. } | RegistryError::Busy { .. } => true,
        _ => false,
    }
}
