//! From a selection to an upper directory and its diff.

use super::chmod::Chmod;
use super::difference::difference;
use super::layout::{Change, Layout, diff};
use super::{CopyError, Selection, Sources, archive, owner, write};
use crate::layer::Limits;
use crate::plan::CopyOp;
use crate::store::Bodies;
use crate::tree::{Diff, EmptyTree, Mtime, SourceNode, SourceTree, TreePath};
use std::path::{Path, PathBuf};

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
    let below = base;
    let base = if op.link && op.chmod.is_none() { &EmptyTree } else { base };
    let chmod = op.chmod.as_deref().filter(|v| !v.is_empty()).map(Chmod::parse).transpose()?;
    let owner = op.chown.as_deref().filter(|v| !v.is_empty()).map(|v| owner::lookup(v, base)).transpose()?;
    let mut layout = Layout::new(base, Change { owner, chmod }, env.now);
    check_many(selection, op, &layout)?;
    let mut unpacked: Vec<PathBuf> = Vec::new();
    for pick in &selection.picks {
        if !pick.archive {
            layout.place(pick, &op.dest)?;
            continue;
        }
        let into = env.scratch.join(unpacked.len().to_string());
        rustix::fs::mkdir(&into, rustix::fs::Mode::RWXU).map_err(CopyError::write(&TreePath::root()))?;
        let to = layout.archive_target(&op.dest)?;
        let diff = archive::unpack_into(sources, pick, &layout, &to, &into, env.limits, env.chown)?;
        layout.place_unpacked(&to, unpacked.len(), &diff);
        unpacked.push(into);
    }
    let made = layout.finish()?;
    let diff = diff(&made);
    let difference = rest.and_then(|rest| difference(&made, &diff, rest, below));
    match &difference {
        Some(difference) => {
            let changed = made.iter().filter(|(path, _)| difference.paths.contains(path));
            write::write(changed, &difference.gone, sources, upper, &unpacked, env)?;
        }
        None => write::write(made.iter(), &[], sources, upper, &unpacked, env)?,
    }
    Ok((diff, difference.is_some()))
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
