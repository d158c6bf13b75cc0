//! What the helper finds out once about the machine, so that no step has to.

use super::capability::CapSet;
use super::error::{Doing, SetupError};
use super::seccomp;
use crate::sys::process::{BpfInstruction, CloneFlags};
use nix::libc;
use std::fs::File;
use std::io;

/// The group of terminals on every common distribution.
const TTY_GROUP: u64 = 5;

/// Facts about this process and kernel that do not change while it lives.
#[derive(Debug)]
pub(super) struct Host {
    /// Root here is not root of the machine.
    pub in_userns: bool,
    /// Mounting is allowed.
    pub may_mount: bool,
    /// Capabilities that can be handed on.
    pub permitted: u64,
    /// Highest capability that the kernel knows.
    pub last_cap: u32,
    /// Whether group 5 exists here.
    pub tty_group: bool,
    /// Whether `/sys/fs/cgroup` is the one cgroup 2 tree.
    pub cgroup2: bool,
    /// The mounts of the machine themselves, of which this process may have a copy; for binds that are shared with it.
    pub mounts: Option<File>,
    /// Whether each pid namespace has a highest number of its own (Linux 6.14); before that it is the machine's.
    pub counts_pids: bool,
    /// The filter for the default capabilities, which nearly every process has.
    filter: Vec<BpfInstruction>,
}

impl Host {
    pub(super) fn look() -> Self {
        let permitted = rustix::thread::capabilities(None).map_or(0, |sets| sets.permitted.bits());
        let last_cap = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap");
        let cgroup = rustix::fs::statfs("/sys/fs/cgroup").map(|fs| fs.f_type);
        Self {
            in_userns: in_user_namespace(),
            may_mount: permitted >> 21 & 1 == 1,
            permitted,
            last_cap: last_cap.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(40),
            tty_group: map_has("/proc/self/gid_map", TTY_GROUP),
            cgroup2: cgroup.is_ok_and(|kind| kind == libc::CGROUP2_SUPER_MAGIC),
            mounts: None,
            counts_pids: kernel() >= (6, 14),
            filter: seccomp::profile(CapSet::DEFAULT),
        }
    }

    /// Gives the filter for a process with these capabilities.
    pub(super) fn filter(&self, caps: CapSet) -> std::borrow::Cow<'_, [BpfInstruction]> {
        if caps == CapSet::DEFAULT { (&self.filter[..]).into() } else { seccomp::profile(caps).into() }
    }

    /// Says why new namespaces were refused.
    pub(super) fn explain_clone(&self, flags: CloneFlags, error: &io::Error) -> SetupError {
        let doing = || format!("make new namespaces (flags {:#x})", flags.bits());
        let error = match Err::<(), _>(io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(0)))
            .doing(doing)
        {
            Err(e) => e,
            Ok(()) => return SetupError::new(doing(), error.to_string()),
        };
        match error.errno {
            Some(libc::EPERM) if !self.may_mount => error.hint(
                "this process has no CAP_SYS_ADMIN; run as an ordinary user for rootless mode, or as root",
            ),
            Some(libc::ENOSPC) => error.hint("the limits user.max_*_namespaces are reached"),
            Some(libc::EAGAIN) => error.hint("the limit of processes is reached (ulimit -u, pids cgroup)"),
            _ => error,
        }
    }
}

/// Gives the kernel's version, `(0, 0)` where it cannot be read.
fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let mut numbers =
        name.release().to_bytes().split(|b| !b.is_ascii_digit()).map(|digits| {
            std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
        });
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Says whether this process lives in a user namespace other than the machine's first.
pub(super) fn in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().ne(["0", "0", "4294967295"]))
}

fn map_has(file: &str, id: u64) -> bool {
    let Ok(map) = std::fs::read_to_string(file) else { return false };
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map_while(|n| n.parse::<u64>().ok());
        let (first, _, count) = (numbers.next(), numbers.next(), numbers.next());
        first.zip(count).is_some_and(|(first, count)| (first..first.saturating_add(count)).contains(&id))
    })
}
