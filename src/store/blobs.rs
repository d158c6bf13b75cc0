//! Blobs by digest, in the `blobs/` directory of the OCI image layout (image-spec image-layout.md).

use super::temp::{self, Staged};
use super::{Store, StoreError};
use crate::digest::Digest;
use crate::fault;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The blobs of a store. A blob is there whole or not at all.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Store,
}

impl Blobs {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Gives where a blob is or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.store.path("images/blobs").join(digest.algorithm()).join(digest.encoded())
    }

    /// Says whether a blob is there; its bytes are not checked.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Opens a blob for reading; whoever reads it checks its digest to the end.
    pub fn open(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.path(digest);
        File::open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => StoreError::NoBlob(digest.clone()),
            _ => StoreError::io("open", &path)(e),
        })
    }

    /// Gives a blob's length in bytes.
    pub fn size(&self, digest: &Digest) -> Result<u64, StoreError> {
        let path = self.path(digest);
        self.open(digest)?.metadata().map(|m| m.len()).map_err(StoreError::io("look at", &path))
    }

    /// Gives the bytes of disk that a blob takes; 0 when it is not there.
    pub fn disk_size(&self, digest: &Digest) -> u64 {
        self.path(digest).symlink_metadata().map_or(0, |meta| meta.blocks() * 512)
    }

    /// Reads a whole blob of at most `limit` bytes and checks its digest (sha256 only).
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let rel = format!("images/blobs/{}/{}", digest.algorithm(), digest.encoded());
        let bytes = self.store.read(&rel, limit)?.ok_or_else(|| StoreError::NoBlob(digest.clone()))?;
        let found = Digest::sha256_of(&bytes);
        if digest.algorithm() == "sha256" && found != *digest {
            return Err(StoreError::Digest { expected: digest.clone(), found });
        }
        Ok(bytes)
    }

    /// Keeps bytes as a blob.
    pub fn put(&self, bytes: &[u8], durable: bool) -> Result<Digest, StoreError> {
        let digest = Digest::sha256_of(bytes);
        if self.size(&digest).is_ok_and(|size| size == bytes.len() as u64) && !durable {
            return Ok(digest);
        }
        self.store.write_atomic(&format!("images/blobs/sha256/{}", digest.encoded()), bytes, durable)?;
        Ok(digest)
    }

    /// Begins a blob whose bytes come one after the other.
    pub fn writer(&self) -> Result<BlobWriter, StoreError> {
        let (file, staged) = temp::stage_file(&self.store.path("tmp"))?;
        Ok(BlobWriter { blobs: self.clone(), file, staged, sum: Sha256::new(), size: 0 })
    }

    /// Makes a file of `tmp/` a blob; the caller has checked that its bytes have the digest.
    pub(crate) fn adopt(&self, file: &Path, digest: &Digest) -> Result<(), StoreError> {
        let target = self.path(digest);
        let synced = File::open(file).and_then(|file| file.sync_all());
        synced.and_then(|()| std::fs::rename(file, &target)).map_err(StoreError::io("write", &target))?;
        fault::point("store.blob.adopted");
        if let Some(dir) = target.parent() {
            temp::sync_dir(dir)?;
        }
        Ok(())
    }

    /// Removes a blob; absence is fine.
    pub fn remove(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.path(digest);
        fault::point("store.blob.before_remove");
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(StoreError::io("remove", &path)(e)),
            _ => {}
        }
        fault::point("store.blob.removed");
        Ok(())
    }

    /// Computes the digest of a blob's bytes.
    pub fn digest_of(&self, digest: &Digest) -> Result<Digest, StoreError> {
        let path = self.path(digest);
        let (mut file, mut sum) = (self.open(digest)?, Sha256::new());
        let mut buffer = vec![0; 128 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(Digest::from_sha256(sum.finalize().into())),
                Ok(n) => sum.update(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(StoreError::io("read", &path)(e)),
            }
        }
    }

    /// Lists all sha256 blobs, in no order.
    pub fn list(&self) -> Result<Vec<Digest>, StoreError> {
        let dir = self.store.path("images/blobs/sha256");
        let names = std::fs::read_dir(&dir).map_err(StoreError::io("list", &dir))?;
        let digest = |name: std::ffi::OsString| format!("sha256:{}", name.to_str()?).parse().ok();
        Ok(names.flatten().filter_map(|entry| digest(entry.file_name())).collect())
    }
}

/// A blob in the making; dropped without [`BlobWriter::finish`] it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    blobs: Blobs,
    file: File,
    staged: Staged,
    sum: Sha256,
    size: u64,
}

impl BlobWriter {
    /// Checks the bytes against what the caller expects, makes them durable and gives them their name.
    ///
    /// # Errors
    /// Digest or size differ from `expected`: nothing is kept.
    pub fn finish(self, expected: Option<(&Digest, u64)>) -> Result<Digest, StoreError> {
        self.finish_with(expected, true)
    }

    /// As [`BlobWriter::finish`]; without `durable` a power cut may lose the blob.
    pub fn finish_with(self, expected: Option<(&Digest, u64)>, durable: bool) -> Result<Digest, StoreError> {
        let digest = Digest::from_sha256(self.sum.finalize().into());
        if let Some((want, size)) = expected {
            if self.size != size {
                return Err(StoreError::Size { digest: want.clone(), expected: size, found: self.size });
            }
            if *want != digest {
                return Err(StoreError::Digest { expected: want.clone(), found: digest });
            }
        }
        fault::point("store.blob.checked");
        if durable {
            self.file.sync_all().map_err(StoreError::io("write", self.staged.path()))?;
            fault::point("store.blob.synced");
        }
        self.staged.publish(&self.blobs.path(&digest), durable)?;
        Ok(digest)
    }

    /// Gives a second handle on the file, for reading at positions what has been written.
    pub fn share(&self) -> Result<File, StoreError> {
        self.file.try_clone().map_err(StoreError::io("open", self.staged.path()))
    }

    /// Gives the number of bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buf)?;
        self.sum.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
