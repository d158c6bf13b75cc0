//! Compression of layers and archives: which one by the first bytes, readers and writers for each.
//!
//! Nothing here trusts what is compressed: windows are bounded, and whoever reads bounds the length.

use super::gzip::Gzip;
use std::io::{self, BufRead, BufReader, Read, Write};
use zstd::zstd_safe::CParameter;

/// Largest zstd window that is accepted, as a power of two: 128 MiB, what `zstd --ultra` needs.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Most memory an xz stream may ask for, in bytes.
const XZ_MEMORY: u64 = 256 << 20;

/// Bytes that a zstd worker takes at once. A part of the format: another length gives other bytes. zstd's own choice, 8 MiB for
/// the usual level, would take 70 MiB of memory on two cores.
const ZSTD_JOB: u32 = 2 << 20;
/// Most zstd workers; more than the rest of the pipeline can feed.
const ZSTD_WORKERS: usize = 8;

/// How a layer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As it is.
    #[default]
    None,
    /// gzip, level 0 to 9.
    Gzip(u32),
    /// zstd, level 0 (its default) to 22.
    Zstd(i32),
}

/// What the first bytes of a stream say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// None of the others.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878, a frame or a skippable frame.
    Zstd,
    /// `BZh`.
    Bzip2,
    /// The xz container.
    Xz,
}

impl Format {
    /// Tells the format from the first bytes; six are enough for all.
    pub fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Plain,
        }
    }
}

/// Decompresses a stream, told by its first bytes; several members or frames one after the other are one stream.
///
/// # Errors
/// The first bytes cannot be read. Damage and cut-off streams are errors of the reader that is returned.
pub fn decoder<'a>(reader: Box<dyn Read + Send + 'a>) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut head = [0u8; 6];
    let mut reader = reader;
    let mut have = 0;
    while have < head.len() {
        match reader.read(&mut head[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let format = Format::of(&head[..have]);
    let whole = io::Cursor::new(head[..have].to_vec()).chain(reader);
    let whole = BufReader::with_capacity(128 << 10, whole);
    Ok(match format {
        Format::Plain => Box::new(whole),
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(whole)),
        Format::Xz => {
            let flags = liblzma::stream::CONCATENATED;
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, flags);
            Box::new(liblzma::bufread::XzDecoder::new_stream(whole, stream.map_err(io::Error::from)?))
        }
        Format::Zstd => {
            let mut zstd = zstd::stream::read::Decoder::with_buffer(whole)?;
            zstd.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(ToEnd(zstd))
        }
    })
}

/// zstd's reader is used as it is; the wrapper only gives it a name of ours and a `Send` bound.
struct ToEnd<B: BufRead>(zstd::stream::read::Decoder<'static, B>);

impl<B: BufRead> Read for ToEnd<B> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

/// Compresses what is written; [`Encoder::finish`] must be called, else the stream is cut off.
pub struct Encoder<W: Write>(Kind<W>);

enum Kind<W: Write> {
    None(W),
    Gzip(Gzip<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

/// Makes a compressor that uses all cores. The same bytes always give the same result, on any number of cores and however they
/// are written: no name and no time are in the header.
pub fn encoder<W: Write>(out: W, how: Compression) -> io::Result<Encoder<W>> {
    Ok(Encoder(match how {
        Compression::None => Kind::None(out),
        Compression::Gzip(level) => Kind::Gzip(Gzip::new(out, level)?),
        Compression::Zstd(level) => Kind::Zstd(parallel_zstd(out, level, workers())?),
    }))
}

fn workers() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(ZSTD_WORKERS) as u32)
}

/// Makes a zstd compressor whose jobs have one length. Without workers of its own, even one, it would cut elsewhere.
fn parallel_zstd<W: Write>(
    out: W,
    level: i32,
    workers: u32,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let mut zstd = zstd::stream::write::Encoder::new(out, level)?;
    zstd.multithread(workers)?;
    zstd.set_parameter(CParameter::JobSize(ZSTD_JOB))?;
    Ok(zstd)
}

impl<W: Write> Encoder<W> {
    /// Writes the end of the stream and gives the writer back.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Kind::None(out) => Ok(out),
            Kind::Gzip(gzip) => gzip.finish(),
            Kind::Zstd(zstd) => zstd.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::None(out) => out.write(buf),
            Kind::Gzip(gzip) => gzip.write(buf),
            Kind::Zstd(zstd) => zstd.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::None(out) => out.flush(),
            Kind::Gzip(gzip) => gzip.flush(),
            Kind::Zstd(zstd) => zstd.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zstd_does_not_depend_on_workers_and_writes() {
        let mut bytes = vec![0; 3 * ZSTD_JOB as usize + 12_345];
        blake3::Hasher::new().update(b"zstd").finalize_xof().fill(&mut bytes);
        bytes.iter_mut().for_each(|b| *b %= 23);
        let zstd = |workers: u32, piece: usize| {
            let mut out = parallel_zstd(Vec::new(), 3, workers).unwrap();
            bytes.chunks(piece).for_each(|piece| out.write_all(piece).unwrap());
            out.finish().unwrap()
        };
        let one = zstd(1, 128 << 10);
        assert!(
            [(2, 128 << 10), (5, 777_777), (3, bytes.len())].iter().all(|(n, piece)| zstd(*n, *piece) == one)
        );
        assert_eq!(zstd::stream::decode_all(&one[..]).unwrap(), bytes);
    }
}
