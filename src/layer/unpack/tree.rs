//! What has been unpacked so far, as a map of real paths; it decides, [`Disk`] does.

use super::disk::Disk;
use super::name::{self, refuse};
use super::pool::{Job, SMALL, Writers};
use crate::digest::ContentId;
use crate::layer::LayerError;
use crate::layer::tar_read::{Item, Kind, TarReader};
use crate::tree::{Diff, Entry, Meta, Mtime, Node, SourceEntry, SourceNode, SourceTree, TreePath};
use rustix::fs::FileType;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Links that are followed on the way to one name, as the kernel does.
const MAX_LINKS: usize = 40;

/// After so many files the contents of those that are written are fetched, so that they are held once.
const SETTLE: usize = 4096;

/// One path of this layer; as small as can be, for layers of a million.
struct Slot {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Mtime,
    xattrs: Option<Box<Xattrs>>,
    what: What,
}

type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

impl Slot {
    fn new(meta: Meta, what: What) -> Self {
        let Meta { mode, uid, gid, mtime, xattrs } = meta;
        let xattrs = (!xattrs.is_empty()).then(|| Box::new(xattrs));
        Self { mode, uid, gid, mtime, xattrs, what }
    }

    fn meta(&self) -> Meta {
        let Self { mode, uid, gid, mtime, .. } = *self;
        let xattrs = self.xattrs.as_ref().map(|all| all.to_vec()).unwrap_or_default();
        Meta { mode, uid, gid, mtime, xattrs }
    }
}

#[derive(Clone)]
enum What {
    Dir {
        opaque: bool,
        /// Whether what lower layers hold in it may be seen. Kept with each directory, so that a look at a path is one
        /// at its parent, however deep it is.
        shows: bool,
    },
    /// A regular file by its body's number; several names share one.
    File(u32),
    Symlink(Box<[u8]>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// A regular file's bytes, whatever names it has.
struct Body {
    size: u64,
    content: Option<ContentId>,
    several_names: bool,
}

/// What stands at a path in the merged tree.
enum Seen {
    Here,
    Below(SourceEntry),
    Nothing,
}

pub(super) struct Tree<'a> {
    disk: Disk,
    parent: Option<&'a dyn SourceTree>,
    slots: BTreeMap<TreePath, Slot>,
    bodies: Vec<Body>,
    /// Deletions; they concern lower layers only, so they are settled at the end.
    whiteouts: BTreeSet<TreePath>,
    root_opaque: bool,
    /// No layer but an archive.
    plain: bool,
}

impl<'a> Tree<'a> {
    pub(super) fn new(disk: Disk, parent: Option<&'a dyn SourceTree>, plain: bool) -> Self {
        Self {
            disk,
            parent,
            slots: BTreeMap::new(),
            bodies: Vec::new(),
            whiteouts: BTreeSet::new(),
            root_opaque: false,
            plain,
        }
    }

    /// Takes one ordinary entry in, body and all.
    pub(super) fn put(
        &mut self,
        item: &Item,
        dir: &TreePath,
        name: &[u8],
        reader: &mut TarReader<'_>,
        writers: &mut Writers<'_>,
    ) -> Result<(), LayerError> {
        let path = self.make_parents(item, dir)?.child(name);
        let mut meta = meta(item);
        match item.kind {
            Kind::Hardlink => return self.hardlink(item, path, writers),
            Kind::Dir => return self.put_dir(path, meta, writers),
            _ => self.clear(&path, writers)?,
        }
        let what = match item.kind {
            Kind::File => self.file(&path, &meta, item.size, reader, writers)?,
            Kind::Symlink => {
                if item.link.is_empty() {
                    return Err(refuse(item, "the symbolic link has no target"));
                }
                // a link's own mode is the same everywhere and can hold no attributes of users
                meta.mode = 0o777;
                meta.xattrs.clear();
                self.disk.symlink(&path, &meta, &item.link)?;
                What::Symlink(item.link.as_slice().into())
            }
            Kind::Char if item.device == (0, 0) => {
                // on disk it would be a whiteout, so it is one
                self.whiteouts.insert(path);
                return Ok(());
            }
            Kind::Char | Kind::Block => {
                meta.xattrs.clear();
                let (major, minor) = item.device;
                let char = item.kind == Kind::Char;
                let kind = if char { FileType::CharacterDevice } else { FileType::BlockDevice };
                self.disk.node(&path, &meta, kind, item.device)?;
                if char { What::Char(major, minor) } else { What::Block(major, minor) }
            }
            _ => {
                meta.xattrs.clear();
                self.disk.node(&path, &meta, FileType::Fifo, (0, 0))?;
                What::Fifo
            }
        };
        self.slots.insert(path, Slot::new(meta, what));
        Ok(())
    }

    /// Notes a deletion.
    pub(super) fn whiteout(
        &mut self,
        item: &Item,
        dir: &TreePath,
        name: &[u8],
        _writers: &mut Writers<'_>,
    ) -> Result<(), LayerError> {
        let path = self.make_parents(item, dir)?.child(name);
        self.hide(&path);
        self.whiteouts.insert(path);
        Ok(())
    }

    /// Marks a directory as hiding what is below.
    pub(super) fn opaque(&mut self, item: &Item, dir: &TreePath) -> Result<(), LayerError> {
        let dir = self.make_parents(item, dir)?;
        self.hide(&dir);
        match self.slots.get_mut(&dir) {
            None => self.root_opaque = true,
            Some(Slot { what: What::Dir { opaque, .. }, .. }) => *opaque = true,
            Some(_) => return Err(refuse(item, "only a directory can be opaque")),
        }
        Ok(())
    }

    /// Says whether lower layers may be seen in a directory of this layer.
    fn shows_in(&self, dir: &TreePath) -> bool {
        match self.slots.get(dir).map(|slot| &slot.what) {
            Some(What::Dir { shows, .. }) => *shows,
            _ => !self.root_opaque,
        }
    }

    /// Notes that nothing of lower layers is seen at and below a directory. What is hidden already is not gone through again.
    fn hide(&mut self, dir: &TreePath) {
        if !self.shows_in(dir) {
            return;
        }
        let all = self.slots.range_mut(dir.clone()..);
        for (_, slot) in all.take_while(|(path, _)| dir.is_root() || path.strip_prefix(dir).is_some()) {
            if let What::Dir { shows, .. } = &mut slot.what {
                *shows = false;
            }
        }
    }

    fn put_dir(&mut self, path: TreePath, meta: Meta, writers: &mut Writers<'_>) -> Result<(), LayerError> {
        if let Some(old) = self.slots.get_mut(&path)
            && let What::Dir { opaque, shows } = old.what
        {
            *old = Slot::new(meta, What::Dir { opaque, shows });
            return Ok(());
        }
        self.clear(&path, writers)?;
        let shows = self.shows_in(&path.parent().unwrap_or_default()) && !self.whiteouts.contains(&path);
        self.make_dir(&path, meta, shows)
    }

    fn file(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        size: u64,
        reader: &mut TarReader<'_>,
        writers: &mut Writers<'_>,
    ) -> Result<What, LayerError> {
        let body = self.bodies.len();
        let mut content = None;
        if size > SMALL {
            content = Some(self.disk.large(path, meta, size, reader)?);
        } else {
            let mut bytes = vec![0; size as usize];
            let mut have = 0;
            while have < bytes.len() {
                have += reader.read(&mut bytes[have..])?;
            }
            let dir = self.disk.dir(&path.parent().unwrap_or_default())?;
            writers.submit(Job { body, dir, path: path.clone(), meta: meta.clone(), bytes })?;
        }
        let what = self.add_body(size, content)?;
        if self.bodies.len().is_multiple_of(SETTLE) {
            self.settle(writers);
        }
        Ok(what)
    }

    fn hardlink(&mut self, item: &Item, path: TreePath, writers: &mut Writers<'_>) -> Result<(), LayerError> {
        let target = name::target(item)?;
        let (Some(dir), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(refuse(item, "a directory cannot have hard links"));
        };
        let target = self.make_parents(item, &dir)?.child(name);
        if target == path {
            return Ok(());
        }
        if !self.slots.contains_key(&target) {
            self.copy_up(item, &target)?;
        }
        if path.strip_prefix(&target).is_some() || target.strip_prefix(&path).is_some() {
            return Err(refuse(item, "a hard link and its target cannot be inside each other"));
        }
        self.clear(&path, writers)?;
        writers.wait()?;
        let Some(slot) = self.slots.get(&target) else {
            return Err(refuse(item, "the target of the hard link does not exist"));
        };
        if matches!(slot.what, What::Dir { .. }) {
            return Err(refuse(item, "a directory cannot have hard links"));
        }
        let slot = Slot::new(slot.meta(), slot.what.clone());
        if let What::File(body) = slot.what {
            self.bodies[body as usize].several_names = true;
        }
        self.disk.link(&target, &path)?;
        self.slots.insert(path, slot);
        Ok(())
    }

    /// Brings a file of a lower layer into this one, since hard links do not reach across layers.
    fn copy_up(&mut self, item: &Item, path: &TreePath) -> Result<(), LayerError> {
        let (Some(parent), Seen::Below(entry)) = (self.parent, self.look(path)?) else {
            return Err(refuse(item, "the target of the hard link does not exist"));
        };
        let SourceNode::File { size } = entry.node else {
            return Err(refuse(item, "the target of the hard link is no regular file"));
        };
        let content = parent.content(path, &entry).map_err(LayerError::io("read", path))?;
        let from = parent.open(path).map_err(LayerError::io("open", path))?;
        self.disk.copy(path, &entry.meta, &from)?;
        let what = self.add_body(size, Some(content))?;
        self.slots.insert(path.clone(), Slot::new(entry.meta, what));
        Ok(())
    }

    fn add_body(&mut self, size: u64, content: Option<ContentId>) -> Result<What, LayerError> {
        let limit = u32::MAX;
        let number = u32::try_from(self.bodies.len())
            .map_err(|_| LayerError::Limit { what: "files", limit: limit.into() })?;
        self.bodies.push(Body { size, content, several_names: false });
        Ok(What::File(number))
    }

    fn settle(&mut self, writers: &Writers<'_>) {
        for (body, content) in writers.contents() {
            self.bodies[body].content = Some(content);
        }
    }

    /// Takes away what an earlier entry put at a path.
    fn clear(&mut self, path: &TreePath, writers: &mut Writers<'_>) -> Result<(), LayerError> {
        let Some(old) = self.slots.get(path) else { return Ok(()) };
        let dir = matches!(old.what, What::Dir { .. });
        writers.wait()?;
        self.disk.remove(path)?;
        self.slots.remove(path);
        while dir
            && let Some((below, _)) = self.slots.range(path.clone()..).next()
            && below.strip_prefix(path).is_some()
        {
            let below = below.clone();
            self.slots.remove(&below);
        }
        Ok(())
    }

    /// Looks at one real path, whose parent is the root or of this layer, without following it.
    fn look(&self, path: &TreePath) -> Result<Seen, LayerError> {
        if self.slots.contains_key(path) || path.is_root() {
            return Ok(Seen::Here);
        }
        let Some(parent) = self.parent else { return Ok(Seen::Nothing) };
        if self.whiteouts.contains(path) || !self.shows_in(&path.parent().unwrap_or_default()) {
            return Ok(Seen::Nothing);
        }
        let below = parent.stat(path).map_err(LayerError::io("look at", path))?;
        Ok(below.map_or(Seen::Nothing, Seen::Below))
    }

    /// Walks to a directory inside the root, following links there, and makes what is missing of it in this layer. In
    /// an archive of plain names a link has to lead somewhere.
    fn make_parents(&mut self, item: &Item, dir: &TreePath) -> Result<TreePath, LayerError> {
        // a path in the map is real, so nothing on it needs to be followed
        if dir.is_root() || matches!(self.slots.get(dir), Some(Slot { what: What::Dir { .. }, .. })) {
            return Ok(dir.clone());
        }
        let mut todo: VecDeque<Vec<u8>> = dir.components().map(<[u8]>::to_vec).collect();
        let mut here = TreePath::root();
        let mut links = 0;
        // how many of the names ahead are a link's
        let mut linked = 0usize;
        while let Some(part) = todo.pop_front() {
            let from_link = linked > 0;
            linked = linked.saturating_sub(1);
            if part == b".." {
                here = here.parent().unwrap_or_default();
                continue;
            }
            let path = here.child(&part);
            let mut target = None;
            match self.look(&path)? {
                Seen::Here => match self.slots.get(&path).map(|slot| &slot.what) {
                    Some(What::Symlink(text)) => target = Some(text.to_vec()),
                    Some(What::Dir { .. }) | None => {}
                    Some(_) => return Err(not_a_dir(item, &path)),
                },
                Seen::Below(SourceEntry { node: SourceNode::Symlink { target: text }, .. }) => {
                    target = Some(text)
                }
                Seen::Below(SourceEntry { node: SourceNode::Dir, meta, .. }) => {
                    self.make_dir(&path, meta, true)?
                }
                Seen::Below(_) => return Err(not_a_dir(item, &path)),
                Seen::Nothing if from_link && self.plain => {
                    return Err(refuse(item, "a symbolic link on the way to it leads nowhere"));
                }
                Seen::Nothing => {
                    let mtime = item.mtime;
                    self.make_dir(&path, Meta { mode: 0o755, mtime, ..Meta::default() }, false)?;
                }
            }
            let Some(target) = target else {
                here = path;
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(refuse(item, "there are too many symbolic links on the way to it"));
            }
            if target.starts_with(b"/") {
                here = TreePath::root();
            }
            let parts = target.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
            for (at, part) in parts.enumerate() {
                todo.insert(at, part.to_vec());
                linked += 1;
            }
        }
        Ok(here)
    }

    fn make_dir(&mut self, path: &TreePath, meta: Meta, shows: bool) -> Result<(), LayerError> {
        self.disk.make_dir(path)?;
        self.slots.insert(path.clone(), Slot::new(meta, What::Dir { opaque: false, shows }));
        Ok(())
    }

    /// Settles whiteouts and directories, and tells what the layer holds.
    pub(super) fn finish(mut self, writers: &mut Writers<'_>) -> Result<Diff, LayerError> {
        writers.wait()?;
        self.settle(writers);
        self.hide_root()?;
        let mut deleted = Vec::new();
        for path in std::mem::take(&mut self.whiteouts) {
            match self.slots.get_mut(&path) {
                // what this layer itself puts there stays; a directory must not merge with the deleted one
                Some(Slot { what: What::Dir { opaque, .. }, .. }) => *opaque = true,
                Some(_) => {}
                None => {
                    self.disk.whiteout(&path)?;
                    deleted.push(path);
                }
            }
        }
        // from the deepest up, so that nothing below changes a time or needs a mode that is gone
        for (path, slot) in self.slots.iter().rev() {
            if let What::Dir { opaque, .. } = slot.what {
                self.disk.finish_dir(path, &slot.meta(), opaque)?;
            }
        }
        let mut first: HashMap<u32, TreePath> = HashMap::new();
        let mut deleted = deleted.into_iter().peekable();
        let mut slots = self.slots.into_iter().peekable();
        Ok(std::iter::from_fn(|| {
            let whiteout = |path| Entry { path, meta: Meta::default(), node: Node::Whiteout };
            let Some((next, _)) = slots.peek() else { return deleted.next().map(whiteout) };
            if let Some(path) = deleted.next_if(|path| path < next) {
                return Some(whiteout(path));
            }
            let (path, slot) = slots.next()?;
            let meta = slot.meta();
            let node = match slot.what {
                What::Dir { opaque, .. } => Node::Dir { opaque },
                What::Symlink(target) => Node::Symlink { target: target.into_vec() },
                What::Char(major, minor) => Node::CharDevice { major, minor },
                What::Block(major, minor) => Node::BlockDevice { major, minor },
                What::Fifo => Node::Fifo,
                What::File(number) => match first.get(&number) {
                    Some(target) => Node::Hardlink { target: target.clone() },
                    None => {
                        let Body { size, content, several_names } = self.bodies[number as usize];
                        if several_names {
                            first.insert(number, path.clone());
                        }
                        let content = content.expect("all writers have reported");
                        Node::File { size, content }
                    }
                },
            };
            Some(Entry { path, meta, node })
        })
        .collect())
    }

    /// overlayfs never hides anything below the root, so an opaque root deletes by name.
    fn hide_root(&mut self) -> Result<(), LayerError> {
        if let (true, Some(parent)) = (self.root_opaque, self.parent) {
            let root = TreePath::root();
            let below = parent.list(&root).map_err(LayerError::io("list", &root))?;
            self.whiteouts.extend(below.into_iter().map(|(name, _)| root.child(&name)));
        }
        Ok(())
    }
}

fn meta(item: &Item) -> Meta {
    Meta { mode: item.mode, uid: item.uid, gid: item.gid, mtime: item.mtime, xattrs: item.xattrs.clone() }
}

fn not_a_dir(item: &Item, path: &TreePath) -> LayerError {
    refuse(item, &format!("{path} on the way to it is not a directory"))
}
