//! A blob on its way here: counted, checked, and taken up again where the connection broke.
//!
//! The reader gives the bytes of the descriptor or an error, never other bytes and never more: its last read tells
//! whether size and digest were right. A connection that breaks or crawls is replaced by one that goes on at the
//! same byte; so often in a row without having moved on, and it is given up.

use super::client::{Client, lie, only_sha256};
use super::error::{RegistryError, redact};
use super::token::Scope;
use super::transport::Endpoint;
use crate::digest::Digest;
use crate::oci::Descriptor;
use crate::reference::Reference;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;
use ureq::http::header;

/// A transfer that moves fewer bytes a second than this is treated as broken.
const SLOWEST: u64 = 1024;
/// So many bytes make up for an attempt that failed.
const PROGRESS: u64 = 1 << 20;

/// The bytes of a blob, checked to the end.
pub struct BlobReader {
    client: Client,
    repository: Reference,
    blob: Descriptor,
    /// Who is asked: mirrors, then the registry itself.
    sources: Vec<Source>,
    body: Option<Box<dyn Read + Send>>,
    done: u64,
    sum: Sha256,
    attempts: u32,
    /// How far it was when attempts began to count.
    counted_from: u64,
    window: (Instant, u64),
    failed: bool,
}

#[derive(Clone)]
enum Source {
    Mirror(String),
    Upstream,
}

impl Client {
    /// Opens a blob. The reader resumes by itself; its errors hold a [`RegistryError`].
    ///
    /// # Errors
    /// There is none, access is denied, or no answer.
    pub fn blob(&self, repository: &Reference, blob: &Descriptor) -> Result<BlobReader, RegistryError> {
        only_sha256(&blob.digest)?;
        let mirrors = self.mirrors(repository.registry()).into_iter().map(Source::Mirror);
        let mut sources: Vec<Source> = mirrors.chain([Source::Upstream]).collect();
        sources.reverse();
        let mut reader = BlobReader {
            client: self.clone(),
            repository: repository.clone(),
            blob: blob.clone(),
            sources,
            body: None,
            done: 0,
            sum: Sha256::new(),
            attempts: 0,
            counted_from: 0,
            window: (Instant::now(), 0),
            failed: false,
        };
        reader.open()?;
        Ok(reader)
    }

    /// Gets a small blob whole.
    ///
    /// # Errors
    /// As [`Client::blob`] and its reader, and a size over `limit` bytes.
    pub fn blob_bytes(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        if blob.size > limit {
            let url = format!("{}/{}@{}", repository.registry(), repository.repository(), blob.digest);
            return Err(RegistryError::TooLarge { url, limit });
        }
        let mut reader = self.blob(repository, blob)?;
        let mut bytes = Vec::with_capacity(blob.size as usize);
        reader.read_to_end(&mut bytes).map_err(registry_error)?;
        Ok(bytes)
    }

    /// Says whether a repository has a blob.
    ///
    /// # Errors
    /// Access is denied, or no usable answer.
    pub fn has_blob(&self, repository: &Reference, digest: &Digest) -> Result<bool, RegistryError> {
        let at = self.upstream(repository.registry())?;
        // asked by those who are about to push, with their token
        let scope = Scope::push(repository.repository());
        match self.send(&at, "HEAD", &blob_path(repository, digest), repository, &[], &scope) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Takes the registry's error out of a reader's.
pub fn registry_error(error: io::Error) -> RegistryError {
    match error.downcast::<RegistryError>() {
        Ok(inner) => inner,
        Err(source) => RegistryError::Local { action: "receive a blob", source },
    }
}

fn blob_path(repository: &Reference, digest: &Digest) -> String {
    format!("/v2/{}/blobs/{digest}", repository.repository())
}

impl BlobReader {
    /// Gives the number of bytes that have come.
    pub fn position(&self) -> u64 {
        self.done
    }

    /// Asks for the rest, of the next source when one has nothing.
    fn open(&mut self) -> Result<(), RegistryError> {
        loop {
            let source = self.sources.last().cloned().unwrap_or(Source::Upstream);
            let opened = match &source {
                Source::Mirror(address) => self.client.mirror(address),
                Source::Upstream => self.client.upstream(self.repository.registry()),
            }
            .and_then(|at| self.open_at(&at));
            match (opened, source) {
                (Ok(body), _) => {
                    self.body = Some(body);
                    self.window = (Instant::now(), self.done);
                    return Ok(());
                }
                (Err(_), Source::Mirror(_)) => drop(self.sources.pop()),
                (Err(error), Source::Upstream) => return Err(error),
            }
        }
    }

    fn open_at(&self, at: &Arc<Endpoint>) -> Result<Box<dyn Read + Send>, RegistryError> {
        let path = blob_path(&self.repository, &self.blob.digest);
        let range: &[_] = match self.done {
            0 => &[],
            from => &[("range", format!("bytes={from}-"))],
        };
        let scope = Scope::pull(self.repository.repository());
        let answer = self.client.send(at, "GET", &path, &self.repository, range, &scope)?;
        let url = format!("{}{path}", at.base);
        let partial = answer.status() == 206;
        if partial {
            let text = answer.headers().get(header::CONTENT_RANGE).and_then(|r| r.to_str().ok());
            let start = text.and_then(|r| r.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok());
            if start != Some(self.done) || self.done == 0 {
                return Err(RegistryError::protocol(
                    &url,
                    "it sent another part of the blob than was asked for",
                ));
            }
        }
        let rest = if partial { self.blob.size - self.done } else { self.blob.size };
        if let Some(length) = answer.body().content_length().filter(|l| *l != rest) {
            return Err(self.lie(format!("it has {length} bytes where {rest} were promised")));
        }
        let mut body: Box<dyn Read + Send> =
            Box::new(answer.into_body().into_with_config().limit(u64::MAX).reader());
        if !partial && self.done > 0 {
            // it cannot begin in the middle: pass over what is known
            let skipped = io::copy(&mut body.by_ref().take(self.done), &mut io::sink());
            if skipped.ok() != Some(self.done) {
                return Err(RegistryError::Transport {
                    url: redact(&url),
                    why: "the transfer broke off".into(),
                });
            }
        }
        Ok(body)
    }

    fn lie(&self, why: String) -> RegistryError {
        lie(self.repository.registry(), &self.blob.digest, why)
    }

    /// Deals with a connection that broke: goes on, or gives up.
    fn resume(&mut self, why: &str) -> Result<(), RegistryError> {
        self.body = None;
        if self.done >= self.counted_from + PROGRESS {
            self.attempts = 0;
            self.counted_from = self.done;
        }
        self.attempts += 1;
        let transport = &self.client.inner.transport;
        if self.attempts >= transport.settings.attempts {
            let (done, size) = (self.done, self.blob.size);
            let url =
                format!("{}{}", self.repository.registry(), blob_path(&self.repository, &self.blob.digest));
            let why = format!("{why}, {} times, at {done} of {size} bytes", self.attempts);
            return Err(RegistryError::Transport { url, why });
        }
        transport.pause(self.attempts, None);
        self.open()
    }

    /// Says whether so little came for so long that it is no use to wait on.
    fn crawls(&mut self) -> bool {
        let patience = self.client.inner.transport.settings.patience;
        let (since, from) = self.window;
        if since.elapsed() < patience {
            return false;
        }
        let slow = self.done - from < SLOWEST * patience.as_secs().max(1);
        self.window = (Instant::now(), self.done);
        slow
    }

    fn finish(&mut self) -> Result<(), RegistryError> {
        let found = Digest::from_sha256(self.sum.clone().finalize().into());
        match found == self.blob.digest {
            true => Ok(()),
            false => Err(self.lie(format!("the digest of its bytes is {found}"))),
        }
    }

    fn advance(&mut self, buf: &mut [u8]) -> Result<usize, RegistryError> {
        loop {
            let rest = self.blob.size - self.done;
            let Some(body) = &mut self.body else {
                if self.done == self.blob.size {
                    return Ok(0);
                }
                self.open()?;
                continue;
            };
            // one byte more than there should be shows a body that goes on
            let mut probe = [0u8; 1];
            let into = if rest == 0 { &mut probe[..] } else { &mut *buf };
            let wanted = into.len().min(rest.max(1).try_into().unwrap_or(usize::MAX));
            match body.read(&mut into[..wanted]) {
                Ok(0) if rest == 0 => {
                    self.body = None;
                    self.finish()?;
                    return Ok(0);
                }
                Ok(0) => self.resume("the transfer ended early")?,
                Ok(_) if rest == 0 => {
                    return Err(
                        self.lie(format!("it goes on after the {} bytes that were promised", self.blob.size))
                    );
                }
                Ok(n) => {
                    self.sum.update(&buf[..n]);
                    self.done += n as u64;
                    if self.crawls() {
                        self.resume("the transfer is too slow")?;
                    }
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if rest == 0 => {
                    // all is here; how the connection ends does not matter
                    self.body = None;
                    self.finish()?;
                    return Ok(0);
                }
                Err(e) => self.resume(&format!("the transfer broke off ({e})"))?,
            }
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(io::Error::other("the transfer has failed before"));
        }
        if buf.is_empty() {
            return Ok(0);
        }
        self.advance(buf).map_err(|e| {
            self.failed = true;
            io::Error::other(e)
        })
    }
}
