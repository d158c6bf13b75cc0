//! Which files a COPY or ADD takes.

use super::resolve::resolve;
use super::wildcard::expand;
use super::{CopyError, Origin, Sources, archive};
use crate::context::IgnoreRules;
use crate::context::glob::has_wildcard;
use crate::digest::ContentId;
use crate::plan::{CopyOp, CopySource};
use crate::tree::{Meta, SourceEntry, SourceNode, SourceTree, TreePath, Walk, is_below, path_order};
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

/// The files of an instruction with the names of their bytes; enough for the cache key, and all that [`super::apply`]
/// needs to know of the sources.
#[derive(Debug, Clone)]
pub struct Selection {
    pub(super) picks: Vec<Pick>,
}

/// One thing that is copied: a file, or the content of a directory.
#[derive(Debug, Clone)]
pub(super) struct Pick {
    pub(super) origin: Origin,
    /// What it is called when the destination is a directory: the last name as it was asked for.
    pub(super) name: Vec<u8>,
    /// Where it is, links followed.
    pub(super) root: TreePath,
    pub(super) entry: SourceEntry,
    pub(super) content: Option<ContentId>,
    /// Bytes of a heredoc.
    pub(super) inline: Option<Arc<[u8]>>,
    /// To be unpacked.
    pub(super) archive: bool,
    /// What is below a directory.
    pub(super) members: Members,
}

/// What is below a picked directory, in path order; packed, since it may be a million paths.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    walk: Walk,
    /// So many bytes of each path lead to the picked directory.
    skip: usize,
    /// For each whether it is only here because something below it is; empty if none is.
    on_the_way: Vec<bool>,
}

/// One path below a picked directory.
#[derive(Debug)]
pub(super) struct Member {
    /// Below the picked directory.
    pub(super) path: TreePath,
    pub(super) entry: SourceEntry,
    pub(super) content: Option<ContentId>,
    /// It is only here because something below it is.
    pub(super) on_the_way: bool,
}

/// Finds the files of an op.
///
/// # Errors
/// [`CopyError::NotFound`] for a missing source without wildcards, [`CopyError::Pattern`], [`CopyError::Source`].
pub fn select(sources: &Sources<'_>, op: &CopyOp) -> Result<Selection, CopyError> {
    let exclude = IgnoreRules::from_patterns(op.exclude.iter().map(String::as_bytes), "--exclude")?;
    let mut picks = Vec::new();
    let mut remotes = 0;
    for source in &op.sources {
        match source {
            CopySource::Path(path) if op.parents => {
                picks.extend(pick_parents(sources.main, path.as_bytes(), &exclude)?);
            }
            CopySource::Path(path) => {
                for found in expand(sources.main, path.as_bytes())? {
                    let mut pick = pick(sources.main, Origin::Main, &found, &exclude)?;
                    let wanted = op.unpack.unwrap_or(op.is_add);
                    pick.archive = wanted && archive::is_archive(sources.main, &pick)?;
                    picks.push(pick);
                }
            }
            CopySource::Inline { name, content } => picks.push(inline(name, content)),
            CopySource::Url(name) | CopySource::Git(name) => {
                let remote =
                    sources.remotes.get(remotes).ok_or_else(|| CopyError::Missing { name: name.clone() })?;
                let mut pick = pick(&*remote.tree, Origin::Remote(remotes), &remote.path, &exclude)?;
                pick.archive = op.unpack == Some(true)
                    && matches!(source, CopySource::Url(_))
                    && archive::is_archive(&*remote.tree, &pick)?;
                picks.push(pick);
                remotes += 1;
            }
        }
    }
    Ok(Selection { picks })
}

/// Says that a source is missing, and why if the source knows.
pub(super) fn not_found(tree: &dyn SourceTree, path: &TreePath) -> CopyError {
    let text = format!("/{}", String::from_utf8_lossy(path.as_bytes()));
    CopyError::NotFound { path: text, hint: tree.why_absent(path) }
}

fn pick(
    tree: &dyn SourceTree,
    origin: Origin,
    path: &TreePath,
    exclude: &IgnoreRules,
) -> Result<Pick, CopyError> {
    let (root, entry) = follow(tree, path)?;
    let mut members = Members::default();
    if entry.node == SourceNode::Dir {
        members = list(tree, &root, &IgnoreRules::none(), exclude)?;
    }
    let content = content(tree, &root, &entry)?;
    let name = path.file_name().unwrap_or_default().to_vec();
    Ok(Pick { origin, name, root, entry, content, inline: None, archive: false, members })
}

/// `--parents`: the part before `/./` is the directory that counts as the root, the rest is a pattern below it.
fn pick_parents(tree: &dyn SourceTree, source: &[u8], exclude: &IgnoreRules) -> Result<Vec<Pick>, CopyError> {
    let cut = source.windows(3).position(|w| w == b"/./");
    let (above, pattern) = cut.map_or((&b"/"[..], source), |at| (&source[..at], &source[at + 3..]));
    let pattern_path = TreePath::clean(pattern);
    let include = match pattern_path.is_root() {
        true => IgnoreRules::none(),
        false => IgnoreRules::from_patterns([pattern_path.as_bytes()], "--parents")?,
    };
    let mut picks = Vec::new();
    for path in expand(tree, above)? {
        let (root, entry) = follow(tree, &path)?;
        let members = match entry.node {
            SourceNode::Dir => list(tree, &root, &include, exclude)?,
            _ => Members::default(),
        };
        let literal = !has_wildcard(above) && !has_wildcard(pattern);
        if literal && members.is_empty() && !pattern_path.is_root() {
            return Err(not_found(tree, &path.join(&pattern_path)));
        }
        let name = path.file_name().unwrap_or_default().to_vec();
        let origin = Origin::Main;
        picks.push(Pick { origin, name, root, entry, content: None, inline: None, archive: false, members });
    }
    Ok(picks)
}

fn inline(name: &str, content: &str) -> Pick {
    let bytes: Arc<[u8]> = content.as_bytes().into();
    let entry = SourceEntry {
        meta: Meta { mode: 0o644, ..Meta::default() },
        node: SourceNode::File { size: bytes.len() as u64 },
        links: None,
    };
    Pick {
        origin: Origin::Inline,
        name: name.as_bytes().to_vec(),
        root: TreePath::root(),
        entry,
        content: Some(blake3::hash(&bytes).into()),
        inline: Some(bytes),
        archive: false,
        members: Members::default(),
    }
}

/// Follows a source argument to what it means.
fn follow(tree: &dyn SourceTree, path: &TreePath) -> Result<(TreePath, SourceEntry), CopyError> {
    let place = resolve(&|p| tree.stat(p), path.as_bytes(), true).map_err(CopyError::source(path))?;
    match place.entry {
        Some(entry) => Ok((place.path, entry)),
        // the root of a tree is there even when the tree has no entry for it
        None if place.path.is_root() => {
            let entry = tree.stat(&place.path).map_err(CopyError::source(path))?;
            let empty = Meta { mode: 0o755, ..Meta::default() };
            let root = SourceEntry { meta: empty, node: SourceNode::Dir, links: None };
            Ok((place.path, entry.unwrap_or(root)))
        }
        None => Err(not_found(tree, if place.path == *path { path } else { &place.path })),
    }
}

/// Lists what is below a directory and neither left out by `include` nor taken out by `exclude`.
fn list(
    tree: &dyn SourceTree,
    root: &TreePath,
    include: &IgnoreRules,
    exclude: &IgnoreRules,
) -> Result<Members, CopyError> {
    let below = |path: &TreePath| path.strip_prefix(root).unwrap_or_default();
    let included = |path: &TreePath| include.is_empty() || include.excludes(path);
    let enter = |path: &TreePath| {
        let path = below(path);
        !(exclude.can_prune(&path) || !included(&path) && !include.could_match_below(path.as_bytes()))
    };
    let mut walk = tree.walk(root, &enter).map_err(CopyError::source(root))?;
    let mut on_the_way = Vec::new();
    if !include.is_empty() || !exclude.is_empty() {
        (walk, on_the_way) = pruned(&walk, &|path| {
            let path = below(path);
            included(&path) && !exclude.excludes(&path)
        });
    }
    name_contents(tree, &mut walk)?;
    let skip = if root.is_root() { 0 } else { root.as_bytes().len() + 1 };
    Ok(Members { walk, skip, on_the_way })
}

/// Keeps what is wanted, and directories for what is wanted below them; says which ones these are.
fn pruned(walk: &Walk, wanted: &dyn Fn(&TreePath) -> bool) -> (Walk, Vec<bool>) {
    // backwards, since a directory stays for what is below it
    let mut kept: Vec<Option<bool>> = vec![None; walk.len()];
    let mut last: Option<usize> = None;
    for at in (0..walk.len()).rev() {
        let wanted = wanted(&TreePath::of_clean(walk.path(at)));
        let on_the_way =
            !wanted && walk.is_dir(at) && last.is_some_and(|last| is_below(walk.path(last), walk.path(at)));
        if wanted || on_the_way {
            kept[at] = Some(on_the_way);
            last = Some(at);
        }
    }
    (walk.only(|at| kept[at].is_some()), kept.into_iter().flatten().collect())
}

/// Names the bytes of what a walk has found.
fn name_contents(tree: &dyn SourceTree, walk: &mut Walk) -> Result<(), CopyError> {
    let mut contents = walk.take_contents();
    contents.par_iter_mut().enumerate().with_min_len(32).try_for_each(|(at, known)| {
        if known.is_none() && !walk.is_dir(at) {
            *known = content(tree, &TreePath::of_clean(walk.path(at)), &walk.entry(at))?;
        }
        Ok::<_, CopyError>(())
    })?;
    walk.set_contents(contents);
    Ok(())
}

fn content(
    tree: &dyn SourceTree,
    path: &TreePath,
    entry: &SourceEntry,
) -> Result<Option<ContentId>, CopyError> {
    match entry.node {
        SourceNode::File { .. } => Ok(Some(tree.content(path, entry).map_err(CopyError::source(path))?)),
        SourceNode::Socket => Ok(Some(blake3::hash(b"").into())),
        _ => Ok(None),
    }
}

impl Members {
    /// Says how many there are.
    pub(super) fn len(&self) -> usize {
        self.walk.len()
    }

    /// Says whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.walk.is_empty()
    }

    /// Gives a path below the picked directory.
    pub(super) fn path(&self, at: usize) -> &[u8] {
        &self.walk.path(at)[self.skip..]
    }

    /// Gives a path in the source.
    pub(super) fn whole_path(&self, at: usize) -> &[u8] {
        self.walk.path(at)
    }

    /// Finds a path below the picked directory.
    pub(super) fn find(&self, path: &[u8]) -> Option<usize> {
        self.walk.find_by(|here| path_order(&here[self.skip..], path))
    }

    /// Says whether it is a directory.
    pub(super) fn is_dir(&self, at: usize) -> bool {
        self.walk.is_dir(at)
    }

    /// Unpacks one.
    pub(super) fn get(&self, at: usize) -> Member {
        Member {
            path: TreePath::of_clean(self.path(at)),
            entry: self.walk.entry(at),
            content: self.walk.content(at),
            on_the_way: self.on_the_way.get(at).copied().unwrap_or(false),
        }
    }

    /// Unpacks one after the other.
    pub(super) fn iter(&self) -> impl Iterator<Item = Member> + '_ {
        (0..self.len()).map(|at| self.get(at))
    }
}

impl Selection {
    /// Mode and owner of the directory whose content comes first.
    pub fn directory(&self) -> Option<&Meta> {
        self.picks.first().filter(|pick| pick.entry.node == SourceNode::Dir).map(|pick| &pick.entry.meta)
    }

    /// Says how many paths there are.
    pub fn len(&self) -> usize {
        self.picks.iter().map(|p| 1 + p.members.len()).sum()
    }

    /// Says whether nothing is selected.
    pub fn is_empty(&self) -> bool {
        self.picks.is_empty()
    }

    /// Names all that can change the result: names, types, modes, owners, links, devices, attributes, bytes. No times,
    /// and not the picked directories' own metadata, which the copy does not take.
    pub fn key_id(&self) -> ContentId {
        let mut h = blake3::Hasher::new_derive_key("rbuild copy selection v1");
        let mut buf = Vec::with_capacity(512);
        for pick in &self.picks {
            buf.clear();
            bytes(&mut buf, &pick.name);
            buf.push(u8::from(pick.archive));
            buf.extend_from_slice(&(pick.members.len() as u64).to_le_bytes());
            if pick.entry.node == SourceNode::Dir {
                buf.push(b'd');
            } else {
                describe(&mut buf, &pick.entry, pick.content, 0);
            }
            h.update(&buf);
            let mut links = Links::default();
            for (index, member) in pick.members.iter().enumerate() {
                buf.clear();
                bytes(&mut buf, member.path.as_bytes());
                buf.push(u8::from(member.on_the_way));
                describe(&mut buf, &member.entry, member.content, links.first(index, &member.entry));
                h.update(&buf);
            }
        }
        h.finalize().into()
    }

    /// Lists what [`Selection::key_id`] is made of, for telling which file made a step run: a path below the pick and the
    /// name of its state.
    pub fn parts(&self) -> impl Iterator<Item = (String, ContentId)> + '_ {
        self.picks.iter().flat_map(|pick| {
            let own = (TreePath::root(), pick.entry.clone(), pick.content);
            let members = pick.members.iter().map(|m| (m.path, m.entry, m.content));
            [own].into_iter().chain(members).map(move |(path, entry, content)| {
                let mut buf = Vec::new();
                describe(&mut buf, &entry, content, 0);
                (TreePath::clean(&pick.name).join(&path).to_string(), blake3::hash(&buf).into())
            })
        })
    }
}

/// Tells the names of one file by the position of the first, so that inode numbers do not count.
#[derive(Default)]
struct Links(HashMap<(u64, u64), usize>);

impl Links {
    /// Gives 0 for a file with one name or the first name, else the position of the first, from 1.
    fn first(&mut self, index: usize, entry: &SourceEntry) -> u64 {
        let Some(id) = entry.links else { return 0 };
        let first = *self.0.entry(id).or_insert(index);
        if first == index { 0 } else { first as u64 + 1 }
    }
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn describe(out: &mut Vec<u8>, entry: &SourceEntry, content: Option<ContentId>, link: u64) {
    let meta = &entry.meta;
    for number in [meta.mode, meta.uid, meta.gid, meta.xattrs.len() as u32] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for (name, value) in &meta.xattrs {
        bytes(out, name);
        bytes(out, value);
    }
    let numbers = |out: &mut Vec<u8>, kind: u8, a: u32, b: u32| {
        out.push(kind);
        out.extend_from_slice(&a.to_le_bytes());
        out.extend_from_slice(&b.to_le_bytes());
    };
    match &entry.node {
        SourceNode::File { size } => {
            out.push(b'f');
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(&link.to_le_bytes());
        }
        // copied as an empty file
        SourceNode::Socket => {
            out.push(b'f');
            out.extend_from_slice(&[0; 16]);
        }
        SourceNode::Dir => out.push(b'd'),
        SourceNode::Symlink { target } => {
            out.push(b'l');
            bytes(out, target);
        }
        SourceNode::CharDevice { major, minor } => numbers(out, b'c', *major, *minor),
        SourceNode::BlockDevice { major, minor } => numbers(out, b'b', *major, *minor),
        SourceNode::Fifo => out.push(b'p'),
    }
    if let Some(content) = content {
        out.extend_from_slice(&content.0);
    }
}
