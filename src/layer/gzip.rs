//! gzip on all cores: the same bytes whatever their number.
//!
//! The input is cut into blocks of one length. Each is deflated by itself, primed with the 32 KiB before it, and ends on a
//! whole byte (zlib's sync flush), so that the pieces in their order are one deflate stream in one gzip member (RFC 1952)
//! for every reader. Blocks that no compressor makes smaller are stored as they are, since finding that out costs a
//! twentieth of trying.
//!
//! Why not members in parallel, or libdeflate: members forget what was before them, and libdeflate can be primed with
//! nothing. Why a pool of its own: whoever waits here may be a thread of rayon's, and must not wait for itself.

use flate2::{Compress, Compression, Crc, FlushCompress};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, sync_channel};

/// Bytes that are deflated together. A part of the format: another length gives other bytes.
const BLOCK: usize = 256 << 10;
/// How far deflate looks back.
const WINDOW: usize = 32 << 10;
/// Longest stored block of deflate.
const STORED: usize = 65_535;
/// Most threads; more than the rest of the pipeline can feed.
const MAX_THREADS: usize = 16;
/// Magic, deflate, no flags, no time, no extra flags, unknown system: nothing that tells where it was made.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// An empty last block.
const END: [u8; 2] = [3, 0];

/// Compresses what is written. Memory is bounded by a few blocks for each core.
pub(super) struct Gzip<W: Write> {
    out: W,
    level: u32,
    /// The window, then the block that is being filled.
    block: Vec<u8>,
    window: usize,
    pending: VecDeque<Receiver<io::Result<Done>>>,
    crc: Crc,
}

struct Done {
    deflated: Vec<u8>,
    crc: Crc,
}

impl<W: Write> Gzip<W> {
    pub(super) fn new(mut out: W, level: u32) -> io::Result<Self> {
        out.write_all(&HEADER)?;
        let block = Vec::with_capacity(WINDOW + BLOCK);
        Ok(Self { out, level: level.min(9), block, window: 0, pending: VecDeque::new(), crc: Crc::new() })
    }

    /// Hands the block to the pool; waits for the oldest when enough are under way.
    fn submit(&mut self) -> io::Result<()> {
        let pool = pool()?;
        if self.pending.len() > 2 * pool.current_num_threads() {
            self.take_oldest()?;
        }
        let mut next = Vec::with_capacity(WINDOW + BLOCK);
        next.extend_from_slice(&self.block[self.block.len().saturating_sub(WINDOW)..]);
        let (block, window, level) = (std::mem::replace(&mut self.block, next), self.window, self.level);
        self.window = self.block.len();
        let (done, result) = sync_channel(1);
        pool.spawn(move || {
            // nobody waits any more after an error
            let _ = done.send(deflate(&block, window, level));
        });
        self.pending.push_back(result);
        Ok(())
    }

    fn take_oldest(&mut self) -> io::Result<()> {
        let Some(oldest) = self.pending.pop_front() else { return Ok(()) };
        let done = oldest.recv().map_err(|_| io::Error::other("a compressing thread failed"))??;
        self.crc.combine(&done.crc);
        self.out.write_all(&done.deflated)
    }

    /// Writes the end of the stream and gives the writer back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        if self.block.len() > self.window {
            self.submit()?;
        }
        while !self.pending.is_empty() {
            self.take_oldest()?;
        }
        self.out.write_all(&END)?;
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        self.out.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(self.window + BLOCK - self.block.len());
        self.block.extend_from_slice(&buf[..n]);
        if self.block.len() == self.window + BLOCK {
            self.submit()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn pool() -> io::Result<&'static rayon::ThreadPool> {
    static POOL: OnceLock<Result<rayon::ThreadPool, String>> = OnceLock::new();
    let made = POOL.get_or_init(|| {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|n| format!("gzip-{n}"));
        pool.build().map_err(|e| e.to_string())
    });
    made.as_ref().map_err(|why| io::Error::other(why.clone()))
}

thread_local! {
    static PROBE: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

/// Deflates what follows the window in `bytes`; the result ends on a whole byte and does not end the stream.
fn deflate(bytes: &[u8], window: usize, level: u32) -> io::Result<Done> {
    let (window, block) = bytes.split_at(window);
    let mut crc = Crc::new();
    crc.update(block);
    let deflated =
        if level > 0 && is_noise(block) { stored(block) } else { deflate_from(window, block, level)? };
    Ok(Done { deflated, crc })
}

/// Takes a new state each time: one that is reset still looks at what it held at the end of its window, and finds other matches.
fn deflate_from(window: &[u8], block: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut state = Compress::new(Compression::new(level), false);
    if !window.is_empty() {
        state.set_dictionary(window).map_err(io::Error::other)?;
    }
    let mut out = Vec::with_capacity(block.len() / 2 + 1024);
    loop {
        let rest = &block[state.total_in() as usize..];
        state.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(io::Error::other)?;
        // room that is left says that nothing waits inside
        if state.total_in() as usize == block.len() && out.len() < out.capacity() {
            return Ok(out);
        }
        out.reserve(block.len() / 2 + 1024);
    }
}

/// Writes a block as it is (RFC 1951, 3.2.4); it begins and ends on a whole byte.
fn stored(block: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(block.len() + 5 * block.len().div_ceil(STORED));
    for part in block.chunks(STORED) {
        let len = part.len() as u16;
        out.push(0);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// Says whether deflate would win less than a hundredth: what is compressed, encrypted or random.
///
/// First a look at how evenly the bytes of some samples are spread, which decides for almost all other data; then zstd's
/// fastest search, for even bytes that repeat.
fn is_noise(block: &[u8]) -> bool {
    const SAMPLE: usize = 512;
    const SAMPLES: usize = 64;
    if block.len() < SAMPLE * SAMPLES {
        return false;
    }
    let mut counts = [0u32; 256];
    for sample in block.chunks(block.len() / SAMPLES).take(SAMPLES) {
        sample.iter().take(SAMPLE).for_each(|byte| counts[usize::from(*byte)] += 1);
    }
    let even = (SAMPLE * SAMPLES) as f64 * (SAMPLE * SAMPLES) as f64 / 256.0;
    let squares: f64 = counts.iter().map(|n| f64::from(*n) * f64::from(*n)).sum();
    if squares > even * 1.1 {
        return false;
    }
    PROBE.with_borrow_mut(|probe| {
        if probe.is_none() {
            *probe = zstd::bulk::Compressor::new(1).ok();
        }
        let found = probe.as_mut().and_then(|zstd| zstd.compress(block).ok());
        found.is_some_and(|smaller| smaller.len() >= block.len() / 100 * 99)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// Bytes without any pattern, the same each time.
    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn text(len: usize) -> Vec<u8> {
        let lines =
            (0u32..).flat_map(|n| format!("line {} of {}\n", n, n.wrapping_mul(2_654_435_761)).into_bytes());
        lines.take(len).collect()
    }

    fn gzip(bytes: &[u8], piece: usize, level: u32) -> Vec<u8> {
        let mut gzip = Gzip::new(Vec::new(), level).unwrap();
        bytes.chunks(piece.max(1)).for_each(|piece| gzip.write_all(piece).unwrap());
        gzip.finish().unwrap()
    }

    fn gunzip(bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        // one member, to the last byte
        let mut reader = flate2::bufread::GzDecoder::new(bytes);
        reader.read_to_end(&mut plain).unwrap();
        assert!(reader.into_inner().is_empty());
        plain
    }

    #[test]
    fn all_lengths_and_kinds_come_back() {
        let mixed = [text(BLOCK + 77), noise(3 * BLOCK), text(5)].concat();
        let whole = text(2 * BLOCK);
        for plain in
            [&[][..], b"x", &whole[..BLOCK - 1], &whole[..BLOCK], &whole[..BLOCK + 1], &whole, &mixed]
        {
            for level in [0, 1, 6, 9] {
                assert!(
                    gunzip(&gzip(plain, 100_000, level)) == plain,
                    "{} bytes, level {level}",
                    plain.len()
                );
            }
        }
    }

    #[test]
    fn the_way_it_is_written_does_not_show() {
        let plain = [text(3 * BLOCK + 5), noise(BLOCK)].concat();
        let once = gzip(&plain, plain.len(), 6);
        assert!([7_777, BLOCK, 1 << 20].iter().all(|piece| gzip(&plain, *piece, 6) == once));
        // what many threads make of it one makes too
        let mut one = HEADER.to_vec();
        for (at, block) in plain.chunks(BLOCK).enumerate() {
            let window = (at * BLOCK).saturating_sub(WINDOW)..at * BLOCK;
            let bytes = [&plain[window.clone()], block].concat();
            one.extend(deflate(&bytes, window.len(), 6).unwrap().deflated);
        }
        assert!(once.starts_with(&one));
    }

    #[test]
    fn blocks_know_what_was_before_them() {
        let unit = noise(WINDOW / 2);
        let repeated = unit.repeat(4 * BLOCK / unit.len());
        // each block that forgot would hold the unit once more
        assert!(gzip(&repeated, BLOCK, 6).len() < unit.len() * 2);
    }

    #[test]
    fn noise_is_stored_and_nothing_else() {
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), Compression::new(6));
        zipped.write_all(&text(4 * BLOCK)).unwrap();
        let zipped = zipped.finish().unwrap();
        assert!(is_noise(&noise(BLOCK)) && is_noise(&zipped[..BLOCK]));
        let repeated = noise(BLOCK / 4).repeat(4);
        let hex: Vec<u8> = noise(BLOCK / 2).iter().flat_map(|b| format!("{b:02x}").into_bytes()).collect();
        assert!(!is_noise(&repeated) && !is_noise(&hex) && !is_noise(&text(BLOCK)) && !is_noise(&noise(100)));
        let len = 4 * BLOCK;
        assert!(gzip(&noise(len), len, 6).len() < len + len / 1000);
    }

    #[test]
    fn an_error_of_the_writer_comes_out() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(buf.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(buf.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut gzip = Gzip::new(Full(BLOCK), 6).unwrap();
        let written = gzip.write_all(&noise(64 * BLOCK)).and_then(|()| gzip.finish().map(drop));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
