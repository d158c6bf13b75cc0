//! `rbuild system boot`: what a daemon would do when the machine comes up and goes down, as a command that systemd runs.

use super::containers::lifecycle::{start_one, stop_one};
use super::containers::{failure, for_each, open, together};
use super::{CliError, CommandResult, Ctx, talk};
use crate::runtime::Containers;
use crate::sandbox::rootless::{self, RootlessState};
use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// The unit's file.
const UNIT: &str = "rbuild-containers.service";

/// Starts the containers that shall run after a boot.
///
/// These are those of the restart policies `always` and `unless-stopped` (the latter unless somebody has stopped them) that ran before
/// and that nobody has started or ended since the machine came up. Done twice it does nothing the second time.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Stop all containers in good order; those with such a policy are started by the next `system boot`
    #[arg(long, conflicts_with_all = ["install", "remove"])]
    stop: bool,
    /// Have systemd do this at each boot: write a unit and enable it
    #[arg(long, conflicts_with = "remove")]
    install: bool,
    /// Take away what --install has written
    #[arg(long)]
    remove: bool,
}

/// Runs it.
pub(super) fn run(args: &Args, ctx: &Ctx) -> CommandResult {
    match args {
        Args { install: true, .. } => install(ctx),
        Args { remove: true, .. } => remove(ctx),
        Args { stop: true, .. } => stop(&open(ctx)?, ctx),
        _ => start(&open(ctx)?, ctx),
    }
}

/// Starts all at once. One may need another (its network, its volumes, its name), so those that failed get a second
/// chance when the others run.
fn start(containers: &Containers, ctx: &Ctx) -> CommandResult {
    let names = || -> Result<Vec<String>, CliError> {
        let due = containers.due_at_boot().map_err(failure)?;
        Ok(due.iter().map(|container| container.record.name.to_string()).collect())
    };
    let work = |name: &str| start_one(containers, name);
    let first = names()?;
    let result = for_each(&first, ctx, &work);
    let left = names()?;
    if left.is_empty() || left.len() == first.len() {
        return result;
    }
    for_each(&left, ctx, &work)
}

fn stop(containers: &Containers, ctx: &Ctx) -> CommandResult {
    let all = containers.list().map_err(failure)?;
    let live = all.iter().filter(|container| container.state.status.is_live());
    let names: Vec<String> = live.map(|container| container.record.name.to_string()).collect();
    for_each(&names, ctx, &|name| {
        let container = stop_one(containers, name, None, None, false)?;
        match container.record.auto_remove {
            true => Ok(()),
            false => containers.shut_down(&container.record.id).map_err(failure),
        }
    })
}

/// Where a unit belongs, and what wants it.
struct Place {
    dir: PathBuf,
    target: &'static str,
    user: Option<RootlessState>,
}

impl Place {
    fn find() -> Result<Self, CliError> {
        let Some(user) = rootless::state() else {
            return Ok(Self { dir: "/etc/systemd/system".into(), target: "multi-user.target", user: None });
        };
        let var = |name| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
        let config = var("XDG_CONFIG_HOME").or_else(|| var("HOME").map(|home| home.join(".config")));
        let config = config.ok_or_else(|| CliError::new("neither XDG_CONFIG_HOME nor HOME is set"))?;
        Ok(Self { dir: config.join("systemd/user"), target: "default.target", user: Some(user) })
    }

    fn unit(&self) -> PathBuf {
        self.dir.join(UNIT)
    }

    fn link(&self) -> PathBuf {
        self.dir.join(format!("{}.wants", self.target)).join(UNIT)
    }

    fn systemctl(&self) -> &'static str {
        if self.user.is_some() { "systemctl --user" } else { "systemctl" }
    }

    /// Has a running systemd read its units again; it does so at the next boot in any case.
    fn reload(&self) {
        let mut command = Command::new("systemctl");
        if self.user.is_some() {
            command.arg("--user");
        }
        command.arg("daemon-reload").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = command.status();
    }
}

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> CliError {
    move |e| CliError::new(format!("cannot write {}: {e}", path.display()))
}

fn install(ctx: &Ctx) -> CommandResult {
    if !Path::new("/run/systemd/system").is_dir() && !Path::new("/usr/lib/systemd").is_dir() {
        return Err(CliError::new("this machine has no systemd").hint(
            "have its own means run `rbuild system boot` at boot and `rbuild system boot --stop` at shutdown",
        ));
    }
    let place = Place::find()?;
    let program =
        std::env::current_exe().map_err(|e| CliError::new(format!("cannot find this program: {e}")))?;
    let (unit, link) = (place.unit(), place.link());
    let wants = link.parent().unwrap_or(&place.dir);
    std::fs::create_dir_all(wants).map_err(write_error(wants))?;
    let text = unit_text(&program, &ctx.root, place.target);
    std::fs::write(&unit, text).map_err(write_error(&unit))?;
    match std::os::unix::fs::symlink(&unit, &link) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(write_error(&link)(e)),
        _ => ctx.out.line(&format!("Wrote {} and enabled it.", unit.display()))?,
    }
    place.reload();
    talk(&format!(
        "From the next boot on it starts the containers of {} whose restart policy is always or unless-stopped.\n\
         To have it stop them at the next shutdown, too, start it now: {} start {UNIT}\n",
        ctx.root.display(),
        place.systemctl()
    ));
    if let Some(advice) = place.user.and_then(|user| linger_advice(&user)) {
        talk(&advice);
    }
    Ok(ExitCode::SUCCESS)
}

/// Without lingering, a user's systemd comes and goes with the user.
fn linger_advice(user: &RootlessState) -> Option<String> {
    let id = nix::unistd::Uid::from_raw(user.real_uid);
    let name = nix::unistd::User::from_uid(id).ok()??.name;
    (!Path::new("/var/lib/systemd/linger").join(&name).exists()).then(|| {
        format!("It starts when you log in, and stops when you log out; for a start at boot: loginctl enable-linger {name}\n")
    })
}

fn remove(ctx: &Ctx) -> CommandResult {
    let place = Place::find()?;
    let mut failed = Vec::new();
    let mut found = false;
    for path in [place.link(), place.unit()] {
        match std::fs::remove_file(&path) {
            Ok(()) => {
                found = true;
                ctx.out.line(&format!("Removed {}", path.display()))?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => failed.push(CliError::new(format!("cannot remove {}: {e}", path.display()))),
        }
    }
    if found {
        place.reload();
    } else if failed.is_empty() {
        talk(&format!("There is no {}.\n", place.unit().display()));
    }
    together(failed)
}

/// Writes the unit. The monitors stay in its cgroup, which is why that is delegated and why a stop of the unit must
/// first stop the containers.
fn unit_text(program: &Path, root: &Path, target: &str) -> String {
    let (program, store) = (quoted(program.as_os_str()), quoted(root.as_os_str()));
    let mut text =
        String::from("# Written by `rbuild system boot --install`; `--remove` takes it away.\n[Unit]\n");
    text.push_str("Description=Containers of rbuild that run always\n");
    if target == "multi-user.target" {
        text.push_str("Wants=network-online.target\nAfter=network-online.target local-fs.target\n");
    }
    let _ = write!(
        text,
        "RequiresMountsFor={store}\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart={program} --root {store} system boot\n\
         ExecStop={program} --root {store} system boot --stop\nTimeoutStartSec=infinity\nTimeoutStopSec=120\nDelegate=yes\n\
         TasksMax=infinity\nLimitNOFILE=1048576\n\n[Install]\nWantedBy={target}\n"
    );
    text
}

/// Quotes a path for a command line of a unit (systemd.syntax(7), systemd.service(5)).
fn quoted(path: &OsStr) -> String {
    let mut out = String::from("\"");
    for byte in path.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(*byte)]),
            b'%' => out.push_str("%%"),
            b'$' => out.push_str("$$"),
            b' '..=b'~' => out.push(char::from(*byte)),
            other => {
                let _ = write!(out, "\\x{other:02x}");
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_systemd() {
        for (path, want) in [
            ("/var/lib/rbuild", "\"/var/lib/rbuild\""),
            ("/a b/%n$x\"\\", "\"/a b/%%n$$x\\\"\\\\\""),
            ("/ä\n", "\"/\\xc3\\xa4\\x0a\""),
        ] {
            assert_eq!(quoted(OsStr::new(path)), want);
        }
    }

    #[test]
    fn a_user_has_no_network_target() {
        let system = unit_text(Path::new("/bin/rbuild"), Path::new("/s"), "multi-user.target");
        assert!(system.contains("ExecStart=\"/bin/rbuild\" --root \"/s\" system boot\n"), "{system}");
        assert!(system.contains("network-online") && system.ends_with("WantedBy=multi-user.target\n"));
        assert!(!unit_text(Path::new("/r"), Path::new("/s"), "default.target").contains("network-online"));
    }
}
