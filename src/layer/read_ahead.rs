//! Overlaps the reading of a stream with what is done with it.

use super::{LayerError, UnpackOptions, decoder, unpack};
use crate::digest::{DiffId, Digest};
use crate::tree::Diff;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes that travel together between threads.
const BLOCK: usize = 256 << 10;
/// Blocks that may wait.
const WAITING: usize = 8;
/// Some bytes of the tar, for who unpacks them and who sums them up.
type Block = Arc<Vec<u8>>;
/// Most bytes after the tar's end marker; writers pad to a record of some KiB.
const MAX_TRAILER: u64 = 16 << 20;

/// What [`unpack_blob`] found.
#[derive(Debug)]
pub struct Unpacked {
    /// What the layer holds.
    pub diff: Diff,
    /// Digest of the uncompressed tar, to its very end.
    pub diff_id: DiffId,
    /// Length of the uncompressed tar in bytes.
    pub tar_size: u64,
}

/// Unpacks a layer blob, compressed or not; decompression, hashing and writing go on at the same time.
///
/// The caller compares the diff ID with the one that was promised before it lets anybody see the tree.
///
/// # Errors
/// As [`unpack`], and when the compressed stream is damaged.
pub fn unpack_blob(
    blob: Box<dyn Read + Send>,
    into: &Path,
    opts: &UnpackOptions<'_>,
) -> Result<Unpacked, LayerError> {
    let (blocks, arriving) = sync_channel(WAITING);
    let (copies, to_sum) = sync_channel(WAITING);
    std::thread::scope(|scope| {
        let summer = scope.spawn(move || sum(&to_sum));
        let producer = scope.spawn(move || produce(blob, &blocks, &copies));
        let mut stream = Stream { arriving, block: Arc::default(), at: 0 };
        let result = unpack(&mut stream, into, opts).and_then(|diff| drain(&mut stream).map(|()| diff));
        // after an error the producer finds nobody to send to, and ends, and the summer with it
        drop(stream);
        producer.join().map_err(|_| gone())?;
        let (diff_id, tar_size) = summer.join().map_err(|_| gone())?;
        Ok(Unpacked { diff: result?, diff_id, tar_size })
    })
}

/// Decompresses, which is the longest of the parallel works; errors go the same way as the bytes.
fn produce(blob: Box<dyn Read + Send>, blocks: &SyncSender<io::Result<Block>>, copies: &SyncSender<Block>) {
    let work = || -> io::Result<()> {
        let mut reader = decoder(blob)?;
        loop {
            let mut block = Vec::with_capacity(BLOCK);
            reader.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
            if block.is_empty() {
                return Ok(());
            }
            let block = Arc::new(block);
            if copies.send(block.clone()).is_err() || blocks.send(Ok(block)).is_err() {
                return Ok(());
            }
        }
    };
    if let Err(e) = work() {
        let _ = blocks.send(Err(e));
    }
}

fn sum(blocks: &Receiver<Block>) -> (DiffId, u64) {
    let mut sum = Sha256::new();
    let mut size = 0;
    for block in blocks {
        sum.update(&block[..]);
        size += block.len() as u64;
    }
    (DiffId(Digest::from_sha256(sum.finalize().into())), size)
}

/// The receiving end as a reader.
struct Stream {
    arriving: Receiver<io::Result<Block>>,
    block: Block,
    at: usize,
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() {
            match self.arriving.recv() {
                Ok(block) => self.block = block?,
                Err(_) => return Ok(0),
            }
            self.at = 0;
        }
        let n = buf.len().min(self.block.len() - self.at);
        buf[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// Takes what follows the end marker, so that the digest covers it.
fn drain(stream: &mut Stream) -> Result<(), LayerError> {
    let trailer = io::copy(&mut stream.take(MAX_TRAILER + 1), &mut io::sink()).map_err(LayerError::Read)?;
    if trailer > MAX_TRAILER {
        return Err(LayerError::Limit { what: "bytes after its end marker", limit: MAX_TRAILER });
    }
    Ok(())
}

fn gone() -> LayerError {
    LayerError::Read(io::Error::other("the decompressing thread failed"))
}
