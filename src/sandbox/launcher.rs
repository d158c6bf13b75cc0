//! rbuild's side: starts the helper process, sends it jobs, follows each job to its end.
//!
//! Every job has a socket of its own on which its news arrive, so any number of threads can use one launcher at the
//! same time without a word to each other.

use super::cgroup::Cgroup;
use super::devices::{self, Gate};
use super::error::SandboxError;
use super::exit::{Exit, Status};
use super::helper;
use super::message::{self, Job, Reply, Task};
use super::socket;
use super::spec::{Limits, ProcessSpec, Rootfs, SandboxSpec};
use super::stubs::{self, StubLog};
use super::wire::SharedFd;
use crate::sys::mount;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{self, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::MountAttrFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The streams of a process. Ignored when it has a terminal of its own.
#[derive(Debug)]
pub struct Stdio {
    /// What it reads.
    pub stdin: OwnedFd,
    /// Where it writes.
    pub stdout: OwnedFd,
    /// Where it complains.
    pub stderr: OwnedFd,
}

impl Stdio {
    /// Nothing to read; output goes to the two files.
    pub fn output(stdout: impl Into<OwnedFd>, stderr: impl Into<OwnedFd>) -> io::Result<Self> {
        Ok(Self { stdin: File::open("/dev/null")?.into(), stdout: stdout.into(), stderr: stderr.into() })
    }

    /// Nothing to read, nothing kept.
    pub fn null() -> io::Result<Self> {
        let sink = || File::options().write(true).open("/dev/null");
        Self::output(sink()?, sink()?)
    }
}

/// A running helper process. Dropping the launcher ends it and every sandbox it has started.
#[derive(Debug)]
pub struct Launcher {
    socket: Option<OwnedFd>,
    helper: Child,
    /// The one for the usual devices, which most sandboxes share; `None` in it where there can be none.
    gate: OnceLock<Option<Arc<Gate>>>,
}

impl Launcher {
    /// Starts the helper from this very program, whose `main` calls [`super::helper_main`] first. Does not wait for
    /// it: the helper comes up while the caller goes on.
    pub fn start() -> Result<Self, SandboxError> {
        let program = sealed_self().map_err(helper_error("take a read-only view of the program"))?;
        let path = format!("/proc/self/fd/{}", program.as_raw_fd());
        let launcher = Self::launch(Path::new(&path), &[]);
        drop(program);
        launcher
    }

    /// Starts the helper from another program, with arguments: for tests, whose `main` is not ours.
    pub fn start_program(program: &Path, args: &[&str]) -> Result<Self, SandboxError> {
        Self::launch(program, args)
    }

    fn launch(program: &Path, args: &[&str]) -> Result<Self, SandboxError> {
        let (ours, theirs) = socket::pair().map_err(helper_error("make a socket"))?;
        let helper = Command::new(program)
            .arg0(helper::NAME)
            .args(args)
            .env_clear()
            .current_dir("/")
            .stdin(theirs)
            .stdout(std::process::Stdio::null())
            .spawn()
            .map_err(helper_error("execute it"))?;
        Ok(Self { socket: Some(ours), helper, gate: OnceLock::new() })
    }

    /// Starts a sandbox and waits until its program is about to be executed.
    pub fn spawn(&self, spec: &SandboxSpec, stdio: Stdio) -> Result<Running, SandboxError> {
        if spec.process.argv.is_empty() {
            return Err(SandboxError::Invalid("no command specified".into()));
        }
        let cgroup = Cgroup::create(&spec.limits, &[self.helper.id()])?;
        let changes = changes_of(&spec.rootfs);
        let gate = self.gate(spec, cgroup.as_ref())?;
        let running = Running::new(cgroup, gate, changes);
        self.send(Task::Run(Box::new(spec.clone())), stdio, running)
    }

    /// Finds the gate for the devices of a sandbox, or makes one of its own.
    fn gate(&self, spec: &SandboxSpec, cgroup: Option<&Cgroup>) -> Result<Option<Arc<Gate>>, SandboxError> {
        if spec.privileged {
            return Ok(None);
        }
        let mut rules = devices::shown(&spec.devices)?;
        rules.extend(&spec.device_rules);
        Ok(match cgroup.and_then(Cgroup::unified) {
            Some(dir) => Gate::at(dir, &rules).ok().map(Arc::new),
            None if !rules.is_empty() => Gate::new(&rules).ok().map(Arc::new),
            None => self.gate.get_or_init(|| Gate::new(&[]).ok().map(Arc::new)).clone(),
        })
    }

    /// Starts a further process in the sandbox of a running one (`exec`), which shares the gate that one was given.
    pub fn spawn_in(
        &self,
        sandbox: &Running,
        process: &ProcessSpec,
        privileged: bool,
        stdio: Stdio,
    ) -> Result<Running, SandboxError> {
        let target = sandbox.pidfd().ok_or(SandboxError::HelperGone)?;
        let target = target.try_clone_to_owned().map_err(process_error("refer to"))?;
        let task = Task::Enter { pidfd: target.into(), process: Box::new(process.clone()), privileged };
        let mut running = Running::new(None, None, None);
        running.share_gate(sandbox);
        self.send(task, stdio, running)
    }

    fn send(&self, task: Task, stdio: Stdio, mut running: Running) -> Result<Running, SandboxError> {
        let (ours, theirs) = socket::pair().map_err(process_error("connect to"))?;
        let job = Job {
            task,
            stdio: [stdio.stdin, stdio.stdout, stdio.stderr].map(SharedFd::from),
            cgroups: running.doors(),
        };
        let helper = self.socket.as_ref().ok_or(SandboxError::HelperGone)?;
        let gate = running.gate_door();
        let gate = gate.as_ref().map(AsFd::as_fd);
        message::send_job(helper, &job, gate, theirs.as_fd()).map_err(|e| match e.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => SandboxError::HelperGone,
            _ => SandboxError::Process { doing: "cannot send a job to start", source: e },
        })?;
        // Only the helper's copies are left, so that its end can be seen.
        drop((theirs, job));
        running.listen_on(ours);
        running.until_ready()?;
        Ok(running)
    }
}

/// Gives the directory that takes the changes of a sandbox.
pub(super) fn changes_of(rootfs: &Rootfs) -> Option<PathBuf> {
    match rootfs {
        Rootfs::Overlay { upper: dir, .. } | Rootfs::Dir(dir) => Some(dir.clone()),
        Rootfs::ReadOnlyOverlay { .. } => None,
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.socket = None;
        let _ = self.helper.wait();
    }
}

fn helper_error(doing: &'static str) -> impl FnOnce(io::Error) -> SandboxError {
    move |source| SandboxError::Helper { doing, source }
}

fn process_error(doing: &'static str) -> impl FnOnce(io::Error) -> SandboxError {
    move |source| SandboxError::Process { doing, source }
}

/// Opens this program so that nobody who gets at it through `/proc` can write to the file: by a read-only mount of
/// that one file that is attached nowhere, else as a sealed copy in memory.
pub(crate) fn sealed_self() -> io::Result<OwnedFd> {
    let program = fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let view = mount::clone_tree(&program, false).and_then(|view| {
        mount::add_attributes(&view, MountAttrFlags::MOUNT_ATTR_RDONLY, false)?;
        Ok(view)
    });
    match view {
        Ok(view) => Ok(view),
        Err(_) => sealed_copy(),
    }
}

fn sealed_copy() -> io::Result<OwnedFd> {
    let mut copy = File::from(fs::memfd_create("rbuild", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    io::copy(&mut File::open("/proc/self/exe")?, &mut copy)?;
    copy.rewind()?;
    fs::fchmod(&copy, Mode::from_raw_mode(0o500))?;
    fs::fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    // A file that is open for writing cannot be executed.
    Ok(fs::open(
        format!("/proc/self/fd/{}", copy.as_raw_fd()),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// A process in a sandbox. Dropping it kills the process, and with it all others of its sandbox, and waits for that.
#[derive(Debug)]
pub struct Running {
    news: Option<OwnedFd>,
    /// Whether the process is a child of this one, which then learns of its end by itself.
    ours: bool,
    process: Option<(i32, OwnedFd)>,
    terminal: Option<OwnedFd>,
    stubs: StubLog,
    /// The directory that takes the changes, from which stubs are removed at the end.
    changes: Option<PathBuf>,
    cgroup: Option<Cgroup>,
    gate: Option<Arc<Gate>>,
    not_executed: Option<String>,
    exit: Option<Exit>,
}

impl Running {
    pub(super) fn new(cgroup: Option<Cgroup>, gate: Option<Arc<Gate>>, changes: Option<PathBuf>) -> Self {
        Self {
            news: None,
            ours: false,
            process: None,
            terminal: None,
            stubs: StubLog::default(),
            changes,
            cgroup,
            gate,
            not_executed: None,
            exit: None,
        }
    }

    pub(super) fn listen_on(&mut self, news: OwnedFd) {
        self.news = Some(news);
    }

    /// Takes over a child of this process and waits until it executes its program, or has failed to.
    pub(super) fn adopt(&mut self, pid: i32, pidfd: OwnedFd) -> Result<(), SandboxError> {
        self.ours = true;
        self.process = Some((pid, pidfd));
        self.until_ready()?;
        // the socket closes with the execution
        let news = self.news.as_ref().ok_or(SandboxError::HelperGone)?;
        if let Ok(Some(Reply::NotExecuted { text })) = message::next_reply(news) {
            self.not_executed = Some(text);
        }
        Ok(())
    }

    /// Says why the program could not be executed, in docker's words.
    pub fn not_executed(&self) -> Option<&str> {
        self.not_executed.as_deref()
    }

    /// Gives the files through which further processes enter the cgroups.
    pub(super) fn doors(&self) -> Vec<SharedFd> {
        self.cgroup.as_ref().map(Cgroup::doors).unwrap_or_default()
    }

    /// Gives the cgroup that its processes are born in.
    pub(super) fn gate_door(&self) -> Option<SharedFd> {
        self.gate.as_ref().map(|gate| gate.door())
    }

    /// Takes a process of another sandbox through the gate of that one.
    pub(super) fn share_gate(&mut self, other: &Self) {
        self.gate.clone_from(&other.gate);
    }

    pub(super) fn forget_gate(&mut self) {
        self.gate = None;
    }

    /// Gives the cgroup of version 2 that holds all its processes and no others, by a path of this process.
    pub(super) fn unified_dir(&self) -> Option<PathBuf> {
        self.gate.as_ref().map(|gate| gate.path())
    }

    fn until_ready(&mut self) -> Result<(), SandboxError> {
        let mut ready = false;
        while !(ready && self.process.is_some()) {
            match self.next()? {
                Reply::Started { pid, pidfd } => {
                    self.process =
                        Some((pid, pidfd.into_owned().map_err(process_error("take the handle of"))?));
                }
                Reply::Ready { stubs, terminal } => {
                    ready = true;
                    self.stubs = stubs;
                    let terminal = terminal.map(SharedFd::into_owned).transpose();
                    self.terminal = terminal.map_err(process_error("take the terminal of"))?;
                }
                Reply::Failed(error) => {
                    // Wait for the end of the process, if there is one, so that nothing is left when this returns.
                    if self.process.is_some() {
                        self.until_exited()?;
                    } else {
                        while let Some(news) = &self.news {
                            if matches!(message::next_reply(news), Ok(None | Some(Reply::Exited(_))) | Err(_))
                            {
                                break;
                            }
                        }
                    }
                    self.exit = Some(self.ended(Status::Code(125)));
                    return Err(SandboxError::Setup(error));
                }
                Reply::NotExecuted { text } => self.not_executed = Some(text),
                Reply::Exited(status) if ready => self.exit = Some(self.ended(status)),
                Reply::Exited(status) => {
                    self.exit = Some(self.ended(status));
                    let why = format!("its process ended early ({status:?})");
                    return Err(SandboxError::Setup(super::error::SetupError::new(
                        "set up the sandbox",
                        why,
                    )));
                }
            }
        }
        Ok(())
    }

    fn next(&self) -> Result<Reply, SandboxError> {
        let news = self.news.as_ref().ok_or(SandboxError::HelperGone)?;
        match message::next_reply(news).map_err(process_error("hear from"))? {
            Some(reply) => Ok(reply),
            // nobody else tells of the end of a child of ours
            None => match &self.process {
                Some((_, pidfd)) if self.ours => Ok(Reply::Exited(collect(pidfd.as_fd()))),
                _ => Err(SandboxError::HelperGone),
            },
        }
    }

    fn until_exited(&mut self) -> Result<Status, SandboxError> {
        loop {
            match self.next()? {
                Reply::Exited(status) => return Ok(status),
                Reply::NotExecuted { text } => self.not_executed = Some(text),
                Reply::Started { .. } | Reply::Ready { .. } | Reply::Failed(_) => {}
            }
        }
    }

    fn ended(&mut self, status: Status) -> Exit {
        self.gate = None;
        let oom_killed = self.cgroup.take().is_some_and(|cgroup| cgroup.oom_killed());
        let stubs = self.changes.take().map(|dir| stubs::remove(&self.stubs, &dir));
        Exit {
            status,
            exec_error: self.not_executed.take(),
            // A directory that is gone has no stubs in it.
            stubs: stubs.and_then(Result::ok).unwrap_or_default(),
            oom_killed,
        }
    }

    /// Waits for the end of the process and of all others in its sandbox. Later calls give the same answer.
    pub fn wait(&mut self) -> Result<Exit, SandboxError> {
        if self.exit.is_none() {
            let status = self.until_exited()?;
            self.exit = Some(self.ended(status));
        }
        self.exit.clone().ok_or(SandboxError::HelperGone)
    }

    /// Waits at most so long; `None` when the process still runs.
    pub fn wait_timeout(&mut self, limit: Duration) -> Result<Option<Exit>, SandboxError> {
        let until = Instant::now() + limit;
        while self.exit.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let news = self.news.as_ref().ok_or(SandboxError::HelperGone)?;
            match poll(&mut [PollFd::new(news, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Ok(None),
                Ok(_) => match self.next()? {
                    Reply::Exited(status) => self.exit = Some(self.ended(status)),
                    Reply::NotExecuted { text } => self.not_executed = Some(text),
                    Reply::Started { .. } | Reply::Ready { .. } | Reply::Failed(_) => {}
                },
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(SandboxError::Process { doing: "cannot wait for", source: e.into() }),
            }
        }
        Ok(self.exit.clone())
    }

    /// Sends a signal to the first process of the sandbox; one that has ended already is no error. As process 1 it
    /// gets only signals that it has a handler for, and SIGKILL.
    pub fn signal(&self, signal: i32) -> Result<(), SandboxError> {
        let (Some((_, pidfd)), None) = (&self.process, &self.exit) else { return Ok(()) };
        if !(1..=64).contains(&signal) {
            return Err(SandboxError::Invalid(format!("there is no signal number {signal}")));
        }
        match crate::sys::process::pidfd_signal(pidfd, signal) {
            Err(e) if e.raw_os_error() != Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                Err(SandboxError::Process { doing: "cannot signal", source: e })
            }
            _ => Ok(()),
        }
    }

    /// Kills all processes of the sandbox. [`Running::wait`] then returns soon.
    pub fn kill(&self) -> Result<(), SandboxError> {
        self.signal(Signal::KILL.as_raw())
    }

    /// Gives the process id of the first process as this process sees it.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, |(pid, _)| pid.unsigned_abs())
    }

    /// Gives a handle on the first process, for [`Launcher::spawn_in`] and for polling its end.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(|(_, fd)| fd.as_fd())
    }

    /// Hands out the master side of the terminal, once.
    pub fn terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Changes limits while it runs.
    ///
    /// # Errors
    /// It was started without a limit of that kind, or the kernel refuses.
    pub fn limit(&mut self, limits: &Limits) -> Result<(), SandboxError> {
        match &mut self.cgroup {
            Some(cgroup) => cgroup.change(limits),
            None => Err(SandboxError::Limit {
                what: "a running container",
                why: "it was started without limits, so its processes are in no cgroup of their own: stop it, update it, \
                      and start it again"
                    .into(),
            }),
        }
    }

    /// Lists its processes.
    pub(super) fn process_ids(&self) -> Vec<u32> {
        let first = self.process.as_ref().and_then(|(pid, _)| u32::try_from(*pid).ok());
        first.map(super::members).unwrap_or_default()
    }

    /// Gives the cgroup's directories, for statistics.
    pub fn cgroup_dirs(&self) -> Vec<PathBuf> {
        self.cgroup.as_ref().map(Cgroup::dirs).unwrap_or_default()
    }
}

/// Waits for the end of a child and collects its status.
pub(super) fn collect(pidfd: BorrowedFd<'_>) -> Status {
    loop {
        match waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => match status.exit_status() {
                Some(code) => return Status::Code(code),
                None => return Status::Signal(status.terminating_signal().unwrap_or(9)),
            },
            Err(rustix::io::Errno::INTR) => {}
            // Cannot be: nobody else waits for our children.
            Ok(None) | Err(_) => return Status::Signal(9),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.exit.is_none() && self.process.is_some() {
            let _ = self.kill();
            let _ = self.wait();
        }
    }
}
