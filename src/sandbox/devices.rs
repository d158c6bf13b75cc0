//! Which devices the processes of a sandbox may use, enforced by the kernel: a cgroup of version 2 with a small program
//! that is asked whenever a process opens a device or makes a node.
//!
//! Root inside may make nodes, and an image may bring some along. As long as nothing stands between a node and its
//! device, every file system of a sandbox is therefore mounted without devices. With a [`Gate`] nodes work as in
//! docker: any may be made, those of [`USUAL`] and of the sandbox's own rules may be opened. A process is born inside
//! the gate (`CLONE_INTO_CGROUP`): to move there later would wait for every processor of the machine, many times as
//! long as a whole build step takes. That is also why there is no way by version 1, which has no such birth; version 2 can be
//! used for devices wherever it is mounted, also beside version 1.
//!
//! An ordinary user's sandboxes need none of this: in a user namespace no node leads to a device.

use super::error::SandboxError;
use super::host;
use super::spec::DeviceSpec;
use super::staging::Staging;
use super::wire::SharedFd;
use crate::sys::bpf::{self, Instruction};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// One kind of devices that may be used, as in docker's `--device-cgroup-rule`: `c 10:200 rwm`, `b *:* m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    kind: DeviceKind,
    /// `None` is any.
    major: Option<u32>,
    minor: Option<u32>,
    access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum DeviceKind {
    Any,
    Block,
    Char,
}

/// Bits of what may be done, with the kernel's numbers (linux/bpf.h, `BPF_DEVCG_ACC_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Access(u8);

impl Access {
    const LETTERS: [(char, u8); 3] = [('r', 2), ('w', 4), ('m', 1)];
    const ALL: Self = Self(7);
    const MAKE: Self = Self(1);

    fn parse(letters: &str) -> Option<Self> {
        let bit = |letter| Self::LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, bit)| *bit);
        let bits = letters.chars().try_fold(0, |sum, letter| Some(sum | bit(letter)?))?;
        (1..=3).contains(&letters.len()).then_some(Self(bits))
    }
}

const fn character(major: u32, minor: Option<u32>) -> DeviceRule {
    DeviceRule { kind: DeviceKind::Char, major: Some(major), minor, access: Access::ALL }
}

const fn make(kind: DeviceKind) -> DeviceRule {
    DeviceRule { kind, major: None, minor: None, access: Access::MAKE }
}

/// What every container of docker may do: make any node; null, zero, full, random, urandom, tty, console, ptmx, the
/// terminals of pseudo-terminals, and tun.
const USUAL: [DeviceRule; 12] = [
    make(DeviceKind::Char),
    make(DeviceKind::Block),
    character(1, Some(3)),
    character(1, Some(5)),
    character(1, Some(7)),
    character(1, Some(8)),
    character(1, Some(9)),
    character(5, Some(0)),
    character(5, Some(1)),
    character(5, Some(2)),
    character(136, None),
    character(10, Some(200)),
];

const EVERYTHING: DeviceRule =
    DeviceRule { kind: DeviceKind::Any, major: None, minor: None, access: Access::ALL };

impl DeviceRule {
    /// Reads docker's form: kind, numbers, access.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
        let (major, minor) = numbers.split_once(':')?;
        let number = |text: &str| match text {
            "*" => Some(None),
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().map(Some),
            _ => None,
        };
        let kind = match kind {
            "a" => DeviceKind::Any,
            "b" => DeviceKind::Block,
            "c" => DeviceKind::Char,
            _ => return None,
        };
        let rule =
            Self { kind, major: number(major)?, minor: number(minor)?, access: Access::parse(access)? };
        words.next().is_none().then_some(rule)
    }

    /// Whether it lets a device of this kind and number be opened.
    fn opens(&self, kind: DeviceKind, major: u32, minor: u32) -> bool {
        let is = |wanted: Option<u32>, number| wanted.is_none_or(|wanted| wanted == number);
        let of_kind = self.kind == DeviceKind::Any || self.kind == kind;
        of_kind && is(self.major, major) && is(self.minor, minor) && self.access != Access::MAKE
    }

    /// Adds the instructions that let what fits through, and go on behind themselves with what does not.
    fn compile(&self, out: &mut Vec<Instruction>) {
        let mut tests = Vec::new();
        let kind = match self.kind {
            DeviceKind::Any => None,
            DeviceKind::Block => Some(1),
            DeviceKind::Char => Some(2),
        };
        tests.extend(kind.map(|kind| instruction(JUMP_UNLESS_EQUAL, KIND, 0, kind)));
        if self.access != Access::ALL {
            // all that is asked for must be among what is allowed
            tests.push(instruction(COPY, SCRATCH, ASKED, 0));
            tests.push(instruction(AND, SCRATCH, 0, self.access.0.into()));
            tests.push(instruction(JUMP_UNLESS_SAME, SCRATCH, ASKED, 0));
        }
        for (register, number) in [(MAJOR, self.major), (MINOR, self.minor)] {
            tests.extend(
                number.map(|number| instruction(JUMP_UNLESS_EQUAL, register, 0, number.cast_signed())),
            );
        }
        tests.extend([instruction(SET, RESULT, 0, 1), instruction(EXIT, 0, 0, 0)]);
        let end = tests.len();
        for (at, test) in tests.iter_mut().enumerate() {
            if matches!(test.code, JUMP_UNLESS_EQUAL | JUMP_UNLESS_SAME) {
                test.offset = i16::try_from(end - at - 1).unwrap_or(i16::MAX);
            }
        }
        out.append(&mut tests);
    }
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        let kind = match self.kind {
            DeviceKind::Any => 'a',
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        };
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        let letters = Access::LETTERS.iter().filter(|(_, bit)| self.access.0 & bit != 0);
        letters.into_iter().try_for_each(|(letter, _)| write!(f, "{letter}"))
    }
}

// Registers and operations of the program. The kernel gives it the address of three numbers in register 1: access and
// kind in one, major, minor.
const RESULT: u8 = 0;
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
const ASKED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const LOAD: u8 = 0x61;
const SET: u8 = 0xb4;
const COPY: u8 = 0xbc;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const JUMP_UNLESS_SAME: u8 = 0x5e;
const EXIT: u8 = 0x95;

fn instruction(code: u8, to: u8, from: u8, constant: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset: 0, constant }
}

/// Translates rules: what one of them lets through is allowed, all else is not.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let load = |to, offset| Instruction { offset, ..instruction(LOAD, to, SCRATCH, 0) };
    let mut out = vec![
        load(KIND, 0),
        instruction(AND, KIND, 0, 0xffff),
        load(ASKED, 0),
        instruction(SHIFT_RIGHT, ASKED, 0, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in USUAL.iter().chain(rules) {
        rule.compile(&mut out);
        if *rule == EVERYTHING {
            // the kernel refuses a program with a part that is never reached
            return out;
        }
    }
    out.extend([instruction(SET, RESULT, 0, 0), instruction(EXIT, 0, 0, 0)]);
    out
}

/// Gives the rules for devices that are shown, in which a directory stands for all nodes in it.
///
/// # Errors
/// One is no device; in docker's words.
pub(super) fn shown(devices: &[DeviceSpec]) -> Result<Vec<DeviceRule>, SandboxError> {
    let mut out = Vec::new();
    for device in devices {
        let bad = |why: String| {
            let path = device.source.display();
            let what = "error gathering device information while adding custom device";
            SandboxError::Invalid(format!("{what} \"{path}\": {why}"))
        };
        let access = Access::parse(&device.access).unwrap_or(Access::ALL);
        let missing = |e: Errno| match e {
            Errno::NOENT => bad("no such file or directory".into()),
            other => bad(other.to_string()),
        };
        let stat = fs::stat(&device.source).map_err(missing)?;
        match rule_of(&stat, access) {
            Some(rule) => out.push(rule),
            None if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                below(&device.source, access, 0, &mut out);
            }
            None => return Err(bad("not a device node".into())),
        }
    }
    Ok(out)
}

fn rule_of(stat: &fs::Stat, access: Access) -> Option<DeviceRule> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => DeviceKind::Char,
        FileType::BlockDevice => DeviceKind::Block,
        _ => return None,
    };
    let (major, minor) = (Some(fs::major(stat.st_rdev)), Some(fs::minor(stat.st_rdev)));
    Some(DeviceRule { kind, major, minor, access })
}

/// Collects the nodes below a directory of the host's; what cannot be read is left out, as by docker.
fn below(dir: &Path, access: Access, depth: u32, out: &mut Vec<DeviceRule>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(stat) = fs::lstat(entry.path()) else { continue };
        match rule_of(&stat, access) {
            Some(rule) => out.push(rule),
            None if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && depth < 16 => {
                below(&entry.path(), access, depth + 1, out);
            }
            None => {}
        }
    }
}

/// A cgroup whose processes use the devices that its rules name, and no others.
#[derive(Debug)]
pub(super) struct Gate {
    dir: SharedFd,
    /// Directory above and name, for one that was made for this.
    own: Option<(OwnedFd, String)>,
}

impl Gate {
    /// Makes one for the usual devices and those of `rules`.
    ///
    /// # Errors
    /// Whatever is missing here: cgroup 2, the right to make cgroups, the kernel's support.
    pub(super) fn new(rules: &[DeviceRule]) -> io::Result<Self> {
        if !rustix::process::geteuid().is_root() || host::in_user_namespace() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let above = open_dir(&own_cgroup().ok_or(io::ErrorKind::Unsupported)?)?;
        sweep(&above);
        let name = unique_name();
        fs::mkdirat(&above, &name, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let made = fs::openat(&above, &name, flags, Mode::empty()).map_err(io::Error::from).and_then(|dir| {
            guard(&dir, rules)?;
            Ok(dir)
        });
        if made.is_err() {
            let _ = fs::unlinkat(&above, &name, AtFlags::REMOVEDIR);
        }
        Ok(Self { dir: made?.into(), own: Some((above, name)) })
    }

    /// Makes one of a cgroup that is there for other limits.
    pub(super) fn at(cgroup: &Path, rules: &[DeviceRule]) -> io::Result<Self> {
        let dir = open_dir(cgroup)?;
        guard(&dir, rules)?;
        Ok(Self { dir: dir.into(), own: None })
    }

    /// Gives its directory.
    pub(super) fn door(&self) -> SharedFd {
        self.dir.clone()
    }

    /// Gives its directory as a path, which holds in this process and as long as the gate.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.dir.as_fd().as_raw_fd()).into()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some((above, name)) = &self.own {
            // removed by a later sweep when a process is still on its way out
            let _ = fs::unlinkat(above, name, AtFlags::REMOVEDIR);
        }
    }
}

fn guard(cgroup: &OwnedFd, rules: &[DeviceRule]) -> io::Result<()> {
    bpf::attach_device_program(bpf::load_device_program(&program(rules))?, cgroup)
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Finds the directory of the cgroup of version 2 that this process is in: what is made below it keeps all the limits
/// that hold for this process.
fn own_cgroup() -> Option<PathBuf> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = Path::new(own.lines().find_map(|line| line.strip_prefix("0::"))?).to_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let inside = own.strip_prefix(root).ok().filter(|_| right.starts_with("cgroup2 "))?;
        let plain = inside.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        plain.then(|| Path::new(point).join(inside))
    })
}

const PREFIX: &str = "rbuild-";

fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Removes what killed rbuilds have left. A directory with a living process cannot be removed.
fn sweep(above: &OwnedFd) {
    for name in crate::sys::fsutil::names(above.as_fd()).unwrap_or_default() {
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
        let owner = owner.and_then(|(pid, _)| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::unlinkat(above, &name, AtFlags::REMOVEDIR);
        }
    }
}

/// Numbers that no device has.
const NOBODY: (u32, u32) = (4095, 4095);

/// Asks the kernel whether it really stands between this process and devices: it must refuse to open one that no rule
/// names before it says that there is none.
pub(super) fn in_force(rules: &[DeviceRule], staging: &mut Staging) -> bool {
    let (major, minor) = NOBODY;
    let kinds = [(DeviceKind::Char, FileType::CharacterDevice), (DeviceKind::Block, FileType::BlockDevice)];
    let barred =
        kinds.into_iter().find(|(kind, _)| !rules.iter().any(|rule| rule.opens(*kind, major, minor)));
    match barred {
        Some((_, file)) => staging.try_device(file, major, minor) == Err(Errno::PERM),
        // who lets in everything has nothing to guard
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: u32 = 2;
    const WRITE: u32 = 4;
    const MAKE: u32 = 1;

    /// What the kernel would do with the program.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let memory = [access << 16 | kind, major, minor];
        let (mut registers, mut at) = ([0u32; 8], 0usize);
        loop {
            let Instruction { code, registers: pair, offset, constant } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let constant = constant.cast_unsigned();
            let jump = match code {
                LOAD => {
                    registers[to] = memory[usize::try_from(offset).unwrap() / 4];
                    false
                }
                SET | COPY | AND | SHIFT_RIGHT => {
                    registers[to] = match code {
                        SET => constant,
                        COPY => registers[from],
                        AND => registers[to] & constant,
                        _ => registers[to] >> constant,
                    };
                    false
                }
                JUMP_UNLESS_EQUAL => registers[to] != constant,
                JUMP_UNLESS_SAME => registers[to] != registers[from],
                EXIT => return registers[0] == 1,
                other => panic!("operation {other:#x}"),
            };
            at += 1 + if jump { usize::try_from(offset).unwrap() } else { 0 };
        }
    }

    #[test]
    fn the_program_does_what_the_rules_say() {
        let rules: Vec<_> =
            ["b 8:1 r", "c 200:* rw", "a 7:7 w"].iter().map(|r| DeviceRule::parse(r).unwrap()).collect();
        let program = program(&rules);
        let (block, char) = (1, 2);
        for (kind, access, major, minor, want) in [
            (char, READ | WRITE, 1, 3, true),
            (char, READ, 1, 1, false),
            (char, MAKE, 1, 1, true),
            (block, MAKE, 8, 0, true),
            (block, READ, 8, 0, false),
            (block, READ, 8, 1, true),
            (block, READ | WRITE, 8, 1, false),
            (char, READ, 8, 1, false),
            (char, READ | WRITE, 200, 9, true),
            (char, READ | MAKE, 200, 9, false),
            (char, WRITE, 136, 77, true),
            (block, WRITE, 7, 7, true),
            (char, WRITE, 7, 7, true),
            (char, READ, 7, 7, false),
            (char, READ, 4095, 4095, false),
            (block, READ, 1, 3, false),
        ] {
            assert_eq!(run(&program, kind, access, major, minor), want, "{kind} {access} {major}:{minor}");
        }
        let all = super::program(&[DeviceRule::parse("a *:* rwm").unwrap()]);
        assert!(run(&all, block, READ | WRITE | MAKE, 8, 0));
    }

    #[test]
    fn rules_are_read_and_written_as_docker_does() {
        for text in ["c 1:3 rwm", "b *:* m", "a *:* rwm", "c 10:* rw", "b 8:16 r"] {
            assert_eq!(DeviceRule::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(DeviceRule::parse("c 1:3 mr").unwrap().to_string(), "c 1:3 rm");
        for text in [
            "",
            "c",
            "c 1:3",
            "d 1:3 r",
            "c 1 r",
            "c 1:3 x",
            "c 1:3 rwmr",
            "c -1:3 r",
            "c +1:3 r",
            "c 1:3 r ",
            "c  1:3 r",
            "c 1:99999999999 r",
            "c 1:3 r w",
            "c :3 r",
        ] {
            assert!(DeviceRule::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_directory_stands_for_its_nodes() {
        let device = |path: &str, access: &str| DeviceSpec {
            source: path.into(),
            target: path.into(),
            access: access.into(),
        };
        assert_eq!(shown(&[device("/dev/null", "r")]).unwrap(), [DeviceRule::parse("c 1:3 r").unwrap()]);
        assert!(shown(&[device("/dev", "rw")]).unwrap().contains(&DeviceRule::parse("c 1:3 rw").unwrap()));
        for (path, why) in [("/no/such", "no such file or directory"), ("/proc/version", "not a device node")]
        {
            let error = shown(&[device(path, "rwm")]).unwrap_err().to_string();
            let want =
                format!("error gathering device information while adding custom device \"{path}\": {why}");
            assert_eq!(error, want);
        }
    }
}
