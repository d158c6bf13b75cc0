//! Whether the kernel runs programs of another platform through an emulator.

use crate::platform::Platform;

/// Says whether an emulator for the platform is registered and enabled (binfmt_misc).
pub(super) fn is_registered(platform: &Platform) -> bool {
    let Some(machine) = machine(&platform.architecture) else { return false };
    let Ok(entries) = std::fs::read_dir("/proc/sys/fs/binfmt_misc") else { return false };
    entries
        .flatten()
        .any(|entry| std::fs::read_to_string(entry.path()).is_ok_and(|text| is_emulator_of(&text, machine)))
}

/// The `e_machine` field of the ELF header (elf.h), little endian as it stands in the file.
fn machine(architecture: &str) -> Option<[u8; 2]> {
    Some(match architecture {
        "386" => [3, 0],
        "ppc64le" => [21, 0],
        "s390x" => [0, 22],
        "arm" => [40, 0],
        "amd64" => [62, 0],
        "arm64" => [183, 0],
        "riscv64" => [243, 0],
        "loong64" => [2, 1],
        _ => return None,
    })
}

/// Reads one entry: `enabled` and a `magic` whose bytes 18 and 19 are the machine.
fn is_emulator_of(entry: &str, machine: [u8; 2]) -> bool {
    let enabled = entry.lines().next() == Some("enabled");
    let magic = entry.lines().find_map(|l| l.strip_prefix("magic "));
    enabled && magic.and_then(|m| m.get(36..40)).is_some_and(|m| m == crate::digest::hex(&machine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_by_its_magic() {
        let entry = "enabled\ninterpreter /usr/bin/qemu-aarch64\nflags: F\noffset 0\n\
            magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";
        assert!(is_emulator_of(entry, [183, 0]));
        assert!(!is_emulator_of(entry, [40, 0]));
        assert!(!is_emulator_of(&entry.replacen("enabled", "disabled", 1), [183, 0]));
    }
}
