//! Brings the contexts and the Dockerfile of a build together before it begins: what is not a directory of the user's
//! is fetched and unpacked into the store's `tmp/`, and goes when the request goes.
//!
//! What comes from elsewhere is hostile: archives go through the unpacker of layers, git runs without configuration,
//! a Dockerfile is opened inside the context only. Ignore files of such contexts are not applied, as for BuildKit.

use super::origin::{DockerfileOrigin, NamedOrigin, Origin};
use super::request::{ContextSource, Fetched, IgnoreFrom};
use crate::context::remote::git::{self, GitOptions};
use crate::context::remote::http::{self, Answer, Request};
use crate::context::remote::{GitSource, RemoteError, redact};
use crate::context::{ContextError, Dockerfile, find_dockerfile, find_dockerfile_inside, read_text};
use crate::image::{ImageError, Images, LayoutPick};
use crate::layer::{self, LayerError, UnpackOptions};
use crate::plan::NamedContext;
use crate::platform::Platform;
use crate::solve::Secrets;
use crate::store::{Store, StoreError, TempDir};
use crate::sys::fsutil;
use rustix::fs::{CWD, Mode, OFlags};
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most bytes that are read behind the end of an archive, so that whoever writes it into a pipe can finish.
const TRAILER: u64 = 64 << 20;
/// The name that BuildKit gives a single file that a named context brings.
const SINGLE: &str = "context";

/// A context or Dockerfile that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// From a git remote or HTTP server.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// From a directory.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The archive is damaged or refused.
    #[error("build context from {from}: {source}")]
    Unpack {
        /// Where it came from.
        from: String,
        /// Why.
        #[source]
        source: LayerError,
    },
    /// A stream or file that cannot be read, or `tmp/` that cannot be written.
    #[error("cannot read {what}: {source}")]
    Read {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layout that has not what is wanted.
    #[error("OCI layout {}: {source}", dir.display())]
    Layout {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: ImageError,
    },
    /// Nothing came.
    #[error("{0} is empty; expected a Dockerfile or a tar archive")]
    Nothing(String),
    /// Two Dockerfiles.
    #[error("{context} is a Dockerfile itself, and --file names another one")]
    TwoDockerfiles {
        /// Where the context came from.
        context: String,
    },
    /// The store's `tmp/`.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a main context turned out to be.
#[derive(Debug)]
pub enum Gathered {
    /// Files.
    Files(ContextSource),
    /// A Dockerfile and nothing else.
    Dockerfile(Vec<u8>),
}

/// What a named context is to the plan, by the names that the plan has to know it by, and its files if it is files.
type Named = (Vec<(String, NamedContext)>, Option<ContextSource>);

/// Fetches contexts.
pub struct Gatherer<'a> {
    /// Where they are kept while the build runs.
    pub store: &'a Store,
    /// Where images of layouts go.
    pub images: &'a Images,
    /// Which images of a layout are wanted; one at least.
    pub platforms: Vec<Platform>,
    /// `BUILDKIT_CONTEXT_KEEP_GIT_DIR`.
    pub keep_git_dir: bool,
    /// For servers that want to know who asks, and for ssh.
    pub secrets: &'a Secrets,
}

impl Gatherer<'_> {
    /// Brings the main context; `stdin` is read when it is there.
    pub fn context(
        &self,
        origin: &Origin,
        stdin: impl Read + Send + 'static,
    ) -> Result<Gathered, GatherError> {
        match origin {
            Origin::Dir(dir) => Ok(Gathered::Files(ContextSource::Dir(dir.clone()))),
            Origin::Git(source) => self.git(source, origin).map(Gathered::Files),
            Origin::Stdin => self.stream(Box::new(stdin), origin),
            Origin::Url(url) => {
                let dir = self.store.temp_dir("context")?;
                let file = self.download(url, dir.path())?;
                let stream = open(&file, url)?;
                self.stream(Box::new(stream), origin)
            }
        }
    }

    /// Brings what a `--build-context` names: what the plan has to know by the names that it has to be known by, and the
    /// files if it is files.
    pub fn named(&self, name: &str, origin: &NamedOrigin) -> Result<Named, GatherError> {
        let files = match origin {
            NamedOrigin::Image(image) => {
                return Ok((vec![(name.to_owned(), NamedContext::Image(image.clone()))], None));
            }
            NamedOrigin::Layout { dir, pick } => return Ok((self.layout(name, dir, pick)?, None)),
            NamedOrigin::Files(origin @ Origin::Url(url)) => self.files(url, origin)?,
            NamedOrigin::Files(origin) => match self.context(origin, io::empty())? {
                Gathered::Files(files) => files,
                Gathered::Dockerfile(_) => return Err(GatherError::Nothing(origin.to_string())),
            },
        };
        Ok((vec![(name.to_owned(), NamedContext::Files)], Some(files)))
    }

    /// Takes an image out of a layout; of a build for several platforms one for each, under `NAME::PLATFORM`, and under
    /// the bare name the one for this machine, or the first.
    fn layout(
        &self,
        name: &str,
        dir: &Path,
        pick: &LayoutPick,
    ) -> Result<Vec<(String, NamedContext)>, GatherError> {
        let load = |platform: &Platform| {
            let image = self.images.load_from_layout(dir, pick, platform);
            let image = image.map_err(|source| GatherError::Layout { dir: dir.to_owned(), source })?;
            Ok::<_, GatherError>(NamedContext::Image(image.id.to_string()))
        };
        if let [only] = &self.platforms[..] {
            return Ok(vec![(name.to_owned(), load(only)?)]);
        }
        let mut all = Vec::new();
        for platform in &self.platforms {
            all.push((format!("{name}::{platform}"), load(platform)?));
        }
        let bare = load(&Platform::host()).ok().or_else(|| all.first().map(|(_, image)| image.clone()));
        all.extend(bare.map(|image| (name.to_owned(), image)));
        Ok(all)
    }

    /// Finds the Dockerfile, and says where its ignore file is.
    pub fn dockerfile(
        &self,
        origin: &DockerfileOrigin,
        context: &Gathered,
        main: &Origin,
        stdin: impl Read,
    ) -> Result<(Dockerfile, IgnoreFrom), GatherError> {
        let fresh = |text| Dockerfile { path: "Dockerfile".into(), text };
        let remote = |ignore| match context {
            Gathered::Files(ContextSource::Dir(_)) => ignore,
            _ => IgnoreFrom::Nowhere,
        };
        match (origin, context) {
            (DockerfileOrigin::Usual, Gathered::Dockerfile(text)) => {
                Ok((fresh(text.clone()), IgnoreFrom::Nowhere))
            }
            (_, Gathered::Dockerfile(_)) => Err(GatherError::TwoDockerfiles { context: main.to_string() }),
            (DockerfileOrigin::Stdin, _) => {
                let text = read_text(stdin).map_err(read("standard input"))?;
                Ok((fresh(text), remote(IgnoreFrom::Context { beside: None })))
            }
            (DockerfileOrigin::Url(url), _) => {
                let dir = self.store.temp_dir("dockerfile")?;
                let text = read_text(open(&self.download(url, dir.path())?, url)?);
                let text = text.map_err(read(&redact(url)))?;
                let path = http::file_name(url)?.into();
                Ok((Dockerfile { path, text }, remote(IgnoreFrom::Context { beside: None })))
            }
            (named, Gathered::Files(files)) => {
                let path = match named {
                    DockerfileOrigin::Path(path) => Some(path.as_path()),
                    _ => None,
                };
                match files {
                    ContextSource::Dir(dir) => {
                        let found = find_dockerfile(dir, path)?;
                        let beside = Some(found.path.clone());
                        Ok((found, IgnoreFrom::Context { beside }))
                    }
                    ContextSource::Fetched(fetched) => {
                        let found = match path.filter(|path| path.is_absolute()) {
                            Some(local) => find_dockerfile(&fetched.path, Some(local))?,
                            None => find_dockerfile_inside(&fetched.path, path)?,
                        };
                        Ok((found, IgnoreFrom::Nowhere))
                    }
                    ContextSource::Empty => {
                        Err(ContextError::NotInContext { path: "Dockerfile".into() }.into())
                    }
                }
            }
        }
    }

    fn git(&self, source: &GitSource, origin: &Origin) -> Result<ContextSource, GatherError> {
        let dir = self.store.temp_dir("context")?;
        let agent = self.secrets.agents.get("default").map(PathBuf::as_path);
        let options = GitOptions { keep_git_dir: self.keep_git_dir, ssh_auth_sock: agent };
        let commit = git::resolve(source, &options)?;
        let path = git::checkout(source, &commit, &options, dir.path())?;
        let time = git::commit_time(source, &commit, &options, dir.path())?;
        let from = origin.to_string();
        Ok(ContextSource::Fetched(Arc::new(Fetched { path, from, time, owners: false, _dir: dir })))
    }

    /// Takes an archive apart, or reads a Dockerfile.
    fn stream(&self, mut stream: Box<dyn Read + Send>, origin: &Origin) -> Result<Gathered, GatherError> {
        let from = origin.to_string();
        let mut head = Vec::with_capacity(layer::BLOCK);
        stream.by_ref().take(layer::BLOCK as u64).read_to_end(&mut head).map_err(read(&from))?;
        let archive = layer::begins_archive(&head);
        let whole = Cursor::new(head).chain(stream);
        if archive {
            return self.unpack(Box::new(whole), origin).map(Gathered::Files);
        }
        let text = read_text(whole).map_err(read(&from))?;
        if text.is_empty() {
            return Err(GatherError::Nothing(from));
        }
        Ok(Gathered::Dockerfile(text))
    }

    fn unpack(&self, stream: Box<dyn Read + Send>, origin: &Origin) -> Result<ContextSource, GatherError> {
        let from = origin.to_string();
        let dir = self.store.temp_dir("context")?;
        let tree = dir.path().join("tree");
        rustix::fs::mkdir(&tree, Mode::from_raw_mode(0o755)).map_err(|e| read(&from)(e.into()))?;
        let mut tar = layer::decoder(stream).map_err(read(&from))?;
        let options =
            UnpackOptions { chown_ok: fsutil::can_chown(), plain_names: true, ..UnpackOptions::default() };
        layer::unpack(&mut tar, &tree, &options)
            .map_err(|source| GatherError::Unpack { from: from.clone(), source })?;
        // what follows the end marker counts only in so far as it tells damage
        io::copy(&mut tar.take(TRAILER), &mut io::sink()).map_err(read(&from))?;
        Ok(fetched(tree, origin, true, dir))
    }

    /// The files behind an URL: those of an archive, or the one file.
    fn files(&self, url: &str, origin: &Origin) -> Result<ContextSource, GatherError> {
        let dir = self.store.temp_dir("context")?;
        let file = self.download(url, dir.path())?;
        let mut head = Vec::new();
        open(&file, url)?.take(layer::BLOCK as u64).read_to_end(&mut head).map_err(read(&redact(url)))?;
        if layer::begins_archive(&head) {
            return self.unpack(Box::new(open(&file, url)?), origin);
        }
        let tree = dir.path().join("tree");
        let moved = rustix::fs::mkdir(&tree, Mode::from_raw_mode(0o755))
            .and_then(|()| rustix::fs::renameat(CWD, &file, CWD, tree.join(SINGLE)));
        moved.map_err(|e| read(&redact(url))(e.into()))?;
        Ok(fetched(tree, origin, false, dir))
    }

    fn download(&self, url: &str, into: &Path) -> Result<PathBuf, GatherError> {
        let authorization = self.secrets.authorization(url);
        let request = Request { authorization: authorization.as_deref(), ..Request::new(url) };
        match http::fetch(&request, into)? {
            Answer::File(download) => Ok(into.join(download.name)),
            Answer::Unchanged => Err(RemoteError::Status { url: redact(url), status: 304 }.into()),
        }
    }
}

fn fetched(path: PathBuf, origin: &Origin, owners: bool, dir: TempDir) -> ContextSource {
    let from = origin.to_string();
    ContextSource::Fetched(Arc::new(Fetched { path, from, time: None, owners, _dir: dir }))
}

/// Opens what was downloaded; its name came with the URL.
fn open(path: &Path, url: &str) -> Result<File, GatherError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty());
    file.map(File::from).map_err(|e| read(&redact(url))(e.into()))
}

fn read(what: &str) -> impl FnOnce(io::Error) -> GatherError {
    let what = what.to_owned();
    move |source| GatherError::Read { what, source }
}
