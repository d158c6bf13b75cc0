//! Writes a diff as a layer tar: the same diff gives the same bytes, on every machine.
//!
//! What the headers hold follows what containerd's differ writes for BuildKit: whole seconds, no access and change
//! times, no user or group names, directories with a trailing slash, a PAX record only where the plain field is too small.
//! The order is the diff's. Fields are encoded by the `tar` crate's `Header`; its `Builder` wants paths.

use super::{LayerError, whiteout};
use crate::digest::{DiffId, Digest};
use crate::tree::{Diff, Entry, Meta, Node, TreePath};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::mpsc;
use tar::{EntryType, Header};

const BLOCK: usize = 512;
/// Largest number in an 11-digit octal field: sizes and times.
const OCTAL_11: u64 = 0o77_777_777_777;
/// Largest number in a 7-digit octal field: owners and device numbers.
const OCTAL_7: u64 = 0o7_777_777;
/// How much is read from a file and handed on at once.
const CHUNK: usize = 256 << 10;

/// Writes a diff as the tar of a layer: the same diff always gives the same bytes.
///
/// `open` opens the regular file at a path; `epoch` (seconds) lowers later modification times to it and raises none.
///
/// # Errors
/// A file cannot be opened or has another size than the diff says; `out` fails.
pub fn write_tar(
    diff: &Diff,
    open: &dyn Fn(&TreePath) -> io::Result<File>,
    epoch: Option<i64>,
    out: &mut dyn Write,
) -> Result<(), LayerError> {
    let mut tar = TarWriter { out, epoch, header: Vec::with_capacity(4 * BLOCK), chunk: Vec::new() };
    for entry in diff.entries() {
        tar.entry(diff, &entry, open)?;
    }
    tar.write(&[0; 2 * BLOCK])
}

/// Gives the digest and length in bytes of what [`write_tar`] would write; hashing and reading overlap.
pub fn diff_id(
    diff: &Diff,
    open: &dyn Fn(&TreePath) -> io::Result<File>,
    epoch: Option<i64>,
) -> Result<(DiffId, u64), LayerError> {
    std::thread::scope(|scope| {
        let (full, to_hash) = mpsc::sync_channel::<Vec<u8>>(4);
        let (used, empty) = mpsc::channel::<Vec<u8>>();
        let hasher = scope.spawn(move || {
            let mut sum = Sha256::new();
            let mut size = 0u64;
            for mut block in to_hash {
                sum.update(&block);
                size += block.len() as u64;
                block.clear();
                // the writer may be gone already
                let _ = used.send(block);
            }
            (DiffId(Digest::from_sha256(sum.finalize().into())), size)
        });
        let mut pipe = Pipe { full, empty, block: Vec::with_capacity(CHUNK) };
        let written = write_tar(diff, open, epoch, &mut pipe)
            .and_then(|()| pipe.hand_over().map_err(LayerError::Write));
        drop(pipe);
        let found =
            hasher.join().map_err(|_| LayerError::Write(io::Error::other("the hashing thread failed")))?;
        written.map(|()| found)
    })
}

/// Collects bytes to blocks for another thread.
struct Pipe {
    full: mpsc::SyncSender<Vec<u8>>,
    empty: mpsc::Receiver<Vec<u8>>,
    block: Vec<u8>,
}

impl Pipe {
    fn hand_over(&mut self) -> io::Result<()> {
        let next = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK));
        let block = std::mem::replace(&mut self.block, next);
        self.full.send(block).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.block.extend_from_slice(buf);
        if self.block.len() >= CHUNK {
            self.hand_over()?;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct TarWriter<'a> {
    out: &'a mut dyn Write,
    epoch: Option<i64>,
    header: Vec<u8>,
    chunk: Vec<u8>,
}

impl TarWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.out.write_all(bytes).map_err(LayerError::Write)
    }

    fn entry(
        &mut self,
        diff: &Diff,
        entry: &Entry,
        open: &dyn Fn(&TreePath) -> io::Result<File>,
    ) -> Result<(), LayerError> {
        let path = entry.path.as_bytes();
        let mut link: &[u8] = &[];
        let mut size = 0;
        let mut device = (0, 0);
        let mut meta = &entry.meta;
        let first;
        let kind = match &entry.node {
            Node::Whiteout => return self.whiteout(&entry.path),
            Node::Dir { .. } => EntryType::Directory,
            Node::File { size: bytes, .. } => {
                size = *bytes;
                EntryType::Regular
            }
            Node::Hardlink { target } => {
                link = target.as_bytes();
                // one inode has one owner, mode and time: those of its first name
                first = diff.get(target);
                meta = first.as_ref().map_or(meta, |first| &first.meta);
                EntryType::Link
            }
            Node::Symlink { target } => {
                link = target;
                EntryType::Symlink
            }
            Node::CharDevice { major, minor } => {
                device = (*major, *minor);
                EntryType::Char
            }
            Node::BlockDevice { major, minor } => {
                device = (*major, *minor);
                EntryType::Block
            }
            Node::Fifo => EntryType::Fifo,
        };
        let name = if kind.is_dir() { [path, b"/"].concat() } else { path.to_vec() };
        self.header(&Fields { name: &name, kind, link, size, device, meta })?;
        match &entry.node {
            Node::File { size, .. } => self.body(&entry.path, *size, open),
            Node::Dir { opaque: true } => self.empty_file(&entry.path.child(whiteout::OPAQUE)),
            _ => Ok(()),
        }
    }

    fn whiteout(&mut self, path: &TreePath) -> Result<(), LayerError> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        self.empty_file(&dir.child(&[whiteout::PREFIX, name].concat()))
    }

    /// Writes a marker: no mode, no owner, time 0, so that it never makes two equal layers differ.
    fn empty_file(&mut self, path: &TreePath) -> Result<(), LayerError> {
        let meta = Meta::default();
        let kind = EntryType::Regular;
        self.header(&Fields { name: path.as_bytes(), kind, link: &[], size: 0, device: (0, 0), meta: &meta })
    }

    fn header(&mut self, fields: &Fields<'_>) -> Result<(), LayerError> {
        let mut header = std::mem::take(&mut self.header);
        header.clear();
        fields.encode(self.epoch, &mut header);
        let done = self.write(&header);
        self.header = header;
        done
    }

    fn body(
        &mut self,
        path: &TreePath,
        size: u64,
        open: &dyn Fn(&TreePath) -> io::Result<File>,
    ) -> Result<(), LayerError> {
        if size == 0 {
            return Ok(());
        }
        let mut file = open(path).map_err(LayerError::io("open", path))?;
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.resize(CHUNK, 0);
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
            match file.read(&mut chunk[..want]) {
                Ok(0) => return Err(LayerError::Changed { path: path.clone() }),
                Ok(n) => {
                    self.write(&chunk[..n])?;
                    left -= n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(LayerError::io("read", path)(e)),
            }
        }
        if !matches!(file.read(&mut chunk[..1]), Ok(0)) {
            return Err(LayerError::Changed { path: path.clone() });
        }
        self.chunk = chunk;
        self.write(&[0; BLOCK][..padding(size)])
    }
}

/// Bytes up to the next full block.
fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// One entry's header before it is encoded.
struct Fields<'a> {
    name: &'a [u8],
    kind: EntryType,
    link: &'a [u8],
    size: u64,
    device: (u32, u32),
    meta: &'a Meta,
}

impl Fields<'_> {
    /// Appends the header, after a PAX header if some field needs one.
    fn encode(&self, epoch: Option<i64>, out: &mut Vec<u8>) {
        let mtime = epoch.map_or(self.meta.mtime.secs, |epoch| self.meta.mtime.secs.min(epoch));
        let mut pax = Pax::default();
        let mut header = Header::new_ustar();
        header.set_entry_type(self.kind);
        header.set_mode(self.meta.mode);
        header.set_size(pax.number("size", self.size, OCTAL_11));
        header.set_uid(pax.number("uid", self.meta.uid.into(), OCTAL_7));
        header.set_gid(pax.number("gid", self.meta.gid.into(), OCTAL_7));
        header.set_mtime(pax.time(mtime));
        if matches!(self.kind, EntryType::Char | EntryType::Block) {
            let major = pax.number("SCHILY.devmajor", self.device.0.into(), OCTAL_7) as u32;
            let minor = pax.number("SCHILY.devminor", self.device.1.into(), OCTAL_7) as u32;
            // ustar headers always have the fields
            let _ = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
        }
        if !set_name(&mut header, self.name) {
            pax.record("path", self.name);
        }
        if !set_link(&mut header, self.link) {
            pax.record("linkpath", self.link);
        }
        // a hard link has the attributes of its first name
        if self.kind != EntryType::Link {
            for (name, value) in &self.meta.xattrs {
                pax.record_bytes(&[b"SCHILY.xattr.", &name[..]].concat(), value);
            }
        }
        pax.encode(out);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
    }
}

/// Puts a name into the header's name and prefix fields; one that does not fit leaves its end there for old readers.
fn set_name(header: &mut Header, name: &[u8]) -> bool {
    let Some(ustar) = header.as_ustar_mut() else { return false };
    let plain = name.is_ascii();
    if name.len() <= ustar.name.len() {
        ustar.name[..name.len()].copy_from_slice(name);
        return plain;
    }
    // the prefix takes whole directories; a directory's own trailing slash is no place to cut
    let cut = (1..name.len() - 1)
        .rev()
        .filter(|at| name[*at] == b'/')
        .find(|at| *at <= ustar.prefix.len() && name.len() - at - 1 <= ustar.name.len());
    if let Some(cut) = cut {
        ustar.prefix[..cut].copy_from_slice(&name[..cut]);
        ustar.name[..name.len() - cut - 1].copy_from_slice(&name[cut + 1..]);
        return plain;
    }
    let len = ustar.name.len();
    ustar.name.copy_from_slice(&name[name.len() - len..]);
    false
}

fn set_link(header: &mut Header, link: &[u8]) -> bool {
    let field = &mut header.as_old_mut().linkname;
    let len = link.len().min(field.len());
    field[..len].copy_from_slice(&link[..len]);
    len == link.len() && link.is_ascii()
}

/// PAX records of one entry, `length key=value`.
#[derive(Default)]
struct Pax(Vec<u8>);

impl Pax {
    /// Gives a number for its field; one that is too large goes into a record, and 0 into the field.
    fn number(&mut self, key: &str, value: u64, limit: u64) -> u64 {
        if value <= limit {
            return value;
        }
        self.record(key, value.to_string().as_bytes());
        0
    }

    fn time(&mut self, secs: i64) -> u64 {
        match u64::try_from(secs) {
            Ok(secs) if secs <= OCTAL_11 => secs,
            _ => {
                self.record("mtime", secs.to_string().as_bytes());
                0
            }
        }
    }

    fn record(&mut self, key: &str, value: &[u8]) {
        self.record_bytes(key.as_bytes(), value);
    }

    fn record_bytes(&mut self, key: &[u8], value: &[u8]) {
        // blank, '=', newline; the length counts its own digits
        let rest = key.len() + value.len() + 3;
        let mut len = rest + 1;
        while rest + len.to_string().len() != len {
            len = rest + len.to_string().len();
        }
        self.0.extend_from_slice(len.to_string().as_bytes());
        self.0.push(b' ');
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    fn encode(&self, out: &mut Vec<u8>) {
        if self.0.is_empty() {
            return;
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(self.0.len() as u64);
        set_name(&mut header, b"PaxHeaders.0/entry");
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&self.0);
        out.resize(out.len() + padding(self.0.len() as u64), 0);
    }
}
