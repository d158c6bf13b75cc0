//! The writing side: cuts output into lines, dates them, keeps files small.

use super::{LogConfig, LogDriver, Stream, json};
use crate::runtime::time;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A longer line becomes several records, in bytes.
const LINE_LIMIT: usize = 16 << 10;

/// Writes the output of one container.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    max_size: u64,
    max_file: u32,
    compress: bool,
    /// A JSON object, or nothing.
    attrs: Vec<u8>,
    /// What has no line end yet, of both streams.
    rest: [Vec<u8>; 2],
    lines: Vec<u8>,
}

impl LogWriter {
    /// Opens the log for appending. `attrs` are the labels and variables that each record carries.
    pub fn open(path: &Path, config: &LogConfig, attrs: &[(String, String)]) -> io::Result<Self> {
        let file = match config.driver {
            LogDriver::None => None,
            LogDriver::JsonFile | LogDriver::Local => Some(append(path)?),
        };
        let size = file.as_ref().map(File::metadata).transpose()?.map_or(0, |meta| meta.len());
        let map: std::collections::BTreeMap<&str, &str> = attrs.iter().map(|(k, v)| (&**k, &**v)).collect();
        let attrs = if map.is_empty() { Vec::new() } else { serde_json::to_vec(&map)? };
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            max_size: config.max_size().unwrap_or(0),
            max_file: config.max_file(),
            compress: config.options.get("compress").is_some_and(|v| v == "true"),
            attrs,
            rest: [Vec::new(), Vec::new()],
            lines: Vec::new(),
        })
    }

    /// Takes a piece of output.
    pub fn take(&mut self, stream: Stream, mut bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let now = time::format(time::now());
        while !bytes.is_empty() {
            let rest = &mut self.rest[stream as usize];
            let room = LINE_LIMIT - rest.len();
            let window = &bytes[..bytes.len().min(room)];
            let end = window.iter().position(|b| *b == b'\n').map(|at| at + 1);
            rest.extend_from_slice(&bytes[..end.unwrap_or(window.len())]);
            bytes = &bytes[end.unwrap_or(window.len())..];
            let full = rest.len() == LINE_LIMIT;
            if end.is_none() && !full {
                break;
            }
            let cut = if end.is_none() { whole_chars(rest) } else { rest.len() };
            let left = rest.split_off(cut);
            let line = std::mem::replace(rest, left);
            self.record(&line, stream, &now)?;
        }
        self.flush()
    }

    /// Writes what has no line end: the stream has ended.
    pub fn finish(&mut self) -> io::Result<()> {
        let now = time::format(time::now());
        for stream in [Stream::Out, Stream::Err] {
            let line = std::mem::take(&mut self.rest[stream as usize]);
            if !line.is_empty() && self.file.is_some() {
                self.record(&line, stream, &now)?;
            }
        }
        self.flush()
    }

    fn record(&mut self, line: &[u8], stream: Stream, time: &str) -> io::Result<()> {
        let before = self.lines.len();
        json::push_line(&mut self.lines, line, stream, &self.attrs, time);
        let there = self.size + before as u64;
        if self.max_size > 0 && there > 0 && self.size + self.lines.len() as u64 > self.max_size {
            let last = self.lines.split_off(before);
            self.flush()?;
            self.rotate()?;
            self.lines = last;
        }
        // few system calls for much output, little memory for the monitor
        if self.lines.len() >= 64 << 10 { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file
            && !self.lines.is_empty()
        {
            let written = file.write_all(&self.lines);
            self.size += self.lines.len() as u64;
            self.lines.clear();
            written?;
        }
        if self.lines.capacity() > 128 << 10 {
            self.lines.shrink_to(64 << 10);
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.size = 0;
        if self.max_file <= 1 {
            // readers see that it has become shorter
            return self.file.as_ref().map_or(Ok(()), |file| file.set_len(0));
        }
        let name = |n: u32, gz: bool| numbered(&self.path, n, gz);
        for n in (1..self.max_file).rev() {
            for gz in [false, true] {
                if n == self.max_file - 1 {
                    let _ = std::fs::remove_file(name(n, gz));
                } else {
                    let _ = std::fs::rename(name(n, gz), name(n + 1, gz));
                }
            }
        }
        std::fs::rename(&self.path, name(1, false))?;
        self.file = Some(append(&self.path)?);
        if self.compress {
            compress(&name(1, false), &name(1, true))?;
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o640).open(path)
}

/// The n-th file before the current one.
pub(super) fn numbered(path: &Path, n: u32, gz: bool) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}{}", if gz { ".gz" } else { "" }));
    name.into()
}

fn compress(from: &Path, to: &Path) -> io::Result<()> {
    let mut staged = to.as_os_str().to_owned();
    staged.push(".part");
    let mut out = flate2::write::GzEncoder::new(File::create(&staged)?, flate2::Compression::fast());
    io::copy(&mut File::open(from)?, &mut out)?;
    out.finish()?;
    std::fs::rename(&staged, to)?;
    std::fs::remove_file(from)
}

/// Gives the length without an unfinished character at the end.
fn whole_chars(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    let start = (tail..bytes.len()).rev().find(|at| bytes[*at] & 0xc0 == 0xc0);
    match start {
        Some(at) if at > 0 && std::str::from_utf8(&bytes[at..]).is_err_and(|e| e.error_len().is_none()) => at,
        _ => bytes.len(),
    }
}
