//! Processes: cloning into new namespaces, signal state, descriptors across exec, system call filters.

use nix::libc;
use rustix::process::Pid;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `CLONE_INTO_CGROUP` of linux/sched.h, since Linux 5.7.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// The namespaces that a clone can make anew (clone(2), `CLONE_NEW*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloneFlags(u64);

impl CloneFlags {
    /// None.
    pub const NONE: Self = Self(0);
    /// Mounts.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS as u64);
    /// Process ids.
    pub const PID: Self = Self(libc::CLONE_NEWPID as u64);
    /// System V IPC, message queues.
    pub const IPC: Self = Self(libc::CLONE_NEWIPC as u64);
    /// Host name.
    pub const UTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// View of the cgroup tree.
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    /// Network.
    pub const NET: Self = Self(libc::CLONE_NEWNET as u64);
    /// User and group ids.
    pub const USER: Self = Self(libc::CLONE_NEWUSER as u64);

    /// Joins two sets.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Gives the bits of clone(2).
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Takes the namespace bits out of what came over a wire.
    pub fn from_bits(bits: u64) -> Self {
        let all = [Self::MOUNT, Self::PID, Self::IPC, Self::UTS, Self::CGROUP, Self::NET, Self::USER];
        Self(bits & all.into_iter().fold(0, |sum, flag| sum | flag.0))
    }
}

/// Which side of a clone this is.
#[derive(Debug)]
pub enum Cloned {
    /// The new process.
    Child,
    /// The old one, with the new one's id and a handle on it.
    Parent {
        /// Process id as the parent sees it.
        pid: Pid,
        /// Refers to the process whatever becomes of the number.
        pidfd: OwnedFd,
    },
}

/// Starts a copy of this process in new namespaces. The exit signal is SIGCHLD.
///
/// Only for a process with one thread: the copy has only the calling one, and a lock that another held would stay held
/// forever. Fails with `WouldBlock` when there are more, a moment later: a thread that has been joined is still in the
/// kernel's list for some microseconds, on a busy machine longer.
pub fn clone_process(flags: CloneFlags) -> io::Result<Cloned> {
    clone_process_into(flags, None)
}

/// Like [`clone_process`]; the copy is in the cgroup of version 2 behind a descriptor of its directory from the first
/// moment on.
pub fn clone_process_into(flags: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    const MOMENT: std::time::Duration = std::time::Duration::from_micros(500);
    for _ in 0..400 {
        if !std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1) {
            return clone_alone_into(flags, cgroup);
        }
        std::thread::sleep(MOMENT);
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "a process with threads cannot be copied"))
}

/// Like [`clone_process`], for a caller that has checked once that no thread was ever started here.
pub(crate) fn clone_alone(flags: CloneFlags) -> io::Result<Cloned> {
    clone_alone_into(flags, None)
}

/// Both of it.
pub(crate) fn clone_alone_into(flags: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: an all-zero clone_args is the valid "nothing asked for".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags.0 | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= INTO_CGROUP;
        args.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    }
    // SAFETY: without CLONE_VM the child runs on a copy of this memory and stack, as after fork(2); `pidfd` outlives
    // the call. There is one thread, so no lock of the allocator is held by somebody who is missing in the child.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
            // SAFETY: the kernel has just put a new descriptor there, which nobody else knows.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid, pidfd })
        }
    }
}

/// Gives when a process started, in clock ticks since boot (proc(5), field 22 of stat).
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name in parentheses may hold anything
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Whether the process that started then still runs: one that has ended and waits for its parent to take note does not.
pub fn runs_since(pid: u32, start: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ended = matches!(fields.next(), None | Some("Z" | "X"));
    !ended && fields.nth(18).and_then(|field| field.parse().ok()) == Some(start)
}

/// Leaves at once, without unwinding or exit handlers: for the child side of a clone.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: always sound; ends the process.
    unsafe { libc::_exit(code) }
}

/// Gives every signal its default action and unblocks all of them, as a new program expects.
pub fn default_signals() {
    // SAFETY: SIG_DFL is no function of ours, and an empty signal set is valid; failures (SIGKILL, SIGSTOP) are
    // without effect.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Ends this process with the signal that ended its child, as a shell would see it.
pub fn die_of(signal: i32) -> ! {
    default_signals();
    // SAFETY: raising a signal is always sound.
    unsafe { libc::raise(signal) };
    exit_now(128 + signal)
}

/// Sends a signal to the process that `pidfd` stands for, by number: the real-time ones have no names here.
pub fn pidfd_signal(pidfd: impl std::os::fd::AsFd, signal: i32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the call takes two numbers, a null pointer for "as kill(2) would" and flags; it writes nothing.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd,
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0 as libc::c_uint,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks every descriptor from `first` on to be closed by exec.
pub fn cloexec_from(first: RawFd) -> io::Result<()> {
    let first = libc::c_uint::try_from(first).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: only flags of descriptors change; no descriptor is closed under its owner.
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        return Ok(());
    }
    // Linux before 5.11: one by one.
    for entry in std::fs::read_dir("/proc/self/fd")?.flatten() {
        if let Some(fd) =
            entry.file_name().to_str().and_then(|n| n.parse::<libc::c_uint>().ok()).filter(|n| *n >= first)
        {
            // SAFETY: as above.
            unsafe { libc::fcntl(fd as libc::c_int, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Closes every descriptor from `first` on but `keep`: for a process that stays behind and uses nothing else.
pub fn close_from(first: RawFd, keep: Option<RawFd>) {
    let close = |from: RawFd, to: libc::c_uint| {
        let Ok(from) = libc::c_uint::try_from(from) else { return };
        if from <= to {
            // SAFETY: the caller never touches these descriptors again; it only waits and exits.
            unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        }
    };
    match keep {
        Some(keep) if keep >= first => {
            close(first, libc::c_uint::try_from(keep).unwrap_or(0).saturating_sub(1));
            close(keep + 1, libc::c_uint::MAX);
        }
        _ => close(first, libc::c_uint::MAX),
    }
}

/// Gives the memory back that the program's own code takes: it is read again from the page cache when it is needed.
/// For a process that sleeps for long.
pub fn forget_code() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let Ok(program) = std::fs::read_link("/proc/self/exe") else { return };
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(rights), Some(offset), path) =
            (fields.next(), fields.next(), fields.next(), fields.nth(2))
        else {
            continue;
        };
        // Code is never changed, nor is what stands before it in the file; later parts have been relocated.
        let untouched = rights == "r-xp" || rights == "r--p" && offset.bytes().all(|b| b == b'0');
        let ours = path.is_some_and(|path| std::path::Path::new(path) == program || path == "/");
        let ends = range.split_once('-').and_then(|(from, to)| {
            Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
        });
        if let (true, true, Some((from, to))) = (untouched, ours, ends) {
            // SAFETY: a private mapping of a file that was never written to: the pages come back as they were.
            unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
        }
    }
}

/// Takes over standard input as a descriptor of its own; number 0 then reads `/dev/null`.
pub fn take_stdin() -> io::Result<OwnedFd> {
    let own = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(own)
}

/// One instruction of a filter (classic BPF, linux/filter.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BpfInstruction {
    /// Operation.
    pub code: u16,
    /// How many instructions to skip when a test holds.
    pub jt: u8,
    /// How many to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Puts a system call filter on this thread for good. Needs CAP_SYS_ADMIN or no_new_privs.
pub fn install_filter(program: &[BpfInstruction]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // The kernel only reads the program.
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `BpfInstruction` has the layout of `sock_filter`, `program` lives through the call, which copies it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0 as libc::c_ulong,
            &raw const program,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the file mode creation mask and gives the old one.
pub fn umask(mask: u32) -> u32 {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask)).bits()
}
