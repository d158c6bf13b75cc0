//! The bytes of an image's layers: from the blob where there is one, else made from the snapshot, checked to the end.

use super::{Image, ImageError, Images};
use crate::digest::{DiffId, ResultId};
use crate::layer::{self, Hashing, write_tar};
use crate::oci::Descriptor;
use crate::snapshot::LayerDirs;
use crate::tree::{Diff, TreePath};
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

/// On a layer that was built with SOURCE_DATE_EPOCH: the time that its modification times are lowered to.
pub(super) const CLAMP: &str = "dev.rbuild.layer.epoch";

/// Layers that are packed at the same time; with the compressors' own bounds it keeps memory below 100 MB on most machines.
pub(super) const LAYERS_AT_ONCE: usize = 4;

/// One layer of an image and where its bytes are.
#[derive(Debug, Clone)]
pub(super) struct LayerSource {
    /// As the stored manifest has it.
    pub(super) descriptor: Descriptor,
    /// As the config has it.
    pub(super) diff_id: DiffId,
    /// The snapshot whose top it is.
    pub(super) result: ResultId,
    /// Whether the blob is in the store.
    pub(super) has_blob: bool,
}

impl LayerSource {
    pub(super) fn epoch(&self) -> Option<i64> {
        self.descriptor.annotations.get(CLAMP).and_then(|text| text.parse().ok())
    }
}

/// The top layer of a snapshot: its diff and how to open the files in it.
pub(super) struct LayerFiles {
    pub(super) diff: Arc<Diff>,
    dirs: Option<LayerDirs>,
    /// Keeps the garbage collector away.
    _held: crate::snapshot::Snapshot,
}

impl LayerFiles {
    pub(super) fn open(&self, path: &TreePath) -> io::Result<File> {
        self.dirs.as_ref().ok_or(io::ErrorKind::NotFound)?.open(path)
    }
}

impl Images {
    /// Lists the layers of an image, lowest first.
    pub(super) fn layer_sources(&self, image: &Image) -> Vec<LayerSource> {
        let blobs = self.store.blobs();
        let chain = image.chain_ids();
        let parts = image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids).zip(&chain);
        let source = |((descriptor, diff_id), chain): ((&Descriptor, &DiffId), _)| LayerSource {
            has_blob: blobs.has(&descriptor.digest),
            descriptor: descriptor.clone(),
            diff_id: diff_id.clone(),
            result: ResultId::chain(chain),
        };
        parts.map(source).collect()
    }

    /// Opens the top layer of a snapshot.
    pub(super) fn layer_files(&self, id: &ResultId) -> Result<LayerFiles, ImageError> {
        let snapshot = self.snapshots.get(id)?;
        let dirs = match snapshot.chain.first() {
            Some(top) => Some(self.snapshots.layer_dirs(top)?),
            None => None,
        };
        Ok(LayerFiles { diff: self.snapshots.diff(id)?, dirs, _held: snapshot })
    }

    /// Writes the uncompressed tar of a layer and gives its length in bytes.
    ///
    /// # Errors
    /// The bytes are not those of the diff ID; what was written by then is worthless.
    pub(super) fn write_layer(&self, layer: &LayerSource, out: &mut dyn Write) -> Result<u64, ImageError> {
        let mut out = Hashing::new(out);
        if layer.has_blob {
            let blob = self.store.blobs().open(&layer.descriptor.digest)?;
            let mut tar = layer::decoder(Box::new(blob)).map_err(layer::LayerError::Read)?;
            copy(&mut tar, &mut out)?;
        } else {
            let files = self.layer_files(&layer.result)?;
            write_tar(&files.diff, &|path| files.open(path), layer.epoch(), &mut out)?;
        }
        let (found, size) = out.finish();
        if found != layer.diff_id.0 {
            return Err(ImageError::Layers { expected: layer.diff_id.0.clone(), found });
        }
        Ok(size)
    }

    /// Writes the blob of a layer as it is stored.
    pub(super) fn write_blob(&self, blob: &Descriptor, out: &mut dyn Write) -> Result<(), ImageError> {
        let mut out = Hashing::new(out);
        let mut bytes = self.store.blobs().open(&blob.digest)?;
        copy(&mut bytes, &mut out)?;
        let (found, _) = out.finish();
        if blob.digest.algorithm() == "sha256" && found != blob.digest {
            return Err(ImageError::Layers { expected: blob.digest.clone(), found });
        }
        Ok(())
    }

    /// Gives the bytes of a layer's regular files, unpacked; 0 when its snapshot is gone. Of a layer that is elsewhere it
    /// is the length of the tar or, if that is not known either, of the blob.
    pub(super) fn unpacked_size(&self, id: &ResultId) -> u64 {
        if !self.snapshots.is_present(id) {
            let info = self.snapshots.layer(id).unwrap_or_default();
            return info.tar_size.or(info.blob.map(|blob| blob.size)).unwrap_or(0);
        }
        self.snapshots.diff(id).map_or(0, |diff| diff.content_bytes())
    }
}

/// Copies and tells reading from writing in its errors.
pub(super) fn copy(from: &mut dyn Read, to: &mut dyn Write) -> Result<u64, ImageError> {
    let mut buffer = vec![0; 128 << 10];
    let mut done = 0;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(done),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(layer::LayerError::Read(e).into()),
        };
        to.write_all(&buffer[..n]).map_err(ImageError::write("a layer"))?;
        done += n as u64;
    }
}
