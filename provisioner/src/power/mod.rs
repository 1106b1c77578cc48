//! Has workers come when jobs wait, and go when they are idle: Slurm's power saving.
//!
//! ```text
//! front end                                        owner's side: `provision power NAME`
//! slurmctld ─ResumeProgram, SuspendProgram─▶ files
//!                                              │ ◀── who there may be, how long idle ──┐
//!                         power-follow ────────┴──── who is wanted now ──▶ [`demand`]  │
//!                                 (one SSH session)                           │        │
//!                                                 limits ─▶ plan::elastic ◀───┘     settings
//!                                                             └─▶ engine, under the lock
//! ```
//!
//! The front end asks and nothing more: it has no right at any site. What it says is the whole set of
//! those who are wanted now, again and again, so that nothing is lost when either side restarts; names
//! that are not planned come to nothing. While it is not heard, nothing changes.

pub mod demand;
pub mod keeper;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::CliError;
use crate::layout::Layout;
use crate::rendezvous::{ProcessId, files};

/// Waits after the first failure, doubled by every further one.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// Longest wait after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// How long a run may take to end: it finishes the action in hand.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// What `provision status` shows, kept in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whom the scheduler wants; unknown while the front end is not heard.
    pub wanted: Option<BTreeSet<String>>,
    /// Workers are being made or removed, or whoever did so was killed.
    pub is_busy: bool,
    /// How often in turn that failed.
    pub failures: u32,
    /// Why the front end is not heard, or why that failed.
    pub trouble: Option<String>,
}

impl Report {
    /// How long to wait until it is tried again.
    pub fn pause(&self) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            failures => FIRST_PAUSE
                .saturating_mul(1 << (failures - 1).min(16))
                .min(LONGEST_PAUSE),
        }
    }

    /// As it was written last; none where it never was.
    pub fn read(layout: &Layout, deployment: &str) -> Option<Self> {
        let path = Directory::new(layout, deployment).report();
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}

/// The files of one deployment's process.
#[derive(Debug, Clone)]
pub struct Directory(PathBuf);

impl Directory {
    /// That of `deployment`.
    pub fn new(layout: &Layout, deployment: &str) -> Self {
        Self(layout.power(deployment))
    }

    fn report(&self) -> PathBuf {
        self.0.join("report.json")
    }

    fn id(&self) -> PathBuf {
        self.0.join("process.json")
    }

    /// Makes this process the deployment's; none where another one is.
    pub fn enter(&self) -> Result<Option<File>, CliError> {
        let file = |path: &Path, e| CliError::file("write", path, e);
        files::private_dir(&self.0).map_err(|e| file(&self.0, e))?;
        let path = self.0.join("lock");
        let lock = File::create(&path).map_err(|e| file(&path, e))?;
        if lock.try_lock().is_err() {
            return Ok(None);
        }
        let id = ProcessId::of(std::process::id()).and_then(|own| own.write(&self.id()));
        id.map_err(|e| file(&self.id(), e))?;
        Ok(Some(lock))
    }

    /// Forgets all: the front end knows that there are no elastic workers any more.
    pub fn forget(&self) -> Result<(), CliError> {
        let path = self.report();
        std::fs::remove_file(&path).map_err(|e| CliError::file("remove", &path, e))
    }

    /// Keeps what `provision status` shows.
    pub fn write(&self, report: &Report) -> Result<(), CliError> {
        let path = self.report();
        let text = serde_json::to_string(report).map_err(std::io::Error::other);
        text.and_then(|text| files::write(&path, text.as_bytes(), 0o600))
            .map_err(|e| CliError::file("write", &path, e))
    }

    /// Whether the deployment's process runs.
    pub fn runs(&self) -> bool {
        ProcessId::read(&self.id()).is_some_and(|id| id.alive())
    }

    /// Ends the deployment's process, which leaves what it was doing to whoever has the lock next.
    pub fn end(&self) -> Result<(), CliError> {
        if let Some(id) = ProcessId::read(&self.id()).filter(ProcessId::alive) {
            let ended = id.end(STOP_LIMIT);
            ended.map_err(|e| CliError::file("end the process of", &self.id(), e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_waited_for_longer_each_time_up_to_a_limit() {
        let pause = |failures| {
            let report = Report {
                failures,
                ..Report::default()
            };
            report.pause().as_secs()
        };
        assert_eq!([0, 1, 2, 3, 6, 400].map(pause), [0, 30, 60, 120, 600, 600]);
    }

    #[test]
    fn a_report_is_read_as_it_was_written_and_one_process_writes_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let layout = Layout {
            state: dir.path().to_owned(),
            cache: dir.path().to_owned(),
        };
        std::fs::create_dir_all(layout.deployment("demo")).expect("made");
        assert_eq!(Report::read(&layout, "demo"), None);
        let directory = Directory::new(&layout, "demo");
        let lock = directory.enter().expect("entered");
        assert!(lock.is_some());
        assert!(directory.enter().expect("looked").is_none());
        let report = Report {
            wanted: Some(["worker-1".to_owned()].into()),
            failures: 2,
            ..Report::default()
        };
        directory.write(&report).expect("written");
        assert_eq!(Report::read(&layout, "demo"), Some(report));
    }
}
