//! `RUN --mount=type=ssh`: a socket of the step's own, with the mode and owner that it asked for, carried to the agent's.

use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Name of the socket in the forwarder's directory.
pub(super) const NAME: &str = "agent";

/// Carries connections to an agent until it is dropped.
#[derive(Debug)]
pub(super) struct Forwarder {
    socket: PathBuf,
    stop: Arc<AtomicBool>,
}

impl Forwarder {
    /// Listens in `dir`. Each connection gets two threads, which end with it.
    pub(super) fn start(agent: &Path, dir: &Path, mode: u32, uid: u32, gid: u32) -> io::Result<Self> {
        drop(UnixStream::connect(agent)?);
        let socket = dir.join(NAME);
        let listener = UnixListener::bind(&socket)?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(mode))?;
        if (uid, gid) != (0, 0) {
            chown(&socket, Some(uid), Some(gid))?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (agent, stopped) = (agent.to_owned(), stop.clone());
        std::thread::Builder::new()
            .name("ssh agent".into())
            .spawn(move || accept(&listener, &agent, &stopped))?;
        Ok(Self { socket, stop })
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // wakes the thread that waits in accept; it then sees the flag
        let _ = UnixStream::connect(&self.socket);
    }
}

fn accept(listener: &UnixListener, agent: &Path, stop: &AtomicBool) {
    for client in listener.incoming() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let (Ok(client), Ok(server)) = (client, UnixStream::connect(agent)) else { continue };
        let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { continue };
        std::thread::spawn(move || carry(client, server));
        std::thread::spawn(move || carry(server_too, client_too));
    }
}

fn carry(mut from: UnixStream, mut to: UnixStream) {
    // an end of either side ends the connection; there is nobody to tell
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn bytes_go_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        let listener = UnixListener::bind(&real).unwrap();
        let agent = std::thread::spawn(move || {
            // the first connection is the check that the agent answers
            listener.accept().unwrap();
            let (mut c, _) = listener.accept().unwrap();
            let mut text = String::new();
            c.read_to_string(&mut text).unwrap();
            c.write_all(format!("{text} back").as_bytes()).unwrap();
        });
        let forwarder = Forwarder::start(&real, dir.path(), 0o600, 0, 0).unwrap();
        let mut c = UnixStream::connect(dir.path().join(NAME)).unwrap();
        c.write_all(b"there").unwrap();
        c.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        c.read_to_string(&mut text).unwrap();
        assert_eq!(text, "there back");
        agent.join().unwrap();
        drop(forwarder);
    }
}
