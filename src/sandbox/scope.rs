//! A cgroup of our own from the user's systemd.
//!
//! An ordinary user may only make cgroups below one that was delegated, and a login session is none. What `systemd-run
//! --user --scope -p Delegate=yes` does for a command is done here for processes that run: one call of D-Bus,
//! `StartTransientUnit`, over the socket that systemd itself listens on, so that no bus has to be there.
//!
//! The message is written by hand: it is one, of a fixed shape, and a D-Bus library is larger than the sandbox.

use super::rootless;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long systemd may take, for each answer and for the move.
const PATIENCE: Duration = Duration::from_secs(10);

/// More than this many bytes is no answer of systemd's.
const LIMIT: usize = 1 << 20;

/// Types of messages (D-Bus specification, "Message Format").
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;

/// Header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const REPLY_SERIAL: u8 = 5;
const SIGNATURE: u8 = 8;

const SERIAL: u32 = 1;

/// Moves this process and `others` into a new delegated scope of the user's.
///
/// # Errors
/// There is no systemd of this user, or it refuses.
pub(super) fn enter(others: &[u32]) -> io::Result<()> {
    let own = std::process::id();
    let pids: Vec<u32> = std::iter::once(own).chain(others.iter().copied()).collect();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let unit = format!("rbuild-{own}-{}.scope", COUNT.fetch_add(1, Ordering::Relaxed));
    let mut bus = connect()?;
    bus.write_all(&start_unit(&unit, &pids))?;
    answer(&mut bus)?;
    // the answer says that it is begun
    let until = Instant::now() + PATIENCE;
    while !std::fs::read_to_string("/proc/self/cgroup")?.lines().any(|line| line.ends_with(&unit)) {
        if Instant::now() > until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "systemd did not move the process"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Says whether this user's systemd can be asked.
pub(super) fn can_be_had() -> bool {
    connect().is_ok()
}

fn connect() -> io::Result<UnixStream> {
    let mut places: Vec<PathBuf> =
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).into_iter().collect();
    if let Some(state) = rootless::state() {
        places.push(format!("/run/user/{}", state.real_uid).into());
    }
    let found = places.iter().map(|dir| dir.join("systemd/private")).find(|path| path.exists());
    let path = found.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "no systemd runs for this user (no login session, and no lingering)",
        )
    })?;
    let mut bus = UnixStream::connect(path)?;
    bus.set_read_timeout(Some(PATIENCE))?;
    bus.set_write_timeout(Some(PATIENCE))?;
    // The kernel tells who we are; the empty answer says so.
    bus.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\n")?;
    let mut said = Vec::new();
    loop {
        let mut byte = [0];
        bus.read_exact(&mut byte)?;
        said.push(byte[0]);
        if said.ends_with(b"\r\n") {
            let line = String::from_utf8_lossy(&said).trim().to_owned();
            match line.split(' ').next() {
                Some("OK") => break,
                Some("DATA") => said.clear(),
                _ => return Err(io::Error::new(io::ErrorKind::PermissionDenied, line)),
            }
        }
        if said.len() > 4096 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    bus.write_all(b"BEGIN\r\n")?;
    Ok(bus)
}

/// Bytes in D-Bus's order: every value is aligned to its size, counted from the beginning of the message.
#[derive(Default)]
struct Wire(Vec<u8>);

impl Wire {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or(0));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(0));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// An array, whose length in bytes does not count the padding before its first element.
    fn array(&mut self, align: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(align);
        let start = self.0.len();
        elements(self);
        let length = u32::try_from(self.0.len() - start).unwrap_or(0);
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// The call that makes the unit.
fn start_unit(unit: &str, pids: &[u32]) -> Vec<u8> {
    let mut body = Wire::default();
    body.text(unit);
    body.text("fail");
    body.array(8, |list| {
        let property = |list: &mut Wire, name: &str, kind: &str| {
            list.align(8);
            list.text(name);
            list.signature(kind);
        };
        property(list, "Description", "s");
        list.text("Containers and builds of rbuild");
        property(list, "Delegate", "b");
        list.u32(1);
        property(list, "PIDs", "au");
        list.array(4, |list| pids.iter().for_each(|pid| list.u32(*pid)));
        property(list, "CollectMode", "s");
        list.text("inactive-or-failed");
    });
    body.array(8, |_| {});

    let mut message = Wire(vec![b'l', CALL, 0, 1]);
    message.u32(u32::try_from(body.0.len()).unwrap_or(0));
    message.u32(SERIAL);
    message.array(8, |fields| {
        for (code, kind, value) in [
            (PATH, "o", "/org/freedesktop/systemd1"),
            (INTERFACE, "s", "org.freedesktop.systemd1.Manager"),
            (MEMBER, "s", "StartTransientUnit"),
        ] {
            fields.align(8);
            fields.0.push(code);
            fields.signature(kind);
            fields.text(value);
        }
        fields.align(8);
        fields.0.push(SIGNATURE);
        fields.signature("g");
        fields.signature("ssa(sv)a(sa(sv))");
    });
    message.align(8);
    message.0.extend(body.0);
    message.0
}

/// Waits for the answer to the call; other messages are passed over.
fn answer(bus: &mut impl Read) -> io::Result<()> {
    loop {
        let mut head = [0; 16];
        bus.read_exact(&mut head)?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (body, fields) = (number(4) as usize, number(12) as usize);
        if head[0] != b'l' || body > LIMIT || fields > LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "systemd answered in another language"));
        }
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        bus.read_exact(&mut rest)?;
        if !answers(&rest[..fields]) {
            continue;
        }
        match head[1] {
            RETURN => return Ok(()),
            ERROR => {
                return Err(io::Error::other(format!(
                    "systemd: {}",
                    text_at(&rest, fields.next_multiple_of(8))
                )));
            }
            _ => {}
        }
    }
}

/// Says whether header fields name our call as the one that is answered. Each field is a number, a signature and a
/// value, beginning at a multiple of eight; what is looked for is the only one of the type `u` with that number.
fn answers(fields: &[u8]) -> bool {
    let wanted = [REPLY_SERIAL, 1, b'u', 0];
    fields
        .chunks(8)
        .any(|piece| piece.len() == 8 && piece[..4] == wanted && piece[4..] == SERIAL.to_le_bytes())
}

/// Reads the string that begins at `at`.
fn text_at(bytes: &[u8], at: usize) -> String {
    let length = bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])) as usize;
    let text = bytes.get(at + 4..(at + 4).saturating_add(length)).unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_is_laid_out_as_the_specification_says() {
        let message = start_unit("rbuild-7-0.scope", &[7, 8]);
        let number = |at: usize| u32::from_le_bytes(message[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!(message[..4], [b'l', 1, 0, 1]);
        let body = (16 + number(12)).next_multiple_of(8);
        assert_eq!(message.len(), body + number(4));
        assert_eq!(text_at(&message, body), "rbuild-7-0.scope");
        assert_eq!(text_at(&message, body + 24), "fail");
        // properties, then an empty list
        let end = 40 + number(body + 36);
        assert_eq!((end.next_multiple_of(4) + 4).next_multiple_of(8), message.len() - body);
        let pids: Vec<u8> = [8u32, 7, 8].iter().flat_map(|n| n.to_le_bytes()).collect();
        assert!(message.windows(pids.len()).any(|piece| piece == pids), "length and elements of the list");
    }

    #[test]
    fn answers_are_told_from_other_messages() {
        let message = |kind: u8, reply: u32, text: &str| {
            let mut body = Wire::default();
            body.text(text);
            let mut out = Wire(vec![b'l', kind, 0, 1]);
            out.u32(u32::try_from(body.0.len()).unwrap());
            out.u32(9);
            out.array(8, |fields| {
                fields.0.push(4);
                fields.signature("s");
                fields.text("a.b.Error");
                fields.align(8);
                fields.0.push(REPLY_SERIAL);
                fields.signature("u");
                fields.u32(reply);
            });
            out.align(8);
            out.0.extend(body.0);
            out.0
        };
        let stream =
            [message(4, 0, "signal"), message(RETURN, 5, "other"), message(ERROR, SERIAL, "no such thing")];
        let error = answer(&mut &stream.concat()[..]).unwrap_err();
        assert_eq!(error.to_string(), "systemd: no such thing");
        answer(&mut &message(RETURN, SERIAL, "/job/1")[..]).unwrap();
        assert!(answer(&mut &b"l\x02\x00\x01"[..]).is_err());
        assert!(answer(&mut &[0xff; 64][..]).is_err());
    }
}
