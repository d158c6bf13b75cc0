//! What works on this machine, found by trying it, and how to get what does not.

use super::cgroup::Tree;
use super::host::in_user_namespace;
use super::{rootfs, rootless};
use crate::sys::mount::NewFs;
use crate::sys::process::{self, CloneFlags, Cloned};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Resource, WaitId, WaitIdOptions, getrlimit, waitid};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// One thing that rbuild can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// What it is called in messages.
    pub name: &'static str,
    /// Whether it works here, for this user.
    pub works: bool,
    /// What was found, in a few words.
    pub detail: String,
    /// How to get it; empty when it works.
    pub hint: String,
    /// Whether nothing can be run without it.
    pub needed: bool,
}

/// Tries everything. Takes some milliseconds; the process must have one thread, else what needs a clone is reported
/// by what the kernel's settings say.
pub fn probe() -> Vec<Feature> {
    let mut out =
        vec![namespaces(), overlay(), mount_api(), seccomp(), pidfd(), openat2(), cgroups(), open_files()];
    out.sort_by_key(|feature| !feature.needed);
    out
}

fn feature(name: &'static str, needed: bool, result: Result<String, (String, String)>) -> Feature {
    let (works, detail, hint) = match result {
        Ok(detail) => (true, detail, String::new()),
        Err((detail, hint)) => (false, detail, hint),
    };
    Feature { name, works, detail, hint, needed }
}

/// Where systemd is, every mount is shared with its copies: what a check mounts must not reach the host.
fn apart() -> io::Result<()> {
    Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

/// Runs a check in a clone with its own namespaces, so that nothing of it stays.
fn in_clone(flags: CloneFlags, check: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match process::clone_process(flags)? {
        Cloned::Child => {
            let code = match apart().and_then(|()| check()) {
                Ok(()) => 0,
                Err(e) => e.raw_os_error().unwrap_or(255).clamp(1, 255),
            };
            process::exit_now(code)
        }
        Cloned::Parent { pidfd, .. } => {
            let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
            match status.and_then(|s| s.exit_status()) {
                Some(0) => Ok(()),
                Some(errno) => Err(io::Error::from_raw_os_error(errno)),
                None => Err(io::Error::other("the process that tried it was killed")),
            }
        }
    }
}

fn flags() -> CloneFlags {
    let all = [CloneFlags::MOUNT, CloneFlags::PID, CloneFlags::IPC, CloneFlags::UTS, CloneFlags::NET];
    let flags = all.into_iter().fold(CloneFlags::NONE, CloneFlags::with);
    if rustix::process::geteuid().is_root() { flags } else { flags.with(CloneFlags::USER) }
}

fn namespaces() -> Feature {
    let root = rustix::process::geteuid().is_root();
    let result = in_clone(flags(), || Ok(()));
    let kind = match (root, in_user_namespace()) {
        (true, false) => "as root",
        (true, true) => "in a user namespace",
        (false, _) => "as an ordinary user",
    };
    feature(
        "namespaces",
        true,
        result.map(|()| kind.to_owned()).map_err(|e| (e.to_string(), rootless::namespace_hint())),
    )
}

fn overlay() -> Feature {
    let result = in_clone(flags(), || {
        let tmpfs = NewFs::open("tmpfs")?.mount(crate::sys::mount::INERT)?;
        crate::sys::mount::attach(&tmpfs, super::staging::find_place()?)?;
        use std::os::fd::AsRawFd;
        mount_overlay(Path::new(&format!("/proc/self/fd/{}", tmpfs.as_raw_fd())))
    });
    feature(
        "overlayfs",
        false,
        result.map(|()| "works".to_owned()).map_err(|e| {
            (
                e.to_string(),
                "`modprobe overlay`; for ordinary users Linux 5.11 or newer; layers are copied without it"
                    .into(),
            )
        }),
    )
}

/// Tries a real overlay mount in an empty directory, as snapshots need it there: it depends on the file system, which
/// may be an overlay itself. The process must have one thread; nothing is left but three directories.
pub fn try_overlay(dir: &Path) -> io::Result<()> {
    in_clone(flags(), || mount_overlay(dir))
}

fn mount_overlay(dir: &Path) -> io::Result<()> {
    let [lower, upper, work] = ["l", "u", "w"].map(|name| dir.join(name));
    for dir in [&lower, &upper, &work] {
        rustix::fs::mkdir(dir, rustix::fs::Mode::RWXU)?;
    }
    rootfs::try_overlay(&lower, &upper, &work)
}

fn mount_api() -> Feature {
    let result = in_clone(flags(), || {
        let tmpfs = NewFs::open("tmpfs")?.mount(crate::sys::mount::INERT)?;
        crate::sys::mount::add_attributes(&tmpfs, rustix::mount::MountAttrFlags::MOUNT_ATTR_RDONLY, false)
    });
    let hint = "Linux 5.12 or newer is needed; inside a container it needs CAP_SYS_ADMIN and an open seccomp profile";
    feature(
        "mounts by descriptor",
        true,
        result.map(|()| "works".to_owned()).map_err(|e| (e.to_string(), hint.into())),
    )
}

fn seccomp() -> Feature {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    let result = match actions {
        Ok(text) if text.contains("errno") => Ok("filters".to_owned()),
        Ok(_) | Err(_) => Err(("no filters".to_owned(), "a kernel with CONFIG_SECCOMP_FILTER".to_owned())),
    };
    feature("seccomp", true, result)
}

fn pidfd() -> Feature {
    let result = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty());
    let result = result.map(|_| "works".to_owned());
    feature(
        "pidfd",
        true,
        result.map_err(|e| (io::Error::from(e).to_string(), "Linux 5.4 or newer".to_owned())),
    )
}

fn openat2() -> Feature {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
    let result = rustix::fs::openat2(CWD, "/", OFlags::PATH, Mode::empty(), ResolveFlags::IN_ROOT);
    let hint = "Linux 5.6 or newer; paths are walked name by name without it";
    let result = result.map(|_| "works".to_owned());
    feature("openat2", false, result.map_err(|e| (io::Error::from(e).to_string(), hint.to_owned())))
}

fn cgroups() -> Feature {
    let (works, detail) = Tree::read().describe();
    let hint = "limits like --memory need a cgroup controller that this user may use: run as root, or on cgroup 2 in a \
                login session of systemd's, or after `loginctl enable-linger`";
    feature("cgroups", false, if works { Ok(detail) } else { Err((detail, hint.to_owned())) })
}

fn open_files() -> Feature {
    const ENOUGH: u64 = 256;
    let limit = getrlimit(Resource::Nofile);
    let text = |n: Option<u64>| n.map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
    let detail = format!("soft {}, hard {}", text(limit.current), text(limit.maximum));
    let enough = limit.current.is_none_or(|n| n >= ENOUGH);
    feature(
        "open files",
        false,
        if enough { Ok(detail) } else { Err((detail, format!("`ulimit -n {ENOUGH}` or more"))) },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_work_has_a_hint() {
        let features = probe();
        assert_eq!(features.len(), 8);
        for feature in features {
            assert_eq!(feature.works, feature.hint.is_empty(), "{feature:?}");
            assert!(!feature.detail.is_empty(), "{feature:?}");
        }
    }
}
