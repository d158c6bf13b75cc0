//! One file over HTTP or HTTPS, asked for again with its validators so that an unchanged one is not sent again.

use super::{RemoteError, mismatch, redact};
use crate::digest::{ContentId, Digest};
use crate::tree::Mtime;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

/// The name of a file whose URL has none; BuildKit's.
const UNNAMED: &str = "__unnamed__";
/// No file of a build is larger, in bytes.
const DEFAULT_LIMIT: u64 = 64 << 30;
const CONNECT: Duration = Duration::from_secs(30);
const FIRST_BYTE: Duration = Duration::from_secs(120);
const WHOLE: Duration = Duration::from_secs(2 * 60 * 60);
const MAX_REDIRECTS: u32 = 10;

/// What to ask for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// http or https.
    pub url: &'a str,
    /// What the bytes have to be.
    pub checksum: Option<&'a Digest>,
    /// From the last time; the server may then say that nothing changed.
    pub known: Option<&'a Validators>,
    /// Value of the `Authorization` header; it is not sent on to another host.
    pub authorization: Option<&'a str>,
    /// Most bytes to take.
    pub limit: u64,
}

impl<'a> Request<'a> {
    /// Asks without conditions.
    pub fn new(url: &'a str) -> Self {
        Self { url, checksum: None, known: None, authorization: None, limit: DEFAULT_LIMIT }
    }
}

/// What names a version of a file for its server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Validators {
    /// `ETag`, with its quotes.
    pub etag: Option<String>,
    /// `Last-Modified` as sent.
    pub last_modified: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The version with the known validators is still the one.
    Unchanged,
    /// The file is there.
    File(Download),
}

/// A file that was written to the caller's directory, mode 0600, its time that of the server or 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// In the directory.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// blake3 of the bytes.
    pub content: ContentId,
    /// sha256 of the bytes.
    pub digest: Digest,
    /// For the next time.
    pub validators: Validators,
}

/// Fetches a file into the directory `into`.
///
/// # Errors
/// The server cannot be reached or refuses, the file is larger than the limit or not what the checksum says.
pub fn fetch(request: &Request<'_>, into: &Path) -> Result<Answer, RemoteError> {
    let url = request.url;
    let name = file_name(url)?;
    let transport = |e: ureq::Error| RemoteError::Transport { url: redact(url), why: e.to_string() };
    let mut call = agent().get(url);
    if let Some(value) = request.authorization {
        call = call.header("authorization", value);
    }
    let known = request.known.cloned().unwrap_or_default();
    match &known {
        Validators { etag: Some(etag), .. } => call = call.header("if-none-match", etag),
        Validators { last_modified: Some(time), .. } => call = call.header("if-modified-since", time),
        _ => {}
    }
    let mut response = call.call().map_err(transport)?;
    let status = response.status().as_u16();
    if status == 304 && request.known.is_some() {
        return Ok(Answer::Unchanged);
    }
    if !(200..300).contains(&status) {
        return Err(RemoteError::Status { url: redact(url), status });
    }
    let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let validators = Validators { etag: header("etag"), last_modified: header("last-modified") };
    let mut body = response.body_mut().with_config().limit(request.limit.saturating_add(1)).reader();
    let mut download = receive(request, &mut body, &name, into)?;
    let keep = |source| RemoteError::Keep { url: redact(url), source };
    let mtime = validators.last_modified.as_deref().and_then(http_date).unwrap_or_default();
    set_time(&into.join(&name), mtime).map_err(keep)?;
    download.validators = validators;
    Ok(Answer::File(download))
}

/// Gives the name of the file behind a URL: the last part of its path.
///
/// # Errors
/// The name would be `..` or hold a NUL.
pub fn file_name(url: &str) -> Result<String, RemoteError> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    let decoded = percent_decode(path);
    let name = decoded.split(|b| *b == b'/').rfind(|part| !part.is_empty());
    match name {
        None | Some(b".") => Ok(UNNAMED.to_owned()),
        Some(name) if name == b".." || name.contains(&0) => {
            Err(RemoteError::Address { url: redact(url), why: "its path ends in no file name".to_owned() })
        }
        Some(name) => Ok(String::from_utf8_lossy(name).into_owned()),
    }
}

pub(super) fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = (byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

fn agent() -> ureq::Agent {
    let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build();
    ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(MAX_REDIRECTS)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(FIRST_BYTE))
        .timeout_global(Some(WHOLE))
        .user_agent(concat!("rbuild/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// Takes the body down, names it on the way and compares it with what was asked for.
fn receive(
    request: &Request<'_>,
    body: &mut dyn Read,
    name: &str,
    into: &Path,
) -> Result<Download, RemoteError> {
    let url = || redact(request.url);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(into.join(name), flags, Mode::from_raw_mode(0o600));
    let mut file = file.map(File::from).map_err(|e| RemoteError::Keep { url: url(), source: e.into() })?;
    let (mut blake, mut sha256) = (blake3::Hasher::new(), Sha256::new());
    let mut sha512 = request.checksum.filter(|c| c.algorithm() == "sha512").map(|_| Sha512::new());
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let n = body.read(&mut buffer).map_err(|e| RemoteError::Transport {
            url: url(),
            why: format!("the transfer broke off: {e}"),
        })?;
        if n == 0 {
            break;
        }
        size += n as u64;
        if size > request.limit {
            return Err(RemoteError::TooLarge { url: url(), limit: request.limit });
        }
        blake.update(&buffer[..n]);
        sha256.update(&buffer[..n]);
        if let Some(sha512) = &mut sha512 {
            sha512.update(&buffer[..n]);
        }
        file.write_all(&buffer[..n]).map_err(|source| RemoteError::Keep { url: url(), source })?;
    }
    let digest = Digest::from_sha256(sha256.finalize().into());
    if let Some(want) = request.checksum {
        let found = match sha512 {
            Some(sha512) => format!("sha512:{}", crate::digest::hex(&sha512.finalize())).parse().ok(),
            None => Some(digest.clone()),
        };
        let found = found.unwrap_or_else(|| digest.clone());
        if found != *want {
            return Err(mismatch(request.url, want, &found));
        }
    }
    let content = blake.finalize().into();
    Ok(Download { name: name.to_owned(), size, content, digest, validators: Validators::default() })
}

fn http_date(text: &str) -> Option<Mtime> {
    let text = text.trim().replace("GMT", "+0000");
    let format = &time::format_description::well_known::Rfc2822;
    let time = time::OffsetDateTime::parse(&text, format).ok()?;
    Some(Mtime { secs: time.unix_timestamp(), nanos: 0 })
}

fn set_time(path: &Path, mtime: Mtime) -> std::io::Result<()> {
    let at = Timespec { tv_sec: mtime.secs, tv_nsec: i64::from(mtime.nanos) as _ };
    let times = Timestamps { last_access: at, last_modification: at };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::os::unix::fs::MetadataExt;

    /// Answers each request, one a connection, with the next of the given texts; gives back what was asked.
    fn serve(answers: Vec<String>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = String::new();
                let mut lines = BufReader::new(stream.try_clone().unwrap());
                while lines.read_line(&mut head).unwrap() > 2 {}
                asked.push(head.to_lowercase());
                stream.write_all(answer.as_bytes()).unwrap();
            }
            asked
        });
        (base, thread)
    }

    fn ok(headers: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}",
            body.len()
        )
    }

    #[test]
    fn a_file_comes_with_name_mode_time_and_digest() {
        let dir = tempfile::tempdir().unwrap();
        let headers = "ETag: \"v1\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        let (base, server) = serve(vec![ok(headers, "hello")]);
        let answer = fetch(&Request::new(&format!("{base}/d/f%20x.txt?y=z/q#frag")), dir.path()).unwrap();
        let Answer::File(file) = answer else { panic!("{answer:?}") };
        assert_eq!((file.name.as_str(), file.size), ("f x.txt", 5));
        assert_eq!(file.digest, Digest::sha256_of(b"hello"));
        assert_eq!(file.content, blake3::hash(b"hello").into());
        assert_eq!(file.validators.etag.as_deref(), Some("\"v1\""));
        let stat = std::fs::metadata(dir.path().join("f x.txt")).unwrap();
        assert_eq!((stat.mode() & 0o7777, stat.mtime()), (0o600, 784_111_777));
        assert!(server.join().unwrap()[0].starts_with("get /d/f%20x.txt?y=z/q http/1.1"));
    }

    #[test]
    fn what_is_known_is_not_sent_again() {
        let dir = tempfile::tempdir().unwrap();
        let (base, server) = serve(vec!["HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_owned()]);
        let known = Validators { etag: Some("\"v1\"".into()), last_modified: None };
        let url = format!("{base}/f");
        let request = Request { known: Some(&known), authorization: Some("Bearer t"), ..Request::new(&url) };
        assert_eq!(fetch(&request, dir.path()).unwrap(), Answer::Unchanged);
        let asked = &server.join().unwrap()[0];
        assert!(
            asked.contains("if-none-match: \"v1\"") && asked.contains("authorization: bearer t"),
            "{asked}"
        );
    }

    #[test]
    fn checksums_sizes_and_errors_are_minded() {
        let dir = tempfile::tempdir().unwrap();
        let redirect = |to: &str| {
            format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        };
        let (base, server) = serve(vec![
            ok("", "hello"),
            ok("", "hello"),
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
            redirect("/there"),
            ok("", "moved"),
            "HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\ncut".to_owned(),
        ]);
        let url = |name: &str| format!("{base}/{name}");
        let wrong = Digest::sha256_of(b"other");
        let error =
            fetch(&Request { checksum: Some(&wrong), ..Request::new(&url("a")) }, dir.path()).unwrap_err();
        assert!(matches!(error, RemoteError::Checksum { .. }), "{error}");
        let error = fetch(&Request { limit: 4, ..Request::new(&url("b")) }, dir.path()).unwrap_err();
        assert!(matches!(error, RemoteError::TooLarge { .. }), "{error}");
        let error = fetch(&Request::new(&url("c")), dir.path()).unwrap_err();
        assert!(matches!(error, RemoteError::Status { status: 404, .. }), "{error}");
        let Answer::File(file) = fetch(&Request::new(&url("d")), dir.path()).unwrap() else { panic!() };
        assert_eq!((file.name.as_str(), file.size), ("d", 5), "the name is that of the first URL");
        let error = fetch(&Request::new(&url("e")), dir.path()).unwrap_err();
        assert!(matches!(error, RemoteError::Transport { .. }), "{error}");
        server.join().unwrap();
    }

    #[test]
    fn names_are_one_component() {
        for (url, want) in [
            ("http://h/a/b.txt", "b.txt"),
            ("http://h/a/b/", "b"),
            ("http://h/a%2Fb", "b"),
            ("http://h/%zz", "%zz"),
            ("http://h", UNNAMED),
            ("http://h/", UNNAMED),
            ("http://h/.", UNNAMED),
            ("http://h?x=/y", UNNAMED),
        ] {
            assert_eq!(file_name(url).unwrap(), want, "{url}");
        }
        for url in ["http://h/..", "http://h/a/%2e%2e", "http://h/a%00b"] {
            assert!(file_name(url).is_err(), "{url}");
        }
    }
}
