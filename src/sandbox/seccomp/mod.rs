//! The system call filter: the default profile of the docker engine as a program for the kernel.
//!
//! What is not listed fails with EPERM; calls newer than the profile fail with ENOSYS, so that programs fall back.
//! 32-bit x86 programs have their own numbers and run under the same rules. The usual crates make one linear program
//! for one architecture, which kills 32-bit programs and costs more at each start of a step; hence [`bpf`].

mod bpf;
mod custom;
mod table;

use super::capability::CapSet;
use crate::sys::process::BpfInstruction;
use bpf::Action;
use std::collections::BTreeMap;

pub use custom::SeccompProfile;

/// The condition on which a listed call is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Always,
    /// With at least one of these capabilities.
    With(u64),
    /// Without CAP_SYS_ADMIN only if it makes no namespace.
    CloneFlags,
    /// Its flags are in memory, where a filter cannot look: without CAP_SYS_ADMIN it does not exist.
    Clone3,
    /// Not the kernel's crypto and not the hypervisor's sockets.
    SocketFamily,
    /// Linux personalities only.
    Personality,
}

const ENOSYS: u16 = 38;
const EPERM: u16 = 1;
const SYS_ADMIN: u64 = 1 << 21;

/// All `CLONE_NEW*` flags of clone(2).
const NEW_NAMESPACES: u32 = 0x7e02_0000;
/// AF_ALG and AF_VSOCK.
const REFUSED_FAMILIES: &[u32] = &[38, 40];
const PERSONALITIES: &[u32] = &[0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// AUDIT_ARCH number and column of the table for each architecture that programs may have here.
#[cfg(target_arch = "x86_64")]
const ARCHES: &[(u32, usize)] = &[(0xc000_003e, 0), (0x4000_0003, 1)];
#[cfg(target_arch = "aarch64")]
const ARCHES: &[(u32, usize)] = &[(0xc000_00b7, 2)];
#[cfg(target_arch = "riscv64")]
const ARCHES: &[(u32, usize)] = &[(0xc000_00f3, 2)];

/// Compiles the profile for a process with these capabilities.
pub(super) fn profile(caps: CapSet) -> Vec<BpfInstruction> {
    let arches: Vec<_> = ARCHES.iter().map(|(arch, column)| (*arch, runs(*column, caps))).collect();
    bpf::program(&arches)
}

fn runs(column: usize, caps: CapSet) -> Vec<(u32, Action)> {
    let listed: BTreeMap<u32, Action> = table::CALLS
        .iter()
        .filter(|(_, _, numbers)| numbers[column] != table::NONE)
        .map(|(_, rule, numbers)| (numbers[column], action(*rule, caps)))
        .collect();
    let mut runs: Vec<(u32, Action)> = Vec::new();
    let mut push = |from: u32, action: Action| {
        if runs.last().is_none_or(|(_, last)| *last != action) {
            runs.push((from, action));
        }
    };
    for number in 0..=table::NEWEST {
        push(number, listed.get(&number).cloned().unwrap_or(Action::Fail(EPERM)));
    }
    push(table::NEWEST + 1, Action::Fail(ENOSYS));
    runs
}

fn action(rule: Rule, caps: CapSet) -> Action {
    let admin = caps.0 & SYS_ADMIN != 0;
    match rule {
        Rule::Always => Action::Allow,
        Rule::With(any) if caps.0 & any != 0 => Action::Allow,
        Rule::With(_) => Action::Fail(EPERM),
        Rule::CloneFlags | Rule::Clone3 if admin => Action::Allow,
        Rule::CloneFlags => Action::AllowUnlessFirstHas(NEW_NAMESPACES),
        Rule::Clone3 => Action::Fail(ENOSYS),
        Rule::SocketFamily => Action::AllowUnlessFirstIs(REFUSED_FAMILIES),
        Rule::Personality => Action::AllowIfFirstIs(PERSONALITIES),
    }
}

#[cfg(test)]
mod tests {
    use super::bpf::tests::run;
    use super::*;

    const ALLOW: u32 = 0x7fff_0000;
    const REFUSED: u32 = 0x0005_0001;
    const MISSING: u32 = 0x0005_0026;

    #[test]
    fn the_program_says_what_the_table_says() {
        for caps in [CapSet::DEFAULT, CapSet::EMPTY, CapSet::ALL] {
            let program = profile(caps);
            for (arch, column) in ARCHES {
                for (name, rule, numbers) in table::CALLS.iter().filter(|c| c.2[*column] != table::NONE) {
                    let want = match action(*rule, caps) {
                        Action::Allow => ALLOW,
                        Action::Fail(errno) => 0x0005_0000 | u32::from(errno),
                        // With a zero argument the three checks pass.
                        _ => ALLOW,
                    };
                    assert_eq!(
                        run(&program, *arch, numbers[*column], 0),
                        want,
                        "{name} on {arch:#x} with {caps:?}"
                    );
                }
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn well_known_calls_have_their_fate() {
        let program = profile(CapSet::DEFAULT);
        let native = |number, arg| run(&program, 0xc000_003e, number, arg);
        for (number, arg, want) in [
            (0, 0, ALLOW),              // read
            (59, 0, ALLOW),             // execve
            (161, 0, ALLOW),            // chroot
            (165, 0, REFUSED),          // mount
            (250, 0, REFUSED),          // keyctl
            (56, 0x11, ALLOW),          // clone, as fork does
            (56, 0x1000_0011, REFUSED), // clone with a new user namespace
            (435, 0, MISSING),          // clone3
            (41, 2, ALLOW),             // socket AF_INET
            (41, 40, REFUSED),          // socket AF_VSOCK
            (135, 0xffff_ffff, ALLOW),  // personality, asking
            (135, 0x40000, REFUSED),    // personality ADDR_NO_RANDOMIZE
            (425, 0, REFUSED),          // io_uring_setup
            (999, 0, MISSING),          // not invented yet
            (0x4000_0000, 0, MISSING),  // x32
        ] {
            assert_eq!(native(number, arg), want, "call {number} with {arg:#x}");
        }
        assert_eq!(run(&program, 0x4000_0003, 21, 0), REFUSED, "mount of a 32-bit program");
    }

    #[test]
    fn names_are_sorted_and_unique() {
        let mut names: Vec<_> = table::CALLS.iter().map(|c| c.0).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
