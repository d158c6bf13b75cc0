//! Programs of the kernel's own machine (extended BPF, bpf(2)) that decide which devices a cgroup may use.
//!
//! Just what that needs: instructions, loading, attaching. Nobody else in rbuild has programs of this kind.

use nix::libc;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// One instruction (linux/bpf.h, `struct bpf_insn`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Register that takes the result in the lower half, that of the second operand in the upper.
    pub registers: u8,
    /// Distance of a jump or of a field of memory.
    pub offset: i16,
    /// Constant operand.
    pub constant: i32,
}

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of the cgroups above and below count as well.
const ALLOW_MULTI: u32 = 2;

/// The fields of `union bpf_attr` for `BPF_PROG_LOAD` that are not left zero at the end.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The same for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Loads a program that is asked for each device that a process opens or makes. Needs CAP_SYS_ADMIN.
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let count = u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let attr = Load {
        kind: TYPE_CGROUP_DEVICE,
        count,
        instructions: program.as_ptr() as u64,
        licence: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    let fd = bpf(PROG_LOAD, &attr)?;
    // SAFETY: the kernel has just made this descriptor, close-on-exec, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts a device program on the cgroup behind a descriptor of its directory; it stays as long as the cgroup.
pub fn attach_device_program(program: impl AsFd, cgroup: impl AsFd) -> io::Result<()> {
    let number =
        |fd: libc::c_int| u32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let attr = Attach {
        target: number(cgroup.as_fd().as_raw_fd())?,
        program: number(program.as_fd().as_raw_fd())?,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &attr).map(drop)
}

fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<libc::c_int> {
    // SAFETY: both commands only read `attr`, which lives through the call and has the size given, and what the two
    // pointers in `Load` lead to, which the caller keeps alive.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    match libc::c_int::try_from(done) {
        Ok(fd) if fd >= 0 => Ok(fd),
        _ => Err(io::Error::last_os_error()),
    }
}
