//! Being told to stop while a thread waits for somebody else's answer.
//!
//! A read from a socket ends when the other side answers or patience runs out, which may take a minute; who presses
//! Ctrl-C does not want to wait for that. So what may wait goes to a thread of its own that nobody joins: whoever wants its
//! answer looks several times a second whether it is still wanted. Such a thread owns nothing that has to be cleaned up.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Between two looks at whether an answer is still wanted.
const LOOK: Duration = Duration::from_millis(50);
/// Bytes that travel at once.
const BLOCK: usize = 256 << 10;
/// Blocks that wait for a slow reader.
const AHEAD: usize = 2;

/// Whether somebody has asked to stop; all copies know it.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

/// Somebody has asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Stopped;

impl Stop {
    /// Asks to stop.
    pub fn now(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Says whether somebody has.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// As [`Stop::is_asked`], as an error for `?`.
    ///
    /// # Errors
    /// Somebody has.
    pub fn check(&self) -> io::Result<()> {
        if self.is_asked() { Err(io::Error::other(Stopped)) } else { Ok(()) }
    }

    /// Does something that may wait long, until it is done or somebody asks to stop; then it is left to itself.
    ///
    /// # Errors
    /// Somebody has asked to stop.
    pub fn or<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stopped> {
        let (tell, told) = sync_channel(1);
        // nobody may want to hear it any more
        std::thread::spawn(move || drop(tell.send(work())));
        self.wait(&told).ok_or(Stopped)
    }

    /// Waits for an answer; `None` when somebody asks to stop before, or there will be none.
    fn wait<T>(&self, told: &Receiver<T>) -> Option<T> {
        loop {
            if self.is_asked() {
                return None;
            }
            match told.recv_timeout(LOOK) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
}

/// Reads what another thread reads, until somebody asks to stop.
pub struct Pump {
    stop: Stop,
    blocks: Receiver<io::Result<Vec<u8>>>,
    block: Vec<u8>,
    at: usize,
    over: bool,
}

impl Pump {
    /// Begins to read what `open` opens, both on another thread. The errors of both come out of the reader as they are.
    pub fn start(
        stop: &Stop,
        open: impl FnOnce() -> io::Result<Box<dyn Read + Send>> + Send + 'static,
    ) -> Self {
        let (tell, blocks) = sync_channel(AHEAD);
        std::thread::spawn(move || match open() {
            Ok(from) => pump(from, &tell),
            Err(error) => drop(tell.send(Err(error))),
        });
        Self { stop: stop.clone(), blocks, block: Vec::new(), at: 0, over: false }
    }
}

/// Ends when all is read, when that fails, or when nobody listens any more.
fn pump(mut from: Box<dyn Read + Send>, tell: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut block = vec![0; BLOCK];
        let read = match from.read(&mut block) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(n) => {
                block.truncate(n);
                Ok(block)
            }
            Err(error) => Err(error),
        };
        let last = read.as_ref().map_or(true, Vec::is_empty);
        if tell.send(read).is_err() || last {
            return;
        }
    }
}

impl Read for Pump {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if self.over {
                return Ok(0);
            }
            self.stop.check()?;
            let Some(block) = self.stop.wait(&self.blocks) else {
                self.stop.check()?;
                return Err(io::Error::other("the thread that reads has ended"));
            };
            (self.block, self.at) = (block?, 0);
            self.over = self.block.is_empty();
        }
        let n = buf.len().min(self.block.len() - self.at);
        buf[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_elsewhere_comes_whole_with_its_error() {
        let bytes: Vec<u8> = (0..3 * BLOCK + 17).map(|n| n as u8).collect();
        let source = bytes.clone();
        let mut all = Vec::new();
        let mut pump = Pump::start(&Stop::default(), move || Ok(Box::new(io::Cursor::new(source))));
        pump.read_to_end(&mut all).unwrap();
        assert!(all == bytes && pump.read(&mut [0; 8]).unwrap() == 0);
        let mut pump = Pump::start(&Stop::default(), || Err(io::Error::other("no such thing")));
        assert_eq!(pump.read(&mut [0; 8]).unwrap_err().to_string(), "no such thing");
    }

    #[test]
    fn nobody_waits_longer_than_wanted() {
        struct Never(Receiver<()>);
        impl Read for Never {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(0)
            }
        }
        let (_held, never) = sync_channel(0);
        let stop = Stop::default();
        let mut pump = Pump::start(&stop, move || Ok(Box::new(Never(never))));
        let other = stop.clone();
        std::thread::spawn(move || other.now());
        assert_eq!(pump.read(&mut [0; 8]).unwrap_err().to_string(), "interrupted");
        let (_held, never) = sync_channel::<()>(0);
        assert_eq!(stop.or(move || never.recv().is_ok()), Err(Stopped));
        assert_eq!(Stop::default().or(|| 7), Ok(7));
    }
}
