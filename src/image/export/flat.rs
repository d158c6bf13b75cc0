//! The root file system of an image as one tar: all layers folded, owners kept. Of images for several platforms each
//! stands in a directory that is called after its platform.

use crate::image::layers::LayerFiles;
use crate::image::{Image, ImageError, Images, Merged, merge};
use crate::layer::write_tar;
use crate::tree::{Diff, Entry, Meta, Node, TreePath};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write};

/// The folded layers of an image and their files.
pub(super) struct Flat {
    layers: Vec<LayerFiles>,
    merged: Merged,
}

impl Flat {
    /// Opens a regular file by its path in the image.
    fn open(&self, path: &TreePath) -> io::Result<File> {
        let layer = self.merged.origin(path).ok_or(io::ErrorKind::NotFound)?;
        self.layers[layer].open(path)
    }
}

/// Which part each regular file comes from, and its path there.
type Places = HashMap<TreePath, (usize, TreePath)>;

/// What is written: the files of one image, or of several below each other.
pub(super) struct Flats {
    parts: Vec<Flat>,
    /// All of it, where several were joined.
    joined: Option<(Diff, Places)>,
}

impl Flats {
    /// Lists what is written.
    pub(super) fn diff(&self) -> &Diff {
        self.joined.as_ref().map_or(&self.parts[0].merged.diff, |(diff, _)| diff)
    }

    /// Opens a regular file by its path in what is written.
    pub(super) fn open(&self, path: &TreePath) -> io::Result<File> {
        match &self.joined {
            None => self.parts[0].open(path),
            Some((_, origin)) => {
                let (part, path) = origin.get(path).ok_or(io::ErrorKind::NotFound)?;
                self.parts[*part].open(path)
            }
        }
    }
}

impl Images {
    /// Folds the layers of an image, or of those for all platforms under its names.
    pub(super) fn flats(&self, image: &Image, split: Option<bool>) -> Result<Flats, ImageError> {
        let members = self.members(image)?;
        let parts: Vec<Flat> =
            members.iter().map(|(_, member)| self.flat(member)).collect::<Result<_, _>>()?;
        let split = split.unwrap_or(image.several.is_some());
        if let ([_], false) = (&parts[..], split) {
            return Ok(Flats { parts, joined: None });
        }
        let mut joined = Joined::default();
        for (number, ((entry, member), part)) in members.iter().zip(&parts).enumerate() {
            let platform = entry.platform.clone().unwrap_or_else(|| member.platform());
            let below = match split {
                true => TreePath::root().child(platform.to_string().replace('/', "_").as_bytes()),
                false => TreePath::root(),
            };
            joined.add(number, &part.merged.diff, &below, &platform.to_string())?;
        }
        let diff = joined.entries.into_values().collect();
        Ok(Flats { parts, joined: Some((diff, joined.origin)) })
    }

    fn flat(&self, image: &Image) -> Result<Flat, ImageError> {
        let chain = image.chain_ids();
        let layers: Vec<LayerFiles> = chain
            .iter()
            .map(|chain| self.layer_files(&crate::digest::ResultId::chain(chain)))
            .collect::<Result<_, _>>()?;
        let merged = merge(&[], &layers.iter().map(|l| &*l.diff).collect::<Vec<_>>());
        Ok(Flat { layers, merged })
    }
}

#[derive(Default)]
struct Joined {
    entries: BTreeMap<TreePath, Entry>,
    origin: Places,
}

impl Joined {
    /// Puts the files of one image below a directory. Directories may meet those of another image, nothing else may.
    fn add(&mut self, part: usize, diff: &Diff, below: &TreePath, platform: &str) -> Result<(), ImageError> {
        if !below.is_root() {
            let meta = Meta { mode: 0o755, ..Meta::default() };
            let dir = Entry { path: below.clone(), meta, node: Node::Dir { opaque: false } };
            self.entries.insert(below.clone(), dir);
        }
        for entry in diff.entries().filter(|entry| !entry.path.is_root()) {
            let path = below.join(&entry.path);
            let node = match &entry.node {
                Node::Hardlink { target } => Node::Hardlink { target: below.join(target) },
                other => other.clone(),
            };
            let is_dir = |node: &Node| matches!(node, Node::Dir { .. });
            match self.entries.get(&path) {
                Some(other) if is_dir(&other.node) && is_dir(&node) => continue,
                Some(_) => {
                    let why = format!(
                        "{path} of {platform} is in the image for another platform, too: leave platform-split=false out"
                    );
                    return Err(ImageError::Assemble(why));
                }
                None => {}
            }
            if matches!(node, Node::File { .. }) {
                self.origin.insert(path.clone(), (part, entry.path.clone()));
            }
            self.entries.insert(path.clone(), Entry { path, meta: entry.meta.clone(), node });
        }
        Ok(())
    }
}

/// Writes the files as one tar.
pub(super) fn write_flat(flats: Flats, epoch: Option<i64>, out: &mut dyn Write) -> Result<(), ImageError> {
    write_tar(flats.diff(), &|path| flats.open(path), epoch, out)?;
    out.flush().map_err(ImageError::write("the archive"))
}
