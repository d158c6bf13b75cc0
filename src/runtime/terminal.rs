//! Carries bytes between the caller's streams and a container's terminal, or into its standard input.
//!
//! Output without a terminal is not carried at all: the program writes to the caller's own files. Its input is the
//! caller's own pipe, socket or terminal, but never the caller's own regular file or device: a program could open
//! that again for writing, through `/proc/self/fd`.

use super::RunError;
use crate::sandbox::pty::{self, RawMode};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdin, stdout};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Bytes carried at once; a terminal never has more than 4 KiB ready.
const CHUNK: usize = 16 << 10;

/// Gives the size of the caller's terminal, if any of its streams is one.
pub(super) fn size() -> Option<(u16, u16)> {
    [stdout(), stdin(), stderr()].into_iter().find_map(pty::size_of).filter(|size| *size != (0, 0))
}

/// Gives the container's terminal the size of the caller's.
pub(super) fn fit(terminal: &OwnedFd) {
    if let Some(ours) = [stdout(), stdin(), stderr()].into_iter().find(|fd| pty::size_of(fd).is_some()) {
        // a terminal that is gone has no size
        let _ = pty::copy_size(ours, terminal);
    }
}

/// Gives what the program reads: nothing, or the caller's input.
pub(super) fn input(interactive: bool) -> Result<OwnedFd, RunError> {
    let fail = || RunError::io::<io::Error>("pass standard input on");
    if !interactive {
        return File::open("/dev/null").map(OwnedFd::from).map_err(fail());
    }
    let ours = stdin();
    let kind = fstat(ours).map(|stat| FileType::from_raw_mode(stat.st_mode));
    let safe = matches!(kind, Ok(FileType::Fifo | FileType::Socket)) || rustix::termios::isatty(ours);
    if safe {
        return ours.try_clone_to_owned().map_err(fail());
    }
    let (read, write) = io::pipe().map_err(fail())?;
    let write = OwnedFd::from(write);
    // it ends with the input, or when nobody reads any more; closing the pipe is the end of input for the program
    background("input", move || carry(stdin(), write.as_fd())).map_err(fail())?;
    Ok(read.into())
}

/// Carries until the program has ended and all that it wrote is out. In `interactive` mode the caller's terminal is raw
/// meanwhile, and is as it was afterwards.
pub(super) fn attach(
    terminal: &Arc<OwnedFd>,
    process: BorrowedFd<'_>,
    interactive: bool,
) -> Result<(), RunError> {
    let raw = match interactive {
        true => Some(RawMode::enter(stdin()).map_err(RunError::io("make the terminal raw"))?),
        false => None,
    };
    fit(terminal);
    if interactive {
        let terminal = terminal.clone();
        background("input", move || carry(stdin(), terminal.as_fd()))
            .map_err(RunError::io("start a thread"))?;
    }
    drain(terminal.as_fd(), process);
    drop(raw);
    Ok(())
}

fn background(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // nobody waits for it: it may stand in a read for ever, and ends with this process
    std::thread::Builder::new().name(name.into()).stack_size(128 << 10).spawn(work).map(drop)
}

/// Copies the terminal's output until all programs on it are gone. Output that nobody takes is dropped.
fn drain(terminal: BorrowedFd<'_>, process: BorrowedFd<'_>) {
    let mut buffer = [0; CHUNK];
    let mut ended = false;
    loop {
        let mut fds = [PollFd::new(&terminal, PollFlags::IN), PollFd::new(&process, PollFlags::IN)];
        // somebody outside may have got hold of the other end; then the process's end is the end
        let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds[..if ended { 1 } else { 2 }], ended.then_some(&wait)) {
            Ok(0) => return,
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        let (data, end) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        ended |= end;
        if data {
            match rustix::io::read(terminal, &mut buffer) {
                // EIO: the other end is closed
                Ok(0) | Err(Errno::IO) => return,
                Ok(n) => drop(write_all(stdout(), &buffer[..n])),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => return,
            }
        }
    }
}

/// Copies until the end of `from` or until `to` takes no more.
fn carry(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    let mut buffer = [0; CHUNK];
    loop {
        match rustix::io::read(from, &mut buffer) {
            Ok(0) => return,
            Ok(n) => {
                if write_all(to, &buffer[..n]).is_err() {
                    return;
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(from, PollFlags::IN),
            Err(_) => return,
        }
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            // the caller's streams may be in any mode
            Err(Errno::AGAIN) => wait(to, PollFlags::OUT),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn wait(fd: BorrowedFd<'_>, what: PollFlags) {
    let _ = poll(&mut [PollFd::new(&fd, what)], None);
}
