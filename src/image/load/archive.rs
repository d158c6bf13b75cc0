//! Members of an archive or directory by name, without unpacking anything.
//!
//! The archive is hostile: it is only ever read at offsets that its headers gave and the file's length allows, its
//! names are keys of a map and never paths, and a link in it is looked up in the same map once. In a directory,
//! names are opened inside it by the kernel and must be regular files.

use super::super::error::ImageError;
use crate::sys::inroot;
use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Longest member name in bytes.
const NAME_LIMIT: u64 = 4096;
/// Longest pax header in bytes.
const PAX_LIMIT: u64 = 1 << 20;
/// Most members of one archive; an image has a few per layer.
const MEMBER_LIMIT: usize = 100_000;
const BLOCK: u64 = 512;

/// Where members are.
#[derive(Debug)]
pub(super) enum Source {
    /// A plain tar in a seekable file.
    Tar(Tar),
    /// A directory.
    Dir(OwnedFd),
}

/// A member that can be read once.
#[derive(Debug)]
pub(super) struct Member {
    reader: Slice,
}

impl Member {
    /// Gives its length in bytes.
    pub(super) fn size(&self) -> u64 {
        self.reader.end - self.reader.at
    }

    /// Reads all of a member of at most `limit` bytes.
    pub(super) fn read_all(mut self, what: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        if self.size() > limit {
            let why = format!("{what} has {} bytes, more than the {limit} that are accepted", self.size());
            return Err(ImageError::Archive(why));
        }
        let mut bytes = Vec::with_capacity(self.size() as usize);
        self.read_to_end(&mut bytes).map_err(|e| ImageError::Archive(format!("cannot read {what}: {e}")))?;
        Ok(bytes)
    }
}

impl Read for Member {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf)
    }
}

/// A part of a file, read at its own offset so that several can be read at once.
#[derive(Debug)]
struct Slice {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Slice {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buf.len());
        let n = self.file.read_at(&mut buf[..left], self.at)?;
        if n == 0 && left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        Ok(n)
    }
}

impl Source {
    /// Opens a directory.
    pub(super) fn dir(path: &Path) -> Result<Self, ImageError> {
        inroot::open_root(path).map(Self::Dir).map_err(ImageError::io("open", path))
    }

    /// Finds a member; `None` when there is none of that name.
    pub(super) fn open(&self, name: &str) -> Result<Option<Member>, ImageError> {
        match self {
            Self::Tar(tar) => tar.open(name),
            Self::Dir(dir) => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
                let file = match inroot::open_in_root(dir, name, flags, Mode::empty()) {
                    Ok(fd) => File::from(fd),
                    Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                        return Ok(None);
                    }
                    Err(e) => return Err(ImageError::io("open", Path::new(name))(e)),
                };
                let meta = file.metadata().map_err(ImageError::io("look at", Path::new(name)))?;
                if !meta.is_file() {
                    return Err(ImageError::Archive(format!("{name:?} is not a regular file")));
                }
                Ok(Some(Member { reader: Slice { file: Arc::new(file), at: 0, end: meta.len() } }))
            }
        }
    }

    /// As [`Source::open`]; absence is an error.
    pub(super) fn need(&self, name: &str) -> Result<Member, ImageError> {
        self.open(name)?.ok_or_else(|| ImageError::Archive(format!("it has no {name:?}")))
    }
}

/// A plain tar and where its members are.
#[derive(Debug)]
pub(super) struct Tar {
    file: Arc<File>,
    members: HashMap<Vec<u8>, What>,
}

#[derive(Debug, Clone)]
enum What {
    File {
        at: u64,
        size: u64,
    },
    /// The name it means, already relative to the archive's root.
    Link(Vec<u8>),
    Other,
}

impl Tar {
    fn open(&self, name: &str) -> Result<Option<Member>, ImageError> {
        let strange = || ImageError::Archive(format!("{name:?} is not a regular file"));
        let key = clean(name.as_bytes());
        let (at, size) = match self.members.get(&key) {
            None => return Ok(None),
            Some(What::File { at, size }) => (*at, *size),
            Some(What::Link(target)) => match self.members.get(target) {
                Some(What::File { at, size }) => (*at, *size),
                _ => {
                    return Err(ImageError::Archive(format!("{name:?} is a link to nothing in the archive")));
                }
            },
            Some(What::Other) => return Err(strange()),
        };
        Ok(Some(Member { reader: Slice { file: self.file.clone(), at, end: at + size } }))
    }

    /// Reads all headers. Of two members with one name the last counts, as it would after unpacking.
    pub(super) fn index(file: File) -> Result<Self, ImageError> {
        let damaged = |e: io::Error| match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                ImageError::Archive("it is cut off, or no tar archive at all".into())
            }
            _ => ImageError::Archive(format!("it is damaged, or no tar archive at all: {e}")),
        };
        let len = file.metadata().map_err(damaged)?.len();
        let mut scan = Scan { file: &file, len, pos: 0, next: Overrides::default(), members: HashMap::new() };
        while scan.step().map_err(damaged)? {
            if scan.members.len() > MEMBER_LIMIT {
                return Err(ImageError::Archive(format!("it has more than {MEMBER_LIMIT} members")));
            }
        }
        let members = scan.members;
        Ok(Self { file: Arc::new(file), members })
    }
}

/// What long-name and pax headers say about the member after them.
#[derive(Default)]
struct Overrides {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

struct Scan<'a> {
    file: &'a File,
    len: u64,
    pos: u64,
    next: Overrides,
    members: HashMap<Vec<u8>, What>,
}

impl Scan<'_> {
    /// Takes one header in; false at the end.
    fn step(&mut self) -> io::Result<bool> {
        let mut block = [0; BLOCK as usize];
        if self.pos >= self.len {
            return Ok(false);
        }
        self.file.read_exact_at(&mut block, self.pos)?;
        if block.iter().all(|b| *b == 0) {
            return Ok(false);
        }
        let header = tar::Header::from_byte_slice(&block);
        check_sum(&block, header)?;
        let kind = header.entry_type();
        let extension = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        let size = match self.next.size {
            Some(size) if !extension => size,
            _ => header.entry_size().map_err(|_| io::Error::other("a header has no readable size"))?,
        };
        let at = self.pos + BLOCK;
        let end = at.checked_add(size).filter(|end| *end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.pos = end.next_multiple_of(BLOCK);
        if kind.is_gnu_longname() {
            self.next.name = Some(cut_nul(self.bytes(at, size, NAME_LIMIT)?));
        } else if kind.is_gnu_longlink() {
            self.next.link = Some(cut_nul(self.bytes(at, size, NAME_LIMIT)?));
        } else if kind.is_pax_local_extensions() {
            let bytes = self.bytes(at, size, PAX_LIMIT)?;
            self.pax(&bytes)?;
        } else if !kind.is_pax_global_extensions() {
            self.member(header, at, size);
        }
        Ok(true)
    }

    fn member(&mut self, header: &tar::Header, at: u64, size: u64) {
        let over = std::mem::take(&mut self.next);
        let name = clean(&over.name.unwrap_or_else(|| header.path_bytes().into_owned()));
        let target =
            over.link.or_else(|| header.link_name_bytes().map(|t| t.into_owned())).unwrap_or_default();
        let kind = header.entry_type();
        let what = if over.sparse || kind.is_gnu_sparse() {
            What::Other
        } else if kind.is_file() || kind.is_contiguous() {
            What::File { at, size }
        } else if kind.is_hard_link() {
            What::Link(clean(&target))
        } else if kind.is_symlink() {
            let dir = name.iter().rposition(|b| *b == b'/').map_or(&b""[..], |cut| &name[..cut]);
            What::Link(clean(&[dir, &target].join(&b'/')))
        } else {
            What::Other
        };
        self.members.insert(name, what);
    }

    fn pax(&mut self, bytes: &[u8]) -> io::Result<()> {
        for extension in tar::PaxExtensions::new(bytes) {
            let extension = extension?;
            let number = || {
                let text = std::str::from_utf8(extension.value_bytes()).ok();
                text.and_then(|t| t.parse().ok()).ok_or(io::Error::from(io::ErrorKind::InvalidData))
            };
            match extension.key_bytes() {
                b"path" => self.next.name = Some(extension.value_bytes().to_vec()),
                b"linkpath" => self.next.link = Some(extension.value_bytes().to_vec()),
                b"size" => self.next.size = Some(number()?),
                key if key.starts_with(b"GNU.sparse.") => self.next.sparse = true,
                _ => {}
            }
        }
        Ok(())
    }

    fn bytes(&self, at: u64, size: u64, limit: u64) -> io::Result<Vec<u8>> {
        if size > limit {
            return Err(io::Error::other(format!("a header of {size} bytes, more than {limit}")));
        }
        let mut bytes = vec![0; size as usize];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}

/// The sum of all header bytes, with the field of the sum itself taken as spaces.
fn check_sum(block: &[u8], header: &tar::Header) -> io::Result<()> {
    let sum = |range: &[u8]| range.iter().map(|b| u32::from(*b)).sum::<u32>();
    let found = sum(&block[..148]) + sum(&block[156..]) + 8 * u32::from(b' ');
    if header.cksum().is_ok_and(|sum| sum == found) {
        return Ok(());
    }
    Err(io::Error::other("a header has the wrong checksum"))
}

fn cut_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// One spelling for `./a`, `/a` and `a`; `..` stays inside.
fn clean(name: &[u8]) -> Vec<u8> {
    crate::tree::TreePath::clean(name).as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Seek, Write};

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    fn sample() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |name: &str, body: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(body.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, body).unwrap();
        };
        add("a", b"first");
        add(&format!("{}/long", "d/".repeat(100)), b"deep");
        add("a", b"second");
        let mut link = |kind, name: &str, target: &str| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            tar.append_link(&mut header, name, target).unwrap();
        };
        link(tar::EntryType::Symlink, "x/layer.tar", "../a");
        link(tar::EntryType::Symlink, "x/out", "/etc/passwd");
        link(tar::EntryType::Symlink, "x/loop", "loop");
        link(tar::EntryType::Link, "x/hard", "a");
        link(tar::EntryType::Directory, "dir", "x");
        tar.into_inner().unwrap()
    }

    fn read(tar: &Tar, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        tar.open(name)?.map(|m| m.read_all(name, 100)).transpose()
    }

    #[test]
    fn members_are_found_by_name() {
        let tar = Tar::index(file(&sample())).unwrap();
        let deep = format!("./{}/long", "d/".repeat(100));
        for (name, want) in [
            ("a", &b"second"[..]),
            ("/a", b"second"),
            (&deep, b"deep"),
            ("x/layer.tar", b"second"),
            ("x/hard", b"second"),
        ] {
            assert_eq!(read(&tar, name).unwrap().unwrap(), want, "{name}");
        }
        assert!(read(&tar, "nothing").unwrap().is_none());
        for name in ["x/out", "x/loop", "dir"] {
            assert!(read(&tar, name).is_err(), "{name}");
        }
        assert!(tar.open("a").unwrap().unwrap().read_all("a", 5).is_err());
    }

    #[test]
    fn a_cut_archive_is_refused() {
        let whole = sample();
        // inside of a header, of a member's bytes, of the next header
        for cut in [100, 514, 1024 + 3] {
            assert!(Tar::index(file(&whole[..cut])).is_err(), "{cut}");
        }
        let mut damaged = whole.clone();
        damaged[0] ^= 1;
        assert!(Tar::index(file(&damaged)).unwrap_err().to_string().contains("checksum"));
        let mut header = tar::Header::new_gnu();
        header.set_path("big").unwrap();
        header.set_size(u64::MAX / 2);
        header.set_cksum();
        assert!(Tar::index(file(header.as_bytes())).is_err());
    }

    #[test]
    fn a_directory_gives_regular_files_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("out")).unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let source = Source::dir(dir.path()).unwrap();
        assert_eq!(source.need("a").unwrap().read_all("a", 10).unwrap(), b"x");
        assert!(source.open("out").unwrap().is_none());
        assert!(source.open("../a").unwrap().is_some());
        assert!(source.open("sub").is_err());
        assert!(source.need("b").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(flips in prop::collection::vec((0usize..4096, any::<u8>()), 1..20)) {
            let mut bytes = sample();
            for (at, value) in flips {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            if let Ok(tar) = Tar::index(file(&bytes)) {
                let _ = read(&tar, "a");
                let _ = read(&tar, "x/layer.tar");
            }
        }
    }
}
