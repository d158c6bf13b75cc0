//! Images and their files on the way out.
//!
//! One pipeline: the layers that have to be compressed are compressed beside each other into the store's `tmp/`, since
//! a digest must be known before it can be written; all else is streamed from where it lies. What goes to a path is
//! staged beside it and renamed at the end. Each byte is checked against the digest that names it on its way.

mod flat;
pub(super) mod layout;
mod local;
pub(super) mod pack;
mod sink;
mod stage;

use super::{Image, ImageError, Images, Notes};
use crate::layer::Compression;
use crate::oci::Descriptor;
use crate::reference::Reference;
use crate::tree::TreePath;
use flat::write_flat;
use local::write_local;
use std::io::Write;
use std::path::Path;

/// The form in which an image or its files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// An OCI image layout (image-spec image-layout.md), as one tar or as a directory.
    Oci {
        /// One tar.
        archive: bool,
    },
    /// What `docker load` takes; also a valid OCI layout.
    Docker {
        /// One tar.
        archive: bool,
    },
    /// The root file system as one tar, owners kept.
    Tar,
    /// The root file system in a directory, owned by who runs rbuild.
    Local {
        /// Whether what the image does not have is removed from the directory.
        delete: bool,
    },
}

/// How an image is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExportOptions {
    /// For the layers that were built here; `None` is gzip.
    pub compression: Option<Compression>,
    /// Also for the layers that came with a blob.
    pub force_compression: bool,
    /// `rewrite-timestamp`: it only says what happens anyway, since layers are clamped to the epoch when they are made.
    pub rewrite_timestamp: bool,
    /// SOURCE_DATE_EPOCH: later times in `tar` and `local` are lowered to it.
    pub epoch: Option<i64>,
    /// Annotations of manifests, of the index and in it.
    pub notes: Notes,
    /// For `tar` and `local`: whether each platform has a directory of its own; `None` is when there are several.
    pub split: Option<bool>,
}

/// Where it goes.
pub enum Target<'a> {
    /// A stream; what was written before an error stays written.
    Stream(&'a mut (dyn Write + Send)),
    /// A file or directory, which is there whole or as it was before (a directory that exists is filled in place).
    Path(&'a Path),
}

/// What an export wrote and left out.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Devices and attributes that the user may not make, for `local`.
    pub skipped: Vec<TreePath>,
    /// The manifest of each image as it was written; none for `tar` and `local`.
    pub manifests: Vec<Descriptor>,
}

impl Images {
    /// Writes images, each with the names that it shall have there.
    ///
    /// `Tar` and `Local` take exactly one image; of one for several platforms each is written into a directory of its own.
    /// `Docker` names the one for this machine, and has the others as an OCI layout has them.
    ///
    /// # Errors
    /// A layer is missing or damaged, or the target cannot be written; see [`Target`] for what is there then.
    pub fn export(
        &self,
        images: &[(Image, Vec<Reference>)],
        format: ExportFormat,
        options: &ExportOptions,
        target: Target<'_>,
    ) -> Result<Exported, ImageError> {
        let _held = self.hold_blobs()?;
        match (format, target) {
            (
                ExportFormat::Oci { archive: false } | ExportFormat::Docker { archive: false },
                Target::Path(dir),
            ) => {
                let packed = self.pack(images, options)?;
                let docker = matches!(format, ExportFormat::Docker { .. });
                let mut manifests = Vec::new();
                sink::to_directory(dir, |sink| {
                    manifests = self.write_layout(&packed, docker, options, sink)?;
                    Ok(())
                })?;
                Ok(Exported { manifests, ..Exported::default() })
            }
            (ExportFormat::Oci { .. } | ExportFormat::Docker { .. }, target) => {
                let packed = self.pack(images, options)?;
                let docker = matches!(format, ExportFormat::Docker { .. });
                let mut manifests = Vec::new();
                stage::to_target(target, |out| {
                    let mut sink = sink::TarSink::new(out);
                    manifests = self.write_layout(&packed, docker, options, &mut sink)?;
                    sink.finish()
                })?;
                Ok(Exported { manifests, ..Exported::default() })
            }
            (ExportFormat::Tar, target) => {
                let parts = self.flats(one(images)?, options.split)?;
                stage::to_target(target, |out| write_flat(parts, options.epoch, out))?;
                Ok(Exported::default())
            }
            (ExportFormat::Local { delete }, Target::Path(dir)) => {
                let parts = self.flats(one(images)?, options.split)?;
                write_local(&parts, dir, delete, options.epoch)
            }
            (ExportFormat::Local { .. }, Target::Stream(_)) => {
                Err(ImageError::Assemble("type=local writes a directory, not a stream".into()))
            }
        }
    }
}

fn one(images: &[(Image, Vec<Reference>)]) -> Result<&Image, ImageError> {
    match images {
        [(image, _)] => Ok(image),
        _ => Err(ImageError::Assemble(format!("one image can be written this way, not {}", images.len()))),
    }
}
