//! An HTTP server on the loopback device whose answers a test writes, byte by byte if it likes: for servers that lie,
//! stall or hand out tokens. One request a connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What a client asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A header by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A running server; its threads end with the test process.
pub(crate) struct Web {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Web {
    /// Answers each request with what `answer` writes, which may be anything.
    pub(crate) fn start(
        answer: impl Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (kept, answer) = (seen.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, answer) = (kept.clone(), answer.clone());
                // a client that goes away is no fault of the server
                thread::spawn(move || drop(serve(stream, &kept, &*answer)));
            }
        });
        Self { address, seen }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// All requests until now.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("no holder panics").clone()
    }
}

fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request, &mut TcpStream) -> io::Result<()>,
) -> io::Result<()> {
    let mut first = [0];
    stream.peek(&mut first)?;
    // the beginning of a TLS handshake: whoever asks so finds nobody
    if first[0] == 0x16 {
        return Ok(());
    }
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? <= 2 {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let mut request = Request { method, path, headers, body: Vec::new() };
    let length = request.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    lines.take(length).read_to_end(&mut request.body)?;
    seen.lock().expect("no holder panics").push(request.clone());
    answer(&request, &mut stream)
}

/// Writes a whole answer.
pub(crate) fn reply(
    stream: &mut TcpStream,
    status: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<()> {
    head(stream, status, headers, Some(body.len() as u64))?;
    stream.write_all(body)
}

/// Writes the head of an answer; without a length the body ends with the connection.
pub(crate) fn head(
    stream: &mut TcpStream,
    status: &str,
    headers: &[(&str, &str)],
    length: Option<u64>,
) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    if let Some(length) = length {
        text.push_str(&format!("Content-Length: {length}\r\n"));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes())
}

/// Passes connections on to another server and counts what goes through.
pub(crate) struct Meter {
    pub(crate) host: String,
    up: Arc<Mutex<Vec<u8>>>,
}

impl Meter {
    /// Stands in front of `to` (`host:port`).
    pub(crate) fn before(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let host = listener.local_addr().expect("an address").to_string();
        let up: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (count, to) = (up.clone(), to.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&to) else { continue };
                let (Ok(mut from), Ok(mut back)) = (client.try_clone(), server.try_clone()) else { continue };
                let (mut server, mut client, count) = (server, client, count.clone());
                thread::spawn(move || {
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(n @ 1..) = from.read(&mut buffer) {
                        count.lock().expect("no holder panics").extend_from_slice(&buffer[..n]);
                        if server.write_all(&buffer[..n]).is_err() {
                            break;
                        }
                    }
                    let _ = server.shutdown(std::net::Shutdown::Write);
                });
                thread::spawn(move || {
                    let _ = io::copy(&mut back, &mut client);
                    let _ = client.shutdown(std::net::Shutdown::Write);
                });
            }
        });
        Self { host, up }
    }

    /// What clients have sent since the last call, as text.
    pub(crate) fn take(&self) -> String {
        thread::sleep(Duration::from_millis(50));
        let bytes = std::mem::take(&mut *self.up.lock().expect("no holder panics"));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Passes connections on to another server; one over which somebody asks for a certain thing is silent from then on.
pub(crate) struct Stall {
    pub(crate) host: String,
}

impl Stall {
    /// Stands in front of `to` (`host:port`); `about` is what a request must have in it.
    pub(crate) fn before(to: &str, about: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let host = listener.local_addr().expect("an address").to_string();
        let (to, about) = (to.to_owned(), Arc::new(about));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&to) else { continue };
                let (Ok(mut from), Ok(mut back)) = (client.try_clone(), server.try_clone()) else { continue };
                let (mut server, mut client, about) = (server, client, about.clone());
                thread::spawn(move || {
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(n @ 1..) = from.read(&mut buffer) {
                        if about(&String::from_utf8_lossy(&buffer[..n])) {
                            // nothing goes on, and nothing is closed, until the client has gone
                            while let Ok(1..) = from.read(&mut buffer) {
                                thread::sleep(Duration::from_millis(100));
                            }
                            break;
                        }
                        if server.write_all(&buffer[..n]).is_err() {
                            break;
                        }
                    }
                    let _ = server.shutdown(std::net::Shutdown::Both);
                });
                thread::spawn(move || {
                    let _ = io::copy(&mut back, &mut client);
                    let _ = client.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        Self { host }
    }
}
