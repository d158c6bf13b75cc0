//! The address of something in a git repository: remote, ref and directory, in BuildKit's fragment and query forms.

use super::{RemoteError, redact};
use crate::tree::TreePath;

/// A parsed address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSource {
    /// For the git program.
    pub remote: String,
    /// Branch, tag, full ref name or commit; `None` is the remote's HEAD.
    pub reference: Option<String>,
    /// Directory that counts as the root.
    pub subdir: TreePath,
    /// The commit, or its first digits, that `reference` has to be.
    pub checksum: Option<String>,
    /// Whether `.git` stays; `None` when the address does not say.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched.
    pub submodules: bool,
    /// Files get the time of the commit instead of the checkout's.
    pub commit_mtime: bool,
    /// The checksum is the commit; the remote is not asked where the ref points to.
    pub by_commit: bool,
}

impl GitSource {
    /// Parses `remote[?query][#ref[:subdir]]`.
    pub fn parse(text: &str) -> Result<Self, RemoteError> {
        let fail = |why: String| RemoteError::Address { url: redact(text), why };
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
        check_remote(remote).map_err(fail)?;
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let mut source = Self {
            remote: remote.to_owned(),
            reference: (!reference.is_empty()).then(|| reference.to_owned()),
            subdir: TreePath::clean(subdir.as_bytes()),
            checksum: None,
            keep_git_dir: None,
            submodules: true,
            commit_mtime: false,
            by_commit: false,
        };
        source.read_query(query).map_err(fail)?;
        if source.reference.as_deref().is_some_and(|r| !is_ref(r)) {
            return Err(fail("its ref is not one that git allows".to_owned()));
        }
        if source.checksum.as_deref().is_some_and(|c| !is_hex(c)) {
            return Err(fail("its checksum is not made of hex digits".to_owned()));
        }
        Ok(source)
    }

    fn read_query(&mut self, query: &str) -> Result<(), String> {
        let mut seen = Vec::new();
        let mut named: Vec<String> = Vec::new();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = String::from_utf8_lossy(&super::http::percent_decode(value)).into_owned();
            if seen.contains(&key) {
                return Err(format!("query {key:?} has multiple values"));
            }
            seen.push(key);
            let flag = || match value.as_str() {
                "" | "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
                "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
                _ => Err(format!("invalid {key} value: {value:?}")),
            };
            match key {
                "keep-git-dir" => self.keep_git_dir = Some(flag()?),
                "submodules" => self.submodules = flag()?,
                "fetch-by-commit" => self.by_commit = flag()?,
                _ if value.is_empty() => return Err(format!("query {key:?} has no value")),
                "ref" => named.push(value),
                "tag" => named.push(prefixed("refs/tags/", &value)),
                "branch" => named.push(prefixed("refs/heads/", &value)),
                "checksum" | "commit" => self.checksum = Some(value),
                "subdir" => {
                    let path = TreePath::clean(value.as_bytes());
                    if !self.subdir.is_root() && self.subdir != path {
                        return Err(format!("subdir conflicts: {} vs {path}", self.subdir));
                    }
                    self.subdir = path;
                }
                "mtime" if value == "commit" => self.commit_mtime = true,
                "mtime" if value == "checkout" => {}
                "mtime" => {
                    return Err(format!("invalid mtime value: {value:?} (\"checkout\" or \"commit\")"));
                }
                _ => return Err(format!("unexpected query {key:?}")),
            }
        }
        for name in named {
            match &self.reference {
                Some(other) if *other != name => return Err(format!("ref conflicts: {other:?} vs {name:?}")),
                _ => self.reference = Some(name),
            }
        }
        Ok(())
    }
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

/// Lets through what git fetches over a network and nothing that it takes for an option or another transport.
fn check_remote(remote: &str) -> Result<(), String> {
    if remote.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err("it holds blanks or control characters".to_owned());
    }
    let host = match remote.split_once("://") {
        Some((scheme, rest)) => {
            let scheme = scheme.to_ascii_lowercase();
            if !["http", "https", "ssh", "git"].contains(&scheme.as_str()) {
                return Err(format!("{scheme} is not a way to fetch from git (http, https, ssh, git)"));
            }
            rest.split('/').next().unwrap_or_default()
        }
        None => {
            let (host, path) = remote.split_once(':').ok_or("it is not the address of a git repository")?;
            // `name::address` is a transport helper that can run anything
            if path.starts_with(':') || host.contains('/') {
                return Err("it is not the address of a git repository".to_owned());
            }
            host
        }
    };
    let name = host.rsplit_once('@').map_or(host, |(_, name)| name);
    if name.is_empty() || name.starts_with('-') || host.starts_with('-') {
        return Err("its host name is not one".to_owned());
    }
    Ok(())
}

/// git-check-ref-format(1), as far as it matters for safety.
fn is_ref(name: &str) -> bool {
    let bad = |b: u8| b <= b' ' || b == 0x7f || b"~^:?*[\\".contains(&b);
    !name.starts_with('-') && !name.bytes().any(bad) && !name.contains("..") && !name.contains("@{")
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let plain = GitSource::parse("https://h/r.git").unwrap();
        assert_eq!(
            (plain.remote.as_str(), plain.reference, plain.subdir.is_root()),
            ("https://h/r.git", None, true)
        );
        for text in [
            "https://h/r.git#v1:a/b",
            "https://h/r.git?ref=v1&subdir=a/b",
            "https://h/r.git?subdir=/a/b/#v1",
            "https://h/r.git?ref=v1#v1:/a/./b/",
        ] {
            let source = GitSource::parse(text).unwrap();
            assert_eq!(source.reference.as_deref(), Some("v1"), "{text}");
            assert_eq!(source.subdir.as_bytes(), b"a/b", "{text}");
        }
        let full =
            "git@h:o/r.git?tag=v1&checksum=ab12&keep-git-dir&submodules=false&mtime=commit&fetch-by-commit=1";
        let source = GitSource::parse(full).unwrap();
        assert_eq!(source.remote, "git@h:o/r.git");
        assert_eq!(source.reference.as_deref(), Some("refs/tags/v1"));
        assert_eq!(source.keep_git_dir, Some(true));
        assert!(!source.submodules && source.commit_mtime && source.by_commit);
        let branch = GitSource::parse("ssh://git@h:22/r?branch=refs/heads/x").unwrap();
        assert_eq!(branch.reference.as_deref(), Some("refs/heads/x"));
    }

    #[test]
    fn what_git_could_misunderstand_is_refused() {
        for text in [
            "ext::sh -c x",
            "ext::sh",
            "file:///etc",
            "fd::17",
            "--upload-pack=x:y",
            "ssh://-oProxyCommand=x/y",
            "-oProxyCommand=x:y",
            "git@-h:x",
            "https://h/r.git#--upload-pack=x",
            "https://h/r.git#a..b",
            "https://h/r.git#a b",
            "https://h/r.git?ref=a&ref=b",
            "https://h/r.git?ref=a#b",
            "https://h/r.git?tag=a&branch=b",
            "https://h/r.git?ref=",
            "https://h/r.git?wat=1",
            "https://h/r.git?submodules=maybe",
            "https://h/r.git?checksum=xyz",
            "/etc",
            "",
        ] {
            assert!(GitSource::parse(text).is_err(), "{text}");
        }
    }
}
