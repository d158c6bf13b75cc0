//! What takes how much disk, so that the parts add up to what `du` says of the whole store.

use super::mounts::names;
use super::stock::{Item, closure};
use super::{Collector, GcError};
use crate::digest::{ImageId, ResultId};
use crate::image::Image;
use crate::store::StoreError;
use crate::sys::usage::measure;
use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;

/// Number, use and bytes of one kind of thing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// How many there are.
    pub total: usize,
    /// How many of them are used now.
    pub active: usize,
    /// Bytes of disk of all of them.
    pub bytes: u64,
    /// Bytes that could be free.
    pub reclaimable: u64,
}

/// An image's part.
#[derive(Debug, Clone)]
pub struct ImageUse {
    /// Which one.
    pub image: Image,
    /// Bytes that other images use, too.
    pub shared: u64,
    /// Bytes that no other image uses.
    pub unique: u64,
    /// How many containers run it.
    pub containers: usize,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUse {
    /// Its name.
    pub name: String,
    /// Bytes of disk.
    pub bytes: u64,
    /// How many containers have it.
    pub links: usize,
}

/// What the measuring must know of a container.
#[derive(Debug, Clone, Default)]
pub struct ContainerUse {
    /// The name of its directory.
    pub id: String,
    /// Its image, where that can be told.
    pub image: Option<ImageId>,
    /// Whether it runs.
    pub runs: bool,
    /// The names of its volumes.
    pub volumes: Vec<String>,
}

/// One result of a step or one cache mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheUse {
    /// Result id, or the name of a cache mount's directory.
    pub id: String,
    /// `regular` or `exec.cachemount`, as BuildKit says.
    pub kind: &'static str,
    /// The instruction, or the id of a cache mount.
    pub label: String,
    /// Bytes of disk; bodies that it shares with other results are in it.
    pub bytes: u64,
    /// Seconds since the epoch; absent for cache mounts.
    pub created: Option<i64>,
    /// Seconds since the epoch.
    pub last_used: i64,
    /// Whether an image needs it: then its bytes are the image's.
    pub shared: bool,
    /// Whether a build or container uses it now.
    pub in_use: bool,
}

/// What takes how much disk.
#[derive(Debug, Clone, Default)]
pub struct DiskUse {
    /// All images together.
    pub images: Sums,
    /// All containers; those that do not run can be removed.
    pub containers: Sums,
    /// All volumes; those that no container has can be removed.
    pub volumes: Sums,
    /// What builds left, and all else in the store.
    pub cache: Sums,
    /// Newest first.
    pub image_list: Vec<ImageUse>,
    /// By name.
    pub volume_list: Vec<VolumeUse>,
    /// The longest unused first.
    pub cache_list: Vec<CacheUse>,
}

/// A part of images that is counted once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Snapshot(ResultId),
    Inode(u64),
    Blob(String),
}

/// The parts of one image, with their bytes.
type Parts = HashMap<Part, u64>;

impl Collector {
    /// Measures the store with these containers.
    pub fn disk_use(&self, containers: &[ContainerUse]) -> Result<DiskUse, GcError> {
        let stock = self.stock()?;
        let items: HashMap<ResultId, &Item> = stock.items.iter().map(|item| (item.info.id, item)).collect();
        let infos: Vec<_> = stock.items.iter().map(|item| item.info.clone()).collect();
        let images = self.images.list()?.images;
        let mut parts: Vec<Parts> = Vec::with_capacity(images.len());
        for image in &images {
            let mut all = Parts::new();
            for (_, image) in self.images.members(image)? {
                all.extend(self.parts(&image, &closure(&infos, &[image.top()]), &items));
            }
            let target = &image.target().digest;
            all.insert(Part::Blob(target.to_string()), self.store.blobs().disk_size(target));
            parts.push(all);
        }
        let users = |image: &Image| {
            containers.iter().filter_map(|c| c.image.as_ref()).filter(|id| image.ids().contains(id)).count()
        };
        let mut out = DiskUse { image_list: image_list(&images, &parts, &users), ..DiskUse::default() };
        let total = self.bytes_of("")?;
        out.containers = self.containers(containers)?;
        (out.volumes, out.volume_list) = self.volumes(containers)?;
        let blobs = self.bytes_of("images")?;
        out.images = image_sums(&out.image_list, &parts, blobs);
        let others = out.images.bytes + out.containers.bytes + out.volumes.bytes;
        out.cache_list = self.cache_list(&stock.items)?;
        out.cache = Sums {
            total: out.cache_list.len(),
            active: out.cache_list.iter().filter(|c| c.in_use).count(),
            bytes: total.saturating_sub(others),
            reclaimable: self.reclaimable(&stock.items, &out.cache_list)?,
        };
        Ok(out)
    }

    /// Bytes below a directory of the store, or of all of it.
    fn bytes_of(&self, rel: &str) -> Result<u64, GcError> {
        let dir = self.store.root().join(rel);
        Ok(measure(&dir).map_err(StoreError::io("measure", &dir))?)
    }

    fn parts(&self, image: &Image, layers: &HashSet<ResultId>, items: &HashMap<ResultId, &Item>) -> Parts {
        let mut parts = Parts::new();
        for item in layers.iter().filter_map(|id| items.get(id)) {
            parts.insert(Part::Snapshot(item.info.id), item.usage.own);
            parts.extend(item.usage.shared.iter().map(|(inode, bytes)| (Part::Inode(*inode), *bytes)));
        }
        let documents = [&image.descriptor.digest, &image.id.0];
        for digest in documents.into_iter().chain(image.manifest.layers.iter().map(|layer| &layer.digest)) {
            parts.insert(Part::Blob(digest.to_string()), self.store.blobs().disk_size(digest));
        }
        parts
    }

    /// What containers have written, with what is kept about them.
    fn containers(&self, known: &[ContainerUse]) -> Result<Sums, GcError> {
        let (mut bytes, mut reclaimable) = (0u64, 0u64);
        for name in names(&self.store.root().join("containers"))? {
            // files beside the containers, such as that of the events, are "all else"
            let Some(container) = known.iter().find(|c| c.id == name) else { continue };
            let own = self.bytes_of(&format!("containers/{name}"))?;
            bytes = bytes.saturating_add(own);
            reclaimable = reclaimable.saturating_add(if container.runs { 0 } else { own });
        }
        for name in names(&self.store.root().join("tmp"))? {
            if name.starts_with("container-") || name.starts_with("volumes-") {
                bytes = bytes.saturating_add(self.bytes_of(&format!("tmp/{name}"))?);
            }
        }
        let active = known.iter().filter(|c| c.runs).count();
        Ok(Sums { total: known.len(), active, bytes, reclaimable })
    }

    fn volumes(&self, containers: &[ContainerUse]) -> Result<(Sums, Vec<VolumeUse>), GcError> {
        let mut list = Vec::new();
        for name in names(&self.store.root().join("volumes"))? {
            let bytes = self.bytes_of(&format!("volumes/{name}"))?;
            let links = containers.iter().filter(|c| c.volumes.contains(&name)).count();
            list.push(VolumeUse { name, bytes, links });
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        let sum = |free: bool| {
            let those = list.iter().filter(|volume| !free || volume.links == 0);
            those.fold(0, |sum, volume: &VolumeUse| volume.bytes.saturating_add(sum))
        };
        let active = list.iter().filter(|volume| volume.links > 0).count();
        let sums = Sums { total: list.len(), active, bytes: sum(false), reclaimable: sum(true) };
        Ok((sums, list))
    }

    fn cache_list(&self, items: &[Item]) -> Result<Vec<CacheUse>, GcError> {
        let mut list: Vec<CacheUse> = items
            .iter()
            .filter(|item| item.recorded || !item.needed)
            .map(|item| CacheUse {
                id: item.info.id.to_string(),
                kind: "regular",
                label: item.info.step.instruction.clone(),
                bytes: item.usage.total(),
                created: Some(item.info.created),
                last_used: item.last_used,
                shared: item.needed,
                in_use: self.snapshots.is_held(&item.info.id),
            })
            .collect();
        list.extend(self.mounts()?.into_iter().map(|mount| CacheUse {
            in_use: self.mount_is_held(&mount.name),
            id: mount.name,
            kind: "exec.cachemount",
            label: mount.id,
            bytes: mount.bytes,
            created: None,
            last_used: mount.last_used,
            shared: false,
        }));
        list.sort_by(|a, b| (a.last_used, &a.id).cmp(&(b.last_used, &b.id)));
        Ok(list)
    }

    /// What neither an image needs nor somebody uses, with what these stand on, and bodies that nothing links.
    fn reclaimable(&self, items: &[Item], list: &[CacheUse]) -> Result<u64, GcError> {
        let infos: Vec<_> = items.iter().map(|item| item.info.clone()).collect();
        let held: Vec<ResultId> =
            list.iter().filter(|c| c.in_use).filter_map(|c| c.id.parse().ok()).collect();
        let held = closure(&infos, &held);
        let stays = |item: &&Item| item.needed || held.contains(&item.info.id);
        let mut seen: HashSet<u64> =
            items.iter().filter(stays).flat_map(|i| i.usage.shared.iter().map(|(inode, _)| *inode)).collect();
        let mut sum = self.loose_bodies();
        for item in items.iter().filter(|item| !stays(item)) {
            let shared = item.usage.shared.iter().filter(|(inode, _)| seen.insert(*inode));
            sum =
                shared.fold(sum.saturating_add(item.usage.own), |sum, (_, bytes)| sum.saturating_add(*bytes));
        }
        let mounts = list.iter().filter(|c| c.kind == "exec.cachemount" && !c.in_use);
        Ok(mounts.fold(sum, |sum, mount| sum.saturating_add(mount.bytes)))
    }

    fn loose_bodies(&self) -> u64 {
        let list = |dir| std::fs::read_dir(dir).into_iter().flatten().flatten();
        let bodies = list(self.store.root().join("files")).flat_map(|fan| list(fan.path()));
        let alone = bodies.filter_map(|body| body.metadata().ok()).filter(|m| m.is_file() && m.nlink() == 1);
        alone.fold(0, |sum, meta| sum.saturating_add(meta.blocks() * 512))
    }
}

fn image_list(images: &[Image], parts: &[Parts], containers: &dyn Fn(&Image) -> usize) -> Vec<ImageUse> {
    let mut users: HashMap<&Part, usize> = HashMap::new();
    for part in parts.iter().flat_map(HashMap::keys) {
        *users.entry(part).or_default() += 1;
    }
    let row = |(image, parts): (&Image, &Parts)| {
        let (mut shared, mut unique) = (0u64, 0u64);
        for (part, bytes) in parts {
            let sum = if users.get(part) == Some(&1) { &mut unique } else { &mut shared };
            *sum = sum.saturating_add(*bytes);
        }
        ImageUse { image: image.clone(), shared, unique, containers: containers(image) }
    };
    images.iter().zip(parts).map(row).collect()
}

/// `blobs` are the bytes of the directory with all documents, of which each image has its part.
fn image_sums(list: &[ImageUse], parts: &[Parts], blobs: u64) -> Sums {
    let union = |wanted: &dyn Fn(&ImageUse) -> bool| -> Parts {
        let chosen = list.iter().zip(parts).filter(|(image, _)| wanted(image));
        chosen.flat_map(|(_, parts)| parts.clone()).collect()
    };
    let sum = |parts: &Parts| parts.values().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
    let all = union(&|_| true);
    let active = union(&|image| image.containers > 0);
    let documents = all.iter().filter(|(part, _)| matches!(part, Part::Blob(_)));
    let documents = documents.fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    Sums {
        total: list.len(),
        active: list.iter().filter(|image| image.containers > 0).count(),
        bytes: sum(&all).saturating_sub(documents).saturating_add(blobs),
        reclaimable: sum(&all).saturating_sub(sum(&active)),
    }
}
