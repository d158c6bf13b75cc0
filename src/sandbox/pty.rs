//! Terminals: one for the process, from the sandbox's own devpts, and care for the user's.
//!
//! The other end is opened by TIOCGPTPEER on the master, never by a path inside the container (CVE-2025-52565).

use super::error::{Doing, Setup};
use super::system::{self, Dev};
use super::user::Identity;
use rustix::fs::{self, Gid, Mode, OFlags, Uid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{self, OptionalActions, Termios, Winsize};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// A pair: the master for rbuild, the peer for the process.
#[derive(Debug)]
pub(super) struct Terminal {
    master: OwnedFd,
    peer: OwnedFd,
}

impl Terminal {
    /// Opens a pair in a new `/dev` and shows it as `/dev/console`.
    pub(super) fn open(dev: &Dev, who: &Identity, size: Option<(u16, u16)>) -> Setup<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = fs::openat(&dev.pts, "ptmx", flags, Mode::empty()).doing(|| "open a terminal".into())?;
        let terminal = Self::from_master(master, who, size)?;
        let console = crate::sys::mount::clone_tree(&terminal.peer, false);
        console
            .and_then(|tree| system::attach_file(&dev.mount, b"console", &tree))
            .doing(|| "put /dev/console there".into())?;
        Ok(terminal)
    }

    /// Opens a pair in the container that this process has joined.
    pub(super) fn open_in_container(who: &Identity, size: Option<(u16, u16)>) -> Setup<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let doing = || "open a terminal in the container".to_owned();
        let master = fs::open("/dev/pts/ptmx", flags, Mode::empty()).doing(doing)?;
        Self::from_master(master, who, size)
    }

    fn from_master(master: OwnedFd, who: &Identity, size: Option<(u16, u16)>) -> Setup<Self> {
        let make = || {
            unlockpt(&master)?;
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let peer = ioctl_tiocgptpeer(&master, flags)?;
            fs::fchown(&peer, Some(Uid::from_raw(who.uid)), None::<Gid>)?;
            if let Some((columns, rows)) = size {
                let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                termios::tcsetwinsize(&peer, size)?;
            }
            rustix::io::Result::Ok(peer)
        };
        let peer = make().doing(|| "set up the terminal".into())?;
        Ok(Self { master, peer })
    }

    /// Makes the peer the standard streams and the controlling terminal of this session.
    pub(super) fn become_streams(&self) -> io::Result<()> {
        rustix::process::ioctl_tiocsctty(&self.peer)?;
        use_streams(&self.peer, &self.peer, &self.peer)
    }

    pub(super) fn into_master(self) -> OwnedFd {
        self.master
    }
}

/// Puts three files where a program expects its standard streams.
pub(super) fn use_streams(stdin: impl AsFd, stdout: impl AsFd, stderr: impl AsFd) -> io::Result<()> {
    dup2_stdin(stdin)?;
    dup2_stdout(stdout)?;
    Ok(dup2_stderr(stderr)?)
}

/// Columns and rows of a terminal; `None` when the file is none.
pub fn size_of(terminal: impl AsFd) -> Option<(u16, u16)> {
    termios::tcgetwinsize(terminal).ok().map(|size| (size.ws_col, size.ws_row))
}

/// Gives a terminal a size in columns and rows; the processes on it get SIGWINCH.
pub fn set_size(terminal: impl AsFd, (columns, rows): (u16, u16)) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(termios::tcsetwinsize(terminal, size)?)
}

/// Gives one terminal the size of another; the processes on it get SIGWINCH.
pub fn copy_size(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    Ok(termios::tcsetwinsize(to, termios::tcgetwinsize(from)?)?)
}

/// Keeps a terminal in raw mode, every key going to the process, until dropped.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Switches a terminal to raw mode. Fails when the file is no terminal.
    pub fn enter(terminal: impl AsFd) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let before = termios::tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&terminal, OptionalActions::Drain, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no repair.
        let _ = termios::tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}
