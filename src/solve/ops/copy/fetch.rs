//! ADD's URLs and git remotes: named first, fetched only when the step has to run.
//!
//! A git remote is named by its commit, which one question to the server tells. An URL is named by its bytes: when the
//! server says that they are those of the last time they need not be sent, else naming is fetching.

use super::{CopyError, Remote, Sources, select};
use crate::context::remote::git::{self, GitOptions};
use crate::context::remote::http::{self, Answer, Download, Request, Validators};
use crate::context::remote::{GitSource, RemoteError};
use crate::context::{BuildContext, IgnoreRules};
use crate::digest::{ContentId, Digest};
use crate::plan::{CopyOp, CopySource};
use crate::tree::{SourceTree, TreePath};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What was learnt of an URL, to be kept until the next build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownUrl {
    /// To ask with.
    pub validators: Validators,
    /// What the bytes were.
    pub content: ContentId,
    /// The same for `--checksum`.
    pub digest: Digest,
}

/// What fetching needs of its surroundings.
#[derive(Clone, Copy)]
pub struct FetchEnv<'a> {
    /// An empty directory for what is fetched; it has to live as long as the [`Remote`]s.
    pub dir: &'a Path,
    /// Gives what an earlier build learnt of an URL.
    pub known: &'a dyn Fn(&str) -> Option<KnownUrl>,
    /// Gives the value of the `Authorization` header for an URL.
    pub authorization: &'a dyn Fn(&str) -> Option<String>,
    /// The ssh agent's socket.
    pub ssh_auth_sock: Option<&'a Path>,
}

/// A remote source whose version is known.
pub struct Identified {
    /// Names what the source gives; part of the step's key.
    pub id: ContentId,
    /// What to remember of an URL.
    pub known: Option<(String, KnownUrl)>,
    state: State,
}

enum State {
    Git { source: Box<GitSource>, commit: String },
    Unchanged { url: String },
    Here { dir: PathBuf, download: Download },
}

/// Finds out what the URLs and git remotes of an op mean now, in the order of its sources.
pub fn identify(op: &CopyOp, env: &FetchEnv<'_>) -> Result<Vec<Identified>, CopyError> {
    let sources = op.sources.iter().enumerate();
    let found = sources.filter_map(|(index, source)| match source {
        CopySource::Url(url) => Some(identify_url(url, op, index, env, true)),
        CopySource::Git(text) => Some(identify_git(text, op, env)),
        _ => None,
    });
    found.collect()
}

/// Names all that an op with remote sources takes, without fetching what [`identify`] has not fetched.
pub fn key_id(main: &dyn SourceTree, remotes: &[Identified], op: &CopyOp) -> Result<ContentId, CopyError> {
    let local = |source: &&CopySource| !matches!(source, CopySource::Url(_) | CopySource::Git(_));
    let paths = CopyOp { sources: op.sources.iter().filter(local).cloned().collect(), ..op.clone() };
    let mut h = blake3::Hasher::new_derive_key("rbuild add with remotes v1");
    h.update(&select(&Sources::paths(main), &paths)?.key_id().0);
    for remote in remotes {
        h.update(&remote.id.0);
    }
    Ok(h.finalize().into())
}

/// Fetches what is not there yet and opens everything for [`select`] and [`super::apply`].
pub fn open(remotes: Vec<Identified>, op: &CopyOp, env: &FetchEnv<'_>) -> Result<Vec<Remote>, CopyError> {
    remotes.into_iter().enumerate().map(|(index, remote)| open_one(remote, op, index, env)).collect()
}

fn open_one(remote: Identified, op: &CopyOp, index: usize, env: &FetchEnv<'_>) -> Result<Remote, CopyError> {
    match remote.state {
        State::Git { source, commit } => {
            let dir = subdir(env, &format!("git{index}"))?;
            let tree = git::checkout(&source, &commit, &git_options(op, env), &dir)?;
            open_tree(&tree, TreePath::root())
        }
        // the server said that nothing changed, but the step runs for another reason
        State::Unchanged { url } => {
            let again = identify_url(&url, op, op.sources.len() + index, env, false)?;
            if again.id != remote.id {
                let why = "it changed between two requests; start the build again".to_owned();
                return Err(RemoteError::Transport { url: crate::context::remote::redact(&url), why }.into());
            }
            open_one(again, op, index, env)
        }
        State::Here { dir, download } => open_tree(&dir, TreePath::root().child(download.name.as_bytes())),
    }
}

fn open_tree(dir: &Path, path: TreePath) -> Result<Remote, CopyError> {
    let tree = BuildContext::dir(dir, IgnoreRules::none(), None)?;
    Ok(Remote { tree: Box::new(tree), path })
}

fn git_options<'a>(op: &CopyOp, env: &FetchEnv<'a>) -> GitOptions<'a> {
    GitOptions { keep_git_dir: op.keep_git_dir, ssh_auth_sock: env.ssh_auth_sock }
}

fn subdir(env: &FetchEnv<'_>, name: &str) -> Result<PathBuf, CopyError> {
    let dir = env.dir.join(name);
    rustix::fs::mkdir(&dir, rustix::fs::Mode::RWXU).map_err(CopyError::write(&TreePath::root()))?;
    Ok(dir)
}

fn identify_git(text: &str, op: &CopyOp, env: &FetchEnv<'_>) -> Result<Identified, CopyError> {
    let mut source = GitSource::parse(text)?;
    let fail = |why: String| RemoteError::Address { url: crate::context::remote::redact(text), why };
    match (&source.checksum, &op.checksum) {
        (Some(own), Some(flag)) if own != flag => {
            return Err(fail(format!("checksum mismatch {flag:?} != {own:?}")).into());
        }
        (None, Some(flag)) if flag.is_empty() || !flag.bytes().all(|b| b.is_ascii_hexdigit()) => {
            return Err(fail(format!("--checksum={flag} is not a commit")).into());
        }
        (None, flag) => source.checksum = flag.clone(),
        _ => {}
    }
    let options = git_options(op, env);
    let commit = git::resolve(&source, &options)?;
    let keep = source.keep_git_dir.unwrap_or(options.keep_git_dir);
    let mut h = blake3::Hasher::new_derive_key("rbuild git source v1");
    h.update(commit.as_bytes()).update(&[0, u8::from(keep), u8::from(source.submodules)]);
    h.update(source.subdir.as_bytes());
    if keep {
        // .git names the remote and the ref
        h.update(&[0]).update(text.as_bytes());
    }
    let state = State::Git { source: Box::new(source), commit };
    Ok(Identified { id: h.finalize().into(), known: None, state })
}

fn identify_url(
    url: &str,
    op: &CopyOp,
    index: usize,
    env: &FetchEnv<'_>,
    ask: bool,
) -> Result<Identified, CopyError> {
    let checksum = op.checksum.as_deref().map(str::parse::<Digest>).transpose();
    let checksum = checksum.map_err(|e| RemoteError::Address {
        url: crate::context::remote::redact(url),
        why: format!("--checksum: {e}"),
    })?;
    // bytes with another checksum than is wanted now are of no use
    let wanted = |known: &KnownUrl| checksum.as_ref().is_none_or(|c| *c == known.digest);
    let known = if ask { (env.known)(url).filter(wanted) } else { None };
    let authorization = (env.authorization)(url);
    let request = Request {
        checksum: checksum.as_ref(),
        known: known.as_ref().map(|k| &k.validators),
        authorization: authorization.as_deref(),
        ..Request::new(url)
    };
    let dir = subdir(env, &format!("url{index}"))?;
    let (known, state) = match (http::fetch(&request, &dir)?, known) {
        (Answer::Unchanged, Some(known)) => (known, State::Unchanged { url: url.to_owned() }),
        (Answer::Unchanged, None) => {
            return Err(RemoteError::Status { url: crate::context::remote::redact(url), status: 304 }.into());
        }
        (Answer::File(download), _) => {
            let validators = download.validators.clone();
            let known = KnownUrl { validators, content: download.content, digest: download.digest.clone() };
            (known, State::Here { dir, download })
        }
    };
    let mut h = blake3::Hasher::new_derive_key("rbuild url source v1");
    h.update(&known.content.0).update(http::file_name(url)?.as_bytes());
    Ok(Identified { id: h.finalize().into(), known: Some((url.to_owned(), known)), state })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::ops::copy::tests::{Memory, copy_op};
    use std::io::{BufRead, BufReader, Write};

    /// A server with one file and an ETag; counts how often it sent the bytes.
    fn serve(requests: usize) -> (String, std::thread::JoinHandle<usize>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/d/file.txt", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut sent = 0;
            for _ in 0..requests {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = String::new();
                let mut lines = BufReader::new(stream.try_clone().unwrap());
                while lines.read_line(&mut head).unwrap() > 2 {}
                let answer = if head.to_lowercase().contains("if-none-match: \"1\"") {
                    "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n"
                } else {
                    sent += 1;
                    "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
                };
                stream.write_all(answer.as_bytes()).unwrap();
            }
            sent
        });
        (url, server)
    }

    #[test]
    fn an_unchanged_url_is_named_without_its_bytes_and_fetched_when_needed() {
        let (url, server) = serve(3);
        let op = CopyOp { is_add: true, sources: vec![CopySource::Url(url)], ..copy_op(&[], "/x/") };
        let dir = tempfile::tempdir().unwrap();
        let subdir = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let main = Memory::new();
        let (one, two) = (subdir("one"), subdir("two"));
        let nothing = |_: &str| None;
        let env = FetchEnv { dir: &one, known: &nothing, authorization: &|_| None, ssh_auth_sock: None };
        let first = identify(&op, &env).unwrap();
        let key = key_id(&main, &first, &op).unwrap();
        let (_, learnt) = first[0].known.clone().unwrap();

        let known = |_: &str| Some(learnt.clone());
        let env = FetchEnv { dir: &two, known: &known, ..env };
        let second = identify(&op, &env).unwrap();
        assert!(matches!(second[0].state, State::Unchanged { .. }));
        assert_eq!(key_id(&main, &second, &op).unwrap(), key);
        let remotes = open(second, &op, &env).unwrap();
        let selection = select(&Sources { main: &main, remotes: &remotes }, &op).unwrap();
        let names: Vec<_> = selection.parts().map(|(name, _)| name).collect();
        assert_eq!(names, ["/file.txt"]);
        assert_eq!(server.join().unwrap(), 2);
    }

    #[test]
    fn a_wrong_checksum_is_an_error_before_anything_is_copied() {
        let (url, server) = serve(1);
        let wanted = Digest::sha256_of(b"other").to_string();
        let op =
            CopyOp { sources: vec![CopySource::Url(url)], checksum: Some(wanted), ..copy_op(&[], "/x/") };
        let dir = tempfile::tempdir().unwrap();
        let env =
            FetchEnv { dir: dir.path(), known: &|_| None, authorization: &|_| None, ssh_auth_sock: None };
        let error = identify(&op, &env).err().unwrap();
        assert!(error.to_string().contains("checksum mismatch"), "{error}");
        server.join().unwrap();
    }
}
