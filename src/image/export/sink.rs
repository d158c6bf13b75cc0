//! Where the files of a layout go: into a tar stream or into a directory.

use super::stage::beside;
use crate::image::ImageError;
use crate::sys::fsutil;
use rustix::fs::Mode;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const BLOCK: u64 = 512;

/// Writes the bytes of one file.
pub(super) type Fill<'a> = &'a mut dyn FnMut(&mut dyn Write) -> Result<(), ImageError>;

/// Takes the files of a layout. Names are ours: relative, clean, at most 100 bytes.
pub(super) trait Sink {
    /// Takes one file of exactly `size` bytes.
    fn file(&mut self, name: &str, size: u64, fill: Fill<'_>) -> Result<(), ImageError>;

    /// Gives an `index.json` that is there already.
    fn index(&self) -> Result<Option<Vec<u8>>, ImageError> {
        Ok(None)
    }
}

/// Writes a tar. Every header has the same owner, mode and time, so that the same image gives the same bytes.
pub(super) struct TarSink<W: Write> {
    out: W,
    dirs: Vec<String>,
}

impl<W: Write> TarSink<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, dirs: Vec::new() }
    }

    pub(super) fn finish(mut self) -> Result<(), ImageError> {
        self.out.write_all(&[0; 2 * BLOCK as usize]).map_err(ImageError::write("the archive"))?;
        self.out.flush().map_err(ImageError::write("the archive"))
    }

    fn header(&mut self, name: &str, size: u64, dir: bool) -> Result<(), ImageError> {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).map_err(ImageError::write("the archive"))?;
        header.set_size(size);
        header.set_mode(if dir { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(if dir { tar::EntryType::Directory } else { tar::EntryType::Regular });
        if size >= 8 << 30 {
            // Too long for octal digits: the binary form that GNU and all readers of images know.
            let field = &mut header.as_mut_bytes()[124..136];
            field.fill(0);
            field[0] = 0x80;
            field[4..].copy_from_slice(&size.to_be_bytes());
        }
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(ImageError::write("the archive"))
    }
}

impl<W: Write> Sink for TarSink<W> {
    fn file(&mut self, name: &str, size: u64, fill: Fill<'_>) -> Result<(), ImageError> {
        for (at, _) in name.match_indices('/') {
            let dir = format!("{}/", &name[..at]);
            if !self.dirs.contains(&dir) {
                self.header(&dir, 0, true)?;
                self.dirs.push(dir);
            }
        }
        self.header(name, size, false)?;
        let mut exact = Exact { out: &mut self.out, left: size };
        fill(&mut exact)?;
        exact.done(name)?;
        let rest = size.next_multiple_of(BLOCK) - size;
        self.out.write_all(&[0; BLOCK as usize][..rest as usize]).map_err(ImageError::write("the archive"))
    }
}

/// Lets so many bytes through and no more.
struct Exact<W> {
    out: W,
    left: u64,
}

impl<W: Write> Exact<W> {
    fn done(self, name: &str) -> Result<(), ImageError> {
        match self.left {
            0 => Ok(()),
            left => Err(ImageError::write(name)(io::Error::other(format!("{left} bytes are missing")))),
        }
    }
}

impl<W: Write> Write for Exact<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.len() as u64 > self.left {
            return Err(io::Error::other("there are more bytes than announced"));
        }
        let n = self.out.write(buf)?;
        self.left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes into a directory: a new one is staged beside its name, one that is there is filled file by file.
pub(super) fn to_directory(
    dir: &Path,
    write: impl FnOnce(&mut dyn Sink) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    in_directory(dir, |root| {
        let mut sink = DirSink { root };
        if !sink.is_empty()? && sink.index()?.is_none() {
            let why = io::Error::other("the directory is neither empty nor an OCI layout");
            return Err(ImageError::io("write into", dir)(why));
        }
        write(&mut sink)
    })
}

/// Opens a directory for filling. One that does not exist yet gets its name at the end, or never.
pub(super) fn in_directory<T>(
    dir: &Path,
    fill: impl FnOnce(OwnedFd) -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    if let Ok(there) = dir.canonicalize() {
        return fill(fsutil::open_dir(&there).map_err(ImageError::io("open", dir))?);
    }
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(ImageError::io("make the directory", parent))?;
    }
    let staged = beside(dir)?;
    rustix::fs::mkdir(&staged, Mode::from_raw_mode(0o777)).map_err(ImageError::io("make", dir))?;
    let result =
        fsutil::open_dir(&staged).map_err(ImageError::io("open", dir)).and_then(fill).and_then(|done| {
            match rustix::fs::rename(&staged, dir) {
                Ok(()) => Ok(done),
                Err(e) => Err(ImageError::io("write", dir)(e)),
            }
        });
    if result.is_err() {
        // The error that brought us here is the one to tell.
        let _ = fsutil::remove_tree(&staged);
    }
    result
}

struct DirSink {
    root: OwnedFd,
}

impl DirSink {
    fn is_empty(&self) -> Result<bool, ImageError> {
        Ok(fsutil::names(self.root.as_fd()).map_err(ImageError::write("the layout"))?.is_empty())
    }

    /// Opens the directory that a name is in, making it; a link on the way is an error.
    fn parent<'n>(&self, name: &'n str) -> io::Result<(OwnedFd, &'n OsStr)> {
        let mut dir = fsutil::open_dir_at(self.root.as_fd(), OsStr::new("."))?;
        let mut parts = name.split('/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return Ok((dir, OsStr::new(part)));
            }
            match rustix::fs::mkdirat(&dir, part, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            dir = fsutil::open_dir_at(dir.as_fd(), OsStr::new(part))?;
        }
        Err(io::ErrorKind::InvalidInput.into())
    }
}

impl Sink for DirSink {
    fn file(&mut self, name: &str, size: u64, fill: Fill<'_>) -> Result<(), ImageError> {
        let fail = || ImageError::write::<io::Error>(name);
        let (dir, last) = self.parent(name).map_err(fail())?;
        let staged = beside(Path::new(last))?;
        let write = |file: File| -> Result<(), ImageError> {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644)).map_err(|e| fail()(e.into()))?;
            let mut out = Exact { out: BufWriter::with_capacity(256 << 10, file), left: size };
            fill(&mut out)?;
            out.flush().map_err(fail())?;
            out.done(name)
        };
        let result = fsutil::create_file(dir.as_fd(), staged.as_os_str()).map_err(fail()).and_then(write);
        let result = result.and_then(|()| {
            rustix::fs::renameat(&dir, staged.as_os_str(), &dir, last).map_err(|e| fail()(e.into()))
        });
        if result.is_err() {
            let _ = fsutil::remove_at(dir.as_fd(), staged.as_os_str());
        }
        result
    }

    fn index(&self) -> Result<Option<Vec<u8>>, ImageError> {
        let fail = ImageError::write("index.json");
        let file = match fsutil::open_regular(self.root.as_fd(), OsStr::new("index.json")) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(fail(e)),
        };
        let mut bytes = Vec::new();
        match file.take(crate::image::documents::MANIFEST_LIMIT + 1).read_to_end(&mut bytes) {
            Ok(_) => Ok(Some(bytes)),
            Err(e) => Err(fail(e)),
        }
    }
}
