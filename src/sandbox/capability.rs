//! Capability sets as a bit mask: the kernel's numbers, docker's names.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A set of capabilities; bit N is capability N of linux/capability.h.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapSet(pub u64);

/// Names by number, without the `CAP_` in front.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl CapSet {
    /// What docker gives an ordinary container: 14 capabilities.
    pub const DEFAULT: Self = Self(0xa804_25fb);
    /// None.
    pub const EMPTY: Self = Self(0);
    /// All that have a name; what the kernel does not know is left out when the set is applied.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// Reads one name with or without `CAP_`, in any case; `ALL` is the whole set.
    pub fn parse(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if bare == "ALL" {
            return Some(Self::ALL);
        }
        NAMES.iter().position(|n| *n == bare).map(|bit| Self(1 << bit))
    }

    /// Applies `--cap-add` and `--cap-drop` as docker does: `ALL` first, then what is dropped, then what is added.
    pub fn adjusted(self, add: Self, drop: Self) -> Self {
        match (add == Self::ALL, drop == Self::ALL) {
            (true, _) => Self(Self::ALL.0 & !(if drop == Self::ALL { 0 } else { drop.0 })),
            (false, true) => add,
            (false, false) => Self((self.0 & !drop.0) | add.0),
        }
    }

    /// Joins two sets.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Says whether capability number `bit` is in.
    pub fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }

    /// Lists the names, `CAP_` in front, lowest number first.
    pub fn names(self) -> Vec<String> {
        (0..64)
            .filter(|bit| self.has(*bit))
            .map(|bit| NAMES.get(bit as usize).map_or_else(|| format!("CAP_{bit}"), |n| format!("CAP_{n}")))
            .collect()
    }
}

impl fmt::Debug for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CapSet({:#x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree_with_the_kernel() {
        for (name, bit) in
            [("CHOWN", 0), ("cap_net_admin", 12), ("SYS_ADMIN", 21), ("CAP_CHECKPOINT_RESTORE", 40)]
        {
            assert_eq!(CapSet::parse(name), Some(CapSet(1 << bit)), "{name}");
        }
        assert_eq!(CapSet::parse("NOPE"), None);
        assert_eq!(CapSet::DEFAULT.names().len(), 14);
        assert!(CapSet::DEFAULT.names().contains(&"CAP_SETFCAP".to_owned()));
    }

    #[test]
    fn adding_and_dropping_follow_docker() {
        let (admin, chown) = (CapSet(1 << 21), CapSet(1));
        let base = CapSet::DEFAULT;
        assert_eq!(base.adjusted(admin, chown), CapSet((base.0 | 1 << 21) & !1));
        assert_eq!(base.adjusted(chown, CapSet::ALL), chown);
        assert_eq!(base.adjusted(CapSet::ALL, chown), CapSet(CapSet::ALL.0 & !1));
        assert_eq!(base.adjusted(CapSet::EMPTY, CapSet::EMPTY), base);
    }
}
