//! `rmi`: names go, and with the last name the image.
//!
//! Only documents and blobs that no other image uses are removed. Snapshots stay: they are the build's cache too, and
//! the garbage collector takes those that nobody needs.

use super::index::{name_of, unput};
use super::{BLOB_LOCK, Image, ImageError, Images};
use crate::digest::{Digest, ImageId};
use crate::fault;
use crate::oci::Descriptor;
use crate::reference::Reference;
use crate::store::LockKind;
use std::collections::HashSet;

/// One thing that a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(Reference),
    /// An image is gone.
    Deleted(ImageId),
}

/// Who uses an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUser {
    /// A text for people.
    pub name: String,
    /// It runs, so that the image must stay.
    pub runs: bool,
}

impl Images {
    /// Removes a name, and the image when it was its last, or an image by ID with all its names.
    ///
    /// `in_use` says what uses an image. With `force` several names go at once and a stopped user is no obstacle; a
    /// running one keeps the image, which then loses just the name.
    ///
    /// # Errors
    /// No such image; several names and no `force`; in use.
    pub fn remove(
        &self,
        text: &str,
        force: bool,
        in_use: &dyn Fn(&ImageId) -> Option<ImageUser>,
    ) -> Result<Vec<Removed>, ImageError> {
        let named = self.find_name(&self.entries()?, text).is_some();
        if named && text.parse::<Reference>().is_ok_and(|r| r.digest().is_none()) {
            return self.remove_name(text, force, in_use);
        }
        let image = self.resolve(text)?;
        if image.several.is_none() && !self.entries()?.iter().any(|e| e.digest == image.descriptor.digest) {
            let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
            let whole = if names.is_empty() { "an image".to_owned() } else { names.join(", ") };
            let why = format!("it is one of several in {whole}, which can be removed as a whole");
            return Err(ImageError::InUse { image: text.to_owned(), why });
        }
        if image.names.len() > 1 && !force {
            let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
            let why = format!("it has several names ({}): remove them, or use --force", names.join(", "));
            return Err(ImageError::InUse { image: text.to_owned(), why });
        }
        if let Some(user) = image.ids().iter().find_map(in_use).filter(|user| user.runs && force) {
            let why = format!("{} uses it: stop that first, --force does not help", user.name);
            return Err(ImageError::InUse { image: text.to_owned(), why });
        }
        self.check_free(text, image.ids(), force, in_use)?;
        self.delete(&image)
    }

    fn remove_name(
        &self,
        text: &str,
        force: bool,
        in_use: &dyn Fn(&ImageId) -> Option<ImageUser>,
    ) -> Result<Vec<Removed>, ImageError> {
        let name: Reference = text.parse()?;
        match self.resolve(text) {
            Ok(image) if image.names.len() == 1 => {
                self.check_free(text, image.ids(), force, in_use)?;
                if image.ids().iter().find_map(in_use).is_some_and(|user| user.runs) {
                    self.change_entries(|entries| Ok(unput(entries, &name, true)))?;
                    return Ok(vec![Removed::Untagged(name)]);
                }
                self.delete(&image)
            }
            // A damaged image can lose its name, too.
            Ok(_) | Err(_) => {
                self.change_entries(|entries| Ok(unput(entries, &name, false)))?;
                Ok(vec![Removed::Untagged(name)])
            }
        }
    }

    fn check_free(
        &self,
        text: &str,
        ids: &[ImageId],
        force: bool,
        in_use: &dyn Fn(&ImageId) -> Option<ImageUser>,
    ) -> Result<(), ImageError> {
        match ids.iter().find_map(in_use) {
            Some(user) if !force => {
                let user = user.name;
                let why = format!("{user} uses it: remove that, or use --force");
                Err(ImageError::InUse { image: text.to_owned(), why })
            }
            _ => Ok(()),
        }
    }

    /// Removes all images that `unused` agrees to, which is asked once more when nobody can give the image a name.
    pub fn prune(&self, unused: &dyn Fn(&Image) -> bool) -> Result<Vec<Removed>, ImageError> {
        let mut removed = Vec::new();
        for image in self.list()?.images {
            if unused(&image) {
                removed.extend(self.delete_if(&image, unused)?);
            }
        }
        Ok(removed)
    }

    fn delete(&self, image: &Image) -> Result<Vec<Removed>, ImageError> {
        self.delete_if(image, &|_| true)
    }

    fn delete_if(&self, image: &Image, agreed: &dyn Fn(&Image) -> bool) -> Result<Vec<Removed>, ImageError> {
        let mut removed = Vec::new();
        let mut deleted = None;
        self.change_entries(|entries| {
            let Some(entry) = entries.iter().find(|e| e.digest == image.target().digest) else {
                return Ok(());
            };
            if !agreed(&self.read_image(entry, entries)?) {
                return Ok(());
            }
            deleted = Some(self.needs(entry)?.blobs);
            let ours = |e: &Descriptor| e.digest == image.target().digest;
            removed.extend(entries.iter().filter(|e| ours(e)).filter_map(name_of).map(Removed::Untagged));
            entries.retain(|e| !ours(e));
            Ok(())
        })?;
        if let Some(blobs) = deleted {
            // the list is on disk without it: a crash from here on leaves blobs too many, never an image too few
            fault::point("image.unlisted");
            self.sweep(blobs)?;
            fault::point("image.swept");
            removed.extend(image.ids().iter().cloned().map(Removed::Deleted));
        }
        Ok(removed)
    }

    /// Removes the blobs that no image names, as a crash or a removal beside other work leaves them. Gives how many
    /// bytes of disk that freed; nothing while somebody works with blobs, or when an image is damaged, since what that
    /// needs cannot be known.
    pub fn prune_blobs(&self) -> Result<u64, ImageError> {
        let Some(_alone) = self.store.try_lock(BLOB_LOCK, LockKind::Exclusive)? else { return Ok(0) };
        if self.any_damaged()? {
            return Ok(0);
        }
        let used: HashSet<Digest> = self.roots()?.1.into_iter().collect();
        let mut freed = 0u64;
        for digest in self.store.blobs().list()?.into_iter().filter(|d| !used.contains(d)) {
            let bytes = self.store.blobs().disk_size(&digest);
            self.store.blobs().remove(&digest)?;
            freed = freed.saturating_add(bytes);
        }
        Ok(freed)
    }

    /// Removes the blobs of an image that is listed no more. While somebody else uses blobs that no name points to
    /// yet, they stay for the garbage collector.
    fn sweep(&self, blobs: Vec<Digest>) -> Result<(), ImageError> {
        let Some(_alone) = self.store.try_lock(BLOB_LOCK, LockKind::Exclusive)? else { return Ok(()) };
        let mut used: HashSet<Digest> = HashSet::new();
        for entry in &self.entries()? {
            // What a damaged image needs cannot be known, so nothing is removed.
            let Ok(needs) = self.needs(entry) else { return Ok(()) };
            used.extend(needs.blobs);
        }
        for digest in blobs.into_iter().filter(|d| !used.contains(d)) {
            self.store.blobs().remove(&digest)?;
        }
        Ok(())
    }
}
