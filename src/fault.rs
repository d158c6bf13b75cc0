//! Points at which a test ends the process as `kill -9` would: between any two things that must not come apart.
//!
//! A debug build that finds `RBUILD_FAULT="NAME [LABEL][@N]"` in its environment kills itself when it passes that point
//! for the Nth time (the first if nothing is said); `RBUILD_FAULT_TRACE=FILE` appends a line for every point that is passed.
//! The label says what is being worked on: a path below the store, with `*` for what differs from store to store. A release
//! build has none of it.
//!
//! Signals at random moments find what nobody thought of, and seldom the narrow places; these are the narrow places.

use std::path::Path;

/// Every point there is. A test compares this list with the sources, and passes each of them.
pub const POINTS: &[&str] = &[
    "store.temp_dir.made",
    "store.file.staged",
    "store.file.written",
    "store.file.synced",
    "store.file.before_rename",
    "store.file.renamed",
    "store.file.dir_synced",
    "store.blob.checked",
    "store.blob.synced",
    "store.blob.adopted",
    "store.blob.before_remove",
    "store.blob.removed",
    "store.body.filled",
    "store.body.kept",
    "store.body.removed",
    "snapshot.prepared",
    "snapshot.tree_written",
    "snapshot.record_written",
    "snapshot.renamed",
    "snapshot.before_alias",
    "snapshot.aliased",
    "snapshot.aliases_gone",
    "snapshot.buried",
    "cache.before_record",
    "cache.recorded",
    "index.before_insert",
    "index.inserted",
    "index.flushed",
    "image.before_list",
    "image.listed",
    "image.unlisted",
    "image.swept",
    "image.pending_assembled",
    "image.pending_replaced",
    "load.blobs_kept",
    "load.layers_kept",
    "load.documents_kept",
    "pull.layer_fetched",
    "pull.layer_unpacked",
    "pull.before_finish",
    "push.layer_sent",
    "push.before_manifest",
    "push.manifest_sent",
    "gc.snapshots_gone",
    "gc.bodies_gone",
    "gc.records_gone",
    "gc.blobs_gone",
    "container.staged",
    "container.record_written",
    "container.name_taken",
    "container.renamed",
    "container.monitor_locked",
    "container.joined",
    "container.spawned",
    "container.running",
    "container.ended",
    "container.before_remove",
    "container.network_left",
    "container.name_free",
    "container.buried",
    "volume.described",
    "volume.made",
    "volume.filled",
    "volume.filled_renamed",
    "volume.buried",
    "network.written",
    "network.synced",
    "network.renamed",
];

/// Passes a point.
#[inline]
pub(crate) fn point(name: &'static str) {
    #[cfg(debug_assertions)]
    active::pass(name, None);
    let _ = name;
}

/// Passes a point with a file that is worked on.
#[inline]
pub(crate) fn point_at(name: &'static str, path: &Path) {
    #[cfg(debug_assertions)]
    active::pass(name, Some(path));
    let _ = (name, path);
}

#[cfg(debug_assertions)]
mod active {
    use std::fs::File;
    use std::io::Write;
    use std::path::{Path, PathBuf};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Settings {
        root: PathBuf,
        /// The text of a point and its label, and which pass of it ends the process.
        deadly: Option<(String, u32)>,
        passed: AtomicU32,
        trace: Option<File>,
    }

    impl Settings {
        fn read() -> Self {
            let deadly = std::env::var("RBUILD_FAULT").ok().map(|text| match text.rsplit_once('@') {
                Some((point, nth)) => (point.to_owned(), nth.parse().unwrap_or(1)),
                None => (text, 1),
            });
            let trace = std::env::var_os("RBUILD_FAULT_TRACE");
            let trace = trace.and_then(|path| File::options().append(true).create(true).open(path).ok());
            let root = std::env::var_os("RBUILD_ROOT").map(PathBuf::from).unwrap_or_default();
            let root = root.canonicalize().unwrap_or(root);
            Self { root, deadly, passed: AtomicU32::new(0), trace }
        }
    }

    pub(super) fn pass(name: &'static str, path: Option<&Path>) {
        static SETTINGS: OnceLock<Settings> = OnceLock::new();
        let settings = SETTINGS.get_or_init(Settings::read);
        if settings.deadly.is_none() && settings.trace.is_none() {
            return;
        }
        let text = match path {
            Some(path) => format!("{name} {}", label(path.strip_prefix(&settings.root).unwrap_or(path))),
            None => name.to_owned(),
        };
        if let Some(mut trace) = settings.trace.as_ref() {
            // a test sees what is missing
            let _ = trace.write_all(format!("{text}\n").as_bytes());
        }
        if let Some((point, nth)) = &settings.deadly
            && *point == text
            && settings.passed.fetch_add(1, Ordering::SeqCst) + 1 == *nth
        {
            if let Some(mut trace) = settings.trace.as_ref() {
                let _ = trace.write_all(format!("killed at {text}\n").as_bytes());
            }
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            // the signal takes this thread, too, before it does anything more
            loop {
                std::thread::park();
            }
        }
    }

    /// Puts a star for each part that is random or a digest.
    fn label(path: &Path) -> String {
        let part = |part: std::path::Component<'_>| {
            let text = part.as_os_str().to_string_lossy().into_owned();
            let stem = text.split('.').find(|word| !word.is_empty()).unwrap_or("");
            let random = |word: &str| word.len() >= 2 && word.bytes().all(|b| b.is_ascii_hexdigit());
            match stem.rsplit_once('-') {
                Some((before, end)) if random(end) => text.replace(stem, &format!("{before}-*")),
                _ if random(stem) => text.replace(stem, "*"),
                _ => text,
            }
        };
        path.components().map(part).collect::<Vec<_>>().join("/")
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn labels_are_the_same_for_every_store() {
            for (path, want) in [
                ("images/blobs/sha256/0123456789abcdef", "images/blobs/sha256/*"),
                ("images/index.json", "images/index.json"),
                ("steps/ab/abcdef01", "steps/*/*"),
                ("snapshots/aa00/layer.json", "snapshots/*/layer.json"),
                ("tmp/file-00aa", "tmp/file-*"),
                ("containers/00ff/state.json", "containers/*/state.json"),
                ("networks/defined/.00ff.123", "networks/defined/.*.123"),
            ] {
                assert_eq!(label(Path::new(path)), want);
            }
        }
    }
}
