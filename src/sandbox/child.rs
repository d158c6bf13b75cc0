//! The new process: from a copy of the helper to the user's program.
//!
//! It is alone in its namespaces, with one thread, so what it does is ordinary code. The order matters: open all that
//! the host has, cover the host, build the new root, change into it, become the user, execute.

use super::devices;
use super::error::{Doing, Setup, SetupError, show};
use super::host::Host;
use super::init;
use super::message::{self, Job, PackedJob, Reply, Task};
use super::program;
use super::pty;
use super::rootfs;
use super::spec::{Network, ProcessSpec, SandboxSpec};
use super::staging::Staging;
use super::stubs::{Point, StubLog};
use super::system::{self, HostParts};
use super::user::{self, Identity};
use super::{mounts, spec::PidNamespace};
use crate::sys::inroot::Last;
use crate::sys::mount;
use crate::sys::process;
use nix::sched::CloneFlags;
use rustix::fs::{self, Mode, OFlags};
use rustix::mount::{MountAttrFlags, UnmountFlags};
use rustix::process::Signal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Exit code of a process whose sandbox could not be set up; the reason has gone to rbuild before.
const SETUP_FAILED: i32 = 125;

/// Does the job as the process that was just made for it.
pub(super) fn run(packed: PackedJob, host: &Host, guarded: bool) -> ! {
    let Ok((job, reply)) = packed.unpack() else { process::exit_now(SETUP_FAILED) };
    let started = catch_unwind(AssertUnwindSafe(|| start(job, host, guarded, reply.as_fd())));
    let error = match started {
        Ok(Ok(not)) => {
            let _ = message::reply(&reply, &Reply::NotExecuted { text: not.text });
            process::exit_now(not.code);
        }
        Ok(Err(error)) => error,
        Err(_) => SetupError::new("set up the sandbox", "the code for it panicked: this is a bug in rbuild"),
    };
    let _ = message::reply(&reply, &Reply::Failed(error));
    process::exit_now(SETUP_FAILED)
}

fn start(job: Job, host: &Host, guarded: bool, reply: BorrowedFd<'_>) -> Setup<program::NotExecuted> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .doing(|| "bind to the parent".into())?;
    process::umask(0);
    for cgroup in &job.cgroups {
        rustix::io::write(cgroup, b"0").doing(|| "enter the cgroup".into())?;
    }
    if let Some(profile) = job.task.apparmor() {
        super::apparmor::change_at_execution(profile)?;
    }
    // A session of its own: no terminal of the caller, no signal to its group.
    let _ = rustix::process::setsid();
    let [stdin, stdout, stderr] = &job.stdio;
    match &job.task {
        Task::Run(spec) => {
            if (guarded || !job.cgroups.is_empty()) && !spec.host_cgroups {
                nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP)
                    .doing(|| "make a cgroup namespace".into())?;
            }
            let (stubs, terminal, who) = build(spec, host, guarded)?;
            let streams = match &terminal {
                Some(pty) => pty.become_streams(),
                None => pty::use_streams(stdin, stdout, stderr),
            };
            streams.doing(|| "set the standard streams".into())?;
            let ready = Reply::Ready { stubs, terminal: terminal.map(|pty| pty.into_master().into()) };
            finish(&spec.process, spec.privileged, &who, host, reply, &ready, spec.pid == PidNamespace::New)
        }
        Task::Enter { pidfd, process, privileged } => {
            super::enter::enter(pidfd.as_fd(), host)?;
            let root = open_root()?;
            let who = user::resolve(&root, &process.user, &process.extra_groups)?;
            let terminal = match process.terminal {
                true => Some(pty::Terminal::open_in_container(&who, process.terminal_size)?),
                false => None,
            };
            let streams = match &terminal {
                Some(pty) => pty.become_streams(),
                None => pty::use_streams(stdin, stdout, stderr),
            };
            streams.doing(|| "set the standard streams".into())?;
            let terminal = terminal.map(|pty| pty.into_master().into());
            let ready = Reply::Ready { stubs: StubLog::default(), terminal };
            finish(process, *privileged, &who, host, reply, &ready, false)
        }
    }
}

fn open_root() -> Setup<OwnedFd> {
    fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing(|| "open the container's root".into())
}

/// Builds the new root and changes into it. `guarded` says that this process was born in a cgroup that keeps it from
/// devices.
fn build(
    spec: &SandboxSpec,
    host: &Host,
    guarded: bool,
) -> Setup<(StubLog, Option<pty::Terminal>, Identity)> {
    join_network(&spec.network)?;
    // What the host has, while it can be reached.
    let mut parts = HostParts::open(spec)?;
    let root = rootfs::open(&spec.rootfs, spec.privileged, host)?;
    let mut opened = spec.mounts.iter().map(|m| mounts::open(m, host)).collect::<Setup<Vec<_>>>()?;
    opened.sort_by_key(mounts::Opened::depth);

    let mut staging = Staging::cover_host().doing(|| "mount a memory file system for the setup".into())?;
    staging.attach(&root.mount).doing(|| "attach the root file system".into())?;
    parts.own_nodes(&mut staging);
    let opens = spec.privileged || guarded && devices::in_force(&spec.device_rules, &mut staging);
    if opens && !spec.privileged {
        mount::clear_attributes(&root.mount, MountAttrFlags::MOUNT_ATTR_NODEV)
            .doing(|| "let device nodes work".into())?;
    }
    let mut stubs = StubLog::default();
    let place = |stubs: &mut StubLog, path: &[u8], want, last| {
        stubs
            .place(root.mount.as_fd(), root.upper.as_ref().map(AsFd::as_fd), path, want, last)
            .doing(|| format!("prepare the mount point {}", show(path)))
    };
    system::proc(place(&mut stubs, b"proc", Point::Dir, Last::Keep)?, spec, &mut parts, host)?;
    let dev = system::dev(place(&mut stubs, b"dev", Point::Dir, Last::Keep)?, spec, &mut parts, host, opens)?;
    system::sys(place(&mut stubs, b"sys", Point::Dir, Last::Keep)?, spec, &mut parts, host)?;
    for mount in opened {
        let target = mount.target().to_vec();
        if crate::tree::TreePath::clean(&target).is_root() {
            return Err(SetupError::new("mount /", "the target of a mount cannot be the root"));
        }
        let covers = mount.takes_the_look_of_its_place();
        let (tree, point) = mount.build(&mut staging, host, opens)?;
        let before = stubs.len();
        let at = place(&mut stubs, &target, point, Last::Follow)?;
        // what was made for the mount has no look of its own, and the mount stays as it is: open to all
        if covers && stubs.len() == before {
            mounts::look_like(&tree, &at).doing(|| format!("give the mount {} its mode", show(&target)))?;
        }
        mount::attach(tree, at).doing(|| format!("mount {}", show(&target)))?;
    }
    stubs.seal(root.upper.as_ref().map_or(root.mount.as_fd(), AsFd::as_fd));

    let who = user::resolve(&root.mount, &spec.process.user, &spec.process.extra_groups)?;
    let terminal = match spec.process.terminal {
        true => Some(pty::Terminal::open(&dev, &who, spec.process.terminal_size)?),
        false => None,
    };
    if spec.readonly_rootfs {
        mount::add_attributes(&root.mount, MountAttrFlags::MOUNT_ATTR_RDONLY, false)
            .doing(|| "make the root file system read-only".into())?;
    }
    change_root(&root.mount)?;
    if let Some(name) = &spec.hostname {
        nix::unistd::sethostname(name).doing(|| format!("set the host name {name:?}"))?;
    }
    program::make_cwd(&spec.process)?;
    Ok((stubs, terminal, who))
}

fn join_network(network: &Network) -> Setup<()> {
    let join = |ns: BorrowedFd<'_>| {
        nix::sched::setns(ns, CloneFlags::CLONE_NEWNET).doing(|| "join the network namespace".into())
    };
    match network {
        Network::Host => Ok(()),
        Network::None => super::loopback::bring_up().doing(|| "bring up the loopback interface".into()),
        Network::Join(fd) => join(fd.as_fd()),
        Network::JoinPath(path) => {
            let ns = fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .doing(|| format!("open the network namespace {}", path.display()))?;
            join(ns.as_fd())
        }
    }
}

/// The new root over the old one, then the old one away: `pivot_root(".", ".")` needs no directory for it.
fn change_root(root: &OwnedFd) -> Setup<()> {
    let doing = || "change to the new root".to_owned();
    rustix::process::fchdir(root).doing(doing)?;
    rustix::process::pivot_root(".", ".").doing(doing)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).doing(doing)?;
    rustix::process::chdir("/").doing(doing)
}

/// The part that every process has: limits, identity, program.
fn finish(
    spec: &ProcessSpec,
    privileged: bool,
    who: &Identity,
    host: &Host,
    reply: BorrowedFd<'_>,
    ready: &Reply,
    first: bool,
) -> Setup<program::NotExecuted> {
    if let Some(score) = spec.oom_score_adj {
        // Lowering it is a privilege; the process runs as well without.
        let _ = std::fs::write("/proc/self/oom_score_adj", score.to_string());
    }
    if spec.init && first {
        init::split().doing(|| "start the init process".into())?;
    }
    program::limit(spec);
    if !spec.terminal {
        program::own_streams(who);
    }
    let mut env = spec.env.clone();
    // an empty one counts as none, as for runc
    env.retain(|e| e != b"HOME=");
    if !env.iter().any(|e| e.starts_with(b"HOME=")) {
        env.push([b"HOME=", &who.home[..]].concat());
    }
    process::cloexec_from(3).doing(|| "close inherited files".into())?;
    program::become_user(spec, privileged, who, host)?;
    process::umask(spec.umask);
    message::reply(reply, ready).doing(|| "report to rbuild".into())?;
    Ok(program::execute(&spec.argv, &env))
}
