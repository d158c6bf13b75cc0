//! Where the Dockerfile and its ignore file are.
//!
//! `-f` with a path elsewhere is the user's own and is opened like any other; what is inside the context is opened
//! through the context's descriptor, so that a link in it cannot lead out.

use super::{ContextError, IgnoreRules};
use crate::sys::inroot;
use crate::tree::TreePath;
use rustix::fs::{Mode, OFlags};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// More than any Dockerfile or ignore file written by hand, in bytes.
const TEXT_LIMIT: u64 = 16 << 20;

/// A Dockerfile with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// For messages, and for the ignore file beside it.
    pub path: PathBuf,
    /// Content.
    pub text: Vec<u8>,
}

/// Finds and reads the Dockerfile: the one that was named (relative to the current directory), else `Dockerfile`,
/// else `dockerfile` in the context.
///
/// # Errors
/// [`ContextError::NoDockerfile`] when nothing was named and neither is there; [`ContextError::Read`].
pub fn find_dockerfile(context: &Path, named: Option<&Path>) -> Result<Dockerfile, ContextError> {
    if let Some(path) = named {
        let text = open_named(context, path).and_then(read).map_err(|source| read_error(path, source))?;
        return Ok(Dockerfile { path: path.to_owned(), text });
    }
    for name in ["Dockerfile", "dockerfile"] {
        if let Some(text) = read_inside(context, name)? {
            return Ok(Dockerfile { path: context.join(name), text });
        }
    }
    Err(ContextError::NoDockerfile { path: context.to_owned() })
}

/// Finds and reads the Dockerfile of a context that came from elsewhere: the one of the given name in it, else
/// `Dockerfile`, else `dockerfile`. No link leads out of the context.
///
/// # Errors
/// As [`find_dockerfile`]; a name that is not there is [`ContextError::NotInContext`].
pub fn find_dockerfile_inside(context: &Path, name: Option<&Path>) -> Result<Dockerfile, ContextError> {
    let names: Vec<&Path> = match name {
        Some(name) => vec![name],
        None => vec![Path::new("Dockerfile"), Path::new("dockerfile")],
    };
    for name in names {
        if let Some(text) = read_inside(context, name)? {
            return Ok(Dockerfile { path: name.to_owned(), text });
        }
    }
    Err(match name {
        Some(name) => ContextError::NotInContext { path: name.to_owned() },
        None => ContextError::NotInContext { path: "Dockerfile".into() },
    })
}

/// Loads the ignore rules: `<Dockerfile>.dockerignore` beside the Dockerfile, which wins entirely, else
/// `.dockerignore` at the root of the context, else none. Named contexts have no Dockerfile.
pub fn load_ignore(context: &Path, dockerfile: Option<&Path>) -> Result<IgnoreRules, ContextError> {
    if let Some(dockerfile) = dockerfile {
        let mut name = OsString::from(dockerfile);
        name.push(".dockerignore");
        let path = PathBuf::from(name);
        match open_named(context, &path).and_then(read) {
            Ok(text) => return Ok(IgnoreRules::parse(&text, &shown(&path))?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(read_error(&path, source)),
        }
    }
    match read_inside(context, ".dockerignore")? {
        Some(text) => Ok(IgnoreRules::parse(&text, ".dockerignore")?),
        None => Ok(IgnoreRules::none()),
    }
}

/// Opens a file that the user names. What is elsewhere is the user's own; what is in the context may be a link that somebody
/// else has put there, and leads to what is in the context too, or nowhere.
fn open_named(context: &Path, path: &Path) -> io::Result<File> {
    let Some(inside) = place_inside(context, path)? else { return File::open(path) };
    let root = inroot::open_root(context)?;
    match inroot::open_in_root(&root, &inside, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
        Ok(fd) => Ok(File::from(fd)),
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.exists() => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "a symbolic link on the way leads out of the context",
        )),
        Err(e) => Err(e),
    }
}

/// Tells where in the context a path is, by its words alone; `None` when it is elsewhere.
fn place_inside(context: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let clean = |path: PathBuf| {
        let bytes = path.into_os_string().into_vec();
        PathBuf::from(OsString::from_vec([b"/", TreePath::clean(&bytes).as_bytes()].concat()))
    };
    let path = clean(std::path::absolute(path)?);
    let contexts = [std::path::absolute(context)?, context.canonicalize()?];
    Ok(contexts.into_iter().find_map(|dir| path.strip_prefix(clean(dir)).ok().map(Path::to_owned)))
}

fn shown(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn read_inside(context: &Path, name: impl AsRef<Path>) -> Result<Option<Vec<u8>>, ContextError> {
    let name = name.as_ref();
    let root = inroot::open_root(context)
        .map_err(|source| ContextError::Open { path: context.to_owned(), source })?;
    match inroot::open_in_root(&root, name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
        Ok(fd) => Ok(Some(read(File::from(fd)).map_err(|source| read_error(&context.join(name), source))?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(read_error(&context.join(name), source)),
    }
}

fn read(file: File) -> io::Result<Vec<u8>> {
    if file.metadata()?.is_dir() {
        return Err(io::Error::other("it is a directory; name the file in it"));
    }
    read_text(file)
}

/// Reads a Dockerfile or ignore file from a stream.
///
/// # Errors
/// The stream fails, or holds more than 16 MiB.
pub fn read_text(stream: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    stream.take(TEXT_LIMIT + 1).read_to_end(&mut text)?;
    if text.len() as u64 > TEXT_LIMIT {
        return Err(io::Error::other("it is larger than 16 MiB, which no Dockerfile or ignore file is"));
    }
    Ok(text)
}

fn read_error(path: &Path, source: io::Error) -> ContextError {
    ContextError::Read { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_dockerfile_is_looked_for_by_both_names() {
        let dir = tempfile::tempdir().unwrap();
        let find = |named: Option<&Path>| find_dockerfile(dir.path(), named);
        assert!(matches!(find(None), Err(ContextError::NoDockerfile { .. })));
        fs::write(dir.path().join("dockerfile"), "FROM b").unwrap();
        assert_eq!(find(None).unwrap().text, b"FROM b");
        fs::write(dir.path().join("Dockerfile"), "FROM a").unwrap();
        assert_eq!(find(None).unwrap().text, b"FROM a");
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("x"), "FROM x").unwrap();
        assert_eq!(find(Some(&other.path().join("x"))).unwrap().text, b"FROM x");
        assert!(matches!(find(Some(other.path())), Err(ContextError::Read { .. })));
    }

    #[test]
    fn a_dockerfile_link_stays_in_the_context() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("secret"), "FROM x").unwrap();
        std::os::unix::fs::symlink(other.path().join("secret"), dir.path().join("Dockerfile")).unwrap();
        assert!(find_dockerfile(dir.path(), None).is_err());
        // named, too, however the way to it is written
        fs::create_dir(dir.path().join("sub")).unwrap();
        std::os::unix::fs::symlink(other.path(), dir.path().join("sub/out")).unwrap();
        std::os::unix::fs::symlink("../inside", dir.path().join("sub/in")).unwrap();
        fs::write(dir.path().join("inside"), "FROM y").unwrap();
        for name in ["Dockerfile", "sub/out/secret", "sub/../Dockerfile", "./sub//out/secret"] {
            let error = find_dockerfile(dir.path(), Some(&dir.path().join(name))).unwrap_err();
            let why = std::error::Error::source(&error).unwrap().to_string();
            assert!(why.contains("out of the context"), "{name}: {why}");
        }
        assert_eq!(find_dockerfile(dir.path(), Some(&dir.path().join("sub/in"))).unwrap().text, b"FROM y");
        // a link of the user's own elsewhere is followed
        std::os::unix::fs::symlink("secret", other.path().join("link")).unwrap();
        assert_eq!(find_dockerfile(dir.path(), Some(&other.path().join("link"))).unwrap().text, b"FROM x");
    }

    #[test]
    fn the_ignore_file_of_the_dockerfile_wins() {
        let dir = tempfile::tempdir().unwrap();
        let docker = dir.path().join("D");
        let excludes = |path: &str| {
            load_ignore(dir.path(), Some(&docker)).unwrap().excludes(&TreePath::clean(path.as_bytes()))
        };
        assert!(!excludes("a"));
        fs::write(dir.path().join(".dockerignore"), "a").unwrap();
        assert!(excludes("a"));
        fs::write(dir.path().join("D.dockerignore"), "b").unwrap();
        assert!(excludes("b") && !excludes("a"));
    }
}
