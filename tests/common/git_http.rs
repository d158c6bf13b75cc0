//! Serves a directory of repositories over HTTP by `git http-backend`, one request a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

/// A server of the repositories below a directory; it ends with the test.
pub(crate) struct GitHttp {
    port: u16,
}

impl GitHttp {
    /// Serves what lies below `base`.
    pub(crate) fn serve(base: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let base = base.to_owned();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let base = base.clone();
                thread::spawn(move || answer(stream, &base));
            }
        });
        Self { port }
    }

    /// The address of a repository.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.port)
    }
}

/// Hands one request to git as a CGI program (RFC 3875) and its answer back.
fn answer(stream: TcpStream, base: &Path) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("a request");
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut command = Command::new("git");
    command.arg("http-backend").env("GIT_PROJECT_ROOT", base).env("GIT_HTTP_EXPORT_ALL", "1");
    command.env("REQUEST_METHOD", method).env("PATH_INFO", path).env("QUERY_STRING", query);
    // what the test made belongs to whoever runs it, which git may doubt
    command
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*");
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).expect("a header");
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().expect("a length"),
            "transfer-encoding" => chunked = value == "chunked",
            "expect" => reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").expect("sent"),
            "content-type" => drop(command.env("CONTENT_TYPE", value)),
            "content-encoding" => drop(command.env("HTTP_CONTENT_ENCODING", value)),
            "git-protocol" => drop(command.env("GIT_PROTOCOL", value)),
            _ => {}
        }
    }
    let body = if chunked { chunks(&mut reader) } else { exactly(&mut reader, length) };
    command.env("CONTENT_LENGTH", body.len().to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut backend = command.spawn().expect("git starts");
    backend.stdin.take().expect("piped").write_all(&body).expect("git reads");
    let output = backend.wait_with_output().expect("git ends").stdout;
    let end = output.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(output.len());
    let head = String::from_utf8_lossy(&output[..end]);
    let status = head.lines().find_map(|l| l.strip_prefix("Status: ")).unwrap_or("200 OK");
    let start = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    let stream = reader.get_mut();
    // the client may be gone, having heard enough
    let _ = stream.write_all(start.as_bytes()).and_then(|()| stream.write_all(&output));
}

fn exactly(reader: &mut impl Read, length: usize) -> Vec<u8> {
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    body
}

fn chunks(reader: &mut impl BufRead) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        reader.read_line(&mut size).expect("a size");
        let size = usize::from_str_radix(size.trim_end(), 16).expect("hexadecimal");
        body.extend(exactly(reader, size));
        reader.read_line(&mut String::new()).expect("a line's end");
        if size == 0 {
            return body;
        }
    }
}

/// Makes a repository at `place` with one commit of `files`.
pub(crate) fn repository(place: PathBuf, files: &[(&str, &str)], also: &[&[&str]]) {
    std::fs::create_dir_all(&place).expect("a directory");
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"])
            .arg("-C")
            .arg(&place)
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .expect("git starts");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    git(&["init", "-q", "-b", "main"]);
    for (name, content) in files {
        std::fs::write(place.join(name), content).expect("written");
    }
    for args in also {
        git(args);
    }
    git(&["add", "--all"]);
    git(&["commit", "-q", "-m", "one"]);
}
