//! Starts sandboxes from this very process, which therefore must have one thread for ever: the monitor of a container.
//!
//! It is the helper's work without the helper: one process less for each container that runs. The sandboxes are this
//! process's children, so its end is theirs.

use super::cgroup::Cgroup;
use super::child;
use super::devices::{self, Gate};
use super::error::SandboxError;
use super::host::Host;
use super::launcher::{Running, Stdio, changes_of};
use super::message::{self, Job, Task};
use super::socket;
use super::spec::{PidNamespace, ProcessSpec, SandboxSpec};
use super::wire::SharedFd;
use crate::sys::process::{self, Cloned};
use rustix::mount::{MountPropagationFlags, mount_change};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// The process ids of another sandbox, which the children of this process get while the value lives.
struct LentPids {
    own: File,
}

impl LentPids {
    fn of(pid: u32) -> Result<Self, SandboxError> {
        let open = |of: &str| File::open(format!("/proc/{of}/ns/pid"));
        let enter = || -> io::Result<Self> {
            let own = open("self")?;
            nix::sched::setns(open(&pid.to_string())?, nix::sched::CloneFlags::CLONE_NEWPID)?;
            Ok(Self { own })
        };
        enter().map_err(failed("cannot use the process ids of the other container for"))
    }
}

impl Drop for LentPids {
    fn drop(&mut self) {
        // it was ours before, so it can be again
        let _ = nix::sched::setns(&self.own, nix::sched::CloneFlags::CLONE_NEWPID);
    }
}

/// What is known of the machine, and the right to copy this process.
#[derive(Debug)]
pub struct Nursery {
    host: Host,
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> SandboxError {
    move |source| SandboxError::Process { doing, source }
}

impl Nursery {
    /// Looks at the machine and gives this process a mount namespace of its own, which hears of the host's mounts.
    ///
    /// # Errors
    /// The process has threads, or may not make namespaces.
    pub fn new() -> Result<Self, SandboxError> {
        let mut host = Host::look();
        if host.may_mount {
            // what a user's namespace mounts cannot reach the machine anyhow
            host.mounts = if host.in_userns { None } else { File::open("/proc/self/ns/mnt").ok() };
            let apart = || -> io::Result<()> {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
                Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
            };
            apart().map_err(failed("cannot make a mount namespace for"))?;
        }
        Ok(Self { host })
    }

    /// Starts a sandbox and waits until its program is executed; one that cannot be is told by
    /// [`Running::not_executed`].
    pub fn spawn(&self, spec: &SandboxSpec, stdio: Stdio) -> Result<Running, SandboxError> {
        if spec.process.argv.is_empty() {
            return Err(SandboxError::Invalid("no command specified".into()));
        }
        let cgroup = Cgroup::create(&spec.limits, &[])?;
        let doors = cgroup.as_ref().map(Cgroup::doors).unwrap_or_default();
        let gate = self.gate(spec, cgroup.as_ref())?;
        let mut running = Running::new(cgroup, gate.map(Arc::new), changes_of(&spec.rootfs));
        let _lent = match spec.pid {
            PidNamespace::Of(pid) => Some(LentPids::of(pid)?),
            PidNamespace::New | PidNamespace::Host => None,
        };
        self.start(&mut running, Task::Run(Box::new(spec.clone())), stdio, doors)?;
        Ok(running)
    }

    /// Starts a further process in a sandbox of ours, under the same limits.
    pub fn spawn_in(
        &self,
        sandbox: &Running,
        process: &ProcessSpec,
        privileged: bool,
        stdio: Stdio,
    ) -> Result<Running, SandboxError> {
        let target = sandbox.pidfd().ok_or(SandboxError::HelperGone)?;
        let target = target.try_clone_to_owned().map_err(failed("cannot refer to"))?;
        let task = Task::Enter { pidfd: target.into(), process: Box::new(process.clone()), privileged };
        let mut running = Running::new(None, None, None);
        running.share_gate(sandbox);
        self.start(&mut running, task, stdio, sandbox.doors())?;
        Ok(running)
    }

    /// Makes the gate for the devices of a sandbox; `None` where there can be none, and for who may use all.
    fn gate(&self, spec: &SandboxSpec, cgroup: Option<&Cgroup>) -> Result<Option<Gate>, SandboxError> {
        let mut rules = devices::shown(&spec.devices)?;
        rules.extend(&spec.device_rules);
        if spec.privileged || self.host.in_userns {
            return Ok(None);
        }
        let gate = match cgroup.and_then(Cgroup::unified) {
            Some(dir) => Gate::at(dir, &rules),
            None => Gate::new(&rules),
        };
        match gate {
            Err(e) if !spec.device_rules.is_empty() => Err(SandboxError::Limit {
                what: "the use of devices",
                why: format!("rules for devices need cgroup 2 and BPF: {e}"),
            }),
            other => Ok(other.ok()),
        }
    }

    fn start(
        &self,
        running: &mut Running,
        task: Task,
        stdio: Stdio,
        cgroups: Vec<SharedFd>,
    ) -> Result<(), SandboxError> {
        let stdio = [stdio.stdin, stdio.stdout, stdio.stderr].map(SharedFd::from);
        let job = Job { task, stdio, cgroups };
        let packed = Self::pack(&job, running).map_err(failed("cannot prepare to start"))?;
        let is_new = matches!(job.task, Task::Run(_));
        drop(job);
        let gate = packed.gate.as_ref().map(AsFd::as_fd);
        let born = match process::clone_process_into(packed.flags, gate) {
            // then nothing that is mounted shows devices; a sandbox whose mounts do is entered by the gate or not at all
            Err(_) if gate.is_some() && is_new => {
                running.forget_gate();
                process::clone_process(packed.flags).map(|born| (born, false))
            }
            born => born.map(|born| (born, gate.is_some())),
        };
        match born {
            Ok((Cloned::Child, guarded)) => {
                process::default_signals();
                child::run(packed, &self.host, guarded)
            }
            Ok((Cloned::Parent { pid, pidfd }, _)) => {
                // only the child's copies are left, so that its executing the program can be seen
                drop(packed);
                running.adopt(pid.as_raw_nonzero().get(), pidfd)
            }
            Err(e) => Err(SandboxError::Setup(self.host.explain_clone(packed.flags, &e))),
        }
    }

    /// Packs a job as if it went to a helper.
    fn pack(job: &Job, running: &mut Running) -> io::Result<message::PackedJob> {
        let (near, far) = socket::pair()?;
        let (ours, theirs): (OwnedFd, OwnedFd) = socket::pair()?;
        let gate = running.gate_door();
        message::send_job(&near, job, gate.as_ref().map(AsFd::as_fd), theirs.as_fd())?;
        running.listen_on(ours);
        message::recv_job(&far)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
