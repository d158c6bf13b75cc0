//! The file tree that an image's layers make when they lie on each other, told in lines that can be compared.
//!
//! Modification times are left out: they differ between builds. What the base image has is left out as well, so that
//! the lines say what the build did.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::sync::Arc;

use serde_json::Value;
use tar::EntryType;

use super::archive::sha256;

/// Content up to so many bytes is shown as it is, when it is text.
const INLINE: usize = 400;
/// What the engine puts where its mounts of a step go; the base has none of these.
const STUBS: [&str; 4] = ["proc", "sys", "dev", "run"];

/// One file of any kind. Hard links share one.
#[derive(Debug, PartialEq, Eq)]
struct Node {
    kind: char,
    mode: u32,
    owner: (u64, u64),
    /// Content, target or device number, as it is shown.
    rest: String,
    xattrs: BTreeMap<String, String>,
}

/// A flattened file tree: paths as shown, nodes with the number of their layer.
#[derive(Debug, Default)]
pub(crate) struct Tree(BTreeMap<String, (Arc<Node>, usize)>);

impl Tree {
    /// Lays layers (uncompressed tars) on each other.
    pub(crate) fn of(layers: &[Vec<u8>]) -> Self {
        let mut tree = Self::default();
        for (n, layer) in layers.iter().enumerate() {
            tree.whiteouts(layer, n);
            tree.apply(layer, n);
        }
        tree
    }

    /// Whiteouts speak of earlier layers only, so they go first, wherever they stand in the tar.
    fn whiteouts(&mut self, layer: &[u8], n: usize) {
        for_each(layer, |entry| {
            let path = path_of(&entry.path_bytes());
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if name == ".wh..wh..opq" {
                let below = if dir.is_empty() { String::new() } else { format!("{dir}/") };
                self.0.retain(|p, (_, layer)| *layer >= n || !p.starts_with(&below));
            } else if let Some(name) = name.strip_prefix(".wh.") {
                let gone = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
                self.remove(&gone, n);
            }
        });
    }

    fn apply(&mut self, layer: &[u8], n: usize) {
        for_each(layer, |entry| {
            let path = path_of(&entry.path_bytes());
            let name = path.rsplit_once('/').map_or(path.as_str(), |(_, name)| name);
            if path.is_empty() || name.starts_with(".wh.") {
                return;
            }
            let node = if entry.header().entry_type() == EntryType::Link {
                let target = path_of(&entry.link_name_bytes().expect("a hard link's target"));
                Arc::clone(&self.0.get(&target).unwrap_or_else(|| panic!("{path} links to no {target}")).0)
            } else {
                Arc::new(node(entry))
            };
            if node.kind != 'd' || self.0.get(&path).is_some_and(|(old, _)| old.kind != 'd') {
                self.remove(&path, usize::MAX);
            }
            let parent = path.rsplit_once('/').map(|(dir, _)| dir);
            assert!(
                parent.is_none_or(|dir| self.0.get(dir).is_some_and(|(dir, _)| dir.kind == 'd')),
                "{path} has no directory in its layer or below"
            );
            self.0.insert(path, (node, n));
        });
    }

    fn remove(&mut self, path: &str, below_layer: usize) {
        let inside = format!("{path}/");
        self.0.retain(|p, (_, layer)| *layer >= below_layer || p != path && !p.starts_with(&inside));
    }

    /// The groups of paths that are one file.
    fn links(&self) -> Vec<Vec<&str>> {
        let mut groups: BTreeMap<*const Node, Vec<&str>> = BTreeMap::new();
        for (path, (node, _)) in &self.0 {
            groups.entry(Arc::as_ptr(node)).or_default().push(path);
        }
        let mut groups: Vec<_> = groups.into_values().filter(|group| group.len() > 1).collect();
        groups.sort();
        groups
    }

    /// One line for each path that differs from `base`, for what is gone, and for each new group of hard links.
    pub(crate) fn lines(&self, base: &Self) -> Vec<String> {
        let same = |path: &String, node: &Arc<Node>| base.0.get(path).is_some_and(|(old, _)| old == node);
        let gone = base.0.keys().filter(|path| {
            let above = path.rsplit_once('/').map(|(dir, _)| dir);
            !self.0.contains_key(*path) && above.is_none_or(|dir| self.0.contains_key(dir))
        });
        let mut lines: Vec<String> = gone.map(|path| format!("removed {path}")).collect();
        let changed =
            self.0.iter().filter(|(path, (node, _))| !same(path, node) && !self.is_stub(path, base));
        lines.extend(changed.map(|(path, (node, _))| line(path, node)));
        let old = base.links();
        let new = self.links().into_iter().filter(|group| !old.contains(group));
        lines.extend(new.map(|group| format!("links {}", group.join(" "))));
        lines
    }

    fn is_stub(&self, path: &str, base: &Self) -> bool {
        let empty_dir = |path: &str| {
            let inside = format!("{path}/");
            !self.0.keys().any(|p| p.starts_with(&inside))
        };
        !base.0.contains_key(path) && STUBS.contains(&path) && empty_dir(path)
    }
}

fn for_each(layer: &[u8], mut visit: impl FnMut(&mut tar::Entry<'_, &[u8]>)) {
    for entry in tar::Archive::new(layer).entries().expect("a layer is a tar") {
        visit(&mut entry.expect("a whole tar entry"));
    }
}

/// A path as it is shown: without slashes at the ends, odd bytes as `\xHH`.
fn path_of(bytes: &[u8]) -> String {
    let parts = bytes.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(shown).collect::<Vec<_>>().join("/")
}

fn shown(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        match b {
            0x21..=0x7e if *b != b'\\' => text.push(char::from(*b)),
            _ => write!(text, "\\x{b:02x}").expect("a string takes all"),
        }
        text
    })
}

fn node(entry: &mut tar::Entry<'_, &[u8]>) -> Node {
    let header = entry.header();
    let (kind, mode) = (header.entry_type(), header.mode().expect("a mode") & 0o7777);
    let device = || {
        let number = |part: std::io::Result<Option<u32>>| part.ok().flatten().expect("a device number");
        format!("{},{}", number(header.device_major()), number(header.device_minor()))
    };
    let (kind, mut rest) = match kind {
        EntryType::Directory => ('d', String::new()),
        EntryType::Symlink => {
            ('l', format!("-> {}", shown(&entry.link_name_bytes().expect("a link's target"))))
        }
        EntryType::Char => ('c', device()),
        EntryType::Block => ('b', device()),
        EntryType::Fifo => ('p', String::new()),
        _ => ('f', String::new()),
    };
    let owner = (header.uid().expect("an owner"), header.gid().expect("a group"));
    let mut xattrs = BTreeMap::new();
    let mut large = (None, None);
    for pax in entry.pax_extensions().expect("pax records").into_iter().flatten().flatten() {
        let Ok(key) = pax.key() else { continue };
        if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
            let value = pax.value_bytes().iter().map(|b| format!("{b:02x}")).collect();
            xattrs.insert(name.to_owned(), value);
        }
        match (key, pax.value()) {
            ("uid", Ok(value)) => large.0 = value.parse().ok(),
            ("gid", Ok(value)) => large.1 = value.parse().ok(),
            _ => {}
        }
    }
    if kind == 'f' {
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("an entry's content");
        rest = match std::str::from_utf8(&content) {
            Ok(text) if text.len() <= INLINE && !text.contains('\0') => Value::from(text).to_string(),
            _ => format!("{} {}", content.len(), sha256(&content)),
        };
    }
    let owner = (large.0.unwrap_or(owner.0), large.1.unwrap_or(owner.1));
    Node { kind, mode, owner, rest, xattrs }
}

fn line(path: &str, node: &Node) -> String {
    let mode = if node.kind == 'l' { "-".to_owned() } else { format!("{:04o}", node.mode) };
    let mut line = format!("{} {mode} {}:{} {path}", node.kind, node.owner.0, node.owner.1);
    if !node.rest.is_empty() {
        write!(line, " {}", node.rest).expect("a string takes all");
    }
    for (name, value) in &node.xattrs {
        write!(line, " {name}={value}").expect("a string takes all");
    }
    line
}

/// The parts of a config that a Dockerfile decides, one line each.
pub(crate) fn config_lines(config: &Value) -> Vec<String> {
    let mut parts = BTreeMap::new();
    for (key, value) in config["config"].as_object().into_iter().flatten() {
        let mut value = value.clone();
        if matches!(key.as_str(), "ExposedPorts" | "Volumes")
            && let Some(all) = value.as_object()
        {
            let mut names: Vec<_> = all.keys().cloned().collect();
            names.sort();
            value = names.into();
        }
        if key == "Env"
            && let Some(all) = value.as_array_mut()
        {
            all.sort_by_key(Value::to_string);
        }
        parts.insert(key.clone(), value);
    }
    for key in ["author", "variant"] {
        parts.insert(key.to_owned(), config[key].clone());
    }
    parts.remove("ArgsEscaped");
    let said = |key: &str, value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty() && (key, text.as_str()) != ("WorkingDir", "/"),
        Value::Array(all) => !all.is_empty(),
        Value::Object(all) => !all.is_empty(),
        _ => true,
    };
    let told = parts.into_iter().filter(|(key, value)| said(key, value));
    told.map(|(key, value)| format!("config {key} {}", sorted(&value))).collect()
}

/// JSON with sorted keys, blanks after commas and colons.
fn sorted(value: &Value) -> String {
    match value {
        Value::Array(all) => format!("[{}]", all.iter().map(sorted).collect::<Vec<_>>().join(", ")),
        Value::Object(all) => {
            let all: BTreeMap<_, _> = all.iter().collect();
            let all: Vec<_> =
                all.into_iter().map(|(k, v)| format!("{}: {}", Value::from(k.as_str()), sorted(v))).collect();
            format!("{{{}}}", all.join(", "))
        }
        plain => plain.to_string(),
    }
}
