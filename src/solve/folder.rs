//! The folder that a build leaves in `builds/`: every step's full log and what became of each step.
//!
//! Nothing reads it to decide anything. Only the newest folders are kept, see [`KEPT`].

use serde::Serialize;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// How many builds are remembered.
const KEPT: usize = 64;

/// What became of one step.
#[derive(Debug, Clone, Serialize)]
pub struct StepNote {
    /// As announced.
    pub step: usize,
    /// As shown.
    pub label: String,
    /// `cached`, `done`, `unchanged`, `failed`.
    pub outcome: &'static str,
    /// Hex; absent where no key was needed.
    pub key: Option<String>,
    /// Hex; absent after a failure.
    pub result: Option<String>,
    /// Milliseconds.
    pub took_ms: u64,
}

/// One build's folder; made when the first log line comes, so that a fully cached build writes nothing.
#[derive(Debug)]
pub struct BuildFolder {
    path: PathBuf,
    notes: Mutex<Vec<StepNote>>,
}

impl BuildFolder {
    /// Names the folder of a new build below `builds`.
    pub fn new(builds: &Path) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let name = format!("{:013}-{}", now.as_millis(), std::process::id());
        Self { path: builds.join(name), notes: Mutex::new(Vec::new()) }
    }

    /// Gives where a step's log is.
    pub fn log_path(&self, step: usize) -> PathBuf {
        self.path.join(format!("{step}.log"))
    }

    /// Opens a step's log.
    pub fn log(&self, step: usize) -> io::Result<File> {
        std::fs::create_dir_all(&self.path)?;
        File::create(self.log_path(step))
    }

    /// Notes what became of a step.
    pub fn note(&self, note: StepNote) {
        self.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(note);
    }

    /// Writes the notes when something ran, and removes the oldest folders.
    pub fn finish(&self) -> io::Result<()> {
        let notes = self.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if notes.iter().all(|n| n.outcome == "cached") {
            return Ok(());
        }
        std::fs::create_dir_all(&self.path)?;
        let mut file = File::create(self.path.join("steps.json"))?;
        serde_json::to_writer_pretty(&mut file, &*notes)?;
        file.write_all(b"\n")?;
        self.remove_oldest()
    }

    fn remove_oldest(&self) -> io::Result<()> {
        let Some(builds) = self.path.parent() else { return Ok(()) };
        let mut all: Vec<_> = std::fs::read_dir(builds)?.filter_map(|e| Some(e.ok()?.path())).collect();
        // the names start with the time
        all.sort();
        for old in all.iter().rev().skip(KEPT) {
            std::fs::remove_dir_all(old)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_builds_that_ran_something_leave_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let note =
            |outcome| StepNote { step: 1, label: "x".into(), outcome, key: None, result: None, took_ms: 0 };
        let cached = BuildFolder::new(dir.path());
        cached.note(note("cached"));
        cached.finish().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        for n in 0..KEPT + 5 {
            let mut folder = BuildFolder::new(dir.path());
            folder.path = dir.path().join(format!("{n:013}"));
            folder.note(note("done"));
            folder.finish().unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), KEPT);
    }
}
