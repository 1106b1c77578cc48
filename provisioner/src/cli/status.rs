//! `provision status` and `provision list`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use ipop_proto::candidate::CandidateKind;
use serde::Serialize;

use super::Context;
use crate::deploy::real::Real;
use crate::deploy::settings::Settings;
use crate::deploy::{Meeting, Parts, Watch};
use crate::error::CliError;
use crate::event::Stage;
use crate::keep::Keeper;
use crate::keep::plan::remaining;
use crate::name::NodeName;
use crate::plan::elastic::Elastic;
use crate::power::Report;
use crate::provider::{self, Lease, Machine, MachineState};
use crate::rendezvous::State;
use crate::report::table::{milliseconds, table};
use crate::report::words;
use crate::state::Database;
use crate::state::record::{Deployment, NodeRecord, Phase};

const EXAMPLES: &str = "\
Examples:
  provision status                  every deployment
  provision status cluster          its nodes, as they are now
  provision status cluster --json";

/// How long presences may take to come in.
const LOOK: Duration = Duration::from_secs(2);

/// Show deployments, or the nodes of one.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StatusArgs {
    /// The deployment [default: all, in short]
    pub name: Option<String>,
}

/// A deployment in short.
#[derive(Debug, Serialize)]
struct Summary {
    name: String,
    phase: Phase,
    nodes: usize,
    age_seconds: u64,
    /// Until it is destroyed by itself.
    remaining_seconds: Option<u64>,
    ipv4: String,
    ipv6: String,
}

/// A deployment with its nodes as they are now.
#[derive(Debug, Serialize)]
struct Detail {
    #[serde(flatten)]
    summary: Summary,
    /// Who destroys it when its time is over, and extends its leases.
    kept: Option<Keeper>,
    leases: Vec<SiteLease>,
    rendezvous: Meet,
    /// None where there are no workers that come and go by themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    elastic: Option<ElasticNow>,
    members: Vec<Member>,
}

/// What a site lends, as last heard of.
#[derive(Debug, Serialize)]
struct SiteLease {
    site: String,
    remaining_seconds: u64,
    refused: bool,
}

/// The rendezvous as it is now.
#[derive(Debug, Serialize)]
struct Meet {
    /// Unknown when what its configuration names cannot be read.
    #[serde(flatten)]
    state: Option<State>,
    /// Why it could not be asked for the nodes.
    error: Option<String>,
}

/// The workers that come when jobs wait.
#[derive(Debug, Serialize)]
struct ElasticNow {
    /// At most so many on which sites.
    limits: String,
    /// Who they are, there or not.
    workers: Vec<NodeName>,
    idle_seconds: u64,
    /// Whom the scheduler wants; unknown while the front end is not heard.
    wanted: Option<BTreeSet<String>>,
    /// Those of them that are there, or on their way in or out.
    present: Vec<NodeName>,
    /// Why they cannot follow.
    trouble: Option<String>,
    /// How often in turn it failed.
    failures: u32,
}

impl ElasticNow {
    fn new(elastic: &Elastic, report: Report, nodes: &[NodeName]) -> Self {
        let present = nodes.iter().filter(|node| elastic.has(node));
        Self {
            limits: elastic.to_string(),
            workers: elastic.workers.iter().map(|w| w.name.clone()).collect(),
            idle_seconds: elastic.idle.as_secs(),
            present: present.cloned().collect(),
            wanted: report.wanted,
            trouble: report.trouble,
            failures: report.failures,
        }
    }

    fn text(&self) -> String {
        let list = |names: Vec<&str>| match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        };
        let present = list(self.present.iter().map(|n| n.0.as_str()).collect());
        let wanted = match &self.wanted {
            Some(wanted) => list(wanted.iter().map(String::as_str).collect()),
            None => "unknown".to_owned(),
        };
        let mut text = format!(
            "elastic: at most {}, until idle for {}; wanted: {wanted}; there: {present}\n",
            self.limits,
            age(self.idle_seconds)
        );
        if let Some(why) = &self.trouble {
            text += &format!("warning: elastic workers do not follow: {why}\n");
        }
        if self.failures > 0 {
            let failures = self.failures;
            text += &format!("it is tried again after a while (failures so far: {failures})\n");
        }
        text
    }
}

#[derive(Debug, Serialize)]
struct Member {
    name: NodeName,
    role: String,
    site: String,
    ipv4: String,
    ipv6: String,
    machine: Option<MachineState>,
    /// Why the machine could not be asked for.
    machine_error: Option<String>,
    /// How far it is at this moment, as the rendezvous sees it.
    now: Option<Stage>,
    /// Seconds until it had joined.
    joined_seconds: Option<f64>,
    link: Option<CandidateKind>,
    rtt_us: Option<u64>,
}

/// Runs the command.
pub fn run(context: &Context, args: StatusArgs) -> Result<u8, CliError> {
    let database = context.database()?;
    let text = match args.name {
        None => {
            let all = database.deployments()?;
            let all: Result<Vec<_>, _> = all.iter().map(|d| summary(&database, d)).collect();
            let all = all?;
            if context.global.json {
                json(&all)?
            } else {
                list(&all)
            }
        }
        Some(name) => {
            let deployment = context.deployment(&database, &name)?;
            let detail = detail(context, &database, &deployment)?;
            if context.global.json {
                json(&detail)?
            } else {
                show(&detail)
            }
        }
    };
    print!("{text}");
    Ok(0)
}

fn json(value: &impl Serialize) -> Result<String, CliError> {
    let text = serde_json::to_string(value).map_err(|e| {
        CliError::new(crate::error::ExitCode::Internal, "cannot print JSON").caused_by(e)
    })?;
    Ok(text + "\n")
}

fn summary(database: &Database, deployment: &Deployment) -> Result<Summary, CliError> {
    let age = SystemTime::now()
        .duration_since(deployment.created)
        .unwrap_or_default();
    Ok(Summary {
        name: deployment.name.clone(),
        phase: deployment.phase,
        nodes: database.nodes(deployment.id)?.len(),
        age_seconds: age.as_secs(),
        remaining_seconds: deployment.expires.map(left),
        ipv4: deployment.net4.clone(),
        ipv6: deployment.net6.clone(),
    })
}

fn detail(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
) -> Result<Detail, CliError> {
    let settings = Settings::of(deployment)?;
    let records = database.nodes(deployment.id)?;
    let nodes: Vec<_> = records.iter().map(|n| n.name.clone()).collect();
    let elastic = (!settings.elastic.is_empty()).then(|| {
        let report = Report::read(&context.layout, &deployment.name).unwrap_or_default();
        ElasticNow::new(&settings.elastic, report, &nodes)
    });
    let real = Real {
        layout: &context.layout,
        name: &deployment.name,
        settings: &settings,
        nodes,
        tags: None,
    };
    let meeting = real.meeting();
    if let Ok(meeting) = &meeting
        && let Err(error) = meeting.expire_tokens(SystemTime::now())
    {
        tracing::warn!(error = error.one_line(), "enrolment tokens not looked at");
    }
    let mut watch = match &meeting {
        Ok(meeting) => watch(context, database, deployment, &**meeting),
        Err(e) => Err(e.message.clone()),
    };
    let looked = match &mut watch {
        Ok(watch) => watch.look(LOOK).map_err(|e| e.message),
        Err(why) => Err(why.clone()),
    };
    let (seen, error) = match looked {
        Ok(seen) => (seen, None),
        Err(why) => (Default::default(), Some(why)),
    };
    let rendezvous = Meet {
        state: meeting.ok().map(|meeting| meeting.state()),
        error,
    };
    let mut sites = Sites::new();
    for record in records.iter().filter(|r| r.wanted) {
        if !sites.contains_key(&record.site) {
            let machines = provider::open(&context.layout, settings.site(&record.site)?)
                .and_then(|provider| provider.machines(&deployment.tags()));
            sites.insert(record.site.clone(), machines.map_err(|e| e.message));
        }
    }
    let mut members = Vec::new();
    for record in records.into_iter().filter(|r| r.wanted) {
        let now = seen.get(&record.name).map(|s| s.stage);
        let watch = watch.as_mut().ok().filter(|_| now.is_some());
        members.push(member(&sites, record, now, watch));
    }
    let lease = |(site, lease): (String, Lease)| SiteLease {
        site,
        remaining_seconds: left(lease.ends),
        refused: lease.refused,
    };
    let leases: Vec<_> = database
        .leases(deployment.id)?
        .into_iter()
        .map(lease)
        .collect();
    let keep = context.keep(deployment)?;
    if deployment.phase != Phase::Destroying && keep.find() == Keeper::Nobody {
        keep.start_if_needed(deployment)?;
    }
    let needed = deployment.expires.is_some() || !leases.is_empty();
    Ok(Detail {
        kept: needed.then(|| keep.find()),
        leases,
        summary: summary(database, deployment)?,
        rendezvous,
        elastic,
        members,
    })
}

/// Watches the rendezvous, started again if it stopped: when this machine did, for one. The error
/// is for a person.
fn watch(
    context: &Context,
    database: &Database,
    deployment: &Deployment,
    meeting: &dyn Meeting,
) -> Result<Box<dyn Watch>, String> {
    if meeting.state() == State::Stopped {
        if deployment.phase == Phase::Destroying {
            return Err("it is being removed".to_owned());
        }
        // A destroy at the same time would not see what is started here.
        let locked = context.locked(database, &deployment.name);
        let (_lock, now) = locked
            .map_err(|e| e.message)?
            .ok_or_else(|| "it was removed".to_owned())?;
        if now.id != deployment.id || now.phase == Phase::Destroying {
            return Err("it was removed".to_owned());
        }
        meeting.start(&[]).map_err(|e| e.message)?;
    }
    meeting.watch().map_err(|e| e.message)
}

/// The machines of each site, or why they cannot be asked for.
type Sites = BTreeMap<String, Result<BTreeMap<NodeName, Machine>, String>>;

fn member(
    sites: &Sites,
    record: NodeRecord,
    now: Option<Stage>,
    watch: Option<&mut Box<dyn Watch>>,
) -> Member {
    let (machine, machine_error) = match sites.get(&record.site) {
        Some(Ok(machines)) => {
            let state = machines.get(&record.name).map(|m| m.state);
            (Some(state.unwrap_or(MachineState::Absent)), None)
        }
        Some(Err(why)) => (None, Some(why.clone())),
        None => (None, None),
    };
    // Nobody here sees a member's machine.
    let machine = machine.filter(|_| record.role != crate::plan::MEMBER);
    let status = watch.and_then(|watch| watch.status(&record.name));
    let frontend = |p: &&ipop_proto::status::PeerStatus| {
        p.name.starts_with(crate::plan::FRONTEND) && p.name != record.name.0
    };
    let peer = status.as_ref().and_then(|s| s.peers.iter().find(frontend));
    let joined = record
        .stages
        .iter()
        .find(|(stage, _)| *stage == Stage::Ready);
    Member {
        link: peer.and_then(|p| p.link_kind()),
        rtt_us: peer.and_then(|p| p.rtt_us),
        joined_seconds: joined.map(|(_, seconds)| *seconds),
        now,
        machine,
        machine_error,
        name: record.name,
        role: record.image,
        site: record.site,
        ipv4: record.ipv4,
        ipv6: record.ipv6,
    }
}

/// Whole seconds until a time; 0 when it is over.
fn left(until: SystemTime) -> u64 {
    let left = until.duration_since(SystemTime::now());
    left.unwrap_or_default().as_secs()
}

/// When a deployment and what it is lent end.
fn ends(detail: &Detail) -> String {
    let said = |seconds: u64| remaining(UNIX_EPOCH + Duration::from_secs(seconds), UNIX_EPOCH);
    let mut out = String::new();
    let name = &detail.summary.name;
    if let (Some(seconds), Some(keeper)) = (detail.summary.remaining_seconds, &detail.kept) {
        let words = keeper.words(name);
        out += &format!("is destroyed in {} {words}\n", said(seconds));
    }
    for lease in &detail.leases {
        let left = said(lease.remaining_seconds);
        let end = if lease.refused {
            "refused to extend it: what is there ends with it"
        } else {
            "it is extended in time"
        };
        out += &format!("site {} lends for {left} more, {end}\n", lease.site);
    }
    out
}

fn list(all: &[Summary]) -> String {
    if all.is_empty() {
        return "no deployments\n".to_owned();
    }
    let row = |d: &Summary| {
        vec![
            d.name.clone(),
            d.phase.to_string(),
            d.nodes.to_string(),
            age(d.age_seconds),
            d.ipv4.clone(),
            d.ipv6.clone(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(&["NAME", "PHASE", "NODES", "AGE", "IPV4", "IPV6"], &rows)
}

fn show(detail: &Detail) -> String {
    let row = |m: &Member| {
        let machine = match m.machine {
            Some(MachineState::Running) => "running",
            Some(MachineState::Stopped) => "stopped",
            Some(MachineState::Absent) => "absent",
            None => "unknown",
        };
        vec![
            m.name.to_string(),
            m.site.clone(),
            machine.to_owned(),
            m.now.map_or("not signed in", words).to_owned(),
            m.ipv4.clone(),
            m.ipv6.clone(),
            m.link.map_or("-".to_owned(), |l| l.to_string()),
            m.rtt_us.map_or("-".to_owned(), milliseconds),
        ]
    };
    let rows: Vec<_> = detail.members.iter().map(row).collect();
    let summary = &detail.summary;
    let mut out = format!(
        "{}: {}, {} old\nrendezvous: {}\n{}{}\n",
        summary.name,
        summary.phase,
        age(summary.age_seconds),
        serves(detail.rendezvous.state.as_ref()),
        ends(detail),
        detail
            .elastic
            .as_ref()
            .map_or(String::new(), ElasticNow::text)
    );
    out += &table(
        &[
            "NODE", "SITE", "MACHINE", "OVERLAY", "IPV4", "IPV6", "LINK", "RTT",
        ],
        &rows,
    );
    if let Some(why) = &detail.rendezvous.error {
        out += &format!("\nwarning: the rendezvous cannot be asked: {why}\n");
    }
    if let Some(hint) = go_on(summary) {
        out += &format!("\nhint: {hint}\n");
    }
    for member in &detail.members {
        if let Some(why) = &member.machine_error {
            out += &format!("warning: {}: {why}\n", member.name);
        }
    }
    out
}

/// What continues with a deployment that is not finished.
fn go_on(summary: &Summary) -> Option<String> {
    let name = &summary.name;
    match summary.phase {
        Phase::Creating | Phase::Scaling | Phase::Started | Phase::Partial => {
            Some(format!("`provision resume {name}` continues"))
        }
        Phase::Destroying => Some(format!("`provision destroy {name}` continues")),
        Phase::Joined => None,
    }
}

fn serves(state: Option<&State>) -> String {
    match state {
        Some(State::Running { pid: Some(pid) }) => format!("running (pid {pid})"),
        Some(State::Running { pid: None }) => "running".to_owned(),
        Some(State::Starting { pid }) => format!("starting (pid {pid})"),
        Some(State::Stopped) => "stopped".to_owned(),
        Some(State::Absent) => "absent".to_owned(),
        None => "unknown".to_owned(),
    }
}

pub(super) fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(state: Option<State>, error: Option<&str>) -> Detail {
        Detail {
            summary: Summary {
                name: "demo".to_owned(),
                phase: Phase::Joined,
                nodes: 0,
                age_seconds: 61,
                remaining_seconds: None,
                ipv4: "10.200.7.0/24".to_owned(),
                ipv6: "fd12::/64".to_owned(),
            },
            kept: None,
            leases: Vec::new(),
            elastic: None,
            rendezvous: Meet {
                state,
                error: error.map(str::to_owned),
            },
            members: Vec::new(),
        }
    }

    #[test]
    fn elastic_workers_are_shown_with_their_limits_and_what_keeps_them() {
        let mut plan = crate::plan::tests::demo();
        let elastic = Elastic {
            workers: plan.nodes.split_off(1),
            ..Elastic::default()
        };
        let there = [NodeName("worker-1".to_owned())];
        let report = Report {
            wanted: Some(["worker-0".to_owned()].into()),
            trouble: Some("site `local` is full".to_owned()),
            failures: 2,
            ..Report::default()
        };
        let text = ElasticNow::new(&elastic, report, &there).text();
        assert_eq!(
            text,
            "elastic: at most 2@local, until idle for 10 min; wanted: worker-0; there: worker-1\n\
             warning: elastic workers do not follow: site `local` is full\n\
             it is tried again after a while (failures so far: 2)\n"
        );
        let unheard = ElasticNow::new(&elastic, Report::default(), &[]).text();
        assert!(
            unheard.contains("wanted: unknown; there: none"),
            "{unheard}"
        );
    }

    #[test]
    fn the_state_of_the_rendezvous_is_always_shown() {
        let running = detail(Some(State::Running { pid: Some(7) }), None);
        assert!(show(&running).contains("\nrendezvous: running (pid 7)\n"));
        let text = json(&running).expect("JSON");
        assert!(
            text.contains(r#""rendezvous":{"state":"running","pid":7,"error":null}"#),
            "{text}"
        );
        let stopped = detail(Some(State::Stopped), Some("no address"));
        assert!(show(&stopped).contains("\nrendezvous: stopped\n"));
        assert!(show(&stopped).contains("cannot be asked: no address"));
        let unknown = json(&detail(None, Some("no CA"))).expect("JSON");
        assert!(
            unknown.contains(r#""rendezvous":{"error":"no CA"}"#),
            "{unknown}"
        );
    }
}
