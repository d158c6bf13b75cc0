//! AppArmor: the profile of a container's program.
//!
//! Profiles are loaded by the machine's administrator; rbuild has none of its own and confines nobody who does not ask.
//! The name is handed to the kernel early, while `/proc` is still the machine's own, and takes effect with the next
//! execution, which is that of the program.

use super::error::{Doing, Setup, SetupError, show};
use nix::libc;
use std::fs;
use std::io;

/// Where the kernel takes the name: of AppArmor alone since Linux 5.8, of whichever module there is before.
const PLACES: [&str; 2] = ["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"];

/// Says whether the kernel confines programs with AppArmor.
fn is_enabled() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.first() == Some(&b'Y'))
}

/// Asks for a profile for what this process, or a copy of it, executes next. Without AppArmor nothing is done, as by
/// docker.
pub(super) fn change_at_execution(profile: &str) -> Setup<()> {
    if !is_enabled() {
        return Ok(());
    }
    match write(format!("exec {profile}").as_bytes()) {
        // who is not confined stays so
        Err(_) if profile == "unconfined" => Ok(()),
        other => other
            .doing(|| format!("apply the AppArmor profile {}", show(profile.as_bytes())))
            .map_err(explain),
    }
}

fn write(line: &[u8]) -> io::Result<()> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for place in PLACES {
        match fs::OpenOptions::new().write(true).open(place) {
            // one call: the kernel takes each as a whole
            Ok(mut file) => return io::Write::write_all(&mut file, line),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn explain(error: SetupError) -> SetupError {
    match error.errno {
        Some(libc::ENOENT) => error.hint("there is no such profile: load it with `apparmor_parser -r FILE`"),
        Some(libc::EACCES | libc::EPERM) => {
            error.hint("the profile that rbuild itself runs under forbids it")
        }
        _ => error,
    }
}
