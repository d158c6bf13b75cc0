//! A system call filter of the user's own: `--security-opt seccomp=FILE`, in the format of the docker engine.
//!
//! What depends on the machine (architecture, kernel) is decided when the file is read; what depends on the container's
//! capabilities when the filter is made. Calls that the kernel here does not have are left out, as the engine does.

use super::bpf::{self, Action, Condition, Is};
use super::{ARCHES, CapSet, ENOSYS, EPERM, table};
use crate::sys::process::BpfInstruction;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The number of 32-bit x86, whose programs run on x86-64 where the profile says so.
const X86: u32 = 0x4000_0003;
const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const ERRNO: u32 = 0x0005_0000;
/// Names of this architecture in profiles.
const HERE: [&str; 2] = if cfg!(target_arch = "x86_64") {
    ["amd64", "x86_64"]
} else if cfg!(target_arch = "aarch64") {
    ["arm64", "aarch64"]
} else {
    ["riscv64", "riscv64"]
};

/// A profile as it holds on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompProfile {
    /// What happens to a call that no rule is about; the kernel's number for it.
    default: u32,
    /// Whether programs of 32 bits have rules too.
    narrow: bool,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Rule {
    names: Vec<String>,
    action: u32,
    /// Argument and test; all must hold.
    args: Vec<(u8, Is)>,
    /// All of these capabilities are needed.
    needs: u64,
    /// None of these may be there.
    unless: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<ArchMap>,
    #[serde(default)]
    syscalls: Vec<Call>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Option<Vec<Arg>>,
    #[serde(default)]
    includes: Filter,
    #[serde(default)]
    excludes: Filter,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

impl SeccompProfile {
    /// Reads a profile.
    ///
    /// # Errors
    /// It is no JSON of that form, or names an action, a comparison or a capability that there is not.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let file: File = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        let mut rules = Vec::new();
        for call in file.syscalls {
            rules.extend(call.rules()?);
        }
        let narrow = file.architectures.iter().any(|name| name == "SCMP_ARCH_X86")
            || file.arch_map.iter().any(|map| {
                let below = map.sub_architectures.as_deref().unwrap_or_default();
                map.architecture == "SCMP_ARCH_X86_64" && below.iter().any(|name| name == "SCMP_ARCH_X86")
            });
        Ok(Self { default: action(&file.default_action, file.default_errno_ret)?, narrow, rules })
    }

    /// Makes the filter for a process with these capabilities.
    pub(in crate::sandbox) fn program(&self, caps: CapSet) -> Vec<BpfInstruction> {
        let arches = ARCHES.iter().filter(|(arch, _)| *arch != X86 || self.narrow);
        bpf::program(&arches.map(|(arch, column)| (*arch, self.runs(*column, caps))).collect::<Vec<_>>())
    }

    fn runs(&self, column: usize, caps: CapSet) -> Vec<(u32, Action)> {
        let mut calls: BTreeMap<u32, Action> = BTreeMap::new();
        let hold = |rule: &&Rule| caps.0 & rule.needs == rule.needs && caps.0 & rule.unless == 0;
        // what a rule says that is what happens anyway says nothing
        for rule in self.rules.iter().filter(hold).filter(|rule| rule.action != self.default) {
            for number in rule.names.iter().filter_map(|name| table::number(name, column)) {
                let call = calls.entry(number).or_insert_with(|| Action::Cases(Vec::new(), self.default));
                // of several rules for a call one without conditions counts, else the first that fits
                match call {
                    _ if rule.args.is_empty() => *call = Action::Return(rule.action),
                    Action::Cases(cases, _) => {
                        let is = |(argument, is): &(u8, Is)| Condition { argument: *argument, is: *is };
                        cases.push((rule.args.iter().map(is).collect(), rule.action));
                    }
                    _ => {}
                }
            }
        }
        let mut runs: Vec<(u32, Action)> = vec![(0, Action::Return(self.default))];
        let newest = calls.keys().next_back().copied().unwrap_or(0);
        let mut next = 0;
        for (number, call) in calls {
            if number > next {
                runs.push((next, Action::Return(self.default)));
            }
            runs.push((number, call));
            next = number + 1;
        }
        // a program takes the absence of a call that is newer than the profile for an old kernel, and finds another way
        let refuses = self.default != ALLOW && self.default != LOG;
        let last = if refuses { Action::Fail(ENOSYS) } else { Action::Return(self.default) };
        runs.push((newest.max(table::NEWEST) + 1, last));
        if next <= newest.max(table::NEWEST) {
            runs.insert(runs.len() - 1, (next, Action::Return(self.default)));
        }
        merge(runs)
    }
}

/// Leaves runs out that are empty or like the one before.
fn merge(runs: Vec<(u32, Action)>) -> Vec<(u32, Action)> {
    let mut out: Vec<(u32, Action)> = Vec::new();
    for (from, action) in runs {
        if out.last().is_some_and(|last| last.0 == from) {
            out.pop();
        }
        if out.last().is_none_or(|last| last.1 != action) {
            out.push((from, action));
        }
    }
    out
}

impl Call {
    /// The rules of an entry that is for this machine.
    fn rules(self) -> Result<Vec<Rule>, String> {
        let here = |arches: &[String]| arches.iter().any(|arch| HERE.contains(&arch.as_str()));
        let young = |version: &Option<String>| version.as_deref().map(at_least).transpose();
        let out = !self.includes.arches.is_empty() && !here(&self.includes.arches)
            || here(&self.excludes.arches)
            || young(&self.includes.min_kernel)? == Some(false)
            || young(&self.excludes.min_kernel)? == Some(true);
        let mut names = self.names;
        names.extend(self.name);
        let action = action(&self.action, self.errno_ret)?;
        let (needs, unless) = (capabilities(&self.includes.caps)?, capabilities(&self.excludes.caps)?);
        let args = self.args.unwrap_or_default().iter().map(Arg::test).collect::<Result<Vec<_>, _>>()?;
        if out {
            return Ok(Vec::new());
        }
        let rule = |args| Rule { names: names.clone(), action, args, needs, unless };
        // two tests of one argument are two rules, as the engine has it
        let twice = args.iter().enumerate().any(|(n, arg)| args[..n].iter().any(|before| before.0 == arg.0));
        Ok(if twice { args.into_iter().map(|arg| rule(vec![arg])).collect() } else { vec![rule(args)] })
    }
}

impl Arg {
    fn test(&self) -> Result<(u8, Is), String> {
        if self.index > 5 {
            return Err(format!("a system call has no argument {}", self.index));
        }
        let is = match self.op.as_str() {
            "SCMP_CMP_EQ" => Is::Equal(self.value),
            "SCMP_CMP_NE" => Is::NotEqual(self.value),
            "SCMP_CMP_LT" => Is::Less(self.value),
            "SCMP_CMP_LE" => Is::AtMost(self.value),
            "SCMP_CMP_GE" => Is::AtLeast(self.value),
            "SCMP_CMP_GT" => Is::More(self.value),
            "SCMP_CMP_MASKED_EQ" => Is::Masked(self.value, self.value_two),
            other => return Err(format!("there is no comparison {other:?}")),
        };
        Ok((self.index, is))
    }
}

fn action(name: &str, errno: Option<u16>) -> Result<u32, String> {
    let errno = errno.unwrap_or(EPERM);
    if errno > 4095 {
        return Err(format!("there is no error number {errno}"));
    }
    Ok(match name {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_ERRNO" => ERRNO | u32::from(errno),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | u32::from(errno),
        "SCMP_ACT_LOG" => LOG,
        "SCMP_ACT_NOTIFY" => {
            return Err("SCMP_ACT_NOTIFY needs a program that listens, and there is none".into());
        }
        other => return Err(format!("there is no action {other:?}")),
    })
}

fn capabilities(names: &[String]) -> Result<u64, String> {
    names.iter().try_fold(0, |set, name| {
        let one = CapSet::parse(name).ok_or_else(|| format!("there is no capability {name:?}"))?;
        Ok(set | one.0)
    })
}

/// Whether the kernel is of this version or later.
fn at_least(version: &str) -> Result<bool, String> {
    let numbers = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    let wanted = numbers(version).ok_or_else(|| format!("{version:?} is no kernel version"))?;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    Ok(numbers(&release).is_none_or(|here| here >= wanted))
}

#[cfg(test)]
mod tests {
    use super::super::bpf::tests::run_with;
    use super::*;

    fn profile(text: &str) -> SeccompProfile {
        SeccompProfile::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("{", "EOF"),
            (r#"{"defaultAction": "SCMP_ACT_MAYBE"}"#, "SCMP_ACT_MAYBE"),
            (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "listens"),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG",
                    "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_LIKE"}]}]}"#,
                "SCMP_CMP_LIKE",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG",
                    "includes": {"caps": ["CAP_FLY"]}}]}"#,
                "CAP_FLY",
            ),
        ] {
            let said = SeccompProfile::parse(text.as_bytes()).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn rules_are_those_of_the_file() {
        const NATIVE: u32 = 0xc000_003e;
        let text = r#"{
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [
                {"names": ["read", "write", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
                {"name": "mkdir", "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
                {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
                 "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_LE"}]},
                {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 10, "op": "SCMP_CMP_EQ"}]},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
                 "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
                {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                {"names": ["keyctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}}
            ]}"#;
        let (plain, admin) = (profile(text).program(CapSet::EMPTY), profile(text).program(CapSet(1 << 21)));
        let missing = ERRNO | 38;
        for (number, args, want, as_admin) in [
            (0, [0, 0], ALLOW, ALLOW),
            (1, [0, 0], ALLOW, ALLOW),
            (2, [0, 0], missing, missing),
            (83, [0, 0], ERRNO | 13, ERRNO | 13),
            (41, [1, 2], ALLOW, ALLOW),
            (41, [1, 3], missing, missing),
            (41, [1 << 32 | 1, 2], missing, missing),
            (41, [10, 3], ALLOW, ALLOW),
            (41, [2, 0], missing, missing),
            (135, [8, 0], ALLOW, ALLOW),
            (135, [4, 0], missing, missing),
            (165, [0, 0], missing, ALLOW),
            (161, [0, 0], ALLOW, missing),
            (101, [0, 0], ALLOW, ALLOW),
            (250, [0, 0], missing, missing),
            (5000, [0, 0], missing, missing),
        ] {
            let args = [args[0], args[1], 0, 0, 0, 0];
            assert_eq!(run_with(&plain, NATIVE, number, args), want, "{number}");
            assert_eq!(run_with(&admin, NATIVE, number, args), as_admin, "{number}");
        }
        assert_eq!(run_with(&plain, X86, 3, [0; 6]), ALLOW, "read of a 32-bit program");
        let alone = profile(r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}"#).program(CapSet::EMPTY);
        assert_eq!(run_with(&alone, NATIVE, 5000, [0; 6]), ALLOW);
        assert_eq!(run_with(&alone, X86, 3, [0; 6]), 0x8000_0000);
    }
}
