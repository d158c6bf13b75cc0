//! Every promise that a stored image makes, computed anew.

use super::documents;
use super::{Image, ImageError, Images};
use crate::digest::ImageId;
use crate::image::layers::copy;
use std::io;

impl Images {
    /// Checks an image from its documents to the last byte of its layers.
    ///
    /// Blobs have the digests that name them, manifest and config speak of the same layers, history has as many lines
    /// with a layer as there are layers, the bytes of each layer give its diff ID and the size that is written down,
    /// and the snapshot of the whole stack is there. Reads all layers, so it takes its time.
    ///
    /// # Errors
    /// The first promise that is not kept.
    pub fn validate(&self, id: &ImageId) -> Result<(), ImageError> {
        let image = self.get(id)?;
        let damaged = |why: String| ImageError::Damaged { image: image.id.clone(), why };
        self.check_documents(&image).map_err(damaged)?;
        for layer in self.layer_sources(&image) {
            let size = self.write_layer(&layer, &mut io::sink())?;
            let stored = &layer.descriptor;
            if layer.has_blob {
                let mut blob = self.store.blobs().open(&stored.digest)?;
                let found = copy(&mut blob, &mut io::sink())?;
                self.write_blob(stored, &mut io::sink())?;
                if found != stored.size {
                    return Err(damaged(format!("{} has {found} bytes, not {}", stored.digest, stored.size)));
                }
            } else if stored.digest != layer.diff_id.0 || size != stored.size {
                return Err(damaged(format!(
                    "layer {} has {size} bytes, not {}",
                    stored.digest, stored.size
                )));
            }
        }
        self.snapshots.get(&image.top())?;
        Ok(())
    }

    fn check_documents(&self, image: &Image) -> Result<(), String> {
        let layers = image.config.rootfs.diff_ids.len();
        let lines = image.config.history.iter().filter(|h| !h.empty_layer).count();
        if lines != layers && !image.config.history.is_empty() {
            return Err(format!("{lines} lines of history have a layer, and there are {layers} layers"));
        }
        let written = documents::to_json(&image.manifest);
        let size = self.store.blobs().size(&image.descriptor.digest).map_err(|e| e.to_string())?;
        if size != image.descriptor.size {
            return Err(format!("the manifest has {size} bytes, not {}", image.descriptor.size));
        }
        documents::parse_document(&written, &image.descriptor.media_type).map_err(|e| e.to_string())?;
        if self.snapshots.has(&image.top()) {
            Ok(())
        } else {
            Err("the snapshot of its layers is gone".into())
        }
    }
}
