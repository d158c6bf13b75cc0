//! WORKDIR: one directory by the rules that COPY has for the directories on the way.

use super::apply::ApplyEnv;
use super::layout::{Change, Layout};
use super::{CopyError, Sources, owner, write};
use crate::tree::{Diff, SourceTree};
use std::path::Path;

/// Makes what is missing of a path, mode 0755, and tells what was written; links on the way are followed inside the
/// base. A user that the base does not know makes root's directories: as in BuildKit it is an error only when
/// something runs as that user.
pub fn make_directory(
    path: &str,
    user: Option<&str>,
    base: &dyn SourceTree,
    upper: &Path,
    env: &ApplyEnv<'_>,
) -> Result<Diff, CopyError> {
    let owner = user.and_then(|user| owner::lookup(user, base).ok());
    let mut layout = Layout::new(base, Change { owner, chmod: None }, env.now);
    let to = layout.target(path, None)?;
    layout.make_dirs(&to)?;
    let placed = layout.finish()?;
    write::write(&placed, placed.items(), &[], &Sources::paths(base), upper, &[], env)?;
    Ok(placed.diff())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Memory, p};
    use super::*;
    use crate::tree::Mtime;

    #[test]
    fn only_what_is_missing_belongs_to_the_user() {
        let base = Memory::new().dir("srv").link("link", "srv").file("etc/passwd", "app:x:7:8::/:/bin/sh\n");
        for (path, user, want) in [
            ("/srv", Some("app"), None),
            ("/link/a/b", Some("app"), Some(("srv/a", 7, 8))),
            ("/new", Some("5:6"), Some(("new", 5, 6))),
            ("/new", Some("nobody-here"), Some(("new", 0, 0))),
            ("/", None, None),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let upper = dir.path().join("upper");
            std::fs::create_dir(&upper).unwrap();
            let env = ApplyEnv {
                bodies: None,
                now: Mtime::default(),
                chown: false,
                scratch: dir.path(),
                limits: crate::layer::Limits::default(),
            };
            let diff = make_directory(path, user, &base, &upper, &env).unwrap();
            let Some((made, uid, gid)) = want else {
                assert!(diff.is_empty(), "{path}");
                continue;
            };
            let entry = diff.get(&p(made)).unwrap();
            assert_eq!((entry.meta.uid, entry.meta.gid, entry.meta.mode), (uid, gid, 0o755), "{path}");
        }
    }
}
