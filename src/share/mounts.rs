//! Cache mounts that travel: `mounts/<name>/data` as a layer, and back.
//!
//! They are no input of any step, so nothing proves that one is right but the digests of its blob: a mount is what the
//! machine before left, as it would be on that machine.

use super::ShareError;
use super::document::{LayerEntry, MountEntry};
use super::pack::pack;
use crate::digest::Digest;
use crate::layer::{self, Compression, ScanOptions, UnpackOptions, unpack_blob};
use crate::snapshot::LayerProvider;
use crate::store::{LockKind, Store};
use crate::sys::fsutil;
use crate::tree::TreePath;
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// Longest id of a mount that is taken along, in bytes.
const MAX_ID: u64 = 4096;

/// Writes the layer of a mount; `None` when it is not here or a step uses it now.
///
/// # Errors
/// It cannot be read.
pub(super) fn pack_mount(
    name: &str,
    store: &Store,
    how: Compression,
    into: &Path,
) -> Result<Option<MountEntry>, ShareError> {
    let dir = store.root().join("mounts").join(name);
    let data = dir.join("data");
    if !data.is_dir() {
        return Ok(None);
    }
    let Some(_lock) = store.try_lock(&format!("mount-{name}"), LockKind::Exclusive)? else { return Ok(None) };
    let diff = layer::scan(&data, &ScanOptions { userxattr: false, skip: &HashSet::new() })?;
    let root = fsutil::open_dir(&data).map_err(ShareError::io("open", &data))?;
    let open = |path: &TreePath| fsutil::open_regular(root.as_fd(), path.as_os_str());
    let layer = pack(&diff, &open, how, into)?;
    let id = store.read(&format!("mounts/{name}/name"), MAX_ID)?.unwrap_or_default();
    Ok(Some(MountEntry { name: name.to_owned(), id: String::from_utf8_lossy(&id).into_owned(), layer }))
}

/// Fills an empty directory with a mount's files.
///
/// # Errors
/// The blob cannot be had or is not what the entry says.
pub(super) fn unpack_mount(
    layer: &LayerEntry,
    place: &str,
    provider: &dyn LayerProvider,
    store: &Store,
    into: &Path,
) -> io::Result<()> {
    let dir = store.temp_dir("mount").map_err(io::Error::other)?;
    let mut file = File::options().read(true).write(true).create_new(true).open(dir.path().join("blob"))?;
    let bytes = provider.open(place, &layer.blob)?.take(layer.blob.size + 1);
    let (found, size) = copy(bytes, &mut file)?;
    if size != layer.blob.size || found != layer.blob.digest {
        let expected = &layer.blob.digest;
        return Err(io::Error::other(format!("{expected} has {size} bytes and the digest {found}")));
    }
    file.rewind()?;
    let options =
        UnpackOptions { chown_ok: fsutil::can_chown(), plain_names: true, ..UnpackOptions::default() };
    let unpacked = unpack_blob(Box::new(file), into, &options).map_err(io::Error::other)?;
    if unpacked.diff_id != layer.diff_id {
        let (expected, found) = (&layer.diff_id, unpacked.diff_id);
        return Err(io::Error::other(format!("its diff ID is {found}, announced was {expected}")));
    }
    Ok(())
}

fn copy(mut from: impl Read, to: &mut File) -> io::Result<(Digest, u64)> {
    let (mut sum, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 128 << 10]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((Digest::from_sha256(sum.finalize().into()), size)),
            Ok(n) => {
                sum.update(&buffer[..n]);
                to.write_all(&buffer[..n])?;
                size += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
