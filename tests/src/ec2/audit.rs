//! What was called, for assertions.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Its action.
    pub action: String,
    /// When it came, since the double began.
    pub at: Duration,
    /// The error's code, `lost` when the answer was, none when all was well or it still runs.
    pub failed: Option<String>,
    /// How long it took, once it is over.
    pub took: Option<Duration>,
}

/// All calls.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Audit {
    /// In the order they came.
    pub calls: Vec<Call>,
    running: BTreeMap<String, usize>,
    most: BTreeMap<String, usize>,
    /// Calls that hang, and so end with their connection.
    all_running: usize,
    most_of_all: usize,
}

impl Audit {
    /// How often `action` was called.
    pub fn count(&self, action: &str) -> usize {
        self.calls.iter().filter(|c| c.action == action).count()
    }

    /// How often `action` was called and done without an error.
    pub fn succeeded(&self, action: &str) -> usize {
        let good =
            |call: &&Call| call.action == action && call.failed.is_none() && call.took.is_some();
        self.calls.iter().filter(good).count()
    }

    /// How often a call failed with `code`.
    pub fn failed(&self, code: &str) -> usize {
        let failed = |call: &&Call| call.failed.as_deref() == Some(code);
        self.calls.iter().filter(failed).count()
    }

    /// Calls by action.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for call in &self.calls {
            *counts.entry(call.action.clone()).or_default() += 1;
        }
        counts
    }

    /// Most calls of `action` under way at once.
    pub fn most_at_once(&self, action: &str) -> usize {
        self.most.get(action).copied().unwrap_or(0)
    }

    /// Most calls under way at once.
    pub fn most_calls_at_once(&self) -> usize {
        self.most_of_all
    }

    pub(super) fn begin(&mut self, action: &str, at: Duration) -> usize {
        self.calls.push(Call {
            action: action.to_owned(),
            at,
            failed: None,
            took: None,
        });
        let running = self.running.entry(action.to_owned()).or_default();
        *running += 1;
        let most = self.most.entry(action.to_owned()).or_default();
        *most = (*most).max(*running);
        self.all_running += 1;
        self.most_of_all = self.most_of_all.max(self.all_running);
        self.calls.len() - 1
    }

    pub(super) fn end(&mut self, index: usize, at: Duration, failed: Option<String>) {
        let call = &mut self.calls[index];
        call.failed = failed;
        call.took = Some(at.saturating_sub(call.at));
        if let Some(running) = self.running.get_mut(&call.action) {
            *running = running.saturating_sub(1);
        }
        self.all_running = self.all_running.saturating_sub(1);
    }
}
