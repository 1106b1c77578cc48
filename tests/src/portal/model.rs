//! What the portal knows, and how its experiments go on with time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The one cluster.
pub(super) const CLUSTER: &str = "urn:publicid:IDN+lab.example+authority+cm";

/// How the double behaves.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The only token it takes.
    pub token: String,
    /// The only project.
    pub project: String,
    /// Profiles that exist: name and the parameters they take.
    pub profiles: BTreeMap<String, Vec<String>>,
    /// Its machines: address and hardware type.
    pub machines: Vec<PoolMachine>,
    /// How long each state lasts.
    pub stage: Duration,
    /// Hours from now to which an extension is granted at most.
    pub longest: u32,
    /// Most calls in a second.
    pub rate: Option<u32>,
}

/// A machine that experiments may get.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolMachine {
    /// Address.
    pub ipv4: String,
    /// Hardware type.
    pub hardware: String,
}

/// What an experiment holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Holding {
    /// Its name.
    pub experiment: String,
    /// Its machines, by their place in [`Options::machines`].
    pub machines: Vec<usize>,
}

impl Default for Options {
    fn default() -> Self {
        let parameters = [
            "count",
            "hardware",
            "ipop_owner",
            "ipop_deployment",
            "ipop_uid",
        ];
        Self {
            token: "eyJ0eXAi.test.token".into(),
            project: "lake".into(),
            profiles: [("ipop".to_owned(), parameters.map(str::to_owned).to_vec())].into(),
            machines: Vec::new(),
            stage: Duration::from_millis(100),
            longest: 7 * 24,
            rate: None,
        }
    }
}

/// What goes wrong, as the test says while the double runs.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// So many creations are carried out and their answers lost.
    pub lose_creations: u32,
    /// So many calls of any kind are answered with this status and text instead.
    pub refuse: Option<(u32, u16, String)>,
    /// Experiments fail for want of machines, after they were taken.
    pub late_capacity: bool,
    /// The node of this name fails.
    pub fail_node: Option<String>,
    /// The execute service of this node fails.
    pub fail_startup: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Experiment {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) request: Map<String, Value>,
    pub(super) created: SystemTime,
    pub(super) began: Instant,
    pub(super) ends: SystemTime,
    pub(super) nodes: Vec<Node>,
    pub(super) failed: bool,
    pub(super) terminated: Option<Instant>,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) client_id: String,
    pub(super) machine: usize,
    pub(super) ipv4: String,
    /// When its turn comes.
    pub(super) from: Instant,
    pub(super) fails: bool,
    pub(super) startup_fails: bool,
}

/// How far a node is.
#[derive(PartialEq)]
enum Stage {
    Absent,
    Boots,
    Up,
    Ready,
    Failed,
}

impl Experiment {
    /// Whether it is gone, so that nobody sees it any more.
    pub(super) fn gone(&self, stage: Duration) -> bool {
        let terminated = self.terminated.is_some_and(|t| t.elapsed() >= stage);
        terminated || self.ends <= SystemTime::now()
    }

    /// As the API shows it.
    pub(super) fn show(&self, stage: Duration, elaborate: bool) -> Value {
        let nodes: Vec<_> = self.nodes.iter().map(|n| (n, n.stage(stage))).collect();
        let age = self.began.elapsed();
        let word = if self.terminated.is_some() {
            "terminating"
        } else if (self.failed && age > stage) || nodes.iter().any(|(_, s)| *s == Stage::Failed) {
            "failed"
        } else if !self.failed && nodes.iter().all(|(_, s)| *s == Stage::Ready) {
            "ready"
        } else {
            // The last is a word that no client can know.
            ["created", "provisioning", "provisioned", "percolating"][usize::try_from(
                age.as_millis() / stage.as_millis().max(1),
            )
            .unwrap_or(3)
            .min(3)]
        };
        let mut shown = json!({
            "id": self.id, "name": self.name, "creator": "person", "status": word,
            "created_at": rfc3339(self.created), "expires_at": rfc3339(self.ends),
            "started_at": null,
        });
        let object = shown.as_object_mut().expect("an object");
        for key in ["project", "profile_name", "profile_project"] {
            object.insert(key.into(), self.request[key].clone());
        }
        if elaborate {
            let bindings = self.request.get("bindings").cloned();
            object.insert("bindings".into(), bindings.unwrap_or_else(|| json!({})));
            let there: Vec<_> = nodes
                .iter()
                .filter(|(_, s)| *s != Stage::Absent)
                .map(|(node, s)| node.show(s))
                .collect();
            let aggregates = match there.is_empty() {
                true => json!({}),
                false => json!({ CLUSTER: {
                    "urn": CLUSTER, "name": null, "status": word, "nodes": there,
                } }),
            };
            object.insert("aggregates".into(), aggregates);
        }
        shown
    }
}

impl Node {
    fn stage(&self, stage: Duration) -> Stage {
        let Some(age) = Instant::now().checked_duration_since(self.from) else {
            return Stage::Absent;
        };
        match age.as_millis() / stage.as_millis().max(1) {
            0 => Stage::Boots,
            _ if self.fails => Stage::Failed,
            1 => Stage::Up,
            _ if self.startup_fails => Stage::Failed,
            _ => Stage::Ready,
        }
    }

    fn show(&self, stage: &Stage) -> Value {
        let (status, state, raw, startup) = match stage {
            Stage::Absent | Stage::Boots => ("provisioned", "booting", "TBSETUP", Value::Null),
            // The execute service begins when the node is up.
            Stage::Up => ("ready", "started", "ISUP", "running".into()),
            Stage::Ready => ("ready", "started", "ISUP", "exited (0)".into()),
            Stage::Failed if self.startup_fails => {
                ("ready", "started", "ISUP", "exited (3)".into())
            }
            Stage::Failed => ("failed", "failed", "TBFAILED", Value::Null),
        };
        json!({
            "urn": CLUSTER, "client_id": self.client_id, "status": status, "state": state,
            "rawstate": raw, "startup_status": startup, "ipv4": self.ipv4,
            "hostname": format!("m{:03}.lab.example", self.machine),
        })
    }
}

/// `2025-02-20T06:00:00+00:00`.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years counted from March, in eras of 400 years.
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}+00:00",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written() {
        let at = |seconds| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00+00:00");
        assert_eq!(at(1_740_031_200), "2025-02-20T06:00:00+00:00");
        assert_eq!(at(1_709_208_000), "2024-02-29T12:00:00+00:00");
    }
}
