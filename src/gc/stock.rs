//! All snapshots with what gc must know of them, from one listing.

use super::plan::{Piece, Thing};
use super::{Collector, GcError};
use crate::cache::StepRecord;
use crate::digest::ResultId;
use crate::image::Images;
use crate::snapshot::{Roots, SnapshotInfo, Snapshots, Usage};
use std::collections::{HashMap, HashSet};

/// A snapshot with what gc must know of it.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) info: SnapshotInfo,
    pub(super) usage: Usage,
    /// Of the last step that gave or found it; when it was made if no step has.
    pub(super) last_used: i64,
    /// Whether a step's record leads to it.
    pub(super) recorded: bool,
    /// Whether an image needs it.
    pub(super) needed: bool,
}

/// All snapshots and step records.
#[derive(Debug, Default)]
pub(super) struct Stock {
    pub(super) items: Vec<Item>,
    pub(super) uses: Vec<(StepRecord, i64)>,
    pub(super) damaged_records: Vec<String>,
}

impl Stock {
    /// Gives the snapshots as pieces of a plan.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        let names = names_of(self.items.iter().map(|item| &item.info));
        let piece = |item: &Item| Piece {
            thing: Thing::Snapshot(item.info.id),
            below: [Some(item.info.parent), item.info.rest]
                .iter()
                .flatten()
                .filter_map(|id| names.get(id).copied())
                .collect(),
            last_used: item.last_used,
            own: item.usage.own,
            shared: item.usage.shared.clone(),
            needed: item.needed,
        };
        self.items.iter().map(piece).collect()
    }
}

/// Leads from every name of a snapshot to its own.
fn names_of<'a>(infos: impl Iterator<Item = &'a SnapshotInfo>) -> HashMap<ResultId, ResultId> {
    let mut names = HashMap::new();
    for info in infos {
        names.insert(info.id, info.id);
        names.extend(info.aliases.iter().map(|alias| (*alias, info.id)));
    }
    names
}

/// Gives what the roots are or stand on.
pub(super) fn closure(infos: &[SnapshotInfo], roots: &[ResultId]) -> HashSet<ResultId> {
    let names = names_of(infos.iter());
    let below: HashMap<ResultId, [Option<ResultId>; 2]> =
        infos.iter().map(|info| (info.id, [Some(info.parent), info.rest])).collect();
    let mut out = HashSet::new();
    let mut next: Vec<ResultId> = roots.iter().filter_map(|root| names.get(root).copied()).collect();
    while let Some(id) = next.pop() {
        if out.insert(id) {
            let below = below.get(&id).into_iter().flatten().flatten();
            next.extend(below.filter_map(|id| names.get(id)));
        }
    }
    out
}

impl Collector {
    /// Takes stock. Snapshots that vanish meanwhile are left out.
    pub(super) fn stock(&self) -> Result<Stock, GcError> {
        self.snapshots.forget_arrived();
        // before the list of images: what is committed later is held by its maker until an image names it
        let infos = self.snapshots.list()?;
        let roots = roots(&self.images, &self.snapshots)?;
        let needed = closure(&infos, &roots);
        let (uses, damaged_records) = self.records.uses();
        let mut last: HashMap<ResultId, i64> = HashMap::new();
        for (record, used) in &uses {
            let known = last.entry(record.result).or_insert(*used);
            *known = (*known).max(*used);
        }
        let mut items = Vec::with_capacity(infos.len());
        for info in infos {
            let Ok(usage) = self.snapshots.usage(&info.id) else { continue };
            let names = std::iter::once(&info.id).chain(&info.aliases);
            let used = names.filter_map(|name| last.get(name)).max().copied();
            items.push(Item {
                usage,
                last_used: used.unwrap_or(info.created),
                recorded: used.is_some(),
                needed: needed.contains(&info.id),
                info,
            });
        }
        Ok(Stock { items, uses, damaged_records })
    }

    /// Watches the list of images for [`Snapshots::evict`].
    pub(super) fn watch_roots(&self) -> impl FnMut() -> Roots + use<> {
        let (images, snapshots) = (self.images.clone(), self.snapshots.clone());
        let mut seen = None;
        move || {
            let pinned = snapshots.pinned();
            let stamp = Some((images.stamp(), pinned));
            if seen == stamp {
                return Roots::AsBefore;
            }
            seen = stamp;
            roots(&images, &snapshots).map_or(Roots::Unknown, Roots::Now)
        }
    }
}

/// Gives what images and containers need. What a damaged one needs cannot be known: then every layer that came with an image or
/// went into one is needed.
fn roots(images: &Images, snapshots: &Snapshots) -> Result<Vec<ResultId>, GcError> {
    let mut roots = images.roots()?.0;
    roots.extend(snapshots.pinned());
    if images.any_damaged()? {
        let of_an_image = |info: &SnapshotInfo| info.chain.is_some() || !info.aliases.is_empty();
        roots.extend(snapshots.list()?.into_iter().filter(of_an_image).map(|info| info.id));
    }
    Ok(roots)
}
