//! `--squash`: everything above the base as one layer.
//!
//! The steps and their cache are what they are without it. Their diffs are folded ([`super::merge()`]), the tar of the
//! result is streamed into a snapshot of its own on top of the base, and the image lists that. `FROM` of the squashed image
//! then finds its one layer like any other. Squashing the same results again finds the snapshot and moves no byte.

use super::assemble::NewLayer;
use super::{Image, ImageError, Images, merge};
use crate::digest::{ChainId, ResultId};
use crate::layer::{self, write_tar};
use crate::oci::History;
use crate::plan::BaseImage;
use crate::tree::{Diff, TreePath};
use std::fs::File;
use std::io;

impl Images {
    /// Folds results above a base into one layer; `None` when they changed nothing together.
    pub(super) fn squash(
        &self,
        base: Option<&Image>,
        results: &[ResultId],
        epoch: Option<i64>,
    ) -> Result<Option<NewLayer>, ImageError> {
        let above: Vec<_> = results.iter().map(|r| self.layer_files(r)).collect::<Result<_, _>>()?;
        let below = base.map_or_else(Vec::new, Image::chain_ids);
        let below: Vec<_> =
            below.iter().map(|c| self.snapshots.diff(&ResultId::chain(c))).collect::<Result<_, _>>()?;
        let below: Vec<&Diff> = below.iter().map(|d| &**d).collect();
        let merged = merge(&below, &above.iter().map(|f| &*f.diff).collect::<Vec<_>>());
        if merged.diff.is_empty() {
            return Ok(None);
        }
        let open = |path: &TreePath| -> io::Result<File> {
            let layer = merged.origin(path).ok_or(io::ErrorKind::NotFound)?;
            above[layer].open(path)
        };
        let (diff_id, tar_size) = layer::diff_id(&merged.diff, &open, epoch)?;
        let parent = base.and_then(|b| b.chain_ids().pop());
        let chain = ChainId::push(parent.as_ref(), &diff_id);
        let result = ResultId::chain(&chain);
        if !self.snapshots.has(&result) {
            let parent = parent.as_ref().map_or_else(ResultId::scratch, ResultId::chain);
            let (read, mut write) = io::pipe().map_err(ImageError::write("a pipe"))?;
            std::thread::scope(|scope| {
                let (diff, open) = (&merged.diff, &open);
                // Ends with a broken pipe when the reader gives up; the reader's error is the one to tell.
                scope.spawn(move || write_tar(diff, open, epoch, &mut write));
                self.snapshots.apply_layer(&parent, &chain, &diff_id, None, Box::new(read))
            })?;
        }
        Ok(Some(NewLayer { result, diff_id, tar_size }))
    }
}

/// Does to the history what classic docker did: the lines stay and lose their layers, one more line has the new one.
pub(super) fn rewrite_history(history: &mut Vec<History>, has_layer: bool, base: Option<&BaseImage>) {
    let steps = history.iter().filter(|line| !line.empty_layer).count();
    for line in history.iter_mut() {
        line.empty_layer = true;
    }
    if has_layer {
        let onto = base.map_or("scratch".to_owned(), |b| b.image.to_string());
        history.push(History {
            created: history.iter().rev().find_map(|line| line.created.clone()),
            comment: Some(format!("merge {steps} layers onto {onto}")),
            ..History::default()
        });
    }
}
