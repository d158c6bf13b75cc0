//! Where a build context or Dockerfile is, as the user wrote it on the command line. Pure but for one look whether
//! a directory of that name exists, which wins as it does for docker.

use crate::context::remote::{GitSource, RemoteError, redact};
use crate::digest::Digest;
use crate::image::LayoutPick;
use crate::plan::{SourceKind, source_kind};
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

/// A text that names no context.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// A git or HTTP address that cannot be used.
    #[error(transparent)]
    Address(#[from] RemoteError),
    /// Neither a directory nor an address.
    #[error("{} {}", path.display(), if *exists { "is not a directory" } else { "does not exist" })]
    NoDirectory {
        /// As given.
        path: PathBuf,
        /// Something else is there.
        exists: bool,
    },
    /// A layout that is named wrongly.
    #[error("{0}")]
    Layout(String),
    /// A scheme that means nothing.
    #[error(
        "{0:?} is no kind of context: write a directory, docker-image://, oci-layout://, a git or HTTP address"
    )]
    Scheme(String),
}

/// Where the main context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A tar archive or a Dockerfile on standard input.
    Stdin,
    /// A directory.
    Dir(PathBuf),
    /// A git repository.
    Git(Box<GitSource>),
    /// An archive or a Dockerfile over HTTP or HTTPS.
    Url(String),
}

impl Origin {
    /// Reads the last argument of `build`.
    ///
    /// # Errors
    /// It is neither a directory that exists nor an address.
    pub fn parse(text: &OsStr) -> Result<Self, OriginError> {
        if text == "-" {
            return Ok(Self::Stdin);
        }
        let path = Path::new(text);
        if path.is_dir() {
            return Ok(Self::Dir(path.to_owned()));
        }
        let remote = text.to_str().map(Self::remote).transpose()?.flatten();
        remote.ok_or_else(|| OriginError::NoDirectory { path: path.to_owned(), exists: path.exists() })
    }

    /// Reads an address; `None` when it is none.
    fn remote(text: &str) -> Result<Option<Self>, OriginError> {
        if text.starts_with("github.com/") {
            return Ok(Some(Self::Git(Box::new(GitSource::parse(&format!("https://{text}"))?))));
        }
        Ok(match source_kind(text) {
            SourceKind::Git => Some(Self::Git(Box::new(GitSource::parse(text)?))),
            SourceKind::Url => Some(Self::Url(text.to_owned())),
            SourceKind::Path => None,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::Dir(dir) => write!(f, "{}", dir.display()),
            Self::Url(url) => f.write_str(&redact(url)),
            Self::Git(source) => {
                f.write_str(&redact(&source.remote))?;
                if source.reference.is_some() || !source.subdir.is_root() {
                    write!(f, "#{}", source.reference.as_deref().unwrap_or_default())?;
                }
                if !source.subdir.is_root() {
                    write!(f, ":{}", String::from_utf8_lossy(source.subdir.as_bytes()))?;
                }
                Ok(())
            }
        }
    }
}

/// What a `--build-context` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedOrigin {
    /// Files.
    Files(Origin),
    /// `docker-image://`: an image of the store.
    Image(String),
    /// `oci-layout://`: an image of a layout in a directory.
    Layout {
        /// The directory.
        dir: PathBuf,
        /// Which of its images.
        pick: LayoutPick,
    },
}

impl NamedOrigin {
    /// Reads the value after `NAME=`.
    ///
    /// # Errors
    /// It is neither a directory that exists nor an address that is known.
    pub fn parse(text: &OsStr) -> Result<Self, OriginError> {
        let known = text.to_str().unwrap_or_default();
        if let Some(image) = known.strip_prefix("docker-image://") {
            return Ok(Self::Image(image.to_owned()));
        }
        if let Some(layout) = known.strip_prefix("oci-layout://") {
            return Self::layout(layout);
        }
        // docker names contexts of its own so
        let text = known.strip_prefix("local:").map_or(text, OsStr::new);
        match Origin::parse(text) {
            Ok(Origin::Stdin) => Err(OriginError::Scheme("-".into())),
            Err(OriginError::NoDirectory { exists: false, .. }) if known.contains("://") => {
                let scheme = known.split("://").next().unwrap_or_default();
                Err(OriginError::Scheme(format!("{scheme}://")))
            }
            origin => Ok(Self::Files(origin?)),
        }
    }

    /// Reads `DIR[:TAG|@DIGEST]`; a directory that exists under the whole text has no tag.
    fn layout(text: &str) -> Result<Self, OriginError> {
        let made = |dir: &str, pick| match dir {
            "" => Err(OriginError::Layout("oci-layout:// names no directory".into())),
            dir => Ok(Self::Layout { dir: dir.into(), pick }),
        };
        if Path::new(text).is_dir() {
            return made(text, LayoutPick::Default);
        }
        if let Some((dir, digest)) = text.rsplit_once('@') {
            let digest =
                digest.parse::<Digest>().map_err(|e| OriginError::Layout(format!("{digest}: {e}")))?;
            // a tag beside a digest says nothing more
            let dir = if Path::new(dir).is_dir() { dir } else { split_tag(dir).map_or(dir, |(dir, _)| dir) };
            return made(dir, LayoutPick::Digest(digest));
        }
        match split_tag(text) {
            Some((dir, tag)) => made(dir, LayoutPick::Tag(tag.to_owned())),
            None => made(text, LayoutPick::Default),
        }
    }
}

fn split_tag(text: &str) -> Option<(&str, &str)> {
    text.rsplit_once(':').filter(|(_, tag)| !tag.is_empty() && !tag.contains('/'))
}

/// Where the Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileOrigin {
    /// In the context, under its usual name.
    Usual,
    /// On standard input.
    Stdin,
    /// Over HTTP or HTTPS.
    Url(String),
    /// A file: relative to the current directory; for a context from elsewhere inside it, unless it is absolute.
    Path(PathBuf),
}

impl DockerfileOrigin {
    /// Reads the value of `--file`.
    pub fn parse(text: Option<&Path>) -> Self {
        let Some(path) = text else { return Self::Usual };
        match path.to_str() {
            Some("-") => Self::Stdin,
            Some(url) if source_kind(url) == SourceKind::Url => Self::Url(url.to_owned()),
            _ => Self::Path(path.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_told_apart() {
        let parse = |text: &str| Origin::parse(OsStr::new(text)).unwrap();
        assert_eq!(parse("-"), Origin::Stdin);
        assert_eq!(parse("."), Origin::Dir(".".into()));
        assert_eq!(parse("https://h/a.tar.gz"), Origin::Url("https://h/a.tar.gz".into()));
        for (text, remote, shown) in [
            ("https://h/r.git#v1:sub", "https://h/r.git", "https://h/r.git#v1:sub"),
            ("git@h:o/r.git", "git@h:o/r.git", "git@h:o/r.git"),
            ("git://h/r?ref=v1&subdir=d", "git://h/r", "git://h/r#v1:d"),
            ("ssh://git@h/r", "ssh://git@h/r", "ssh://xxxxx@h/r"),
            ("github.com/o/r#:d", "https://github.com/o/r", "https://github.com/o/r#:d"),
        ] {
            let Origin::Git(source) = parse(text) else { panic!("{text}") };
            assert_eq!(source.remote, remote, "{text}");
            assert_eq!(Origin::Git(source).to_string(), shown, "{text}");
        }
        for (text, why) in [
            ("does/not/exist", "does not exist"),
            ("/dev/null", "is not a directory"),
            ("ftp://h/x", "does not exist"),
            ("https://h/r.git#a b", "not one that git allows"),
        ] {
            let error = Origin::parse(OsStr::new(text)).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn named_contexts_are_told_apart() {
        let parse = |text: &str| NamedOrigin::parse(OsStr::new(text));
        assert_eq!(parse("docker-image://a:1").unwrap(), NamedOrigin::Image("a:1".into()));
        assert_eq!(parse("/").unwrap(), NamedOrigin::Files(Origin::Dir("/".into())));
        let digest = format!("sha256:{}", "a".repeat(64));
        let by_digest = LayoutPick::Digest(digest.parse().unwrap());
        for (text, dir, pick) in [
            ("oci-layout://none/x".to_owned(), "none/x", LayoutPick::Default),
            ("oci-layout://none/x:v1".to_owned(), "none/x", LayoutPick::Tag("v1".into())),
            (format!("oci-layout://none/x@{digest}"), "none/x", by_digest.clone()),
            (format!("oci-layout://none/x:v1@{digest}"), "none/x", by_digest),
            ("oci-layout:///".to_owned(), "/", LayoutPick::Default),
        ] {
            assert_eq!(parse(&text).unwrap(), NamedOrigin::Layout { dir: dir.into(), pick }, "{text}");
        }
        for text in ["-", "target:x", "ftp://h/x", "oci-layout://", "oci-layout://d@sha256:x", "/dev/null"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
