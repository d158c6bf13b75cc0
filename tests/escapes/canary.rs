//! Files of the host that an attack would like to reach, and a close look at them afterwards.

use crate::common::TestSpace;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What the space holds besides.
const OWN: [&str; 12] = [
    "home",
    "tmp",
    "run",
    "store",
    "rbuild",
    "outside",
    "ctx",
    "busybox.tar",
    "evil.tar",
    "out",
    "iid",
    "scratch",
];

/// A directory `outside` in a space, planted before an attack.
pub(crate) struct Canary {
    space: PathBuf,
    before: Vec<String>,
}

impl Canary {
    /// Makes the directory and remembers all that can be known of it.
    pub(crate) fn plant(space: &TestSpace) -> Self {
        space.mkdir("outside/dir");
        let secret = space.write("outside/secret", "the host's own\n");
        space.write("outside/dir/inner", "inner\n");
        // as mount points look that rbuild has made
        space.mkdir("outside/dir/er/empty");
        let stub = space.write("outside/dir/er/f", "");
        fs::set_permissions(&stub, fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("secret", space.path("outside/link")).unwrap();
        let space = space.path("");
        let before = look(&space.join("outside"));
        Self { space, before }
    }

    /// The absolute path of a file in it.
    pub(crate) fn path(&self, rel: &str) -> String {
        self.space.join("outside").join(rel).display().to_string()
    }

    /// The same by enough `..` from anywhere.
    pub(crate) fn dotted(&self, rel: &str) -> String {
        format!("{}{}", "../".repeat(30), self.path(rel).trim_start_matches('/'))
    }

    /// Insists that nothing was changed, read-marked as changed, linked, added or taken away.
    #[track_caller]
    pub(crate) fn assert_untouched(&self, what: &str) {
        let now = look(&self.space.join("outside"));
        assert_eq!(self.before, now, "after {what}");
        let strange: Vec<OsString> = fs::read_dir(&self.space)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| !OWN.iter().any(|own| name == *own))
            .collect();
        assert!(strange.is_empty(), "{what} left {strange:?}");
    }
}

/// One line for everything below a directory: the change time tells of attributes, owners and links, too.
fn look(dir: &Path) -> Vec<String> {
    let (mut todo, mut lines) = (vec![dir.to_owned()], Vec::new());
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata().unwrap();
        let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        lines.push(format!(
            "{} ino {} mode {:o} owner {}:{} links {} mtime {}.{} ctime {}.{} {:?} {:?}",
            path.display(),
            meta.ino(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.nlink(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
            String::from_utf8_lossy(&content),
            fs::read_link(&path).ok(),
        ));
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    lines.sort();
    lines
}
