//! `images`: all of them, newest first, and which of them are asked for.

use super::index::name_of;
use super::time::{parse_nanos, parse_time};
use super::{Image, ImageError, Images};
use crate::digest::{Digest, ResultId};
use crate::reference::Reference;
use std::collections::{HashMap, HashSet};

/// All images of a store.
#[derive(Debug, Default)]
pub struct Listing {
    /// Newest first.
    pub images: Vec<Image>,
    /// Those that cannot be read, by name or manifest, and why.
    pub damaged: Vec<(String, ImageError)>,
}

/// One `--filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Whether it has no name.
    Dangling(bool),
    /// Has a label, of this value if there is one.
    Label(String, Option<String>),
    /// Made before that time, in nanoseconds since the epoch.
    Before(i128),
    /// Made after that time.
    Since(i128),
    /// A name fits the pattern, in which `*` and `?` stand for what is in between slashes.
    Reference(String),
}

impl Images {
    /// Lists all images; damaged ones are told apart instead of being an error.
    pub fn list(&self) -> Result<Listing, ImageError> {
        let entries = self.settled(&|_| true)?;
        let mut seen: HashSet<Digest> = HashSet::new();
        let mut listing = Listing::default();
        for entry in &entries {
            if !seen.insert(entry.digest.clone()) {
                continue;
            }
            match self.read_image(entry, &entries) {
                Ok(image) => listing.images.push(image),
                Err(e) => {
                    let name = name_of(entry).map_or_else(|| entry.digest.to_string(), |n| n.familiar());
                    listing.damaged.push((name, e));
                }
            }
        }
        // Of images of one second the one that was added last comes first.
        listing.images.reverse();
        listing.images.sort_by_key(|i| std::cmp::Reverse(i.created_exactly()));
        Ok(listing)
    }

    /// Reads a `--filter` of `images`: `dangling=`, `label=`, `before=`, `since=`, `reference=`.
    ///
    /// # Errors
    /// The text of what is wrong with it, or of the image that it names.
    pub fn parse_filter(&self, text: &str) -> Result<Filter, String> {
        let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?}: expected KEY=VALUE"))?;
        let time = || {
            let image = self.resolve(value).map_err(|e| e.to_string())?;
            image.created_exactly().ok_or_else(|| format!("{value} has no time of creation"))
        };
        match key {
            "dangling" => match value {
                "true" | "1" => Ok(Filter::Dangling(true)),
                "false" | "0" => Ok(Filter::Dangling(false)),
                _ => Err(format!("dangling={value}: expected true or false")),
            },
            "label" => Ok(match value.split_once('=') {
                Some((key, value)) => Filter::Label(key.into(), Some(value.into())),
                None => Filter::Label(value.into(), None),
            }),
            "before" => time().map(Filter::Before),
            "since" => time().map(Filter::Since),
            "reference" => Ok(Filter::Reference(value.to_owned())),
            _ => Err(format!("unknown filter {key:?} (dangling, label, before, since, reference)")),
        }
    }

    /// Gives the bytes of an image's files in all its layers; what is known already is in `known`.
    pub fn size(&self, image: &Image, known: &mut HashMap<ResultId, u64>) -> u64 {
        let layers = image.chain_ids();
        let size = |id: ResultId| *known.entry(id).or_insert_with(|| self.unpacked_size(&id));
        layers.iter().map(ResultId::chain).map(size).sum()
    }
}

impl Image {
    /// Gives when it was made, in seconds since the epoch.
    pub fn created(&self) -> Option<i64> {
        self.config.created.as_deref().and_then(parse_time)
    }

    /// Says whether filters let the image through: one of several patterns for its name must fit, of other filters all.
    pub fn passes_all(&self, filters: &[Filter]) -> bool {
        let pattern = |filter: &&Filter| matches!(filter, Filter::Reference(_));
        let mut patterns = filters.iter().filter(pattern).peekable();
        (patterns.peek().is_none() || patterns.any(|filter| self.passes(filter)))
            && filters.iter().filter(|filter| !pattern(filter)).all(|filter| self.passes(filter))
    }

    /// Gives when it was made, in nanoseconds since the epoch.
    fn created_exactly(&self) -> Option<i128> {
        self.config.created.as_deref().and_then(parse_nanos)
    }

    /// Says whether a filter lets the image through.
    pub fn passes(&self, filter: &Filter) -> bool {
        match filter {
            Filter::Dangling(wanted) => self.names.is_empty() == *wanted,
            Filter::Label(key, value) => {
                let found = self.config.config.labels.get(key);
                found.is_some_and(|f| value.as_ref().is_none_or(|v| v == f))
            }
            Filter::Before(time) => self.created_exactly().is_some_and(|t| t < *time),
            Filter::Since(time) => self.created_exactly().is_some_and(|t| t > *time),
            Filter::Reference(pattern) => self.names.iter().any(|name| name_fits(name, pattern)),
        }
    }
}

/// Fits a name against `repository[:tag]` with wildcards; without a tag every tag fits.
pub(super) fn name_fits(name: &Reference, pattern: &str) -> bool {
    let forms = [name.familiar_name(), name.familiar(), name.name(), name.to_string()];
    forms.iter().any(|form| wild(pattern.as_bytes(), form.as_bytes()))
}

/// Linear in the length of the text times that of the pattern: only the last star is tried again.
fn wild(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b'?') if text[t] != b'/' => (p, t) = (p + 1, t + 1),
            Some(c) if *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) if text[from] != b'/' => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns() {
        for (name, pattern, fits) in [
            ("busybox", "busybox", true),
            ("busybox", "busy*", true),
            ("busybox:1", "busybox", true),
            ("busybox:1", "busybox:2", false),
            ("busybox:1", "*:1", true),
            ("busybox", "docker.io/library/busybox", true),
            ("r.io/a/b:1", "r.io/*/b", true),
            ("r.io/a/b:1", "r.io/*", false),
            ("r.io/a/b:1", "*/*/*", true),
            ("busybox", "bu?ybox", true),
            ("busybox", "box", false),
            ("busybox", "", false),
        ] {
            assert_eq!(name_fits(&name.parse().unwrap(), pattern), fits, "{name} {pattern}");
        }
    }
}
