//! `cp`: files between containers and the host, with the rules of docker and `cp -a`.

use super::{failure, open};
use crate::cli::{CliError, CommandResult, Ctx};
use crate::runtime::archive::{self, PackOptions};
use crate::runtime::files::{self, Root};
use crate::sys::inroot::{self, Last};
use crate::tree::TreePath;
use clap::Args;
use rustix::fs::{FileType, Mode, OFlags};
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `cp`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CopyArgs {
    /// CONTAINER:PATH, a path of the host, or - for a tar on standard input
    #[arg(value_name = "FROM")]
    from: OsString,
    /// CONTAINER:PATH, a path of the host, or - for a tar on standard output
    #[arg(value_name = "TO")]
    to: OsString,
    /// Keep owners
    #[arg(short, long)]
    archive: bool,
    /// Follow a link that FROM is
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Accepted for docker's sake; nothing is said anyway
    #[arg(short, long)]
    quiet: bool,
}

/// One side.
enum Side {
    Stream,
    Host(PathBuf),
    Container { name: String, path: Vec<u8> },
}

/// An open directory and a path in it.
struct Place {
    root: Root,
    /// As typed: a trailing slash or dot counts.
    typed: Vec<u8>,
    /// The path as its side sees it, which tells its name; `root` may be a volume in it.
    seen: TreePath,
    /// It is on a container's side.
    contained: bool,
}

/// Copies.
pub(in crate::cli) fn run(args: &CopyArgs, ctx: &Ctx) -> CommandResult {
    let (from, to) = (side(&args.from)?, side(&args.to)?);
    let into_container = matches!(to, Side::Container { .. });
    match (&from, &to) {
        (Side::Container { .. }, Side::Container { .. }) => {
            return Err(CliError::new("copying between containers is not supported"));
        }
        (Side::Container { .. }, _) | (_, Side::Container { .. }) => {}
        _ => return Err(CliError::new("must specify at least one container source")),
    }
    let owner = match (args.archive, into_container) {
        (true, _) => None,
        (false, true) => Some((0, 0)),
        (false, false) => Some((rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())),
    };
    match (from, to) {
        (Side::Stream, to) => {
            let to = place(to, ctx)?;
            let dir = existing_dir(&to)?;
            let input = crate::layer::decoder(Box::new(io::stdin())).map_err(|e| broken(&to.typed, &e))?;
            archive::unpack(dir.as_fd(), input, owner).map_err(|e| broken(&to.typed, &e))?;
        }
        (from, Side::Stream) => {
            if io::stdout().is_terminal() {
                return Err(CliError::new("cowardly refusing to write a tar to a terminal"));
            }
            let from = source(place(from, ctx)?, args.follow_link)?;
            let name = if from.name.is_empty() { b".".to_vec() } else { from.name.clone() };
            let out = io::BufWriter::new(io::stdout().lock());
            archive::pack(from.dir.as_fd(), &from.path, &name, from.options, out)
                .map_err(|e| broken(&from.typed, &e))?;
        }
        (from, to) => {
            let from = source(place(from, ctx)?, args.follow_link)?;
            let to = place(to, ctx)?;
            let (dir, name) = target(&from, &to)?;
            through(&from, &name, &dir, owner)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Carries a tar from one side to the other.
fn through(from: &Source, name: &[u8], to: &OwnedFd, owner: Option<(u32, u32)>) -> Result<(), CliError> {
    let (read, write) = io::pipe()?;
    std::thread::scope(|scope| {
        let packer = scope.spawn(move || {
            let out = io::BufWriter::with_capacity(256 << 10, write);
            archive::pack(from.dir.as_fd(), &from.path, name, from.options, out)
        });
        let unpacked = archive::unpack(to.as_fd(), io::BufReader::with_capacity(256 << 10, &read), owner);
        // whoever still writes must hear that nobody reads
        drop(read);
        let packed = packer.join().unwrap_or_else(|_| Err(io::Error::other("the reading side panicked")));
        match (packed, unpacked) {
            (Err(e), _) if e.kind() != io::ErrorKind::BrokenPipe => Err(broken(&from.typed, &e)),
            (_, Err(e)) => Err(CliError::new(format!("cannot copy: {e}"))),
            _ => Ok(()),
        }
    })
}

fn broken(path: &[u8], e: &io::Error) -> CliError {
    CliError::new(format!("cannot copy {}: {e}", String::from_utf8_lossy(path)))
}

fn side(text: &OsStr) -> Result<Side, CliError> {
    let bytes = text.as_bytes();
    if bytes == b"-" {
        return Ok(Side::Stream);
    }
    // a path that begins like one may hold colons
    let colon = bytes
        .iter()
        .position(|b| *b == b':')
        .filter(|_| !bytes.starts_with(b"/") && !bytes.starts_with(b"."));
    match colon {
        Some(at) if at > 0 => {
            let name = std::str::from_utf8(&bytes[..at])
                .map_err(|_| CliError::new("the container's name is not UTF-8"))?;
            Ok(Side::Container { name: name.to_owned(), path: bytes[at + 1..].to_vec() })
        }
        _ => Ok(Side::Host(text.into())),
    }
}

fn place(side: Side, ctx: &Ctx) -> Result<Place, CliError> {
    match side {
        Side::Stream => Err(CliError::new("a stream has no place")),
        Side::Host(path) => {
            let full = std::path::absolute(&path).map_err(|e| broken(path.as_os_str().as_bytes(), &e))?;
            let dir = inroot::open_root(Path::new("/"))?;
            let seen = TreePath::clean(full.as_os_str().as_bytes());
            let root = Root::of(dir, seen.clone());
            Ok(Place { root, typed: path.into_os_string().as_bytes().to_vec(), seen, contained: false })
        }
        Side::Container { name, path } => {
            let containers = open(ctx)?;
            let (_, snapshots, _) = ctx.open()?;
            let container = containers.find(&name).map_err(failure)?;
            let root = files::open_root(&container, &containers, &snapshots, &path).map_err(failure)?;
            Ok(Place { root, seen: TreePath::clean(&path), typed: path, contained: true })
        }
    }
}

/// What is copied.
struct Source {
    _root: Root,
    /// The directory that holds it, or itself for `name` empty.
    dir: OwnedFd,
    path: TreePath,
    name: Vec<u8>,
    is_dir: bool,
    /// Its content alone is meant.
    content: bool,
    typed: Vec<u8>,
    options: PackOptions,
}

fn source(place: Place, follow: bool) -> Result<Source, CliError> {
    let Place { root, typed, seen, contained } = place;
    let content = typed.ends_with(b"/.") || typed == b".";
    let last = if follow || typed.ends_with(b"/") || content { Last::Follow } else { Last::Keep };
    let missing = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => {
            CliError::new(format!("could not find the file {}", String::from_utf8_lossy(&typed)))
        }
        _ => broken(&typed, &e),
    };
    let name = seen.file_name().unwrap_or_default().to_vec();
    // what the engine has mounted in a container is none of its files
    let options = PackOptions { hollow: contained && seen.is_root(), ..PackOptions::default() };
    if root.path.is_root() {
        let dir = inroot::open_in_root(&root.dir, ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        return Ok(Source {
            _root: root,
            dir,
            path: TreePath::root(),
            content: content || name.is_empty(),
            name,
            is_dir: true,
            typed,
            options,
        });
    }
    let found = inroot::resolve(&root.dir, root.path.as_os_str(), last, None).map_err(missing)?;
    let node = found.node.ok_or_else(|| missing(io::ErrorKind::NotFound.into()))?;
    let is_dir = FileType::from_raw_mode(rustix::fs::fstat(&node)?.st_mode) == FileType::Directory;
    if !is_dir && (typed.ends_with(b"/") || content) {
        return Err(CliError::new(format!("{} is not a directory", String::from_utf8_lossy(&typed))));
    }
    let dir = inroot::open_in_root(&found.parent, ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let path = TreePath::clean(found.name.as_bytes());
    Ok(Source { _root: root, dir, path, name, is_dir, content, typed, options })
}

fn existing_dir(place: &Place) -> Result<OwnedFd, CliError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    inroot::open_in_root(&place.root.dir, place.root.path.as_os_str(), flags, Mode::empty()).map_err(|_| {
        CliError::new(format!("destination {:?} must be a directory", String::from_utf8_lossy(&place.typed)))
    })
}

/// Decides where it goes: an open directory, and the name in it; no name is "into it".
fn target(from: &Source, to: &Place) -> Result<(OwnedFd, Vec<u8>), CliError> {
    let shown = String::from_utf8_lossy(&to.typed).into_owned();
    let wants_dir = to.typed.ends_with(b"/") || to.typed.ends_with(b"/.");
    let dir_at =
        |fd: &OwnedFd| inroot::open_in_root(fd, ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
    let found = match to.root.path.is_root() {
        true => None,
        false => Some(inroot::resolve(&to.root.dir, to.root.path.as_os_str(), Last::Follow, None).map_err(
            |e| match e.kind() {
                io::ErrorKind::NotFound => {
                    CliError::new(format!("the parent directory of {shown} does not exist"))
                }
                _ => broken(&to.typed, &e),
            },
        )?),
    };
    let existing = match &found {
        None => Some(dir_at(&to.root.dir)?),
        Some(place) => match &place.node {
            Some(node)
                if FileType::from_raw_mode(rustix::fs::fstat(node)?.st_mode) == FileType::Directory =>
            {
                Some(dir_at(node)?)
            }
            _ => None,
        },
    };
    if let Some(dir) = existing {
        let name = if from.is_dir && from.content { Vec::new() } else { from.name.clone() };
        return Ok((dir, name));
    }
    let place = found.ok_or_else(|| CliError::new("the root is no file"))?;
    match (&place.node, from.is_dir) {
        (Some(_), true) => return Err(CliError::new(format!("cannot copy a directory to the file {shown}"))),
        (Some(_), false) if wants_dir => return Err(CliError::new(format!("{shown} is not a directory"))),
        (None, false) if wants_dir => {
            return Err(CliError::new(format!("destination directory {shown} must exist")));
        }
        _ => {}
    }
    Ok((dir_at(&place.parent)?, place.name.as_bytes().to_vec()))
}
