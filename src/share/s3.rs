//! A cache in a bucket: `type=s3,bucket=...,region=...`.
//!
//! ```text
//! <prefix><manifests_prefix><name>              the document
//! <prefix><blobs_prefix>sha256:<hex>            a layer
//! ```
//!
//! Requests are addresses that carry their signature (AWS Signature Version 4, query string), which every S3 server
//! takes; none is ever shown or logged. An object is sent in one request, so a layer may have 5 GiB at most.

use super::ShareError;
use super::document::{self, Document};
use super::place::{CacheSource, CacheTarget, open};
use super::spec::ExportSpec;
use crate::oci::Descriptor;
use crate::snapshot::LayerProvider;
use rusty_s3::{Bucket as Address, Credentials, S3Action, UrlStyle};
use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, SendBody};

/// How long an address is good for: as long as the largest object may take to begin.
const GOOD_FOR: Duration = Duration::from_secs(3600);
/// How long a server may keep silent.
const PATIENCE: Duration = Duration::from_secs(60);
/// Times that a request is made in all.
const ATTEMPTS: u32 = 4;
/// The pause before the second; each next one is twice as long.
const PAUSE: Duration = Duration::from_millis(300);
/// Bytes of an error answer that are read.
const MAX_ERROR: u64 = 64 << 10;
/// After which age an object is sent again, so that rules of the bucket that remove old ones spare it, in seconds.
const REFRESH: u64 = 24 * 3600;
/// Layers that are sent at the same time, as BuildKit has it.
const PARALLEL: usize = 4;

/// Where a bucket is and how to get in.
#[derive(Clone, PartialEq, Eq)]
pub struct Bucket {
    bucket: String,
    region: String,
    endpoint: String,
    path_style: bool,
    blobs: String,
    manifests: String,
    names: Vec<String>,
    refresh: u64,
    keys: Option<(String, String, Option<String>)>,
    pub(super) upload_parallelism: usize,
}

/// Without keys.
impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({} at {})", self.shown(), self.endpoint)
    }
}

impl Bucket {
    /// Takes the keys of a bucket; what is not given comes from the environment, as for AWS's own tools.
    pub(super) fn read(take: &mut dyn FnMut(&str) -> Option<String>) -> Result<Self, String> {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut given = |key: &str| take(key).filter(|value| !value.is_empty());
        let bucket = given("bucket").or_else(|| var("AWS_BUCKET")).ok_or("bucket is missing")?;
        let region = given("region").or_else(|| var("AWS_REGION")).or_else(|| var("AWS_DEFAULT_REGION"));
        let region = region.ok_or("region is missing")?;
        let own = given("endpoint_url").or_else(|| var("AWS_ENDPOINT_URL"));
        let endpoint = own.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(format!("endpoint_url={endpoint}: expected http:// or https://"));
        }
        let path_style = match given("use_path_style").as_deref() {
            None | Some("0" | "false") => false,
            Some("1" | "true") => true,
            Some(other) => return Err(format!("use_path_style={other}: expected true or false")),
        };
        let prefix = given("prefix").unwrap_or_default();
        let below = |own: Option<String>, usual: &str| format!("{prefix}{}", own.as_deref().unwrap_or(usual));
        let blobs = below(given("blobs_prefix"), "blobs/");
        let manifests = below(given("manifests_prefix"), "manifests/");
        let names = given("name").unwrap_or_else(|| "rbuild".to_owned());
        let names = names.split(';').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let number = |key: &str, text: Option<String>, usual: u64| match text {
            None => Ok(usual),
            Some(text) => {
                text.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("{key}={text}: not a number"))
            }
        };
        let parallel = number("upload_parallelism", given("upload_parallelism"), PARALLEL as u64)?;
        let refresh = match given("touch_refresh") {
            None => REFRESH,
            Some(text) => {
                seconds(&text).ok_or_else(|| format!("touch_refresh={text}: expected 24h, 30m, ..."))?
            }
        };
        let key = given("access_key_id");
        let secret = given("secret_access_key");
        let token = given("session_token");
        let keys = match (key, secret) {
            (Some(key), Some(secret)) => Some((key, secret, token)),
            (None, None) => var("AWS_ACCESS_KEY_ID")
                .zip(var("AWS_SECRET_ACCESS_KEY"))
                .map(|(key, secret)| (key, secret, token.or_else(|| var("AWS_SESSION_TOKEN")))),
            _ => return Err("access_key_id and secret_access_key go together".to_owned()),
        };
        let upload_parallelism = usize::try_from(parallel).unwrap_or(PARALLEL).min(64);
        Ok(Self {
            bucket,
            region,
            endpoint,
            path_style,
            blobs,
            manifests,
            names,
            refresh,
            keys,
            upload_parallelism,
        })
    }

    pub(super) fn shown(&self) -> String {
        format!("s3://{}/{}{}", self.bucket, self.manifests, self.names.join(";"))
    }
}

/// Reads a duration as Go writes it: `24h`, `1h30m`, `90s`.
fn seconds(text: &str) -> Option<u64> {
    let (mut total, mut number) = (0u64, String::new());
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                number.push(c);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        number.clear();
    }
    (number.is_empty() && !text.is_empty()).then_some(total)
}

/// A bucket that is asked.
pub(super) struct Store3 {
    bucket: Bucket,
    address: Address,
    credentials: Option<Credentials>,
    agent: Agent,
}

impl Store3 {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// The endpoint is no address.
    pub(super) fn new(bucket: &Bucket) -> Result<Self, ShareError> {
        let wrong = |why: String| ShareError::Wrong(format!("endpoint_url={}: {why}", bucket.endpoint));
        let endpoint = bucket.endpoint.parse().map_err(|_| wrong("no address".to_owned()))?;
        let style = if bucket.path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let address = Address::new(endpoint, style, bucket.bucket.clone(), bucket.region.clone());
        let address = address.map_err(|e| wrong(e.to_string()))?;
        let credentials = bucket.keys.clone().map(|(key, secret, token)| match token {
            Some(token) => Credentials::new_with_token(key, secret, token),
            None => Credentials::new(key, secret),
        });
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            // a signature is for one host
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .timeout_per_write(Some(PATIENCE))
            .user_agent(concat!("rbuild/", env!("CARGO_PKG_VERSION")));
        Ok(Self { bucket: bucket.clone(), address, credentials, agent: config.build().into() })
    }

    fn blob_name(&self, blob: &Descriptor) -> String {
        format!("{}{}", self.bucket.blobs, blob.digest)
    }

    fn failed(&self, object: &str, why: impl fmt::Display) -> ShareError {
        ShareError::Bucket { object: format!("s3://{}/{object}", self.bucket.bucket), why: why.to_string() }
    }

    /// Makes a request until it is answered by anything but "not now".
    fn ask(
        &self,
        object: &str,
        send: &dyn Fn(&Self) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, ShareError> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            let outcome = send(self);
            let passing = match &outcome {
                Ok(answer) => matches!(answer.status().as_u16(), 408 | 429 | 500 | 502 | 503 | 504),
                // the address with its signature is in none of these
                Err(error) => matches!(
                    error,
                    ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed
                ),
            };
            if !passing || attempt >= ATTEMPTS {
                return outcome.map_err(|error| self.failed(object, error));
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        unreachable!("the last attempt returns")
    }

    /// Words an answer that is none of those that were hoped for.
    fn refused(&self, object: &str, answer: Response<Body>) -> ShareError {
        let status = answer.status();
        let mut text = String::new();
        let _ = answer.into_body().into_reader().take(MAX_ERROR).read_to_string(&mut text);
        let tag = |name: &str| {
            let begin = text.find(&format!("<{name}>"))? + name.len() + 2;
            let end = text[begin..].find("</")?;
            Some(text[begin..begin + end].chars().filter(|c| !c.is_control()).take(200).collect::<String>())
        };
        let said = [tag("Code"), tag("Message")].into_iter().flatten().collect::<Vec<_>>().join(": ");
        let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
        self.failed(object, format!("the server answered {status}{said}"))
    }

    fn get(&self, object: &str) -> Result<Option<Response<Body>>, ShareError> {
        let answer = self.ask(object, &|store| {
            let url = store.address.get_object(store.credentials.as_ref(), object).sign(GOOD_FOR);
            store.agent.get(url.as_str()).header("accept-encoding", "identity").call()
        })?;
        match answer.status().as_u16() {
            200 => Ok(Some(answer)),
            // a bucket that is not there must not look like an empty cache
            404 => match self.refused(object, answer) {
                ShareError::Bucket { why, .. } if !why.contains("NoSuchBucket") => Ok(None),
                missing => Err(missing),
            },
            _ => Err(self.refused(object, answer)),
        }
    }

    fn put_bytes(&self, object: &str, bytes: &[u8]) -> Result<(), ShareError> {
        let size = bytes.len() as u64;
        self.send(object, size, &|| Ok(Box::new(io::Cursor::new(bytes.to_vec())) as Box<dyn Read + Send>))
    }

    fn send(
        &self,
        object: &str,
        size: u64,
        body: &dyn Fn() -> io::Result<Box<dyn Read + Send>>,
    ) -> Result<(), ShareError> {
        let answer = self.ask(object, &|store| {
            let url = store.address.put_object(store.credentials.as_ref(), object).sign(GOOD_FOR);
            let mut bytes = body()?;
            let request = store.agent.put(url.as_str()).header("content-length", size.to_string());
            request.send(SendBody::from_reader(&mut bytes))
        })?;
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            _ => Err(self.refused(object, answer)),
        }
    }
}

impl LayerProvider for Store3 {
    fn open(&self, _place: &str, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        let name = self.blob_name(blob);
        let answer = self.get(&name).map_err(io::Error::other)?;
        let answer = answer.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, self.failed(&name, "there is no such object").to_string())
        })?;
        Ok(Box::new(answer.into_body().into_reader()))
    }
}

impl CacheSource for Store3 {
    fn name(&self) -> String {
        self.bucket.shown()
    }

    fn place(&self) -> String {
        format!("s3://{}", self.bucket.bucket)
    }

    fn lasts(&self) -> bool {
        false
    }

    fn document(&self) -> Result<Option<Document>, ShareError> {
        for name in &self.bucket.names {
            let object = format!("{}{name}", self.bucket.manifests);
            let Some(answer) = self.get(&object)? else { continue };
            let mut bytes = Vec::new();
            let reader = answer.into_body().into_reader().take(document::LIMIT + 1);
            let read = { reader }.read_to_end(&mut bytes);
            read.map_err(|e| self.failed(&object, e))?;
            return Document::parse(&bytes).map(Some);
        }
        Ok(None)
    }
}

impl CacheTarget for Store3 {
    fn has(&self, blob: &Descriptor) -> Result<bool, ShareError> {
        let name = self.blob_name(blob);
        let answer = self.ask(&name, &|store| {
            let url = store.address.head_object(store.credentials.as_ref(), &name).sign(GOOD_FOR);
            store.agent.head(url.as_str()).call()
        })?;
        match answer.status().as_u16() {
            200 => {
                let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
                let size = text("content-length").and_then(|size| size.parse::<u64>().ok());
                let made = text("last-modified").and_then(|at| OffsetDateTime::parse(at, &Rfc2822).ok());
                let age = made.map_or(0, |at| (OffsetDateTime::now_utc() - at).whole_seconds());
                Ok(size == Some(blob.size) && u64::try_from(age).unwrap_or(0) < self.bucket.refresh)
            }
            404 => Ok(false),
            _ => Err(self.refused(&name, answer)),
        }
    }

    fn put(&self, blob: &Descriptor, file: &Path) -> Result<(), ShareError> {
        // tells a file that cannot be read from a server that does not answer
        drop(open(file)?);
        let body = || Ok(Box::new(std::fs::File::open(file)?) as Box<dyn Read + Send>);
        self.send(&self.blob_name(blob), blob.size, &body)
    }

    fn publish(&self, document: &Document, _spec: &ExportSpec) -> Result<(), ShareError> {
        let bytes = document.to_json();
        for name in &self.bucket.names {
            self.put_bytes(&format!("{}{name}", self.bucket.manifests), &bytes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> Result<Bucket, String> {
        let mut take = |key: &str| fields.iter().find(|(k, _)| *k == key).map(|(_, v)| (*v).to_owned());
        Bucket::read(&mut take)
    }

    #[test]
    fn keys_are_read_and_never_shown() {
        let bucket = read(&[
            ("bucket", "b"),
            ("region", "eu-1"),
            ("prefix", "ci/"),
            ("name", "a;b"),
            ("access_key_id", "AKID"),
            ("secret_access_key", "SECRET"),
            ("session_token", "TOKEN"),
            ("touch_refresh", "1h30m"),
            ("upload_parallelism", "9"),
        ])
        .unwrap();
        assert_eq!((bucket.endpoint.as_str(), bucket.refresh), ("https://s3.eu-1.amazonaws.com", 5400));
        assert_eq!((bucket.blobs.as_str(), bucket.manifests.as_str()), ("ci/blobs/", "ci/manifests/"));
        assert_eq!((bucket.shown().as_str(), bucket.upload_parallelism), ("s3://b/ci/manifests/a;b", 9));
        let shown = format!("{bucket:?}");
        assert!(!shown.contains("SECRET") && !shown.contains("TOKEN") && !shown.contains("AKID"), "{shown}");
        for (fields, part) in [
            (&[("bucket", "b"), ("region", "r"), ("endpoint_url", "ftp://x")][..], "expected http"),
            (&[("bucket", "b"), ("region", "r"), ("use_path_style", "maybe")], "true or false"),
            (&[("bucket", "b"), ("region", "r"), ("access_key_id", "x")], "go together"),
            (&[("bucket", "b"), ("region", "r"), ("upload_parallelism", "0")], "not a number"),
            (&[("bucket", "b"), ("region", "r"), ("touch_refresh", "soon")], "expected 24h"),
        ] {
            assert!(read(fields).unwrap_err().contains(part), "{part}");
        }
    }
}
