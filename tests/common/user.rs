//! The ordinary user of the rootless tests.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// An account that is not root.
pub(crate) struct User {
    uid: u32,
    gid: u32,
    name: String,
}

impl User {
    /// The user that `scripts/setup` creates, when it is there.
    pub(crate) fn for_tests() -> Option<Self> {
        Self::named("rbuild-test")
    }

    fn named(name: &str) -> Option<Self> {
        let user = nix::unistd::User::from_name(name).ok()??;
        Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), name: user.name })
    }

    /// A user with a number alone, as a container of a build cluster may run as.
    pub(crate) fn without_name(id: u32) -> Self {
        Self { uid: id, gid: id, name: id.to_string() }
    }

    /// Gives a file or directory to the user.
    pub(crate) fn own(&self, path: &Path) {
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid)).expect("root may give files away");
    }

    /// Makes `command` run as the user, with no group of root's left.
    pub(crate) fn become_in(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid).env("USER", &self.name).env("LOGNAME", &self.name);
    }
}
