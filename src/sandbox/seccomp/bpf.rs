//! A filter program from a map of call numbers to actions.
//!
//! Numbers with equal actions form runs, and a binary search over the runs finds the one of a call: about seven
//! comparisons where a list of all allowed calls takes hundreds. The kernel also runs the program once for each call
//! when it is installed, so the depth counts in every step.

use crate::sys::process::BpfInstruction;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    /// The call fails with this error number.
    Fail(u16),
    /// Allowed when no bit of the mask is set in the first argument.
    AllowUnlessFirstHas(u32),
    /// Allowed when the first argument is none of these.
    AllowUnlessFirstIs(&'static [u32]),
    /// Allowed when the first argument is one of these.
    AllowIfFirstIs(&'static [u32]),
}

const EPERM: u16 = 1;

const LOAD: u16 = 0x20; // ld [k]
const JUMP: u16 = 0x05; // ja
const IF_EQ: u16 = 0x15; // jeq #k
const IF_GE: u16 = 0x35; // jge #k
const IF_SET: u16 = 0x45; // jset #k
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`; an argument's low half comes first on all our architectures.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARG: u32 = 16;

const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const ALLOW: u32 = 0x7fff_0000;

type Runs = [(u32, Action)];

/// Joins one search for each architecture, given as (AUDIT_ARCH number, first number of each run and its action).
/// The first run of each starts at 0. A call from another architecture kills the process.
pub(super) fn program(arches: &[(u32, Vec<(u32, Action)>)]) -> Vec<BpfInstruction> {
    let mut out = vec![op(LOAD, ARCH)];
    for (arch, runs) in arches {
        let mut body = vec![op(LOAD, NUMBER)];
        body.extend(search(runs));
        out.push(test(IF_EQ, *arch, 1, 0));
        out.push(op(JUMP, body.len() as u32));
        out.extend(body);
    }
    out.push(op(RETURN, KILL_PROCESS));
    out
}

fn search(runs: &Runs) -> Vec<BpfInstruction> {
    if let [(_, action)] = runs {
        return leaf(*action);
    }
    let middle = runs.len() / 2;
    let (low, high) = (search(&runs[..middle]), search(&runs[middle..]));
    let first = runs[middle].0;
    let mut out = match u8::try_from(low.len()) {
        Ok(skip) => vec![test(IF_GE, first, skip, 0)],
        // A conditional jump reaches 255 instructions, a plain one any distance.
        Err(_) => vec![test(IF_GE, first, 0, 1), op(JUMP, low.len() as u32)],
    };
    out.extend(low);
    out.extend(high);
    out
}

fn leaf(action: Action) -> Vec<BpfInstruction> {
    let fail = |errno: u16| op(RETURN, ERRNO | u32::from(errno));
    let allow = op(RETURN, ALLOW);
    let compare = |values: &[u32], equal: BpfInstruction, other: BpfInstruction| {
        let mut out = vec![op(LOAD, FIRST_ARG)];
        let count = values.len();
        out.extend(values.iter().enumerate().map(|(at, value)| test(IF_EQ, *value, (count - at) as u8, 0)));
        out.extend([other, equal]);
        out
    };
    match action {
        Action::Allow => vec![allow],
        Action::Fail(errno) => vec![fail(errno)],
        Action::AllowUnlessFirstHas(mask) => {
            vec![op(LOAD, FIRST_ARG), test(IF_SET, mask, 0, 1), fail(EPERM), allow]
        }
        Action::AllowUnlessFirstIs(values) => compare(values, fail(EPERM), allow),
        Action::AllowIfFirstIs(values) => compare(values, allow, fail(EPERM)),
    }
}

fn op(code: u16, k: u32) -> BpfInstruction {
    BpfInstruction { code, jt: 0, jf: 0, k }
}

fn test(code: u16, k: u32, jt: u8, jf: u8) -> BpfInstruction {
    BpfInstruction { code, jt, jf, k }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Runs a program as the kernel does; the action's number is the result.
    pub(in super::super) fn run(program: &[BpfInstruction], arch: u32, number: u32, first_arg: u32) -> u32 {
        let (mut at, mut acc) = (0, 0);
        loop {
            let i = program[at];
            at += 1;
            let holds = match i.code {
                LOAD => {
                    acc = match i.k {
                        NUMBER => number,
                        ARCH => arch,
                        FIRST_ARG => first_arg,
                        other => panic!("load of {other}"),
                    };
                    continue;
                }
                JUMP => {
                    at += i.k as usize;
                    continue;
                }
                RETURN => return i.k,
                IF_EQ => acc == i.k,
                IF_GE => acc >= i.k,
                IF_SET => acc & i.k != 0,
                other => panic!("instruction {other:#x}"),
            };
            at += usize::from(if holds { i.jt } else { i.jf });
        }
    }

    #[test]
    fn every_number_finds_its_run() {
        // More runs than a conditional jump can skip.
        let runs: Vec<_> = (0..700).map(|n| (n * 3, Action::Fail(n as u16))).collect();
        let program = program(&[(7, runs.clone()), (9, vec![(0, Action::Allow)])]);
        for number in 0..2100 {
            assert_eq!(run(&program, 7, number, 0), ERRNO | (number / 3), "{number}");
        }
        assert_eq!(run(&program, 7, u32::MAX, 0), ERRNO | 699);
        assert_eq!(run(&program, 9, 5, 0), ALLOW);
        assert_eq!(run(&program, 1, 5, 0), KILL_PROCESS);
    }

    #[test]
    fn arguments_decide() {
        let at = |action, arg| run(&program(&[(7, vec![(0, action)])]), 7, 0, arg);
        let refused = ERRNO | 1;
        assert_eq!(at(Action::AllowUnlessFirstHas(0x6), 0x9), ALLOW);
        assert_eq!(at(Action::AllowUnlessFirstHas(0x6), 0x4), refused);
        for (arg, inside) in [(3, true), (5, true), (4, false)] {
            let (yes, no) = if inside { (ALLOW, refused) } else { (refused, ALLOW) };
            assert_eq!(at(Action::AllowIfFirstIs(&[3, 5]), arg), yes);
            assert_eq!(at(Action::AllowUnlessFirstIs(&[3, 5]), arg), no);
        }
    }
}
