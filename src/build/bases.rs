//! Base images for the planner: those of the store.

use crate::image::Images;
use crate::plan::{BaseImage, BaseImageError, BaseImages};
use crate::platform::Platform;

/// Finds bases among the images that are here.
pub(super) struct StoredBases<'a> {
    images: &'a Images,
}

impl<'a> StoredBases<'a> {
    /// Looks into the given images.
    pub(super) fn new(images: &'a Images) -> Self {
        Self { images }
    }
}

impl BaseImages for StoredBases<'_> {
    fn resolve(&self, name: &str, platform: Option<&Platform>) -> Result<BaseImage, BaseImageError> {
        self.images.resolve_base(name, platform)
    }
}
