//! Tells the sources of ADD apart: a path of the context, a URL to fetch or a git repository.
//!
//! Only the kind is decided here; what a URL holds is found out when it is fetched.

/// What a source of ADD or COPY names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A path or pattern.
    Path,
    /// `http://` or `https://`.
    Url,
    /// `git://`, `ssh://`, `user@host:path`, or http(s) whose path ends in `.git`.
    Git,
}

/// Decides what a source is.
pub fn kind(source: &str) -> Kind {
    let Some((scheme, rest)) = source.split_once("://").filter(|(s, _)| is_scheme(s)) else {
        return if is_scp(source) { Kind::Git } else { Kind::Path };
    };
    match scheme.to_ascii_lowercase().as_str() {
        "git" | "ssh" => Kind::Git,
        "http" | "https" if url_path(rest).ends_with(".git") => Kind::Git,
        // BuildKit takes only the lower-case spelling for a URL
        "http" | "https" if scheme == "http" || scheme == "https" => Kind::Url,
        _ => Kind::Path,
    }
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Cuts host, query and fragment off what follows `://`.
fn url_path(rest: &str) -> &str {
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    rest.find('/').map_or("", |slash| &rest[slash..])
}

/// Says whether the text is `user@host:path`, as scp writes it.
fn is_scp(source: &str) -> bool {
    let Some((user, rest)) = source.split_once('@') else { return false };
    let Some((host, path)) = rest.split_once(':') else { return false };
    let word = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    word(user, b"-_.") && word(host, b"-_.") && !path.split(['?', '#']).next().unwrap_or_default().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        for (source, want) in [
            ("a/b", Kind::Path),
            ("./git@host:x", Kind::Path),
            ("github.com/o/r", Kind::Path),
            ("http:/x", Kind::Path),
            ("ftp://h/x", Kind::Path),
            ("a@b", Kind::Path),
            ("https://h/x.tar", Kind::Url),
            ("http://h", Kind::Url),
            ("https://h/r.git/x", Kind::Url),
            ("https://h/x?y=r.git", Kind::Url),
            ("https://h/r.git", Kind::Git),
            ("https://h:1/r.git#main:sub", Kind::Git),
            ("http://h/r.git?tag=v1", Kind::Git),
            ("git://h/r", Kind::Git),
            ("ssh://git@h/r", Kind::Git),
            ("git@github.com:o/r.git", Kind::Git),
            ("git@github.com:o/r#v1:d", Kind::Git),
        ] {
            assert_eq!(kind(source), want, "{source}");
        }
    }
}
