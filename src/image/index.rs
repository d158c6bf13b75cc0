//! Which images there are and what they are called: the `index.json` of the layout in the store.
//!
//! One entry a name, one entry without name for an image that has none. The file is read without a lock, since it
//! is only ever replaced whole; who changes it holds `locks/images` from reading to renaming. The name is the last
//! thing that is written of an image, and it survives a power cut.
//!
//! An entry has both `org.opencontainers.image.ref.name` (the tag, as the image-spec wants) and
//! `io.containerd.image.name` (the whole name), because the spec's annotation alone cannot tell repositories apart.

use super::Images;
use super::documents::{self, DocumentError, MANIFEST_LIMIT};
use super::error::ImageError;
use crate::digest::Digest;
use crate::fault;
use crate::oci::{Descriptor, Index, media_type};
use crate::reference::Reference;
use crate::store::LockKind;
use std::os::unix::fs::MetadataExt;

pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(super) const FULL_NAME: &str = "io.containerd.image.name";
const INDEX: &str = "images/index.json";
/// The same once more, written before it: without it a damaged list would cost all names.
const COPY: &str = "images/index.copy.json";
const LAYOUT: &str = "images/oci-layout";
/// On the list: a checksum of its entries, since a name that has changed is still a name.
const SUM: &str = "dev.rbuild.list.checksum";
pub(super) const LAYOUT_BYTES: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const LOCK: &str = "images";

/// Gives the name that an entry of an index carries, if it is one.
pub(super) fn name_of(entry: &Descriptor) -> Option<Reference> {
    if let Some(name) = entry.annotations.get(FULL_NAME) {
        return name.parse().ok();
    }
    // Tools that know only the spec's annotation write the whole name there; a bare tag is no name.
    entry.annotations.get(REF_NAME).filter(|n| n.contains([':', '/'])).and_then(|n| n.parse().ok())
}

/// Gives an entry the annotations of a name.
pub(super) fn set_name(entry: &mut Descriptor, name: &Reference) {
    if let Some(tag) = name.tag() {
        entry.annotations.insert(REF_NAME.into(), tag.into());
    }
    entry.annotations.insert(FULL_NAME.into(), name.to_string());
}

impl Images {
    /// Reads all entries; those of the copy where the list is damaged or gone.
    pub(super) fn entries(&self) -> Result<Vec<Descriptor>, ImageError> {
        let damage = match self.read_list(INDEX) {
            Ok(Some(entries)) => return Ok(entries),
            // the layout is written after the list
            Ok(None) if !self.store.root().join(LAYOUT).exists() => return Ok(Vec::new()),
            Ok(None) => ImageError::NoList { path: self.store.root().join(INDEX) },
            Err(damage @ ImageError::List { .. }) => damage,
            Err(other) => return Err(other),
        };
        match self.read_list(COPY) {
            Ok(Some(entries)) => Ok(entries),
            _ => Err(damage),
        }
    }

    fn read_list(&self, file: &str) -> Result<Option<Vec<Descriptor>>, ImageError> {
        let Some(bytes) = self.store.read(file, MANIFEST_LIMIT)? else { return Ok(None) };
        let index = documents::parse_index(&bytes).and_then(|index| match index.annotations.get(SUM) {
            Some(sum) if *sum != checksum(&index.manifests) => Err(DocumentError::Rule {
                what: "the list",
                why: "its checksum does not fit what it says".into(),
            }),
            _ => Ok(index.manifests),
        });
        let damaged = |source| ImageError::List { path: self.store.root().join(file), source };
        index.map(Some).map_err(damaged)
    }

    /// Says what is wrong with the list and its copy.
    pub(super) fn check_lists(&self) -> Vec<String> {
        let there = self.store.root().join(LAYOUT).exists();
        let wrong = |file| match self.read_list(file) {
            Ok(Some(_)) => None,
            Ok(None) => there.then(|| format!("{file} is gone")),
            Err(ImageError::List { source, .. }) => Some(format!("{file} is damaged: {source}")),
            Err(error) => Some(error.to_string()),
        };
        [INDEX, COPY].into_iter().filter_map(wrong).collect()
    }

    /// Writes list and copy anew with what can be read of them, or nothing, and what `change` adds.
    pub(super) fn replace_list<T>(
        &self,
        change: impl FnOnce(&mut Vec<Descriptor>) -> T,
    ) -> Result<T, ImageError> {
        let _lock = self.store.lock(LOCK, LockKind::Exclusive)?;
        let mut entries = self.entries().unwrap_or_default();
        let result = change(&mut entries);
        self.write_list(entries)?;
        Ok(result)
    }

    fn write_list(&self, entries: Vec<Descriptor>) -> Result<(), ImageError> {
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::INDEX.into()),
            annotations: [(SUM.to_owned(), checksum(&entries))].into(),
            manifests: entries,
        };
        let bytes = documents::to_json(&index);
        fault::point("image.before_list");
        self.store.write_atomic(COPY, &bytes, false)?;
        self.store.write_atomic(INDEX, &bytes, true)?;
        // last, so that a layout without a list has lost it
        if !self.store.root().join(LAYOUT).exists() {
            self.store.write_atomic(LAYOUT, LAYOUT_BYTES, false)?;
        }
        fault::point("image.listed");
        Ok(())
    }

    /// Gives something that differs whenever images or names have been added or removed; `None` as long as there are none.
    pub fn stamp(&self) -> Option<(u64, i64, i64, u64)> {
        let meta = self.store.root().join(INDEX).symlink_metadata().ok()?;
        Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
    }

    /// Reads the entries, lets `change` work on them and writes them back, alone.
    pub(super) fn change_entries<T>(
        &self,
        change: impl FnOnce(&mut Vec<Descriptor>) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let _lock = self.store.lock(LOCK, LockKind::Exclusive)?;
        let before = self.entries()?;
        let mut entries = before.clone();
        let result = change(&mut entries)?;
        if entries != before {
            self.write_list(entries)?;
        }
        Ok(result)
    }

    /// Gives a manifest a name, or just a place if `name` is `None`. Gives the manifest that had the name before.
    pub(super) fn publish(
        &self,
        manifest: &Descriptor,
        name: Option<&Reference>,
    ) -> Result<Option<Descriptor>, ImageError> {
        self.change_entries(|entries| Ok(put(entries, manifest, name)))
    }
}

/// Sums up what a list says.
fn checksum(entries: &[Descriptor]) -> String {
    blake3::hash(&documents::to_json(&entries)).to_hex().to_string()
}

/// The pure part of [`Images::publish`]: a manifest that loses its last name stays as an entry without one.
pub(super) fn put(
    entries: &mut Vec<Descriptor>,
    manifest: &Descriptor,
    name: Option<&Reference>,
) -> Option<Descriptor> {
    let bare = |d: &Descriptor| {
        let mut bare = d.clone();
        bare.annotations.remove(REF_NAME);
        bare.annotations.remove(FULL_NAME);
        bare
    };
    let listed = |entries: &[Descriptor], digest: &Digest| entries.iter().any(|e| e.digest == *digest);
    let Some(name) = name else {
        if !listed(entries, &manifest.digest) {
            entries.push(bare(manifest));
        }
        return None;
    };
    let at = entries.iter().position(|e| name_of(e).as_ref() == Some(name));
    let before = at.map(|at| entries.remove(at));
    // A name takes the place of "no name".
    entries.retain(|e| e.digest != manifest.digest || name_of(e).is_some());
    let mut entry = bare(manifest);
    set_name(&mut entry, name);
    entries.push(entry);
    let before = before.filter(|b| b.digest != manifest.digest);
    if let Some(old) = &before
        && !listed(entries, &old.digest)
    {
        entries.push(bare(old));
    }
    before
}

/// Puts a manifest in the place of another under all its names.
pub(super) fn replace(entries: &mut Vec<Descriptor>, old: &Digest, manifest: &Descriptor) {
    for entry in entries.iter_mut().filter(|e| e.digest == *old) {
        let annotations = std::mem::take(&mut entry.annotations);
        *entry = Descriptor { annotations, ..manifest.clone() };
    }
    // a name takes the place of "no name"
    let named = |e: &Descriptor| e.digest == manifest.digest && name_of(e).is_some();
    if entries.iter().any(named) {
        entries.retain(|e| e.digest != manifest.digest || name_of(e).is_some());
    }
}

/// Takes a name away; with `keep` an image that has no other stays as an entry without name.
pub(super) fn unput(entries: &mut Vec<Descriptor>, name: &Reference, keep: bool) -> bool {
    let Some(at) = entries.iter().position(|e| name_of(e).as_ref() == Some(name)) else { return false };
    let mut entry = entries.remove(at);
    if keep && !entries.iter().any(|e| e.digest == entry.digest) {
        entry.annotations.remove(REF_NAME);
        entry.annotations.remove(FULL_NAME);
        entries.push(entry);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(bytes: &[u8]) -> Descriptor {
        documents::describe(media_type::MANIFEST, bytes)
    }

    fn show(entries: &[Descriptor]) -> Vec<(String, String)> {
        let name = |e: &Descriptor| name_of(e).map_or("-".into(), |n| n.familiar());
        entries.iter().map(|e| (e.digest.short()[..2].to_owned(), name(e))).collect()
    }

    #[test]
    fn names_move_and_leave_nameless_images_behind() {
        let (a, b) = (manifest(b"a"), manifest(b"b"));
        let (x, y): (Reference, Reference) = ("x".parse().unwrap(), "r.io/y:1".parse().unwrap());
        let mut entries = Vec::new();
        assert!(put(&mut entries, &a, None).is_none());
        assert!(put(&mut entries, &a, None).is_none());
        assert_eq!(show(&entries), [("ca".into(), "-".into())]);
        assert!(put(&mut entries, &a, Some(&x)).is_none());
        assert!(put(&mut entries, &a, Some(&x)).is_none());
        assert!(put(&mut entries, &a, Some(&y)).is_none());
        assert_eq!(show(&entries), [("ca".into(), "x:latest".into()), ("ca".into(), "r.io/y:1".into())]);
        // the name goes over; a keeps its other one
        assert_eq!(put(&mut entries, &b, Some(&x)).map(|d| d.digest), Some(a.digest.clone()));
        assert_eq!(show(&entries), [("ca".into(), "r.io/y:1".into()), ("3e".into(), "x:latest".into())]);
        // the last name goes over: a stays without
        assert!(put(&mut entries, &b, Some(&y)).is_some());
        assert_eq!(show(&entries)[2], ("ca".into(), "-".into()));
        assert!(unput(&mut entries, &y, true));
        assert!(!unput(&mut entries, &y, true));
        assert!(unput(&mut entries, &x, true));
        assert_eq!(show(&entries), [("ca".into(), "-".into()), ("3e".into(), "-".into())]);
    }

    #[test]
    fn names_come_from_either_annotation() {
        let mut entry = manifest(b"a");
        for (text, want) in
            [("latest", None), ("r.io/a:1", Some("r.io/a:1")), ("a:b", Some("a:b")), ("../x", None)]
        {
            entry.annotations.insert(REF_NAME.into(), text.into());
            assert_eq!(name_of(&entry).map(|n| n.familiar()).as_deref(), want, "{text}");
        }
        entry.annotations.insert(FULL_NAME.into(), "docker.io/library/z:2".into());
        assert_eq!(name_of(&entry).unwrap().familiar(), "z:2");
    }
}
