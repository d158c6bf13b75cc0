//! The reading side: the files of a log from the oldest on, the last lines only, and what is still being written.

use super::write::numbered;
use super::{Stream, json};
use crate::runtime::time;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A record as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Where it was written.
    pub stream: Stream,
    /// When, in nanoseconds since 1970.
    pub time: i128,
    /// The text; without a line end where the line was cut.
    pub text: String,
    /// Labels and variables that the log was asked to keep.
    pub attrs: BTreeMap<String, String>,
}

/// Which records are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogQuery {
    /// Only so many of the last ones; `None` is all.
    pub tail: Option<usize>,
    /// Not before, in nanoseconds since 1970.
    pub since: Option<i128>,
    /// Not after.
    pub until: Option<i128>,
}

/// Reads a log.
pub struct LogReader {
    path: PathBuf,
    /// Older files, the next one last.
    older: Vec<Box<dyn Read>>,
    current: Option<(File, u64)>,
    buffer: Vec<u8>,
    /// Where the unread part of the buffer begins.
    start: usize,
    query: LogQuery,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader").field("path", &self.path).finish_non_exhaustive()
    }
}

const CHUNK: usize = 64 << 10;

impl LogReader {
    /// Opens a log; one that nothing was written to is empty.
    pub fn open(path: &Path, query: LogQuery) -> io::Result<Self> {
        let current = match File::open(path) {
            Ok(file) => Some((file, 0)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let mut reader =
            Self { path: path.to_owned(), older: Vec::new(), current, buffer: Vec::new(), start: 0, query };
        let mut wanted = query.tail;
        if let (Some((file, at)), Some(left)) = (&mut reader.current, &mut wanted) {
            *at = tail_start(file, left)?;
        }
        for n in 1.. {
            if wanted == Some(0) {
                break;
            }
            let (plain, gz) = (numbered(path, n, false), numbered(path, n, true));
            if let Ok(mut file) = File::open(plain) {
                if let Some(left) = &mut wanted {
                    let at = tail_start(&file, left)?;
                    file.seek(SeekFrom::Start(at))?;
                }
                reader.older.push(Box::new(file));
            } else if let Ok(file) = File::open(gz) {
                let text: Box<dyn Read> = match &mut wanted {
                    None => Box::new(flate2::read::GzDecoder::new(file)),
                    Some(left) => {
                        let mut text = Vec::new();
                        flate2::read::GzDecoder::new(file).read_to_end(&mut text)?;
                        let at = tail_in(&text, left);
                        Box::new(io::Cursor::new(text.split_off(at)))
                    }
                };
                reader.older.push(text);
            } else {
                break;
            }
        }
        Ok(reader)
    }

    /// Gives the next record; `None` when there is none for now.
    pub fn next_record(&mut self) -> io::Result<Option<LogRecord>> {
        loop {
            while let Some(line) = self.line()? {
                // a line that a power cut has damaged is passed over
                let Some(record) = parse(&line) else { continue };
                if self.query.until.is_some_and(|until| record.time > until) {
                    continue;
                }
                if self.query.since.is_none_or(|since| record.time >= since) {
                    return Ok(Some(record));
                }
            }
            if !self.reopen()? {
                return Ok(None);
            }
        }
    }

    /// Gives the next whole line.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut seen = self.start;
        loop {
            if let Some(at) = self.buffer[seen..].iter().position(|b| *b == b'\n') {
                let line = self.buffer[self.start..seen + at].to_vec();
                self.start = seen + at + 1;
                return Ok(Some(line));
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            seen = self.buffer.len();
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = vec![0; CHUNK];
        while let Some(file) = self.older.last_mut() {
            match file.read(&mut chunk)? {
                0 => drop(self.older.pop()),
                n => {
                    self.buffer.extend_from_slice(&chunk[..n]);
                    return Ok(true);
                }
            }
        }
        let Some((file, at)) = &mut self.current else { return Ok(false) };
        if file.metadata()?.len() < *at {
            // begun anew in place
            *at = 0;
            self.buffer.clear();
        }
        let n = file.read_at(&mut chunk, *at)?;
        *at += n as u64;
        self.buffer.extend_from_slice(&chunk[..n]);
        Ok(n > 0)
    }

    /// Goes on with the file that has taken the place of ours.
    fn reopen(&mut self) -> io::Result<bool> {
        let Ok(meta) = self.path.metadata() else { return Ok(false) };
        let same = match &self.current {
            Some((file, _)) => file.metadata()?.ino() == meta.ino(),
            None => false,
        };
        if !same {
            self.current = Some((File::open(&self.path)?, 0));
            self.buffer.clear();
            self.start = 0;
        }
        Ok(!same)
    }
}

fn parse(line: &[u8]) -> Option<LogRecord> {
    let line: json::Line = serde_json::from_slice(line).ok()?;
    let stream = if line.stream == "stderr" { Stream::Err } else { Stream::Out };
    Some(LogRecord { stream, time: time::parse(&line.time)?, text: line.log, attrs: line.attrs })
}

/// Finds where the last `left` lines of a file begin, and takes what was found off that number.
fn tail_start(file: &File, left: &mut usize) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    if *left == 0 {
        return Ok(end);
    }
    let mut first = true;
    let mut chunk = vec![0; CHUNK];
    while end > 0 {
        let start = end.saturating_sub(CHUNK as u64);
        let part = &mut chunk[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        for at in (0..part.len()).rev() {
            if part[at] != b'\n' {
                continue;
            }
            // the end of the last line begins none
            if std::mem::replace(&mut first, false) {
                continue;
            }
            *left -= 1;
            if *left == 0 {
                return Ok(start + at as u64 + 1);
            }
        }
        end = start;
    }
    *left = left.saturating_sub(usize::from(!first));
    Ok(0)
}

fn tail_in(text: &[u8], left: &mut usize) -> usize {
    let lines: Vec<usize> =
        text.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
    let take = lines.len().min(*left);
    *left -= take;
    match lines.len() - take {
        0 => 0,
        skipped => lines[skipped - 1],
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LogConfig, LogDriver, LogWriter};
    use super::*;

    fn config(options: &[(&str, &str)]) -> LogConfig {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        LogConfig { driver: LogDriver::JsonFile, options }
    }

    fn read(path: &Path, query: LogQuery) -> Vec<String> {
        let mut reader = LogReader::open(path, query).unwrap();
        std::iter::from_fn(|| reader.next_record().unwrap()).map(|r| r.text).collect()
    }

    fn tail(n: usize) -> LogQuery {
        LogQuery { tail: Some(n), ..LogQuery::default() }
    }

    #[test]
    fn lines_come_back_with_their_stream_and_long_ones_are_cut_between_characters() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = LogWriter::open(&path, &config(&[]), &[("l".into(), "v".into())]).unwrap();
        writer.take(Stream::Out, b"one\ntw").unwrap();
        writer.take(Stream::Err, b"bad\n").unwrap();
        writer.take(Stream::Out, b"o\n\nend").unwrap();
        writer.finish().unwrap();
        let mut reader = LogReader::open(&path, LogQuery::default()).unwrap();
        let all: Vec<LogRecord> = std::iter::from_fn(|| reader.next_record().unwrap()).collect();
        let texts: Vec<(&str, Stream)> = all.iter().map(|r| (r.text.as_str(), r.stream)).collect();
        use Stream::{Err, Out};
        assert_eq!(texts, [("one\n", Out), ("bad\n", Err), ("two\n", Out), ("\n", Out), ("end", Out)]);
        assert_eq!(all[0].attrs["l"], "v");
        let long = "ä".repeat(20_000) + "\n";
        writer.take(Out, format!("x{long}").as_bytes()).unwrap();
        let records = read(&path, tail(3));
        assert_eq!(records.iter().map(String::len).collect::<Vec<_>>(), [16_383, 16_384, 7235]);
        assert_eq!(records.concat(), format!("x{long}"));
    }

    #[test]
    fn files_are_rotated_and_read_in_order() {
        for (compress, files) in [("false", 3), ("true", 3), ("false", 1)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let count = files.to_string();
            let config = config(&[("max-size", "2k"), ("max-file", &count), ("compress", compress)]);
            let mut writer = LogWriter::open(&path, &config, &[]).unwrap();
            for n in 0..100 {
                writer.take(Stream::Out, format!("line {n}\n").as_bytes()).unwrap();
            }
            let kept = std::fs::read_dir(dir.path()).unwrap().count();
            assert_eq!(kept, files);
            assert!(std::fs::metadata(&path).unwrap().len() <= 2048);
            let all = read(&path, LogQuery::default());
            let first: usize = all[0].trim().strip_prefix("line ").unwrap().parse().unwrap();
            let want: Vec<String> = (first..100).map(|n| format!("line {n}\n")).collect();
            assert_eq!(all, want, "{compress} {files}");
            assert!(files == 1 || all.len() > 40, "{}", all.len());
            let last = all.len().min(35);
            assert_eq!(read(&path, tail(last)), want[want.len() - last..]);
            assert_eq!(read(&path, tail(1)), ["line 99\n"]);
            assert!(read(&path, tail(0)).is_empty());
            assert_eq!(read(&path, tail(1000)), want);
        }
    }

    #[test]
    fn what_is_written_later_is_read_later_across_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut reader = LogReader::open(&path, LogQuery::default()).unwrap();
        assert_eq!(reader.next_record().unwrap(), None);
        let config = config(&[("max-size", "1k"), ("max-file", "2")]);
        let mut writer = LogWriter::open(&path, &config, &[]).unwrap();
        let mut got = Vec::new();
        for n in 0..60 {
            writer.take(Stream::Out, format!("{n}\n").as_bytes()).unwrap();
            while let Some(record) = reader.next_record().unwrap() {
                got.push(record.text);
            }
        }
        assert_eq!(got, (0..60).map(|n| format!("{n}\n")).collect::<Vec<_>>());
    }

    #[test]
    fn times_choose() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let line = |n: u8| {
            format!("{{\"log\":\"{n}\\n\",\"stream\":\"stdout\",\"time\":\"2001-01-0{n}T00:00:00Z\"}}\n")
        };
        std::fs::write(&path, [line(1), "damaged\n".into(), line(2), line(3)].concat()).unwrap();
        let at = |text| time::parse(text);
        let query =
            LogQuery { since: at("2001-01-02T00:00:00Z"), until: at("2001-01-02T12:00:00Z"), tail: None };
        assert_eq!(read(&path, query), ["2\n"]);
    }
}
