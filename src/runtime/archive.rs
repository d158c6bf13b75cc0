//! Trees as tar streams, for `cp` and `export`: out of a container or a directory of the host, and into one.
//!
//! Both sides work from an open directory by descriptors. What comes in is hostile: no entry can lead out of that
//! directory, and none goes through a link below it.

use crate::sys::{file, fsutil, inroot};
use crate::tree::{Meta, Mtime, TreePath};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use tar::{Builder, EntryType, Header};

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

/// How a tree is written out.
#[derive(Debug, Clone, Copy, Default)]
pub struct PackOptions {
    /// What is mounted in it is shown as an empty place.
    pub one_file_system: bool,
    /// The root is a container's: `proc`, `sys` and `dev`, which the engine has mounted there, are shown as empty places.
    pub hollow: bool,
}

struct Packer<'a, W: Write> {
    tar: Builder<W>,
    root: BorrowedFd<'a>,
    opts: PackOptions,
    device: u64,
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// Writes what stands at `path` below `root`, no links on the way, as a tar in which it is called `name`; an empty name is
/// the directory's content alone.
pub fn pack(
    root: BorrowedFd<'_>,
    path: &TreePath,
    name: &[u8],
    opts: PackOptions,
    out: impl Write,
) -> io::Result<()> {
    let device = rustix::fs::fstat(root)?.st_dev;
    let mut tar = Builder::new(out);
    tar.sparse(false);
    let mut packer = Packer { tar, root, opts, device, links: HashMap::new() };
    packer.one(path, name)?;
    packer.tar.into_inner()?.flush()
}

impl<W: Write> Packer<'_, W> {
    fn parent(&self, path: &TreePath) -> io::Result<OwnedFd> {
        inroot::open_without_links(self.root, path.parent().unwrap_or_default().as_os_str(), DIR)
    }

    /// Writes an entry and what is below it. The depth of the tree is that of the open calls, not of the stack of names.
    fn one(&mut self, path: &TreePath, name: &[u8]) -> io::Result<()> {
        let mut todo = vec![(path.clone(), name.to_vec())];
        while let Some((path, name)) = todo.pop() {
            let stat = match path.is_root() {
                true => Some(rustix::fs::fstat(self.root)?),
                false => {
                    let last = OsStr::from_bytes(path.file_name().unwrap_or_default());
                    fsutil::stat_at(self.parent(&path)?.as_fd(), last)?
                }
            };
            // it may have been removed meanwhile
            let Some(stat) = stat else { continue };
            self.entry(&path, &name, &stat)?;
            let ours = self.opts.hollow && matches!(path.as_bytes(), b"proc" | b"sys" | b"dev");
            let foreign = (self.opts.one_file_system || ours) && stat.st_dev != self.device;
            if fsutil::file_type(&stat) == FileType::Directory && !foreign {
                let dir = inroot::open_without_links(self.root, path.as_os_str(), DIR)?;
                let mut names = fsutil::names(dir.as_fd())?;
                names.sort_unstable();
                for child in names.into_iter().rev() {
                    let slash: &[u8] = if name.is_empty() { b"" } else { b"/" };
                    todo.push((path.child(child.as_bytes()), [&name, slash, child.as_bytes()].concat()));
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &TreePath, name: &[u8], stat: &Stat) -> io::Result<()> {
        if name.is_empty() {
            return Ok(());
        }
        let mut header = Header::new_gnu();
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(stat.st_uid.into());
        header.set_gid(stat.st_gid.into());
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header.set_size(0);
        let shown = OsStr::from_bytes(name);
        let kind = fsutil::file_type(stat);
        let key = (stat.st_dev, stat.st_ino);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&key) {
                header.set_entry_type(EntryType::Link);
                return self.tar.append_link(&mut header, shown, OsStr::from_bytes(first));
            }
            self.links.insert(key, name.to_vec());
        }
        match kind {
            FileType::Directory => {
                header.set_entry_type(EntryType::Directory);
                let dir = inroot::open_without_links(self.root, path.as_os_str(), DIR)?;
                self.attributes(dir.as_fd())?;
                let with_slash = [name, b"/"].concat();
                self.tar.append_data(&mut header, OsStr::from_bytes(&with_slash), io::empty())
            }
            FileType::RegularFile => {
                header.set_entry_type(EntryType::Regular);
                if self.opts.one_file_system && stat.st_dev != self.device {
                    return self.tar.append_data(&mut header, shown, io::empty());
                }
                let file = File::from(inroot::open_without_links(
                    self.root,
                    path.as_os_str(),
                    OFlags::RDONLY | OFlags::NONBLOCK,
                )?);
                self.attributes(file.as_fd())?;
                let size = file.metadata()?.len();
                header.set_size(size);
                // a file that shrinks meanwhile is filled up, one that grows is cut: the archive must stay one
                self.tar.append_data(&mut header, shown, file.chain(io::repeat(0)).take(size))
            }
            FileType::Symlink => {
                header.set_entry_type(EntryType::Symlink);
                let parent = self.parent(path)?;
                let last = OsStr::from_bytes(path.file_name().unwrap_or_default());
                let target = rustix::fs::readlinkat(&parent, last, Vec::new())?;
                self.tar.append_link(&mut header, shown, OsStr::from_bytes(target.as_bytes()))
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                let char = kind == FileType::CharacterDevice;
                header.set_entry_type(if char { EntryType::Char } else { EntryType::Block });
                header.set_device_major(rustix::fs::major(stat.st_rdev))?;
                header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
                self.tar.append_data(&mut header, shown, io::empty())
            }
            FileType::Fifo => {
                header.set_entry_type(EntryType::Fifo);
                self.tar.append_data(&mut header, shown, io::empty())
            }
            // what listens on a socket does not travel
            _ => Ok(()),
        }
    }

    /// Writes the extended attributes of the file whose entry comes next.
    fn attributes(&mut self, file: BorrowedFd<'_>) -> io::Result<()> {
        let mut all = fsutil::xattrs(file)?;
        all.retain(|(name, _)| travels(name));
        if all.is_empty() {
            return Ok(());
        }
        let record = |(name, value): &(Vec<u8>, Vec<u8>)| {
            let name = String::from_utf8_lossy(name);
            match value.contains(&b'\n') {
                true => (format!("{CODED}{name}"), STANDARD_NO_PAD.encode(value).into_bytes()),
                false => (format!("{XATTR}{name}"), value.clone()),
            }
        };
        let records: Vec<_> = all.iter().map(record).collect();
        self.tar.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), &value[..])))
    }
}

/// What the key of an extended attribute begins with in a tar.
const XATTR: &str = "SCHILY.xattr.";
/// The same for one whose value is in base64: many readers take the end of a line for the end of a value.
const CODED: &str = "LIBARCHIVE.xattr.";

/// Whether an attribute belongs to a file wherever it is: not what overlayfs or a security module keeps there.
fn travels(name: &[u8]) -> bool {
    let users = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    (users && std::str::from_utf8(name).is_ok()) || name == b"security.capability"
}

/// Gives the extended attributes that an archive has for an entry.
fn attributes_of(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut out = Vec::new();
    for record in entry.pax_extensions()?.into_iter().flatten() {
        // a value of several lines, which this reader cannot tell from the next record
        let Ok(record) = record else { break };
        let (key, value) = (record.key_bytes(), record.value_bytes());
        let plain = key.strip_prefix(XATTR.as_bytes()).map(|name| (name, Some(value.to_vec())));
        let coded = key.strip_prefix(CODED.as_bytes()).map(|name| (name, STANDARD_NO_PAD.decode(value).ok()));
        if let Some((name, Some(value))) = plain.or(coded).filter(|(name, _)| travels(name)) {
            out.push((name.to_vec(), value));
        }
    }
    Ok(out)
}

/// Reads a tar into the open directory `root`. Files belong to `owner`, or with `None` to whom the archive says.
///
/// # Errors
/// An entry would replace a directory by something else or the other way round, or leads out of the directory.
pub fn unpack(root: BorrowedFd<'_>, input: impl Read, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut archive = tar::Archive::new(input);
    let chown = fsutil::can_chown();
    let mut dirs = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let raw = entry.path_bytes().into_owned();
        if raw.split(|b| *b == b'/').any(|part| part == b"..") {
            return Err(refused(&raw, "it leads out of the directory"));
        }
        let path = TreePath::clean(&raw);
        let xattrs = attributes_of(&mut entry)?;
        let header = entry.header();
        let (uid, gid) = match owner {
            Some(owner) => owner,
            None => (u32::try_from(header.uid()?).unwrap_or(0), u32::try_from(header.gid()?).unwrap_or(0)),
        };
        let mtime = Mtime { secs: i64::try_from(header.mtime()?).unwrap_or(0), nanos: 0 };
        let meta = Meta { mode: header.mode()? & 0o7777, uid, gid, mtime, xattrs };
        let kind = header.entry_type();
        if path.is_root() {
            continue;
        }
        let at =
            |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.as_os_str().to_string_lossy()));
        if kind.is_dir() {
            make_dir(root, &path).map_err(at)?;
            dirs.push((path, meta));
            continue;
        }
        let parent = make_dir(root, &path.parent().unwrap_or_default()).map_err(at)?;
        let name = OsStr::from_bytes(path.file_name().unwrap_or_default()).to_owned();
        let made = one(root, &parent, &name, kind, &mut entry, &meta, chown);
        made.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", String::from_utf8_lossy(&raw))))?;
    }
    // afterwards, since each new entry changes its directory's time
    for (path, meta) in dirs.into_iter().rev() {
        let dir = inroot::open_without_links(root, path.as_os_str(), DIR)?;
        fsutil::apply_meta(dir.as_fd(), &meta, chown)?;
    }
    Ok(())
}

fn refused(name: &[u8], why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{:?}: {why}", String::from_utf8_lossy(name)))
}

/// Opens a directory below the root, and makes what is missing of it.
fn make_dir(root: BorrowedFd<'_>, path: &TreePath) -> io::Result<OwnedFd> {
    match inroot::open_without_links(root, path.as_os_str(), DIR) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            return Err(io::Error::new(e.kind(), "cannot overwrite non-directory with directory"));
        }
        other => return other,
    }
    let above = make_dir(root, &path.parent().unwrap_or_default())?;
    let name = OsStr::from_bytes(path.file_name().unwrap_or_default());
    match rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    inroot::open_without_links(above.as_fd(), name, DIR)
}

fn one(
    root: BorrowedFd<'_>,
    dir: &OwnedFd,
    name: &OsStr,
    kind: EntryType,
    entry: &mut tar::Entry<'_, impl Read>,
    meta: &Meta,
    chown: bool,
) -> io::Result<()> {
    let before = fsutil::stat_at(dir.as_fd(), name)?;
    if before.as_ref().is_some_and(|stat| fsutil::file_type(stat) == FileType::Directory) {
        return Err(io::Error::new(
            io::ErrorKind::IsADirectory,
            "cannot overwrite directory with non-directory",
        ));
    }
    let mut in_place = false;
    if before.is_some() {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) => {}
            // something is mounted there: a file of the host, /etc/hosts
            Err(rustix::io::Errno::BUSY) => in_place = true,
            Err(e) => return Err(e.into()),
        }
    }
    match kind {
        EntryType::Symlink => {
            let target = entry.link_name_bytes().ok_or(io::ErrorKind::InvalidData)?.into_owned();
            rustix::fs::symlinkat(OsStr::from_bytes(&target), dir, name)?;
            fsutil::apply_meta_at(dir.as_fd(), name, meta, chown)
        }
        EntryType::Link => {
            let target = entry.link_name_bytes().ok_or(io::ErrorKind::InvalidData)?.into_owned();
            let first = TreePath::clean(&target);
            let from = inroot::open_without_links(root, first.parent().unwrap_or_default().as_os_str(), DIR)?;
            let last = OsStr::from_bytes(first.file_name().unwrap_or_default());
            Ok(rustix::fs::linkat(&from, last, dir, name, AtFlags::empty())?)
        }
        EntryType::Char | EntryType::Block => {
            let header = entry.header();
            let node =
                if kind == EntryType::Char { FileType::CharacterDevice } else { FileType::BlockDevice };
            let number = |n: io::Result<Option<u32>>| n.map(Option::unwrap_or_default);
            let (major, minor) = (number(header.device_major())?, number(header.device_minor())?);
            file::mknod_at(dir, name, node, meta.mode, major, minor)?;
            fsutil::apply_meta_at(dir.as_fd(), name, meta, chown)
        }
        EntryType::Fifo => {
            file::mknod_at(dir, name, FileType::Fifo, meta.mode, 0, 0)?;
            fsutil::apply_meta_at(dir.as_fd(), name, meta, chown)
        }
        _ if in_place => {
            let flags = OFlags::WRONLY | OFlags::TRUNC;
            let mut to = File::from(inroot::open_without_links(dir.as_fd(), name, flags)?);
            io::copy(entry, &mut to).map(drop)
        }
        _ => {
            let mut to = fsutil::create_file(dir.as_fd(), name)?;
            io::copy(entry, &mut to)?;
            fsutil::apply_meta(to.as_fd(), meta, chown)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn copy(from: &std::path::Path, path: &str, name: &str, to: &std::path::Path) -> io::Result<()> {
        let (from, to) = (fsutil::open_dir(from)?, fsutil::open_dir(to)?);
        let mut tar = Vec::new();
        let path = TreePath::clean(path.as_bytes());
        pack(from.as_fd(), &path, name.as_bytes(), PackOptions::default(), &mut tar)?;
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        unpack(to.as_fd(), &tar[..], Some(own))
    }

    #[test]
    fn a_tree_arrives_under_its_new_name() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        std::fs::create_dir(&to).unwrap();
        let long = "n".repeat(200);
        std::fs::write(from.join("a/b").join(&long), "deep").unwrap();
        std::fs::write(from.join("a/exec"), "x").unwrap();
        std::fs::set_permissions(from.join("a/exec"), std::fs::Permissions::from_mode(0o4751)).unwrap();
        std::fs::hard_link(from.join("a/exec"), from.join("a/twin")).unwrap();
        std::os::unix::fs::symlink("/nowhere", from.join("a/link")).unwrap();
        copy(&from, "a", "new", &to).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("new/b").join(&long)).unwrap(), "deep");
        let meta = to.join("new/exec").metadata().unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.nlink()), (0o4751, 2));
        assert_eq!(std::fs::read_link(to.join("new/link")).unwrap(), std::path::Path::new("/nowhere"));
        // the content alone, over what is there
        std::fs::write(to.join("exec"), "old").unwrap();
        copy(&from, "a", "", &to).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("exec")).unwrap(), "x");
        let error = copy(&from, "a/exec", "b", &to).unwrap_err().to_string();
        assert!(error.contains("cannot overwrite directory"), "{error}");
        let error = copy(&from, "a", "exec", &to).unwrap_err().to_string();
        assert!(error.contains("cannot overwrite non-directory"), "{error}");
    }

    #[test]
    fn attributes_travel() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("sub")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("sub/file"), "x").unwrap();
        let set = |path: &str, name: &str| {
            let open = File::open(from.join(path)).unwrap();
            fsutil::set_xattr(open.as_fd(), OsStr::new(name), b"a\nb\0c").is_ok()
        };
        if !set("sub/file", "user.note") {
            // this file system has none
            return;
        }
        let open = File::open(from.join("sub/file")).unwrap();
        fsutil::set_xattr(open.as_fd(), OsStr::new("user.plain"), b"text").unwrap();
        assert!(set("sub", "user.dir") && set("sub/file", "user.overlay.x"));
        copy(&from, "sub", "sub", &to).unwrap();
        let got = |path: &str| fsutil::xattrs(File::open(to.join(path)).unwrap().as_fd()).unwrap();
        let mut both = got("sub/file");
        both.sort();
        let plain = (b"user.plain".to_vec(), b"text".to_vec());
        assert_eq!(both, [(b"user.note".to_vec(), b"a\nb\0c".to_vec()), plain]);
        assert_eq!(got("sub"), [(b"user.dir".to_vec(), b"a\nb\0c".to_vec())]);
    }

    #[test]
    fn no_entry_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::create_dir(&outside).unwrap();
        let mut tar = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "way", "../out").unwrap();
        let mut header = Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        tar.append_data(&mut header, "way/file", &b"x"[..]).unwrap();
        let bytes = tar.into_inner().unwrap();
        let root = fsutil::open_dir(&inside).unwrap();
        assert!(unpack(root.as_fd(), &bytes[..], None).is_err());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        let mut tar = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        header.as_gnu_mut().unwrap().name[..8].copy_from_slice(b"../out/x");
        header.set_cksum();
        tar.append(&header, &b"x"[..]).unwrap();
        assert!(unpack(root.as_fd(), &tar.into_inner().unwrap()[..], None).is_err());
    }
}
