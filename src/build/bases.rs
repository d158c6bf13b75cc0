//! Base images for the planner: those of the store, and of registries when the store has none.
//!
//! From a registry come config and manifest only. The image gets its name in the store, so that the next build need not
//! ask again; its layers come when a step must run on them.

use crate::digest::Digest;
use crate::image::{CONFIG_LIMIT, Image, Images, NoBase};
use crate::plan::{BaseImage, BaseImageError, BaseImages};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Client, Flags, Settings};
use crate::share;
use crate::transfer;
use std::cell::OnceCell;

/// When registries are asked for base images (`--pull`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Even when the store has an image of the name.
    Always,
    /// When it has none.
    #[default]
    Missing,
    /// Not at all.
    Never,
}

/// Finds bases.
pub(super) struct Bases<'a> {
    images: &'a Images,
    policy: PullPolicy,
    flags: &'a Flags,
    client: OnceCell<Client>,
}

impl<'a> Bases<'a> {
    /// Looks into the given images first, or last.
    pub(super) fn new(images: &'a Images, policy: PullPolicy, flags: &'a Flags) -> Self {
        Self { images, policy, flags, client: OnceCell::new() }
    }

    fn client(&self) -> Result<&Client, String> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::new(Settings::with_flags(self.flags).map_err(|e| e.to_string())?);
        Ok(self.client.get_or_init(|| client))
    }

    fn remote(&self, name: &Reference, platform: &Platform) -> Result<Image, String> {
        fetch_documents(self.client()?, name, platform, self.images)
    }
}

impl BaseImages for Bases<'_> {
    fn resolve(&self, name: &str, platform: Option<&Platform>) -> Result<BaseImage, BaseImageError> {
        let fail = |why: String| BaseImageError { name: name.to_owned(), why };
        let base = |image: Image| BaseImage { image: image.id, config: image.config };
        let wanted = platform.cloned().unwrap_or_else(Platform::host);
        // an image ID is no name that a registry could know
        let remote = name.parse::<Reference>().ok().filter(|_| name.parse::<Digest>().is_err());
        let here = match (self.policy, &remote) {
            (PullPolicy::Always, Some(_)) => Err(NoBase::Missing),
            _ => self.images.find_base(name, platform),
        };
        match (here, remote) {
            (Ok(image), _) => Ok(base(image)),
            (Err(NoBase::Damaged(why)), _) => Err(fail(why)),
            (Err(NoBase::Missing), Some(remote)) if self.policy != PullPolicy::Never => {
                let pulled = self.remote(&remote, &wanted);
                pulled.map(base).map_err(|why| fail(self.words(name, &why)))
            }
            // the image of that name that is here may be the user's own
            (Err(NoBase::Platform(why)), Some(remote)) if self.policy != PullPolicy::Never => {
                self.remote(&remote, &wanted).map(base).map_err(|_| fail(why))
            }
            (Err(NoBase::Platform(why)), _) => Err(fail(why)),
            (Err(NoBase::Missing), _) => Err(fail(self.images.missing_base(name, None))),
        }
    }
}

impl Bases<'_> {
    fn words(&self, name: &str, why: &str) -> String {
        match self.policy {
            PullPolicy::Always => format!("its registry does not give it: {why}"),
            _ => self.images.missing_base(name, Some(why)),
        }
    }
}

/// Gets the documents of an image of a registry for a platform, and keeps it in the store under its name.
///
/// # Errors
/// The text of what went wrong, in one line.
pub fn fetch_documents(
    client: &Client,
    name: &Reference,
    platform: &Platform,
    images: &Images,
) -> Result<Image, String> {
    let found = client.resolve(name).map_err(|e| e.to_string())?;
    let chosen = transfer::choose(client, name, found, platform).map_err(|e| e.to_string())?;
    let config = client.blob_bytes(name, &chosen.manifest.config, CONFIG_LIMIT).map_err(|e| e.to_string())?;
    let kept = match name.digest() {
        Some(digest) => name.with_digest(digest),
        None => name.clone(),
    };
    let documents = (&chosen.descriptor, &chosen.bytes[..]);
    let place = share::place_of(name);
    images.adopt(documents, &config, &place, &kept).map_err(|e| e.to_string())
}
