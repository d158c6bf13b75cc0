//! Names of images: `[registry/]repository[:tag][@digest]`, with Docker's normalisation.
//!
//! The one parser; no other code looks into a name before it went through here, so a [`Reference`] never holds
//! anything that could be a path, an option or a terminal code. The grammar is that of the distribution project
//! ("reference"): lower-case repository components, a registry host with optional port, a tag of at most 128 characters.

use crate::digest::Digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_NAMESPACE: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Longest registry and repository together, in bytes.
const MAX_NAME: usize = 255;
/// Longest tag, in bytes.
const MAX_TAG: usize = 128;

/// A text that does not name an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an image name: {why}")]
pub struct ParseReferenceError {
    text: String,
    why: String,
}

/// A normalised image name: registry and repository are always there, and a tag or a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Gives the registry's host and port, `docker.io` when none was written.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Gives the repository, with `library/` in front of Docker's own images.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Gives the tag; `None` only when there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Gives the digest of the manifest that is meant.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Gives registry and repository, `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Gives registry and repository as people write them, `busybox`.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        // library/ stays where the rest alone would be read as an image ID
        let official =
            self.repository.strip_prefix(DEFAULT_NAMESPACE).filter(|r| !r.contains('/') && !is_id(r));
        let short = official.unwrap_or(&self.repository);
        // docker.io/localhost/app must not turn into the registry localhost.
        if split_registry(short).0.is_some() { self.name() } else { short.to_owned() }
    }

    /// Gives the whole name as people write it, `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    /// Gives the same repository at another tag, without digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ParseReferenceError> {
        check_tag(tag).map_err(|why| ParseReferenceError { text: tag.to_owned(), why })?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// Gives the same repository at a digest, without tag.
    pub fn with_digest(&self, digest: &Digest) -> Self {
        Self { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }

    fn suffixed(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

/// The normalised name in full, `docker.io/library/busybox:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(self.name()))
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let short = || text.chars().take(300).collect();
        parse(text).map_err(|why| ParseReferenceError { text: short(), why })
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(format!("{c:?} cannot be part of a name"));
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(format!("leave {scheme}:// out"));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|e| e.to_string())?)),
        None => (text, None),
    };
    // A colon before the last slash belongs to the registry's port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let (registry, repository) = split_registry(name);
    let registry = registry.map_or(Ok(DEFAULT_REGISTRY), check_registry)?;
    check_repository(repository)?;
    let official = registry == DEFAULT_REGISTRY && !repository.contains('/');
    let repository = format!("{}{repository}", if official { DEFAULT_NAMESPACE } else { "" });
    if registry.len() + 1 + repository.len() > MAX_NAME {
        return Err(format!("it is longer than {MAX_NAME} characters"));
    }
    let tag = tag.or(if digest.is_none() { Some(DEFAULT_TAG) } else { None }).map(str::to_owned);
    Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
}

/// The first component is a registry when it looks like a host: has a dot, a port or an upper-case letter, or is
/// `localhost`.
fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (Some(first), rest)
        }
        _ => (None, name),
    }
}

fn check_registry(registry: &str) -> Result<&str, String> {
    let bad = || format!("{registry:?} is not a registry: expected host or host:port");
    // An IPv6 address stands in brackets.
    let (host, port) = match registry.strip_prefix('[') {
        Some(v6) => {
            let (host, port) = v6.split_once(']').ok_or_else(bad)?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(bad());
            }
            (None, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(bad)?) })
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        },
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if !host.is_none_or(|h| h.split('.').all(label)) {
        return Err(bad());
    }
    if port.is_some_and(|p| !p.bytes().all(|b| b.is_ascii_digit()) || p.parse::<u16>().is_err()) {
        return Err(bad());
    }
    Ok(if matches!(registry, "index.docker.io" | "registry-1.docker.io") {
        DEFAULT_REGISTRY
    } else {
        registry
    })
}

fn check_repository(repository: &str) -> Result<(), String> {
    if repository.is_empty() {
        return Err("the repository is missing".into());
    }
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(format!("the repository must be lower case: {:?}", repository.to_ascii_lowercase()));
    }
    for part in repository.split('/') {
        check_component(part)?;
    }
    if is_id(repository) {
        return Err("64 hex digits are an image ID, not a name".into());
    }
    Ok(())
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Letters and digits, in between single dots, one or two underscores or any number of dashes.
fn check_component(part: &str) -> Result<(), String> {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return Err("it has an empty part (// or a slash at an end)".into());
    };
    if let Some(b) = bytes.iter().find(|b| !alnum(**b) && !b"._-".contains(b)) {
        return Err(format!("{:?} cannot be part of a repository (a-z 0-9 . _ - / can)", *b as char));
    }
    let separators = part.split(|c: char| c.is_ascii_alphanumeric());
    if !alnum(*first) || !alnum(*last) {
        return Err(format!("{part:?} must start and end with a letter or digit"));
    }
    for s in separators {
        if !matches!(s, "" | "." | "_" | "__") && !s.bytes().all(|b| b == b'-') {
            return Err(format!(
                "{s:?} in {part:?}: only one dot, one or two underscores or dashes may stand together"
            ));
        }
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if tag.is_empty() {
        return Err("the tag after ':' is missing".into());
    }
    if tag.len() > MAX_TAG {
        return Err(format!("the tag is longer than {MAX_TAG} characters"));
    }
    if !word(tag.as_bytes()[0]) || !tag.bytes().all(|b| word(b) || b == b'.' || b == b'-') {
        return Err(format!("the tag {tag:?} may hold A-Z a-z 0-9 _ . - only and not start with . or -"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_normalised() {
        let hex = "a".repeat(64);
        let pinned = format!("app@sha256:{hex}");
        let full = format!("docker.io/library/app@sha256:{hex}");
        let both = format!("r.io/app:1@sha256:{hex}");
        let id = (format!("docker.io/library/{hex}:1"), format!("library/{hex}:1"));
        for (text, want, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("index.docker.io/library/busybox:1", "docker.io/library/busybox:1", "busybox:1"),
            ("me/app:V1.2-x_y", "docker.io/me/app:V1.2-x_y", "me/app:V1.2-x_y"),
            ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000/a/b:latest"),
            ("Registry/app", "Registry/app:latest", "Registry/app:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
            ("a__b-c--d.e", "docker.io/library/a__b-c--d.e:latest", "a__b-c--d.e:latest"),
            ("docker.io/localhost/a", "docker.io/localhost/a:latest", "docker.io/localhost/a:latest"),
            (&pinned, &full, &pinned),
            (&both, &both, &both),
            (&id.1, &id.0, &id.1),
        ] {
            let parsed: Reference = text.parse().unwrap();
            assert_eq!((parsed.to_string().as_str(), parsed.familiar().as_str()), (want, familiar), "{text}");
            assert_eq!(parsed.to_string().parse::<Reference>().unwrap(), parsed);
            assert_eq!(parsed.familiar().parse::<Reference>().unwrap(), parsed);
        }
    }

    #[test]
    fn nonsense_is_refused_and_explained() {
        let hex = "a".repeat(64);
        let long = "a".repeat(300);
        let tag = format!("a:{}", "t".repeat(129));
        for (text, part) in [
            ("", "empty"),
            ("App", "lower case: \"app\""),
            ("a//b", "empty part"),
            ("a/", "empty part"),
            ("/a", "empty part"),
            ("../a", "not a registry"),
            ("a/../b", "start and end"),
            ("a..b", "together"),
            ("a___b", "together"),
            ("-a", "start and end"),
            ("a:", "the tag"),
            ("a:.x", "the tag"),
            ("a:b:c", "repository"),
            ("a b", "' ' cannot"),
            ("a\u{1b}[2J", "cannot be part"),
            ("caf\u{e9}", "cannot be part"),
            ("https://r.io/a", "leave https://"),
            ("a@sha256:xyz", "is not a digest"),
            ("r.io:99999/a", "not a registry"),
            ("r..io/a", "not a registry"),
            ("[::1/a", "not a registry"),
            (&hex, "image ID"),
            (&long, "longer"),
            (&tag, "longer"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_and_parses_again(text in "[a-zA-Z0-9./:@_-]{0,40}|\\PC{0,20}") {
            if let Ok(parsed) = text.parse::<Reference>() {
                prop_assert_eq!(parsed.to_string().parse::<Reference>().unwrap(), parsed.clone());
                prop_assert_eq!(parsed.familiar().parse::<Reference>().unwrap(), parsed);
            }
        }
    }
}
