//! Annotations, by the document that they go into and the platform that they are for.

use crate::platform::Platform;
use std::collections::BTreeMap;

/// Names and values.
pub type Annotations = BTreeMap<String, String>;

/// A document that annotations go into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The manifest of an image.
    Manifest,
    /// The index of several images.
    Index,
    /// The entry of the index that points at a manifest.
    Descriptor,
}

/// One annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Note {
    place: Place,
    /// Which images it is for; `None` is all.
    platform: Option<Platform>,
    name: String,
    value: String,
}

/// Annotations that an image gets on its way out, or when it is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes(Vec<Note>);

impl Notes {
    /// Adds one; a later one wins over an earlier one of the same name.
    pub fn add(&mut self, place: Place, platform: Option<Platform>, name: &str, value: &str) {
        self.0.push(Note { place, platform, name: name.to_owned(), value: value.to_owned() });
    }

    /// Adds others, which win.
    pub fn extend(&mut self, others: &Self) {
        self.0.extend(others.0.iter().cloned());
    }

    /// Gives those of the index.
    pub fn index(&self) -> Annotations {
        self.of(Place::Index, None)
    }

    /// Gives those of the manifest of an image for a platform.
    pub fn manifest(&self, platform: &Platform) -> Annotations {
        self.of(Place::Manifest, Some(platform))
    }

    /// Gives those of the entry of an image for a platform in its index.
    pub fn descriptor(&self, platform: &Platform) -> Annotations {
        self.of(Place::Descriptor, Some(platform))
    }

    fn of(&self, place: Place, platform: Option<&Platform>) -> Annotations {
        let normal = platform.map(Platform::normal);
        let fits = |note: &&Note| {
            note.place == place
                && note.platform.as_ref().is_none_or(|p| platform.is_none() || Some(p) == normal.as_ref())
        };
        self.0.iter().filter(fits).map(|note| (note.name.clone(), note.value.clone())).collect()
    }
}

/// Reads the word before an annotation: `manifest`, `index`, `manifest-descriptor` or `index-descriptor`, and the platform
/// in brackets behind it. `None` when it is no such word.
pub fn parse_place(text: &str) -> Option<(Place, Option<Platform>)> {
    let (word, platform) = match text.split_once('[') {
        Some((word, rest)) => (word, Some(rest.strip_suffix(']')?.parse().ok()?)),
        None => (text, None),
    };
    let place = match word {
        "manifest" => Place::Manifest,
        "index" => Place::Index,
        "manifest-descriptor" | "index-descriptor" => Place::Descriptor,
        _ => return None,
    };
    Some((place, platform))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_for_places_and_platforms() {
        let (amd, arm): (Platform, Platform) =
            ("linux/amd64".parse().unwrap(), "linux/arm64".parse().unwrap());
        let mut notes = Notes::default();
        for (place, name, value) in [
            ("manifest", "a", "1"),
            ("manifest[linux/aarch64]", "a", "2"),
            ("index", "b", "3"),
            ("manifest-descriptor", "c", "4"),
        ] {
            let (place, platform) = parse_place(place).unwrap();
            notes.add(place, platform, name, value);
        }
        let one = |name: &str, value: &str| Annotations::from([(name.to_owned(), value.to_owned())]);
        assert_eq!((notes.manifest(&amd), notes.manifest(&arm)), (one("a", "1"), one("a", "2")));
        assert_eq!((notes.index(), notes.descriptor(&arm)), (one("b", "3"), one("c", "4")));
        for wrong in ["", "config", "manifest[", "manifest[]", "manifest[linux/amd64"] {
            assert_eq!(parse_place(wrong), None, "{wrong}");
        }
    }
}
