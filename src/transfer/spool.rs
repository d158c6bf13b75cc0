//! A blob that is read while it is still being written, so that a layer is unpacked while it comes.
//!
//! The writer says how far the file is good, and at last how it ended; readers wait for more. They see the end only
//! after the writer has checked the digest, so whoever read to the end has read the right bytes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What writer and reader share.
#[derive(Default)]
struct State {
    file: Option<File>,
    good: u64,
    /// The text of the error, when it ended with one.
    end: Option<Result<(), String>>,
}

/// One blob between its writer and its readers.
#[derive(Clone, Default)]
pub(super) struct Spool {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Spool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says where the bytes are.
    pub(super) fn begin(&self, file: File) {
        self.lock().file = Some(file);
    }

    /// Says that the file is good up to here.
    pub(super) fn grown(&self, good: u64) {
        self.lock().good = good;
        self.shared.1.notify_all();
    }

    /// Says how it ended; the first word counts.
    pub(super) fn end(&self, how: Result<(), String>) {
        self.lock().end.get_or_insert(how);
        self.shared.1.notify_all();
    }

    /// Reads from the beginning.
    pub(super) fn reader(&self) -> SpoolReader {
        SpoolReader { spool: self.clone(), at: 0 }
    }

    /// Waits for the end.
    pub(super) fn wait(&self) -> Result<(), String> {
        let mut state = self.lock();
        loop {
            match &state.end {
                Some(end) => return end.clone(),
                None => state = self.shared.1.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Reads a spool, waiting for what has not come yet.
pub(super) struct SpoolReader {
    spool: Spool,
    at: u64,
}

impl Read for SpoolReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.spool.lock();
        loop {
            if state.good > self.at {
                let most = usize::try_from(state.good - self.at).unwrap_or(usize::MAX).min(buf.len());
                let file = state.file.as_ref().ok_or(io::ErrorKind::NotFound)?.try_clone()?;
                drop(state);
                let n = file.read_at(&mut buf[..most], self.at)?;
                self.at += n as u64;
                return Ok(n);
            }
            match &state.end {
                Some(Ok(())) => return Ok(0),
                Some(Err(why)) => return Err(io::Error::other(why.clone())),
                None => state = self.spool.shared.1.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    fn feed(end: Result<(), String>) -> io::Result<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        let spool = Spool::default();
        let mut reader = spool.reader();
        let thread = std::thread::spawn(move || {
            spool.begin(file.try_clone().unwrap());
            for piece in [&b"one "[..], b"two ", b"three"] {
                file.write_all(piece).unwrap();
                let good = file.metadata().unwrap().len();
                spool.grown(good);
                std::thread::sleep(Duration::from_millis(5));
            }
            spool.end(end);
            assert!(spool.wait().is_ok() == (spool.lock().good == 13 && spool.wait().is_ok()));
        });
        let mut all = Vec::new();
        let outcome = reader.read_to_end(&mut all);
        thread.join().unwrap();
        outcome.map(|_| all)
    }

    #[test]
    fn readers_wait_and_see_how_it_ended() {
        assert_eq!(feed(Ok(())).unwrap(), b"one two three");
        assert_eq!(feed(Err("broken".into())).unwrap_err().to_string(), "broken");
    }
}
