//! Which things go, and in which order: pure arithmetic over what is there.

use crate::digest::ResultId;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// Something that takes disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Thing {
    /// A snapshot.
    Snapshot(ResultId),
    /// A cache mount, by the name of its directory.
    Mount(String),
}

/// A thing with what the decision rests on.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) thing: Thing,
    /// The snapshots that it needs: what it stands on, and what shows through it.
    pub(super) below: Vec<ResultId>,
    /// Seconds since the epoch, by whatever clock there was.
    pub(super) last_used: i64,
    /// Bytes that go with it.
    pub(super) own: u64,
    /// Inodes and bytes that go with the last one that has them.
    pub(super) shared: Vec<(u64, u64)>,
    /// An image needs it.
    pub(super) needed: bool,
}

/// Gives the bytes that no image needs: what counts against the budget.
pub(super) fn unneeded(pieces: &[Piece]) -> u64 {
    let kept: HashSet<u64> = inodes(pieces.iter().filter(|p| p.needed)).map(|(inode, _)| inode).collect();
    let mut seen = HashSet::new();
    let free = || pieces.iter().filter(|p| !p.needed);
    let shared = inodes(free()).filter(|(inode, _)| !kept.contains(inode) && seen.insert(*inode));
    let shared = shared.fold(0u64, |sum, (_, bytes)| sum.saturating_add(bytes));
    free().fold(shared, |sum, piece| sum.saturating_add(piece.own))
}

fn inodes<'a>(pieces: impl Iterator<Item = &'a Piece>) -> impl Iterator<Item = (u64, u64)> {
    pieces.flat_map(|piece| piece.shared.iter().copied())
}

/// Gives what may go: unneeded, `allowed`, with nothing left on top. The longest unused comes first, but nothing
/// before what stands on it. Stops when `excess` bytes are free; without it everything that may go does.
pub(super) fn victims(pieces: &[Piece], allowed: &dyn Fn(&Piece) -> bool, excess: Option<u64>) -> Vec<Thing> {
    let at: HashMap<ResultId, usize> = pieces
        .iter()
        .enumerate()
        .filter_map(|(n, piece)| match piece.thing {
            Thing::Snapshot(id) => Some((id, n)),
            Thing::Mount(_) => None,
        })
        .collect();
    let below = |n: usize| pieces[n].below.iter().filter_map(|id| at.get(id).copied());
    let mut above = vec![0usize; pieces.len()];
    for n in 0..pieces.len() {
        for parent in below(n) {
            above[parent] += 1;
        }
    }
    let mut users: HashMap<u64, usize> = HashMap::new();
    for (inode, _) in inodes(pieces.iter()) {
        *users.entry(inode).or_default() += 1;
    }
    let may_go = |n: usize| !pieces[n].needed && allowed(&pieces[n]);
    let entry = |n: usize| Reverse((pieces[n].last_used, &pieces[n].thing, n));
    let mut tops: BinaryHeap<_> =
        (0..pieces.len()).filter(|n| above[*n] == 0 && may_go(*n)).map(entry).collect();
    let (mut out, mut freed) = (Vec::new(), 0u64);
    while excess.is_none_or(|excess| freed < excess) {
        let Some(Reverse((_, thing, n))) = tops.pop() else { break };
        out.push(thing.clone());
        freed = freed.saturating_add(pieces[n].own);
        for (inode, bytes) in &pieces[n].shared {
            let left = users.entry(*inode).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                freed = freed.saturating_add(*bytes);
            }
        }
        for parent in below(n) {
            above[parent] -= 1;
            if above[parent] == 0 && may_go(parent) {
                tops.push(entry(parent));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u8) -> ResultId {
        ResultId([n; 32])
    }

    fn piece(n: u8, below: Option<u8>, last_used: i64, own: u64) -> Piece {
        let (thing, below) = (Thing::Snapshot(id(n)), below.into_iter().map(id).collect());
        Piece { thing, below, last_used, own, shared: Vec::new(), needed: false }
    }

    fn names(things: &[Thing]) -> Vec<u8> {
        let name = |thing: &Thing| match thing {
            Thing::Snapshot(id) => id.0[0],
            Thing::Mount(_) => 0,
        };
        things.iter().map(name).collect()
    }

    #[test]
    fn the_longest_unused_goes_first_but_never_from_under_another() {
        // 1 is oldest, and 2 and 3 stand on it; 4 is alone
        let pieces = [
            piece(1, None, 1, 10),
            piece(2, Some(1), 9, 10),
            piece(3, Some(1), 5, 10),
            piece(4, None, 7, 10),
        ];
        assert_eq!(names(&victims(&pieces, &|_| true, None)), [3, 4, 2, 1]);
        assert_eq!(names(&victims(&pieces, &|_| true, Some(11))), [3, 4]);
        assert!(victims(&pieces, &|_| true, Some(0)).is_empty());
        assert_eq!(names(&victims(&pieces, &|p| p.last_used < 8, None)), [3, 4]);
    }

    #[test]
    fn what_an_image_needs_stays_and_does_not_count() {
        let mut pieces = [piece(1, None, 1, 10), piece(2, Some(1), 2, 10), piece(3, Some(2), 3, 10)];
        pieces[0].needed = true;
        pieces[1].needed = true;
        assert_eq!(unneeded(&pieces), 10);
        assert_eq!(names(&victims(&pieces, &|_| true, None)), [3]);
    }

    #[test]
    fn shared_bodies_count_once_and_are_freed_with_their_last_user() {
        let mut pieces = [piece(1, None, 1, 1), piece(2, None, 2, 1), piece(3, None, 3, 1)];
        for piece in &mut pieces {
            piece.shared = vec![(7, 100)];
        }
        assert_eq!(unneeded(&pieces), 103);
        assert_eq!(names(&victims(&pieces, &|_| true, Some(2))), [1, 2]);
        assert_eq!(names(&victims(&pieces, &|_| true, Some(50))), [1, 2, 3]);
        pieces[2].needed = true;
        assert_eq!(unneeded(&pieces), 2);
    }

    #[test]
    fn any_clock_will_do() {
        let pieces =
            [piece(1, None, i64::MAX, u64::MAX), piece(2, None, i64::MIN, u64::MAX), piece(3, None, 0, 1)];
        assert_eq!(unneeded(&pieces), u64::MAX);
        assert_eq!(names(&victims(&pieces, &|_| true, None)), [2, 3, 1]);
    }

    proptest! {
        #[test]
        fn nothing_goes_before_what_stands_on_it(
            parents in proptest::collection::vec((0u8..40, 0i64..9, 0u64..9, any::<bool>(), any::<bool>()), 1..40),
            rests in proptest::collection::vec(0u8..60, 40),
            excess in proptest::option::of(0u64..100),
        ) {
            let mut pieces: Vec<Piece> = parents.iter().enumerate().map(|(n, (parent, used, own, _, _))| {
                let mut piece = piece(n as u8, (usize::from(*parent) < n).then_some(*parent), *used, *own);
                piece.below.extend((usize::from(rests[n]) < n).then_some(id(rests[n])));
                piece
            }).collect();
            // what is below something needed is needed
            for n in (0..pieces.len()).rev() {
                pieces[n].needed |= parents[n].3;
                if pieces[n].needed {
                    for below in pieces[n].below.clone() {
                        pieces[usize::from(below.0[0])].needed = true;
                    }
                }
            }
            let allowed = |piece: &Piece| match piece.thing {
                Thing::Snapshot(id) => parents[usize::from(id.0[0])].4,
                Thing::Mount(_) => false,
            };
            let gone = names(&victims(&pieces, &allowed, excess));
            for (at, n) in gone.iter().enumerate() {
                let piece = &pieces[usize::from(*n)];
                prop_assert!(!piece.needed && allowed(piece));
                let stands = |p: &Piece| p.below.contains(&id(*n));
                for child in pieces.iter().filter(|p| stands(p)) {
                    let Thing::Snapshot(child) = child.thing else { continue };
                    prop_assert!(gone[..at].contains(&child.0[0]));
                }
            }
        }
    }
}
