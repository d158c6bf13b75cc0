//! Layers that are compressed while their diff IDs are computed, because the build will be exported at once.
//!
//! Otherwise each new layer would be read and summed up twice: for the image's config, and again for the archive, where
//! the bytes are checked against the diff ID. What is made here is known by its diff ID and goes away with the last [`Images`]
//! that [`Images::exporting`] gave.

use super::layers::LayerFiles;
use super::{ImageError, Images};
use crate::digest::{DiffId, Digest};
use crate::layer::{Compression, Hashing, encoder, write_tar};
use crate::store::TempDir;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The compressed layers, each in a file.
#[derive(Debug)]
pub(super) struct Ahead {
    how: Compression,
    temp: TempDir,
    made: Mutex<HashMap<DiffId, Made>>,
}

/// One compressed layer.
#[derive(Debug, Clone)]
pub(super) struct Made {
    path: PathBuf,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl Made {
    /// Gives the file a second name, which stays when this one goes.
    pub(super) fn link(&self, path: &Path) -> Result<(), ImageError> {
        std::fs::hard_link(&self.path, path).map_err(ImageError::io("write", path))
    }
}

impl Images {
    /// The same images, for a build whose result will be exported with this compression: layers that are new to it are
    /// compressed as soon as they are read for the first time.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn exporting(&self, how: Compression) -> Result<Self, ImageError> {
        if how == Compression::None {
            // made from the snapshot when it is written, nothing is kept
            return Ok(self.clone());
        }
        let ahead = Ahead { how, temp: self.store.temp_dir("export")?, made: Mutex::default() };
        Ok(Self { ahead: Some(Arc::new(ahead)), ..self.clone() })
    }
}

impl Ahead {
    /// Compresses a layer and gives the digest and length of its tar.
    pub(super) fn make(
        &self,
        name: &str,
        files: &LayerFiles,
        epoch: Option<i64>,
    ) -> Result<(DiffId, u64), ImageError> {
        let path = self.temp.path().join(name);
        let fail = || ImageError::io("write", &path);
        let file = File::create(&path).map_err(fail())?;
        let out = Hashing::new(BufWriter::with_capacity(128 << 10, file));
        let mut tar = Hashing::new(encoder(out, self.how).map_err(fail())?);
        write_tar(&files.diff, &|path| files.open(path), epoch, &mut tar)?;
        let (out, diff_id, tar_size) = tar.into_parts();
        let mut out = out.finish().map_err(fail())?;
        out.flush().map_err(fail())?;
        let (_, digest, size) = out.into_parts();
        let made = Made { path, digest, size };
        let diff_id = DiffId(diff_id);
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(diff_id.clone(), made);
        Ok((diff_id, tar_size))
    }

    /// Gives what was made of a layer, when it was compressed in the same way.
    pub(super) fn find(&self, diff_id: &DiffId, how: Compression) -> Option<Made> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.get(diff_id).filter(|_| how == self.how).cloned()
    }
}
