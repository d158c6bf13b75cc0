//! Which files somebody opens, told by the kernel (inotify): a read that should not happen shows, however short it is.

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Notes what is opened in the directories that are there when it is made.
pub(crate) struct Watch {
    inotify: OwnedFd,
    dirs: HashMap<i32, PathBuf>,
}

/// What was opened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Opened {
    pub(crate) path: PathBuf,
    pub(crate) is_dir: bool,
}

impl Watch {
    /// Watches directories and all below them.
    pub(crate) fn below(roots: &[PathBuf]) -> Self {
        let inotify =
            inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).expect("the kernel has inotify");
        let mut watch = Self { inotify, dirs: HashMap::new() };
        for root in roots {
            watch.add(root);
        }
        // what looking around has opened does not count
        watch.opened();
        watch
    }

    fn add(&mut self, dir: &Path) {
        let number = inotify::add_watch(&self.inotify, dir, WatchFlags::OPEN | WatchFlags::ONLYDIR);
        self.dirs.insert(number.expect("a directory can be watched"), dir.to_owned());
        for entry in std::fs::read_dir(dir).expect("a directory can be listed").flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.add(&entry.path());
            }
        }
    }

    /// Gives what has been opened since the last call, sorted, each once.
    pub(crate) fn opened(&mut self) -> Vec<Opened> {
        let mut out = Vec::new();
        let mut space = vec![MaybeUninit::uninit(); 64 << 10];
        let mut events = inotify::Reader::new(&self.inotify, &mut space);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::WOULDBLOCK) => break,
                Err(e) => panic!("inotify: {e}"),
            };
            assert!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW), "too much happened to be noted");
            // what happens to a watched directory itself its parent tells, too
            let (Some(dir), Some(name)) = (self.dirs.get(&event.wd()), event.file_name()) else { continue };
            let path = dir.join(OsStr::from_bytes(name.to_bytes()));
            out.push(Opened { path, is_dir: event.events().contains(ReadFlags::ISDIR) });
        }
        out.sort();
        out.dedup();
        out
    }
}

/// Says which of the opened files hold what a layer is made of: files of a snapshot or shared bodies, and blobs that are
/// no documents.
pub(crate) fn layer_contents(opened: &[Opened], store: &Path) -> Vec<PathBuf> {
    let is_content = |path: &Path| {
        let Ok(rel) = path.strip_prefix(store) else { return false };
        let parts: Vec<_> = rel.components().map(|part| part.as_os_str()).collect();
        match parts.first().and_then(|part| part.to_str()) {
            Some("snapshots") => parts.get(2).is_some_and(|part| *part == "fs"),
            Some("files") => true,
            Some("images") => rel.starts_with("images/blobs") && !is_document(path),
            _ => false,
        }
    };
    let files = opened.iter().filter(|one| !one.is_dir && is_content(&one.path));
    files.map(|one| one.path.clone()).collect()
}

fn is_document(blob: &Path) -> bool {
    let text = std::fs::read(blob).unwrap_or_default();
    serde_json::from_slice::<serde_json::Value>(&text).is_ok()
}
