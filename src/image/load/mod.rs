//! `load`: images from archives and layouts that somebody else wrote.
//!
//! Nothing of an archive is trusted and nothing of it is unpacked but layers, into snapshots. For each image, in this order: its
//! documents are read and checked against each other; each layer blob is copied into the store, which checks digest
//! and size; each layer is unpacked and its diff ID checked before its snapshot can be found; the documents are stored; the names
//! are given. A crash or an error at any point leaves what can be loaded again, and no name.

mod archive;
mod docker;
mod oci;
mod pick;

pub use pick::LayoutPick;

use super::assemble::oci_layer_type;
use super::documents::{self, CONFIG_LIMIT};
use super::layers::copy;
use super::{ImageError, Images, chain_ids};
use crate::digest::{ChainId, DiffId, Digest, ImageId, ResultId};
use crate::fault;
use crate::layer::{Format, LayerError, decoder};
use crate::oci::{Descriptor, ImageConfig, Manifest, media_type};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::TempDir;
use archive::{Source, Tar};
use rayon::prelude::*;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Where an archive comes from.
pub enum LoadInput {
    /// An archive or the directory of an OCI layout.
    Path(PathBuf),
    /// An archive that can be read once.
    Stream(Box<dyn Read + Send>),
}

/// One image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// The names that it has got.
    pub names: Vec<Reference>,
    /// Names that another image had until now.
    pub replaced: Vec<(Reference, ImageId)>,
}

/// An image in an archive, its documents read and checked.
struct Candidate {
    config_bytes: Vec<u8>,
    config: ImageConfig,
    layers: Vec<Part>,
    names: Vec<Reference>,
    /// The manifest as it came; a Docker archive has none.
    manifest: Option<(Descriptor, Vec<u8>)>,
}

/// A layer in an archive.
struct Part {
    member: String,
    /// What its descriptor promises.
    expected: Option<Descriptor>,
}

impl Images {
    /// Loads all images of an archive (of an image for several platforms the one for `platform`, else this machine's).
    ///
    /// # Errors
    /// The archive is none, is damaged, or lies about anything: then no image of it has got a name.
    pub fn load(&self, input: LoadInput, platform: Option<&Platform>) -> Result<Vec<Loaded>, ImageError> {
        let _held = self.hold_blobs()?;
        let (source, _spool) = self.open_source(input)?;
        let wanted = platform.cloned().unwrap_or_else(Platform::host);
        let candidates = candidates(&source, &wanted)?;
        let mut stored = Vec::new();
        for candidate in &candidates {
            stored.push(self.store_candidate(&source, candidate)?);
        }
        let mut loaded = Vec::new();
        for (candidate, (id, descriptor)) in candidates.into_iter().zip(stored) {
            loaded.push(self.name_loaded(id, &descriptor, candidate.names)?);
        }
        Ok(loaded)
    }

    /// A plain file is read where it is; what is compressed or a stream goes through `tmp/`, as a tar must be seekable.
    fn open_source(&self, input: LoadInput) -> Result<(Source, Option<TempDir>), ImageError> {
        let stream: Box<dyn Read + Send> = match input {
            LoadInput::Path(path) => {
                let meta = path.metadata().map_err(ImageError::io("open", &path))?;
                if meta.is_dir() {
                    return Ok((Source::dir(&path)?, None));
                }
                let file = File::open(&path).map_err(ImageError::io("open", &path))?;
                let mut magic = [0; 6];
                if meta.is_file() {
                    let n = file.read_at(&mut magic, 0).map_err(ImageError::io("read", &path))?;
                    if Format::of(&magic[..n]) == Format::Plain {
                        return Ok((Source::Tar(Tar::index(file)?), None));
                    }
                }
                Box::new(file)
            }
            LoadInput::Stream(stream) => stream,
        };
        let spool = self.store.temp_dir("load")?;
        let path = spool.path().join("archive");
        let mut file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.as_mut().map_err(|e| ImageError::io("write", &path)(io::Error::from(e.kind())))?;
        let mut plain = decoder(stream).map_err(LayerError::Read)?;
        copy(&mut plain, file)?;
        let file = file.try_clone().map_err(ImageError::io("read", &path))?;
        Ok((Source::Tar(Tar::index(file)?), Some(spool)))
    }

    /// Brings blobs, snapshots and documents of an image into the store; gives its ID and manifest.
    fn store_candidate(
        &self,
        source: &Source,
        candidate: &Candidate,
    ) -> Result<(ImageId, Descriptor), ImageError> {
        let blobs: Vec<Descriptor> = candidate
            .layers
            .par_iter()
            .map(|part| self.store_blob(source, part))
            .collect::<Result<_, _>>()?;
        fault::point("load.blobs_kept");
        let mut parent = ResultId::scratch();
        let chain = chain_ids(&candidate.config);
        let layers = blobs.iter().zip(&candidate.config.rootfs.diff_ids).zip(&chain);
        for ((blob, diff_id), chain) in layers {
            parent = self.store_layer(&parent, chain, diff_id, blob)?;
        }
        fault::point("load.layers_kept");
        let id = ImageId(Digest::sha256_of(&candidate.config_bytes));
        if let Ok(existing) = self.get(&id) {
            return Ok((id, existing.descriptor));
        }
        let (descriptor, manifest) = match &candidate.manifest {
            Some((descriptor, bytes)) => (descriptor.clone(), bytes.clone()),
            None => {
                let manifest = documents::to_json(&Manifest {
                    schema_version: 2,
                    media_type: Some(media_type::MANIFEST.into()),
                    config: documents::describe(media_type::CONFIG, &candidate.config_bytes),
                    layers: blobs,
                    annotations: Default::default(),
                });
                (documents::describe(media_type::MANIFEST, &manifest), manifest)
            }
        };
        self.store.blobs().put(&candidate.config_bytes, true)?;
        self.store.blobs().put(&manifest, true)?;
        fault::point("load.documents_kept");
        let descriptor = Descriptor { annotations: Default::default(), ..descriptor };
        Ok((id, descriptor))
    }

    /// Copies a layer blob into the store and checks it against its descriptor.
    fn store_blob(&self, source: &Source, part: &Part) -> Result<Descriptor, ImageError> {
        let lie = |why: String| ImageError::Lie { what: part.member.clone(), why };
        let blobs = self.store.blobs();
        let mut member = source.need(&part.member)?;
        if let Some(expected) = &part.expected {
            if member.size() != expected.size {
                let why = format!("it has {} bytes, its descriptor says {}", member.size(), expected.size);
                return Err(lie(why));
            }
            if blobs.size(&expected.digest).is_ok_and(|size| size == expected.size) {
                return Ok(expected.clone());
            }
        }
        let mut magic = [0; 6];
        let have = read_some(&mut member, &mut magic).map_err(LayerError::Read)?;
        let mut writer = blobs.writer()?;
        copy(&mut (&magic[..have]).chain(member), &mut writer)?;
        let size = writer.size();
        let expected = part.expected.as_ref().map(|e| (&e.digest, e.size));
        let digest = writer.finish(expected).map_err(|e| lie(e.to_string()))?;
        if let Some(expected) = &part.expected {
            return Ok(expected.clone());
        }
        let kind = match Format::of(&magic[..have]) {
            Format::Plain => media_type::LAYER_TAR,
            Format::Gzip => media_type::LAYER_GZIP,
            Format::Zstd => media_type::LAYER_ZSTD,
            Format::Bzip2 | Format::Xz => {
                return Err(lie("layers are plain tar, gzip or zstd, and this is bzip2 or xz".into()));
            }
        };
        Ok(Descriptor {
            media_type: kind.into(),
            digest,
            size,
            annotations: Default::default(),
            platform: None,
        })
    }

    /// Unpacks a layer on top of `parent`, unless that was done from the same blob before.
    pub(super) fn store_layer(
        &self,
        parent: &ResultId,
        chain: &ChainId,
        diff_id: &DiffId,
        blob: &Descriptor,
    ) -> Result<ResultId, ImageError> {
        let result = ResultId::chain(chain);
        let file = self.store.blobs().open(&blob.digest)?;
        if !self.snapshots.is_present(&result) {
            let mut kept = blob.clone();
            kept.media_type = oci_layer_type(&blob.media_type).to_owned();
            return Ok(self.snapshots.apply_layer(parent, chain, diff_id, Some(kept), Box::new(file))?);
        }
        // That a snapshot of this diff ID is there says nothing about the blob that claims to be it.
        let known = self.snapshots.layer(&result)?.blob.is_some_and(|b| b.digest == blob.digest);
        if !known && blob.digest != diff_id.0 {
            let mut tar = decoder(Box::new(file)).map_err(LayerError::Read)?;
            let mut sum = crate::layer::Hashing::new(io::sink());
            copy(&mut tar, &mut sum)?;
            let found = DiffId(sum.finish().0);
            if found != *diff_id {
                return Err(LayerError::DiffId { expected: diff_id.clone(), found }.into());
            }
        }
        Ok(result)
    }

    pub(super) fn name_loaded(
        &self,
        id: ImageId,
        descriptor: &Descriptor,
        names: Vec<Reference>,
    ) -> Result<Loaded, ImageError> {
        let mut replaced = Vec::new();
        if names.is_empty() {
            self.publish(descriptor, None)?;
        }
        for name in &names {
            let before = self.publish(descriptor, Some(name))?;
            if let Some(old) =
                before.and_then(|old| self.read_image(&old, &[]).ok()).filter(|old| old.id != id)
            {
                replaced.push((name.clone(), old.id));
            }
        }
        Ok(Loaded { id, names, replaced })
    }
}

/// Reads the documents of whatever kind of archive it is. Where an archive is both kinds, the OCI layout counts, since
/// it has the manifests as they were.
fn candidates(source: &Source, wanted: &Platform) -> Result<Vec<Candidate>, ImageError> {
    if source.open("oci-layout")?.is_some() && source.open("index.json")?.is_some() {
        let found = oci::candidates(source, wanted)?;
        if !found.is_empty() || source.open("manifest.json")?.is_none() {
            return some(found);
        }
    }
    if source.open("manifest.json")?.is_some() {
        return some(docker::candidates(source)?);
    }
    let why = match source.open("repositories")? {
        Some(_) => "it is in the format of Docker before 1.10: load and save it with a newer Docker",
        None => {
            "it has neither index.json (OCI) nor manifest.json (Docker); a root file system comes in by \
             `rbuild import FILE NAME`"
        }
    };
    Err(ImageError::Archive(why.into()))
}

fn some(found: Vec<Candidate>) -> Result<Vec<Candidate>, ImageError> {
    if found.is_empty() { Err(ImageError::Archive("it holds no image".into())) } else { Ok(found) }
}

/// Reads a config and checks it against the layers that the manifest lists.
pub(super) fn read_config(bytes: &[u8], layers: usize) -> Result<ImageConfig, ImageError> {
    let config = documents::parse_config(bytes)?;
    documents::check_pair(layers, &config)?;
    for diff in &config.rootfs.diff_ids {
        only_sha256(&diff.0)?;
    }
    Ok(config)
}

pub(super) fn only_sha256(digest: &Digest) -> Result<(), ImageError> {
    match digest.algorithm() {
        "sha256" => Ok(()),
        other => Err(ImageError::Archive(format!("{other} digests are not supported, only sha256"))),
    }
}

/// Reads a document of known digest and length.
fn read_blob(source: &Source, blob: &Descriptor) -> Result<Vec<u8>, ImageError> {
    only_sha256(&blob.digest)?;
    let name = blob_name(&blob.digest);
    let member = source.need(&name)?;
    let lie = |why: String| ImageError::Lie { what: name.clone(), why };
    if member.size() != blob.size {
        return Err(lie(format!("it has {} bytes, its descriptor says {}", member.size(), blob.size)));
    }
    let bytes = member.read_all(&name, CONFIG_LIMIT)?;
    let found = Digest::sha256_of(&bytes);
    if found != blob.digest {
        return Err(lie(format!("its digest is {found}")));
    }
    Ok(bytes)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.encoded())
}

fn read_some(from: &mut impl Read, to: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < to.len() {
        match from.read(&mut to[have..])? {
            0 => break,
            n => have += n,
        }
    }
    Ok(have)
}

#[cfg(test)]
mod tests;
