//! Probes of the container's health: when they run, what they write, what they find. `health.rs` judges.

use super::life::Life;
use super::{Monitor, now};
use crate::runtime::health::{self, OUTPUT_LIMIT, Plan, Probe};
use crate::runtime::protocol::ExecRequest;
use crate::runtime::{client, spec};
use crate::sandbox::{Running, Stdio};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Who probes one run of a container.
pub(super) struct Prober {
    plan: Plan,
    next: Instant,
    running: Option<Probing>,
}

/// A probe that runs.
struct Probing {
    process: Running,
    output: Option<OwnedFd>,
    text: Vec<u8>,
    start: i128,
    age: Duration,
    deadline: Instant,
    late: bool,
}

impl Prober {
    /// The first probe comes after one interval.
    pub(super) fn new(plan: Plan) -> Self {
        let wait = plan.pause(&health::Health::default(), Duration::ZERO);
        Self { plan, next: Instant::now() + wait, running: None }
    }
}

impl Life {
    pub(super) fn probe_fds(&self) -> Option<(BorrowedFd<'_>, Option<BorrowedFd<'_>>)> {
        let probing = self.prober.as_ref()?.running.as_ref()?;
        Some((probing.process.pidfd()?, probing.output.as_ref().map(AsFd::as_fd)))
    }

    pub(super) fn probe_deadline(&self) -> Option<Instant> {
        let prober = self.prober.as_ref().filter(|_| self.exit.is_none())?;
        match &prober.running {
            Some(probing) if probing.late => None,
            Some(probing) => Some(probing.deadline),
            None => Some(prober.next),
        }
    }
}

impl Monitor {
    /// Starts a probe, or kills one that takes too long.
    pub(super) fn probe_on_time(&mut self, at: Instant) {
        let Some(life) = self.life.as_mut().filter(|life| life.exit.is_none()) else { return };
        let Some(prober) = &mut life.prober else { return };
        match &mut prober.running {
            Some(probing) if probing.deadline <= at && !probing.late => {
                probing.late = true;
                let _ = probing.process.kill();
            }
            None if prober.next <= at => self.start_probe(),
            _ => {}
        }
    }

    fn start_probe(&mut self) {
        let Some(life) = &mut self.life else { return };
        let Some(prober) = &mut life.prober else { return };
        if self.state.status == crate::runtime::state::Status::Paused {
            prober.next = Instant::now() + prober.plan.interval;
            return;
        }
        let request = ExecRequest {
            argv: prober.plan.argv.iter().map(|word| word.clone().into_bytes()).collect(),
            env: Vec::new(),
            workdir: None,
            user: None,
            privileged: false,
            terminal: false,
            detached: true,
            size: None,
        };
        let process = spec::exec(&self.record, &request);
        let (start, age) = (now(), life.started.elapsed());
        let privileged = self.record.confinement.privileged;
        let started = streams().map_err(|e| e.to_string()).and_then(|(stdio, output)| {
            let process = self.nursery.spawn_in(&life.running, &process, privileged, stdio);
            process.map(|process| (process, output)).map_err(|e| e.to_string())
        });
        match started {
            Ok((process, output)) => {
                let text = process.not_executed().unwrap_or_default().as_bytes().to_vec();
                let deadline = Instant::now() + prober.plan.timeout;
                let probing =
                    Probing { process, output: Some(output), text, start, age, deadline, late: false };
                prober.running = Some(probing);
            }
            Err(why) => {
                let probe = Probe { start, end: now(), exit_code: -1, output: why };
                self.judge(probe, age);
            }
        }
    }

    /// Takes what a probe writes, up to a limit.
    pub(super) fn take_probe_output(&mut self) {
        let prober = self.life.as_mut().and_then(|life| life.prober.as_mut());
        if let Some(probing) = prober.and_then(|prober| prober.running.as_mut()) {
            probing.read();
        }
    }

    /// A probe has ended.
    pub(super) fn probe_ended(&mut self) {
        let prober = self.life.as_mut().and_then(|life| life.prober.as_mut());
        let Some((mut probing, timeout)) =
            prober.and_then(|prober| Some((prober.running.take()?, prober.plan.timeout)))
        else {
            return;
        };
        while probing.read() {}
        let code = probing.process.wait().map_or(-1, |exit| exit.status.code());
        let mut output = String::from_utf8_lossy(&probing.text).into_owned();
        let exit_code = if probing.late {
            output = format!(
                "Health check exceeded timeout ({}): {output}",
                crate::runtime::health::span(timeout)
            );
            -1
        } else {
            code
        };
        let probe = Probe { start: probing.start, end: now(), exit_code, output };
        self.judge(probe, probing.age);
    }

    fn judge(&mut self, probe: Probe, age: Duration) {
        let Some(life) = &mut self.life else { return };
        let Some(prober) = &mut life.prober else { return };
        let health = self.state.health.get_or_insert_with(health::Health::default);
        let news = health.take(&prober.plan, probe, age);
        prober.next = Instant::now() + prober.plan.pause(health, life.started.elapsed());
        self.save();
        if let Some(status) = news {
            self.event(&format!("health_status: {}", status.word()), &[]);
        }
    }
}

impl Probing {
    /// Reads a piece; says whether there may be more.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let Some(output) = &self.output else { return false };
        match rustix::io::read(output, &mut buffer) {
            Ok(n) if n > 0 => {
                let room = OUTPUT_LIMIT.saturating_sub(self.text.len());
                self.text.extend_from_slice(&buffer[..n.min(room)]);
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => false,
            Ok(_) | Err(_) => {
                self.output = None;
                false
            }
        }
    }
}

fn streams() -> io::Result<(Stdio, OwnedFd)> {
    let (read, write) = io::pipe()?;
    let read = OwnedFd::from(read);
    rustix::io::ioctl_fionbio(&read, true)?;
    let stderr = write.try_clone()?.into();
    Ok((Stdio { stdin: client::null()?.into(), stdout: write.into(), stderr }, read))
}
