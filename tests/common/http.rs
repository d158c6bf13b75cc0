//! A tiny HTTP server on the loopback device that gives out files from memory.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// A running server; its thread ends with the test process.
pub(crate) struct Server {
    address: SocketAddr,
}

impl Server {
    /// Serves each content under its path, which begins with a slash.
    pub(crate) fn start<const N: usize>(files: [(&str, Vec<u8>); N]) -> Self {
        let files: BTreeMap<String, Vec<u8>> =
            files.into_iter().map(|(path, content)| (path.to_owned(), content)).collect();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // a client that goes away is no fault of the server
                let _ = answer(stream, &files);
            }
        });
        Self { address }
    }

    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn answer(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let (mut first, mut line) = (String::new(), String::new());
    lines.read_line(&mut first)?;
    while lines.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match files.get(path) {
        Some(body) => ("200 OK", body.as_slice()),
        None => ("404 Not Found", &b""[..]),
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(body)
}
