//! Carries bytes between the caller's streams and a container's terminal, or into its standard input.
//!
//! Without a terminal the program mostly uses the caller's own pipes, sockets and terminals, and nothing is carried at
//! all. It never gets the caller's own regular file or disk: it could open that again through `/proc/self/fd`, to
//! write to what it should read, or to read and change what stood in a log before.

use super::RunError;
use super::detach::{DetachKeys, Filter};
use crate::sandbox::pty::{self, RawMode};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdin, stdout};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Bytes carried at once; a terminal never has more than 4 KiB ready.
const CHUNK: usize = 16 << 10;

/// Gives the size of the caller's terminal, if any of its streams is one.
pub fn size() -> Option<(u16, u16)> {
    [stdout(), stdin(), stderr()].into_iter().find_map(pty::size_of).filter(|size| *size != (0, 0))
}

/// Gives the container's terminal the size of the caller's.
fn fit(terminal: &OwnedFd) {
    if let Some(ours) = [stdout(), stdin(), stderr()].into_iter().find(|fd| pty::size_of(fd).is_some()) {
        // a terminal that is gone has no size
        let _ = pty::copy_size(ours, terminal);
    }
}

/// Gives what the program reads: nothing, or the caller's input.
pub fn input(interactive: bool) -> Result<OwnedFd, RunError> {
    let fail = || RunError::io::<io::Error>("pass standard input on");
    if !interactive {
        return File::open("/dev/null").map(OwnedFd::from).map_err(fail());
    }
    if !is_exposed(stdin()) {
        return stdin().try_clone_to_owned().map_err(fail());
    }
    let (read, write) = io::pipe().map_err(fail())?;
    let write = OwnedFd::from(write);
    // it ends with the input, or when nobody reads any more; closing the pipe is the end of input for the program
    background("input", move || carry(stdin(), write.as_fd()).unwrap_or_default()).map_err(fail())?;
    Ok(read.into())
}

/// Whether more can be done with a file than reading or writing it from here on.
fn is_exposed(file: BorrowedFd<'_>) -> bool {
    match fstat(file).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::Fifo | FileType::Socket) => false,
        Ok(FileType::CharacterDevice) => !rustix::termios::isatty(file) && !is_null(file),
        _ => true,
    }
}

fn is_null(file: BorrowedFd<'_>) -> bool {
    fstat(file).is_ok_and(|stat| stat.st_rdev == rustix::fs::makedev(1, 3))
}

/// What the program writes to.
#[derive(Debug)]
pub struct Outputs {
    /// Its output.
    pub stdout: OwnedFd,
    /// Its errors.
    pub stderr: OwnedFd,
    /// Who carries them on.
    pub carriers: Carriers,
}

/// Threads that carry output into files of the caller.
#[derive(Debug, Default)]
pub struct Carriers(Vec<JoinHandle<Result<(), Errno>>>);

/// Gives what the program writes to: the caller's own streams, or pipes into them.
pub fn outputs() -> Result<Outputs, RunError> {
    let make = || -> io::Result<Outputs> {
        let mut carriers = Carriers::default();
        let first = carriers.output(stdout())?;
        // both in one file go through one pipe, so that they keep their order
        let second = match is_exposed(stderr()) && is_same(stdout(), stderr()) {
            true => first.try_clone()?,
            false => carriers.output(stderr())?,
        };
        Ok(Outputs { stdout: first, stderr: second, carriers })
    };
    make().map_err(RunError::io("pass the output on"))
}

fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let place = |fd| fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino));
    place(one).is_some() && place(one) == place(other)
}

impl Carriers {
    fn output(&mut self, ours: BorrowedFd<'static>) -> io::Result<OwnedFd> {
        if !is_exposed(ours) {
            return ours.try_clone_to_owned();
        }
        let (read, write) = io::pipe()?;
        let read = OwnedFd::from(read);
        // when nothing more can be written the pipe closes, and the program hears of it as of any reader's end
        let thread = std::thread::Builder::new().name("output".into()).stack_size(128 << 10);
        self.0.push(thread.spawn(move || carry(read.as_fd(), ours))?);
        Ok(write.into())
    }

    /// Waits until all that the program wrote is out. The program has ended.
    pub fn finish(self, note: fn(&str)) {
        for thread in self.0 {
            if let Ok(Err(error)) = thread.join() {
                let error = io::Error::from(error);
                note(&format!("warning: the container's output could not be written: {error}\n"));
            }
        }
    }
}

/// Carries until the program has ended and all that it wrote is out; `input` says whether the user's keys go to it, whose
/// terminal is raw meanwhile and is as it was afterwards. Gives false when the user has left with the detach keys.
pub fn attach(
    terminal: &Arc<OwnedFd>,
    over: BorrowedFd<'_>,
    input: bool,
    keys: &DetachKeys,
) -> Result<bool, RunError> {
    let raw = match input {
        true => Some(RawMode::enter(stdin()).map_err(RunError::io("make the terminal raw"))?),
        false => None,
    };
    fit(terminal);
    let _resizes = Resizes::start(terminal)?;
    let stays = drain(terminal.as_fd(), over, input.then(|| Filter::new(keys)));
    drop(raw);
    Ok(stays)
}

/// Passes new sizes of the caller's terminal on until it is dropped.
struct Resizes(signal_hook::iterator::Handle);

impl Resizes {
    fn start(terminal: &Arc<OwnedFd>) -> Result<Self, RunError> {
        let fail = || RunError::io::<io::Error>("watch the size of the terminal");
        let mut signals = signal_hook::iterator::Signals::new([nix::libc::SIGWINCH]).map_err(fail())?;
        let (handle, terminal) = (signals.handle(), terminal.clone());
        background("resize", move || signals.forever().for_each(|_| fit(&terminal))).map_err(fail())?;
        Ok(Self(handle))
    }
}

impl Drop for Resizes {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Puts the caller's terminal right before the process is left in a hurry.
pub(super) fn restore() {
    if rustix::termios::isatty(stdin())
        && let Ok(mut modes) = rustix::termios::tcgetattr(stdin())
    {
        use rustix::termios::{InputModes, LocalModes, OptionalActions, OutputModes};
        modes.local_modes |= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN;
        modes.input_modes |= InputModes::ICRNL | InputModes::IXON;
        modes.output_modes |= OutputModes::OPOST;
        let _ = rustix::termios::tcsetattr(stdin(), OptionalActions::Now, &modes);
    }
}

fn background(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // nobody waits for it: it may stand in a read for ever, and ends with this process
    std::thread::Builder::new().name(name.into()).stack_size(128 << 10).spawn(work).map(drop)
}

/// Copies output, and input through the filter, until all programs on the terminal are gone. Output that nobody takes is
/// dropped. Gives false when the user has left.
fn drain(terminal: BorrowedFd<'_>, over: BorrowedFd<'_>, mut filter: Option<Filter>) -> bool {
    let mut buffer = [0; CHUNK];
    let mut ended = false;
    loop {
        let input = stdin();
        let mut fds = [
            PollFd::new(&terminal, PollFlags::IN),
            PollFd::new(&over, PollFlags::IN),
            PollFd::new(&input, PollFlags::IN),
        ];
        let count = match (ended, &filter) {
            (true, _) => 1,
            (false, None) => 2,
            (false, Some(_)) => 3,
        };
        // somebody outside may have got hold of the other end; then the process's end is the end
        let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds[..count], ended.then_some(&wait)) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return true,
        }
        let (data, end) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        let typed = count == 3 && !fds[2].revents().is_empty();
        ended |= end;
        if data {
            match rustix::io::read(terminal, &mut buffer) {
                // EIO: the other end is closed
                Ok(0) | Err(Errno::IO) => return true,
                Ok(n) => drop(write_all(stdout(), &buffer[..n])),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => return true,
            }
        }
        if typed && let Some(keys) = &mut filter {
            match rustix::io::read(stdin(), &mut buffer) {
                Ok(n) if n > 0 => {
                    let (bytes, leaves) = keys.take(&buffer[..n]);
                    let _ = write_all(terminal, &bytes);
                    if leaves {
                        return false;
                    }
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Ok(_) | Err(_) => filter = None,
            }
        }
    }
}

/// Copies until the end of `from`, or gives the error with which `to` takes no more.
fn carry(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut buffer = [0; CHUNK];
    loop {
        match rustix::io::read(from, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => write_all(to, &buffer[..n])?,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(from, PollFlags::IN),
            // a terminal that is gone has nothing more to say
            Err(_) => return Ok(()),
        }
    }
}

pub(super) fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
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
