//! What `FROM name` means as long as there is no registry: an image of the store, for the right platform.

use super::{Image, ImageError, Images, near};
use crate::plan::{BaseImage, BaseImageError};
use crate::platform::Platform;

impl Images {
    /// Finds a base image by name or ID. No layer is looked at.
    ///
    /// # Errors
    /// It is not in the store (the text says how to get it there), or it is for another platform.
    pub fn resolve_base(&self, name: &str, platform: Option<&Platform>) -> Result<BaseImage, BaseImageError> {
        let fail = |why: String| BaseImageError { name: name.to_owned(), why };
        let image = match self.resolve(name) {
            Ok(image) => image,
            Err(ImageError::NotFound { .. }) => return Err(fail(self.missing(name))),
            Err(e) => return Err(fail(e.to_string())),
        };
        if let Some(wanted) = platform {
            check_platform(&image, wanted).map_err(fail)?;
        }
        Ok(BaseImage { image: image.id, config: image.config })
    }

    fn missing(&self, name: &str) -> String {
        let near = self.entries().ok().and_then(|entries| near(&entries, name));
        let near = near.map(|n| format!("; did you mean {n}?")).unwrap_or_default();
        format!(
            "no such image in the store{near}\nbring it in with `rbuild load -i IMAGE.tar` (an archive of docker save, \
             podman save or skopeo copy) or `rbuild import ROOTFS.tar {name}`; pulling from registries is not \
             available yet"
        )
    }
}

/// An image whose config leaves a field out fits every platform in that field.
fn check_platform(image: &Image, wanted: &Platform) -> Result<(), String> {
    let own = image.platform();
    // Through the parser, which knows that aarch64 is arm64.
    let own = own.to_string().parse().unwrap_or(own);
    if own.architecture.is_empty() || own.os.is_empty() || wanted.runs(&own) {
        return Ok(());
    }
    Err(format!("the image is for {own}, and {wanted} is wanted (--platform says which)"))
}
