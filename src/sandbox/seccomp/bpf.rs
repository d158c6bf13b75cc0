//! A filter program from a map of call numbers to actions.
//!
//! Numbers with equal actions form runs, and a binary search over the runs finds the one of a call: about seven
//! comparisons where a list of all allowed calls takes hundreds. The kernel also runs the program once for each call
//! when it is installed, so the depth counts in every step.

use crate::sys::process::BpfInstruction;

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The kernel's number for it.
    Return(u32),
    /// The first of these of which all conditions hold, else the last number.
    Cases(Vec<(Vec<Condition>, u32)>, u32),
}

/// A test of a whole argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) argument: u8,
    pub(super) is: Is,
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Is {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    AtMost(u64),
    AtLeast(u64),
    More(u64),
    /// What the mask leaves is this.
    Masked(u64, u64),
}

const EPERM: u16 = 1;

const LOAD: u16 = 0x20; // ld [k]
const JUMP: u16 = 0x05; // ja
const IF_EQ: u16 = 0x15; // jeq #k
const IF_GT: u16 = 0x25; // jgt #k
const AND: u16 = 0x54; // and #k
const IF_GE: u16 = 0x35; // jge #k
const IF_SET: u16 = 0x45; // jset #k
const RETURN: u16 = 0x06;

/// A jump that leads out of the conditions of a case; its distance is filled in when they are complete.
const NEXT: u8 = u8::MAX;

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
        return leaf(action);
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

fn leaf(action: &Action) -> Vec<BpfInstruction> {
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
        Action::Fail(errno) => vec![fail(*errno)],
        Action::AllowUnlessFirstHas(mask) => {
            vec![op(LOAD, FIRST_ARG), test(IF_SET, *mask, 0, 1), fail(EPERM), allow]
        }
        Action::AllowUnlessFirstIs(values) => compare(values, fail(EPERM), allow),
        Action::AllowIfFirstIs(values) => compare(values, allow, fail(EPERM)),
        Action::Return(number) => vec![op(RETURN, *number)],
        Action::Cases(cases, last) => {
            let mut out: Vec<_> =
                cases.iter().flat_map(|(conditions, number)| case(conditions, *number)).collect();
            out.push(op(RETURN, *last));
            out
        }
    }
}

fn case(conditions: &[Condition], number: u32) -> Vec<BpfInstruction> {
    let mut out: Vec<_> = conditions.iter().flat_map(|condition| holds(*condition)).collect();
    out.push(op(RETURN, number));
    let end = out.len();
    for (at, instruction) in out.iter_mut().enumerate() {
        // six conditions of six instructions each, so it fits
        let distance = (end - at - 1) as u8;
        for jump in [&mut instruction.jt, &mut instruction.jf] {
            if *jump == NEXT {
                *jump = distance;
            }
        }
    }
    out
}

/// Goes on where the condition holds and to `NEXT` where it does not. The kernel compares 32 bits at a time.
fn holds(Condition { argument, is }: Condition) -> Vec<BpfInstruction> {
    let at = FIRST_ARG + 8 * u32::from(argument);
    let (low, high) = (op(LOAD, at), op(LOAD, at + 4));
    let halves = |value: u64| ((value & 0xffff_ffff) as u32, (value >> 32) as u32);
    match is {
        Is::Equal(value) => {
            let (l, h) = halves(value);
            vec![high, test(IF_EQ, h, 0, NEXT), low, test(IF_EQ, l, 0, NEXT)]
        }
        Is::NotEqual(value) => {
            let (l, h) = halves(value);
            vec![high, test(IF_EQ, h, 0, 2), low, test(IF_EQ, l, NEXT, 0)]
        }
        Is::AtLeast(value) | Is::More(value) => {
            let (l, h) = halves(value);
            let last = if matches!(is, Is::More(_)) { IF_GT } else { IF_GE };
            vec![high, test(IF_GT, h, 3, 0), test(IF_EQ, h, 0, NEXT), low, test(last, l, 0, NEXT)]
        }
        Is::Less(value) | Is::AtMost(value) => {
            let (l, h) = halves(value);
            let last = if matches!(is, Is::AtMost(_)) { IF_GT } else { IF_GE };
            vec![high, test(IF_GT, h, NEXT, 0), test(IF_EQ, h, 0, 2), low, test(last, l, NEXT, 0)]
        }
        Is::Masked(mask, value) => {
            let ((ml, mh), (l, h)) = (halves(mask), halves(value));
            let upper = [high, op(AND, mh), test(IF_EQ, h, 0, NEXT)];
            upper.into_iter().chain([low, op(AND, ml), test(IF_EQ, l, 0, NEXT)]).collect()
        }
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
        run_with(program, arch, number, [first_arg.into(), 0, 0, 0, 0, 0])
    }

    pub(in super::super) fn run_with(
        program: &[BpfInstruction],
        arch: u32,
        number: u32,
        args: [u64; 6],
    ) -> u32 {
        let (mut at, mut acc) = (0, 0);
        loop {
            let i = program[at];
            at += 1;
            let holds = match i.code {
                LOAD => {
                    acc = match i.k {
                        NUMBER => number,
                        ARCH => arch,
                        other => {
                            let half = (other - FIRST_ARG) / 4;
                            (args[half as usize / 2] >> (32 * (half % 2))) as u32
                        }
                    };
                    continue;
                }
                AND => {
                    acc &= i.k;
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
                IF_GT => acc > i.k,
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
        let at = |action: Action, arg| run(&program(&[(7, vec![(0, action)])]), 7, 0, arg);
        let refused = ERRNO | 1;
        assert_eq!(at(Action::AllowUnlessFirstHas(0x6), 0x9), ALLOW);
        assert_eq!(at(Action::AllowUnlessFirstHas(0x6), 0x4), refused);
        for (arg, inside) in [(3, true), (5, true), (4, false)] {
            let (yes, no) = if inside { (ALLOW, refused) } else { (refused, ALLOW) };
            assert_eq!(at(Action::AllowIfFirstIs(&[3, 5]), arg), yes);
            assert_eq!(at(Action::AllowUnlessFirstIs(&[3, 5]), arg), no);
        }
    }

    proptest::proptest! {
        #[test]
        fn whole_arguments_are_compared(value: u64, near in -2i64..3, mask: u64, other: u64, argument in 0u8..6) {
            for arg in [value.wrapping_add_signed(near), other, value ^ (1 << 40)] {
                for (is, want) in [
                    (Is::Equal(value), arg == value),
                    (Is::NotEqual(value), arg != value),
                    (Is::Less(value), arg < value),
                    (Is::AtMost(value), arg <= value),
                    (Is::AtLeast(value), arg >= value),
                    (Is::More(value), arg > value),
                    (Is::Masked(mask, value & mask), arg & mask == value & mask),
                ] {
                    let both = vec![Condition { argument, is }, Condition { argument, is }];
                    let cases = Action::Cases(vec![(both, 5)], 9);
                    let mut args = [1; 6];
                    args[usize::from(argument)] = arg;
                    let got = run_with(&program(&[(7, vec![(0, cases)])]), 7, 0, args);
                    proptest::prop_assert_eq!(got, if want { 5 } else { 9 }, "{:?} of {:#x}", is, arg);
                }
            }
        }
    }
}
