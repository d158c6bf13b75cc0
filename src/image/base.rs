//! What `FROM name` means in the store: an image of that name, for the right platform.

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
        match self.find_base(name, platform) {
            Ok(image) => Ok(BaseImage { image: image.id, config: image.config }),
            Err(NoBase::Missing) => Err(fail(self.missing_base(name, None))),
            Err(NoBase::Platform(why) | NoBase::Damaged(why)) => Err(fail(why)),
        }
    }

    /// Finds a base image, or says in which way it is not there.
    ///
    /// # Errors
    /// [`NoBase`].
    pub fn find_base(&self, name: &str, platform: Option<&Platform>) -> Result<Image, NoBase> {
        let image = match self.resolve_for(name, platform) {
            Ok(image) => image,
            Err(error @ ImageError::Platform { .. }) => return Err(NoBase::Platform(error.to_string())),
            Err(ImageError::NotFound { .. }) => return Err(NoBase::Missing),
            Err(e) => return Err(NoBase::Damaged(e.to_string())),
        };
        if let Some(wanted) = platform {
            check_platform(&image, wanted).map_err(NoBase::Platform)?;
        }
        Ok(image)
    }

    /// Words that a base image is not in the store, and `why` its registry does not give it either.
    pub fn missing_base(&self, name: &str, why: Option<&str>) -> String {
        let near = self.entries().ok().and_then(|entries| near(&entries, name));
        let near = near.map(|n| format!("; did you mean {n}?")).unwrap_or_default();
        let why = why.map(|why| format!(", and its registry does not give it: {why}")).unwrap_or_default();
        format!(
            "no such image in the store{why}{near}\nan image can be brought in with `rbuild load -i IMAGE.tar` (an \
             archive of docker save, podman save or skopeo copy) or `rbuild import ROOTFS.tar {name}`, too"
        )
    }
}

/// Why the store has no base of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoBase {
    /// No image has the name.
    Missing,
    /// One has it, for another platform.
    Platform(String),
    /// It cannot be read.
    Damaged(String),
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
