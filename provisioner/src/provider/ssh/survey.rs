//! What is there on the hosts of a site, and how it is.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::{Found, Health, Machine, MachineState, Tags};
use super::SshProvider;
use super::check::on_one_line;
use super::facts::Facts;
use super::plan;
use crate::error::{CliError, ExitCode, Retry};
use crate::name::NodeName;
use crate::ssh::target::Target;
use crate::ssh::transport::{Limits, Script};

const SURVEY: &str = include_str!("files/survey");
/// The end of the service's log. `$1`: how many bytes.
const LOG: &str = "\
if [ -d /run/systemd/system ]; then
  journalctl -q -n 20000 -o short-iso --no-pager -u ipop-member.service | tail -c \"$1\"
elif [ -e /var/log/ipop-node.log ]; then
  tail -c \"$1\" /var/log/ipop-node.log
fi";
/// How long a host may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

impl SshProvider {
    fn survey(&self, host: &Target) -> Result<Facts, CliError> {
        let script = Script::new("looking what is there", SURVEY);
        let answer = self
            .transport(host)?
            .run(&script, &Limits::within(PATIENCE))?;
        Ok(Facts::parse(&answer.text()))
    }

    /// The parts on all hosts. A host that does not answer may have parts of a deployment that is
    /// asked for, so that is an error; of whatever is there only what can be seen counts.
    pub(super) fn found(&self, tags: Option<&Tags>) -> Result<Vec<Found>, CliError> {
        let mut found = Vec::new();
        let mut down: Option<CliError> = None;
        for (host, answer) in self.ask_all(|host| self.survey(host)) {
            match answer {
                Ok(facts) => found.extend(parts(host, &facts)),
                Err(error) => {
                    let why = on_one_line(&error);
                    tracing::warn!(site = self.site, %host, why, "not known what is there");
                    down.get_or_insert(error);
                }
            }
        }
        match (tags, down) {
            (Some(_), Some(error)) => Err(error),
            (Some(tags), None) => {
                found.retain(|f| f.tags.as_ref() == Some(tags));
                Ok(found)
            }
            (None, _) => Ok(found),
        }
    }

    /// The deployment's machines. One whose host does not answer is missing, and only that one.
    pub(super) fn states(&self, tags: &Tags) -> Result<BTreeMap<NodeName, Machine>, CliError> {
        let mut machines = BTreeMap::new();
        for (host, answer) in self.ask_all(|host| self.survey(host)) {
            let facts = match answer {
                Ok(facts) => facts,
                Err(error) => {
                    let why = on_one_line(&error);
                    tracing::warn!(site = self.site, %host, why, "state not known");
                    continue;
                }
            };
            let Some(marker) = facts.marker().filter(|m| m.tags == *tags) else {
                continue;
            };
            let state = facts.one("state");
            let running = matches!(state, Some("active" | "activating" | "reloading"));
            let address = host.host.parse().ok();
            let machine = Machine {
                state: match (running, facts.has("member")) {
                    (true, _) => MachineState::Running,
                    (false, true) => MachineState::Stopped,
                    (false, false) => MachineState::Absent,
                },
                underlay: address.or_else(|| facts.one("address")?.parse().ok()),
                place: Some(host.host.clone()),
                why: (!running).then(|| match state {
                    Some(state) => format!("its service is {state}"),
                    None => "it is not installed completely".to_owned(),
                }),
            };
            machines.insert(marker.node, machine);
        }
        Ok(machines)
    }

    /// The end of a node's log.
    pub(super) fn log(
        &self,
        tags: &Tags,
        node: &NodeName,
        limit: usize,
    ) -> Result<Vec<u8>, CliError> {
        let mut why: Option<CliError> = None;
        for (host, answer) in self.ask_all(|host| self.survey(host)) {
            match answer.map(|facts| facts.marker()) {
                Ok(Some(marker)) if marker.tags == *tags && marker.node == *node => {
                    let bytes = limit.to_string();
                    let args = [bytes.as_str()];
                    let mut script = Script::new("reading the log", LOG).args(&args);
                    script.keep = limit;
                    let limits = Limits::within(PATIENCE);
                    return Ok(self.transport(host)?.run(&script, &limits)?.stdout);
                }
                Ok(_) => {}
                Err(error) => why = Some(error),
            }
        }
        let message = format!("`{node}` is on none of the hosts of site `{}`", self.site);
        let error = CliError::new(ExitCode::Unavailable, message).retry(Retry::Never);
        Err(match why {
            Some(why) => error.caused_by(why),
            None => error.hint("its marker, /var/lib/ipop-node/member.json, is gone"),
        })
    }
}

/// What of a node is on `host`.
fn parts(host: &Target, facts: &Facts) -> Vec<Found> {
    if !facts.has("marker") {
        return Vec::new();
    }
    let marker = facts.marker();
    let deployment = marker.as_ref().map_or("", |m| m.tags.deployment.as_str());
    let there = |kind: &&str| *kind == plan::HOST || facts.has(kind);
    let part = |kind: &str| Found {
        resource: plan::resource(kind, host, deployment),
        handle: Some(host.to_string()),
        tags: marker.as_ref().map(|m| m.tags.clone()),
        node: marker.as_ref().map(|m| m.node.clone()),
        health: match facts.one("state") {
            // A service that does not run is made again; the rest has to be there, no more.
            Some(state) if kind == plan::MEMBER && !state.contains("activ") => Health::Broken,
            Some("inactive" | "deactivating") if kind == plan::MEMBER => Health::Broken,
            _ => Health::Present,
        },
    };
    plan::kinds().filter(there).map(part).collect()
}
