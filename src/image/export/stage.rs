//! Output files that are there whole or not at all.
//!
//! The file has no name until it is complete (O_TMPFILE), so that not even a kill leaves a half one behind; where the
//! file system cannot do that it has a hidden name beside the target.

use super::Target;
use crate::digest::hex;
use crate::image::ImageError;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Lets `write` fill the target.
pub(super) fn to_target(
    target: Target<'_>,
    write: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    match target {
        Target::Stream(out) => {
            let mut out = BufWriter::with_capacity(256 << 10, out);
            write(&mut out)?;
            out.flush().map_err(ImageError::write("the output"))
        }
        Target::Path(path) => to_path(path, write),
    }
}

fn to_path(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let through = |file: &File| {
        let mut out = BufWriter::with_capacity(256 << 10, file);
        write(&mut out)?;
        out.flush().map_err(ImageError::io("write", path))
    };
    match path.metadata() {
        Ok(meta) if meta.is_dir() => {
            Err(ImageError::io("write", path)(std::io::Error::from(std::io::ErrorKind::IsADirectory)))
        }
        // A pipe or device takes the bytes as they come.
        Ok(meta) if !meta.is_file() => {
            through(&File::options().write(true).open(path).map_err(ImageError::io("open", path))?)
        }
        _ => {
            let staged = Staged::make(path)?;
            through(&staged.file)?;
            staged.publish()
        }
    }
}

struct Staged {
    file: File,
    target: PathBuf,
    /// Its name, once it has one.
    name: Option<PathBuf>,
}

impl Staged {
    fn make(target: &Path) -> Result<Self, ImageError> {
        // Through a link to the file that it means, which stays where it is.
        let target = target.canonicalize().unwrap_or_else(|_| target.to_owned());
        let dir = match target.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let mode = Mode::from_raw_mode(0o666);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        if let Ok(fd) = rustix::fs::openat(CWD, dir, flags | OFlags::TMPFILE, mode) {
            return Ok(Self { file: fd.into(), target, name: None });
        }
        let name = beside(&target)?;
        let fd = rustix::fs::openat(CWD, &name, flags | OFlags::CREATE | OFlags::EXCL, mode)
            .map_err(ImageError::io("write", &target))?;
        Ok(Self { file: fd.into(), target, name: Some(name) })
    }

    fn publish(mut self) -> Result<(), ImageError> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                let name = beside(&self.target)?;
                let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                rustix::fs::linkat(CWD, own, CWD, &name, AtFlags::SYMLINK_FOLLOW)
                    .map_err(ImageError::io("write", &self.target))?;
                self.name.insert(name).clone()
            }
        };
        rustix::fs::rename(&name, &self.target).map_err(ImageError::io("write", &self.target))?;
        self.name = None;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // The error that brought us here is the one to tell.
            let _ = rustix::fs::unlink(name);
        }
    }
}

/// Gives a hidden name of its own in the directory of `target`.
pub(super) fn beside(target: &Path) -> Result<PathBuf, ImageError> {
    let mut random = [0u8; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(ImageError::io("get random bytes for", target))?;
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{}", hex(&random)));
    Ok(target.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_whole_or_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.tar");
        let good = |out: &mut dyn Write| out.write_all(b"new").map_err(ImageError::write("x"));
        let bad = |out: &mut dyn Write| {
            out.write_all(b"half").map_err(ImageError::write("x"))?;
            Err(ImageError::Assemble("on purpose".into()))
        };
        assert!(to_target(Target::Path(&path), bad).is_err());
        assert_eq!(files(dir.path()), Vec::<String>::new());
        to_target(Target::Path(&path), good).unwrap();
        assert!(to_target(Target::Path(&path), bad).is_err());
        assert_eq!(files(dir.path()), ["out.tar"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        // a link stays one
        std::os::unix::fs::symlink("out.tar", dir.path().join("link")).unwrap();
        to_target(Target::Path(&dir.path().join("link")), |out| {
            out.write_all(b"by link").map_err(ImageError::write("x"))
        })
        .unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"by link");
        assert!(dir.path().join("link").is_symlink());
        assert!(to_target(Target::Path(dir.path()), good).is_err());
        assert!(to_target(Target::Path(&dir.path().join("no/such")), good).is_err());
    }
}
