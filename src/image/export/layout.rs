//! The files of an OCI image layout (image-spec image-layout.md) and, beside them, those of a Docker archive.

use super::ExportOptions;
use super::pack::{Packed, PackedImage, PackedPart};
use super::sink::Sink;
use crate::digest::Digest;
use crate::image::documents::{self, CONFIG_LIMIT};
use crate::image::index::{LAYOUT_BYTES, name_of, set_name};
use crate::image::several::new_index;
use crate::image::{Image, ImageError, Images};
use crate::oci::{Descriptor, Index, Manifest, media_type};
use crate::reference::Reference;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};

impl Images {
    /// Writes all files of a layout; the index comes last.
    pub(super) fn write_layout(
        &self,
        packed: &Packed,
        docker: bool,
        options: &ExportOptions,
        sink: &mut dyn Sink,
    ) -> Result<Vec<Descriptor>, ImageError> {
        let before = sink.index()?.map(|bytes| documents::parse_index(&bytes)).transpose()?;
        let mut written = HashSet::new();
        let (mut entries, mut manifests) = (Vec::new(), Vec::new());
        whole(sink, "oci-layout", LAYOUT_BYTES)?;
        for image in &packed.images {
            let top = self.write_top(image, options, sink, &mut written)?;
            entries.extend(index_entries(&top, image, options));
            manifests.push(top);
        }
        if docker {
            whole(sink, "manifest.json", &documents::to_json(&docker_manifest(&packed.images)))?;
            let repositories = repositories(&packed.images);
            if !repositories.is_empty() {
                whole(sink, "repositories", &documents::to_json(&repositories))?;
            }
        }
        let notes = if packed.images.iter().all(|i| i.image.several.is_none()) {
            options.notes.index()
        } else {
            BTreeMap::new()
        };
        let index = merge_index(before, entries, notes);
        whole(sink, "index.json", &documents::to_json(&index))?;
        Ok(manifests)
    }

    /// Writes the blobs of an image, or of all in an index; gives the descriptor of its manifest or of the index.
    fn write_top(
        &self,
        image: &PackedImage,
        options: &ExportOptions,
        sink: &mut dyn Sink,
        written: &mut HashSet<Digest>,
    ) -> Result<Descriptor, ImageError> {
        let mut entries = Vec::with_capacity(image.parts.len());
        for part in &image.parts {
            let manifest = self.write_image(part, options, sink, written)?;
            entries.push(in_index(manifest, &part.entry, &part.image, options));
        }
        let Some(several) = &image.image.several else {
            let plain =
                |entry: Descriptor| Descriptor { annotations: BTreeMap::new(), platform: None, ..entry };
            let none = || ImageError::Assemble("an image without a manifest".into());
            return entries.pop().map(plain).ok_or_else(none);
        };
        let mut annotations = several.index.annotations.clone();
        annotations.extend(options.notes.index());
        let index = documents::to_json(&new_index(entries, annotations));
        let descriptor = documents::describe(media_type::INDEX, &index);
        if written.insert(descriptor.digest.clone()) {
            whole(sink, &blob_name(&descriptor.digest), &index)?;
        }
        Ok(descriptor)
    }

    /// Writes the blobs of one image and gives its manifest's descriptor.
    fn write_image(
        &self,
        image: &PackedPart,
        options: &ExportOptions,
        sink: &mut dyn Sink,
        written: &mut HashSet<Digest>,
    ) -> Result<Descriptor, ImageError> {
        let config = self.store.blobs().read(&image.image.id.0, CONFIG_LIMIT)?;
        for layer in &image.layers {
            let blob = &layer.descriptor;
            if written.insert(blob.digest.clone()) {
                sink.file(&blob_name(&blob.digest), blob.size, &mut |out| self.write_packed(layer, out))?;
            }
        }
        let mut annotations = image.image.manifest.annotations.clone();
        annotations.extend(options.notes.manifest(&image.image.platform()));
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.into()),
            config: documents::describe(media_type::CONFIG, &config),
            layers: image.layers.iter().map(|l| l.descriptor.clone()).collect(),
            annotations,
        };
        let manifest = documents::to_json(&manifest);
        let descriptor = documents::describe(media_type::MANIFEST, &manifest);
        for bytes in [&config, &manifest] {
            let digest = Digest::sha256_of(bytes);
            if written.insert(digest.clone()) {
                whole(sink, &blob_name(&digest), bytes)?;
            }
        }
        Ok(descriptor)
    }
}

fn whole(sink: &mut dyn Sink, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
    sink.file(name, bytes.len() as u64, &mut |out| out.write_all(bytes).map_err(ImageError::write(name)))
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.encoded())
}

/// Makes the entry of an index for a manifest: with the platform and the annotations that it had, and new ones.
pub(in crate::image) fn in_index(
    manifest: Descriptor,
    before: &Descriptor,
    image: &Image,
    options: &ExportOptions,
) -> Descriptor {
    let platform = before.platform.clone().unwrap_or_else(|| image.platform());
    let mut annotations = before.annotations.clone();
    annotations.extend(options.notes.descriptor(&platform));
    Descriptor { annotations, platform: Some(platform), ..manifest }
}

/// One entry a name, or one without.
fn index_entries(top: &Descriptor, image: &PackedImage, options: &ExportOptions) -> Vec<Descriptor> {
    let mut entry = top.clone();
    if image.image.several.is_none() {
        let platform = image.image.platform();
        entry.annotations.extend(options.notes.descriptor(&platform));
        entry.platform = Some(platform).filter(|p| !p.os.is_empty() && !p.architecture.is_empty());
    }
    let named = |name: &Reference| {
        let mut entry = entry.clone();
        set_name(&mut entry, name);
        entry
    };
    if image.names.is_empty() { vec![entry] } else { image.names.iter().map(named).collect() }
}

/// What a directory has already stays, except what has the same name or is the same image without name.
fn merge_index(before: Option<Index>, entries: Vec<Descriptor>, notes: BTreeMap<String, String>) -> Index {
    let mut index = before.unwrap_or_else(|| new_index(Vec::new(), BTreeMap::new()));
    let replaced = |old: &Descriptor| match name_of(old) {
        Some(name) => entries.iter().any(|new| name_of(new).as_ref() == Some(&name)),
        None => entries.iter().any(|new| new.digest == old.digest),
    };
    index.manifests.retain(|old| !replaced(old));
    index.manifests.extend(entries);
    index.annotations.extend(notes);
    index
}

fn docker_manifest(images: &[PackedImage]) -> Vec<Value> {
    let item = |image: &PackedImage| {
        let tags: Vec<String> = image.names.iter().map(Reference::familiar).collect();
        json!({
            "Config": blob_name(&image.image.id.0),
            "RepoTags": if tags.is_empty() { Value::Null } else { tags.into() },
            "Layers": image.main().into_iter().flat_map(|part| &part.layers)
                .map(|l| blob_name(&l.descriptor.digest)).collect::<Vec<_>>(),
        })
    };
    images.iter().map(item).collect()
}

/// The index of Docker's oldest format; readers that take `manifest.json` do not look at it.
fn repositories(images: &[PackedImage]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for image in images {
        let Some(top) = image.main().and_then(|part| part.layers.last()) else { continue };
        for name in &image.names {
            let tag = name.tag().unwrap_or("latest").to_owned();
            let tags = all.entry(name.familiar_name()).or_default();
            tags.insert(tag, top.descriptor.digest.encoded().to_owned());
        }
    }
    all
}
