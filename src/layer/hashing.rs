//! Sums up what is written: for the diff ID of a tar and the digest of its compressed form.

use crate::digest::Digest;
use sha2::{Digest as _, Sha256};
use std::io::{self, Write};

/// A writer that knows what went through it.
pub struct Hashing<W: Write> {
    /// Where the bytes go.
    pub inner: W,
    sum: Sha256,
    size: u64,
}

impl<W: Write> Hashing<W> {
    /// Starts with nothing written.
    pub fn new(inner: W) -> Self {
        Self { inner, sum: Sha256::new(), size: 0 }
    }

    /// Gives digest and number of the bytes.
    pub fn finish(self) -> (Digest, u64) {
        let (_, digest, size) = self.into_parts();
        (digest, size)
    }

    /// Gives the writer back, and digest and number of the bytes.
    pub fn into_parts(self) -> (W, Digest, u64) {
        (self.inner, Digest::from_sha256(self.sum.finalize().into()), self.size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.sum.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
