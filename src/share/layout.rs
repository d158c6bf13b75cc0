//! A cache in a directory: an OCI image layout, `type=local,dest=...` and `type=local,src=...`.
//!
//! ```text
//! DIR/oci-layout
//! DIR/index.json              one entry a tag
//! DIR/blobs/sha256/<hex>
//! ```
//!
//! Who writes holds the lock on the directory; files get their names by rename, so readers need none. What no entry
//! leads to any more is removed after a write, unless `reset=false`.

use super::document::{self, Document};
use super::inline;
use super::manifest::{self, Found};
use super::place::{CacheSource, CacheTarget, open};
use super::{ExportSpec, ShareError};
use crate::digest::Digest;
use crate::oci::{Descriptor, Index, Manifest, media_type};
use crate::snapshot::LayerProvider;
use crate::store::{Lock, LockKind};
use crate::sys::fsutil;
use serde_json::Value;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// How names of files on their way begin.
const STAGED: &str = ".rbuild-";

/// A directory with the tag or digest that is meant.
pub(super) struct Layout {
    pub(super) dir: PathBuf,
    pub(super) tag: String,
    pub(super) digest: Option<Digest>,
    _lock: Option<Lock>,
    staged: AtomicU64,
}

impl Layout {
    /// Means to read.
    pub(super) fn source(dir: &Path, tag: &str, digest: Option<Digest>) -> Self {
        let staged = AtomicU64::new(0);
        Self { dir: dir.to_owned(), tag: tag.to_owned(), digest, _lock: None, staged }
    }

    /// Makes the directory and locks it, to write.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn target(dir: &Path, tag: &str) -> Result<Self, ShareError> {
        let blobs = dir.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).map_err(ShareError::io("make the directory", &blobs))?;
        let opened = File::open(dir).map_err(ShareError::io("open", dir))?;
        let lock = Lock::on_waiting(opened, LockKind::Exclusive).map_err(ShareError::io("lock", dir))?;
        Ok(Self { _lock: Some(lock), ..Self::source(dir, tag, None) })
    }

    fn file(&self, rel: &str) -> io::Result<File> {
        // the directory itself may be a link of the user's
        let dir = self.dir.canonicalize()?;
        fsutil::open_regular(fsutil::open_dir(&dir)?.as_fd(), OsStr::new(rel))
    }

    fn read(&self, rel: &str, limit: u64) -> Result<Option<Vec<u8>>, ShareError> {
        let path = self.dir.join(rel);
        let file = match self.file(rel) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(ShareError::io("open", &path))?,
        };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(ShareError::io("read", &path))?;
        if bytes.len() as u64 > limit {
            return Err(ShareError::Wrong(format!("{} is longer than {limit} bytes", path.display())));
        }
        Ok(Some(bytes))
    }

    /// Reads a small blob and checks it.
    fn blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ShareError> {
        let lacks = || ShareError::Wrong(format!("the blob {digest} is missing"));
        let bytes = self.read(&blob_path(digest), limit)?.ok_or_else(lacks)?;
        let found = Digest::sha256_of(&bytes);
        if digest.algorithm() == "sha256" && found != *digest {
            return Err(ShareError::Wrong(format!("the blob {digest} has the digest {found}")));
        }
        Ok(bytes)
    }

    fn index(&self) -> Result<Option<Index>, ShareError> {
        let Some(bytes) = self.read("index.json", manifest::LIMIT)? else { return Ok(None) };
        let index = serde_json::from_slice(&bytes);
        index.map(Some).map_err(|e| ShareError::Wrong(format!("its index.json cannot be read: {e}")))
    }

    fn entry(&self) -> Result<Option<Descriptor>, ShareError> {
        let Some(index) = self.index()? else { return Ok(None) };
        let tagged = |d: &&Descriptor| d.annotations.get(REF_NAME) == Some(&self.tag);
        let found = match &self.digest {
            Some(digest) => {
                // one that no entry names any more may still be there
                let any = manifest::describe(media_type::MANIFEST, &[]);
                Some(Descriptor { digest: digest.clone(), ..any })
            }
            None => index.manifests.iter().find(tagged).cloned(),
        };
        Ok(found)
    }

    /// Writes a file whole or not at all.
    fn write(&self, rel: &str, from: &mut dyn Read) -> Result<(), ShareError> {
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        let staged = self.dir.join(format!("{STAGED}{}-{number}", std::process::id()));
        let target = self.dir.join(rel);
        let mut write = || {
            let mut file = File::create(&staged)?;
            io::copy(from, &mut file)?;
            file.flush()?;
            std::fs::rename(&staged, &target)
        };
        let written = write().map_err(ShareError::io("write", &target));
        if written.is_err() {
            let _ = std::fs::remove_file(&staged);
        }
        written
    }

    /// Removes blobs that no entry leads to, and what was on its way when a writer was killed.
    fn sweep(&self) -> Result<(), ShareError> {
        let mut needed = HashSet::new();
        for entry in or_empty(self.index()?).manifests {
            needed.insert(entry.digest.clone());
            let Ok(bytes) = self.blob(&entry.digest, manifest::LIMIT) else { continue };
            let Ok(value) = serde_json::from_slice::<Value>(&bytes) else { continue };
            collect(&value, &mut needed);
        }
        let blobs = self.dir.join("blobs/sha256");
        let list = |dir: &Path| std::fs::read_dir(dir).map_err(ShareError::io("list", dir));
        for file in list(&blobs)?.flatten() {
            let digest = file.file_name().to_str().and_then(|name| format!("sha256:{name}").parse().ok());
            if digest.is_none_or(|digest: Digest| !needed.contains(&digest)) {
                // the next write tries again
                let _ = std::fs::remove_file(file.path());
            }
        }
        for file in list(&self.dir)?.flatten() {
            if file.file_name().to_string_lossy().starts_with(STAGED) {
                let _ = std::fs::remove_file(file.path());
            }
        }
        Ok(())
    }
}

fn or_empty(index: Option<Index>) -> Index {
    index.unwrap_or_else(|| Index {
        schema_version: 2,
        media_type: Some(media_type::INDEX.to_owned()),
        manifests: Vec::new(),
        annotations: Default::default(),
    })
}

/// Finds the digests of all descriptors in a manifest or index.
fn collect(value: &Value, into: &mut HashSet<Digest>) {
    match value {
        Value::Object(fields) => {
            let digest = fields.get("digest").and_then(Value::as_str).and_then(|text| text.parse().ok());
            into.extend(digest);
            fields.values().for_each(|field| collect(field, into));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
        _ => {}
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.encoded())
}

impl LayerProvider for Layout {
    fn open(&self, _place: &str, blob: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.file(&blob_path(&blob.digest))?))
    }
}

impl CacheSource for Layout {
    fn name(&self) -> String {
        self.dir.display().to_string()
    }

    fn place(&self) -> String {
        self.dir.display().to_string()
    }

    fn lasts(&self) -> bool {
        false
    }

    fn document(&self) -> Result<Option<Document>, ShareError> {
        let Some(entry) = self.entry()? else { return Ok(None) };
        let bytes = self.blob(&entry.digest, manifest::LIMIT)?;
        match manifest::read(&bytes)? {
            Found::Cache(config) => Document::parse(&self.blob(&config.digest, document::LIMIT)?).map(Some),
            // an image that carries its record, copied here by another tool
            Found::Other => {
                let Ok(image) = serde_json::from_slice::<Manifest>(&bytes) else { return Ok(None) };
                inline::document(&image, &self.blob(&image.config.digest, document::LIMIT)?)
            }
        }
    }
}

impl CacheTarget for Layout {
    fn has(&self, blob: &Descriptor) -> Result<bool, ShareError> {
        let length =
            self.file(&blob_path(&blob.digest)).and_then(|file| file.metadata()).map(|meta| meta.len());
        Ok(length.is_ok_and(|length| length == blob.size))
    }

    fn put(&self, blob: &Descriptor, file: &Path) -> Result<(), ShareError> {
        self.write(&blob_path(&blob.digest), &mut open(file)?)
    }

    fn publish(&self, document: &Document, spec: &ExportSpec) -> Result<(), ShareError> {
        let written = manifest::write(document, spec);
        for (descriptor, bytes) in
            [(&written.config, &written.document), (&written.descriptor, &written.manifest)]
        {
            self.write(&blob_path(&descriptor.digest), &mut bytes.as_slice())?;
        }
        // a damaged list is replaced: it is a cache
        let mut index = or_empty(self.index().ok().flatten());
        index.manifests.retain(|entry| entry.annotations.get(REF_NAME) != Some(&self.tag));
        let mut entry = written.descriptor;
        entry.annotations.insert(REF_NAME.to_owned(), self.tag.clone());
        index.manifests.push(entry);
        self.write("oci-layout", &mut br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice())?;
        let bytes = serde_json::to_vec(&index).expect("plain data always prints");
        self.write("index.json", &mut bytes.as_slice())?;
        if spec.reset {
            self.sweep()?;
        }
        Ok(())
    }
}
