//! The root file system of an image as one tar: all layers folded, owners kept.

use crate::image::layers::LayerFiles;
use crate::image::{Image, ImageError, Images, Merged, merge};
use crate::layer::write_tar;
use crate::tree::TreePath;
use std::fs::File;
use std::io::{self, Write};

/// The folded layers of an image and their files.
pub(super) struct Flat {
    layers: Vec<LayerFiles>,
    pub(super) merged: Merged,
}

impl Flat {
    /// Opens a regular file by its path in the image.
    pub(super) fn open(&self, path: &TreePath) -> io::Result<File> {
        let layer = self.merged.origin(path).ok_or(io::ErrorKind::NotFound)?;
        self.layers[layer].open(path)
    }
}

impl Images {
    pub(super) fn flat(&self, image: &Image) -> Result<Flat, ImageError> {
        let chain = image.chain_ids();
        let layers: Vec<LayerFiles> = chain
            .iter()
            .map(|chain| self.layer_files(&crate::digest::ResultId::chain(chain)))
            .collect::<Result<_, _>>()?;
        let merged = merge(&[], &layers.iter().map(|l| &*l.diff).collect::<Vec<_>>());
        Ok(Flat { layers, merged })
    }

    pub(super) fn write_flat(
        &self,
        image: &Image,
        epoch: Option<i64>,
        out: &mut dyn Write,
    ) -> Result<(), ImageError> {
        let flat = self.flat(image)?;
        write_tar(&flat.merged.diff, &|path| flat.open(path), epoch, out)?;
        out.flush().map_err(ImageError::write("the archive"))
    }
}
