//! Which bytes each layer of an exported image has: decided, and compressed where that is needed, before the first
//! byte goes out.

use super::ExportOptions;
use crate::image::assemble::oci_layer_type;
use crate::image::layers::{CLAMP, LAYERS_AT_ONCE, LayerSource};
use crate::image::{Image, ImageError, Images};
use crate::interrupt::Stop;
use crate::layer::{Compression, Hashing, encoder};
use crate::oci::{Descriptor, media_type};
use crate::reference::Reference;
use crate::store::TempDir;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Images ready to be written.
pub(super) struct Packed {
    pub(super) images: Vec<PackedImage>,
    _temp: Option<TempDir>,
}

/// What has names of its own, ready to be written: an image, or an index of several.
pub(super) struct PackedImage {
    pub(super) image: Image,
    pub(super) names: Vec<Reference>,
    /// The image, or all that the index lists.
    pub(super) parts: Vec<PackedPart>,
}

impl PackedImage {
    /// Gives the image that readers get who know one only.
    pub(super) fn main(&self) -> Option<&PackedPart> {
        self.parts.iter().find(|part| part.image.id == self.image.id)
    }
}

/// One image ready to be written.
pub(super) struct PackedPart {
    pub(super) image: Image,
    /// As the index in the store has it.
    pub(super) entry: Descriptor,
    pub(super) layers: Vec<PackedLayer>,
}

/// The bytes of one layer.
#[derive(Debug, Clone)]
pub(super) struct PackedLayer {
    /// As the written manifest has it.
    pub(super) descriptor: Descriptor,
    bytes: Bytes,
}

#[derive(Debug, Clone)]
enum Bytes {
    /// The blob as it is stored.
    Blob,
    /// The tar, streamed.
    Tar(LayerSource),
    /// A compressed file that waits in `tmp/`.
    Staged(PathBuf),
}

impl Images {
    /// Decides about all layers and compresses those that need it, beside each other, each once.
    pub(super) fn pack(
        &self,
        images: &[(Image, Vec<Reference>)],
        options: &ExportOptions,
    ) -> Result<Packed, ImageError> {
        let compression = options.compression.unwrap_or(Compression::Gzip(6));
        let mut groups = Vec::with_capacity(images.len());
        for (image, names) in images {
            let mut parts = Vec::new();
            for (entry, member) in self.members(image)? {
                let elsewhere = |s: &LayerSource| !s.has_blob && !self.snapshots.is_present(&s.result);
                if self.layer_sources(&member).iter().any(elsewhere) {
                    self.bring(&member)?;
                }
                let sources = self.layer_sources(&member);
                parts.push((entry, member, sources));
            }
            groups.push((image, names, parts));
        }
        let sources = groups.iter().flat_map(|(_, _, parts)| parts).flat_map(|(_, _, sources)| sources);
        let distinct: HashMap<_, &LayerSource> = sources.map(|s| (s.descriptor.digest.clone(), s)).collect();
        let wanted = |s: &LayerSource| !s.has_blob || options.force_compression;
        let stage = distinct.values().any(|s| wanted(s));
        let temp = if stage { Some(self.store.temp_dir("export")?) } else { None };
        let pack = |source: &LayerSource| match &temp {
            Some(temp) if wanted(source) => self.pack_layer(source, compression, temp),
            _ => Ok(stored(source)),
        };
        let packed = a_few_at_once(distinct.into_iter().collect(), pack)?;
        let part = |(entry, image, sources): &(Descriptor, Image, Vec<LayerSource>)| PackedPart {
            image: image.clone(),
            entry: entry.clone(),
            layers: sources.iter().map(|s| packed[&s.descriptor.digest].clone()).collect(),
        };
        let group = |(image, names, parts): &(&Image, &Vec<Reference>, Vec<_>)| PackedImage {
            image: Image::clone(image),
            names: names.to_vec(),
            parts: parts.iter().map(part).collect(),
        };
        Ok(Packed { images: groups.iter().map(group).collect(), _temp: temp })
    }

    fn pack_layer(
        &self,
        source: &LayerSource,
        compression: Compression,
        temp: &TempDir,
    ) -> Result<PackedLayer, ImageError> {
        if compression == Compression::None
            && let Some(size) = self.tar_size(source)
        {
            let descriptor = describe(source, media_type::LAYER_TAR, source.diff_id.0.clone(), size);
            return Ok(PackedLayer { descriptor, bytes: Bytes::Tar(source.clone()) });
        }
        self.stage_layer(source, compression, temp)
            .map(|(descriptor, path)| PackedLayer { descriptor, bytes: Bytes::Staged(path) })
    }

    /// Writes the bytes of a layer into a file and describes them.
    pub(in crate::image) fn stage_layer(
        &self,
        source: &LayerSource,
        compression: Compression,
        temp: &TempDir,
    ) -> Result<(Descriptor, PathBuf), ImageError> {
        let kind = match compression {
            Compression::None => media_type::LAYER_TAR,
            Compression::Gzip(_) => media_type::LAYER_GZIP,
            Compression::Zstd(_) => media_type::LAYER_ZSTD,
        };
        let path = temp.path().join(source.descriptor.digest.encoded());
        let ahead = self.ahead.as_ref().and_then(|ahead| ahead.find(&source.diff_id, compression));
        if let Some(made) = ahead {
            made.link(&path)?;
            return Ok((describe(source, kind, made.digest, made.size), path));
        }
        let fail = || ImageError::io("write", &path);
        let file = File::create_new(&path).map_err(fail())?;
        let file = Until { file, stop: &self.stop };
        let out = Hashing::new(BufWriter::with_capacity(128 << 10, file));
        let mut out = encoder(out, compression).map_err(fail())?;
        self.write_layer(source, &mut out)?;
        let mut out = out.finish().map_err(fail())?;
        out.flush().map_err(fail())?;
        let (digest, size) = out.finish();
        Ok((describe(source, kind, digest, size), path))
    }

    fn tar_size(&self, source: &LayerSource) -> Option<u64> {
        if source.descriptor.digest == source.diff_id.0 {
            return Some(source.descriptor.size);
        }
        self.snapshots.layer(&source.result).ok()?.tar_size
    }

    /// Writes the bytes that a packed layer's descriptor names.
    pub(super) fn write_packed(&self, layer: &PackedLayer, out: &mut dyn Write) -> Result<(), ImageError> {
        match &layer.bytes {
            Bytes::Blob => self.write_blob(&layer.descriptor, out),
            Bytes::Tar(source) => self.write_layer(source, out).map(drop),
            Bytes::Staged(path) => {
                let mut file = File::open(path).map_err(ImageError::io("read", path))?;
                crate::image::layers::copy(&mut file, out).map(drop)
            }
        }
    }
}

/// Writes to a file until somebody asks to stop.
struct Until<'a> {
    file: File,
    stop: &'a Stop,
}

impl Write for Until<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stop.check()?;
        self.file.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Packs layers beside each other: each takes all cores most of the time, but not while its first and last bytes go through.
fn a_few_at_once<K: Send + Eq + std::hash::Hash>(
    layers: Vec<(K, &LayerSource)>,
    pack: impl Fn(&LayerSource) -> Result<PackedLayer, ImageError> + Sync,
) -> Result<HashMap<K, PackedLayer>, ImageError> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(LAYERS_AT_ONCE));
    let threads = threads.min(layers.len());
    let waiting = Mutex::new(layers);
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || {
        let mut done = Vec::new();
        while let Some((key, source)) = next() {
            match pack(source) {
                Ok(layer) => done.push((key, layer)),
                Err(e) => {
                    // no other needs to be begun
                    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    return Err(e);
                }
            }
        }
        Ok(done)
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut all = work();
        for other in others {
            let more = other.join().map_err(|_| ImageError::Assemble("a packing thread failed".into()))?;
            all = all.and_then(|mut all| more.map(|more| all.extend(more)).map(|()| all));
        }
        Ok(all?.into_iter().collect())
    })
}

fn stored(source: &LayerSource) -> PackedLayer {
    PackedLayer { descriptor: as_stored(source), bytes: Bytes::Blob }
}

/// Describes a layer as its manifest has it, in the terms of OCI.
pub(in crate::image) fn as_stored(source: &LayerSource) -> Descriptor {
    let stored = &source.descriptor;
    describe(source, oci_layer_type(&stored.media_type), stored.digest.clone(), stored.size)
}

fn describe(source: &LayerSource, kind: &str, digest: crate::digest::Digest, size: u64) -> Descriptor {
    let mut annotations = source.descriptor.annotations.clone();
    annotations.remove(CLAMP);
    Descriptor { media_type: kind.to_owned(), digest, size, annotations, platform: None }
}
