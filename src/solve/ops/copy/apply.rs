//! From a selection to an upper directory and its diff.

use super::chmod::Chmod;
use super::difference::difference;
use super::layout::{Change, Layout};
use super::placed::Placed;
use super::{CopyError, Selection, Sources, archive, owner, write};
use crate::layer::Limits;
use crate::plan::CopyOp;
use crate::store::Bodies;
use crate::tree::{Diff, EmptyTree, Mtime, SourceNode, SourceTree, TreePath};
use std::path::{Path, PathBuf};

/// Picked directories with fewer paths are placed path by path.
const RUN: usize = 1024;
/// And those with less than one in so many of all paths: each run is one more place to look.
const RUNS: usize = 8;

/// What [`apply`] needs of the machine.
#[derive(Clone, Copy)]
pub struct ApplyEnv<'a> {
    /// Bodies to share with other snapshots; `None` makes files of their own.
    pub bodies: Option<&'a Bodies>,
    /// The time of directories and heredoc files that the step makes.
    pub now: Mtime,
    /// Whether owners can be set and devices made; the diff has them in any case.
    pub chown: bool,
    /// An empty directory on the file system of the upper one, for unpacking archives.
    pub scratch: &'a Path,
    /// What an archive may cost.
    pub limits: Limits,
}

/// Writes what the op makes of the selected files into the empty directory `upper`, in overlayfs's form and on top of
/// `base`, and tells what it wrote. Everything that a Dockerfile can get wrong fails before the first write.
///
/// With `--link` the base is not looked at, so that the layer fits on any; `--chmod` turns that off, as in BuildKit.
pub fn apply(
    selection: &Selection,
    sources: &Sources<'_>,
    base: &dyn SourceTree,
    op: &CopyOp,
    upper: &Path,
    env: &ApplyEnv<'_>,
) -> Result<Diff, CopyError> {
    Ok(apply_on(selection, sources, base, op, upper, env, None)?.0)
}

/// Does the same, and writes only what differs from `rest` if that, showing through, makes the result whole. Says whether
/// it does; else all has been written.
pub(in crate::solve::ops) fn apply_on(
    selection: &Selection,
    sources: &Sources<'_>,
    base: &dyn SourceTree,
    op: &CopyOp,
    upper: &Path,
    env: &ApplyEnv<'_>,
    rest: Option<&Diff>,
) -> Result<(Diff, bool), CopyError> {
    let (placed, unpacked) = lay_out(selection, sources, base, op, env, RUN)?;
    // a diff that nothing is compared with is made when the files are written, and the lists for that are gone
    let early = rest.map(|rest| (placed.diff(), rest));
    let difference = early.as_ref().and_then(|(diff, rest)| difference(diff, rest, base));
    match &difference {
        Some(difference) => {
            let changed = difference.paths.iter().filter_map(|path| Some((path.clone(), placed.find(path)?)));
            write::write(&placed, changed, &difference.gone, sources, upper, &unpacked, env)?;
        }
        None => write::write(&placed, placed.items(), &[], sources, upper, &unpacked, env)?,
    }
    let diff = early.map_or_else(|| placed.diff(), |(diff, _)| diff);
    Ok((diff, difference.is_some()))
}

/// Decides what stands where, and unpacks archives; gives the directories that they were unpacked to. A directory of at
/// least `run` paths is placed as a run.
pub(super) fn lay_out<'a>(
    selection: &'a Selection,
    sources: &Sources<'_>,
    base: &'a dyn SourceTree,
    op: &CopyOp,
    env: &ApplyEnv<'_>,
    run: usize,
) -> Result<(Placed<'a>, Vec<PathBuf>), CopyError> {
    let base = if op.link && op.chmod.is_none() { &EmptyTree } else { base };
    let chmod = op.chmod.as_deref().filter(|v| !v.is_empty()).map(Chmod::parse).transpose()?;
    let owner = op.chown.as_deref().filter(|v| !v.is_empty()).map(|v| owner::lookup(v, base)).transpose()?;
    let mut layout = Layout::new(base, Change { owner, chmod }, env.now);
    check_many(selection, op, &layout)?;
    let mut unpacked: Vec<PathBuf> = Vec::new();
    for pick in &selection.picks {
        if !pick.archive {
            let members = pick.members.len();
            layout.place(pick, &op.dest, members >= run && members * RUNS >= selection.len())?;
            continue;
        }
        let into = env.scratch.join(unpacked.len().to_string());
        rustix::fs::mkdir(&into, rustix::fs::Mode::RWXU).map_err(CopyError::write(&TreePath::root()))?;
        let to = layout.archive_target(&op.dest)?;
        let diff = archive::unpack_into(sources, pick, &layout, &to, &into, env.limits, env.chown)?;
        layout.place_unpacked(&to, unpacked.len(), &diff);
        unpacked.push(into);
    }
    Ok((layout.finish()?, unpacked))
}

/// Several files cannot become one: then the destination has to be, or to be marked as, a directory.
fn check_many(selection: &Selection, op: &CopyOp, layout: &Layout<'_>) -> Result<(), CopyError> {
    let marked = op.dest.ends_with('/') || op.dest.ends_with("/.");
    let count = selection.picks.len();
    let file = selection.picks.iter().any(|p| p.entry.node != SourceNode::Dir && !p.archive);
    if count > 1 && file && !marked && !layout.is_dir(op.dest.as_bytes())? {
        return Err(CopyError::ManySources { dest: op.dest.clone(), count });
    }
    Ok(())
}
