//! `history`: the lines of a config with the size of the layer that belongs to each.

use super::time::parse_time;
use super::{Image, Images};
use crate::digest::{ImageId, ResultId};

/// One line of an image's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    /// The image, at its newest line; others are not images of their own.
    pub id: Option<ImageId>,
    /// Seconds since the epoch.
    pub created: Option<i64>,
    /// The instruction.
    pub created_by: String,
    /// Bytes of the files in its layer.
    pub size: u64,
    /// The builder's note.
    pub comment: String,
}

impl Images {
    /// Gives the history, newest line first. Layers without a line get one.
    pub fn history(&self, image: &Image) -> Vec<HistoryLine> {
        let mut sizes = image.chain_ids().into_iter().map(|c| self.unpacked_size(&ResultId::chain(&c)));
        let mut lines: Vec<HistoryLine> = Vec::new();
        for line in &image.config.history {
            lines.push(HistoryLine {
                id: None,
                created: line.created.as_deref().and_then(parse_time),
                created_by: line.created_by.clone().unwrap_or_default(),
                size: if line.empty_layer { 0 } else { sizes.next().unwrap_or(0) },
                comment: line.comment.clone().unwrap_or_default(),
            });
        }
        let bare = |size| HistoryLine {
            id: None,
            created: None,
            created_by: String::new(),
            size,
            comment: String::new(),
        };
        lines.extend(sizes.map(bare));
        lines.reverse();
        if let Some(first) = lines.first_mut() {
            first.id = Some(image.id.clone());
        }
        lines
    }
}
