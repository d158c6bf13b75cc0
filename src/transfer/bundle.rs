//! Images for several platforms under one name: drafts of indexes, kept in the store until they are pushed.
//!
//! A draft points at manifests in registries, as docker's does; a push brings those that the index's own repository does
//! not have over, blob by blob, and then the index.

use super::choose::list;
use super::error::TransferError;
use crate::digest::Digest;
use crate::image::{CONFIG_LIMIT, Document, parse_config, parse_document};
use crate::oci::{Descriptor, Index, Manifest, media_type};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Client, MANIFEST_LIMIT, Resolved};
use crate::store::Store;
use serde::{Deserialize, Serialize};
use std::io::{self, Read};

/// One image of a draft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The name that it was added by.
    pub source: Reference,
    /// Points at its manifest, with its platform.
    pub descriptor: Descriptor,
}

/// An index that is being put together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// What it will be called.
    pub name: Reference,
    /// In the order in which they were added.
    pub members: Vec<Member>,
}

impl Bundle {
    /// Begins an empty one.
    pub fn new(name: &Reference) -> Self {
        Self { name: name.clone(), members: Vec::new() }
    }

    /// Reads a draft; `None` when there is none.
    ///
    /// # Errors
    /// It is damaged, or the store fails.
    pub fn load(store: &Store, name: &Reference) -> Result<Option<Self>, TransferError> {
        let Some(bytes) = store.read(&path(name), MANIFEST_LIMIT)? else { return Ok(None) };
        let bad = |e: serde_json::Error| TransferError::NoImage {
            name: name.familiar(),
            why: format!("its draft in the store is damaged ({e}); remove it with `rbuild manifest rm`"),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(bad)
    }

    /// Keeps the draft.
    ///
    /// # Errors
    /// The store fails.
    pub fn save(&self, store: &Store) -> Result<(), TransferError> {
        let bytes = serde_json::to_vec(self).expect("plain data always prints");
        Ok(store.write_atomic(&path(&self.name), &bytes, true)?)
    }

    /// Removes a draft; says whether there was one.
    ///
    /// # Errors
    /// The store fails.
    pub fn remove(store: &Store, name: &Reference) -> Result<bool, TransferError> {
        let file = store.root().join(path(name));
        match std::fs::remove_file(&file) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(crate::store::StoreError::Io { action: "remove", path: file, source }.into()),
        }
    }

    /// Adds what a name means in its registry: one image, or all of an index. One for the same platform is replaced.
    ///
    /// # Errors
    /// There is none, or it is no image.
    pub fn add(&mut self, client: &Client, source: &Reference) -> Result<(), TransferError> {
        let found = client.resolve(source)?;
        let mut all = list(source, &found)?;
        if let [only] = &mut all[..]
            && only.platform.is_none()
        {
            only.platform = Some(platform(client, source, only, &found)?);
        }
        for descriptor in all {
            let same = |m: &Member| {
                m.descriptor.platform == descriptor.platform || m.descriptor.digest == descriptor.digest
            };
            self.members.retain(|m| !same(m));
            self.members.push(Member { source: source.clone(), descriptor });
        }
        Ok(())
    }

    /// Gives the index.
    pub fn index(&self) -> Index {
        let docker = |d: &Descriptor| d.media_type == media_type::DOCKER_MANIFEST;
        // registries that know Docker's types only take an index of them only
        let all_docker = !self.members.is_empty() && self.members.iter().all(|m| docker(&m.descriptor));
        let kind = if all_docker { media_type::DOCKER_INDEX } else { media_type::INDEX };
        Index {
            schema_version: 2,
            media_type: Some(kind.into()),
            manifests: self.members.iter().map(|m| m.descriptor.clone()).collect(),
            annotations: Default::default(),
        }
    }

    /// Brings the images and the index to the registry; gives the index's digest.
    ///
    /// # Errors
    /// It is empty, a part cannot be had or brought.
    pub fn push(&self, client: &Client) -> Result<Digest, TransferError> {
        if self.members.is_empty() {
            let why = "there is no image in it".into();
            return Err(TransferError::NoImage { name: self.name.familiar(), why });
        }
        for member in &self.members {
            copy(client, &member.source, &member.descriptor, &self.name)?;
        }
        let index = self.index();
        let bytes = serde_json::to_vec(&index).expect("plain data always prints");
        let descriptor = Descriptor {
            media_type: index.media_type.unwrap_or_default(),
            digest: Digest::sha256_of(&bytes),
            size: bytes.len() as u64,
            annotations: Default::default(),
            platform: None,
        };
        client.put_manifest(&self.name, &descriptor, &bytes)?;
        Ok(descriptor.digest)
    }
}

/// Names are hashed on disk.
fn path(name: &Reference) -> String {
    format!("manifests/{}.json", Digest::sha256_of(name.to_string().as_bytes()).encoded())
}

/// Reads the platform of an image that stands alone out of its config.
fn platform(
    client: &Client,
    source: &Reference,
    descriptor: &Descriptor,
    found: &Resolved,
) -> Result<Platform, TransferError> {
    let manifest = manifest(source, descriptor, &found.bytes)?;
    let config = client.blob_bytes(source, &manifest.config, CONFIG_LIMIT)?;
    let config = parse_config(&config);
    let config = config.map_err(|e| TransferError::Document { name: source.familiar(), source: e })?;
    Ok(Platform { os: config.os, architecture: config.architecture, variant: config.variant })
}

fn manifest(source: &Reference, descriptor: &Descriptor, bytes: &[u8]) -> Result<Manifest, TransferError> {
    let document = parse_document(bytes, &descriptor.media_type);
    match document.map_err(|e| TransferError::Document { name: source.familiar(), source: e })? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => {
            let why = "an index in an index is not brought over".into();
            Err(TransferError::NoImage { name: source.familiar(), why })
        }
    }
}

/// Brings one image from a repository into another, which may be in another registry.
fn copy(
    client: &Client,
    source: &Reference,
    descriptor: &Descriptor,
    target: &Reference,
) -> Result<(), TransferError> {
    let there = target.with_digest(&descriptor.digest);
    if client.head(&there)?.is_some() {
        return Ok(());
    }
    let found = client.manifest(source, descriptor)?;
    let manifest = manifest(source, descriptor, &found.bytes)?;
    let sibling = (source.registry() == target.registry()).then(|| source.repository());
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        let open = || -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(client.blob(source, blob).map_err(io::Error::other)?))
        };
        client.upload(target, blob, sibling, &open)?;
    }
    Ok(client.put_manifest(&there, &found.descriptor, &found.bytes)?)
}
