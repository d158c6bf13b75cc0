//! What state a container is in, and which states it can go to from there.
//!
//! ```text
//!            start                 pause
//! created ─────────► running ◄──────────────► paused
//!    │                │  ▲  │     unpause        │
//!    │           ends │  │  └──── ends ───┐      │ killed
//!    │                ▼  │ back-off over  ▼      ▼
//!    │           restarting ──────────► exited ──────► running (start)
//!    │                        stop        │
//!    └──────────────┬─────────────────────┘
//!                   ▼ rm
//!               removing ──► gone, or dead when something of it could not be removed
//! ```
//!
//! Only the container's monitor writes the state of a live container. Whether it lives is told by its lock on the
//! directory, not by what the file says: a file that says `running` without such a lock was left by a monitor that was
//! killed, whose processes the kernel has ended with it.

use super::network_state::NetworkState;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The state in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Never started.
    #[default]
    Created,
    /// Its process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its process has ended and is started again after a while.
    Restarting,
    /// It is being removed.
    Removing,
    /// Its process has ended.
    Exited,
    /// It could not be removed as a whole.
    Dead,
}

impl Status {
    /// Gives docker's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// Reads docker's word.
    pub fn parse(word: &str) -> Option<Self> {
        [
            Self::Created,
            Self::Running,
            Self::Paused,
            Self::Restarting,
            Self::Removing,
            Self::Exited,
            Self::Dead,
        ]
        .into_iter()
        .find(|status| status.word() == word)
    }

    /// Says whether a monitor must be there.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }

    /// Says whether the container can be started.
    pub fn can_start(self) -> bool {
        matches!(self, Self::Created | Self::Exited)
    }

    /// Says whether there is a process that can be signalled or entered.
    pub fn has_process(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// Says whether one state may follow another.
    pub fn may_become(self, next: Self) -> bool {
        use Status::{Created, Dead, Exited, Paused, Removing, Restarting, Running};
        match (self, next) {
            (Created | Exited | Restarting | Paused, Running)
            | (Running, Paused | Restarting)
            | (Created | Running | Paused | Restarting, Exited)
            | (Created | Exited | Dead, Removing)
            | (Removing, Dead) => true,
            (one, other) => one == other,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// All that changes in the life of a container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// In one word.
    pub status: Status,
    /// The first process as the monitor sees it; 0 when there is none.
    pub pid: u32,
    /// When that process started, in clock ticks since boot: tells it from a later one of the same number.
    pub pid_start: u64,
    /// The monitor.
    pub monitor: u32,
    /// Of the last process that ended; 128 + N after signal N.
    pub exit_code: i32,
    /// Why it could not be started, or what killed it.
    pub error: String,
    /// The memory limit killed a process of it.
    pub oom_killed: bool,
    /// Nanoseconds since 1970; 0 is never.
    #[serde(with = "super::text::moment")]
    pub started: i128,
    /// Nanoseconds since 1970; 0 is never.
    #[serde(with = "super::text::moment")]
    pub finished: i128,
    /// How often the restart policy has started it.
    pub restarts: u32,
    /// The user has stopped it, so no policy starts it again.
    pub stopped_by_user: bool,
    /// What the health check found.
    pub health: Option<super::health::Health>,
    /// What the container has of networks while it runs.
    pub network: NetworkState,
    /// The run of the kernel in which it was started last; empty when it was never started, and when it was ended by a
    /// shutdown rather than by anybody who wanted it to end.
    pub boot: String,
    /// The cgroup directories of its processes.
    pub cgroups: Vec<std::path::PathBuf>,
}

impl State {
    /// Goes to another state.
    ///
    /// # Panics
    /// In debug builds when the drawing above has no such arrow.
    pub fn go(&mut self, next: Status) {
        debug_assert!(self.status.may_become(next), "{} cannot become {next}", self.status);
        self.status = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_and_arrows_are_those_of_the_drawing() {
        let all = [
            Status::Created,
            Status::Running,
            Status::Paused,
            Status::Restarting,
            Status::Removing,
            Status::Exited,
            Status::Dead,
        ];
        let arrows: usize =
            all.iter().map(|a| all.iter().filter(|b| a != *b && a.may_become(**b)).count()).sum();
        assert_eq!(arrows, 14);
        for status in all {
            assert_eq!(Status::parse(status.word()), Some(status));
            assert!(!status.can_start() || !status.is_live());
        }
        assert!(!Status::Dead.may_become(Status::Running));
    }

    #[test]
    fn a_record_of_an_older_version_is_read() {
        let state: State = serde_json::from_str(r#"{"status":"exited","exit_code":3,"later":1}"#).unwrap();
        assert_eq!((state.status, state.exit_code, state.started), (Status::Exited, 3, 0));
    }
}
