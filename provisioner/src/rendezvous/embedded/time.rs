//! The supervisor's part in keeping a deployment: members whose time is over are not served, and
//! `provision keep` is run again and again.

use std::time::{Duration, SystemTime};

use crate::keep::plan::{is_over, next_look};
use crate::keep::{Time, keep_command};
use crate::layout::Layout;

/// How soon a changed end is seen.
const LOOK: Duration = Duration::from_secs(10);

/// The time of one deployment.
pub struct Clock<'a> {
    layout: &'a Layout,
    deployment: &'a str,
    /// The end, as far as known: a database that cannot be read does not give more time.
    end: Option<SystemTime>,
    kept: SystemTime,
    failures: u32,
}

impl<'a> Clock<'a> {
    /// Reads the end.
    pub fn new(layout: &'a Layout, deployment: &'a str, now: SystemTime) -> Self {
        let mut clock = Self {
            layout,
            deployment,
            end: None,
            kept: now,
            failures: 0,
        };
        clock.read();
        clock
    }

    fn read(&mut self) -> bool {
        match Time::read(self.layout, self.deployment) {
            Ok(time) => {
                self.end = time.end();
                time != Time::Gone
            }
            Err(_) => false,
        }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        is_over(self.end, SystemTime::now())
    }

    /// Waits until it is over, keeping the deployment meanwhile.
    pub async fn over(&mut self) {
        loop {
            let known = self.read();
            let now = SystemTime::now();
            if is_over(self.end, now) {
                return;
            }
            if known && next_look(None, self.kept, self.failures) <= now {
                self.keep().await;
            }
            let left = self.end.and_then(|end| end.duration_since(now).ok());
            tokio::time::sleep(left.unwrap_or(LOOK).min(LOOK)).await;
        }
    }

    /// Destroys the deployment, trying until this process is ended by that.
    pub async fn destroy(&mut self) -> std::convert::Infallible {
        self.failures = 0;
        loop {
            self.keep().await;
            // What succeeds ends this process.
            self.failures = self.failures.max(1);
            let next = next_look(None, self.kept, self.failures);
            let wait = next.duration_since(SystemTime::now()).unwrap_or(LOOK);
            tokio::time::sleep(wait).await;
        }
    }

    /// Runs `provision keep`, which writes into the supervisor's log.
    async fn keep(&mut self) {
        let result = match keep_command(self.layout, self.deployment) {
            Ok(command) => tokio::process::Command::from(command).status().await,
            Err(error) => Err(std::io::Error::other(error)),
        };
        self.kept = SystemTime::now();
        match result {
            Ok(status) if status.success() => self.failures = 0,
            Ok(_) => self.failures += 1,
            Err(error) => {
                eprintln!("cannot run `provision keep {}`: {error}", self.deployment);
                self.failures += 1;
            }
        }
    }
}
