//! Reads tar headers from a stream, within bounds.
//!
//! Understands what image layers and release archives are made of: v7, ustar, PAX and GNU long names. Where readers
//! disagree about a header it follows Go's `archive/tar`, since that is how other builders read the same bytes. It
//! gives names as they are: what a name may do to a tree is decided in `unpack`.

use super::LayerError;
use crate::tree::Mtime;
use std::io::{self, Read};

const BLOCK: usize = 512;
/// Longest name from a GNU long-name entry, in bytes: the kernel's limit for a path.
const MAX_NAME: u64 = 4 << 10;
/// Longest PAX header, in bytes: enough for a name and many attributes of 64 KiB.
const MAX_PAX: u64 = 1 << 20;
/// Most attributes of one entry.
const MAX_XATTRS: usize = 1000;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Hardlink,
    Symlink,
    Dir,
    Char,
    Block,
    Fifo,
}

/// One entry without its body.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: Kind,
    /// Of the body; 0 for all but files.
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Mtime,
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads entry after entry; bodies that nobody reads are passed over.
pub(super) struct TarReader<'a> {
    input: &'a mut dyn Read,
    /// Bytes taken from `input`.
    offset: u64,
    /// Bytes of the present body that are still to come, and of its padding.
    body: u64,
    padding: u64,
}

impl<'a> TarReader<'a> {
    pub(super) fn new(input: &'a mut dyn Read) -> Self {
        Self { input, offset: 0, body: 0, padding: 0 }
    }

    /// Gives the next entry; `None` at the end marker, or where the stream ends between two entries.
    pub(super) fn next(&mut self) -> Result<Option<Item>, LayerError> {
        let mut extra = Extra::default();
        loop {
            self.skip(self.body + self.padding)?;
            (self.body, self.padding) = (0, 0);
            let at = self.offset;
            let Some(block) = self.block()? else {
                return if extra.any { Err(format(at, "a long name belongs to no entry")) } else { Ok(None) };
            };
            let header = Header(&block);
            header.check().map_err(|why| format(at, why))?;
            let size = header.number(124, 12).map_err(|why| format(at, &format!("size: {why}")))?;
            let size = u64::try_from(size).map_err(|_| format(at, "the size is negative or too large"))?;
            match header.kind() {
                b'L' => extra.name = Some(trim(self.small(size, MAX_NAME, at)?)),
                b'K' => extra.link = Some(trim(self.small(size, MAX_NAME, at)?)),
                b'x' => extra.pax(&self.small(size, MAX_PAX, at)?).map_err(|why| format(at, why))?,
                // says something about all that follows; nobody applies it to layers
                b'g' => drop(self.small(size, MAX_PAX, at)?),
                // a volume label
                b'V' => self.set_body(size, at)?,
                _ => {
                    let item = header.item(extra, size).map_err(|why| format(at, &why))?;
                    self.set_body(item.size, at)?;
                    return Ok(Some(item));
                }
            }
            extra.any |= matches!(header.kind(), b'L' | b'K' | b'x');
        }
    }

    /// Reads some of the present body; 0 at its end. A stream that ends too early is an error.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<usize, LayerError> {
        let want = usize::try_from(self.body).unwrap_or(usize::MAX).min(buf.len());
        if want == 0 {
            return Ok(0);
        }
        loop {
            match self.input.read(&mut buf[..want]) {
                Ok(0) => return Err(cut_off()),
                Ok(n) => {
                    self.offset += n as u64;
                    self.body -= n as u64;
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(LayerError::Read(e)),
            }
        }
    }

    fn set_body(&mut self, size: u64, at: u64) -> Result<(), LayerError> {
        // keeps all sums of offsets far from overflow
        if size > 1 << 60 {
            return Err(format(at, "the size is too large"));
        }
        self.body = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        Ok(())
    }

    fn small(&mut self, size: u64, limit: u64, at: u64) -> Result<Vec<u8>, LayerError> {
        if size > limit {
            return Err(format(
                at,
                &format!("an extended header claims {size} bytes; at most {limit} are accepted"),
            ));
        }
        self.set_body(size, at)?;
        let mut bytes = vec![0; size as usize];
        let mut have = 0;
        while have < bytes.len() {
            have += self.read(&mut bytes[have..])?;
        }
        Ok(bytes)
    }

    fn skip(&mut self, mut left: u64) -> Result<(), LayerError> {
        let mut buf = [0; 16 << 10];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            match self.input.read(&mut buf[..want]) {
                Ok(0) => return Err(cut_off()),
                Ok(n) => {
                    self.offset += n as u64;
                    left -= n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(LayerError::Read(e)),
            }
        }
        Ok(())
    }

    /// Reads a header block; `None` when the stream ends before it or it is all zero.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        let mut block = [0; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            match self.input.read(&mut block[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(cut_off()),
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(LayerError::Read(e)),
            }
        }
        self.offset += BLOCK as u64;
        Ok(block.iter().any(|b| *b != 0).then_some(block))
    }
}

fn cut_off() -> LayerError {
    LayerError::Read(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off in the middle of an entry"))
}

fn format(offset: u64, why: &str) -> LayerError {
    LayerError::Format { offset, why: why.to_owned() }
}

fn trim(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len()));
    bytes
}

/// What extended headers say about the entry after them.
#[derive(Default)]
struct Extra {
    any: bool,
    /// From GNU entries.
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    /// From PAX records, which count more.
    pax_name: Option<Vec<u8>>,
    pax_link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<Mtime>,
    major: Option<u32>,
    minor: Option<u32>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Extra {
    fn pax(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        while !records.is_empty() {
            let (key, value, rest) = pax_record(records).ok_or("a PAX record is malformed")?;
            records = rest;
            self.set(key, value)?;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let named = matches!(key, b"path" | b"linkpath");
        if named && value.contains(&0) {
            return Err("a PAX name holds a NUL byte");
        }
        if named && value.len() as u64 > MAX_NAME {
            return Err("a PAX name is longer than 4096 bytes");
        }
        match key {
            b"path" => self.pax_name = some(value),
            b"linkpath" => self.pax_link = some(value),
            b"size" => self.size = decimal(value, u64::MAX)?,
            b"uid" => self.uid = decimal(value, u32::MAX.into())?.map(|n| n as u32),
            b"gid" => self.gid = decimal(value, u32::MAX.into())?.map(|n| n as u32),
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(pax_time(value).ok_or("a PAX time is no number")?),
            b"SCHILY.devmajor" => self.major = decimal(value, u32::MAX.into())?.map(|n| n as u32),
            b"SCHILY.devminor" => self.minor = decimal(value, u32::MAX.into())?.map(|n| n as u32),
            _ if key.starts_with(b"GNU.sparse.") => return Err("sparse entries are not supported"),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if self.xattrs.len() >= MAX_XATTRS {
                        return Err("an entry has too many attributes");
                    }
                    self.xattrs.retain(|(have, _)| have != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

fn some(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

/// Splits `length key=value\n` off.
fn pax_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().take(10).position(|b| *b == b' ')?;
    let len: usize = std::str::from_utf8(&bytes[..blank]).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(len)?;
    let record = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|b| *b == b'=')?;
    (equals > 0).then_some((&record[..equals], &record[equals + 1..], rest))
}

/// An empty value takes a record back.
fn decimal(value: &[u8], max: u64) -> Result<Option<u64>, &'static str> {
    if value.is_empty() {
        return Ok(None);
    }
    let digits = value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
    number.filter(|n| digits && *n <= max).map(Some).ok_or("a PAX number is malformed or too large")
}

/// Parses seconds with an optional fraction; digits beyond nanoseconds are cut.
fn pax_time(value: &[u8]) -> Option<Mtime> {
    let text = std::str::from_utf8(value).ok()?;
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !(whole.to_owned() + fraction).bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let secs: i64 = whole.parse().ok()?;
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(match (negative, nanos) {
        (false, _) => Mtime { secs, nanos },
        (true, 0) => Mtime { secs: -secs, nanos: 0 },
        (true, _) => Mtime { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// A header block's fields.
struct Header<'a>(&'a [u8; BLOCK]);

impl Header<'_> {
    fn kind(&self) -> u8 {
        self.0[156]
    }

    /// Checks the checksum, which old writers made of signed bytes.
    fn check(&self) -> Result<(), &'static str> {
        let want = self.number(148, 8).map_err(|_| "the checksum field is no number")?;
        let bytes = || self.0[..148].iter().chain([b' '; 8].iter()).chain(&self.0[156..]);
        let unsigned: i128 = bytes().map(|b| i128::from(*b)).sum();
        let signed: i128 = bytes().map(|b| i128::from(*b as i8)).sum();
        if want == unsigned || want == signed { Ok(()) } else { Err("the header's checksum is wrong") }
    }

    /// Reads an octal or base-256 field.
    fn number(&self, start: usize, len: usize) -> Result<i128, &'static str> {
        let field = &self.0[start..start + len];
        if field[0] & 0x80 != 0 {
            // two's complement, big endian, without the top bit
            let negative = field[0] & 0x40 != 0;
            let first = i128::from(field[0] & 0x3f) - if negative { 0x40 } else { 0 };
            return Ok(field[1..].iter().fold(first, |sum, b| (sum << 8) | i128::from(*b)));
        }
        let text = field.iter().skip_while(|b| matches!(b, b' ' | 0));
        let text: Vec<u8> = text.take_while(|b| !matches!(b, b' ' | 0)).copied().collect();
        text.iter().try_fold(0i128, |sum, b| match b {
            b'0'..=b'7' => Ok(sum * 8 + i128::from(b - b'0')),
            _ => Err("not an octal number"),
        })
    }

    fn text(&self, start: usize, len: usize) -> &[u8] {
        let field = &self.0[start..start + len];
        &field[..field.iter().position(|b| *b == 0).unwrap_or(len)]
    }

    fn name(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let prefix = if &self.0[257..263] == b"ustar\0" { self.text(345, 155) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    fn item(&self, extra: Extra, size: u64) -> Result<Item, String> {
        let name = extra.pax_name.or(extra.name).unwrap_or_else(|| self.name());
        let link = extra.pax_link.or(extra.link).unwrap_or_else(|| self.text(157, 100).to_vec());
        let kind = match self.kind() {
            // v7 had no type for directories
            0 if name.ends_with(b"/") => Kind::Dir,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::Hardlink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            b'S' => return Err("sparse entries are not supported".to_owned()),
            other => return Err(format!("entries of type {:?} are not supported", char::from(other))),
        };
        let number = |what: &str, start, len| self.number(start, len).map_err(|why| format!("{what}: {why}"));
        let id = |what: &str, pax: Option<u32>, start| -> Result<u32, String> {
            let id = pax.map_or_else(|| number(what, start, 8), |id| Ok(id.into()))?;
            // the last number means "leave as it is" to chown
            u32::try_from(id)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| format!("{what} {id} is out of range"))
        };
        let device = |what: &str, pax: Option<u32>, start| -> Result<u32, String> {
            let number = pax.map_or_else(|| number(what, start, 8), |n| Ok(n.into()))?;
            u32::try_from(number).map_err(|_| format!("{what} {number} is out of range"))
        };
        let secs = || number("time", 136, 12).map(|t| t.clamp(i64::MIN.into(), i64::MAX.into()) as i64);
        let mtime = extra.mtime.map_or_else(|| secs().map(|secs| Mtime { secs, nanos: 0 }), Ok)?;
        let special = matches!(kind, Kind::Char | Kind::Block);
        let mut xattrs = extra.xattrs;
        xattrs.sort();
        Ok(Item {
            size: if kind == Kind::File { extra.size.unwrap_or(size) } else { 0 },
            mode: (number("mode", 100, 8)? & 0o7777) as u32,
            uid: id("owner", extra.uid, 108)?,
            gid: id("group", extra.gid, 116)?,
            device: match special {
                true => (device("device", extra.major, 329)?, device("device", extra.minor, 337)?),
                false => (0, 0),
            },
            name,
            link,
            kind,
            mtime,
            xattrs,
        })
    }
}
