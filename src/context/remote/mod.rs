//! Files from elsewhere: one file over HTTP, a commit from a git remote.
//!
//! Both land in a directory that the caller made and owns. What the other side says is not trusted: names are single
//! components, sizes, redirects and times are bounded, checksums are compared before anything is handed on, and git
//! runs without the user's or the machine's configuration. Passwords in URLs never reach a message.

pub mod git;
mod git_url;
pub mod http;

pub use git_url::GitSource;

use crate::digest::Digest;
use std::io;

/// Why something could not be fetched. URLs in it carry no passwords.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Not an address that can be used.
    #[error("{url}: {why}")]
    Address {
        /// Where.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The server answered with an error.
    #[error("{url}: the server answered {status}")]
    Status {
        /// Where.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// No answer, or one that breaks off.
    #[error("{url}: {why}")]
    Transport {
        /// Where.
        url: String,
        /// As the client says it.
        why: String,
    },
    /// More bytes than allowed.
    #[error("{url}: larger than the limit of {limit} bytes")]
    TooLarge {
        /// Where.
        url: String,
        /// Bytes.
        limit: u64,
    },
    /// Other bytes than promised.
    #[error("{url}: checksum mismatch: expected {want}, got {found}")]
    Checksum {
        /// Where.
        url: String,
        /// As asked for.
        want: String,
        /// As found.
        found: String,
    },
    /// The file could not be written.
    #[error("cannot keep what came from {url}: {source}")]
    Keep {
        /// Where from.
        url: String,
        /// Why not.
        source: io::Error,
    },
    /// There is no git program.
    #[error("{url}: fetching from git needs the git program, and there is none in PATH; install git")]
    NoGit {
        /// Where.
        url: String,
    },
    /// The remote has no such branch, tag or commit.
    #[error("{url}: there is no branch or tag {name}; for a commit give all of its digits")]
    NoRef {
        /// Where.
        url: String,
        /// As asked for.
        name: String,
    },
    /// Git failed.
    #[error("{url}: git {step} failed: {message}")]
    Git {
        /// Where.
        url: String,
        /// Its subcommand.
        step: String,
        /// The end of what it said.
        message: String,
    },
}

/// Takes user and password out of a URL for messages.
pub fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://xxxxx@{host}{}", &rest[end..]),
        None => url.to_owned(),
    }
}

fn mismatch(url: &str, want: &Digest, found: &Digest) -> RemoteError {
    RemoteError::Checksum { url: redact(url), want: want.to_string(), found: found.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_taken_out() {
        for (url, want) in [
            ("https://u:p@host/x", "https://xxxxx@host/x"),
            ("https://u:p@x@host/x", "https://xxxxx@host/x"),
            ("https://host/x@y", "https://host/x@y"),
            ("https://host?a=b@c", "https://host?a=b@c"),
            ("git@host:x", "git@host:x"),
        ] {
            assert_eq!(redact(url), want);
        }
    }
}
