//! Which cgroups this machine has, and which part of them is ours: trees of both versions, what was delegated, why not.

use super::Version;
use crate::sandbox::host::in_user_namespace;
use crate::sandbox::scope;
use std::fs;
use std::path::{Path, PathBuf};

pub(in crate::sandbox) const DELEGATION: &str = "as an ordinary user this needs a delegated cgroup: start rbuild with `systemd-run --user --scope -p \
     Delegate=yes`, or leave the limit out";

/// Where each controller is mounted and which part of its tree is ours.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Tree {
    /// Controller and directory.
    one: Vec<(String, PathBuf)>,
    two: Option<PathBuf>,
    /// Where version 2 is mounted.
    root: Option<PathBuf>,
    /// Why the user's systemd gave us no cgroup.
    refused: Option<String>,
}

impl Tree {
    pub(in crate::sandbox) fn read() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut tree = Self::default();
        for line in mounts.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let point = left.split(' ').nth(4).map(PathBuf::from);
            let mut kind = right.split(' ');
            match (kind.next(), kind.nth(1), point) {
                (Some("cgroup2"), _, Some(point)) if tree.two.is_none() => tree.two = Some(point),
                (Some("cgroup"), Some(options), Some(point)) => {
                    tree.one.extend(options.split(',').map(|name| (name.to_owned(), point.clone())));
                }
                _ => {}
            }
        }
        tree.root = tree.two.clone();
        tree.two =
            tree.two.map(|root| if is_writable(&root) { root } else { delegated(&root).unwrap_or(root) });
        tree
    }

    /// The same for whoever is about to put processes into cgroups: an ordinary user in a place that was not delegated
    /// has systemd make one, and this process and `others` move there.
    pub(in crate::sandbox) fn read_for(others: &[u32]) -> Self {
        let tree = Self::read();
        if !tree.is_out_of_reach() {
            return tree;
        }
        match scope::enter(others) {
            Ok(()) => Self::read(),
            Err(e) => Self { refused: Some(e.to_string()), ..tree },
        }
    }

    /// Says whether there are controllers of version 2 which this user has not been given.
    fn is_out_of_reach(&self) -> bool {
        self.two.as_ref().is_some_and(|dir| {
            in_user_namespace() && !is_writable(dir) && !list(dir, "cgroup.controllers").is_empty()
        })
    }

    /// Gives the directory of version 2 that this process is in.
    pub(in crate::sandbox) fn own_place(&self) -> PathBuf {
        let root = self.root.clone().unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        own.lines().find_map(|line| line.strip_prefix("0::/")).map_or(root.clone(), |own| root.join(own))
    }

    /// What to do about a cgroup that cannot be had, after the reason; nothing for root.
    pub(super) fn advice(&self) -> String {
        match &self.refused {
            _ if !in_user_namespace() => String::new(),
            None => format!("; {DELEGATION}"),
            Some(why) => format!(
                "; as an ordinary user this needs a cgroup from the user's systemd: {why}. Log in over ssh or at the \
                 console rather than with su, or have root run `loginctl enable-linger` for this user, or leave the limit out"
            ),
        }
    }

    /// Finds the directory below which a controller can be used. That for disks has two names.
    pub(in crate::sandbox) fn place(&self, controller: &str) -> Option<(Version, PathBuf)> {
        if let Some(two) = &self.two
            && list(two, "cgroup.controllers")
                .iter()
                .any(|c| c == if controller == "blkio" { "io" } else { controller })
        {
            return Some((Version::Two, two.clone()));
        }
        self.one.iter().find(|(name, _)| name == controller).map(|(_, dir)| (Version::One, dir.clone()))
    }

    /// Finds a freezer: whether it is version 2, and the directory below which it can be used.
    pub(in crate::sandbox) fn freezer(&self) -> Option<(bool, PathBuf)> {
        let one = self.one.iter().find(|(name, _)| name == "freezer").map(|(_, dir)| (false, dir.clone()));
        one.or_else(|| self.two.clone().map(|dir| (true, dir)))
    }

    pub(super) fn why_not(&self, controller: &str) -> String {
        match (&self.two, self.one.is_empty()) {
            (None, true) => "no cgroup file system is mounted; leave the limit out".to_owned(),
            (Some(dir), _) if in_user_namespace() && self.refused.is_none() && is_writable(dir) => format!(
                "the controller {controller:?} is not delegated to this user: have root write the lines `[Service]` and \
                 `Delegate=cpu cpuset io memory pids` to /etc/systemd/system/user@.service.d/delegate.conf, run \
                 `systemctl daemon-reload`, and log in again; or leave the limit out"
            ),
            (Some(dir), _) => {
                format!(
                    "the controller {controller:?} is not available in {}{}",
                    dir.display(),
                    self.advice()
                )
            }
            (None, false) => format!("this kernel has no controller {controller:?}; leave the limit out"),
        }
    }

    /// The controllers that a directory of version 2 can pass on, as `+name` words.
    pub(super) fn controllers(&self, dir: &Path) -> String {
        let wanted = ["cpu", "cpuset", "io", "memory", "pids"];
        let here = list(dir, "cgroup.controllers");
        let have: Vec<_> =
            wanted.iter().filter(|w| here.iter().any(|h| h == *w)).map(|w| format!("+{w}")).collect();
        have.join(" ")
    }

    /// Describes what is there in a few words.
    pub(in crate::sandbox) fn describe(&self) -> (bool, String) {
        let names = ["memory", "cpu", "pids", "cpuset"];
        let usable: Vec<String> = names
            .iter()
            .filter_map(|name| {
                self.place(name).filter(|(_, dir)| is_writable(dir)).map(|(version, _)| (name, version))
            })
            .map(|(name, version)| format!("{name} (v{})", if version == Version::One { 1 } else { 2 }))
            .collect();
        if usable.is_empty() && self.is_out_of_reach() && scope::can_be_had() {
            return (true, "those that the user's systemd gives (v2)".to_owned());
        }
        (!usable.is_empty(), if usable.is_empty() { "none usable".to_owned() } else { usable.join(", ") })
    }
}

/// The topmost directory above our own cgroup that we may write to.
fn delegated(root: &Path) -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    let own = root.join(own);
    own.ancestors()
        .take_while(|dir| dir.starts_with(root))
        .filter(|dir| is_writable(dir))
        .last()
        .map(Path::to_owned)
}

fn is_writable(dir: &Path) -> bool {
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
        && rustix::fs::access(dir.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).is_ok()
}

fn list(dir: &Path, file: &str) -> Vec<String> {
    let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_controller_is_an_error_with_a_way_out() {
        let why = Tree::default().why_not("memory");
        assert!(why.contains("leave the limit out"), "{why}");
    }
}
